"""Departures of a timetable that a person wants left out: each order means one of them, and only that one.

An order names an instant. It means the departure of the timetable at that instant; when the schedule was edited since and
has none there, the first one after it. So an order whose departure never came about (the DAG was paused, or a later run
stood for those that were missed) means none that is to come: it is void, and a later departure is not left out for it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, and_, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.tables import batch, delivery, skip_order
from leadferry.zones import told_moment

SKIPPED_ON_REQUEST = "left out on request"
"""How the reason of such a delivery begins."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A departure of a batch's timetable, as the schedule is now."""

    at: datetime
    """Aware."""
    follows: datetime | None
    """The departure before it; an order for an instant after that one means this departure. Aware; None: the first."""
    zone: str = "UTC"
    """Of the schedule: people are told in it when the departure is."""

    @property
    def is_meant(self) -> ColumnElement[bool]:
        """The condition for the orders that mean this departure; those of other batches too."""
        until = skip_order.c.departs_at <= self.at
        return until if self.follows is None else and_(until, skip_order.c.departs_at > self.follows)


class Answer(StrEnum):
    """What becomes of an order to leave a departure out."""

    NEW = "new"
    """It will be left out."""
    KNOWN = "known"
    """It was ordered before, and may have been left out by now; nothing was changed."""
    TAKEN = "taken"
    """Too late: its run has taken its leads already; nothing was changed."""
    OVER = "over"
    """Too late: its run found nothing to take, or failed; nothing was changed."""


def order_skip(database: Database, batch_id: str, slot: Slot, *, actor: str, reason: str) -> Answer:
    """Ask that a departure be left out; its leads stay in the queue. A second order for it changes nothing.

    Raises:
        StoreUnavailableError: nothing happened; call it again.
    """
    with database.transaction() as connection:
        _lock(connection, batch_id)
        mine = (skip_order.c.batch_id == batch_id) & slot.is_meant
        if connection.scalar(select(skip_order.c.id).where(mine).limit(1)) is not None:
            return Answer.KNOWN
        states = _states(connection, batch_id, slot)
        if states:
            over = states <= {DeliveryState.FAILED, DeliveryState.SKIPPED}
            return Answer.OVER if over else Answer.TAKEN
        row = {"batch_id": batch_id, "departs_at": slot.at, "actor": actor, "reason": reason}
        connection.execute(insert(skip_order).values(row))
        _audit(connection, "schedule.skip_next", batch_id, slot.at, actor=actor, reason=reason)
    return Answer.NEW


def _lock(connection: Connection, batch_id: str) -> None:
    """Let no claim of the batch overlook what follows, nor its first one, which would make the batch known."""
    connection.execute(upsert(batch).values(id=batch_id).on_conflict_do_nothing())
    connection.execute(select(batch.c.no).where(batch.c.id == batch_id).with_for_update())


def _states(connection: Connection, batch_id: str, slot: Slot) -> set[DeliveryState]:
    """Return how the deliveries stand that were made for a departure; most have one, ahead of its time."""
    made = (
        select(delivery.c.state)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(
            batch.c.id == batch_id,
            delivery.c.departs_at == slot.at,
            delivery.c.kind == DeliveryKind.DEPARTURE,
        )
    )
    return set(connection.scalars(made))


def withdraw_skips(
    database: Database, batch_id: str, *, after: datetime | None, actor: str, reason: str
) -> list[datetime]:
    """Take back the orders that no run has used yet; return for which departures, the earliest first.

    Args:
        database: the lead store.
        batch_id: the batch.
        after: orders up to here are void and are left alone; aware; None to take back all.
        actor: who does it.
        reason: why; stored.
    """
    waiting = [skip_order.c.batch_id == batch_id, skip_order.c.run_id.is_(None)]
    if after is not None:
        waiting.append(skip_order.c.departs_at > after)
    with database.transaction() as connection:
        taken = skip_order.delete().where(*waiting).returning(skip_order.c.departs_at)
        instants = sorted(connection.scalars(taken))
        for instant in instants:
            _audit(connection, "schedule.keep_next", batch_id, instant, actor=actor, reason=reason)
    return instants


def left_out_from(database: Database, batch_id: str, moment: datetime) -> list[datetime]:
    """Return the departures from a moment on that were left out already, ahead of their time."""
    used = select(skip_order.c.departs_at).where(
        skip_order.c.batch_id == batch_id,
        skip_order.c.departs_at >= moment,
        skip_order.c.run_id.is_not(None),
    )
    with database.transaction() as connection:
        return sorted(connection.scalars(used))


def to_be_left_out(database: Database, moment: datetime) -> dict[str, list[datetime]]:
    """Return the instants from a moment on that are ordered to be left out and were not yet, by the batches' ids."""
    ordered = select(skip_order.c.batch_id, skip_order.c.departs_at).where(
        skip_order.c.departs_at >= moment, skip_order.c.run_id.is_(None)
    )
    found = defaultdict(list)
    with database.transaction() as connection:
        for batch_id, departs_at in connection.execute(ordered):
            found[batch_id].append(departs_at)
    return found


def _audit(  # noqa: PLR0913  (all but four by keyword)
    connection: Connection, action: str, batch_id: str, departs_at: datetime, *, actor: str, reason: str
) -> None:
    detail = {"reason": reason, "departs_at": departs_at.isoformat()}
    record(connection, actor=actor, action=action, subject=f"batch {batch_id}", detail=detail)


def use_skip(connection: Connection, batch_id: str, slot: Slot, *, run_id: str) -> str | None:
    """Let a run use the order that means its departure, and say why it is left out; None when it goes.

    Called again for the same run, as a retried or cleared task does, it says the same. Call it with the batch locked.
    """
    columns = (skip_order.c.departs_at, skip_order.c.actor, skip_order.c.reason)
    mine = skip_order.c.batch_id == batch_id
    found = connection.execute(select(*columns).where(mine, skip_order.c.run_id == run_id)).one_or_none()
    if found is None:
        meant = select(skip_order.c.id).where(mine, skip_order.c.run_id.is_(None), slot.is_meant)
        # The latest: an order that names the instant itself is there besides one for a time that is no more.
        one = meant.order_by(skip_order.c.departs_at.desc()).limit(1).scalar_subquery()
        used = update(skip_order).where(skip_order.c.id == one).values(run_id=run_id, departs_at=slot.at)
        found = connection.execute(used.returning(*columns)).one_or_none()
    if found is None:
        return None
    when = told_moment(found.departs_at, zone=slot.zone)
    return f"{SKIPPED_ON_REQUEST} of {found.actor}: {found.reason} (the departure of {when})"
