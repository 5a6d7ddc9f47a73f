"""Hundreds of schedules made by chance, ten years each, in twelve zones: the instants of dateutil, pandas, croniter and exchanges."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise, takewhile
from typing import Any

import pytest
import schedule_pairs as pairs
from hypothesis import HealthCheck, given, settings
from pydantic import TypeAdapter

from leadferry.schedule import Departure, Schedule, departures
from wall_clock import ZONES, changes, oracle_instant, shown_instants

ADAPTER: TypeAdapter[Any] = TypeAdapter(Schedule)
DAY = timedelta(days=1)

PROGRAMS = {pairs.by_dateutil: 6, pairs.by_pandas: 8, pairs.by_croniter: 4, pairs.by_exchange_calendars: 6}
"""How many schedules of each kind are made for each zone; 288 in all."""

NO_CHANGES = {"America/Sao_Paulo", "Asia/Kolkata", "Pacific/Apia", "Asia/Kathmandu", "Asia/Tehran"}
"""Zones in which clocks stay as they are in the ten years."""

HALF_HOURS = [time(hour, minute) for hour in range(24) for minute in (0, 30)]


def departures_of(
    written: dict[str, Any], timezone: str, *, since: datetime = pairs.START, until: datetime = pairs.END
) -> list[Departure]:
    """Return the departures of ten years, or from `since` on and before `until`."""
    schedule = ADAPTER.validate_python(written)
    found = departures(schedule, timezone=timezone, after=since - timedelta.resolution)
    return list(takewhile(lambda one: one.utc < until, found))


@pytest.mark.req(
    "R022", "R023", "R024", "R025", "R026", "R027", "R028", "R029", "R030", "R031", "R032", "R035", "R036"
)
@pytest.mark.req("R037", "R038", "R039", "R040")
@pytest.mark.parametrize("timezone", ZONES)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # what is compared says more
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.__name__)
def test_ten_years_of_any_schedule_are_those_of_independent_programs(program, timezone):
    @settings(max_examples=PROGRAMS[program], deadline=None, suppress_health_check=list(HealthCheck))
    @given(program(timezone))
    def same(pair):
        found = [one.utc for one in departures_of(pair.schedule(), timezone)]
        assert found == pair.instants(timezone)

    same()


@pytest.mark.req("R023", "R035")
@pytest.mark.parametrize("gaps", [True, False], ids=["missing", "twice"])
@pytest.mark.parametrize("timezone", [zone for zone in ZONES if zone not in NO_CHANGES])
def test_at_a_time_that_is_missing_or_comes_twice_a_daily_batch_departs_once_a_day(timezone, gaps):
    """These times are also among those that are drawn above."""
    times = pairs.times_of_change(timezone, gaps=gaps)
    assert times
    for at in times:
        found = departures_of({"at": [f"{at:%H:%M}"]}, timezone)
        days = [one.local.date() for one in found]
        assert {later - day for day, later in pairwise(days)} == {DAY}
        assert sum(1 for one in found if one.note) >= sum(
            1
            for one in changes(timezone, range(2024, 2034))
            if one.is_gap is gaps
            and min(one.before, one.after).time() <= at < max(one.before, one.after).time()
        )


@pytest.mark.parametrize("timezone", sorted(NO_CHANGES))
def test_the_other_zones_do_not_change_their_clocks_in_these_years(timezone):
    assert changes(timezone, range(2024, 2034)) == []


@pytest.mark.req("R022", "R023", "R035")
@pytest.mark.parametrize(
    ("times", "instants"),
    [
        ({"at": [f"{at:%H:%M}" for at in HALF_HOURS]}, lambda wall, zone: [oracle_instant(wall, zone)]),
        ({"every": "30 minutes"}, shown_instants),
    ],
    ids=["at", "every"],
)
@pytest.mark.parametrize("timezone", [zone for zone in ZONES if zone != "Asia/Kolkata"])
def test_every_half_hour_around_every_change_of_clocks_since_1985_is_where_the_zone_has_it(
    timezone, times, instants
):
    for days in days_of_change(timezone):
        written = {**times, "on": {"dates": [str(day) for day in days]}}
        since = datetime.combine(days[0] - DAY, time(), tzinfo=UTC)
        last = datetime.combine(days[-1] + 2 * DAY, time(), tzinfo=UTC)
        walls = [datetime.combine(day, at) for day in days for at in HALF_HOURS]
        found = departures_of(written, timezone, since=since, until=last)
        assert found
        expected = sorted({one for wall in walls for one in instants(wall, timezone)})
        assert [one.utc for one in found] == expected


def days_of_change(timezone: str) -> list[list[date]]:
    """Return the days around every change of clocks, in lists without a gap of years."""
    nights = {wall.date() for one in changes(timezone, range(1985, 2034)) for wall in (one.before, one.after)}
    found: list[list[date]] = [[]]
    for day in sorted({night + number * DAY for night in nights for number in (-1, 0, 1)}):
        if found[-1] and day - found[-1][-1] > 1000 * DAY:
            found.append([])
        found[-1].append(day)
    return found
