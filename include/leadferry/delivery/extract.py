"""First step: route new leads, take those that may go, freeze the configuration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from leadferry.batch.conditions import not_ready
from leadferry.batch.eligibility import caps_of, dedupe_of, failing, gates_of, price_of, version_of
from leadferry.batch.model import Batch
from leadferry.batch.received import collects_from
from leadferry.batch.timing import Timing
from leadferry.delivery.field_changes import guard
from leadferry.delivery.holding import why_on_hold
from leadferry.delivery.leaving_out import slot_of
from leadferry.delivery.made_up import made_up_leads
from leadferry.delivery.params import DeliverNow
from leadferry.destinations.base import Retry
from leadferry.errors import DepartureRefusedError, NothingToDeliverError
from leadferry.states import DeliveryState
from leadferry.store import precedents, settling
from leadferry.store.claim import Claim, Departure, Selection, claim, leave_out
from leadferry.store.database import Database
from leadferry.store.tables import lead


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """The Airflow run that asks for a delivery."""

    run_id: str
    departs_at: datetime
    """The timetable's instant, or the moment of the trigger by hand; aware."""
    params: DeliverNow = field(default_factory=DeliverNow)
    actor: str | None = None
    """The user who triggered it by hand; None for the timetable."""


def extract(database: Database, batch: Batch, trigger: Trigger) -> Claim:
    """Claim what may go for this run; a second call for the run returns the first call's delivery.

    Raises:
        DepartureRefusedError: the batch is disabled, not tested although it must be, or its fields changed and
            nobody acknowledged that; nothing was claimed.
        NothingToDeliverError: too few leads, and the batch's policy is `fail`; they stay in the queue.
        StoreUnavailableError: nothing happened; call it again.
    """
    settling.recover_stale(database)
    changes = None
    if not trigger.params.test:
        may_depart(database, batch)
        changes = guard(database, batch)
    selection = _timed(selection_of(batch, trigger.params), batch, trigger)
    selection = replace(selection, on_hold=why_on_hold(database, batch, selection.kind))
    claimed = claim(database, departure(batch, trigger), selection)
    if claimed.too_many:
        raise DepartureRefusedError(
            f"Batch {batch.id!r} takes nothing: {claimed.reason}",
            hint="Look at what waits; if all is well, trigger the DAG with `ignore_maximum`. The leads stay in the queue",
        )
    if (
        claimed.state is DeliveryState.SKIPPED
        and batch.empty == "fail"
        and not (claimed.on_hold or claimed.on_request)
    ):
        raise NothingToDeliverError(f"Batch {batch.id!r} has nothing to deliver: {claimed.reason}")
    return replace(claimed, changed_fields=str(changes)) if changes is not None else claimed


def may_depart(database: Database, batch: Batch) -> None:
    """Refuse real leads to a batch that is switched off or untried, whoever asks."""
    if not batch.enabled:
        raise DepartureRefusedError(
            f"Batch {batch.id!r} is disabled", hint=f"`leadferry batches enable {batch.id}` switches it on"
        )
    if batch.must_test and not precedents.was_tested(database, batch.id, batch.model_dump(mode="json")):
        raise DepartureRefusedError(
            f"Batch {batch.id!r} must be tested first, and no test of its present configuration arrived",
            hint=f"Run `leadferry batches test {batch.id}`, or trigger the DAG with `test`; leads that wait stay in the queue",
        )


def departure(batch: Batch, trigger: Trigger, *, params: dict[str, Any] | None = None) -> Departure:
    """Return what a claim must know of the batch and the run.

    Args:
        batch: as it is frozen from here on.
        trigger: the run.
        params: what is stored of the run's parameters; the trigger's own when left out.
    """
    config = batch.model_dump(mode="json")
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Departure(
        batch_id=batch.id,
        run_id=trigger.run_id,
        departs_at=trigger.departs_at,
        config=config,
        config_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        flows=batch.flows,
        received_from=collects_from(batch),
        lease=lease(batch),
        params=trigger.params.model_dump(mode="json", exclude_defaults=True) if params is None else params,
        actor=trigger.actor,
        slot=slot_of(batch, trigger.departs_at) if trigger.actor is None else None,
    )


def left_out(database: Database, batch: Batch, trigger: Trigger) -> Claim | None:
    """Write into the ledger that a run is left out, when a person asked for that; None when it is not.

    For whoever is about to wait for something; `extract` asks by itself.
    """
    return None if trigger.actor is not None else leave_out(database, departure(batch, trigger))


def note_not_ready(database: Database, batch: Batch, trigger: Trigger, *, error: str | None) -> Claim:
    """Write into the ledger that a run took nothing: what it waited for did not come, or meanwhile it was to be left out."""
    if batch.conditions.ready is None:
        raise ValueError("this batch waits for nothing")
    reason = not_ready(batch.conditions.ready, error=error)
    return claim(database, departure(batch, trigger), Selection(on_hold=reason))


def selection_of(batch: Batch, params: DeliverNow) -> Selection:
    """Return what a batch, and whoever triggers it, ask of the leads that wait."""
    chosen = batch.select
    return Selection(
        failed_rule=failing(batch, lead),
        order=params.order or chosen.order,
        limit=params.limit or chosen.limit,
        minimum=1 if params.ignore_minimum or params.test else batch.conditions.min_leads,
        maximum=None if params.ignore_maximum or params.test else batch.conditions.max_leads,
        max_wait=batch.conditions.longest_wait,
        departs_empty=batch.empty == "header_only",
        keep_for_next=params.keep_for_next,
        made_up=made_up_leads(batch) if params.test else (),
        mode=chosen.mode,
        version_of=version_of(batch, lead),
        caps=caps_of(batch),
        unit_price=chosen.worth[0],
        price_of=price_of(batch, lead),
        dedupe=dedupe_of(batch, lead),
        gates=gates_of(batch, lead),
    )


def _timed(selection: Selection, batch: Batch, trigger: Trigger) -> Selection:
    """Add what depends on the moment: the window, and which leads wait for the end of their night."""
    now, timing = datetime.now(tz=UTC), Timing.of(batch)
    window = timing.window_at(trigger.departs_at)
    # A file that is built ahead of its departure can hold only what is there now.
    ends = None if window.ends is None or window.ends > now else window.ends
    if ends is None and _stands_for_its_slot(batch, trigger) and trigger.departs_at <= now:
        ends = trigger.departs_at
    at_once = trigger.params.override_window
    waits = timing.must_wait(lead, max(trigger.departs_at, now), override_window=at_once)
    return replace(selection, must_wait=waits, window_from=window.begins, window_to=ends)


def _stands_for_its_slot(batch: Batch, trigger: Trigger) -> bool:
    """Tell whether a departure that was missed is made up for with its own leads, and not with all that wait."""
    return trigger.actor is None and batch.makes_up_for_each


def lease(batch: Batch) -> timedelta:
    """Return how long a delivery keeps its leads between two signs of life: never shorter than its retries take."""
    longest = max(_waits(batch.retry_of(one.id)) for one in batch.destinations)
    return max(batch.claim_lease, longest + timedelta(hours=1))


def _waits(retry: Retry) -> timedelta:
    delay = retry.first_delay
    total = timedelta()
    for _ in range(retry.attempts - 1):
        # Airflow waits up to twice the delay (its jitter).
        total += 2 * min(delay, retry.max_delay)
        delay = delay * retry.factor
    return total
