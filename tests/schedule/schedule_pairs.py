"""Pairs made by chance: a schedule as one writes it, and the departures that other programs make of the same words.

What a schedule names comes from dateutil, pandas or croniter, what is closed from pandas with the lists of `holidays` or
from exchange_calendars, and what a wall-clock time means from `wall_clock`. Nothing here asks the package under test.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, cached_property
from typing import Any

import holidays
import pandas as pd
from croniter import CroniterBadDateError, croniter
from dateutil import rrule
from hypothesis import assume
from hypothesis import strategies as st

from leadferry.schedule import Calendar
from leadferry.schedule.calendar_file import CalendarFile, Surroundings
from leadferry.schedule.fiscal import FiscalYear
from wall_clock import changes, oracle_instant, shown_instants

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2034, 1, 1, tzinfo=UTC)
"""The ten years that are compared."""

FIRST, LAST = date(2023, 9, 1), date(2034, 4, 30)
"""The days that are looked at: more than ten years, since a closed day may move a departure into them."""

HOLIDAY_YEARS = range(2022, 2036)

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FULL_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ORDINALS = ("first", "second", "third", "fourth", "fifth")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True, eq=False)
class Workdays:
    """A calendar as its file writes it, and what others know of the same days."""

    file: dict[str, Any] | None
    """None: the schedule names no calendar."""
    closed: frozenset[date] = frozenset()
    weekend: tuple[str, ...] = ("sat", "sun")
    ends: dict[date, time] = field(default_factory=dict)
    """Days on which nothing goes later than this."""

    @cached_property
    def calendar(self) -> Calendar | None:
        """The calendar of the package under test."""
        if self.file is None:
            return None
        around = Surroundings(years=HOLIDAY_YEARS, folder=None, other=None)  # type: ignore[arg-type]  # needs neither
        return CalendarFile.model_validate(self.file).resolve("by_chance", around)

    @cached_property
    def offset(self) -> Any:
        """The business day of pandas."""
        mask = " ".join(day.title() for day in WEEKDAYS if day not in self.weekend)
        return pd.offsets.CustomBusinessDay(weekmask=mask, holidays=sorted(map(str, self.closed)))

    @cached_property
    def open_days(self) -> list[date]:
        """Every business day."""
        return list(pd.date_range(FIRST, LAST, freq=self.offset).date)

    @cached_property
    def _open(self) -> frozenset[date]:
        return frozenset(self.open_days)

    @cached_property
    def _rolled(self) -> dict[tuple[date, str], date]:
        return {}

    def placed(self, day: date, policies: dict[str, str]) -> date | None:
        """Return where the departures of a day go."""
        general = policies.get("on_closed_day", "deliver" if self.file is None else "skip")
        policy = policies.get("on_weekend", general) if WEEKDAYS[day.weekday()] in self.weekend else general
        if day in self._open or policy == "deliver":
            return day
        if policy == "skip":
            return None
        if (day, policy) not in self._rolled:
            roll = self.offset.rollback if policy == "previous" else self.offset.rollforward
            self._rolled[day, policy] = roll(pd.Timestamp(day)).date()
        return self._rolled[day, policy]


def _of_countries(*codes: str, weekend: tuple[str, ...] = ("sat", "sun")) -> Callable[[], Workdays]:
    """Days that the law of any of these closes; `DE/BY` is a part of a country."""

    def make() -> Workdays:
        sources, closed = [], set()
        for code in codes:
            country, _, part = code.partition("/")
            sources.append({"country": country, **({"subdivision": part} if part else {})})
            closed |= set(holidays.country_holidays(country, subdiv=part or None, years=HOLIDAY_YEARS))
        return Workdays({"closed": sources, "weekend": list(weekend)}, frozenset(closed), weekend)

    return make


def _of_an_exchange(market: str, code: str) -> Callable[[], Workdays]:
    """Days without sessions, and the early closes, of exchange_calendars."""

    def make() -> Workdays:
        import exchange_calendars

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, about the other package
            exchange = exchange_calendars.get_calendar(code, start="2023-01-01", end=LAST)
            sessions = {day.date() for day in exchange.sessions}
            closes = exchange.closes[exchange.early_closes].dt.tz_convert(exchange.tz)
        ends = {day.date(): close.time() for day, close in closes.items()}
        every = {day.date() for day in pd.date_range("2023-01-01", LAST, freq="B")}
        file = {"closed": [{"market": market, "half_days": "13:00"}]}
        known = ends if market in SHORT_DAYS else {}
        return Workdays(file, frozenset(every - sessions), ends=known)

    return make


COUNTRIES = {
    "": lambda: Workdays(None),
    "no holidays": lambda: Workdays({}),
    "US": _of_countries("US"),
    "GB": _of_countries("GB"),
    "BR": _of_countries("BR"),
    "IN, six days a week": _of_countries("IN", weekend=("sun",)),
    "DE/BY": _of_countries("DE/BY"),
    "JP": _of_countries("JP"),
    "EG": _of_countries("EG", weekend=("fri", "sat")),
    "NZ": _of_countries("NZ"),
    "MA": _of_countries("MA"),
    "CA/NL and US": _of_countries("CA/NL", "US"),
    "no weekend, IR": _of_countries("IR", weekend=()),
}
EXCHANGES = {"NYSE": "XNYS", "XETR": "XETR", "XLON": "XLON", "BVMF": "BVMF", "XTSE": "XTSE", "XSWX": "XSWX"}
SHORT_DAYS = ("NYSE", "XLON", "XTSE")
"""Exchanges whose short days the package `holidays` has."""


@cache
def workdays_of(name: str) -> Workdays:
    """Make a calendar once: laws and sessions of ten years take a moment."""
    if name in EXCHANGES:
        return _of_an_exchange(name, EXCHANGES[name])()
    return COUNTRIES[name]()


@dataclass(frozen=True, kw_only=True, repr=False)
class Pair:
    """One schedule, written for the package under test and computed by others."""

    written: dict[str, Any]
    """The schedule without its calendar."""
    calendar: str
    """Key of the calendar; empty for none."""
    fiscal: dict[str, Any] | None = None
    """The company's year, which stands in the calendar."""
    walls: frozenset[datetime]
    elapsed: bool = False
    """Whether an hour that comes twice counts twice, and a missing one not at all."""

    def __repr__(self) -> str:
        return f"{self.written} on the calendar {self.calendar!r}, fiscal year {self.fiscal}"

    def schedule(self) -> dict[str, Any]:
        """Return what the package under test is given."""
        calendar = workdays_of(self.calendar).calendar
        if calendar is not None and self.fiscal:
            calendar = calendar.model_copy(update={"fiscal": FiscalYear(**self.fiscal)})
        return self.written if calendar is None else {**self.written, "calendar": calendar}

    def instants(self, timezone: str) -> list[datetime]:
        """Return the departures of ten years in UTC, as the others have them."""
        if self.elapsed:
            found = {one for wall in self.walls for one in shown_instants(wall, timezone)}
        else:
            found = {oracle_instant(wall, timezone) for wall in self.walls}
        return sorted(one for one in found if START <= one < END)


