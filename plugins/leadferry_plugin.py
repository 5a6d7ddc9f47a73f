"""Makes Leadferry's timetables known to Airflow; loaded by every Airflow process from the plugins folder."""

from __future__ import annotations

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from leadferry.asset_timetable import DepartureOrAssetTimetable
from leadferry.timetables import DepartureTimetable


class LeadferryPlugin(AirflowPlugin):
    """What Leadferry adds to Airflow."""

    name = "leadferry"
    timetables: ClassVar = [DepartureTimetable, DepartureOrAssetTimetable]
