"""Choosing leads for a redelivery: which were asked for, where each stands, what keeps it back, and in which order.

Set-based SQL. Where a lead stands is looked up along the primary key of `queue_entry`, so that the cost grows with the
leads that were asked for and not with history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    MetaData,
    Select,
    Subquery,
    Table,
    Text,
    any_,
    case,
    cast,
    exists,
    false,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from leadferry.errors import NothingToDeliverError, StoreError
from leadferry.states import DeliveryState, LeadStanding
from leadferry.store.boarding import TEST_FLOW
from leadferry.store.claim import Departure
from leadferry.store.duplicates import Dedupe, withhold_duplicates
from leadferry.store.edits import reading, with_changes
from leadferry.store.judge import candidate
from leadferry.store.ledger import StoredFile
from leadferry.store.queue import EVERY_BATCH
from leadferry.store.selection import Order
from leadferry.store.tables import arrival, delivery, lead, lead_stop, lot, queue_entry

chosen = Table(
    "chosen",
    MetaData(),
    Column("lead_id", BigInteger, primary_key=True, autoincrement=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("standing", Text, nullable=False),
    Column("delivery_id", BigInteger),
    Column("waits", Boolean, nullable=False),
    Column("left_out", Text),
    Column("changes", JSONB(none_as_null=True)),
    Column("rule", Text),
    Column("forced", Boolean),
    Column("place", BigInteger),
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)
"""The leads of the selection, and what becomes of each: left out, withheld by `rule`, or it goes."""

_TOLD_IDS = 10


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which leads a person asked for; what is None does not narrow them down."""

    lead_ids: Sequence[int] | None = None
    flow: str | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None
    """Exclusive; aware."""
    standings: Sequence[LeadStanding] | None = None
    rule: str | None = None
    """Withheld last by this rule, or with this reason."""
    where: ColumnElement[bool] | None = None
    """A condition on the table `lead`."""
    of_delivery: int | None = None
    failed_since: datetime | None = None
    """In a delivery that was settled from then on and did not arrive at the destination; aware."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for, made ready for the store."""

    departure: Departure
    destination: str
    ways: Sequence[str]
    """It and the destinations that replace it or that it replaces: what one of them brought counts as delivered there."""
    wanted: Wanted
    failed_rule: ColumnElement[Any] | None = None
    """As in `leadferry.store.selection.Selection`."""
    failed_always: ColumnElement[Any] | None = None
    """The same for what nobody can set aside: the recipient's own rules, and consent."""
    dedupe: Dedupe | None = None
    must_wait: ColumnElement[bool] | None = None
    """SQL on the table `lead`: whether it is night where the lead is, and nobody may be delivered."""
    skip_rules: bool = False
    include_delivered: bool = False
    assign_others: bool = False
    """Also leads that never were in the batch's queue, because their flow is not the batch's."""
    count: int | None = None
    order: Order = "oldest"
    seed: int = 0
    """Draws the random leads, the same ones again for the same seed."""
    edits: Mapping[str, Any] = field(default_factory=dict)
    """Field → value, for all leads."""
    edits_of: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Lead id → field → value."""
    persist_edits: bool = False
    reason: str | None = None
    file: StoredFile | None = None
    """As sent: the file whose stored bytes go; the selection is exactly its leads."""
    mark: bool = True
    """Whether names are marked as a redelivery."""


def as_array(texts: Sequence[str]) -> ColumnElement[Any]:
    """Return texts as one value of PostgreSQL."""
    return cast(literal(list(texts), ARRAY(Text)), ARRAY(Text))


class Chooser:
    """Chooses the leads of one redelivery, inside its transaction and under the batch's lock."""

    def __init__(self, connection: Connection, batch_no: int, request: Request) -> None:
        self.connection = connection
        self.batch_no = batch_no
        self.request = request

    def choose(self) -> int:
        """Fill `chosen`; return how many of its leads may go, before they are cut down to the count."""
        chosen.create(self.connection)
        self._fill()
        self._leave_out()
        self._lay_edits_over()
        self._judge()
        available = self.count(self.goes)
        self._cut(available)
        return available

    @property
    def goes(self) -> ColumnElement[bool]:
        """The condition for leads that go."""
        met: ColumnElement[bool] = chosen.c.rule.is_(None)
        if self.request.skip_rules:
            met = met | ~func.coalesce(chosen.c.forced, false())
        return chosen.c.left_out.is_(None) & met

    @property
    def kept_back(self) -> ColumnElement[bool]:
        """The condition for leads that are taken and withheld."""
        return chosen.c.left_out.is_(None) & ~self.goes

    def count(self, which: ColumnElement[bool] | None = None) -> int:
        """Count leads of the selection."""
        counted = select(func.count()).select_from(chosen)
        return self.connection.scalars(counted if which is None else counted.where(which)).one()

    def count_by(self, value: ColumnElement[Any], which: ColumnElement[bool]) -> dict[str, int]:
        """Count leads of the selection by a text, the most frequent first."""
        counted = select(value, func.count()).where(which, value.is_not(None)).group_by(value)
        found = self.connection.execute(counted.order_by(func.count().desc(), value))
        return {row[0]: row[1] for row in found}

    # --- which leads

    def _fill(self) -> None:
        """Fill `chosen` with the leads of the selection and where they stand."""
        ids = self._ids()
        stands = (
            func.standing(self.batch_no, as_array(self.request.ways), ids)
            .table_valued("lead_id", "standing", "delivery_id", "reason", "waits", "in_queue", name="stands")
            .render_derived()
        )
        rows = select(
            lead.c.id, lead.c.received_at, stands.c.standing, stands.c.delivery_id, stands.c.waits,
            func.coalesce(self._night(), case((stands.c.in_queue, null()), else_=self._why_not_assigned())),
        ).select_from(stands).join(lead, lead.c.id == stands.c.lead_id)  # fmt: skip
        rows = rows.where(*self._conditions_on_standing(stands))
        names = ["lead_id", "received_at", "standing", "delivery_id", "waits", "left_out"]
        self.connection.execute(insert(chosen).from_select(names, rows))
        self.connection.execute(text("ANALYZE chosen"))
        self._refuse_unknown()
        self._refuse_edits_of_others()

    def _ids(self) -> ColumnElement[Any]:
        """Return the ids that may be in the selection, as a SQL array."""
        wanted = self.request.wanted
        if wanted.lead_ids is not None:
            return cast(literal(sorted(set(wanted.lead_ids)), ARRAY(BigInteger)), ARRAY(BigInteger))
        conditions = self._conditions_on_lead()
        had = (
            select(queue_entry.c.lead_id)
            .join(lot, lot.c.id == queue_entry.c.lot_id)
            .where(queue_entry.c.batch_no == self.batch_no, lot.c.batch_no == self.batch_no, *self._in_lots())
        )
        found: Select[Any] = select(lead.c.id).where(lead.c.id.in_(had), *conditions)
        if self.request.assign_others and self.request.wanted.flow is not None:
            found = select(lead.c.id).where(*conditions)
        return func.array(found.scalar_subquery())

    def _in_lots(self) -> list[ColumnElement[bool]]:
        wanted = self.request.wanted
        if wanted.of_delivery is not None:
            return [lot.c.delivery_id == wanted.of_delivery]
        if wanted.failed_since is not None:
            since = select(delivery.c.id).where(
                delivery.c.batch_no == self.batch_no,
                delivery.c.settled_at >= wanted.failed_since,
                delivery.c.state.in_([DeliveryState.DELIVERED, DeliveryState.PARTIAL, DeliveryState.FAILED]),
            )
            return [or_(lot.c.delivery_id.in_(since), lot.c.returned_from.in_(since))]
        return []

    def _conditions_on_lead(self) -> list[ColumnElement[bool]]:
        wanted = self.request.wanted
        conditions = [lead.c.flow != TEST_FLOW]
        if wanted.flow is not None:
            conditions.append(lead.c.flow == wanted.flow)
        if wanted.received_from is not None:
            conditions.append(lead.c.received_at >= wanted.received_from)
        if wanted.received_to is not None:
            conditions.append(lead.c.received_at < wanted.received_to)
        if wanted.where is not None:
            conditions.append(wanted.where)
        return conditions

    def _conditions_on_standing(self, stands: Any) -> list[ColumnElement[bool]]:
        wanted = self.request.wanted
        conditions: list[ColumnElement[bool]] = []
        if wanted.lead_ids is not None:
            conditions += self._conditions_on_lead()[1:]
        if wanted.standings is not None:
            conditions.append(stands.c.standing.in_([str(one) for one in wanted.standings]))
        if wanted.rule is not None:
            conditions += [stands.c.standing == LeadStanding.WITHHELD, stands.c.reason == wanted.rule]
        if wanted.failed_since is not None:
            came_back = (stands.c.standing == LeadStanding.WAITING) & stands.c.delivery_id.is_not(None)
            conditions.append(or_(stands.c.standing == LeadStanding.FAILED, came_back))
        return conditions

    def _night(self) -> ColumnElement[Any]:
        """Say that a lead waits for its morning; NULL when it need not."""
        if self.request.must_wait is None:
            return cast(null(), Text)
        return case((self.request.must_wait, literal("in quiet hours (override_window)")))

    def _why_not_assigned(self) -> ColumnElement[Any]:
        """Say why a lead that is in no queue of this batch is left out; NULL when it may be assigned."""
        on_its_way = exists().where(
            arrival.c.lead_id == lead.c.id, lead.c.flow.in_(self.request.departure.flows)
        )
        told: list[tuple[ColumnElement[bool], ColumnElement[str]]] = [
            (on_its_way, literal("arrived just now"))
        ]
        if not self.request.assign_others:
            told.append((true(), literal("not this batch's (assign_others)")))
        return case((lead.c.flow == TEST_FLOW, literal("made up for a test")), *told)

    def _refuse_unknown(self) -> None:
        ids = self.request.wanted.lead_ids
        if ids is None:
            return
        # One value: PostgreSQL takes at most 65,535 parameters, and people paste more ids than that.
        named = cast(literal(sorted(set(ids)), ARRAY(BigInteger)), ARRAY(BigInteger))
        known = set(self.connection.scalars(select(lead.c.id).where(lead.c.id == any_(named))))
        missing = sorted(set(ids) - known)
        if missing:
            raise StoreError(
                f"lead_ids: there is no lead {missing[0]}",
                hint="Nothing was claimed; correct the ids and trigger again",
            )

    def _refuse_edits_of_others(self) -> None:
        """Refuse edits that nobody would ever see: whoever wrote them expects these leads to go."""
        ids = sorted(self.request.edits_of)
        if not ids:
            return
        named = cast(literal(ids, ARRAY(BigInteger)), ARRAY(BigInteger))
        mine = set(self.connection.scalars(select(chosen.c.lead_id).where(chosen.c.lead_id == any_(named))))
        others = [one for one in ids if one not in mine]
        if others:
            many = "1 lead that is" if len(others) == 1 else f"{len(others)} leads that are"
            told = ", ".join(map(str, others[:_TOLD_IDS])) + (" …" if len(others) > _TOLD_IDS else "")
            raise StoreError(
                f"edits name {many} not among those selected: {told}",
                hint="Nothing was claimed; select these leads as well, or leave their edits out",
            )

    def _leave_out(self) -> None:
        """Note why a lead is not touched."""
        reasons = [(chosen.c.standing == LeadStanding.UNDER_WAY, literal("under way"))]
        if not self.request.include_delivered:
            there = chosen.c.standing == LeadStanding.DELIVERED
            reasons.append((there, literal("delivered there already (include_delivered)")))
        left_out = case(*reasons, else_=func.coalesce(chosen.c.left_out, self._stop()))
        self.connection.execute(update(chosen).values(left_out=left_out))

    def _stop(self) -> ColumnElement[Any]:
        """Say that a lead is held or cancelled; NULL when it is not."""
        mine = lead_stop.c.batch_no.in_([self.batch_no, EVERY_BATCH])
        kinds = select(func.min(lead_stop.c.kind)).where(lead_stop.c.lead_id == chosen.c.lead_id, mine)
        return kinds.correlate(chosen).scalar_subquery()

    def _refuse_divided_file(self) -> None:
        """Send a stored file whole or not at all: its bytes hold every one of its leads."""
        missing = self.count_by(func.coalesce(chosen.c.left_out, chosen.c.rule), ~self.goes)
        if missing:
            told = ", ".join(f"{leads} {why}" for why, leads in missing.items())
            raise NothingToDeliverError(
                f"As sent, the file goes whole, but of its leads {told}",
                hint="Nothing was sent. Set include_delivered, or redeliver the other leads with current settings",
            )

    # --- what would go into the file

    def _lay_edits_over(self) -> None:
        """Note for each lead what is changed of it."""
        request = self.request
        if request.edits:
            changes = literal(dict(request.edits), JSONB)
            self.connection.execute(update(chosen).where(chosen.c.left_out.is_(None)).values(changes=changes))
        for lead_id, own in request.edits_of.items():
            changes = literal({**request.edits, **own}, JSONB)
            mine = chosen.c.lead_id == lead_id, chosen.c.left_out.is_(None)
            self.connection.execute(update(chosen).where(*mine).values(changes=changes))

    def _judge(self) -> None:
        """Note why a lead may not go, with its edits, and its place in the order."""
        request = self.request
        # A stored file goes as it is; but what nobody can set aside keeps it back.
        rule = request.failed_rule if request.file is None else request.failed_always
        if rule is not None:
            self._note_rules(rule)
        ranked = (
            select(chosen.c.lead_id, func.row_number().over(order_by=self._order()).label("place"))
            .where(chosen.c.left_out.is_(None))
            .subquery()
        )
        self.connection.execute(
            update(chosen).where(chosen.c.lead_id == ranked.c.lead_id).values(place=ranked.c.place)
        )
        if request.dedupe is not None and request.file is None:
            self._note_duplicates(request.dedupe)
        if request.file is not None:
            self._refuse_divided_file()

    def _note_rules(self, rule: ColumnElement[Any]) -> None:
        edited = self._edited()
        always = self.request.failed_always
        forced = literal(False) if always is None else reading(always, edited).is_not(None)  # noqa: FBT003  SQL's false
        judged = select(
            edited.c.id, cast(reading(rule, edited), Text).label("rule"), forced.label("forced")
        ).subquery()
        self.connection.execute(
            update(chosen)
            .where(chosen.c.lead_id == judged.c.id, chosen.c.left_out.is_(None), judged.c.rule.is_not(None))
            .values(rule=judged.c.rule, forced=judged.c.forced)
        )

    def _note_duplicates(self, dedupe: Dedupe) -> None:
        """Look for leads that are, or were, delivered under another id; their own copies do not count."""
        candidate.create(self.connection)
        columns = ["lead_id", "received_at", "place"]
        rows = select(*(chosen.c[name] for name in columns)).where(self.goes)
        self.connection.execute(insert(candidate).from_select(columns, rows))
        now: datetime = self.connection.scalars(select(func.clock_timestamp())).one()
        edited = self._edited() if self.request.edits or self.request.edits_of else lead
        withhold_duplicates(self.connection, candidate, self.batch_no, dedupe, now=now, leads=edited)
        self.connection.execute(
            update(chosen)
            .where(chosen.c.lead_id == candidate.c.lead_id, candidate.c.reason.is_not(None))
            .values(rule=candidate.c.reason, forced=true())
        )

    def _edited(self) -> Subquery:
        return with_changes(chosen, chosen.c.lead_id == lead.c.id)

    def _order(self) -> list[ColumnElement[Any]]:
        place = (chosen.c.received_at, chosen.c.lead_id)
        match self.request.order:
            case "newest":
                return [column.desc() for column in place]
            case "random":
                return [func.hashint8extended(chosen.c.lead_id, self.request.seed), chosen.c.lead_id]
            case _:
                return [column.asc() for column in place]

    def _cut(self, available: int) -> None:
        """Leave out what comes behind the last lead that the count allows; leads withheld on the way to it stay."""
        count = self.request.count
        if count is None or count >= available:
            return
        last = select(chosen.c.place).where(self.goes).order_by(chosen.c.place).offset(count - 1).limit(1)
        beyond = chosen.c.place > last.scalar_subquery()
        self.connection.execute(update(chosen).where(beyond).values(left_out="beyond the count"))
