"""What Airflow would refuse is refused with the batch; what is refused there, Airflow would refuse."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from airflow.exceptions import AirflowTimetableInvalid
from pydantic import TypeAdapter

from leadferry.schedule import Schedule, Timed
from leadferry.schedule.usable import why_unusable
from leadferry.timetables import timetable_for

NOON = datetime(2026, 2, 2, 12, tzinfo=UTC)
NEW_YORK = "America/New_York"
DAYS_OF_THE_YEAR = list(range(1, 200))


def schedule_of(written):
    return TypeAdapter(Schedule).validate_python(written)


def airflow_refuses(schedule) -> bool:
    times = timetable_for(schedule, NEW_YORK)
    with suppress(AirflowTimetableInvalid):
        if times is not None:
            times.validate()
        return False
    return True


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("manual", None),
        ({"on_asset": "prices"}, None),
        ({"at": ["09:00"]}, None),
        ({"at": ["09:00"], "template": "daily", "timezone": "Asia/Tokyo", "missed": "each"}, None),
        ({"at": ["09:00"], "on": {"year": DAYS_OF_THE_YEAR}}, None),
        ({"at": ["09:00"], "on": {"month": "31st business day"}}, "the schedule never departs"),
        ({"at": ["09:00"], "on": {"dates": ["1999-01-04"]}}, "the schedule never departs"),
        ({"at": ["09:00"], "on": {"dates": ["2025-01-04"]}}, None),
    ],
)
def test_a_batch_is_refused_where_airflow_would_refuse_its_timetable_and_nowhere_else(written, why):
    schedule = schedule_of(written)

    told = why_unusable(schedule, timezone=NEW_YORK, now=NOON)

    assert airflow_refuses(schedule) == (told is not None)
    assert told is None if why is None else told.startswith(why)


def test_a_schedule_that_is_stored_as_another_is_refused(monkeypatch):
    schedule = schedule_of({"at": ["09:00"], "on_weekend": "skip"})
    as_it_is = Timed.model_dump

    def forgets_the_weekend(self, **options):
        return {key: value for key, value in as_it_is(self, **options).items() if key != "on_weekend"}

    monkeypatch.setattr(Timed, "model_dump", forgets_the_weekend)

    assert why_unusable(schedule, timezone=NEW_YORK, now=NOON) == "the schedule changes when it is stored"
    assert airflow_refuses(schedule) or timetable_for(schedule, NEW_YORK).serialize()["schedule"] == {
        "at": ["09:00"]
    }


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            {"at": ["09:00"], "on": {"year": DAYS_OF_THE_YEAR}},
            "day 1, day 2, day 3, day 4, day 5, day 6, day 7, day 8, day 9, day 10, day 11, day 12 and 187 more of every year at 09:00",
        ),
        ({"cron": f"{'0,' * 600}0 9 * * *"}, f"cron {'0,' * 147}0…"),
        (
            {
                "at": ["09:00"],
                "on": {"rrule": f"FREQ=YEARLY;BYYEARDAY={'1,' * 400}2", "starting": "2026-01-01"},
            },
            f"by the rule FREQ=YEARLY;BYYEARDAY={'1,' * 133}… at 09:00",
        ),
        (
            {"hourly": {"minute": [*range(0, 60, 5)]}},
            "every hour at :00, :05, :10, :15, :20, :25, :30, :35, :40, :45, :50 and :55",
        ),
    ],
)
def test_of_a_long_list_the_beginning_is_said(written, said):
    schedule = schedule_of(written)

    assert str(schedule) == said
    assert len(timetable_for(schedule, NEW_YORK).description) <= 1000
