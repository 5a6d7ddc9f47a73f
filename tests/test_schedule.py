"""Schedules against what the zone database says, against two independent oracles, and against their own promises."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import yaml
from dateutil import rrule
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from leadferry.schedule import Departure, Schedule, Timed, Zone, departures, latest_departure
from leadferry.schedule.library import BUILT_IN, expand
from leadferry.schedule.model import WEEKDAYS
from leadferry.zones import time_zone, zone_names
from wall_clock import oracle_instant

schedules: TypeAdapter[Any] = TypeAdapter(Schedule)
zones: TypeAdapter[Any] = TypeAdapter(Zone)

ODD_ZONES = [
    "America/New_York",
    "America/Sao_Paulo",
    "Europe/London",
    "Europe/Dublin",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Africa/Cairo",
    "America/St_Johns",
    "Pacific/Auckland",
    "America/Nuuk",
    "UTC",
]


def timed(*at: str, on: Any = "days", timezone: str | None = None) -> Timed:
    return Timed.model_validate({"at": at, "on": on, "timezone": timezone})


def planned(schedule: Any, timezone: str, *, start: datetime, end: datetime) -> list[Departure]:
    found = departures(schedule, timezone=timezone, after=start)
    return list(takewhile(lambda one: one.utc <= end, found))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- what a person may write -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "manual",
        {"at": ["09:00"], "on": "days", "timezone": None},
        {"at": ["09:00", "17:30"], "on": "weekdays", "timezone": "America/New_York"},
        {"at": ["23:59", "00:00"], "on": ["thu", "mon"], "timezone": "Asia/Kathmandu"},
    ],
)
def test_a_schedule_survives_being_stored_as_json(written):
    schedule = schedules.validate_python(written)
    stored = schedules.dump_python(schedule, mode="json")
    assert stored == written or written.items() <= stored.items()
    assert schedules.validate_json(schedules.dump_json(schedule)) == schedule


def test_without_days_a_batch_departs_every_day():
    assert schedules.validate_python({"at": ["09:00"]}).on == "days"


@pytest.mark.parametrize(
    ("written", "place", "message"),
    [
        ("manul", ("manual",), "'manual'"),
        (None, (), "must be the word manual, or times and days"),
        (["09:00"], (), "must be the word manual, or times and days"),
        ({"on": "days"}, ("timed",), "say when: at:"),
        ({"at": []}, ("timed",), "schedule: manual"),
        ({"at": ["9:00"]}, ("timed", "at", 0), 'two digits each, such as "09:00"'),
        ({"at": ["09:00", "24:00"]}, ("timed", "at", 1), "00:00 of the next day"),
        ({"at": [540]}, ("timed", "at", 0), 'two digits each, such as "09:00"'),
        ({"at": ["09:00:00"]}, ("timed", "at", 0), "two digits each"),
        ({"at": ["09:00\n"]}, ("timed", "at", 0), "two digits each"),
        ({"at": ["09:00", "10:00", "09:00"]}, ("timed",), "09:00 stands twice"),
        ({"at": ["09:00"], "on": "weekday"}, ("timed", "on"), "did you mean 'weekdays'"),
        ({"at": ["09:00"], "on": "mon"}, ("timed", "on"), "[mon]"),
        ({"at": ["09:00"], "on": ["Monday"]}, ("timed", "on"), "did you mean 'mon'"),
        ({"at": ["09:00"], "on": ["mon", "mon"]}, ("timed", "on"), "mon stands twice"),
        ({"at": ["09:00"], "on": []}, ("timed", "on"), "a list of weekdays such as [mon, thu]"),
        ({"at": ["09:00"], "on": 5}, ("timed", "on"), "a list of weekdays such as [mon, thu]"),
        ({"at": ["09:00"], "on": {"month": 32}}, ("timed", "on", "period"), "no month is long enough for 32"),
        (
            {"at": ["09:00"], "on": {"quarter": ["last day", "92 days before the end"]}},
            ("timed", "on", "period"),
            "no quarter is long enough for '92 days before the end'",
        ),
        ({"at": ["09:00"], "on": {"month": "6th monday"}}, ("timed", "on", "period"), "'6th monday'"),
        (
            {"at": ["09:00"], "on": {"month": "0th monday"}},
            ("timed", "on", "period", "month", 0),
            "first monday",
        ),
        ({"at": ["09:00"], "timezone": "New York"}, ("timed", "timezone"), "did you mean 'America/New_York'"),
        ({"at": ["09:00"], "when": "days"}, ("timed", "when"), "not permitted"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_place_and_the_way_out(written, place, message):
    with pytest.raises(ValidationError) as refused:
        schedules.validate_python(written)
    first = refused.value.errors()[0]
    assert first["loc"] == place
    assert message in first["msg"]


@pytest.mark.req("R033", "C06")
@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("PST", "did you mean 'America/Los_Angeles'"),
        ("america/new_york", "did you mean 'America/New_York'"),
        ("Kolkatta", "did you mean 'Asia/Kolkata'"),
        ("Europe/Londn", "did you mean 'Europe/London'"),
        ("Nowhere", "names look like America/New_York"),
        ("localtime", "is no time zone"),
        ("right/UTC", "is no time zone"),
        ("", "is no time zone"),
        ("../etc/passwd", "is no time zone"),
        (3, "must be the name of a time zone"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_one_that_was_probably_meant(written, message):
    with pytest.raises(ValidationError, match=message):
        zones.validate_python(written)


def test_every_zone_that_may_be_written_can_be_used():
    for name in zone_names():
        assert zones.validate_python(name) == ZoneInfo(name).key


@pytest.mark.parametrize(
    ("schedule", "aloud"),
    [
        (timed("09:00", on="weekdays"), "weekdays at 09:00"),
        (timed("17:30", "08:00"), "every day at 08:00 and 17:30"),
        (timed("08:00", on=("thu", "mon", "sat")), "mon, thu and sat at 08:00"),
        (timed(*(f"{hour:02}:15" for hour in range(24))), "every day, 24 times from 00:15 to 23:15"),
    ],
)
def test_a_schedule_can_be_read_aloud(schedule, aloud):
    assert str(schedule) == aloud


# --- ordinary days ---------------------------------------------------------------------------------------------


def test_a_manual_batch_has_no_departures():
    assert list(departures("manual", timezone="UTC", after=utc("2026-01-01"))) == []
    assert latest_departure("manual", timezone="UTC", by=utc("2026-01-01")) is None


@pytest.mark.req("R023", "C06")
def test_nine_in_new_york_is_another_instant_in_summer():
    found = departures(timed("09:00"), timezone="America/New_York", after=utc("2026-03-06T15:00"))
    assert [one.utc for one in islice(found, 3)] == [
        utc("2026-03-07T14:00"),
        utc("2026-03-08T13:00"),
        utc("2026-03-09T13:00"),
    ]


@pytest.mark.req("R024")
@pytest.mark.parametrize(
    ("on", "days"), [("weekdays", {0, 1, 2, 3, 4}), ("weekends", {5, 6}), ("days", set(range(7)))]
)
def test_two_weeks_hold_only_the_chosen_days_and_all_of_them(on, days):
    start = utc("2026-05-03T15:00")  # Monday the 4th, 00:00 in Tokyo: the day counts where the batch is
    found = planned(timed("00:30", on=on), "Asia/Tokyo", start=start, end=start + timedelta(days=14))
    assert {one.local.weekday() for one in found} == days
    assert len(found) == 2 * len(days)


@pytest.mark.req("R026")
def test_monday_and_thursday_alternate():
    found = departures(
        timed("08:00", on=("mon", "thu")), timezone="Europe/Paris", after=utc("2026-06-01T06:00")
    )
    assert [f"{one.local:%a %d %H:%M}" for one in islice(found, 4)] == [
        "Thu 04 08:00",
        "Mon 08 08:00",
        "Thu 11 08:00",
        "Mon 15 08:00",
    ]


@pytest.mark.req("R034")
def test_the_same_words_are_two_instants_for_recipients_in_two_zones():
    tokyo, paris = (
        next(departures(timed("09:00"), timezone=zone, after=utc("2026-02-01"))).utc
        for zone in ("Asia/Tokyo", "Europe/Paris")
    )
    assert (tokyo, paris) == (utc("2026-02-02T00:00"), utc("2026-02-01T08:00"))


def test_the_zone_of_the_schedule_outweighs_the_zone_of_the_batch():
    own = timed("09:00", timezone="Asia/Tokyo")
    found = next(departures(own, timezone="Europe/Paris", after=utc("2026-02-01")))
    assert (found.utc, found.local.tzinfo) == (utc("2026-02-02T00:00"), time_zone("Asia/Tokyo"))


def test_a_departure_at_the_moment_itself_is_over_forwards_and_counts_backwards():
    due = utc("2026-02-02T09:00")
    assert next(departures(timed("09:00"), timezone="UTC", after=due)).utc == due + timedelta(days=1)
    assert latest_departure(timed("09:00"), timezone="UTC", by=due).utc == due


def test_a_moment_without_zone_is_refused():
    naive = utc("2026-01-01").replace(tzinfo=None)
    with pytest.raises(ValueError, match="aware"):
        next(departures(timed("09:00"), timezone="UTC", after=naive))
    with pytest.raises(ValueError, match="aware"):
        latest_departure(timed("09:00"), timezone="UTC", by=naive)


@pytest.mark.parametrize("timezone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_ends_of_the_calendar_are_answered_like_any_other_moment(moment, timezone):
    schedule = timed("00:00", "23:59")
    ahead = list(islice(departures(schedule, timezone=timezone, after=moment), 5_000))
    assert all(a.utc < b.utc for a, b in pairwise(ahead))
    assert len(ahead) == (5_000 if moment.year == 1 else 0)
    behind = latest_departure(schedule, timezone=timezone, by=moment)
    assert (behind is None) == (moment.year == 1)


def test_a_schedule_with_a_time_for_every_minute_leaves_none_out():
    every = timed(*(f"{minute // 60:02}:{minute % 60:02}" for minute in range(1440)))
    start = utc("2026-03-08T05:00")  # midnight in New York; 60 of the day's minutes do not exist
    found = planned(every, "America/New_York", start=start, end=start + timedelta(hours=23))
    assert [one.utc for one in found] == [start + timedelta(minutes=minute) for minute in range(1, 1381)]
    assert (
        found[119].note
        == "2026-03-08 02:00 does not exist, clocks go from 02:00 to 03:00; the same for 59 more times"
    )


# --- the nights on which clocks change -------------------------------------------------------------------------

GAPS = [
    ("America/New_York", "2026-03-08 02:30", "2026-03-08T07:00"),
    ("America/Sao_Paulo", "2018-11-04 00:30", "2018-11-04T03:00"),
    ("Europe/London", "2026-03-29 01:30", "2026-03-29T01:00"),
    ("Europe/Dublin", "2026-03-29 01:30", "2026-03-29T01:00"),
    ("Asia/Kolkata", "1942-09-01 00:30", "1942-08-31T18:30"),
    ("Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03T15:30"),
    ("Pacific/Apia", "2011-12-30 09:00", "2011-12-30T10:00"),
    ("Africa/Casablanca", "2026-03-22 02:30", "2026-03-22T02:00"),
    ("Asia/Kathmandu", "1986-01-01 00:10", "1985-12-31T18:30"),
    ("Asia/Tehran", "2022-03-22 00:30", "2022-03-21T20:30"),
    ("Africa/Cairo", "2026-04-24 00:30", "2026-04-23T22:00"),
    ("America/St_Johns", "2026-03-08 02:30", "2026-03-08T05:30"),
    ("America/St_Johns", "2010-03-14 00:30", "2010-03-14T03:31"),
    ("Pacific/Auckland", "2026-09-27 02:30", "2026-09-26T14:00"),
]
"""Zone, a local time that never was, and the first instant after it, by hand from the zone database's rules."""

