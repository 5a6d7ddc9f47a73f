"""Blocks of instants on the clock of a zone, against the same question asked one by one."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from leadferry.mapping import zoned
from leadferry.zones import time_zone

ZONES = (
    "America/New_York",
    "America/Vancouver",
    "Africa/Casablanca",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "UTC",
)
FIRST, LAST = datetime.fromisoformat("1890-01-01"), datetime.fromisoformat("2100-01-01")


def utc(moments):
    return pl.Series(moments, dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")


@given(st.lists(st.datetimes(FIRST, LAST), max_size=5), st.sampled_from(ZONES))
def test_the_clock_shows_what_it_shows_for_each_alone(moments, zone):
    locals_ = [one.replace(tzinfo=UTC).astimezone(time_zone(zone)) for one in moments]
    assert zoned.wall(utc(moments), zone=zone).to_list() == [one.replace(tzinfo=None) for one in locals_]
    assert zoned.abbreviations(utc(moments), zone=zone).to_list() == [one.tzname() for one in locals_]
    assert zoned.offsets_written(utc(moments), zone=zone).to_list() == [f"{one:%z}"[:5] for one in locals_]


@given(st.lists(st.datetimes(FIRST, LAST), max_size=5), st.sampled_from(ZONES))
def test_a_local_time_is_its_first_instant_or_never(walls, zone):
    expected = []
    for wall in walls:
        candidates = {wall.replace(tzinfo=time_zone(zone), fold=fold).astimezone(UTC) for fold in (0, 1)}
        real = [
            one for one in candidates if one.astimezone(time_zone(zone)).replace(tzinfo=None, fold=0) == wall
        ]
        expected.append(min(real, default=None))
    asked = pl.Series(walls, dtype=pl.Datetime("us"))
    assert zoned.instants(asked, zone=zone).to_list() == expected


def test_hours_that_come_twice_and_never_and_years_at_the_ends():
    walls = [datetime.fromisoformat("2026-11-01T01:30"), datetime.fromisoformat("2026-03-08T02:30"), None]
    found = zoned.instants(pl.Series(walls, dtype=pl.Datetime("us")), zone="America/New_York")
    assert found.to_list() == [datetime(2026, 11, 1, 5, 30, tzinfo=UTC), None, None]
    ends = utc([datetime.fromisoformat("1000-01-01T12:00"), datetime.fromisoformat("9999-12-31T12:00"), None])
    assert zoned.wall(ends, zone="America/New_York").dt.year().to_list() == [1000, 9999, None]
    assert zoned.wall(utc([None]), zone="America/New_York").to_list() == [None]
