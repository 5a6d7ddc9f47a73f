"""Whatever schedule and calendar chance makes: the departures are those of a slow and simple calculation."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from any_schedule import ADAPTER, schedules, zones
from hypothesis import given, settings
from hypothesis import strategies as st

from leadferry.schedule import departures, latest_departure
from leadferry.schedule.opening import closed
from wall_clock import oracle_instant

DAY = timedelta(days=1)
SPANS = [
    (datetime(2018, 9, 25, tzinfo=UTC), datetime(2018, 11, 10, tzinfo=UTC)),
    (datetime(2019, 2, 10, tzinfo=UTC), datetime(2019, 4, 12, tzinfo=UTC)),
]
"""The weeks in which clocks change in most of the zones, in one direction or the other."""

EDGES = datetime(2018, 10, 1), datetime(2019, 6, 1)  # noqa: DTZ001  # made aware by the strategy

BATCH = "acme_daily"


def slowly(schedule, timezone: str, *, start: datetime, end: datetime) -> list[datetime]:
    """Place every time of every day by itself, wherever it goes, and sort at the end."""
    calendar = schedule.calendar_or_plain
    offset = schedule.offset(BATCH)
    found: set[datetime] = set()
    for day in schedule.days_between(start.date() - 40 * DAY, end.date() + 40 * DAY):
        goes = placed(day, schedule, calendar)
        for at in schedule.times if goes else ():
            wall = moved(datetime.combine(goes, at), schedule, lead=offset)
            for instant in instants(wall, at, goes, schedule, timezone):
                ends = closing(wall.date(), calendar)
                latest = oracle_instant(datetime.combine(wall.date(), ends), timezone) if ends else None
                found.add(
                    max(instant, min(instant + offset, latest)) if latest and offset else instant + offset
                )
    return sorted(one for one in found if start < one <= end)


def closing(day: date, calendar) -> time | None:
    """Return when the recipient goes home; None when nothing says so or it does not come at all."""
    times = [calendar.half_days[day]] if day in calendar.half_days else []
    if calendar.hours:
        times.append(calendar.hours.closes)
    if not times or (calendar.hours and min(times) < calendar.hours.opens):
        return None
    return min(times)


def placed(day: date, schedule, calendar) -> date | None:
    def is_closed(one: date) -> bool:
        return one in calendar.closed or is_weekend(one)

    def is_weekend(one: date) -> bool:
        return f"{one:%a}".lower() in calendar.weekend and one not in calendar.opened

    if not is_closed(day):
        return day
    general = schedule.on_closed_day or ("skip" if schedule.calendar else "deliver")
    policy = (schedule.on_weekend or general) if is_weekend(day) else general
    if policy in ("skip", "deliver"):
        return day if policy == "deliver" else None
    while is_closed(day):
        day += DAY if policy == "next" else -DAY
    return day


def moved(wall: datetime, schedule, *, lead: timedelta) -> datetime:
    calendar = schedule.calendar_or_plain
    ends = closing(wall.date(), calendar)
    if wall.date() in calendar.half_days and ends:
        wall = min(wall, datetime.combine(wall.date(), calendar.half_days[wall.date()]))
    before = None
    while wall != before:
        before = wall
        while calendar.hours and not comes(wall.date(), schedule):
            wall = datetime.combine(wall.date() + DAY, time())
        if calendar.hours and wall.time() < calendar.hours.opens:
            wall = datetime.combine(wall.date(), calendar.hours.opens)
        if calendar.hours and wall.time() > closing(wall.date(), calendar):
            wall = datetime.combine(wall.date() + DAY, time())
            continue
        for begin, end in blackouts(calendar, around=wall.date()):
            if begin - lead <= wall < end:
                wall = end
    return wall


def comes(day: date, schedule) -> bool:
    """Whether anybody is there on a day: it is open or delivered to all the same, and does not end before it begins."""
    return placed(day, schedule, schedule.calendar_or_plain) == day and bool(
        closing(day, schedule.calendar_or_plain)
    )


def blackouts(calendar, *, around: date) -> list[tuple[datetime, datetime]]:
    found = []
    for one in calendar.blackouts:
        if isinstance(one.starts, datetime):
            found.append((one.starts, one.ends))
            continue
        for number in range(-3, 4):
            day = around + number * DAY
            if f"{day:%a}".lower() in one.on:
                last = day if one.starts < one.ends else day + DAY
                found.append((datetime.combine(day, one.starts), datetime.combine(last, one.ends)))
    return found


def instants(wall: datetime, at: time, day: date, schedule, timezone: str) -> set[datetime]:
    if not schedule.elapsed or wall != datetime.combine(day, at):
        return {oracle_instant(wall, timezone)}
    zone = ZoneInfo(timezone)
    offsets = {(wall + side).replace(tzinfo=zone).utcoffset() for side in (-DAY, DAY)}
    candidates = {(wall - offset).replace(tzinfo=UTC) for offset in offsets}
    return {one for one in candidates if one.astimezone(zone).replace(tzinfo=None) == wall}


@pytest.mark.req(
    "R022", "R023", "R025", "R027", "R028", "R029", "R031", "R032", "R035", "R036", "R037", "R042", "R060"
)
@settings(max_examples=250, deadline=None)
@given(schedules, zones, st.sampled_from(SPANS))
def test_departures_are_those_of_a_slow_and_simple_calculation(schedule, timezone, span):
    start, end = span
    found = departures(schedule, timezone=timezone, after=start, batch_id=BATCH)
    expected = slowly(schedule, timezone, start=start, end=end)
    assert [one.utc for one in takewhile(lambda one: one.utc <= end, found)] == expected


@settings(max_examples=150, deadline=None)
@given(schedules, zones, st.datetimes(*EDGES, timezones=st.just(UTC)))
def test_backwards_and_forwards_agree_about_any_moment(schedule, timezone, moment):
    latest = latest_departure(schedule, timezone=timezone, by=moment, batch_id=BATCH)
    if latest is None:
        assert next(
            departures(schedule, timezone=timezone, after=moment - 900 * DAY, batch_id=BATCH), None
        ) is None or (
            next(departures(schedule, timezone=timezone, after=moment - 900 * DAY, batch_id=BATCH)).utc
            > moment
        )
        return
    assert latest.utc <= moment
    following = next(departures(schedule, timezone=timezone, after=latest.utc, batch_id=BATCH), None)
    assert following is None or following.utc > moment


@settings(max_examples=100, deadline=None)
@given(schedules, zones, st.datetimes(*EDGES, timezones=st.just(UTC)))
def test_asked_one_by_one_or_all_at_once_the_departures_are_the_same(schedule, timezone, moment):
    at_once = [
        one.utc for one in islice(departures(schedule, timezone=timezone, after=moment, batch_id=BATCH), 12)
    ]
    one_by_one, last = [], moment
    for _ in at_once:
        last = next(departures(schedule, timezone=timezone, after=last, batch_id=BATCH)).utc
        one_by_one.append(last)
    assert one_by_one == at_once
    assert all(a < b for a, b in pairwise(at_once))


@settings(max_examples=150, deadline=None)
@given(schedules)
def test_any_schedule_survives_being_stored_as_json(schedule):
    stored = json.loads(json.dumps(schedule.model_dump(mode="json")))
    assert ADAPTER.validate_python(stored) == schedule
    assert ADAPTER.validate_python(stored).model_dump(mode="json") == stored


@pytest.mark.req("R042", "R054", "R060")
@settings(max_examples=150, deadline=None)
@given(schedules, zones, st.datetimes(*EDGES, timezones=st.just(UTC)))
def test_no_departure_of_the_preview_would_be_held(schedule, timezone, moment):
    found = departures(schedule, timezone=timezone, after=moment, batch_id=BATCH)
    held = [one for one in islice(found, 20) if closed(schedule, one.utc, timezone=timezone)]
    assert held == []
