"""What a wall-clock time means, found another way than the package does: by trying every stretch of constant offset."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

ZONES = [
    "America/New_York",
    "America/Sao_Paulo",
    "Europe/London",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Africa/Cairo",
    "America/St_Johns",
    "Pacific/Auckland",
]
"""Zones with odd rules: half hours, changes at midnight, a day that never was, Ramadan."""


@cache
def _offsets(timezone: str) -> tuple[list[datetime], list[timedelta]]:
    """Return when the zone's offset changed between 1985 and 2040, and to what, asking only from UTC to local."""
    # The package's file itself, whatever another test does with the folders that `ZoneInfo(name)` looks in.
    with resources.files("tzdata").joinpath("zoneinfo", *timezone.split("/")).open("rb") as data:
        zone = ZoneInfo.from_file(data, key=timezone)

    def offset(moment: datetime) -> timedelta:
        return moment.astimezone(zone).utcoffset()

    moment, starts = datetime(1985, 1, 1, tzinfo=UTC), [datetime(1985, 1, 1, tzinfo=UTC)]
    while moment < datetime(2040, 1, 1, tzinfo=UTC):
        then = moment + timedelta(days=5)
        if offset(then) != offset(moment):
            low, high = moment, then
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            starts.append(high.replace(microsecond=0))
        moment = then
    return starts, [offset(start) for start in starts]


def oracle_instant(wall: datetime, timezone: str) -> datetime:
    """Try every stretch of constant offset: where does the clock show this time, or else pass it by?"""
    starts, offsets = _offsets(timezone)
    first = max(bisect_right(starts, wall.replace(tzinfo=UTC)) - 3, 0)
    for index in range(first, len(starts)):
        end = starts[index + 1] if index + 1 < len(starts) else datetime(2041, 1, 1, tzinfo=UTC)
        begins_at = (starts[index] + offsets[index]).replace(tzinfo=None)
        ends_at = (end + offsets[index]).replace(tzinfo=None)
        if begins_at <= wall < ends_at:
            return (wall - offsets[index]).replace(tzinfo=UTC)
        if wall < begins_at:
            return starts[index]
    raise AssertionError(wall)


def shown_instants(wall: datetime, timezone: str) -> list[datetime]:
    """Return every instant at which the clock shows this time: none in a gap, two in a fold."""
    starts, offsets = _offsets(timezone)
    first = max(bisect_right(starts, wall.replace(tzinfo=UTC)) - 3, 0)
    found = []
    for index in range(first, min(first + 6, len(starts))):
        instant = (wall - offsets[index]).replace(tzinfo=UTC)
        ends = starts[index + 1] if index + 1 < len(starts) else datetime(2041, 1, 1, tzinfo=UTC)
        if starts[index] <= instant < ends:
            found.append(instant)
    return found


@dataclass(frozen=True, kw_only=True)
class Change:
    """A moment at which the clock jumps: what it would have shown, and what it shows."""

    at: datetime
    before: datetime
    after: datetime

    @property
    def is_gap(self) -> bool:
        """Whether clocks go forward, so that times are missing; else they go back, and times come twice."""
        return self.after > self.before


def changes(timezone: str, years: range) -> list[Change]:
    """Return when the zone's clocks jump in these years."""
    starts, offsets = _offsets(timezone)
    return [
        Change(
            at=at,
            before=(at + before).replace(tzinfo=None),
            after=(at + after).replace(tzinfo=None),
        )
        for at, before, after in zip(starts[1:], offsets, offsets[1:], strict=False)
        if at.year in years
    ]
