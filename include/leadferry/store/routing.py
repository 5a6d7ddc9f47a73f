"""Routing: new leads come into the queue of every batch that listens to their flow, a lot for each routing.

Set-based SQL, whose cost grows with the leads that are new.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from leadferry.errors import StoreConflictError
from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.database import Database
from leadferry.store.tables import batch, delivery, lead, lot, queue_entry, subscription

MANY_LEADS = 10_000
"""From here on the planner's old idea of a table costs more than telling it anew (a tenth of a second)."""

_TRIES = 20
"""A routing waits for claims of those batches to which it gives leads, and begins anew on a snapshot that knows what they
took: once for each claim under way, since none begins without a routing of its own."""


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Which leads come into a batch's queue."""

    flows: Sequence[str]
    received_from: datetime | None = None
    """Of a flow that it is new to, those received from this instant on; aware. Until the batch's first delivery
    its queue follows every change of this, so that nobody is too late who looked into it before."""

    def changes(self, subscribed: Iterable[Row[Any]]) -> tuple[set[str], set[str]]:
        """Compare with what is subscribed: which flows are to leave the queue, which are to come in (some do both)."""
        rows = list(subscribed)
        same = {row.flow for row in rows if row.began or row.received_from == self.received_from}
        stays = same & set(self.flows)
        return {row.flow for row in rows} - stays, set(self.flows) - stays


def route(connection: Connection, *, batch_no: int, intake: Intake) -> None:
    """Offer all new leads to all batches, and bring this batch's subscriptions up to date.

    One at a time, on one snapshot, so that a lead that arrives meanwhile is either in the new subscriber's first fill
    or still to be offered, never both and never neither. Call it first in its transaction.
    """
    # LOCK TABLE does not take a snapshot; the statements after it see everything that was committed before it.
    connection.execute(text("LOCK TABLE subscription IN SHARE ROW EXCLUSIVE MODE"))
    _offer_arrivals(connection)
    _subscribe(connection, batch_no, intake)


def _offer_arrivals(connection: Connection) -> None:
    """Hand the leads that arrived since the last routing to every batch that listens, one new lot for each."""
    connection.execute(
        text(
            """
            WITH taken AS (DELETE FROM arrival RETURNING lead_id, flow, received_at),
            lots AS (
                INSERT INTO lot (batch_no, newest_received_at)
                SELECT batch_no, max(received_at) FROM taken JOIN subscription USING (flow) GROUP BY batch_no
                RETURNING id, batch_no
            )
            INSERT INTO queue_entry (batch_no, lead_id, lot_id, received_at)
            SELECT batch_no, lead_id, lots.id, received_at
            FROM taken JOIN subscription USING (flow) JOIN lots USING (batch_no)
            """
        )
    )


def _subscribe(connection: Connection, batch_no: int, intake: Intake) -> None:
    mine = connection.execute(_subscriptions().where(batch.c.no == batch_no))
    leaving, coming = intake.changes(mine)
    if leaving:
        _unsubscribe(connection, batch_no=batch_no, flows=leaving)
    if coming:
        since = {"batch_no": batch_no, "received_from": intake.received_from}
        connection.execute(insert(subscription), [{**since, "flow": flow} for flow in sorted(coming)])
        new = Intake(flows=sorted(coming), received_from=intake.received_from)
        _first_fill(connection, batch_no=batch_no, intake=new)


def _subscriptions() -> Select[Any]:
    """Ask for what is subscribed, and whether the batch's first delivery was (`began`)."""
    columns = [batch.c.id, subscription.c.flow, subscription.c.received_from]
    began = (batch.c.last_number > 0).label("began")
    return select(*columns, began).join_from(subscription, batch, batch.c.no == subscription.c.batch_no)


def _first_fill(connection: Connection, *, batch_no: int, intake: Intake) -> None:
    """Give a batch what it finds of flows that it begins to listen to: all leads that it never had."""
    # A lead that somebody redelivered to this batch before it listened to the flow has only a copy.
    redelivered = exists().where(
        lot.c.id == queue_entry.c.lot_id,
        delivery.c.id == lot.c.delivery_id,
        delivery.c.kind == DeliveryKind.REDELIVERY,
        delivery.c.state.not_in([DeliveryState.FAILED, DeliveryState.SKIPPED]),
    )
    had = exists().where(
        queue_entry.c.lead_id == lead.c.id,
        queue_entry.c.batch_no == batch_no,
        (queue_entry.c.copy == 0) | redelivered,
    )
    found = select(literal(batch_no), lead.c.id, lead.c.received_at).where(
        lead.c.flow.in_(intake.flows), ~had
    )
    if intake.received_from is not None:
        found = found.where(lead.c.received_at >= intake.received_from)
    lot_id = new_lot(connection, batch_no)
    # Sorted, so that all is found before the first is written: should the planner scan the queue for each lead
    # (it was empty when last looked at), it must not scan what this very statement adds to it.
    entries = found.add_columns(literal(lot_id)).order_by(lead.c.id)
    names = ["batch_no", "lead_id", "received_at", "lot_id"]
    connection.execute(insert(queue_entry).from_select(names, entries))
    close_lot(connection, lot_id)


