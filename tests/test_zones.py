"""Zones follow the pinned package `tzdata`, whatever the machine's own files say."""

from __future__ import annotations

import copy
import json
import pickle
import re
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from pydantic import TypeAdapter

from leadferry.mapping.dates import Date
from leadferry.mapping.step import Context
from leadferry.schedule import Schedule, departures
from leadferry.zones import time_zone, told_moment, zone_names

PACKAGE = Path(__file__).parents[1] / "include" / "leadferry"


@pytest.fixture
def stale_machine(tmp_path):
    """A machine whose files have every zone of these tests on UTC."""
    from importlib import resources

    utc = resources.files("tzdata").joinpath("zoneinfo", "UTC").read_bytes()
    for name in ("America/Vancouver", "America/New_York"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(utc)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([tmp_path])
    zoneinfo.ZoneInfo.clear_cache()
    time_zone.cache_clear()
    yield tmp_path
    zoneinfo.reset_tzpath(before)
    zoneinfo.ZoneInfo.clear_cache()


@pytest.mark.req("R023")
def test_a_schedule_departs_by_the_packages_rules_where_the_machines_are_old(stale_machine):
    schedule = TypeAdapter(Schedule).validate_python({"at": ["09:00"], "timezone": "America/Vancouver"})
    assert datetime(2026, 12, 15, tzinfo=zoneinfo.ZoneInfo("America/Vancouver")).tzname() == "UTC"
    found = next(departures(schedule, timezone="UTC", after=datetime(2026, 12, 15, tzinfo=UTC)))
    assert found.utc == datetime(2026, 12, 15, 16, tzinfo=UTC)


@pytest.mark.req("R066")
def test_a_file_tells_the_hour_by_the_packages_rules(stale_machine):
    """Neither the machine's files nor the rules built into polars count."""
    context = Context(timezone="America/Vancouver", locale="en_US", sources=pl.DataFrame())
    moments = pl.Series(["2026-12-15T16:00:00.000000Z", None, "2026-07-01T16:00:00.000000Z"])
    written = Date.model_validate({"format": "%Y-%m-%d %H:%M %z"}).apply(moments, context)
    assert written.to_list() == ["2026-12-15 09:00 -0700", None, "2026-07-01 09:00 -0700"]


def test_nothing_in_the_package_asks_for_the_machines_zones():
    asks = re.compile(r"(?<!class PinnedZone\()\bZoneInfo\(|(convert|replace)_time_zone\((?!None|\"UTC\")")
    found = {
        f"{file.relative_to(PACKAGE)}:{number}"
        for file in PACKAGE.rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if asks.search(line.split("  # ")[0]) and "`" not in line
    }
    assert {one for one in found if not one.startswith("zones.py:")} == set()


def test_a_zone_is_one_object_also_after_it_was_copied_or_pickled():
    zone = time_zone("America/New_York")
    assert pickle.loads(pickle.dumps(zone)) is zone  # our own bytes
    assert copy.deepcopy(zone) is zone
    assert json.dumps(str(zone)) == '"America/New_York"'


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "", "America"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises((KeyError, ValueError, OSError)):
        time_zone(name)


def test_every_name_that_may_be_written_has_its_rules():
    moment = datetime(2026, 12, 15, tzinfo=UTC)
    assert all(moment.astimezone(time_zone(name)).utcoffset() is not None for name in zone_names())


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("America/New_York", "Mon 2026-11-23 07:00 EST (12:00 UTC)"),
        ("Pacific/Auckland", "Tue 2026-11-24 01:00 NZDT (Mon 2026-11-23 12:00 UTC)"),
        ("Asia/Singapore", "Mon 2026-11-23 20:00 UTC+08 (12:00 UTC)"),
        ("Asia/Kathmandu", "Mon 2026-11-23 17:45 UTC+0545 (12:00 UTC)"),
        ("Europe/London", "Mon 2026-11-23 12:00 GMT (12:00 UTC)"),
        ("UTC", "Mon 2026-11-23 12:00 UTC"),
        (None, "Mon 2026-11-23 12:00 UTC"),
    ],
)
def test_an_instant_is_told_on_the_clock_of_the_batch_and_in_utc(zone, said):
    assert told_moment(datetime(2026, 11, 23, 12, tzinfo=UTC), zone=zone) == said


def test_the_hour_that_comes_twice_is_told_apart():
    twice = [
        told_moment(datetime(2026, 11, 1, hour, 30, tzinfo=UTC), zone="America/New_York") for hour in (5, 6)
    ]

    assert twice == ["Sun 2026-11-01 01:30 EDT (05:30 UTC)", "Sun 2026-11-01 01:30 EST (06:30 UTC)"]
