"""The departures of a schedule: every one after a moment, or the latest one before it.

Both directions answer in microseconds, because Airflow asks for the next departure again and again,
and give up after `HORIZON` days without one, so that no schedule can keep a process busy for ever.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from operator import attrgetter
from zoneinfo import ZoneInfo

from leadferry.schedule.instants import Instant, resolve
from leadferry.schedule.model import Schedule, Timed

HORIZON = 800
"""Days without a departure after which a schedule counts as ended; more than two years, for yearly schedules."""

_FIRST = datetime(2, 1, 1, tzinfo=UTC)
_LAST = datetime(9998, 1, 1, tzinfo=UTC) - timedelta.resolution
"""What a calendar can be asked about, so that no arithmetic near its ends can overflow."""

_NOTES = 2
"""How many times that fall on one instant are each explained; of more, the first stands for all."""

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Departure:
    """One departure of a schedule."""

    utc: datetime
    """The instant, in UTC."""
    local: datetime
    """The same instant as the schedule's own zone shows it."""
    note: str = ""
    """Why it is not at the time that the schedule names; empty when it is."""


def departures(schedule: Schedule, *, timezone: str, after: datetime) -> Iterator[Departure]:
    """Yield the departures strictly after a moment, each later than the one before; none for `manual`.

    Times of the schedule that fall on one instant are one departure.

    Args:
        schedule: a checked schedule.
        timezone: the batch's zone, for a schedule that names none.
        after: any aware moment.

    Raises:
        ValueError: `after` has no time zone.
        zoneinfo.ZoneInfoNotFoundError: this machine does not know the zone.
    """
    if schedule == "manual":
        return
    zone = zone_of(schedule, timezone=timezone)
    start = _within_calendar(after)
    instants = (
        resolve(wall, zone=zone) for wall in _walls(schedule, start.astimezone(zone).replace(tzinfo=None))
    )
    for utc, same in groupby(instants, key=attrgetter("utc")):
        if start < utc <= _LAST:
            yield _departure(utc, same=list(same), zone=zone)


def latest_departure(schedule: Schedule, *, timezone: str, by: datetime) -> Departure | None:
    """Return the latest departure at or before a moment; None when there is none, as for `manual`.

    Args:
        schedule: a checked schedule.
        timezone: the batch's zone, for a schedule that names none.
        by: any aware moment.

    Raises:
        ValueError: `by` has no time zone.
        zoneinfo.ZoneInfoNotFoundError: this machine does not know the zone.
    """
    if schedule == "manual":
        return None
    zone = zone_of(schedule, timezone=timezone)
    end = _within_calendar(by)
    for day in _days_back(schedule, end.astimezone(zone).date()):
        utc = _latest_on(day, schedule=schedule, zone=zone, end=end)
        if utc is not None and utc > _FIRST:
            return next(departures(schedule, timezone=timezone, after=utc - timedelta.resolution))
    return None


def zone_of(schedule: Timed, *, timezone: str) -> ZoneInfo:
    """Return the zone in which the schedule's times and days are meant."""
    return ZoneInfo(schedule.timezone or timezone)


def _within_calendar(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone means nothing; give an aware datetime")
    if not _FIRST <= moment.replace(tzinfo=UTC) < _LAST:
        return _FIRST if moment.replace(tzinfo=UTC) < _FIRST else _LAST
    utc = moment.astimezone(UTC)
    # a plain datetime, whatever came in: Airflow hands over pendulum's, whose own arithmetic is slow
    return datetime.combine(date(utc.year, utc.month, utc.day), utc.time(), tzinfo=UTC)


def _walls(schedule: Timed, start: datetime) -> Iterator[datetime]:
    """Yield the schedule's wall-clock times after `start`, in order.

    No time up to the local time `start` can mean a later instant than `start` itself: see the rule in `instants`.
    """
    times = sorted(schedule.at)
    left = times[bisect_right(times, start.time()) :]
    day, idle = start.date(), 0
    while idle < HORIZON and day <= _LAST.date() + _DAY:
        if schedule.departs_on(day):
            idle = 0
            yield from (datetime.combine(day, at) for at in left)
        left = times
        day, idle = day + _DAY, idle + 1


def _days_back(schedule: Timed, end: date) -> Iterator[date]:
    """Yield the days of departure backwards, from a little after the day `end`.

    After: where clocks went back over midnight, the local calendar has shown the next day before.
    """
    day, idle = end + 2 * _DAY, 0
    while idle < HORIZON and day.year > 1:
        if schedule.departs_on(day):
            idle = 0
            yield day
        day, idle = day - _DAY, idle + 1


def _latest_on(day: date, *, schedule: Timed, zone: ZoneInfo, end: datetime) -> datetime | None:
    """Return the instant of the day's latest time at or before `end`; the times of a day keep their order."""

    def instant(at: time) -> datetime:
        return resolve(datetime.combine(day, at), zone=zone).utc

    times = sorted(schedule.at)
    passed = bisect_right(times, end, key=instant)
    return instant(times[passed - 1]) if passed else None


def _departure(utc: datetime, *, same: list[Instant], zone: ZoneInfo) -> Departure:
    notes = [instant.note for instant in same if instant.note]
    if len(notes) > _NOTES:
        notes = [*notes[:1], f"the same for {len(notes) - 1} more times"]
    return Departure(utc=utc, local=utc.astimezone(zone), note="; ".join(notes))