# Times of day


def times_of_change(timezone: str, *, gaps: bool) -> list[time]:
    """Return times that are missing (gaps) or come twice in some night of the ten years, and those right after."""
    jumps = [one for one in changes(timezone, range(START.year, END.year)) if one.is_gap is gaps]
    walls = [
        min(one.before, one.after) + share * abs(one.after - one.before)
        for one in jumps
        for share in (0, 0.5, 1)
    ]
    return sorted({wall.replace(second=0).time() for wall in walls})


def clocks_of(timezone: str) -> st.SearchStrategy[time]:
    """Any minute; often one of the night, and one that is missing or comes twice when the zone's clocks change."""
    night = st.builds(time, st.integers(0, 3), st.sampled_from([0, 15, 30, 45]))
    anywhere = st.builds(time, st.integers(0, 23), st.integers(0, 59))
    critical = times_of_change(timezone, gaps=True) + times_of_change(timezone, gaps=False)
    return st.one_of(anywhere, night, st.sampled_from(critical) if critical else night)


# Days, by dateutil: each draws what stands in the file, and the days of the same meaning


def ruled(text: str, *, start: date = FIRST) -> list[date]:
    """Return the days of a rule of RFC 5545."""
    rule = rrule.rrulestr(text, dtstart=datetime.combine(start, time()))
    found = rule.between(datetime.combine(FIRST, time()), datetime.combine(LAST, time()), inc=True)
    return [one.date() for one in found]


