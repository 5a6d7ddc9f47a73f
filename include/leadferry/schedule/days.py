"""Which days a schedule names: the key `on`, before any calendar closes one of them.

Every way to choose days answers one question: which days lie between two others.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from leadferry.schedule.calendar import Calendar
from leadferry.schedule.clock import WEEKDAYS, Weekday, check_word, spoken
from leadferry.schedule.fiscal import FiscalYear
from leadferry.schedule.recurrence import occurrences

DayGroup = Literal["days", "weekdays", "weekends", "business_days"]

_GROUPS: dict[str, tuple[Weekday, ...]] = {
    "days": WEEKDAYS,
    "weekdays": WEEKDAYS[:5],
    "weekends": WEEKDAYS[5:],
    "business_days": WEEKDAYS,
}

_FULL_NAMES: dict[Weekday, str] = dict(
    zip(
        WEEKDAYS,
        ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
        strict=True,
    )
)
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": -1}
_NTH = rf"(?P<nth>{'|'.join(_ORDINALS)}|[1-9]\d*(?:st|nd|rd|th))"
_RULES = (
    rf"{_NTH} (?P<what>business day|day|{'|'.join(_FULL_NAMES.values())})",
    r"(?P<before>\d+) (?P<what>business day|day)s? before the end",
    r"(?P<month>0[1-9]|1[0-2])-(?P<day>\d\d)",
)
_DAY = timedelta(days=1)
_LONGEST_YEAR = 371
_LONGEST = {
    "month": 31,
    "quarter": 92,
    "year": 366,
    "fiscal_month": 42,
    "fiscal_quarter": 98,
    "fiscal_year": _LONGEST_YEAR,
}
"""Most days of a period; fiscal ones may be of whole weeks, with a 53rd in the last month."""
_SPOKEN_DATES = 3

Period = Literal["month", "quarter", "year", "fiscal_month", "fiscal_quarter", "fiscal_year"]
PERIODS: tuple[Period, ...] = get_args(Period)
Rule = int | str


def _check_rule(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= _LONGEST_YEAR:
            raise ValueError("must be a day from 1 on, or words such as last day or first monday")
        return value
    text = " ".join(value.casefold().split()) if isinstance(value, str) else ""
    if not any(re.fullmatch(rule, text) for rule in _RULES):
        raise ValueError(
            "must be a day such as 15, or words: last day, first monday, last friday, 3rd business day, "
            "last business day, 2 business days before the end; in a year also a date such as 03-31"
        )
    found = re.fullmatch(_RULES[2], text)
    if found:
        date(2024, int(found["month"]), int(found["day"]))
    return text


DayRule = Annotated[int | str, BeforeValidator(_check_rule)]
"""One day of a period: its number, or words such as `last friday`."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) or value is None else [value]


DayRules = Annotated[
    tuple[DayRule, ...],
    BeforeValidator(_as_list, json_schema_input_type=list[Rule] | Rule),
    Field(min_length=1),
]


class PeriodDays(BaseModel):
    """Days counted within a month, a quarter or a year, of the calendar or of the company."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    month: DayRules | None = Field(
        default=None, description="15, last day, first monday, 3rd business day, or a list."
    )
    quarter: DayRules | None = Field(default=None, description="The same, within January to March and so on.")
    year: DayRules | None = Field(
        default=None, description="The same, within the year; also a date such as 03-31."
    )
    fiscal_month: DayRules | None = Field(
        default=None, description="The same, in the calendar's fiscal months."
    )
    fiscal_quarter: DayRules | None = Field(
        default=None, description="The same, in the calendar's fiscal quarters."
    )
    fiscal_year: DayRules | None = Field(default=None, description="The same, in the calendar's fiscal year.")
    short_month: Literal["last_day", "skip"] = Field(
        default="last_day",
        description="A period without that day, such as June without the 31st: its last day, or none. "
        "Counted from the end, such as 30 days before the end of February: its first day, or none.",
    )

    @model_validator(mode="after")
    def _one_period(self) -> Self:
        named = [name for name in PERIODS if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"say exactly one of {', '.join(PERIODS)}")
        if "year" not in named[0] and any("-" in str(rule) for rule in self.rules):
            raise ValueError("a date such as 03-31 is a day of a year; write on: {year: 03-31}")
        beyond = [rule for rule in self.rules if _number(rule) > _most(rule, named[0])]
        if beyond:
            raise ValueError(f"no {named[0].replace('_', ' ')} is long enough for {beyond[0]!r}")
        return self

    @cached_property
    def period(self) -> Period:
        """The kind of period that is named."""
        return next(name for name in PERIODS if getattr(self, name) is not None)

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The days within it."""
        rules: tuple[Rule, ...] = getattr(self, self.period)
        return rules

    def between(self, first: date, last: date, *, calendar: Calendar) -> Iterator[date]:
        """Yield the days, in order."""
        found = {
            day
            for rule in self.rules
            for span in self._periods(rule, first, last, calendar=calendar)
            if (day := self._day(rule, span, calendar=calendar)) is not None and first <= day <= last
        }
        yield from sorted(found)

    def why_short(self, day: date, *, calendar: Calendar) -> str:
        """Say which rule names a day only because its period has no other, such as 28 February; empty when none does."""
        for rule in self.rules:
            for span in self._periods(rule, day, day, calendar=calendar):
                named = self._day(rule, span, calendar=calendar) == day
                if named and _exactly(rule, *span, calendar=calendar) is None:
                    period = "year" if rule == "02-29" else self.period.replace("_", " ")
                    return f"{_said(rule, self.period)} is not in this {period}"
        return ""

    def _periods(
        self, rule: Rule, first: date, last: date, *, calendar: Calendar
    ) -> Iterator[tuple[date, date]]:
        """Yield the periods between two days; a date is one of every year, and a fiscal year may hold it twice or not at all."""
        yield from _spans("year" if "-" in str(rule) else self.period, first, last, calendar=calendar)

    def _day(self, rule: Rule, span: tuple[date, date], *, calendar: Calendar) -> date | None:
        found = _exactly(rule, *span, calendar=calendar)
        return _nearest(rule, *span) if found is None and self.short_month == "last_day" else found

    def __str__(self) -> str:
        period = self.period.replace("_", " ")
        return f"{spoken([_said(rule, self.period) for rule in self.rules])} of every {period}"


