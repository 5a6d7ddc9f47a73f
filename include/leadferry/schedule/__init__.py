"""When a batch departs: what a person may write about it, and the instants that follow from it.

Pure calendar arithmetic: no Airflow, no database, no clock of its own.

* `clock`: times of day and weekdays, checked; zones are in `leadferry.zones`.
* `model`: the key `schedule` of a batch file.
* `days`, `recurrence`: the days that a schedule names: weekdays, days of a period, listed dates, RRULE, cron.
* `calendar`, `fiscal`: which of them are closed, business hours, blackouts; the company's year.
* `holiday_lists`, `date_files`, `ics`: where a calendar's dates come from.
* `library`: schedules that have a name.
* `instants`: from a local wall-clock time to the one instant it means, on DST nights too.
* `plan`: the departures of a schedule, forwards and backwards.
* `ending`: whether any are to come.
* `usable`: whether it can become a timetable of Airflow.

A new way to choose days is a new model in `days` that answers `between(first, last)`; nothing below it changes.
"""

from __future__ import annotations

from leadferry.schedule.calendar import Calendar
from leadferry.schedule.model import Cron, OnAsset, Schedule, Timed
from leadferry.schedule.plan import Departure, Plan, departures, latest_departure
from leadferry.zones import Zone

__all__ = [
    "Calendar",
    "Cron",
    "Departure",
    "OnAsset",
    "Plan",
    "Schedule",
    "Timed",
    "Zone",
    "departures",
    "latest_departure",
]
