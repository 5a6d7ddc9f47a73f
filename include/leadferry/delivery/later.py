"""When a delivery must wait although it is ready: before its time, outside business hours, until its second chance.

Nothing here waits itself: the task is given back to Airflow with the moment at which it is to run again, so that no
worker is kept busy, and the leads stay claimed until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from leadferry.batch.model import Batch
from leadferry.batch.timing import Timing
from leadferry.delivery.extract import lease
from leadferry.errors import LeadferryError, OutcomeUnknownError
from leadferry.schedule.instants import resolve
from leadferry.states import DeliveryKind, DeliveryState, DispatchState
from leadferry.store import ledger, sending
from leadferry.store.database import Database
from leadferry.store.later import LaterTry, next_try, order_later_try
from leadferry.store.ledger import Delivery
from leadferry.zones import time_zone, told_moment

_ENDED = frozenset({DeliveryState.FAILED, DeliveryState.SKIPPED})
_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Later:
    """That something is not to be done now."""

    until: datetime
    """Aware."""
    reason: str
    """What it says without a zone is meant in this one:"""
    zone: str
    """Of the batch's schedule."""

    def __str__(self) -> str:
        """Say it after "waits until": `Mon 2026-03-02 09:00 EST (14:00 UTC): Mon 08:00 is outside business hours`."""
        return f"{told_moment(self.until, zone=self.zone)}: {self.reason}"


def not_yet(
    database: Database, delivery_id: int, *, now: datetime, destination_id: str | None = None
) -> Later | None:
    """Say until when a rendered delivery waits, and keep its leads that long; None when it may be sent now.

    A test is never kept waiting: a person looks, and it carries nobody's data. Nor is a destination that has it all.

    Args:
        database: the lead store.
        delivery_id: what is to be sent.
        now: the present, aware.
        destination_id: where; any when left out.
    """
    delivery = ledger.get_delivery(database, delivery_id)
    if delivery.kind is DeliveryKind.TEST or delivery.state in _ENDED:
        return None
    if destination_id is not None and _has_it_all(database, delivery_id, destination_id):
        return None
    batch = Batch.model_validate(delivery.config)
    later = _not_yet(batch, delivery, now=now)
    if later is not None:
        ledger.note_wait(database, delivery_id, later.until - now + lease(batch), reason=str(later))
    elif (delivery.reason or "").startswith(ledger.WAITS):
        _go_on(database, delivery_id, batch, but_for=destination_id, now=now)
    return later


def _has_it_all(database: Database, delivery_id: int, destination_id: str) -> bool:
    there = sending.dispatches_to(database, delivery_id, destination_id)
    return all(one.state in {DispatchState.CONFIRMED, DispatchState.SKIPPED} for one in there)


def _go_on(database: Database, delivery_id: int, batch: Batch, *, but_for: str | None, now: datetime) -> None:
    """Say that a delivery does not wait any more, unless another destination still waits for its second chance."""
    chance = next_try(database, delivery_id, after=now, but_for=but_for)
    if chance is None:
        ledger.go_on(database, delivery_id)
    else:
        _keep_for(database, delivery_id, batch, chance, now=now)


def _keep_for(
    database: Database, delivery_id: int, batch: Batch, chance: LaterTry, *, now: datetime
) -> Later:
    """Keep a delivery's leads until a second chance, and let people read for which."""
    failed = f"{chance.destination} failed for good ({chance.error_code})"
    later = Later(until=chance.until, reason=failed, zone=batch.schedule_zone)
    ledger.note_wait(database, delivery_id, later.until - now + lease(batch), reason=str(later))
    return later


def _not_yet(batch: Batch, delivery: Delivery, *, now: datetime) -> Later | None:
    may_go, zone = max(now, delivery.departs_at), batch.schedule_zone
    held = None if delivery.params.get("override_window") else Timing.of(batch).held_back(may_go)
    if held is not None:
        return Later(until=held.until, reason=held.reason, zone=zone)
    ahead = "it was built ahead of its departure"
    return Later(until=may_go, reason=ahead, zone=zone) if may_go > now else None


def another_time(
    database: Database,
    delivery_id: int,
    destination_id: str,
    error: LeadferryError,
    *,
    now: datetime,
) -> Later | None:
    """Say when a destination is tried once more after its last try failed (`retry.at`), and keep the leads that long.

    None when there is no such time, when all were used, or when a person must first find out what arrived.
    """
    delivery = ledger.get_delivery(database, delivery_id)
    batch = Batch.model_validate(delivery.config)
    times = batch.retry_of(destination_id).at
    undecided = isinstance(error, OutcomeUnknownError) or delivery.state in _ENDED
    if not times or undecided or delivery.kind is DeliveryKind.TEST:
        return None
    until = _next_time(times, now, zone=batch.schedule_zone)
    ordered = order_later_try(
        database, delivery_id, destination_id, until=until, error_code=error.code, most=len(times)
    )
    chance = LaterTry(destination=destination_id, until=until, error_code=error.code)
    return _keep_for(database, delivery_id, batch, chance, now=now) if ordered else None


def _next_time(times: Sequence[time], now: datetime, *, zone: str) -> datetime:
    today = now.astimezone(time_zone(zone)).date()
    walls = (datetime.combine(day, at) for day in (today, today + _DAY) for at in times)
    instants = (resolve(wall, zone=time_zone(zone)).utc for wall in walls)
    return min(instant for instant in instants if instant > now)
