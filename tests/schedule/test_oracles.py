"""Ten years of departures against programs that know nothing of Leadferry: dateutil, pandas, croniter, exchange calendars."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from croniter import croniter
from dateutil import rrule
from pydantic import TypeAdapter

from leadferry.schedule import Calendar, Schedule, departures
from leadferry.schedule.calendar_file import CalendarFile, Surroundings
from wall_clock import ZONES, oracle_instant

ADAPTER: TypeAdapter[Any] = TypeAdapter(Schedule)
FIRST, LAST = date(2024, 1, 1), date(2033, 12, 31)
YEARS = range(2023, 2035)


def resolved(**written: Any) -> Calendar:
    around = Surroundings(years=YEARS, folder=None, other=None)  # type: ignore[arg-type]
    return CalendarFile.model_validate(written).resolve("tested", around)


US = resolved(closed=[{"country": "US"}])


def days_of(written: dict[str, Any], *, timezone: str = "UTC") -> list[date]:
    """Return the local days of ten years on which a schedule departs, checking that each is at nine."""
    schedule = ADAPTER.validate_python({"at": ["09:00"], **written})
    zone = ZoneInfo(timezone)
    start = datetime.combine(FIRST, time(), tzinfo=zone).astimezone(UTC) - timedelta.resolution
    found = takewhile(
        lambda one: one.local.date() <= LAST, departures(schedule, timezone=timezone, after=start)
    )
    local = [one.local for one in found]
    assert {one.time() for one in local} <= {time(9)}
    return [one.date() for one in local]


def by_rule(text: str, *, start: date = FIRST) -> list[date]:
    rule = rrule.rrulestr(text, dtstart=datetime.combine(start, time()))
    found = rule.between(datetime.combine(FIRST, time()), datetime.combine(LAST, time()), inc=True)
    return [one.date() for one in found]


@pytest.mark.req("R025", "R027", "R028", "R030")
@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ({"every": "3 days", "starting": "2024-01-01"}, "FREQ=DAILY;INTERVAL=3"),
        ({"every": "1 day", "starting": "2024-01-01"}, "FREQ=DAILY"),
        ({"every": "45 days", "starting": "2024-01-01"}, "FREQ=DAILY;INTERVAL=45"),
        ({"every": "2 weeks", "starting": "2024-01-03", "on": ["fri"]}, "FREQ=WEEKLY;INTERVAL=2;BYDAY=FR"),
        (
            {"every": "3 weeks", "starting": "2024-01-01", "on": ["mon", "thu"]},
            "FREQ=WEEKLY;INTERVAL=3;BYDAY=MO,TH",
        ),
        ({"on": {"month": 15}}, "FREQ=MONTHLY;BYMONTHDAY=15"),
        ({"on": {"month": [1, 15]}}, "FREQ=MONTHLY;BYMONTHDAY=1,15"),
        ({"on": {"month": 31, "short_month": "skip"}}, "FREQ=MONTHLY;BYMONTHDAY=31"),
        ({"on": {"month": 31}}, "FREQ=MONTHLY;BYMONTHDAY=-1"),
        ({"on": {"month": "last day"}}, "FREQ=MONTHLY;BYMONTHDAY=-1"),
        ({"on": {"month": "3 days before the end"}}, "FREQ=MONTHLY;BYMONTHDAY=-4"),
        (
            {"on": {"month": "30 days before the end"}},
            "FREQ=MONTHLY;BYMONTHDAY=-28,-29,-30,-31;BYSETPOS=1",
        ),
        (
            {"on": {"month": "30 days before the end", "short_month": "skip"}},
            "FREQ=MONTHLY;BYMONTHDAY=-31",
        ),
        ({"on": {"month": "first monday"}}, "FREQ=MONTHLY;BYDAY=1MO"),
        ({"on": {"month": "last friday"}}, "FREQ=MONTHLY;BYDAY=-1FR"),
        ({"on": {"month": "fifth wednesday"}}, "FREQ=MONTHLY;BYDAY=5WE"),
        ({"on": {"month": ["2nd tuesday", "fourth tuesday"]}}, "FREQ=MONTHLY;BYDAY=2TU,4TU"),
        ({"on": {"month": "3rd business day"}}, "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=3"),
        ({"on": {"month": "last business day"}}, "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1"),
        ({"on": {"year": "03-31"}}, "FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=31"),
        ({"on": {"year": "02-29", "short_month": "skip"}}, "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"),
        ({"on": {"year": 100}}, "FREQ=YEARLY;BYYEARDAY=100"),
        ({"on": {"year": "last day"}}, "FREQ=YEARLY;BYYEARDAY=-1"),
        ({"on": {"quarter": 1}}, "FREQ=MONTHLY;INTERVAL=3;BYMONTHDAY=1"),
        ({"on": {"rrule": "FREQ=MONTHLY;BYDAY=-1FR", "starting": "2024-01-01"}}, "FREQ=MONTHLY;BYDAY=-1FR"),
        (
            {"on": {"rrule": "RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=TU", "starting": "2024-01-01"}},
            "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU",
        ),
    ],
)
def test_ten_years_of_days_are_those_of_dateutil(written, rule):
    assert days_of(written) == by_rule(rule)


def test_the_29th_of_february_is_the_28th_in_common_years_unless_they_are_left_out():
    assert days_of({"on": {"year": "02-29"}})[:5] == [
        date(2024, 2, 29),
        date(2025, 2, 28),
        date(2026, 2, 28),
        date(2027, 2, 28),
        date(2028, 2, 29),
    ]


def test_an_interval_counts_from_its_start_wherever_the_question_begins():
    found = days_of({"every": "3 days", "starting": "2020-02-27"})
    assert {(day - date(2020, 2, 27)).days % 3 for day in found} == {0}
    assert days_of({"every": "2 weeks", "starting": "2030-05-15", "on": ["fri"]})[0] == date(2030, 5, 17)


HOLIDAYS = pd.offsets.CustomBusinessDay(holidays=[str(day) for day in US.closed])
BUSINESS_DAYS = list(pd.date_range(FIRST, LAST, freq=HOLIDAYS).date)


def nth_business_day(index: int, *, freq: str) -> list[date]:
    days = pd.Series(pd.to_datetime(BUSINESS_DAYS))
    groups = days.groupby(days.dt.to_period(freq))
    return [group.iloc[index].date() for _, group in groups if len(group) >= abs(index)]


@pytest.mark.req("R024", "R029", "R031")
@pytest.mark.parametrize(
    ("on", "index", "freq"),
    [
        ({"month": "first business day"}, 0, "M"),
        ({"month": "5th business day"}, 4, "M"),
        ({"month": "last business day"}, -1, "M"),
        ({"month": "3 business days before the end"}, -4, "M"),
        ({"quarter": "first business day"}, 0, "Q"),
        ({"quarter": "10th business day"}, 9, "Q"),
        ({"quarter": "last business day"}, -1, "Q"),
        ({"year": "last business day"}, -1, "Y"),
        ({"year": "100th business day"}, 99, "Y"),
    ],
)
def test_ten_years_of_business_days_are_those_of_pandas(on, index, freq):
    assert days_of({"on": on, "calendar": US}) == nth_business_day(index, freq=freq)


@pytest.mark.req("R024", "R037")
def test_every_business_day_is_one_of_pandas():
    assert days_of({"on": "business_days", "calendar": US}) == BUSINESS_DAYS
    assert days_of({"calendar": US}) == BUSINESS_DAYS


@pytest.mark.req("R036", "R037")
@pytest.mark.parametrize(("policy", "roll"), [("next", "rollforward"), ("previous", "rollback")])
@pytest.mark.parametrize(
    "on", ["days", ["sat"], {"month": [1, 15, "last day"]}, {"year": ["12-25", "07-04"]}]
)
def test_closed_days_roll_as_pandas_rolls_them(policy, roll, on):
    plain = days_of({"on": on})
    rolled = sorted({getattr(HOLIDAYS, roll)(pd.Timestamp(day)).date() for day in plain})
    found = days_of({"on": on, "calendar": US, "on_closed_day": policy})
    inside = [day for day in rolled if date(2024, 1, 8) <= day <= date(2033, 12, 20)]
    assert [day for day in found if date(2024, 1, 8) <= day <= date(2033, 12, 20)] == inside
    assert len(inside) > 9


@pytest.mark.req("R040")
@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # of the other package
@pytest.mark.parametrize(("market", "exchange"), [("NYSE", "XNYS"), ("XETR", "XETR")])
def test_trading_days_are_those_of_the_exchange(market, exchange):
    xcals = pytest.importorskip("exchange_calendars")
    trading = xcals.get_calendar(exchange, start="2022-01-01", end="2026-12-31")
    calendar = resolved(closed=[{"market": market, "half_days": "13:00"}])
    ours = [day.date() for day in pd.date_range("2023-01-01", "2026-12-29") if calendar.is_open(day.date())]
    theirs = [day.date() for day in trading.sessions_in_range("2023-01-01", "2026-12-29")]
    surprises = {date(2025, 1, 9)}  # day of mourning for a president: no rule foretells it
    assert set(ours) ^ set(theirs) <= surprises
    if market == "NYSE":
        early = {day.date() for day in trading.early_closes if day.year >= 2023}
        assert {day for day in calendar.half_days if day <= date(2026, 12, 31)} == early


@pytest.mark.req("R032")
@pytest.mark.parametrize("timezone", ["America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
@pytest.mark.parametrize(
    "text",
    [
        "30 9 * * *",
        "0 8,20 * * mon-fri",
        "15 6 1,15 * *",
        "0 0 1 */3 *",
        "5 4 * * sun",
        "0 12 13 * 5",
        "0 9 * * 5#2",
        "0 17 L * *",
        "30 2 29 2 *",
    ],
)
def test_ten_years_of_cron_are_those_of_croniter(text, timezone):
    schedule = ADAPTER.validate_python({"cron": text})
    start = datetime(2024, 1, 1, tzinfo=UTC)
    end = datetime(2033, 12, 31, tzinfo=UTC)
    wall, expected = datetime(2023, 12, 30), set()  # noqa: DTZ001  # cron reads a wall clock
    cron = croniter(text, wall)
    while (wall := cron.get_next(datetime)).year < 2034:
        expected.add(oracle_instant(wall, timezone))
    found = [
        one.utc
        for one in takewhile(lambda one: one.utc <= end, departures(schedule, timezone=timezone, after=start))
    ]
    assert found == sorted(instant for instant in expected if start < instant <= end)


def every_minute(start: datetime, end: datetime) -> list[datetime]:
    return list(pd.date_range(start, end, freq="min", inclusive="right").to_pydatetime())


NIGHTS = [
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2019-02-16"),
    ("Europe/London", "2026-03-29"),
    ("Europe/London", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Apia", "2012-04-01"),
    ("Africa/Casablanca", "2026-03-22"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Asia/Tehran", "2022-03-22"),
    ("Asia/Tehran", "2022-09-21"),
    ("Africa/Cairo", "2026-04-24"),
    ("Africa/Cairo", "2026-10-30"),
    ("America/St_Johns", "2010-11-07"),
    ("America/St_Johns", "2026-03-08"),
    ("Pacific/Auckland", "2026-09-27"),
    ("Pacific/Auckland", "2026-04-05"),
    ("Asia/Kolkata", "2026-03-29"),
    ("Asia/Kathmandu", "1986-01-01"),
]


@pytest.mark.req("R022", "R035")
@pytest.mark.parametrize(("timezone", "night"), NIGHTS)
@pytest.mark.parametrize(
    ("written", "minutes"),
    [
        ({"hourly": {"minute": 17}}, {17}),
        ({"every": "15 minutes"}, {0, 15, 30, 45}),
        ({"cron": "*/20 * * * *"}, {0, 20, 40}),
    ],
)
def test_an_interval_departs_whenever_the_clock_shows_its_minute_also_when_clocks_change(
    timezone, night, written, minutes
):
    """Every minute that really passes is looked at: an hour that comes twice departs twice, one that is missing not."""
    middle = datetime.fromisoformat(night).replace(tzinfo=UTC)
    start, end = middle - timedelta(days=1, minutes=3), middle + timedelta(days=2)
    zone = ZoneInfo(timezone)
    expected = [one for one in every_minute(start, end) if one.astimezone(zone).minute in minutes]
    schedule = ADAPTER.validate_python(written)
    found = departures(schedule, timezone=timezone, after=start)
    assert [one.utc for one in takewhile(lambda one: one.utc <= end, found)] == expected


@pytest.mark.req("R022", "R023", "R035")
@pytest.mark.parametrize("timezone", ZONES)
def test_on_a_calendar_ten_years_of_nine_o_clock_are_where_the_zone_has_them(timezone):
    schedule = ADAPTER.validate_python({"at": ["09:00"], "on": "business_days", "calendar": US})
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2033, 12, 30, tzinfo=UTC)
    found = takewhile(lambda one: one.utc <= end, departures(schedule, timezone=timezone, after=start))
    expected = [oracle_instant(datetime.combine(day, time(9)), timezone) for day in BUSINESS_DAYS]
    assert [one.utc for one in found] == [one for one in expected if start < one <= end]


@pytest.mark.req("R022", "R035")
@pytest.mark.parametrize("cron", ["15 */24 * * *", "15 */30 * * *"])
@pytest.mark.parametrize(
    ("timezone", "night"), [("America/Havana", "2026-03-08"), ("America/Havana", "2026-11-01")]
)
def test_a_step_that_names_one_hour_only_is_a_time_of_day_also_when_clocks_change(cron, timezone, night):
    start = datetime.fromisoformat(night).replace(tzinfo=UTC) - timedelta(days=2)

    def first_week(written):
        found = departures(ADAPTER.validate_python(written), timezone=timezone, after=start)
        return [one.utc for one in islice(found, 7)]

    assert first_week({"cron": cron}) == first_week({"at": ["00:15"]})


@pytest.mark.req("R022")
@pytest.mark.parametrize(
    ("timezone", "after", "told"),
    [
        ("America/New_York", "2026-03-08T03:00Z", ["2026-03-08T00:00-05:00", "2026-03-08T04:00-04:00"]),
        ("America/New_York", "2026-11-01T03:00Z", ["2026-11-01T00:00-04:00", "2026-11-01T02:00-05:00"]),
        ("Europe/London", "2026-03-28T23:00Z", ["2026-03-29T00:00+00:00", "2026-03-29T02:00+01:00"]),
    ],
)
def test_every_two_hours_is_counted_on_the_clock_as_the_reference_says(timezone, after, told):
    schedule = ADAPTER.validate_python({"every": "2 hours"})

    found = departures(schedule, timezone=timezone, after=datetime.fromisoformat(after))

    assert [one.local.isoformat(timespec="minutes") for one in islice(found, 2)] == told
