"""The claim: the one transaction that gives waiting lots to a delivery and withholds what fails a rule.

Set-based SQL, whose cost grows with the leads that wait, never with the leads delivered before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    Connection,
    func,
    insert,
    select,
    update,
)

from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.audit import record
from leadferry.store.boarding import Boarding
from leadferry.store.caps import CapNotice, note_levels
from leadferry.store.database import Database
from leadferry.store.due import window
from leadferry.store.judge import LIMIT, Judge, Verdict, candidate, looked_at, withheld_candidates
from leadferry.store.opening import config_id, live_delivery_of_run, next_number
from leadferry.store.overflow import pass_on
from leadferry.store.routing import lock_batch, route_new_leads
from leadferry.store.selection import Selection
from leadferry.store.skips import Slot, use_skip
from leadferry.store.tables import (
    delivery,
    delivery_lead,
    queue_entry,
)

__all__ = ["Claim", "Departure", "Selection", "claim"]

TOO_MANY = "more leads than are believed"
"""How the reason of such a delivery begins."""


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
    actor: str | None = None
    """Who asked for it by hand; leaves an audit row."""
    slot: Slot | None = None
    """Which departure of the timetable it is; only such a one can be left out on request. None for any other."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the claim did."""

    delivery_id: int
    state: DeliveryState
    included: int
    withheld: int
    reason: str | None = None
    on_request: bool = False
    """Whether a person wanted this departure left out."""
    on_hold: bool = False
    """Whether nothing was claimed because the batch is held or suspended."""
    too_many: bool = False
    """Whether nothing was claimed because more leads might go than is believed."""
    is_new: bool = True
    """False when the run had its delivery already."""
    left: int = 0
    """Leads that might have gone but stay in the queue, for a cap or a limit."""
    left_reason: str | None = None
    """Which cap, or `limit`."""
    changed_fields: str | None = None
    """How the columns differ from those of the last delivery, where the batch wants that told."""
    caps: tuple[CapNotice, ...] = ()
    """Caps that are nearly or completely used up since this claim, and were not before in their period."""


def claim(database: Database, departure: Departure, selection: Selection) -> Claim:
    """Take the leads that may go out of the queue and into a delivery, in one transaction.

    A second call for the same run returns the delivery that the first one made.
    When less than the minimum may go, leads stay in the queue and the delivery is recorded as skipped;
    leads that fail a rule are withheld either way.

    Raises:
        StoreUnavailableError: nothing happened; call it again.
    """
    batch_no = routed(database, departure)
    with database.transaction() as connection:
        known = _known(connection, batch_no, departure)
        if known is not None:
            return known
        left_out = _left_out(connection, batch_no, departure)
        return left_out or _Claimer(connection, batch_no, departure, selection).claim()


def leave_out(database: Database, departure: Departure) -> Claim | None:
    """Record that a departure is left out, when a person asked for that; None when it is not, or when it took leads already.

    Raises:
        StoreUnavailableError: nothing happened; call it again.
    """
    batch_no = routed(database, departure)
    with database.transaction() as connection:
        if _known(connection, batch_no, departure) is not None:
            return None
        return _left_out(connection, batch_no, departure)


def routed(database: Database, departure: Departure) -> int:
    """Put the new leads of the batch's flows into its queue, in a transaction of their own; return the batch's number."""
    return route_new_leads(
        database,
        batch_id=departure.batch_id,
        flows=departure.flows,
        received_from=departure.received_from,
    )


def _known(connection: Connection, batch_no: int, departure: Departure) -> Claim | None:
    """Return what the run's claim did, when it was there before.

    One claim of a batch at a time: limits and minimums count right, and the second sees what the first left.
    """
    lock_batch(connection, batch_no)
    return _delivery_of_run(connection, batch_no=batch_no, run_id=departure.run_id)


def _left_out(connection: Connection, batch_no: int, departure: Departure) -> Claim | None:
    if departure.slot is None:
        return None
    why = use_skip(connection, departure.batch_id, departure.slot, run_id=departure.run_id)
    return _Claimer(connection, batch_no, departure, Selection()).leave_out(why) if why else None


