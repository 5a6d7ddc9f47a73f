"""What of a batch depends on the moment: the window of a departure, when its files are sent, whose night it is then.

One answer for the claim, for the gate before the destinations, and for the watcher over the queue, so that what is taken
is what may be sent when it is sent. The watcher lives in Airflow's triggerer and is given this part of a batch as JSON.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from leadferry.batch.quiet import QuietHours
from leadferry.batch.windows import Window, WindowRule, window_of
from leadferry.schedule import Schedule, Zone
from leadferry.schedule.opening import Closed, closed

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause

    from leadferry.batch.model import Batch


class Timing(BaseModel):
    """The keys of a batch that decide about moments; survives JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Schedule
    timezone: Zone
    """The batch's."""
    window: WindowRule = "all_pending"
    quiet_hours: QuietHours | None = None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Return the timing of a batch."""
        chosen = batch.select
        return cls(
            schedule=batch.schedule,
            timezone=batch.timezone,
            window=chosen.window,
            quiet_hours=chosen.quiet_hours,
        )

    def window_at(self, departs_at: datetime) -> Window:
        """Return what a departure at an aware moment covers."""
        if self.schedule == "manual":
            return window_of(self.window, departs_at, zone=self.timezone, calendar=None)
        zone = self.schedule.timezone or self.timezone
        return window_of(self.window, departs_at, zone=zone, calendar=self.schedule.calendar)

    def held_back(self, ready_at: datetime) -> Closed | None:
        """Say why files that are ready at an aware moment are not sent then; None when they are."""
        if self.schedule == "manual":
            return None
        return closed(self.schedule, ready_at, timezone=self.timezone)

    def must_wait(
        self, lead: FromClause, ready_at: datetime, *, override_window: bool = False
    ) -> ColumnElement[bool] | None:
        """Return SQL that is true for a lead in whose night it would be sent; None where nobody's night counts.

        Args:
            lead: the table `lead`.
            ready_at: when its files might be sent, were the recipient open; aware.
            override_window: whether they are sent then all the same.
        """
        if self.quiet_hours is None:
            return None
        held = None if override_window else self.held_back(ready_at)
        sent_at = ready_at if held is None else held.until
        return self.quiet_hours.must_wait(lead, sent_at, otherwise=self.timezone)