def _listed(chosen: Iterable[str]) -> str:
    return ",".join(day[:2].upper() for day in chosen)


weekday_lists = st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=6, unique=True)
starts = st.dates(date(2016, 1, 1), date(2027, 6, 30))
"""Early and often enough that no schedule, with days left out too, waits for eight years: then it counts as ended."""
Named = tuple[dict[str, Any], Iterable[date]]
"""What stands in the file, and the days of the same meaning."""


@st.composite
def _weekdays(draw: Any) -> Named:
    groups = {"days": WEEKDAYS, "weekdays": WEEKDAYS[:5], "weekends": WEEKDAYS[5:]}
    on = draw(st.sampled_from(sorted(groups)) | weekday_lists)
    chosen = groups[on] if isinstance(on, str) else on
    return {"on": on}, ruled(f"FREQ=WEEKLY;BYDAY={_listed(chosen)}")


@st.composite
def _every_days(draw: Any) -> Named:
    count, start = draw(st.integers(1, 100) | st.integers(1, 1000)), draw(starts)
    written = {"every": f"{count} days", "starting": str(start)}
    return written, ruled(f"FREQ=DAILY;INTERVAL={count}", start=start)


@st.composite
def _every_weeks(draw: Any) -> Named:
    count, start, on = draw(st.integers(1, 12)), draw(starts), draw(weekday_lists)
    written = {"every": f"{count} weeks", "starting": str(start), "on": on}
    return written, ruled(f"FREQ=WEEKLY;INTERVAL={count};BYDAY={_listed(on)}", start=start)


@st.composite
def _dates_of_a_month(draw: Any) -> Named:
    numbers = draw(st.lists(st.integers(1, 31), min_size=1, max_size=3, unique=True))
    short = draw(st.sampled_from(["last_day", "skip"]))
    days: set[date] = set()
    for number in numbers:
        # The last of the days from the 28th on that a month has: what RFC 5545 has for "the 31st or the last".
        upto = ",".join(map(str, range(min(number, 28), number + 1)))
        exactly = f"BYMONTHDAY={number}" if short == "skip" else f"BYMONTHDAY={upto};BYSETPOS=-1"
        days |= set(ruled(f"FREQ=MONTHLY;{exactly}"))
    return {"on": {"month": numbers, "short_month": short}}, sorted(days)


@st.composite
def _days_before_the_end(draw: Any) -> Named:
    before, short = draw(st.integers(0, 30)), draw(st.sampled_from(["last_day", "skip"]))
    exactly = f"BYMONTHDAY={-before - 1}"
    if short == "last_day":
        upto = ",".join(str(-number - 1) for number in range(min(before, 27), before + 1))
        exactly = f"BYMONTHDAY={upto};BYSETPOS=1"
    written = "last day" if before == 0 else f"{before} day{'s' * (before > 1)} before the end"
    return {"on": {"month": written, "short_month": short}}, ruled(f"FREQ=MONTHLY;{exactly}")


@st.composite
def _weekdays_of_a_period(draw: Any) -> Named:
    period, most = draw(st.sampled_from([("month", 5), ("year", 52)]))
    chosen = draw(st.lists(st.tuples(st.integers(1, most), st.integers(0, 6)), min_size=1, max_size=3))
    words, rules = [], []
    for number, day in chosen:
        last = draw(st.booleans())
        words.append(f"{'last' if last else _ordinal(number)} {FULL_NAMES[day]}")
        rules.append(f"{-1 if last else number}{WEEKDAYS[day][:2].upper()}")
    return {"on": {period: words}}, ruled(f"FREQ={period.upper()}LY;BYDAY={','.join(rules)}")


