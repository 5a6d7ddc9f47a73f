"""Departures that a person wants left out: ordered once, honoured by exactly one scheduled run."""

from __future__ import annotations

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.tables import skip_order

SKIPPED_ON_REQUEST = "left out on request"
"""How the reason of such a delivery begins."""


def order_skip(database: Database, batch_id: str, *, actor: str, reason: str) -> bool:
    """Ask that a batch's next scheduled departure be left out; its leads stay in the queue.

    Returns whether this is a new order: a second one before the departure changes nothing.

    Raises:
        StoreUnavailableError: nothing happened; call it again.
    """
    order = upsert(skip_order).values(batch_id=batch_id, actor=actor, reason=reason)
    once = order.on_conflict_do_nothing(
        index_elements=[skip_order.c.batch_id], index_where=skip_order.c.run_id.is_(None)
    )
    with database.transaction() as connection:
        made = connection.scalar(once.returning(skip_order.c.id))
        if made is None:
            return False
        subject, detail = f"batch {batch_id}", {"reason": reason}
        record(connection, actor=actor, action="schedule.skip_next", subject=subject, detail=detail)
    return True


def withdraw_skip(database: Database, batch_id: str, *, actor: str, reason: str) -> bool:
    """Take such an order back; False when none waits."""
    waiting = (skip_order.c.batch_id == batch_id) & skip_order.c.run_id.is_(None)
    with database.transaction() as connection:
        found = connection.scalar(skip_order.delete().where(waiting).returning(skip_order.c.id))
        if found is None:
            return False
        subject, detail = f"batch {batch_id}", {"reason": reason}
        record(connection, actor=actor, action="schedule.keep_next", subject=subject, detail=detail)
    return True


def use_skip(connection: Connection, batch_id: str, *, run_id: str) -> str | None:
    """Let a run use the order that waits, and say why it is left out; None when it goes.

    Called again for the same run, as a retried or cleared task does, it says the same.
    """
    own = (skip_order.c.batch_id == batch_id) & (skip_order.c.run_id == run_id)
    found = connection.execute(select(skip_order.c.actor, skip_order.c.reason).where(own)).one_or_none()
    if found is None:
        waiting = (skip_order.c.batch_id == batch_id) & skip_order.c.run_id.is_(None)
        used = update(skip_order).where(waiting).values(run_id=run_id)
        found = connection.execute(used.returning(skip_order.c.actor, skip_order.c.reason)).one_or_none()
    return f"{SKIPPED_ON_REQUEST} of {found.actor}: {found.reason}" if found else None
