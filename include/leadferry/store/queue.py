"""The queue of every batch, and the claim that takes leads out of it.

Routing offers new leads to the batches that listen to their flow; the claim moves what may go into a delivery.
Both are set-based SQL: their cost grows with the leads they move, never with the leads delivered before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Select,
    SmallInteger,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.states import DeliveryState, LeadOutcome
from leadferry.store.database import Database
from leadferry.store.tables import (
    arrival,
    batch,
    batch_config,
    delivery,
    delivery_lead,
    lead,
    pending,
    subscription,
)

Order = Literal["oldest", "newest", "random"]


@dataclass(frozen=True, kw_only=True)
class Departure:
    """Which delivery a claim is for."""

    batch_id: str
    run_id: str
    """The Airflow run; claiming twice for the same run gives the same delivery."""
    departs_at: datetime
    """The instant of the timetable, or of the trigger by hand; aware."""
    config: dict[str, Any]
    """The effective configuration, frozen from here on."""
    config_sha256: str
    flows: Sequence[str]
    received_from: datetime | None = None
    """A batch that is new to a flow collects only leads received from this instant on; aware."""
    lease: timedelta = timedelta(hours=6)
    """How long the delivery keeps its leads when nobody works on it any more."""
    params: dict[str, Any] | None = None
    """What a person asked for; stored for the record."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which of the pending leads go."""

    failed_rule: ColumnElement[Any]
    """SQL on the table `lead`: the name of the first rule a lead does not meet, NULL when it meets all."""
    order: Order = "oldest"
    limit: int | None = None
    minimum: int = 1
    """Fewer leads that may go than this stay in the queue."""
    max_wait: timedelta | None = None
    """The minimum does not count once the oldest lead that may go has waited this long."""
    departs_empty: bool = False
    """Below the minimum, depart without leads (a file with only a header) instead of being skipped."""
    keep_for_next: bool = False
    """Also leave the leads in the queue for the next departure."""
    window_to: datetime | None = None
    """Leads received from this instant on stay for the next departure; now, by the database's clock, when left out."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the claim did."""

    delivery_id: int
    state: DeliveryState
    included: int
    withheld: int
    reason: str | None = None
    is_new: bool = True
    """False when the run had its delivery already."""


def route(
    connection: Connection, *, batch_no: int, flows: Sequence[str], received_from: datetime | None
) -> None:
    """Offer all new leads to all batches, and bring this batch's subscriptions up to date.

    One at a time, on one snapshot, so that a lead that arrives meanwhile is either in the new subscriber's first fill
    or still to be offered, never both and never neither. Call it first in its transaction.
    """
    # LOCK TABLE does not take a snapshot; the statements after it see everything that was committed before it.
    connection.execute(text("LOCK TABLE subscription IN SHARE ROW EXCLUSIVE MODE"))
    _offer_arrivals(connection)
    _subscribe(connection, batch_no=batch_no, flows=flows, received_from=received_from)


def _offer_arrivals(connection: Connection) -> None:
    taken = delete(arrival).returning(arrival.c.lead_id, arrival.c.flow, arrival.c.received_at).cte("taken")
    offers = select(subscription.c.batch_no, taken.c.lead_id, taken.c.received_at).join_from(
        taken, subscription, subscription.c.flow == taken.c.flow
    )
    connection.execute(insert(pending).from_select(["batch_no", "lead_id", "received_at"], offers))


def _subscribe(
    connection: Connection, *, batch_no: int, flows: Sequence[str], received_from: datetime | None
) -> None:
    mine = subscription.c.batch_no == batch_no
    known = set(connection.scalars(select(subscription.c.flow).where(mine)))
    if gone := known - set(flows):
        _unsubscribe(connection, batch_no=batch_no, flows=gone)
    if new := set(flows) - known:
        connection.execute(
            insert(subscription), [{"batch_no": batch_no, "flow": flow} for flow in sorted(new)]
        )
        connection.execute(
            # A lead that came back from a failed delivery while nobody listened waits here already.
            upsert(pending)
            .from_select(
                ["batch_no", "lead_id", "received_at"], _first_fill(batch_no, sorted(new), received_from)
            )
            .on_conflict_do_nothing()
        )


