"""What one question to a timetable costs: Airflow's scheduler and its pages ask for the next run again and again."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

from benchmarks.measure import Number

_QUESTIONS = 300
_SCHEDULES: dict[str, dict[str, Any]] = {
    "weekdays at 09:00": {"at": ["09:00"], "on": "weekdays"},
    "every hour": {"hourly": {"minute": 17}},
    "last business day of the month": {"at": ["09:00"], "on": {"month": "last business day"}},
    "cron 0 9 1 * *": {"cron": "0 9 1 * *"},
}


def run(leads: int, repeat: int) -> list[Number]:  # noqa: ARG001  (as for all benchmarks)
    """Ask 300 times for the next run of schedules with a calendar, and return the median time of a question."""
    from leadferry.schedule.calendar import Calendar

    first = date(2026, 1, 1)
    closed = {str(first + timedelta(days=30 * number)): "holiday" for number in range(80)}
    calendar = Calendar.model_validate({"id": "benchmark", "closed": closed})
    return [_number(name, {**written, "calendar": calendar}) for name, written in _SCHEDULES.items()]


def _number(name: str, written: dict[str, Any]) -> Number:
    import pendulum
    from airflow.timetables.base import TimeRestriction
    from pydantic import TypeAdapter

    from leadferry.schedule import Schedule
    from leadferry.timetables import DepartureTimetable

    schedule = TypeAdapter(Schedule).validate_python(written)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    asked = DepartureTimetable(schedule, "America/New_York", clock=lambda: now)
    restriction = TimeRestriction(earliest=pendulum.datetime(2026, 1, 1), latest=None, catchup=False)
    last, times = None, []
    for _ in range(_QUESTIONS):
        began = time.perf_counter()
        info = asked.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        times.append(time.perf_counter() - began)
        last = info.data_interval if info else None
    what = f"next run, {name}, median"
    return Number(
        benchmark="TIMETABLE", what=what, value=statistics.median(times) * 1000, unit="ms", at_most=1
    )