def _exactly(rule: Rule, first: date, last: date, *, calendar: Calendar) -> date | None:
    """Return the day of a period that a rule names; None when the period has no such day."""
    if isinstance(rule, str) and (found := re.fullmatch(_RULES[2], rule)):
        month, number = int(found["month"]), int(found["day"])
        return date(first.year, month, number) if number <= monthrange(first.year, month)[1] else None
    what, index = _place(rule)
    if what != "day":
        return _counted(what, index, first, last, calendar=calendar)
    day = first + (index - 1) * _DAY if index > 0 else last + (index + 1) * _DAY
    return day if first <= day <= last else None


def _nearest(rule: Rule, first: date, last: date) -> date | None:
    """Return what stands for a day that a period is too short for: its last one, or its first when counted from the end."""
    if rule == "02-29":
        return date(first.year, 2, 28)
    what, index = _place(rule)
    if what != "day":
        return None
    return last if index > 0 else first


def _place(rule: Rule) -> tuple[str, int]:
    """Return what a rule counts, and which of them it names, from the end when negative."""
    if isinstance(rule, int):
        return "day", rule
    if found := re.fullmatch(_RULES[1], rule):
        return found["what"], -int(found["before"]) - 1
    found = re.fullmatch(_RULES[0], rule)
    assert found, rule  # noqa: S101  # no other rule passes `_check_rule`
    return found["what"], _ORDINALS.get(found["nth"]) or int(found["nth"][:-2])


def _number(rule: Rule) -> int:
    """Return which of its kind a rule names, from the nearer end; a date or a word counts as the first."""
    found = None if "-" in str(rule) else re.search(r"\d+", str(rule))
    return int(found[0]) + ("before" in str(rule)) if found else 1


