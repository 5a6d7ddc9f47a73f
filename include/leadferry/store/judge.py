"""Judging the waiting leads one by one: who goes, who is withheld and why, who stays in the queue.

A batch with nothing but rules needs no judge: its waiting lots go as they are (`leadferry.store.claim`).
Caps, duplicates, conditions on counts and stopped leads need to know each lead's place in the order. So the leads that
wait are written into a temporary table, `candidate`, and everything is decided there before a lead is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Index,
    MetaData,
    Numeric,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    case,
    cast,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    text,
    update,
)

from leadferry.store.again import keep_what_is_due, send_again, went_before
from leadferry.store.caps import Cap, Room, rooms
from leadferry.store.duplicates import withhold_duplicates
from leadferry.store.overflow import plan_to_pass_on
from leadferry.store.routing import waiting_lots
from leadferry.store.selection import Selection
from leadferry.store.tables import lead, lead_price, lot, queue_entry, withheld

candidate = Table(
    "candidate",
    MetaData(),
    Column("lead_id", BigInteger, primary_key=True, autoincrement=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("price", Numeric),
    Column("reason", Text),
    Column("again", Boolean, nullable=False, server_default="false"),
    Column("version", Uuid),
    Column("change", Text),
    Index("candidate_place", "place"),
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)
"""The leads that wait, in the batch's order; `reason` says why one is withheld."""

LIMIT = "limit"
"""Why leads stay that the limit of a delivery leaves for the next one."""

NO_PRICE = "no price"
"""Why a lead is withheld whose price cannot be read although a cap on revenue needs it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to become of the leads that wait."""

    included: int
    withheld: int
    left: int
    """Leads that might go but stay, for a cap or a limit."""
    left_reason: str | None
    rooms: Sequence[Room]
    full: frozenset[str]
    """Names of the caps that kept leads back."""
    revenue: Decimal | None
    """What the included leads are worth; None without a cap on revenue."""
    oldest: datetime | None
    """When the oldest lead was received that may go, those included that a limit keeps for the next delivery."""
    edge: int | None
    """Leads from this place on stay in the queue."""

    @property
    def may_go(self) -> int:
        """How many may go, those included that a limit keeps for the next delivery."""
        return self.included + (self.left if self.left_reason == LIMIT else 0)

    @property
    def used_up(self) -> str | None:
        """Say which cap keeps leads in the queue; None where none does."""
        if not self.left or self.left_reason == LIMIT:
            return None
        return f"{self.left_reason} is used up; leads that stay in the queue: {self.left}"


