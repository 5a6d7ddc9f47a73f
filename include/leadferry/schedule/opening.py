"""Whether a recipient may be delivered to at a moment, and from when on if not: business hours and blackouts.

`plan` moves the departures of the timetable; this is for everything that happens at another time:
what a person triggers, a retry in the evening, a run that was late.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from leadferry.schedule.calendar import Calendar, Hours, told_hours
from leadferry.schedule.clock import write_clock
from leadferry.schedule.instants import resolve
from leadferry.schedule.model import Scheduled

GRACE = timedelta(minutes=15)
"""How long after closing time something may still be sent: a departure at closing time takes a while."""

_DAY = timedelta(days=1)
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
    calendar = schedule.calendar_or_plain
    zone = ZoneInfo(schedule.timezone or timezone)
    wall = moved = moment.astimezone(zone).replace(tzinfo=None)
    reasons: list[str] = []
    for _ in range(_MOST_MOVES):
        found = _outside_hours(schedule, calendar, moved) or _in_a_blackout(calendar, moved)
        if found is None:
            break
        moved = found[0]
        reasons.append(found[1])
    if not reasons:
        return None
    return Closed(until=resolve(moved, zone=zone).utc, reason=f"{wall:%a %H:%M} is {reasons[0]}")


def _outside_hours(schedule: Scheduled, calendar: Calendar, wall: datetime) -> tuple[datetime, str] | None:
    hours = calendar.hours
    if hours is None:
        return None
    day = wall.date()
    why = calendar.why_closed(day)
    if why and schedule.policy_on(weekend=calendar.is_weekend(day)) == "deliver":
        why = None
    if why is None and wall.time() < hours.opens:
        return datetime.combine(day, hours.opens), f"outside business hours ({told_hours(hours)})"
    ends = _closes(calendar, hours, wall)
    if why is None and wall <= datetime.combine(day, ends) + GRACE:
        return None
    opens = _next_opening(schedule, calendar, wall)
    told = f"a closed day ({why})" if why else f"after {write_clock(ends)}, when business hours end"
    return (opens, told) if opens else None


def _in_a_blackout(calendar: Calendar, wall: datetime) -> tuple[datetime, str] | None:
    found = calendar.postponed(wall)
    return (found[0], f"in a blackout ({found[1]})") if found else None


def _closes(calendar: Calendar, hours: Hours, wall: datetime) -> time:
    return min(hours.closes, calendar.closes_at(wall.date()) or hours.closes)


def _next_opening(schedule: Scheduled, calendar: Calendar, wall: datetime) -> datetime | None:
    if calendar.hours is None:
        return None
    tomorrow = wall.date() + _DAY
    on_closed_days = schedule.policy_on(weekend=calendar.is_weekend(tomorrow)) == "deliver"
    day = tomorrow if on_closed_days else calendar.nearest_open(tomorrow, step=1)
    return datetime.combine(day, calendar.hours.opens) if day else None
