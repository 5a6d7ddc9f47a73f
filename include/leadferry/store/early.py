"""Departures before their time: asked for when enough leads wait, or one for too long; once after each delivery.

Of an order that nobody obeyed it is reminded after a pause, and a batch for which nothing else comes also of one that took no
leads: nothing else would ever take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, false, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.database import Database
from leadferry.store.due import due, window
from leadferry.store.queue import any_waiting
from leadferry.store.routing import route_new_leads
from leadferry.store.tables import delivery, early_departure, queue_entry
from leadferry.units import told_roughly
from leadferry.zones import told_moment


def order_early(  # noqa: PLR0913  # what is asked, and of which batch
    database: Database,
    batch_id: str,
    *,
    flows: Sequence[str],
    received_from: datetime | None,
    leads: int | None,
    oldest: timedelta | None,
    again_after: timedelta,
    others_come: bool,
    window_to: datetime | None = None,
    must_wait: ColumnElement[bool] | None = None,
    zone: str = "UTC",
) -> str | None:
    """Ask for a departure when it is due; return why, or None when it is not due or was asked for already.

    However often and by however many it is looked, a batch is asked once after each delivery that was made, and once more
    each time that `again_after` has passed since it was asked without any departure: who was to carry the order on may have
    died with it. A departure that took nothing, or failed, is repeated only where no others come; the pause begins when it
    has ended. Only leads count that a departure would take now: a lead that cannot go must not make a departure of every
    lead that comes after it.

    Args:
        database: the lead store.
        batch_id: whose queue.
        flows: the flows it listens to; new leads are routed first.
        received_from: a batch that is new to a flow collects its leads from here on; aware.
        leads: due when this many wait.
        oldest: due when the oldest waits this long.
        again_after: the pause before it is asked again; longer than a run may wait before it claims.
        others_come: whether a timetable goes on that takes what an early departure left.
        window_to: leads received from here on do not count; now, by the database's clock, when left out; aware.
        must_wait: SQL on the table `lead`, never NULL, true for a lead that does not count, for it would stay.
        zone: of the batch's schedule; people are told in it since when it was asked for.

    Raises:
        StoreUnavailableError: nothing happened; call it again.
    """
    batch_no = route_new_leads(database, batch_id=batch_id, flows=flows, received_from=received_from)
    with database.transaction() as connection:
        after = _last_delivery(connection, batch_no)
        asked = _asked(connection, batch_no, after=after)
        if asked.times and ((others_come and asked.answered) or asked.quiet < again_after):
            return None
        may_go = _may_go(connection, batch_no, window_to=window_to, must_wait=must_wait)
        reason = _why_now(may_go, leads=leads, oldest=oldest)
        if reason is None:
            return None
        if asked.times:
            reason += f"; asked again: no departure took leads since {told_moment(asked.since, zone=zone)}"
        row = {"batch_no": batch_no, "after_delivery": after, "number": asked.times + 1, "reason": reason}
        order = upsert(early_departure).values(row).on_conflict_do_nothing()
        made = connection.scalar(order.returning(early_departure.c.batch_no))
    return None if made is None else reason


def _may_go(
    connection: Connection,
    batch_no: int,
    *,
    window_to: datetime | None,
    must_wait: ColumnElement[bool] | None,
) -> Row[Any]:
    """Count the `leads` that a claim would look at now, and say of what `age` the oldest is."""
    _, until = window(connection, batch_no, begins=None, ends=window_to)
    has_stops = any_waiting(connection, batch_no)
    conditions = due(batch_no, window_to=until, must_wait=must_wait, has_stops=has_stops)
    age = func.now() - func.min(queue_entry.c.received_at)
    columns: list[ColumnElement[Any]] = [func.count().label("leads"), age.label("age")]
    return connection.execute(select(*columns).where(*conditions)).one()


def _why_now(may_go: Row[Any], *, leads: int | None, oldest: timedelta | None) -> str | None:
    if leads is not None and may_go.leads >= leads:
        return f"{may_go.leads} leads wait"
    if oldest is not None and may_go.age is not None and may_go.age >= oldest:
        return f"a lead waits for {told_roughly(may_go.age)}"
    return None


def _asked(connection: Connection, batch_no: int, *, after: int) -> Row[Any]:
    """Return how often a batch was asked after a delivery, and what came of it.

    Its columns: `times`; `since` when (aware); whether the last order was `answered` by a departure, whatever became of that;
    how long it is `quiet` since the order, or since the end of that departure.
    """
    orders = early_departure.c
    of_it = (
        delivery.c.batch_no == batch_no,
        delivery.c.id > after,
        delivery.c.kind == DeliveryKind.DEPARTURE,
    )
    begun = select(func.max(delivery.c.claimed_at)).where(*of_it).scalar_subquery()
    ended = select(func.max(func.coalesce(delivery.c.settled_at, delivery.c.claimed_at))).where(*of_it)
    last = func.max(orders.ordered_at)
    return connection.execute(
        select(
            func.count().label("times"),
            func.min(orders.ordered_at).label("since"),
            func.coalesce(begun >= last, false()).label("answered"),
            (func.now() - func.greatest(last, ended.scalar_subquery())).label("quiet"),
        ).where(orders.batch_no == batch_no, orders.after_delivery == after)
    ).one()


def _last_delivery(connection: Connection, batch_no: int) -> int:
    """Return the newest delivery that took leads and did not give them back; 0 when there is none."""
    last = select(func.coalesce(func.max(delivery.c.id), 0)).where(
        delivery.c.batch_no == batch_no,
        delivery.c.number.is_not(None),
        delivery.c.kind == DeliveryKind.DEPARTURE,
        delivery.c.state != DeliveryState.FAILED,
    )
    found: int = connection.scalars(last).one()
    return found
