"""What people did: rows that are only ever added (I8)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from leadferry.store.database import Database
from leadferry.store.tables import audit


def record(
    connection: Connection, *, actor: str, action: str, subject: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Write down who did what to which thing, in the caller's transaction.

    Args:
        connection: the transaction that does the thing itself, so that both happen or neither.
        actor: the Airflow user, or the operating system's user on the command line.
        action: `delivery.trigger`, `dispatch.confirmed`, …
        subject: the thing, by its id.
        detail: JSON-able; ids, names and reasons, never a lead's data.
    """
    connection.execute(
        insert(audit).values(actor=actor, action=action, object=subject, detail=dict(detail or {}))
    )


def note_once(database: Database, *, action: str, subject: str, detail: Mapping[str, Any]) -> bool:
    """Write down what happened by itself to a thing, once; False when it is written down already."""
    known = select(audit.c.id).where(audit.c.action == action, audit.c.object == subject).limit(1)
    with database.transaction() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"{action} {subject}"))))
        if connection.scalar(known) is not None:
            return False
        record(connection, actor="leadferry", action=action, subject=subject, detail=detail)
    return True


def trail(  # noqa: PLR0913  (one parameter for each question)
    database: Database,
    *,
    subject: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """List what people did, the newest first; each argument that is given narrows it down.

    Args:
        database: the lead store.
        subject: the thing, as the row names it: `batch acme`, `lead 17`, `file 3`.
        actor: who.
        action: what, or all that begins with it: `lead` means `lead.hold` and `lead.release` too.
        since: from this moment on, aware.
        limit: most rows.
    """
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if subject is not None:
        query = query.where(audit.c.object == subject)
    if actor is not None:
        query = query.where(audit.c.actor == actor)
    if action is not None:
        below = audit.c.action.startswith(f"{action}.", autoescape=True)
        query = query.where((audit.c.action == action) | below)
    if since is not None:
        query = query.where(audit.c.at >= since)
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
