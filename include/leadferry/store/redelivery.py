"""Claiming chosen leads: the one transaction in which a person's request becomes a delivery.

Leads that wait leave their lots, so that no departure can take them
too; others travel as copies, and the database refuses a copy of what is elsewhere already (I1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Text,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from leadferry.errors import NothingToDeliverError, StoreError
from leadferry.states import DeliveryKind, DeliveryState, DispatchState, LeadStanding
from leadferry.store.audit import record
from leadferry.store.choosing import Chooser, Request, as_array, chosen
from leadferry.store.claim import routed
from leadferry.store.database import Database
from leadferry.store.edits import before
from leadferry.store.history import get_file
from leadferry.store.ledger import StoredFile
from leadferry.store.opening import config_id, live_delivery_of_run, next_number
from leadferry.store.routing import close_lot, lock_batch, lock_subscriptions, new_lot, waiting_lots
from leadferry.store.settling import REDELIVERED
from leadferry.store.tables import (
    delivery,
    dispatch,
    lead,
    lead_edit,
    lot,
    queue_entry,
    redelivery,
    skipped_rule,
    withheld,
)

SHOWN = 1000
"""Most leads that a dry run lists; all are counted."""

TRAVELLED = (
    LeadStanding.DELIVERED,
    LeadStanding.REJECTED,
    LeadStanding.DUPLICATE,
    LeadStanding.INCOMPLETE,
    LeadStanding.FAILED,
)
"""Where a lead stands that was on its way to the destination before: sending it now is a repetition."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the claim of a redelivery did, or would do."""

    delivery_id: int | None
    """None for a dry run."""
    state: DeliveryState
    selected: int
    included: int
    withheld: Mapping[str, int]
    """Reason → leads."""
    left_out: Mapping[str, int]
    """Why → leads that were in the selection and are not touched."""
    available: int
    """Leads that might go; fewer than the count that was asked for, or more."""
    skipped_rules: Mapping[str, int]
    mark: str
    leads: Sequence[Mapping[str, Any]] = ()
    """Of a dry run, the first `SHOWN` leads: id, received_at, standing, and what becomes of each."""
    is_new: bool = True
    """False when the run had its delivery already: then only its own counts are known."""


def redeliver(database: Database, request: Request, *, dry_run: bool = False) -> Chosen:
    """Take the chosen leads into a delivery of their own, in one transaction; a second call for the run finds it.

    Args:
        database: the lead store.
        request: which leads, where to, and what may be set aside.
        dry_run: find out what would happen; no lead, delivery or edit is written.

    Raises:
        NothingToDeliverError: no lead of the selection may go; says why. Leads that fail a rule are withheld all the same.
        StoreError: a lead is not known, is under way at this moment, or a stored file cannot go whole.
        StoreUnavailableError: nothing happened; call it again.
    """
    departure = request.departure
    batch_no = routed(database, departure)
    with database.transaction() as connection:
        _lock(connection, batch_no)
        known = live_delivery_of_run(connection, batch_no, run_id=departure.run_id)
        result = _known(known) if known else _Redeliverer(connection, batch_no, request).claim()
        if dry_run:
            connection.rollback()
            return replace(result, delivery_id=None)
    if not result.included:
        raise NothingToDeliverError(
            f"No lead of the selection may go to {request.destination!r}: {why_not(result)}",
            hint="Nothing was sent. Change the selection, or set aside what keeps the leads back",
        )
    return result


def file_as_sent(database: Database, delivery_id: int) -> StoredFile | None:
    """Return the stored file whose bytes a redelivery sends again; None for every other delivery."""
    query = select(redelivery.c.file_id).where(redelivery.c.delivery_id == delivery_id)
    with database.transaction() as connection:
        file_id = connection.scalar(query)
    return None if file_id is None else get_file(database, file_id)