def _first_fill(batch_no: int, flows: Sequence[str], received_from: datetime | None) -> Select[Any]:
    """Select what a batch finds of flows it begins to listen to: all leads but those it took and kept."""
    taken = exists().where(
        delivery_lead.c.lead_id == lead.c.id,
        delivery_lead.c.batch_no == batch_no,
        delivery_lead.c.outcome != LeadOutcome.RELEASED,
    )
    found = select(literal(batch_no), lead.c.id, lead.c.received_at).where(lead.c.flow.in_(flows), ~taken)
    return found if received_from is None else found.where(lead.c.received_at >= received_from)


def _unsubscribe(connection: Connection, *, batch_no: int, flows: set[str]) -> None:
    """Stop listening; leads of the flow leave this queue and come back should the batch listen again."""
    connection.execute(
        delete(subscription).where(subscription.c.batch_no == batch_no, subscription.c.flow.in_(flows))
    )
    connection.execute(
        delete(pending).where(
            pending.c.batch_no == batch_no, lead.c.id == pending.c.lead_id, lead.c.flow.in_(flows)
        )
    )


def route_new_leads(
    database: Database, *, batch_id: str, flows: Sequence[str], received_from: datetime | None = None
) -> int:
    """Route in a transaction of its own and return the batch's number; seconds for a million new leads."""
    with database.transaction() as connection:
        connection.execute(upsert(batch).values(id=batch_id).on_conflict_do_nothing())
        batch_no: int = connection.scalars(select(batch.c.no).where(batch.c.id == batch_id)).one()
    with database.transaction() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        route(connection, batch_no=batch_no, flows=flows, received_from=received_from)
    return batch_no


def claim(database: Database, departure: Departure, selection: Selection) -> Claim:
    """Take the leads that may go out of the queue and into a delivery, in one transaction.

    A second call for the same run returns the delivery that the first one made.
    When less than the minimum may go, leads stay in the queue and the delivery is recorded as skipped;
    leads that fail a rule are withheld either way.

    Raises:
        StoreUnavailableError: nothing happened; call it again.
    """
    batch_no = route_new_leads(
        database,
        batch_id=departure.batch_id,
        flows=departure.flows,
        received_from=departure.received_from,
    )
    with database.transaction() as connection:
        # One claim of a batch at a time: limits and minimums count right, and the second sees what the first left.
        connection.execute(select(batch.c.no).where(batch.c.no == batch_no).with_for_update())
        known = _delivery_of_run(connection, batch_no=batch_no, run_id=departure.run_id)
        return known or _Claimer(connection, batch_no, departure, selection).claim()


def _delivery_of_run(connection: Connection, *, batch_no: int, run_id: str) -> Claim | None:
    ended = [DeliveryState.FAILED, DeliveryState.SKIPPED]
    row = connection.execute(
        select(delivery).where(
            delivery.c.batch_no == batch_no, delivery.c.run_id == run_id, delivery.c.state.not_in(ended)
        )
    ).one_or_none()
    if row is None:
        return None
    return Claim(
        delivery_id=row.id,
        state=row.state,
        included=row.included,
        withheld=row.withheld,
        reason=row.reason,
        is_new=False,
    )