FOLDS = [
    ("America/New_York", "2026-11-01 01:30", "2026-11-01T05:30"),
    ("America/Sao_Paulo", "2019-02-16 23:30", "2019-02-17T01:30"),
    ("Europe/London", "2026-10-25 01:30", "2026-10-25T00:30"),
    ("Europe/Dublin", "2026-10-25 01:30", "2026-10-25T00:30"),
    ("Asia/Kolkata", "1945-10-14 23:30", "1945-10-14T17:00"),
    ("Australia/Lord_Howe", "2026-04-05 01:45", "2026-04-04T14:45"),
    ("Pacific/Apia", "2012-04-01 03:30", "2012-03-31T13:30"),
    ("Africa/Casablanca", "2026-02-15 02:30", "2026-02-15T01:30"),
    ("Asia/Kathmandu", "1919-12-31 23:55", "1919-12-31T18:13:44"),
    ("Asia/Tehran", "2022-09-21 23:30", "2022-09-21T19:00"),
    ("Africa/Cairo", "2026-10-29 23:30", "2026-10-29T20:30"),
    ("America/St_Johns", "2026-11-01 01:30", "2026-11-01T04:00"),
    ("America/St_Johns", "2010-11-07 00:00", "2010-11-07T02:30"),
    ("Pacific/Auckland", "2026-04-05 02:30", "2026-04-04T13:30"),
]
"""Zone, a local time that came twice, and the first of the two instants, by hand from the zone database's rules."""


