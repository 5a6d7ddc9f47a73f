"""Schedules that never depart, and those that are over."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import TypeAdapter

from leadferry.schedule import Schedule
from leadferry.schedule.ending import ended

NOON = datetime(2026, 2, 2, 12, tzinfo=UTC)
NEW_YORK = "America/New_York"


def end_of(schedule, *, now=NOON):
    return ended(TypeAdapter(Schedule).validate_python(schedule), timezone=NEW_YORK, now=now)


@pytest.mark.parametrize(
    "schedule",
    [
        "manual",
        {"on_asset": "prices"},
        {"at": ["09:00"]},
        {"at": ["09:00"], "on": {"year": "02-29"}},
        {"at": ["09:00"], "on": {"dates": ["2026-02-03"]}},
        {"at": ["09:00"], "on": {"dates": ["2030-02-03"]}},
    ],
)
def test_what_has_a_departure_to_come_or_no_timetable_has_no_end(schedule):
    assert end_of(schedule) is None


@pytest.mark.parametrize(
    ("days", "last"),
    [
        ({"dates": ["2026-01-30", "2026-02-02"]}, "Mon 2026-02-02 06:30 EST (11:30 UTC)"),
        ({"dates": ["2021-07-01"]}, "Thu 2021-07-01 06:30 EDT (10:30 UTC)"),
        ({"rrule": "FREQ=DAILY;COUNT=3", "starting": "2026-01-01"}, "Sat 2026-01-03 06:30 EST (11:30 UTC)"),
        (
            {"rrule": "FREQ=WEEKLY;UNTIL=20251231", "starting": "2025-01-01"},
            "Wed 2025-12-31 06:30 EST (11:30 UTC)",
        ),
    ],
)
def test_one_that_is_over_says_since_when_in_its_own_time(days, last):
    found = end_of({"at": ["06:30"], "on": days})
    assert found.last is not None
    assert str(found) == f"the schedule is over since {last}"


def test_the_last_departure_itself_is_the_end():
    day = {"at": ["09:00"], "on": {"dates": ["2026-02-02"]}}
    nine = datetime(2026, 2, 2, 14, tzinfo=UTC)
    assert end_of(day, now=nine - timedelta(seconds=1)) is None
    assert end_of(day, now=nine).last.utc == nine


@pytest.mark.parametrize(
    "schedule",
    [
        {"at": ["09:00"], "on": {"month": "31st business day"}},
        {"at": ["09:00"], "on": {"dates": ["1999-01-04"]}},
    ],
)
def test_one_that_never_departs_is_told_apart(schedule):
    found = end_of(schedule)
    assert found.last is None
    assert str(found) == "the schedule never departs, neither in the eight years before today nor after it"