def _most(rule: Rule, period: Period) -> int:
    """Return how many of a kind the longest period has."""
    is_weekday = isinstance(rule, str) and rule.rsplit(" ", 1)[-1] in _FULL_NAMES.values()
    return -(-_LONGEST[period] // 7) if is_weekday else _LONGEST[period]


def _said(rule: Rule, period: Period) -> str:
    """Say one day aloud: `the 15th` of a month, `day 100` of a year, `the last friday`, `03-31`."""
    if isinstance(rule, int):
        return f"the {rule}{_ordinal_ending(rule)}" if period.endswith("month") else f"day {rule}"
    return rule if "-" in rule or "before" in rule else f"the {rule}"


def _ordinal_ending(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _counted(what: str, index: int, first: date, last: date, *, calendar: Calendar) -> date | None:
    """Return the n-th (or from the end, when negative) weekday or business day of a period."""
    step = 1 if index > 0 else -1
    day, left = (first, index) if index > 0 else (last, -index)
    while first <= day <= last:
        if calendar.is_open(day) if what == "business day" else _FULL_NAMES[WEEKDAYS[day.weekday()]] == what:
            left -= 1
            if left == 0:
                return day
        day += step * _DAY
    return None


def _spans(period: Period, first: date, last: date, *, calendar: Calendar) -> Iterator[tuple[date, date]]:
    """Yield first and last day of each period that has a day between the two, in order."""
    fiscal = calendar.fiscal if period.startswith("fiscal") else None
    size = {"month": 1, "quarter": 3, "year": 12}[period.removeprefix("fiscal_")]
    for year in range(max(first.year - 1, 1), min(last.year + 1, 9998) + 1):
        twelve = _months(year) if fiscal is None else _fiscal_months(fiscal, year)
        for index in range(0, 12, size):
            span = twelve[index][0], twelve[index + size - 1][1]
            if span[1] >= first and span[0] <= last:
                yield span


@lru_cache(maxsize=64)
def _fiscal_months(fiscal: FiscalYear, year: int) -> list[tuple[date, date]]:
    return [(one.first, one.last) for one in fiscal.periods(year)]


@lru_cache(maxsize=64)
def _months(year: int) -> list[tuple[date, date]]:
    firsts = [date(year, month, 1) for month in range(1, 13)]
    ends = [*firsts[1:], date(year + 1, 1, 1)]
    return [(start, end - _DAY) for start, end in zip(firsts, ends, strict=True)]


class Dates(BaseModel):
    """Days that are listed one by one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dates: tuple[date, ...] = Field(min_length=1, description="Such as [2026-06-15, 2026-09-15].")

    @field_validator("dates", mode="before")
    @classmethod
    def _are_dates(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and len(set(map(str, value))) < len(value):
            raise ValueError("a date stands twice")
        return value

    def between(self, first: date, last: date, *, calendar: Calendar) -> Iterator[date]:  # noqa: ARG002 all ways to choose days are asked alike
        """Yield the days, in order."""
        yield from sorted(day for day in self.dates if first <= day <= last)

    def __str__(self) -> str:
        if len(self.dates) > _SPOKEN_DATES:
            return f"on {len(self.dates)} listed dates"
        return f"on {spoken([str(day) for day in sorted(self.dates)])}"


class Recurrence(BaseModel):
    """Days by a rule of RFC 5545, the standard behind calendar programs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rrule: str = Field(description="Such as FREQ=MONTHLY;BYDAY=-1FR; DAILY, WEEKLY, MONTHLY or YEARLY.")
    starting: date = Field(description="The day from which the rule counts.")

    @model_validator(mode="after")
    def _is_a_rule(self) -> Self:
        occurrences(self.rrule, self.starting)
        return self

    def between(self, first: date, last: date, *, calendar: Calendar) -> Iterator[date]:  # noqa: ARG002 as above
        """Yield the days, in order."""
        yield from occurrences(self.rrule, self.starting).between(first, last)

    def __str__(self) -> str:
        return f"by the rule {self.rrule}"


def _check_days(value: Any) -> Any:
    """Refuse what is neither a group nor a list of weekdays nor a mapping, with one sentence instead of one per alternative."""
    if isinstance(value, (Mapping, PeriodDays, Dates, Recurrence)):
        return value
    if isinstance(value, str):
        check_word(value, allowed=(*_GROUPS, *WEEKDAYS))
        if value in WEEKDAYS:
            raise ValueError(f"a single weekday stands in brackets: [{value}]")
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(
            "must be days, weekdays, weekends, business_days, a list of weekdays such as [mon, thu], "
            "or days of a period such as {month: last friday}"
        )
    for day in value:
        check_word(day, allowed=WEEKDAYS)
        if list(value).count(day) > 1:
            raise ValueError(f"{day} stands twice")
    return value


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "group"
    if isinstance(value, (list, tuple)):
        return "weekdays"
    for name, model in (("dates", Dates), ("rrule", Recurrence)):
        if isinstance(value, model) or (isinstance(value, Mapping) and name in value):
            return name
    return "period"


Days = Annotated[
    Annotated[
        Annotated[DayGroup, Tag("group")]
        | Annotated[tuple[Weekday, ...], Tag("weekdays")]
        | Annotated[PeriodDays, Tag("period")]
        | Annotated[Dates, Tag("dates")]
        | Annotated[Recurrence, Tag("rrule")],
        Discriminator(_kind),
    ],
    BeforeValidator(_check_days),
]
"""The days on which a batch departs, in the schedule's own time zone."""


def weekdays_of(on: DayGroup | tuple[Weekday, ...]) -> frozenset[int]:
    """Return the chosen days of the week, as `datetime.date.weekday()` counts them."""
    names = _GROUPS[on] if isinstance(on, str) else on
    return frozenset(WEEKDAYS.index(name) for name in names)


def days_between(on: Any, first: date, last: date, *, calendar: Calendar) -> Iterator[date]:
    """Yield the days that `on` names from `first` to `last`, both included, in order.

    Args:
        on: a value of the type `Days`.
        first: local calendar day.
        last: local calendar day.
        calendar: knows business days and the fiscal year.
    """
    if isinstance(on, (PeriodDays, Dates, Recurrence)):
        yield from on.between(first, last, calendar=calendar)
        return
    chosen, day = weekdays_of(on), first
    while day <= last:
        if day.weekday() in chosen and (on != "business_days" or calendar.is_open(day)):
            yield day
        day += _DAY


def say_days(on: Any) -> str:
    """Say the days aloud: `weekdays`, `mon and thu`, `last friday of every month`."""
    if isinstance(on, str):
        return "every day" if on == "days" else on.replace("_", " ")
    if isinstance(on, tuple):
        return spoken(sorted(on, key=WEEKDAYS.index))
    return str(on)
