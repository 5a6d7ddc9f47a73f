"""When a recipient takes deliveries: business hours, half days and blackouts, for the timetable and for the gate alike.

`plan` asks where a departure of the timetable goes, `closed` whether anything else may be sent at a moment: what a person
triggers, a retry in the evening, a run that was late. Both have the same answer, so that no departure of a preview is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from leadferry.schedule.calendar import LONGEST_CLOSURE, Calendar, told_hours
from leadferry.schedule.clock import write_clock
from leadferry.schedule.instants import resolve, second
from leadferry.schedule.model import Scheduled
from leadferry.zones import time_zone

GRACE = timedelta(minutes=15)
"""How long after closing time something may still be sent: a departure at closing time takes a while."""

_DAY = timedelta(days=1)
_NONE = timedelta()
_MOST_MOVES = 800
"""Business hours and blackouts may push each other; a calendar that never opens must not keep a task busy."""


@dataclass(frozen=True, kw_only=True)
class Closed:
    """Why nothing may be sent at a moment, and when it may."""

    until: datetime
    """In UTC."""
    reason: str


def closed(schedule: Scheduled, moment: datetime, *, timezone: str) -> Closed | None:
    """Say why nothing may be sent at an aware moment; None when it may.

    Closed days count only where the calendar has business hours: without, a person who triggers a delivery
    on a holiday means it.

    Args:
        schedule: whose calendar counts, and whether it departs on closed days.
        moment: when it would be sent.
        timezone: the batch's zone, for a schedule that names none.
    """
    zone = time_zone(schedule.timezone or timezone)
    wall = moment.astimezone(zone).replace(tzinfo=None)
    opens, reasons = opening(schedule, wall, grace=GRACE)
    if not reasons:
        return None
    until = resolve(opens, zone=zone).utc
    if until <= moment and (again := second(opens, zone=zone)):
        until = again.utc  # clocks went back meanwhile, and show the time a second time
    return Closed(until=until, reason=reasons[0])


def opening(
    schedule: Scheduled, wall: datetime, *, grace: timedelta = _NONE, spread: timedelta = _NONE
) -> tuple[datetime, list[str]]:
    """Return the first time from a local time on at which the recipient takes deliveries, and all that is in the way before.

    A later time never has an earlier answer.

    Args:
        schedule: whose calendar counts, and whether it departs on closed days.
        wall: local time without a zone.
        grace: how long after closing time it is not too late yet.
        spread: how much later the departure really goes: it must not go in a blackout then either.
    """
    calendar, reasons = schedule.calendar_or_plain, []
    for _ in range(_MOST_MOVES):
        found = _outside_hours(schedule, wall, grace=grace) or _in_a_blackout(calendar, wall, spread=spread)
        if found is None:
            break
        reasons.append(f"{wall:%a %H:%M} is {found[1]}")
        wall = found[0]
    return wall, reasons


def last_time(schedule: Scheduled, day: date) -> time | None:
    """Return the latest local time of a departure on a day: its half day, or else the end of business hours.

    None when the calendar sets none, or when the recipient does not open on that day before it ends.
    """
    calendar = schedule.calendar_or_plain
    ends, hours = calendar.closes_at(day), calendar.hours
    if hours is None:
        return ends
    ends = min(hours.closes, ends or hours.closes)
    return ends if ends >= hours.opens else None


def _outside_hours(schedule: Scheduled, wall: datetime, *, grace: timedelta) -> tuple[datetime, str] | None:
    """Return when the recipient opens next and why not now; None when it is open, or never opens, or has no hours."""
    hours = schedule.calendar_or_plain.hours
    if hours is None:
        return None
    day = wall.date()
    why = _why_not_served(schedule, day)
    if why is None and wall.time() < hours.opens:
        return datetime.combine(day, hours.opens), f"outside business hours ({told_hours(hours)})"
    ends = last_time(schedule, day) or hours.closes
    if why is None and wall <= datetime.combine(day, ends) + grace:
        return None
    following = next((one for one in _days_after(day) if _why_not_served(schedule, one) is None), None)
    told = f"on a closed day ({why})" if why else f"after {write_clock(ends)}, when business hours end"
    return (datetime.combine(following, hours.opens), told) if following else None


def _why_not_served(schedule: Scheduled, day: date) -> str | None:
    """Return why nothing goes on a day of a calendar with business hours; None when something may."""
    calendar = schedule.calendar_or_plain
    why = calendar.why_closed(day)
    if why and schedule.policy_on(weekend=calendar.is_weekend(day)) != "deliver":
        return why
    return None if last_time(schedule, day) else "half day, over before business hours begin"


def _days_after(day: date) -> Iterator[date]:
    return (day + number * _DAY for number in range(1, min(LONGEST_CLOSURE, (date.max - day).days) + 1))


def _in_a_blackout(calendar: Calendar, wall: datetime, *, spread: timedelta) -> tuple[datetime, str] | None:
    found = calendar.postponed(wall, lead=spread)
    return (found[0], f"in a blackout ({found[1]}), postponed to its end") if found else None