def _ordinal(number: int) -> str:
    if number <= len(ORDINALS):
        return ORDINALS[number - 1]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number not in (11, 12, 13) else "th"
    return f"{number}{ending}"


@st.composite
def _dates_of_a_year(draw: Any) -> Named:
    day = draw(st.dates(date(2024, 1, 1), date(2024, 12, 31)) | st.just(date(2024, 2, 29)))
    short = draw(st.sampled_from(["last_day", "skip"]))
    rule = f"FREQ=YEARLY;BYMONTH={day.month};BYMONTHDAY={day.day}"
    if (day.month, day.day) == (2, 29) and short == "last_day":
        rule = "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=28,29;BYSETPOS=-1"
    return {"on": {"year": f"{day:%m-%d}", "short_month": short}}, ruled(rule)


@st.composite
def _days_of_a_year(draw: Any) -> Named:
    number, short = draw(st.integers(1, 366) | st.just(366)), draw(st.sampled_from(["last_day", "skip"]))
    wanted = f"BYYEARDAY={number}"
    if number == 366 and short == "last_day":
        wanted = "BYYEARDAY=365,366;BYSETPOS=-1"
    return {"on": {"year": number, "short_month": short}}, ruled(f"FREQ=YEARLY;{wanted}")


@st.composite
def _quarters_of_a_fiscal_year(draw: Any) -> Named:
    """The first quarter's month, every third month, as RFC 5545 counts them."""
    first, number = draw(st.integers(1, 12)), draw(st.integers(1, 28))
    months = ",".join(str((first - 1 + index) % 12 + 1) for index in (0, 3, 6, 9))
    written = {"on": {"fiscal_quarter": number}, "fiscal": {"starts": f"{first:02}-01"}}
    return written, ruled(f"FREQ=YEARLY;BYMONTH={months};BYMONTHDAY={number}")


@st.composite
def _rules(draw: Any) -> Named:
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    parts = [f"FREQ={frequency}", f"INTERVAL={draw(st.integers(1, 2 if frequency == 'YEARLY' else 4))}"]
    by_day = st.builds("BYDAY={}".format, weekday_lists.map(_listed))
    by_month = st.builds("BYMONTH={}".format, st.integers(1, 12))
    by_month_day = st.builds("BYMONTHDAY={}".format, st.sampled_from(["1", "-1", "10,20", "13"]))
    position = st.builds("BYSETPOS={}".format, st.sampled_from([1, -1]))
    choices = {
        "DAILY": [by_day, by_month],
        "WEEKLY": [by_day, st.just("WKST=SU")],
        "MONTHLY": [by_month_day, by_day, st.builds("{};{}".format, by_day, position)],
        "YEARLY": [by_month, st.just("BYWEEKNO=20"), st.just("BYYEARDAY=1,-1"), st.just("BYDAY=20MO")],
    }
    parts += draw(st.lists(st.one_of(choices[frequency]), max_size=1))
    start = draw(starts)
    ends = st.builds("COUNT={}".format, st.integers(300, 999)) | st.just("UNTIL=20311231")
    parts += draw(st.lists(ends, max_size=1)) if start.year < 2024 else []
    text = draw(st.sampled_from(["", "RRULE:"])) + ";".join(parts)
    return {"on": {"rrule": text, "starting": str(start)}}, ruled(text, start=start)


@st.composite
def _listed_dates(draw: Any) -> Named:
    days = draw(
        st.lists(st.dates(date(2024, 1, 1), date(2029, 12, 31)), min_size=1, max_size=20, unique=True)
    )
    rules = rrule.rruleset()
    for day in days:
        rules.rdate(datetime.combine(day, time()))
    return {"on": {"dates": [str(day) for day in days]}}, [one.date() for one in rules]


# Days, by pandas

Grouped = Callable[[list[date]], list[list[date]]]


def _calendar_periods(freq: str, *, shift: int = 0) -> Grouped:
    """Group days as pandas does; a fiscal year that begins on the 6th is one that begins on the 1st, five days earlier."""

    def grouped(days: list[date]) -> list[list[date]]:
        found = pd.Series(pd.to_datetime(days))
        periods = (found - pd.Timedelta(days=shift)).dt.to_period(freq)
        return [list(group.dt.date) for _, group in found.groupby(periods)]

    return grouped