def _delivery_of_run(connection: Connection, *, batch_no: int, run_id: str) -> Claim | None:
    row = live_delivery_of_run(connection, batch_no, run_id=run_id)
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
        self.kind = selection.kind
        self.window_from, self.window_to = window(
            connection, batch_no, begins=selection.window_from, ends=selection.window_to
        )
        self.boarding = Boarding(connection, batch_no, selection, window_to=self.window_to)

    def claim(self) -> Claim:
        """Claim, or record why not."""
        if self.selection.on_hold is not None:
            return self._wait(self.selection.on_hold)
        if self.selection.needs_judge and self.kind is not DeliveryKind.TEST:
            return self._claim_judged()
        counted = self.boarding.may_go() if self.selection.counts_beyond_limit else None
        savepoint = self.connection.begin_nested()
        delivery_id = self._insert_delivery(DeliveryState.CLAIMED)
        leads = self.boarding.take(delivery_id)
        withheld_leads = self.boarding.withhold(delivery_id)
        included = leads - withheld_leads
        may_go = included if counted is None else counted.leads
        if self.selection.maximum is not None and may_go > self.selection.maximum:
            savepoint.rollback()
            return self._refuse(may_go, self.selection.maximum)
        missing = self._too_few(may_go, lambda: counted.oldest if counted else self._oldest(delivery_id))
        if missing is None:
            savepoint.commit()
            self._note_what_the_limit_left(delivery_id, None if counted is None else may_go - included)
            return self._finish(
                delivery_id, DeliveryState.CLAIMED, included=included, withheld=withheld_leads
            )
        savepoint.rollback()
        state = DeliveryState.CLAIMED if self.selection.departs_empty else DeliveryState.SKIPPED
        delivery_id = self._insert_delivery(state)
        withheld_leads = self.boarding.take_failing(delivery_id)
        return self._finish(delivery_id, state, included=0, withheld=withheld_leads, reason=missing)

    def _note_what_the_limit_left(self, delivery_id: int, counted: int | None) -> None:
        """Write down how many leads could have gone too, had the delivery been larger."""
        if self.selection.limit is None or self.kind is not DeliveryKind.DEPARTURE:
            return
        if waiting := self.boarding.left_behind() if counted is None else counted:
            told = {"left_waiting": waiting, "left_reason": self._of_the_limit}
            self.connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(told))

    @property
    def _of_the_limit(self) -> str:
        return f"limit of {self.selection.limit}"

    def leave_out(self, reason: str) -> Claim:
        """Record that this departure was not wanted; no lead is touched."""
        delivery_id = self._insert_delivery(DeliveryState.SKIPPED)
        skipped = self._finish(delivery_id, DeliveryState.SKIPPED, included=0, withheld=0, reason=reason)
        return replace(skipped, on_request=True)

    def _wait(self, reason: str) -> Claim:
        """Record that this departure took nothing, whatever waits."""
        delivery_id = self._insert_delivery(DeliveryState.SKIPPED)
        held = update(delivery).where(delivery.c.id == delivery_id).values(on_hold=True)
        self.connection.execute(held)
        claimed = self._finish(delivery_id, DeliveryState.SKIPPED, included=0, withheld=0, reason=reason)
        return replace(claimed, on_hold=True)

    def _claim_judged(self) -> Claim:
        """Claim when every lead is judged first, so that what follows is known before a lead is moved."""
        judge = Judge(
            self.connection,
            self.batch_no,
            self.selection,
            due=self.boarding.due(),
            failed_rule=self.boarding.failed_rule,
            now=self.window_to,
        )
        verdict = judge.judge()
        if self.selection.maximum is not None and verdict.may_go > self.selection.maximum:
            return self._refuse(verdict.may_go, self.selection.maximum)
        gate = judge.closed_gate(verdict)
        missing = self._too_few(verdict.may_go, lambda: verdict.oldest, used_up=verdict.used_up) or gate
        if missing is None:
            delivery_id = self._insert_delivery(DeliveryState.CLAIMED)
            self._take_judged(judge, delivery_id, verdict)
            return self._finish_judged(delivery_id, DeliveryState.CLAIMED, verdict)
        departs = self.selection.departs_empty and gate is None
        state = DeliveryState.CLAIMED if departs else DeliveryState.SKIPPED
        delivery_id = self._insert_delivery(state)
        none_go = replace(
            verdict, included=0, withheld=0, revenue=None if verdict.revenue is None else Decimal()
        )
        if self.kind is DeliveryKind.DEPARTURE and verdict.withheld:
            self._take_withheld(judge, delivery_id, verdict)
            none_go = replace(none_go, withheld=verdict.withheld)
            if state is DeliveryState.SKIPPED:
                pass_on(self.connection, delivery_id)
        return self._finish_judged(delivery_id, state, none_go, reason=missing)

    def _take_judged(self, judge: Judge, delivery_id: int, verdict: Verdict) -> None:
        if self.kind is DeliveryKind.EARLY_COPY:
            self.boarding.copy(delivery_id, [looked_at(verdict.edge)])
        elif judge.takes_all(verdict):
            list(self.boarding.take_lots(delivery_id))
        else:
            self.boarding.move(delivery_id, [looked_at(verdict.edge)])
        judge.keep_back(delivery_id, verdict)

    def _take_withheld(self, judge: Judge, delivery_id: int, verdict: Verdict) -> None:
        """Withhold although nothing departs."""
        failing = select(candidate.c.lead_id).where(*withheld_candidates(verdict.edge))
        self.boarding.move(delivery_id, [queue_entry.c.lead_id.in_(failing)])
        judge.keep_back(delivery_id, verdict, departs=False)

    def _too_few(
        self, may_go: int, oldest: Callable[[], datetime | None], *, used_up: str | None = None
    ) -> str | None:
        """Say why so few leads may not depart, or None when they may.

        Args:
            may_go: how many.
            oldest: asks when the oldest of them was received.
            used_up: which cap keeps others in the queue.
        """
        minimum = max(self.selection.minimum, 1)
        if may_go >= minimum:
            return None
        if not may_go:
            return used_up or self.boarding.why_none_goes()
        if self.selection.max_wait is not None:
            received_at = oldest()
            if received_at is not None and received_at <= self.window_to - self.selection.max_wait:
                return None
        too_few = f"{may_go} leads may go, the minimum is {minimum}"
        return f"{too_few}; {used_up}" if used_up else too_few

    def _finish_judged(
        self, delivery_id: int, state: DeliveryState, verdict: Verdict, *, reason: str | None = None
    ) -> Claim:
        left = {
            "left_waiting": verdict.left,
            "left_reason": self._of_the_limit if verdict.left_reason == LIMIT else verdict.left_reason,
            "unit_price": self.selection.unit_price,
            "revenue": verdict.revenue,
        }
        self.connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(left))
        notices: tuple[CapNotice, ...] = ()
        if self.kind is DeliveryKind.DEPARTURE:
            notices = note_levels(
                self.connection,
                self.batch_no,
                verdict.rooms,
                leads=verdict.included,
                revenue=verdict.revenue or Decimal(),
                full=verdict.full,
            )
        done = self._finish(
            delivery_id, state, included=verdict.included, withheld=verdict.withheld, reason=reason
        )
        return replace(done, left=verdict.left, left_reason=verdict.left_reason, caps=notices)

    def _refuse(self, included: int, maximum: int) -> Claim:
        """Record that more leads might go than is believed; all of them stay."""
        delivery_id = self._insert_delivery(DeliveryState.SKIPPED)
        reason = f"{TOO_MANY}: {included} may go, the maximum is {maximum}"
        refused = self._finish(delivery_id, DeliveryState.SKIPPED, included=0, withheld=0, reason=reason)
        return replace(refused, too_many=True)

    def _oldest(self, delivery_id: int) -> datetime | None:
        """Return when the oldest lead was received that the delivery has and does not withhold."""
        oldest = select(func.min(delivery_lead.c.received_at)).where(
            delivery_lead.c.delivery_id == delivery_id, delivery_lead.c.outcome == "included"
        )
        received_at: datetime | None = self.connection.scalar(oldest)
        return received_at

    def _insert_delivery(self, state: DeliveryState) -> int:
        departure = self.departure
        row = {
            "batch_no": self.batch_no,
            "config_id": config_id(
                self.connection, self.batch_no, config=departure.config, sha256=departure.config_sha256
            ),
            "number": next_number(self.connection, self.batch_no) if self._counts(state) else None,
            "run_id": departure.run_id,
            "state": state,
            "departs_at": departure.departs_at,
            "window_from": self.window_from,
            "window_to": self.window_to,
            "lease_until": func.now() + departure.lease,
            "lead_order": self.selection.order,
            "kind": self.kind,
            "params": departure.params or {},
        }
        delivery_id: int = self.connection.scalars(
            insert(delivery).values(row).returning(delivery.c.id)
        ).one()
        return delivery_id

    def _counts(self, state: DeliveryState) -> bool:
        return state is not DeliveryState.SKIPPED and self.kind is not DeliveryKind.TEST

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
        if self.departure.actor is not None:
            self._audit(delivery_id, actor=self.departure.actor, included=included)
        return Claim(
            delivery_id=delivery_id, state=state, included=included, withheld=withheld, reason=reason
        )

    def _audit(self, delivery_id: int, *, actor: str, included: int) -> None:
        detail = {
            "delivery": delivery_id,
            "run_id": self.departure.run_id,
            "params": self.departure.params or {},
            "included": included,
        }
        subject = f"batch {self.departure.batch_id}"
        record(self.connection, actor=actor, action="delivery.trigger", subject=subject, detail=detail)
