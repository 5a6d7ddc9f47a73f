"""Fiscal years: those of months against counting, those of weeks against a published retail calendar."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadferry.schedule import Calendar
from leadferry.schedule.clock import WEEKDAYS
from leadferry.schedule.days import PeriodDays
from leadferry.schedule.fiscal import FiscalYear

RETAIL = FiscalYear(starts="02-01", weeks="4-5-4", named_after="start")
"""The calendar of the National Retail Federation: begins on the Sunday nearest to 1 February."""


@pytest.mark.req("R039")
@pytest.mark.parametrize(
    ("day", "year", "quarter", "number"),
    [
        ("2026-03-31", 2026, 4, 12),
        ("2026-04-01", 2027, 1, 1),
        ("2026-12-31", 2027, 3, 9),
        ("2027-01-01", 2027, 4, 10),
        ("2027-03-31", 2027, 4, 12),
    ],
)
def test_a_year_from_april_is_named_after_the_year_it_ends_in(day, year, quarter, number):
    period = FiscalYear(starts="04-01").period_of(date.fromisoformat(day))
    assert (period.year, period.quarter, period.number) == (year, quarter, number)


@pytest.mark.req("R039")
@pytest.mark.parametrize(
    ("year", "first"),
    [
        (2022, "2022-01-30"),
        (2023, "2023-01-29"),
        (2024, "2024-02-04"),
        (2025, "2025-02-02"),
        (2026, "2026-02-01"),
    ],
)
def test_retail_years_begin_when_the_federation_says(year, first):
    assert RETAIL.year_start(year) == date.fromisoformat(first)


@pytest.mark.req("R039")
def test_a_53rd_week_belongs_to_the_last_month():
    lengths = [(one.last - one.first).days // 7 + 1 for one in RETAIL.periods(2023)]
    assert lengths == [4, 5, 4, 4, 5, 4, 4, 5, 4, 4, 5, 5]
    assert {one.year for one in RETAIL.periods(2023)} == {2023}


@pytest.mark.req("R039")
@pytest.mark.parametrize("first_week", ["nearest", "on_or_before", "on_or_after"])
@pytest.mark.parametrize("weeks", [None, "4-4-5", "5-4-4"])
@pytest.mark.parametrize("starts", ["01-01", "02-01", "07-01", "10-15"])
def test_every_day_is_in_exactly_one_period(starts, weeks, first_week):
    fiscal = FiscalYear(starts=starts, weeks=weeks, first_week=first_week)
    day, before = date(2020, 1, 1), None
    while day < date(2031, 1, 1):
        period = fiscal.period_of(day)
        assert period.first <= day <= period.last
        if before is not None:
            follows = (before.year, before.number + 1) if before.number < 12 else (before.year + 1, 1)
            assert (period.year, period.number) in {(before.year, before.number), follows}
        before, day = period, day + timedelta(days=1)


@pytest.mark.req("R039")
@given(
    month=st.integers(1, 12),
    day=st.integers(1, 28),
    weeks=st.sampled_from([None, "4-4-5", "4-5-4", "5-4-4"]),
    week_starts=st.sampled_from(WEEKDAYS),
    first_week=st.sampled_from(["nearest", "on_or_before", "on_or_after"]),
    named_after=st.sampled_from(["end", "start"]),
    begun=st.integers(1990, 2100),
)
def test_no_two_years_have_one_name_and_none_is_left_out(month, day, begun, **keys):
    fiscal = FiscalYear(starts=f"{month:02}-{day:02}", **keys)
    names = [{one.year for one in fiscal.periods(year)} for year in range(begun, begun + 8)]
    first = min(names[0])
    assert names == [{first + number} for number in range(8)]
    begins, ends = fiscal.periods(begun)[0].first, fiscal.periods(begun)[-1].last
    assert begins.year <= first <= ends.year


@pytest.mark.req("R039")
@pytest.mark.parametrize("named_after", ["start", "end"])
@pytest.mark.parametrize(
    "begins",
    [
        {"starts": "01-04", "first_week": "on_or_before"},
        {"starts": "01-01", "first_week": "nearest"},
    ],
)
def test_a_year_of_weeks_around_january_is_named_as_iso_names_it(begins, named_after):
    """The first week of an ISO year is the one with 4 January in it."""
    iso = FiscalYear(weeks="4-4-5", week_starts="mon", named_after=named_after, **begins)
    days = [date(2015, 1, 1) + timedelta(days=number) for number in range(20 * 365)]
    assert [iso.period_of(day).year for day in days] == [day.isocalendar().year for day in days]


@pytest.mark.req("R039")
def test_a_calendar_year_is_the_calendar_year():
    period = FiscalYear().period_of(date(2026, 11, 30))
    assert (period.year, period.quarter, period.number) == (2026, 4, 11)


@pytest.mark.req("R031")
@pytest.mark.parametrize("written", ["01-30", "02-03", "07-15"])
def test_a_date_comes_every_year_also_where_a_fiscal_year_holds_it_twice_or_not_at_all(written):
    """The retail year of 2023 goes from 29 January 2023 to 3 February 2024, the next one to 1 February 2025."""
    calendar = Calendar(id="retail", fiscal=RETAIL)
    found = PeriodDays(fiscal_year=written).between(date(2020, 1, 1), date(2035, 12, 31), calendar=calendar)
    assert [str(day) for day in found] == [f"{year}-{written}" for year in range(2020, 2036)]