def _unsubscribe(connection: Connection, *, batch_no: int, flows: set[str]) -> None:
    """Stop listening; leads of the flow that wait leave this queue, and come back should the batch listen again."""
    connection.execute(
        delete(subscription).where(subscription.c.batch_no == batch_no, subscription.c.flow.in_(flows))
    )
    lock_batch(connection, batch_no)  # a claim must not have judged leads that are gone when it takes them
    lots = list(connection.scalars(select(lot.c.id).where(waiting_lots(batch_no))))
    connection.execute(
        delete(queue_entry).where(
            queue_entry.c.lot_id.in_(lots), lead.c.id == queue_entry.c.lead_id, lead.c.flow.in_(flows)
        )
    )


def lock_subscriptions(connection: Connection) -> None:
    """Let no routing be under way, nor begin, until the transaction ends. Comes before `lock_batch`, as when leads are routed."""
    connection.execute(text("LOCK TABLE subscription IN SHARE MODE"))


def lock_batch(connection: Connection, batch_no: int) -> None:
    """Let no claim of a batch be under way, nor begin, until the transaction ends."""
    connection.execute(select(batch.c.no).where(batch.c.no == batch_no).with_for_update())


def waiting_lots(batch_no: int) -> ColumnElement[bool]:
    """Return the condition for the lots of a batch that no delivery has."""
    return (lot.c.batch_no == batch_no) & lot.c.delivery_id.is_(None)


def new_lot(
    connection: Connection, batch_no: int, *, delivery_id: int | None = None, returns: bool = True
) -> int:
    """Make an empty lot, waiting or in a delivery; call `close_lot` when it is filled.

    Args:
        connection: the transaction.
        batch_no: whose queue.
        delivery_id: which delivery takes it; None when it waits.
        returns: whether its leads go back to the queue should the delivery fail; copies do not.
    """
    values = {
        "batch_no": batch_no,
        "delivery_id": delivery_id,
        "newest_received_at": func.now(),
        "returns": returns,
    }
    lot_id: int = connection.scalars(insert(lot).values(values).returning(lot.c.id)).one()
    return lot_id


def close_lot(connection: Connection, lot_id: int) -> int:
    """Note how far a filled lot reaches in time, and let the planner know of a large one. Returns its leads."""
    row = connection.execute(
        select(func.count().label("leads"), func.max(queue_entry.c.received_at).label("newest")).where(
            queue_entry.c.lot_id == lot_id
        )
    ).one()
    if row.newest is not None:
        connection.execute(update(lot).where(lot.c.id == lot_id).values(newest_received_at=row.newest))
    if row.leads >= MANY_LEADS:
        connection.execute(text("ANALYZE queue_entry"))
    leads: int = row.leads
    return leads


def lots_of(connection: Connection, delivery_id: int) -> list[int]:
    """Return the ids of a delivery's lots: as values in a query they tell the planner how many leads to expect."""
    return list(connection.scalars(select(lot.c.id).where(lot.c.delivery_id == delivery_id)))


def out_of_date(database: Database, intakes: Mapping[str, Intake]) -> list[str]:
    """Return the batches, by id, whose queue is not what it should be: they are new, or their files have changed.

    What waits for any other can be told without routing (`leadferry.store.waiting.queues`). Reads only; one query.
    """
    subscribed: dict[str, list[Row[Any]]] = defaultdict(list)
    with database.transaction() as connection:
        for row in connection.execute(_subscriptions()):
            subscribed[row.id].append(row)
    return [one for one, intake in intakes.items() if any(intake.changes(subscribed[one]))]


def route_new_leads(
    database: Database,
    *,
    batch_id: str,
    flows: Sequence[str],
    received_from: datetime | None = None,
    within: timedelta | None = None,
) -> int:
    """Route in a transaction of its own and return the batch's number; seconds for a million new leads.

    Args:
        database: the lead store.
        batch_id: whose queue is brought up to date.
        flows: see `Intake`.
        received_from: see `Intake`.
        within: how long to wait for another routing, or to work, at most; without end when left out.

    Raises:
        StoreError: it took longer, or the store refused; nothing was routed.
    """
    with database.transaction() as connection:
        connection.execute(upsert(batch).values(id=batch_id).on_conflict_do_nothing())
        batch_no: int = connection.scalars(select(batch.c.no).where(batch.c.id == batch_id)).one()
    tries = Retrying(
        retry=retry_if_exception_type(StoreConflictError), stop=stop_after_attempt(_TRIES), reraise=True
    )
    intake = Intake(flows=flows, received_from=received_from)
    tries(_route_alone, database, batch_no=batch_no, intake=intake, within=within)
    return batch_no


def _route_alone(database: Database, *, batch_no: int, intake: Intake, within: timedelta | None) -> None:
    with database.transaction() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        if within is not None:
            connection.execute(
                text(f"SET LOCAL statement_timeout = {max(1, int(within.total_seconds() * 1000))}")
            )
        route(connection, batch_no=batch_no, intake=intake)
