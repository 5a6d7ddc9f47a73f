"""What people did: rows that are only ever added (I8)."""

from __future__ import annotations

from collections.abc import Mapping
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
