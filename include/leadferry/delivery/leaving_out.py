"""Leaving out the next departure of a timetable because a person wants that: which one it is, and what is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from leadferry.batch.model import Batch
from leadferry.errors import StoreError
from leadferry.schedule import Departure, OnAsset, departures, latest_departure
from leadferry.schedule.ending import ended
from leadferry.store import skips
from leadferry.store.database import Database
from leadferry.store.skips import Answer, Slot
from leadferry.zones import told_moment


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A departure that will not go."""

    departure: Departure
    is_new: bool
    """False when it was ordered before."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of the wish that the next departure go after all."""

    withdrawn: bool
    """Whether an order was taken back."""
    too_late: datetime | None
    """A departure to come that was left out already, ahead of its time; UTC."""
    departure: Departure | None
    """The one that goes after all, or else the next that does; None when the schedule is over."""


def why_none_departs(batch: Batch, *, now: datetime) -> str | None:
    """Say why a batch has no departure of a timetable to come; None when it has."""
    if batch.schedule == "manual":
        return "it has no timetable: it departs only when it is triggered by hand"
    if isinstance(batch.schedule, OnAsset):
        return f"it has no timetable: it departs when the asset {batch.schedule.on_asset} is updated"
    if not batch.enabled:
        return "it is disabled, nothing departs"
    over = ended(batch.schedule, timezone=batch.timezone, now=now, batch_id=batch.id)
    return None if over is None else str(over)


def slot_of(batch: Batch, departs_at: datetime) -> Slot:
    """Return which departure of a batch's present timetable a run for an aware instant is."""
    before = departs_at - datetime.resolution
    previous = latest_departure(batch.schedule, timezone=batch.timezone, by=before, batch_id=batch.id)
    return Slot(at=departs_at, follows=previous.utc if previous else None, zone=batch.schedule_zone)


def leave_out_next(database: Database, batch: Batch, *, now: datetime, actor: str, reason: str) -> LeftOut:
    """Ask that the next departure of the timetable be left out; one whose run found nothing to take is no departure any more.

    Raises:
        StoreError: its run, which begins ahead of it, has taken its leads already; or nothing departs by a timetable.
        StoreUnavailableError: nothing happened; call it again.
    """
    for departure in _upcoming(batch, now):
        slot = slot_of(batch, departure.utc)
        answer = skips.order_skip(database, batch.id, slot, actor=actor, reason=reason)
        if answer is Answer.TAKEN:
            raise _too_late(batch, departure)
        if answer is not Answer.OVER:
            return LeftOut(departure=departure, is_new=answer is Answer.NEW)
    raise StoreError(f"Batch {batch.id!r} has no departure to leave out", hint="Nothing was changed")


def _too_late(batch: Batch, departure: Departure) -> StoreError:
    following = next(iter(_upcoming(batch, departure.utc)), None)
    later = (
        f"; to leave out the one after it, {told_moment(following.local)}, ask again then"
        if following
        else ""
    )
    return StoreError(
        f"The departure of {told_moment(departure.local)} cannot be left out any more: its run has taken its leads",
        hint=f"Nothing was changed. `leadferry hold {batch.id} --reason TEXT` before then keeps it from being sent: the"
        f" delivery fails and its leads go back to the queue{later}",
    )


def keep_next(database: Database, batch: Batch, *, now: datetime, actor: str, reason: str) -> Kept:
    """Take back the orders to leave out departures that have not come about yet.

    Raises:
        StoreUnavailableError: nothing happened; call it again.
    """
    # The run of the latest departure may still wait for something before it takes leads.
    due = latest_departure(batch.schedule, timezone=batch.timezone, by=now, batch_id=batch.id)
    void = slot_of(batch, due.utc).follows if due else None
    taken_back = skips.withdraw_skips(database, batch.id, after=void, actor=actor, reason=reason)
    left_out = skips.left_out_from(database, batch.id, now)
    upcoming = _upcoming(batch, taken_back[0] - datetime.resolution if taken_back else now)
    return Kept(
        withdrawn=bool(taken_back),
        too_late=left_out[0] if left_out else None,
        departure=next((one for one in upcoming if one.utc not in left_out), None),
    )


def _upcoming(batch: Batch, after: datetime) -> Iterator[Departure]:
    return departures(batch.schedule, timezone=batch.timezone, after=after, batch_id=batch.id)
