"""When a batch departs: what a person may write about it, and the instants that follow from it.

Pure calendar arithmetic: no Airflow, no database, no clock of its own.

* `zones`: names of time zones, checked.
* `model`: the key `schedule` of a batch file.
* `instants`: from a local wall-clock time to the one instant it means, on DST nights too.
* `plan`: the departures of a schedule, forwards and backwards.

A new way to choose days (a month's last Friday, a business calendar) is a new `on` in `model`,
and answers `departs_on(day)`; nothing below it changes.
"""

from __future__ import annotations

from leadferry.schedule.model import Schedule, Timed
from leadferry.schedule.plan import Departure, departures, latest_departure
from leadferry.schedule.zones import Zone

__all__ = ["Departure", "Schedule", "Timed", "Zone", "departures", "latest_departure"]