def _week_periods(offset: Any) -> Grouped:
    """Group days by the periods that end as an offset of pandas says."""
    ends = pd.date_range("2021-01-01", "2036-12-31", freq=offset)

    def grouped(days: list[date]) -> list[list[date]]:
        found = pd.Series(pd.to_datetime(days))
        return [list(group.dt.date) for _, group in found.groupby(ends.searchsorted(found))]

    return grouped


LONG_AGO, FAR_AHEAD = date(2022, 1, 1), date(2035, 12, 31)


@st.composite
def _periods(draw: Any) -> tuple[str, dict[str, Any] | None, Grouped, int]:
    """Draw a kind of period: its key, the fiscal year it needs, how pandas divides time by it, and its greatest length."""
    kind, freq, length = draw(st.sampled_from([("month", "M", 31), ("quarter", "Q", 92), ("year", "Y", 365)]))
    if draw(st.booleans()):
        return kind, None, _calendar_periods(freq), length
    month, day = draw(st.integers(1, 12)), draw(st.sampled_from([1, 1, 6, 15, 28]))
    if kind == "month" or draw(st.booleans()):
        fiscal = {"starts": f"{month:02}-{day:02}"}
        freq = freq if freq == "M" else f"{freq}-{MONTHS[month - 2]}"
        return f"fiscal_{kind}", fiscal, _calendar_periods(freq, shift=day - 1), length
    return draw(_weeks(kind, month))


@st.composite
def _weeks(draw: Any, kind: str, month: int) -> tuple[str, dict[str, Any], Grouped, int]:
    """Draw a year of whole weeks, the 52-53-week year of pandas."""
    first_week, variation = draw(st.sampled_from([("nearest", "nearest"), ("on_or_before", "last")]))
    weekday = draw(st.integers(0, 6))
    fiscal = {
        "starts": f"{month:02}-01",
        "weeks": draw(st.sampled_from(["4-4-5", "4-5-4", "5-4-4"])),
        "week_starts": WEEKDAYS[weekday],
        "first_week": first_week,
    }
    ends = {"weekday": (weekday - 1) % 7, "startingMonth": (month - 2) % 12 + 1, "variation": variation}
    if kind == "year":
        return "fiscal_year", fiscal, _week_periods(pd.offsets.FY5253(**ends)), 364
    quarter = pd.offsets.FY5253Quarter(**ends, qtr_with_extra_week=4)
    return "fiscal_quarter", fiscal, _week_periods(quarter), 91