def why_not(result: Chosen) -> str:
    """Say in words what keeps leads of the selection back."""
    told = [f"{leads} {why}" for why, leads in result.left_out.items()]
    told += [f"{leads} withheld by {why}" for why, leads in result.withheld.items()]
    return ", ".join(told) or "it is empty"


def _lock(connection: Connection, batch_no: int) -> None:
    """Let neither a departure nor another redelivery of the batch, nor routing, come in between."""
    lock_subscriptions(
        connection
    )  # a lead that is about to be queued must not look as if it never was in a queue
    lock_batch(connection, batch_no)


def _known(row: Any) -> Chosen:
    return Chosen(
        delivery_id=row.id,
        state=row.state,
        selected=row.included + row.withheld,
        included=row.included,
        withheld={"rules": row.withheld} if row.withheld else {},
        left_out={},
        available=row.included,
        skipped_rules={},
        mark="",
        is_new=False,
    )


class _Redeliverer:
    """One claim of a redelivery, inside its transaction."""

    def __init__(self, connection: Connection, batch_no: int, request: Request) -> None:
        self.connection = connection
        self.batch_no = batch_no
        self.request = request
        self.chooser = Chooser(connection, batch_no, request)

    def claim(self) -> Chosen:
        """Choose leads and take them."""
        chooser = self.chooser
        available = chooser.choose()
        result = Chosen(
            delivery_id=None,
            state=DeliveryState.CLAIMED if chooser.count(chooser.goes) else DeliveryState.SKIPPED,
            selected=chooser.count(),
            included=chooser.count(chooser.goes),
            withheld=chooser.count_by(chosen.c.rule, chooser.kept_back),
            left_out=chooser.count_by(chosen.c.left_out, chosen.c.left_out.is_not(None)),
            available=available,
            skipped_rules=chooser.count_by(chosen.c.rule, chooser.goes),
            mark="",
            leads=self._shown(),
        )
        return self._take(result) if result.included or result.withheld else result

    def _take(self, result: Chosen) -> Chosen:
        """Make the delivery and bring the leads into it."""
        original = self._original()
        result = replace(result, mark=self._mark(original), delivery_id=self._insert_delivery(result))
        delivery_id = int(result.delivery_id or 0)
        self._describe(delivery_id, original=original, mark=result.mark)
        self._move(delivery_id)
        self._copy(delivery_id)
        self._withhold(delivery_id)
        self._keep_edits(delivery_id)
        self._supersede(delivery_id)
        self._audit(result)
        return result

    # --- the delivery

    def _original(self) -> int | None:
        """Return the delivery that this one repeats: the latest that had one of its leads on the way there."""
        if self.request.file is not None:
            latest = self.request.file.delivery_id
        else:
            before_ = select(func.max(chosen.c.delivery_id)).where(
                self.chooser.goes, chosen.c.standing.in_([str(one) for one in TRAVELLED])
            )
            latest = self.connection.scalar(before_)
        root = select(redelivery.c.original_id).where(redelivery.c.delivery_id == latest)
        return self.connection.scalar(root) or latest

    def _mark(self, original: int | None) -> str:
        """Count the redeliveries of the same delivery: `R1`, `R2`; one that failed is not counted, nobody has it."""
        if original is None or not self.request.mark:
            return ""
        ended = [DeliveryState.FAILED, DeliveryState.SKIPPED]
        earlier = (
            select(func.count())
            .select_from(redelivery)
            .join(delivery, delivery.c.id == redelivery.c.delivery_id)
            .where(redelivery.c.original_id == original, delivery.c.state.not_in(ended))
        )
        return f"R{self.connection.scalars(earlier).one() + 1}"

    def _insert_delivery(self, result: Chosen) -> int:
        departure = self.request.departure
        goes = result.state is DeliveryState.CLAIMED
        row = {
            "batch_no": self.batch_no,
            "config_id": config_id(
                self.connection, self.batch_no, config=departure.config, sha256=departure.config_sha256
            ),
            "number": next_number(self.connection, self.batch_no) if goes else None,
            "run_id": departure.run_id,
            "state": result.state,
            "reason": None if goes else why_not(result),
            "departs_at": departure.departs_at,
            "window_to": func.clock_timestamp(),
            "lease_until": func.now() + departure.lease,
            "included": result.included,
            "withheld": sum(result.withheld.values()),
            "lead_order": self.request.order,
            "kind": DeliveryKind.REDELIVERY,
            "params": departure.params or {},
        }
        made = insert(delivery).values(row).returning(delivery.c.id)
        delivery_id: int = self.connection.scalars(made).one()
        return delivery_id

    def _describe(self, delivery_id: int, *, original: int | None, mark: str) -> None:
        request = self.request
        row = {
            "delivery_id": delivery_id,
            "destination": request.destination,
            "ways": list(request.ways),
            "original_id": original,
            "file_id": request.file.id if request.file else None,
            "mark": mark,
            "include_delivered": request.include_delivered,
            "skip_rules": request.skip_rules,
            "seed": request.seed if request.order == "random" else None,
            "reason": request.reason,
            "actor": request.departure.actor or "unknown",
        }
        self.connection.execute(insert(redelivery).values(row))

    # --- its leads

    def _move(self, delivery_id: int) -> None:
        """Take leads that wait out of their lots; should this fail, they go back to the queue."""
        moved = (chosen.c.standing == LeadStanding.WAITING) & chosen.c.left_out.is_(None)
        if not self.chooser.count(moved):
            return
        taken = new_lot(self.connection, self.batch_no, delivery_id=delivery_id)
        self.connection.execute(
            update(queue_entry)
            .where(
                queue_entry.c.batch_no == self.batch_no,
                queue_entry.c.lead_id == chosen.c.lead_id,
                moved,
                waiting_lots(self.batch_no),
                queue_entry.c.lot_id == lot.c.id,
            )
            .values(lot_id=taken)
        )
        close_lot(self.connection, taken)
        filled = exists().where(queue_entry.c.lot_id == lot.c.id)
        self.connection.execute(delete(lot).where(waiting_lots(self.batch_no), ~filled))

    def _copy(self, delivery_id: int) -> None:
        """Take copies of leads that do not wait."""
        copied = (chosen.c.standing != LeadStanding.WAITING) & chosen.c.left_out.is_(None)
        if not self.chooser.count(copied):
            return
        taken = new_lot(self.connection, self.batch_no, delivery_id=delivery_id, returns=False)
        other = queue_entry.alias("other")
        # The first copy is 1 also of a lead that never was in the queue: 0 is its place there, should it come by itself.
        number = select(func.coalesce(func.max(other.c.copy), 0) + 1).where(
            other.c.lead_id == chosen.c.lead_id, other.c.batch_no == self.batch_no
        )
        entries = select(
            literal(self.batch_no),
            chosen.c.lead_id,
            number.scalar_subquery(),
            literal(taken),
            chosen.c.received_at,
        ).where(copied)
        names = ["batch_no", "lead_id", "copy", "lot_id", "received_at"]
        self.connection.execute(insert(queue_entry).from_select(names, entries))
        close_lot(self.connection, taken)

    def _withhold(self, delivery_id: int) -> None:
        """Write down which rule keeps a lead back, or which one was set aside for it."""
        for table, column, which in (
            (withheld, "reason", self.chooser.kept_back),
            (skipped_rule, "rule", self.chooser.goes),
        ):
            rows = select(literal(delivery_id), chosen.c.lead_id, chosen.c.rule).where(
                which, chosen.c.rule.is_not(None)
            )
            self.connection.execute(insert(table).from_select(["delivery_id", "lead_id", column], rows))

    def _keep_edits(self, delivery_id: int) -> None:
        """Write down what is changed and what stood there; change the leads themselves only where that was asked for."""
        request = self.request
        changed = chosen.c.changes.is_not(None) & chosen.c.left_out.is_(None)
        columns = {
            "lead_id": chosen.c.lead_id,
            "delivery_id": literal(delivery_id),
            "persisted": literal(request.persist_edits),
            "before": before(chosen.c.changes),
            "changes": chosen.c.changes,
            "reason": literal(request.reason),
            "actor": literal(request.departure.actor or "unknown"),
        }
        versions = select(*columns.values()).join_from(chosen, lead, lead.c.id == chosen.c.lead_id)
        self.connection.execute(insert(lead_edit).from_select(list(columns), versions.where(changed)))
        if request.persist_edits:
            self.connection.execute(
                update(lead)
                .where(lead.c.id == chosen.c.lead_id, changed)
                .values(fields=lead.c.fields.op("||")(chosen.c.changes))
            )

    def _supersede(self, delivery_id: int) -> None:
        """Close what could still bring these leads there: the failed tasks of earlier deliveries.

        Their other leads do not go that way either, since the bytes are one: redeliver them, too.

        Raises:
            StoreError: one of them is being sent at this moment.
        """
        leads = func.array(select(chosen.c.lead_id).where(self.chooser.goes).scalar_subquery())
        open_ = (
            func.still_to_send(
                self.batch_no, as_array(self.request.ways), cast(leads, ARRAY(BigInteger)), delivery_id
            )
            .table_valued("dispatch_id", "state", name="open_")
            .render_derived()
        )
        found = self.connection.scalars(select(open_.c.dispatch_id)).all()
        if not found:
            return
        of_these = select(dispatch.c.delivery_id).where(dispatch.c.id.in_(found))
        same_way = dispatch.c.delivery_id.in_(of_these) & dispatch.c.way.in_(self.request.ways)
        self.connection.execute(
            update(dispatch)
            .where(same_way, dispatch.c.state.in_([DispatchState.READY, DispatchState.FAILED]))
            .values(
                state=DispatchState.SKIPPED,
                error_code=REDELIVERED,
                error=f"Delivery {delivery_id} took its leads",
                updated_at=func.now(),
            )
        )
        # A sender that was quicker than the update holds the dispatch now.
        if self.connection.scalars(select(open_.c.dispatch_id)).first() is not None:
            raise StoreError(
                "Leads of the selection are being sent to this destination at this moment",
                hint="Nothing was claimed; wait until that task has ended, then redeliver what failed",
            )

    # --- what is told

    def _shown(self) -> list[dict[str, Any]]:
        """List the first leads for a dry run: ids and reasons only."""
        chooser = self.chooser
        becomes = case(
            (chooser.kept_back, func.concat("withheld: ", chosen.c.rule)),
            (chosen.c.left_out.is_not(None), func.concat("left out: ", chosen.c.left_out)),
            else_=cast("goes", Text),
        )
        query = (
            select(
                chosen.c.lead_id.label("lead"),
                chosen.c.received_at,
                chosen.c.standing,
                becomes.label("becomes"),
                chosen.c.changes.is_not(None).label("edited"),
            )
            .order_by(chosen.c.place.nulls_last(), chosen.c.lead_id)
            .limit(SHOWN)
        )
        return [dict(row) for row in self.connection.execute(query).mappings()]

    def _audit(self, result: Chosen) -> None:
        request = self.request
        detail = {
            "delivery": result.delivery_id,
            "run_id": request.departure.run_id,
            "destination": request.destination,
            "params": request.departure.params or {},
            "included": result.included,
            "withheld": dict(result.withheld),
            "left_out": dict(result.left_out),
            "skipped_rules": dict(result.skipped_rules),
            "reason": request.reason,
        }
        actor = request.departure.actor or "unknown"
        subject = f"batch {request.departure.batch_id}"
        record(self.connection, actor=actor, action="delivery.redeliver", subject=subject, detail=detail)
