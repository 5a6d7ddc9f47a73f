"""Boarding: which of the leads that wait come into a delivery, how they get there, and which of them are kept back.

Set-based SQL on lots: all that waits changes hands by a few rows, and only what stays or is chosen is touched one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Text,
    any_,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from leadferry.states import DeliveryKind
from leadferry.store.due import due
from leadferry.store.queue import any_waiting, held, with_stops
from leadferry.store.routing import close_lot, lots_of, new_lot, waiting_lots
from leadferry.store.selection import Selection
from leadferry.store.tables import lead, lot, queue_entry, withheld

NOTHING_WAITS = "no lead waits that may go"

TEST_FLOW = "leadferry_test"
"""Made-up leads are stored under it; a batch cannot listen to it."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """How many leads may go."""

    leads: int
    oldest: datetime | None
    """When the oldest of them was received."""


class Boarding:
    """The leads of one claim, inside its transaction.

    Args:
        connection: the transaction.
        batch_no: whose queue.
        selection: which leads the delivery wants.
        window_to: leads received from here on stay; aware.
    """

    def __init__(
        self, connection: Connection, batch_no: int, selection: Selection, *, window_to: datetime
    ) -> None:
        self.connection = connection
        self.batch_no = batch_no
        self.selection = selection
        self.kind = selection.kind
        self.window_to = window_to
        self.has_stops = self.kind is not DeliveryKind.TEST and any_waiting(connection, batch_no)
        self.failed_rule = selection.failed_rule
        if self.has_stops:
            self.failed_rule = with_stops(selection.failed_rule, batch_no)

    def take(self, delivery_id: int) -> int:
        """Bring what may be looked at into the delivery; return how many leads."""
        if self.kind is DeliveryKind.TEST:
            return self._make_up(delivery_id, self.selection.made_up)
        if self.kind is DeliveryKind.EARLY_COPY:
            limit = self.selection.limit
            return self.copy(delivery_id, [] if limit is None else self._within_limit(limit))
        if self.selection.limit is not None:
            return self.move(delivery_id, self._within_limit(self.selection.limit))
        lots = list(self.take_lots(delivery_id))
        late = [one.id for one in lots if self.has_stops or one.newest_received_at >= self.window_to]
        if late:
            stays = queue_entry.c.received_at >= self.window_to
            self._leave(late, stays | held(self.batch_no) if self.has_stops else stays)
        if lots and self.selection.must_wait is not None:
            of_a_waiting_lead = (queue_entry.c.lead_id == lead.c.id) & self.selection.must_wait
            self._leave([one.id for one in lots], of_a_waiting_lead)
        return self._count(delivery_id)

    def take_lots(self, delivery_id: int) -> Iterable[Row[Any]]:
        """Give all waiting lots to the delivery: the price does not depend on how many leads they hold."""
        taken = update(lot).where(waiting_lots(self.batch_no)).values(delivery_id=delivery_id)
        return self.connection.execute(taken.returning(lot.c.id, lot.c.newest_received_at))

    def move(self, delivery_id: int, which: Sequence[ColumnElement[bool]]) -> int:
        """Take some of the waiting leads out of their lots into one of their own."""
        taken = new_lot(self.connection, self.batch_no, delivery_id=delivery_id)
        moved = update(queue_entry).where(*self.due(), *which).values(lot_id=taken)
        self.connection.execute(moved)
        leads = close_lot(self.connection, taken)
        self._drop_empty_lots()
        return leads

    def copy(self, delivery_id: int, which: Sequence[ColumnElement[bool]]) -> int:
        """Take copies of waiting leads and leave the leads themselves in the queue."""
        taken = new_lot(self.connection, self.batch_no, delivery_id=delivery_id, returns=False)
        other = queue_entry.alias("other")
        copies = select(func.max(other.c.copy) + 1).where(
            other.c.lead_id == queue_entry.c.lead_id, other.c.batch_no == self.batch_no
        )
        entries = select(
            queue_entry.c.batch_no,
            queue_entry.c.lead_id,
            copies.scalar_subquery(),
            literal(taken),
            queue_entry.c.received_at,
        ).where(*self.due(), *which)
        names = ["batch_no", "lead_id", "copy", "lot_id", "received_at"]
        self.connection.execute(insert(queue_entry).from_select(names, entries))
        return close_lot(self.connection, taken)

    def take_failing(self, delivery_id: int) -> int:
        """Take only the leads that fail a rule: they are withheld although nothing departs."""
        if self.failed_rule is None or self.kind is not DeliveryKind.DEPARTURE:
            return 0
        self.move(delivery_id, [self.failed_rule.is_not(None)])
        return self.withhold(delivery_id)

    def withhold(self, delivery_id: int) -> int:
        """Keep back the delivery's leads that fail a rule, each with the rule's name; return how many."""
        if self.failed_rule is None or self.kind is DeliveryKind.TEST:
            return 0
        for failing in self._failing(delivery_id, self.failed_rule):
            ids = func.unnest(cast(literal(failing.lead_ids, Text), ARRAY(BigInteger)))
            rows = select(literal(delivery_id), ids, literal(failing.reason))
            names = ["delivery_id", "lead_id", "reason"]
            self.connection.execute(insert(withheld).from_select(names, rows))
        kept_back = select(func.count()).where(withheld.c.delivery_id == delivery_id)
        count: int = self.connection.scalars(kept_back).one()
        return count

    def due(self) -> list[ColumnElement[bool]]:
        """Say which entries wait within the window; joined with the lots, and the leads where these are asked about."""
        conditions = due(
            self.batch_no,
            window_to=self.window_to,
            must_wait=self.selection.must_wait,
            has_stops=self.has_stops,
        )
        if self.failed_rule is None and self.selection.price_of is None:
            return conditions
        return [queue_entry.c.lead_id == lead.c.id, *conditions]

    def may_go(self) -> Going:
        """Count the leads that may go, whatever the limit; none of them is touched."""
        passes = [] if self.failed_rule is None else [self.failed_rule.is_(None)]
        counts = [func.count().label("leads"), func.min(queue_entry.c.received_at).label("oldest")]
        row = self.connection.execute(select(*counts).where(*self.due(), *passes)).one()
        return Going(leads=row.leads, oldest=row.oldest)

    def left_behind(self) -> int:
        """Return how many leads wait within the window, after others were taken."""
        left = (
            select(func.count())
            .select_from(queue_entry)
            .join(lot, lot.c.id == queue_entry.c.lot_id)
            .where(waiting_lots(self.batch_no), queue_entry.c.received_at < self.window_to)
        )
        waiting: int = self.connection.scalars(left).one()
        return waiting

    def why_none_goes(self) -> str:
        """Say what is with the leads that wait and that this departure does not even look at."""
        if self.kind is DeliveryKind.TEST:
            return NOTHING_WAITS
        stays = {
            "received after the window": queue_entry.c.received_at >= self.window_to,
            "held": held(self.batch_no) if self.has_stops else None,
            "in their quiet hours": self.selection.must_wait,
        }
        looked_for = {why: which for why, which in stays.items() if which is not None}
        waiting = (queue_entry.c.lot_id == lot.c.id) & (queue_entry.c.lead_id == lead.c.id)
        counts = [func.count().filter(which) for which in looked_for.values()]
        found = self.connection.execute(select(*counts).where(waiting_lots(self.batch_no), waiting)).one()
        told = [f"{count} {why}" for why, count in zip(looked_for, found, strict=True) if count]
        return f"{NOTHING_WAITS} (waiting: {', '.join(told)})" if told else NOTHING_WAITS

    def _make_up(self, delivery_id: int, leads: Sequence[Mapping[str, Any]]) -> int:
        """Take leads that were made up for a test; they are stored under a flow that nobody listens to."""
        taken = new_lot(self.connection, self.batch_no, delivery_id=delivery_id, returns=False)
        rows = [
            {"flow": TEST_FLOW, "received_at": self.window_to, "fields": dict(fields)} for fields in leads
        ]
        made = self.connection.execute(insert(lead).returning(lead.c.id, lead.c.received_at), rows).all()
        entries = [
            {"batch_no": self.batch_no, "lead_id": one.id, "lot_id": taken, "received_at": one.received_at}
            for one in made
        ]
        self.connection.execute(insert(queue_entry), entries)
        return len(entries)

    def _leave(self, lots: Sequence[int], which: ColumnElement[bool]) -> None:
        """Leave to a later departure what was received after the window, by its own clock, is held or must wait."""
        waiting = new_lot(self.connection, self.batch_no)
        left = update(queue_entry).where(queue_entry.c.lot_id.in_(lots), which).values(lot_id=waiting)
        self.connection.execute(left)
        if not close_lot(self.connection, waiting):
            self._drop_empty_lots()

    def _within_limit(self, limit: int) -> list[ColumnElement[bool]]:
        """Narrow down to the first `limit` leads that may go, and those withheld on the way to them."""
        place = (queue_entry.c.received_at, queue_entry.c.lead_id)
        may_go = select(*place).where(*self.due())
        if self.failed_rule is not None:
            may_go = may_go.where(self.failed_rule.is_(None))
        if self.selection.order == "random":
            drawn = may_go.order_by(func.random()).limit(limit).with_only_columns(queue_entry.c.lead_id)
            # Drawn once, and one value: PostgreSQL takes at most 65,535 parameters.
            ids = literal(list(self.connection.scalars(drawn)), ARRAY(BigInteger))
            return [queue_entry.c.lead_id == any_(cast(ids, ARRAY(BigInteger)))]
        newest = self.selection.order == "newest"
        in_order = may_go.order_by(*(column.desc() if newest else column.asc() for column in place))
        last = self.connection.execute(in_order.offset(limit - 1).limit(1)).one_or_none()
        if last is None:
            return []
        edge = tuple_(literal(last.received_at), literal(last.lead_id))
        return [tuple_(*place) >= edge if newest else tuple_(*place) <= edge]

    def _failing(self, delivery_id: int, failed_rule: ColumnElement[Any]) -> Sequence[Row[Any]]:
        """Return for each rule the ids of the delivery's leads that fail it, as the text of an array.

        A query of its own, since PostgreSQL shares the work of judging among several processes only
        where nothing is written: half the time for a million leads.
        """
        judged = (
            select(queue_entry.c.lead_id, failed_rule.label("reason"))
            .join(lead, lead.c.id == queue_entry.c.lead_id)
            .where(queue_entry.c.lot_id.in_(lots_of(self.connection, delivery_id)))
            .subquery()
        )
        ids = cast(func.array_agg(judged.c.lead_id), Text).label("lead_ids")
        by_rule = select(judged.c.reason, ids).where(judged.c.reason.is_not(None)).group_by(judged.c.reason)
        return self.connection.execute(by_rule).all()

    def _count(self, delivery_id: int) -> int:
        counted = select(func.count()).select_from(queue_entry).join(lot, lot.c.id == queue_entry.c.lot_id)
        return self.connection.scalars(counted.where(lot.c.delivery_id == delivery_id)).one()

    def _drop_empty_lots(self) -> None:
        filled = exists().where(queue_entry.c.lot_id == lot.c.id)
        self.connection.execute(delete(lot).where(waiting_lots(self.batch_no), ~filled))