@st.composite
def _days_of_a_period(draw: Any, work: Workdays) -> Named:
    kind, fiscal, grouped, length = draw(_periods())
    short = draw(st.sampled_from(["last_day", "skip"]))
    what = draw(st.sampled_from(["day", "business day", *FULL_NAMES]))
    days = {"day": _every_day(), "business day": tuple(_open_days(work))}.get(what) or tuple(
        day for day in _every_day() if FULL_NAMES[day.weekday()] == what
    )
    most = {"day": length, "business day": length * 5 // 7}.get(what, length // 7 + (length < 32))
    from_end = what in ("day", "business day") and draw(st.booleans())
    number = draw(st.integers(1, min(5, most)) | st.integers(1, most))
    if from_end:
        number = min(number, length - 1)
        written = f"{number} {what}{'s' * (number > 1)} before the end"
    else:
        last = draw(st.booleans())
        written = f"{'last' if last else _ordinal(number)} {what}"
        number = -1 if last else number
    clamped = what == "day" and short == "last_day"
    picked = [
        _picked(group, -number - 1 if from_end else number - (number > 0), clamped=clamped)
        for group in grouped(list(days))
    ]
    on = {kind: written, "short_month": short}
    return {"on": on, **({"fiscal": fiscal} if fiscal else {})}, [day for day in picked if day]


def _picked(group: list[date], index: int, *, clamped: bool) -> date | None:
    if -len(group) <= index < len(group):
        return group[index]
    return (group[-1] if index > 0 else group[0]) if clamped else None


@cache
def _every_day() -> tuple[date, ...]:
    return tuple(pd.date_range(LONG_AGO, FAR_AHEAD).date)


def _open_days(work: Workdays) -> list[date]:
    return list(pd.date_range(LONG_AGO, FAR_AHEAD, freq=work.offset).date)


def _business_days(work: Workdays) -> st.SearchStrategy[Named]:
    return st.just(({"on": "business_days"}, work.open_days))


@st.composite
def _ends_of_months(draw: Any, work: Workdays) -> Named:
    """The offsets that pandas has for just this."""
    first = draw(st.booleans())
    kind = pd.offsets.CustomBusinessMonthBegin if first else pd.offsets.CustomBusinessMonthEnd
    found = pd.date_range(
        FIRST, LAST, freq=kind(weekmask=work.offset.weekmask, holidays=work.offset.holidays)
    )
    return {"on": {"month": f"{'first' if first else 'last'} business day"}}, list(found.date)


# Whole schedules


def _policies(choices: tuple[str, ...] = ("skip", "previous", "next", "deliver")) -> st.SearchStrategy[Any]:
    policy = st.sampled_from(choices)
    return st.fixed_dictionaries({}, optional={"on_closed_day": policy, "on_weekend": policy})


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is drawn before the days go where the calendar lets them."""

    written: dict[str, Any]
    walls: Iterable[datetime]
    elapsed: bool = False

    def pair(self, calendar: str, policies: dict[str, str]) -> Pair:
        """Let the calendar have its say."""
        work = workdays_of(calendar)
        walls = {self._moved(wall, work, policies) for wall in self.walls}
        written = {key: value for key, value in self.written.items() if key != "fiscal"}
        return Pair(
            written={**written, **policies},
            calendar=calendar,
            fiscal=self.written.get("fiscal"),
            walls=frozenset(wall for wall in walls if wall is not None),
            elapsed=self.elapsed,
        )

    def _moved(self, wall: datetime, work: Workdays, policies: dict[str, str]) -> datetime | None:
        day = work.placed(wall.date(), policies)
        return day and datetime.combine(day, min(wall.time(), work.ends.get(day, wall.time())))


@st.composite
def _at_times(draw: Any, named: st.SearchStrategy[Named], clocks: st.SearchStrategy[time]) -> _Plan:
    written, days = draw(named)
    times = draw(st.lists(clocks, min_size=1, max_size=3, unique=True))
    return _Plan(
        written={"at": [f"{at:%H:%M}" for at in times], **written},
        walls=[datetime.combine(day, at) for day in days for at in times],
    )


@st.composite
def _within_the_day(draw: Any) -> _Plan:
    """Intervals on days of the week on which clocks change somewhere."""
    on = draw(st.sampled_from(["sun", "fri", "sat"]))
    first, last = draw(
        st.sampled_from([(time(0), time(23, 59)), (time(8), time(18)), (time(0, 45), time(4, 5))])
    )
    between = {} if first == time(0) else {"between": [f"{first:%H:%M}", f"{last:%H:%M}"]}
    day = date(2024, 1, 1)
    if draw(st.booleans()):
        minutes = draw(st.lists(st.integers(0, 59), min_size=1, max_size=2, unique=True))
        step = draw(st.integers(1, 3))
        words: dict[str, Any] = {"hourly": {"minute": minutes, "every": step}}
        rule = {
            "freq": rrule.HOURLY,
            "interval": step,
            "byminute": minutes,
            "dtstart": datetime.combine(day, time()),
        }
    else:
        step = draw(st.integers(45, 200))
        words = {"every": f"{step} minutes"}
        rule = {"freq": rrule.MINUTELY, "interval": step, "dtstart": datetime.combine(day, first)}
    found = rrule.rrule(**rule, until=datetime.combine(day, last))  # type: ignore[arg-type]  # each has its own kind
    times = [one.time() for one in found if first <= one.time()]
    assume(times)
    return _Plan(
        written={**words, **between, "on": [on]},
        walls=[
            datetime.combine(day, at) for day in ruled(f"FREQ=WEEKLY;BYDAY={_listed([on])}") for at in times
        ],
        elapsed=True,
    )


_CRON_DAYS = ("*", "1", "31", "1,15", "L", "10-20/5", "*/7", "28-31")
_CRON_MONTHS = ("*", "*", "2", "*/3", "jan,jul", "3-11")
_CRON_WEEKDAYS = ("*", "mon-fri", "0", "7", "sun,wed", "1-5/2", "5#2", "L5", "tue#1,tue#3")


@st.composite
def _cron(draw: Any, clocks: st.SearchStrategy[time]) -> _Plan:
    at = draw(clocks)
    minute = draw(st.sampled_from([f"{at.minute}", f"{at.minute}", f"{at.minute},59", "*/30", "10-20/5"]))
    hour = draw(st.sampled_from([f"{at.hour}", f"{at.hour}", f"{at.hour},20", "0-3", "1-5/2", "*", "*/4"]))
    elapsed = hour.startswith("*")
    days = " ".join(draw(st.sampled_from(each)) for each in (_CRON_DAYS, _CRON_MONTHS, _CRON_WEEKDAYS))
    if elapsed:  # every hour, but only on some days on which clocks change somewhere
        days = draw(st.sampled_from(["* 3-4,10 sun", "* 4,10 fri", "1,15 * *", "* 10,11 0"]))
    text = f"{minute} {hour} {days}"
    walls = list(_by_cron(text))
    assume(walls)  # such as the 31st of February, which is a config error
    return _Plan(written={"cron": text}, walls=walls, elapsed=elapsed)


def _by_cron(text: str) -> Iterator[datetime]:
    cron = croniter(text, datetime.combine(FIRST, time()) - timedelta(minutes=1))
    with suppress(CroniterBadDateError):
        while (wall := cron.get_next(datetime)).date() <= LAST:
            yield wall


BY_DATEUTIL = (
    _weekdays(),
    _every_days(),
    _every_weeks(),
    _dates_of_a_month(),
    _days_before_the_end(),
    _weekdays_of_a_period(),
    _dates_of_a_year(),
    _days_of_a_year(),
    _rules(),
    _listed_dates(),
)


def _by_pandas(work: Workdays) -> st.SearchStrategy[Named]:
    periods = _days_of_a_period(work)
    return st.one_of(
        periods, periods, _business_days(work), _ends_of_months(work), _quarters_of_a_fiscal_year()
    )


@st.composite
def by_dateutil(draw: Any, timezone: str) -> Pair:
    """Times on days that dateutil names, and intervals within the day."""
    plan = draw(st.one_of(_within_the_day(), *(_at_times(one, clocks_of(timezone)) for one in BY_DATEUTIL)))
    return plan.pair("", {})


@st.composite
def by_pandas(draw: Any, timezone: str) -> Pair:
    """Business days, days of periods of any year, and closed days of the laws of countries."""
    calendar = draw(st.sampled_from(sorted(COUNTRIES)))
    named = st.one_of(_by_pandas(workdays_of(calendar)), *BY_DATEUTIL)
    plan = draw(_at_times(named, clocks_of(timezone)))
    if "fiscal" in plan.written and not calendar:
        calendar = "no holidays"
    return plan.pair(calendar, draw(_policies()))


@st.composite
def by_exchange_calendars(draw: Any, timezone: str) -> Pair:
    """The same on the calendar of an exchange, whose short days end early."""
    calendar = draw(st.sampled_from(sorted(EXCHANGES)))
    named = st.one_of(_by_pandas(workdays_of(calendar)), *BY_DATEUTIL)
    return draw(_at_times(named, clocks_of(timezone))).pair(calendar, draw(_policies()))


@st.composite
def by_croniter(draw: Any, timezone: str) -> Pair:
    """Cron expressions, with closed days too."""
    calendar = draw(st.sampled_from(["", "", *sorted(COUNTRIES)]))
    return draw(_cron(clocks_of(timezone))).pair(calendar, draw(_policies()))