def around(timezone: str, wall: str) -> tuple[datetime, list[Departure]]:
    """Return the local time, and the departures of a daily schedule at it, from two days before to two days after."""
    local = datetime.fromisoformat(wall)
    noon = utc(f"{local:%Y-%m-%d}T12:00")
    span = timedelta(days=2, hours=12)
    return local, planned(timed(f"{local:%H:%M}"), timezone, start=noon - span, end=noon + span)


@pytest.mark.req("R035", "C06")
@pytest.mark.parametrize(("timezone", "wall", "instant"), GAPS)
def test_a_time_that_does_not_exist_departs_once_at_the_first_instant_after_the_gap(timezone, wall, instant):
    local, found = around(timezone, wall)
    assert [one.utc for one in found].count(utc(instant)) == 1
    shifted = next(one for one in found if one.utc == utc(instant))
    assert shifted.note.startswith(f"{local:%Y-%m-%d %H:%M} does not exist")
    assert shifted.local.replace(tzinfo=None) > local
    assert [one.note for one in found if one is not shifted] == [""] * (len(found) - 1)


@pytest.mark.req("R035", "C06")
@pytest.mark.parametrize(("timezone", "wall", "instant"), FOLDS)
def test_a_time_that_comes_twice_departs_once_the_first_time(timezone, wall, instant):
    local, found = around(timezone, wall)
    readings = [one for one in found if one.local.replace(tzinfo=None) == local]
    assert [one.utc for one in readings] == [utc(instant)]
    assert readings[0].note == f"{local:%H:%M} comes twice, clocks go back; this is the first"


