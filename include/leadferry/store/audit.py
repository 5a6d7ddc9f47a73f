"""What people did: rows that are only ever added (I8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert

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
