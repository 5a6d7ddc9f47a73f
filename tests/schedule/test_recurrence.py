"""Rules of calendar programs and cron expressions: what they name, what is refused."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time
from itertools import islice
from threading import Barrier

import pytest
from dateutil.rrule import rrulestr

from leadferry.schedule import recurrence
from leadferry.schedule.recurrence import Occurrences, days_of_rule, occurrences, parse_cron

START = date(2026, 1, 1)


@pytest.fixture
def threads_take_turns_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_take_turns_often")
def test_a_rule_may_be_asked_by_several_threads_at_once():
    rule = Occurrences(days_of_rule("FREQ=DAILY", START))
    together = Barrier(8)

    def ask(number: int) -> int:
        together.wait(timeout=30)
        return len(rule.between(date(2030, 1, 1), date(2030 + number, 12, 31)))

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(8)))

    assert found == [(date(2031 + number, 1, 1) - date(2030, 1, 1)).days for number in range(8)]


@pytest.mark.parametrize(
    ("rule", "most"),
    [
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", 60 * 367),
        ("FREQ=DAILY;INTERVAL=7;BYDAY=MO", 60 * 53),
        ("FREQ=WEEKLY;BYMONTH=2;BYMONTHDAY=30", 60 * 53),
        ("FREQ=MONTHLY;BYDAY=6MO", 60 * 14),
        ("FREQ=MONTHLY;INTERVAL=12;BYMONTH=6", 80),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", 64),
        ("FREQ=YEARLY;INTERVAL=100;BYMONTH=2;BYMONTHDAY=30", 4),
    ],
)
def test_a_rule_that_names_no_day_is_given_up_soon(monkeypatch, rule, most):
    steps = Counter()
    step = recurrence._Interval._step

    def counted(self):
        steps[rule] += 1
        step(self)

    monkeypatch.setattr(recurrence._Interval, "_step", counted)
    asked = Occurrences(days_of_rule(rule, START))

    assert asked.between(START, date(2036, 1, 1)) == asked.between(START, date(2999, 1, 1)) == []
    assert 0 < steps[rule] <= most


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
        "FREQ=YEARLY;INTERVAL=50",
        "FREQ=DAILY;INTERVAL=400",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
        "FREQ=MONTHLY;INTERVAL=7;BYDAY=5FR",
        "FREQ=WEEKLY;INTERVAL=3;BYDAY=TU,FR;WKST=SU;COUNT=40",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;UNTIL=20401231",
        "RRULE:FREQ=YEARLY;BYWEEKNO=53;BYDAY=MO",
    ],
)
def test_the_days_of_a_rule_are_those_of_dateutil(rule):
    expected = islice(rrulestr(rule, dtstart=datetime.combine(START, time())), 12)

    assert list(islice(days_of_rule(rule, START), 12)) == [one.date() for one in expected]


@pytest.mark.parametrize("until", ["20260105", "20260105T235959Z", "20260105T000000Z", "20260105T120000"])
@pytest.mark.parametrize(
    "rule", ["FREQ=DAILY;UNTIL={}", "RRULE:FREQ=DAILY;UNTIL={};INTERVAL=1", "freq=daily;until={}"]
)
def test_of_until_the_day_counts_and_is_the_last(rule, until):
    found = occurrences(rule.format(until if rule[0] != "f" else until.lower()), START)

    assert found.between(START, date(2030, 1, 1)) == [date(2026, 1, day) for day in range(1, 6)]


@pytest.mark.parametrize(
    "days",
    [
        "R * *", "* R *", "* * R", "r * *", "R(1-5) * *", "R/3 * *", "* * R(1-5)", "1,R * *", "R,15 * *", "* * mon,R",
        "H * *", "* H *", "* * H", "h * *", "H(1-28) * *", "H/2 * *", "* * H(1-5)",
    ],
)  # fmt: skip
def test_a_day_drawn_by_lot_is_refused(days):
    with pytest.raises(ValueError, match="draw a day by lot, another one in each process; write the day"):
        parse_cron(f"0 9 {days}")


@pytest.mark.parametrize(
    "days",
    ["* mar *", "* MAR,apr *", "* * FRI", "* * fri#2", "* * thu-fri", "* mar-apr,oct fri", "L * *", "* * L5"],
)
def test_names_of_months_and_weekdays_with_the_same_letters_are_fine(days):
    assert parse_cron(f"0 9 {days}").days == f"0 0 {days}"
