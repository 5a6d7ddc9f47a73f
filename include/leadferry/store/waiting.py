"""What waits in the queues: how many, since when, from which flows. Reads only; the price grows with what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Double,
    Row,
    Select,
    Text,
    case,
    cast,
    func,
    literal,
    select,
    text,
)

from leadferry.store.database import Database
from leadferry.store.queue import Stop, any_waiting, held, stop_reason
from leadferry.store.routing import waiting_lots
from leadferry.store.tables import lead, lot, queue_entry

PENDING = "pending"
"""Beside the values of `Stop`: it waits and may go."""

AGES = {
    "under 1 hour": timedelta(hours=1),
    "1 to 6 hours": timedelta(hours=6),
    "6 to 24 hours": timedelta(days=1),
    "1 to 3 days": timedelta(days=3),
    "3 to 7 days": timedelta(days=7),
    "7 days and more": timedelta.max,
}
"""The classes of the histogram, each with the age from which on it no longer counts."""


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What waits for one batch. Times are aware; ages are told by the database's clock."""

    leads: int
    """Held ones too; not those that are cancelled and leave the queue with the next departure."""
    held: int
    cancelled: int
    oldest_received_at: datetime | None
    newest_received_at: datetime | None
    oldest_age_seconds: int | None
    flows: dict[str, int]
    """Leads by flow, most first."""
    ages: dict[str, int]
    """Leads by age, by the names of `AGES`."""


def queue_of(database: Database, batch_no: int) -> Queue:
    """Count what waits for a batch; route new leads first (`leadferry.store.routing.route_new_leads`)."""
    with database.transaction() as connection:
        found = connection.execute(_counts(connection, batch_no)).all()
    staying = [row for row in found if row.standing != Stop.CANCELLED]
    oldest = min((row.oldest for row in staying), default=None)
    by_flow, by_age = Counter[str](), Counter[int]()
    for row in staying:
        by_flow[row.flow] += row.leads
        by_age[row.age] += row.leads
    return Queue(
        leads=by_flow.total(),
        held=_sum(found, Stop.HELD),
        cancelled=_sum(found, Stop.CANCELLED),
        oldest_received_at=oldest,
        newest_received_at=max((row.newest for row in staying), default=None),
        oldest_age_seconds=None if oldest is None else int((found[0].asked_at - oldest).total_seconds()),
        flows=dict(by_flow.most_common()),
        ages={name: by_age[number] for number, name in enumerate(AGES)},
    )


def _sum(found: Sequence[Row[Any]], standing: Stop) -> int:
    return sum(row.leads for row in found if row.standing == standing)


def _counts(connection: Connection, batch_no: int) -> Select[Any]:
    """Count by flow, age and standing: a handful of rows, whatever waits."""
    seconds = func.extract("epoch", func.now() - queue_entry.c.received_at)
    limits = [limit.total_seconds() for limit in AGES.values()][:-1]
    age = func.width_bucket(cast(seconds, Double), cast(literal(limits, ARRAY(Double)), ARRAY(Double)))
    columns = [lead.c.flow, age.label("age"), _standing(connection, batch_no).label("standing")]
    return (
        _waiting(batch_no)
        .with_only_columns(
            *columns,
            func.count().label("leads"),
            func.min(queue_entry.c.received_at).label("oldest"),
            func.max(queue_entry.c.received_at).label("newest"),
            func.now().label("asked_at"),
        )
        .group_by(text("1"), text("2"), text("3"))  # by place: told twice, parameters are not the same
    )


def _standing(connection: Connection, batch_no: int) -> ColumnElement[str]:
    """Tell held and cancelled leads from the others; costs nothing while no lead that waits is stopped."""
    if not any_waiting(connection, batch_no):
        return literal(PENDING, Text)
    return case(
        (stop_reason(batch_no).is_not(None), literal(Stop.CANCELLED.value, Text)),
        (held(batch_no), literal(Stop.HELD.value, Text)),
        else_=literal(PENDING, Text),
    )


def _waiting(batch_no: int) -> Select[Any]:
    return (
        select(queue_entry.c.lead_id)
        .join(lot, lot.c.id == queue_entry.c.lot_id)
        .join(lead, lead.c.id == queue_entry.c.lead_id)
        .where(waiting_lots(batch_no))
    )


def first_waiting(database: Database, batch_no: int, *, limit: int) -> list[dict[str, Any]]:
    """Return the leads that have waited longest, with their fields: mask them before anybody sees them."""
    with database.transaction() as connection:
        standing = _standing(connection, batch_no)
        query = (
            _waiting(batch_no)
            .with_only_columns(
                lead.c.id, lead.c.flow, queue_entry.c.received_at, standing.label("status"), lead.c.fields
            )
            .order_by(queue_entry.c.received_at, queue_entry.c.lead_id)
            .limit(limit)
        )
        return [dict(row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What waits for one batch, in short: also what is held, not what is cancelled. Times are aware."""

    leads: int
    oldest: datetime
    newest: datetime


def queues(database: Database) -> dict[str, Waiting]:
    """Return what waits for every batch for which anything does, by its id, the longest wait first.

    New leads that are in no queue yet count for every batch that listens to their flow, so nobody needs to route first,
    unless a batch's queue is not what its file says (`leadferry.store.routing.out_of_date`).
    Reads only; the price grows with what waits.
    """
    query = text(
        """
        WITH queued AS (
            SELECT batch_no, count(*) AS leads, min(received_at) AS oldest, max(received_at) AS newest
            FROM pending WHERE NOT EXISTS (
                SELECT FROM lead_stop WHERE lead_stop.lead_id = pending.lead_id AND kind = 'cancelled'
                AND lead_stop.batch_no IN (0, pending.batch_no))
            GROUP BY batch_no
        ), arrived AS (
            SELECT flow, count(*) AS leads, min(received_at) AS oldest, max(received_at) AS newest
            FROM arrival WHERE NOT EXISTS (
                SELECT FROM lead_stop WHERE lead_stop.lead_id = arrival.lead_id AND kind = 'cancelled' AND batch_no = 0)
            GROUP BY flow
        )
        SELECT batch.id, sum(leads) AS leads, min(oldest) AS oldest, max(newest) AS newest
        FROM (SELECT * FROM queued
              UNION ALL SELECT batch_no, leads, oldest, newest FROM subscription JOIN arrived USING (flow)) AS waiting
        JOIN batch ON batch.no = batch_no GROUP BY batch.id ORDER BY min(oldest), batch.id
        """
    )
    with database.transaction() as connection:
        rows = connection.execute(query).all()
    return {row.id: Waiting(leads=int(row.leads), oldest=row.oldest, newest=row.newest) for row in rows}