class _Claimer:
    """One claim, inside its transaction."""

    def __init__(
        self, connection: Connection, batch_no: int, departure: Departure, selection: Selection
    ) -> None:
        self.connection = connection
        self.batch_no = batch_no
        self.departure = departure
        self.selection = selection
        self.window_from = self._end_of_the_last_window()
        self.window_to = selection.window_to or self._now()

    def claim(self) -> Claim:
        """Claim, or record why not."""
        savepoint = self.connection.begin_nested()
        delivery_id = self._insert_delivery(DeliveryState.CLAIMED)
        included, withheld = self._take(delivery_id, self._due())
        missing = self._what_is_missing(delivery_id, included)
        if missing is None:
            savepoint.commit()
            return self._finish(delivery_id, DeliveryState.CLAIMED, included=included, withheld=withheld)
        savepoint.rollback()
        state = DeliveryState.CLAIMED if self.selection.departs_empty else DeliveryState.SKIPPED
        delivery_id = self._insert_delivery(state)
        _, withheld = self._take(delivery_id, [*self._due(), self.selection.failed_rule.is_not(None)])
        return self._finish(delivery_id, state, included=0, withheld=withheld, reason=missing)

    def _due(self) -> list[ColumnElement[bool]]:
        """Say which rows of `pending`, joined with `lead`, are looked at."""
        due = [
            pending.c.lead_id == lead.c.id,
            pending.c.batch_no == self.batch_no,
            pending.c.received_at < self.window_to,
        ]
        limit = self.selection.limit
        return due if limit is None else [*due, *self._within_limit(due, limit)]

    def _within_limit(self, due: list[ColumnElement[bool]], limit: int) -> list[ColumnElement[bool]]:
        """Narrow down to the first `limit` leads that may go, and those withheld on the way to them."""
        place = (pending.c.received_at, pending.c.lead_id)
        may_go = select(*place).where(*due, self.selection.failed_rule.is_(None))
        if self.selection.order == "random":
            drawn = may_go.with_only_columns(pending.c.lead_id).order_by(func.random()).limit(limit)
            # A draw of its own: not correlated with the statement around it, which reads the same tables.
            return [pending.c.lead_id.in_(drawn.correlate(None))]
        newest = self.selection.order == "newest"
        in_order = may_go.order_by(*(column.desc() if newest else column.asc() for column in place))
        last = self.connection.execute(in_order.offset(limit - 1).limit(1)).one_or_none()
        if last is None:
            return []
        edge = tuple_(literal(last.received_at), literal(last.lead_id))
        return [tuple_(*place) >= edge if newest else tuple_(*place) <= edge]

    def _take(self, delivery_id: int, which: list[ColumnElement[bool]]) -> tuple[int, int]:
        """Move the leads into the delivery; return how many are included and how many withheld."""
        columns = (lead.c.id, lead.c.received_at, self.selection.failed_rule.label("reason"))
        if self.selection.keep_for_next:
            taken = select(*columns).where(*which).cte("taken")
        else:
            taken = delete(pending).where(*which).returning(*columns).cte("taken")
        rows = insert(delivery_lead).from_select(
            ["delivery_id", "position", "lead_id", "batch_no", "outcome", "reason", "live_copy"],
            self._rows(delivery_id, taken),
        )
        moved = rows.returning(delivery_lead.c.outcome).cte("moved")
        counts = select(moved.c.outcome, func.count()).group_by(moved.c.outcome)
        found = {row[0]: row[1] for row in self.connection.execute(counts)}
        return found.get(LeadOutcome.INCLUDED, 0), found.get(LeadOutcome.WITHHELD, 0)

    def _rows(self, delivery_id: int, taken: CTE) -> Select[Any]:
        may_go = taken.c.reason.is_(None)
        outcome = delivery_lead.c.outcome.type
        live_copy = null() if self.selection.keep_for_next else case((may_go, 1))
        return select(
            literal(delivery_id),
            func.row_number().over(order_by=self._order(taken)),
            taken.c.id,
            literal(self.batch_no),
            case(
                (may_go, cast(literal(LeadOutcome.INCLUDED, outcome), outcome)),
                else_=cast(literal(LeadOutcome.WITHHELD, outcome), outcome),
            ),
            taken.c.reason,
            cast(live_copy, SmallInteger),
        )

    def _order(self, taken: CTE) -> list[ColumnElement[Any]]:
        match self.selection.order:
            case "oldest":
                return [taken.c.received_at.asc(), taken.c.id.asc()]
            case "newest":
                return [taken.c.received_at.desc(), taken.c.id.desc()]
            case "random":
                return [func.random()]

    def _what_is_missing(self, delivery_id: int, included: int) -> str | None:
        """Say why this delivery may not depart as it is, or None when it may."""
        minimum = max(self.selection.minimum, 1)
        if included >= minimum:
            return None
        if included == 0:
            return "no lead waits that may go"
        if self.selection.max_wait is not None and self._waited_since(delivery_id, self.selection.max_wait):
            return None
        return f"{included} leads may go, the minimum is {minimum}"

    def _waited_since(self, delivery_id: int, wait: timedelta) -> bool:
        oldest = (
            select(func.min(lead.c.received_at))
            .join_from(delivery_lead, lead, lead.c.id == delivery_lead.c.lead_id)
            .where(
                delivery_lead.c.delivery_id == delivery_id, delivery_lead.c.outcome == LeadOutcome.INCLUDED
            )
        )
        received_at: datetime = self.connection.scalars(oldest).one()
        return received_at <= self.window_to - wait

    def _insert_delivery(self, state: DeliveryState) -> int:
        departure = self.departure
        row = {
            "batch_no": self.batch_no,
            "config_id": self._config_id(),
            "number": None if state is DeliveryState.SKIPPED else self._next_number(),
            "run_id": departure.run_id,
            "state": state,
            "departs_at": departure.departs_at,
            "window_from": self.window_from,
            "window_to": self.window_to,
            "lease_until": func.now() + departure.lease,
            "keeps_queue": self.selection.keep_for_next,
            "params": departure.params or {},
        }
        delivery_id: int = self.connection.scalars(
            insert(delivery).values(row).returning(delivery.c.id)
        ).one()
        return delivery_id

    def _config_id(self) -> int:
        values = {
            "batch_no": self.batch_no,
            "sha256": self.departure.config_sha256,
            "config": self.departure.config,
        }
        self.connection.execute(upsert(batch_config).values(values).on_conflict_do_nothing())
        known = select(batch_config.c.id).where(
            batch_config.c.batch_no == self.batch_no, batch_config.c.sha256 == self.departure.config_sha256
        )
        config_id: int = self.connection.scalars(known).one()
        return config_id

    def _next_number(self) -> int:
        counted = (
            update(batch)
            .where(batch.c.no == self.batch_no)
            .values(last_number=batch.c.last_number + 1)
            .returning(batch.c.last_number)
        )
        number: int = self.connection.scalars(counted).one()
        return number

    def _end_of_the_last_window(self) -> datetime | None:
        """Return where this window begins: the windows of a batch meet, without gap or overlap."""
        last = (
            select(delivery.c.window_to)
            .where(
                delivery.c.batch_no == self.batch_no,
                delivery.c.number.is_not(None),
                delivery.c.state != DeliveryState.FAILED,
                ~delivery.c.keeps_queue,
            )
            .order_by(delivery.c.number.desc())
            .limit(1)
        )
        return self.connection.scalar(last)

    def _finish(
        self,
        delivery_id: int,
        state: DeliveryState,
        *,
        included: int,
        withheld: int,
        reason: str | None = None,
    ) -> Claim:
        counts = {"included": included, "withheld": withheld, "reason": reason}
        self.connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(counts))
        return Claim(
            delivery_id=delivery_id, state=state, included=included, withheld=withheld, reason=reason
        )

    def _now(self) -> datetime:
        """Return the database's time, but never one before the last window's end (a clock may be set back)."""
        # Not now(): that is when this transaction began to wait for the batch's claim before it.
        now: datetime = self.connection.scalars(select(func.clock_timestamp())).one()
        return now if self.window_from is None else max(now, self.window_from)
