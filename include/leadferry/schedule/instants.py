"""From a local wall-clock time to the one instant it means, on the nights when clocks change too.

One rule covers everything: a wall-clock time means the first instant at which the local clock shows it or a later time.

* On an ordinary day that is the instant everybody expects.
* In a gap (clocks go forward, the time does not exist) it is the first instant after the gap.
* In a fold (clocks go back, the time comes twice) it is the first of the two.

The rule never turns order around: of two wall-clock times the later one never means the earlier instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Instant:
    """What a wall-clock time means in a zone."""

    utc: datetime
    note: str
    """Why the local clock shows something else, or which of two times it is; empty on ordinary days."""


def resolve(wall: datetime, *, zone: ZoneInfo) -> Instant:
    """Return the instant that a wall-clock time means.

    Args:
        wall: local date and time without a zone, in the years 2 to 9998.
        zone: where the clock hangs.
    """
    before, after = (_offset(wall, zone=zone, fold=fold) for fold in (0, 1))
    if before < after:
        return _after_gap(wall, zone=zone, before=before, after=after)
    note = f"{wall:%H:%M} comes twice, clocks go back; this is the first" if before > after else ""
    return Instant(utc=(wall - before).replace(tzinfo=UTC), note=note)


def _offset(wall: datetime, *, zone: ZoneInfo, fold: int) -> timedelta:
    """Return the zone's offset before (fold 0) or after (fold 1) a change of clocks that `wall` falls into."""
    return zone.utcoffset(wall.replace(fold=fold)) or timedelta()


def _after_gap(wall: datetime, *, zone: ZoneInfo, before: timedelta, after: timedelta) -> Instant:
    """Find the change of clocks that swallowed `wall`: `wall` lies between the two readings of one instant."""
    low, high = (wall - after).replace(tzinfo=UTC), (wall - before).replace(tzinfo=UTC)
    while high - low > timedelta(seconds=1):  # clocks change on whole seconds
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            low = middle
        else:
            high = middle
    gone, shown = (high + before).replace(tzinfo=None), (high + after).replace(tzinfo=None)
    note = f"{wall:%Y-%m-%d %H:%M} does not exist, clocks go from {gone:%H:%M} to {_clock(shown, day=gone)}"
    return Instant(utc=high, note=note)


def _clock(shown: datetime, *, day: datetime) -> str:
    """Write the time, with its date when the clocks jumped to another day."""
    return f"{shown:%H:%M}" if shown.date() == day.date() else f"{shown:%Y-%m-%d %H:%M}"


def second(wall: datetime, *, zone: ZoneInfo) -> Instant | None:
    """Return the second instant at which the clock shows a time, on a night when clocks go back; None on others."""
    before, after = (_offset(wall, zone=zone, fold=fold) for fold in (0, 1))
    if before <= after:
        return None
    note = f"{wall:%H:%M} comes twice, clocks go back; this is the second"
    return Instant(utc=(wall - after).replace(tzinfo=UTC), note=note)