class Judge:
    """Judges what waits for one batch, inside the claim's transaction and under the batch's lock."""

    def __init__(  # noqa: PLR0913  (all but two by keyword)
        self,
        connection: Connection,
        batch_no: int,
        selection: Selection,
        *,
        due: Sequence[ColumnElement[bool]],
        failed_rule: ColumnElement[Any] | None,
        now: datetime,
    ) -> None:
        """Remember what is asked.

        Args:
            connection: inside the claim's transaction.
            batch_no: whose queue.
            selection: what is asked of a lead.
            due: the conditions for the entries of the queue that wait; joined with the lots and the leads.
            failed_rule: why a lead is withheld: the selection's rules, and stops.
            now: the end of the window, aware.
        """
        self.connection = connection
        self.batch_no = batch_no
        self.selection = selection
        self.due = due
        self.failed_rule = failed_rule
        self.now = now

    def judge(self) -> Verdict:
        """Fill `candidate`, with the reason for each lead that is withheld, and say what follows.

        Judges nobody while a cap that holds leads has nothing left: then all stay, whatever they are.
        """
        candidate.create(self.connection)
        found = rooms(self.connection, self.batch_no, self.selection.caps, at=self.now)
        exhausted = next((one for one in found if one.cap.overflow == "hold" and not one.left), None)
        if exhausted is not None:
            return self._all_stay(found, exhausted.cap)
        self._collect()
        if self.selection.dedupe is not None:
            withhold_duplicates(
                self.connection, candidate, self.batch_no, self.selection.dedupe, now=self.now
            )
        if self.selection.goes_again:
            keep_what_is_due(self.connection, candidate, self.batch_no, self.selection)
        edge, holding = self._edge(found)
        full = {holding} if holding else set()
        full |= self._drop_beyond(found, edge)
        return self._verdict(found, edge=edge, holding=holding, full=frozenset(full))

    def closed_gate(self, verdict: Verdict) -> str | None:
        """Say which condition on counts is not met by the leads that may go; None when all are."""
        for gate in self.selection.gates:
            query = self._going(verdict.edge).join(lead, lead.c.id == candidate.c.lead_id).where(gate.meets)
            leads: int = self.connection.scalars(query.with_only_columns(func.count())).one()
            if leads < gate.at_least:
                return f"only_if {gate.name}: {leads} leads meet it, at least {gate.at_least} must"
            if gate.at_most is not None and leads > gate.at_most:
                return f"only_if {gate.name}: {leads} leads meet it, at most {gate.at_most} may"
        return None

    def _collect(self) -> None:
        selection = self.selection
        place = (queue_entry.c.received_at, queue_entry.c.lead_id)
        order: list[ColumnElement[Any]] = [func.random()]
        if selection.order == "oldest":
            order = [column.asc() for column in place]
        elif selection.order == "newest":
            order = [column.desc() for column in place]
        place_of = func.row_number().over(order_by=order)
        waits = select(queue_entry.c.lead_id, queue_entry.c.received_at).where(*self.due)
        self._insert(waits, place_of, again=False)
        if selection.goes_again:
            self._insert(went_before(self.batch_no, selection), place_of, again=True)
            self._place_anew()
        self.connection.execute(text("ANALYZE candidate"))

    def _insert(self, entries: Select[Any], place_of: ColumnElement[Any], *, again: bool) -> None:
        rows = entries.add_columns(place_of, self._price(), func.coalesce(*self._reasons()), literal(again))
        names = ["lead_id", "received_at", "place", "price", "reason", "again"]
        self.connection.execute(insert(candidate).from_select(names, rows))

    def _place_anew(self) -> None:
        """Give those that go again and those that wait one order."""
        place = (candidate.c.received_at, candidate.c.lead_id)
        order: list[ColumnElement[Any]] = [func.random()]
        if self.selection.order != "random":
            newest = self.selection.order == "newest"
            order = [column.desc() if newest else column.asc() for column in place]
        ranked = select(candidate.c.lead_id, func.row_number().over(order_by=order).label("place")).subquery()
        mine = candidate.c.lead_id == ranked.c.lead_id
        self.connection.execute(update(candidate).where(mine).values(place=ranked.c.place))

    def _price(self) -> ColumnElement[Any]:
        price_of = self.selection.price_of
        return cast(null(), Numeric) if price_of is None else cast(price_of, Numeric)

    def _reasons(self) -> list[ColumnElement[Any]]:
        """Return why a lead is withheld, the first that is not NULL counting."""
        reasons: list[ColumnElement[Any]] = [cast(null(), Text)]
        if self.failed_rule is not None:
            reasons.append(cast(self.failed_rule, Text))
        if self.selection.price_of is not None:
            price = self._price()
            # A price below zero would make room for others.
            reasons.append(case((or_(price.is_(None), price < 0), literal(NO_PRICE, Text))))
        return reasons

    def _edge(self, found: Sequence[Room]) -> tuple[int | None, str | None]:
        """Return the place of the first lead that stays, and for which cap; None where all may go."""
        edges: list[tuple[int, str]] = []
        if self.selection.limit is not None:
            place = self._first_beyond(Decimal(self.selection.limit), "leads", edge=None)
            edges += [] if place is None else [(place, "")]
        for room in found:
            if room.cap.overflow == "hold":
                place = self._first_beyond(room.left, room.cap.counts, edge=None)
                edges += [] if place is None else [(place, room.cap.name)]
        if not edges:
            return None, None
        place, name = min(edges)
        return place, name or None

    def _drop_beyond(self, found: Sequence[Room], edge: int | None) -> set[str]:
        """Withhold what is beyond the caps that do not hold leads, with the cap's name; return those caps."""
        dropping = set()
        for room in found:
            if room.cap.overflow == "hold":
                continue
            place = self._first_beyond(room.left, room.cap.counts, edge=edge)
            if place is not None:
                beyond = [candidate.c.reason.is_(None), candidate.c.place >= place, *_before(edge)]
                self.connection.execute(update(candidate).where(*beyond).values(reason=room.cap.name))
                dropping.add(room.cap.name)
        return dropping

    def _first_beyond(self, left: Decimal, counts: str, *, edge: int | None) -> int | None:
        """Return the place of the first lead that may go but does not fit into what is left."""
        passing = select(candidate.c.place).where(candidate.c.reason.is_(None), *_before(edge))
        if counts == "leads":
            place: int | None = self.connection.scalar(
                passing.order_by(candidate.c.place).offset(int(left)).limit(1)
            )
            return place
        sums = func.sum(func.coalesce(candidate.c.price, self.selection.unit_price))
        worth = passing.add_columns(sums.over(order_by=candidate.c.place).label("worth")).subquery()
        first: int | None = self.connection.scalar(
            select(func.min(worth.c.place)).where(worth.c.worth > left)
        )
        return first

    def _verdict(
        self, found: Sequence[Room], *, edge: int | None, holding: str | None, full: frozenset[str]
    ) -> Verdict:
        goes = and_(candidate.c.reason.is_(None), *_before(edge))
        passes = candidate.c.reason.is_(None)
        worth = func.coalesce(candidate.c.price, self.selection.unit_price)
        row = self.connection.execute(
            select(
                func.count().filter(goes).label("included"),
                func.count().filter(and_(~passes, *_before(edge))).label("withheld"),
                func.count().filter(passes).label("may_go"),
                func.coalesce(func.sum(worth).filter(goes), 0).label("revenue"),
                func.min(candidate.c.received_at).filter(goes if holding else passes).label("oldest"),
            )
        ).one()
        beyond = row.may_go - row.included
        return Verdict(
            included=row.included,
            withheld=row.withheld,
            left=beyond,
            left_reason=(holding or LIMIT) if beyond else None,
            rooms=found,
            full=full,
            revenue=Decimal(row.revenue) if self.selection.has_price else None,
            oldest=row.oldest,
            edge=edge,
        )

    def _all_stay(self, found: Sequence[Room], cap: Cap) -> Verdict:
        waiting: int = self.connection.scalars(select(func.count()).where(*self.due)).one()
        return Verdict(
            included=0,
            withheld=0,
            left=waiting,
            left_reason=cap.name,
            rooms=found,
            full=frozenset({cap.name}) if waiting else frozenset(),
            revenue=Decimal() if self.selection.has_price else None,
            oldest=None,
            edge=0,
        )

    def _going(self, edge: int | None) -> Select[Any]:
        return select(candidate.c.lead_id).where(candidate.c.reason.is_(None), *_before(edge))

    def takes_all(self, verdict: Verdict) -> bool:
        """Tell whether no lead that waits stays, so that the lots can go as they are."""
        if verdict.edge is not None:
            return False
        waits = select(func.count()).select_from(queue_entry).join(lot, lot.c.id == queue_entry.c.lot_id)
        waiting: int = self.connection.scalars(waits.where(waiting_lots(self.batch_no))).one()
        judged: int = self.connection.scalars(select(func.count()).where(~candidate.c.again)).one()
        return waiting == judged

    def keep_back(self, delivery_id: int, verdict: Verdict, *, departs: bool = True) -> None:
        """Record for a delivery which of its leads are withheld, and what the others, if any go, are worth."""
        failing = select(literal(delivery_id), candidate.c.lead_id, candidate.c.reason).where(
            *withheld_candidates(verdict.edge)
        )
        names = ["delivery_id", "lead_id", "reason"]
        self.connection.execute(insert(withheld).from_select(names, failing))
        if departs and self.selection.goes_again:
            send_again(self.connection, candidate, self.batch_no, delivery_id, mode=self.selection.mode)
        targets = {cap.name: cap.next_batch for cap in self.selection.caps if cap.next_batch is not None}
        plan_to_pass_on(self.connection, candidate, delivery_id, targets)
        if departs and self.selection.price_of is not None:
            prices = self._going(verdict.edge).add_columns(literal(delivery_id), candidate.c.price)
            names = ["lead_id", "delivery_id", "price"]
            self.connection.execute(insert(lead_price).from_select(names, prices))


def _before(edge: int | None) -> list[ColumnElement[bool]]:
    return [] if edge is None else [candidate.c.place < edge]


def looked_at(edge: int | None) -> ColumnElement[bool]:
    """Return the condition, on `queue_entry`, for leads that do not stay."""
    return queue_entry.c.lead_id.in_(select(candidate.c.lead_id).where(*_before(edge)))


def withheld_candidates(edge: int | None) -> list[ColumnElement[bool]]:
    """Return the conditions, on `candidate`, for leads that are withheld."""
    return [candidate.c.reason.is_not(None), *_before(edge)]