@pytest.mark.req("R035")
def test_the_day_that_apia_skipped_departs_once_for_all_its_times():
    found = planned(
        timed("00:00", "09:00"), "Pacific/Apia", start=utc("2011-12-29T12:00"), end=utc("2011-12-31T11:00")
    )
    assert [f"{one.local:%d %H:%M}" for one in found] == ["29 09:00", "31 00:00", "31 09:00", "01 00:00"]
    assert found[1].note == (
        "2011-12-30 00:00 does not exist, clocks go from 00:00 to 2011-12-31 00:00; "
        "2011-12-30 09:00 does not exist, clocks go from 00:00 to 2011-12-31 00:00"
    )


@pytest.mark.req("R035")
def test_two_times_that_fall_on_one_instant_are_one_departure():
    found = planned(
        timed("02:30", "03:00"),
        "America/New_York",
        start=utc("2026-03-08T00:00"),
        end=utc("2026-03-08T23:00"),
    )
    assert [one.utc for one in found] == [utc("2026-03-08T07:00")]
    assert found[0].note == "2026-03-08 02:30 does not exist, clocks go from 02:00 to 03:00"


def test_after_clocks_went_back_over_midnight_the_day_that_was_already_there_does_not_depart_again():
    # St. John's 2010: 00:01 on the 7th became 23:01 on the 6th
    second_evening = utc("2010-11-07T03:00")
    assert latest_departure(timed("00:00"), timezone="America/St_Johns", by=second_evening).utc == utc(
        "2010-11-07T02:30"
    )
    ahead = next(departures(timed("00:00"), timezone="America/St_Johns", after=second_evening))
    assert f"{ahead.local:%d %H:%M}" == "08 00:00"


# --- oracles ---------------------------------------------------------------------------------------------------


def _oracle(at: list[str], on: list[str], timezone: str, *, start: date, days: int) -> list[datetime]:
    walls = (
        wall
        for text in at
        for wall in rrule.rrule(
            rrule.WEEKLY,
            dtstart=datetime.combine(start, time.fromisoformat(text)),
            until=datetime.combine(start + timedelta(days=days - 1), time.max),
            byweekday=[getattr(rrule, day[:2].upper()) for day in on],
        )
    )
    return sorted({oracle_instant(wall, timezone) for wall in walls})


