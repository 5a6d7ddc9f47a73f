"""Whether anything still departs by a timetable, told in one way wherever it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from leadferry.schedule.model import Cron, Schedule, Timed
from leadferry.schedule.plan import Departure, Plan
from leadferry.zones import told_moment


@dataclass(frozen=True, kw_only=True)
class Ended:
    """That nothing departs any more."""

    last: Departure | None
    """The last departure that there was; None when there was none for as long as `plan.HORIZON` looks back."""

    def __str__(self) -> str:
        """Say it as a clause."""
        if self.last is None:
            return "the schedule never departs, neither in the eight years before today nor after it"
        return f"the schedule is over since {told_moment(self.last.local)}"


def ended(schedule: Schedule, *, timezone: str, now: datetime, batch_id: str = "") -> Ended | None:
    """Say that a timetable has no departure to come; None while it has one, and for a schedule without times of its own.

    Args:
        schedule: a checked schedule.
        timezone: the batch's zone, for a schedule that names none.
        now: any aware moment; a departure at this moment has departed.
        batch_id: whose share of `spread` counts.

    Raises:
        zoneinfo.ZoneInfoNotFoundError: this machine does not know the zone.
    """
    if not isinstance(schedule, Timed | Cron):
        return None
    plan = Plan(schedule, timezone=timezone, batch_id=batch_id)
    if next(plan.after(now), None) is not None:
        return None
    return Ended(last=plan.latest(now))