clocks = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 45, 59]))
weekday_lists = st.lists(st.sampled_from(WEEKDAYS), min_size=1, unique=True)
ats = st.lists(clocks, min_size=1, max_size=4, unique=True)


@pytest.mark.req("R026", "R035")
@settings(max_examples=200, deadline=None)
@given(
    at=ats,
    on=weekday_lists,
    timezone=st.sampled_from(ODD_ZONES),
    start=st.dates(date(1986, 1, 1), date(2036, 1, 1)),
    days=st.integers(1, 1000),
)
def test_any_schedule_departs_exactly_when_the_calendar_rule_and_the_table_of_offsets_say(
    at, on, timezone, start, days
):
    expected = _oracle(at, on, timezone, start=start, days=days + 5)
    begin = datetime.combine(start, time(12), tzinfo=UTC) + timedelta(days=2)
    end = begin + timedelta(days=days)
    found = planned(timed(*at, on=tuple(on)), timezone, start=begin, end=end)
    assert [one.utc for one in found] == [instant for instant in expected if begin < instant <= end]
    assert all(
        one.local.astimezone(UTC) == one.utc and one.local.tzinfo is time_zone(timezone) for one in found
    )


@settings(max_examples=80, deadline=None)
@given(
    at=ats,
    on=weekday_lists,
    timezone=st.sampled_from(ODD_ZONES),
    moment=st.datetimes(datetime(1986, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # made aware by the strategy
)
def test_backwards_and_forwards_agree_about_any_moment(at, on, timezone, moment):
    schedule = timed(*at, on=tuple(on))
    behind = latest_departure(schedule, timezone=timezone, by=moment)
    ahead = next(departures(schedule, timezone=timezone, after=moment))
    assert behind.utc <= moment < ahead.utc
    assert next(departures(schedule, timezone=timezone, after=behind.utc)) == ahead


@pytest.mark.req("R023", "R035")
@pytest.mark.parametrize("timezone", ODD_ZONES)
def test_forty_years_agree_with_pandas_wherever_the_time_exists(timezone):
    """Gaps are left to the other oracle: pandas lands up to an hour beside the end of a gap at an odd minute."""
    days = pd.date_range("1990-01-01", "2030-01-01", freq="D")
    for hour in (0, 2):
        walls = days + pd.Timedelta(hours=hour, minutes=30)
        instants = walls.tz_localize(timezone, ambiguous=np.ones(len(walls), dtype=bool), nonexistent="NaT")
        expected = [instant.to_pydatetime() for instant in instants.tz_convert("UTC") if not pd.isna(instant)]
        start = expected[0] - timedelta(seconds=1)
        found = planned(timed(f"{hour:02}:30"), timezone, start=start, end=expected[-1])
        gaps = [one for one in found if "does not exist" in one.note]
        assert [one.utc for one in found if one not in gaps] == expected
        assert len(expected) + len(gaps) == len(days)


# --- the documentation -----------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "schedule.md").read_text(encoding="utf-8")


EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
ROWS = re.findall(r"^\| `(\{.*?\})` \| (\S+) \| (.*?) \|$", PAGE, flags=re.MULTILINE)
assert EXAMPLES, "the page lost its examples"
assert ROWS, "the page lost its table of departures"


def quoted(text: str) -> str:
    """Quote the key `on`, which YAML 1.1 takes for true."""
    return re.sub(r"\bon:", '"on":', text)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_page_can_be_written_as_they_stand(example):
    written = yaml.safe_load(quoted(example))["schedule"]
    if isinstance(written, dict):
        written = expand(BUILT_IN[written["template"]], written) if "template" in written else written
        written = {**written, "calendar": {"id": written["calendar"]}} if "calendar" in written else written
    assert schedules.validate_python(written)


@pytest.mark.req("R022", "R023", "R024", "R025", "R026", "R027", "R028", "R030", "R032", "R035")
@pytest.mark.parametrize(("written", "timezone", "expected"), ROWS)
def test_the_departures_that_the_page_promises_are_the_real_ones(written, timezone, expected):
    schedule = schedules.validate_python(yaml.safe_load(quoted(written)))
    midnight = datetime(2026, 3, 6, tzinfo=ZoneInfo(timezone)) - timedelta.resolution
    found = islice(departures(schedule, timezone=timezone, after=midnight), 3)
    assert [f"{one.local:%a %m-%d %H:%M %Z}" for one in found] == expected.split(", ")
