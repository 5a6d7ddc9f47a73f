"""Fiscal years: twelve months from any date on, or the weeks of a 4-4-5 calendar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from leadferry.schedule.clock import WEEKDAYS, Weekday

_WEEK = timedelta(weeks=1)
_DAY = timedelta(days=1)
_EVERY_KIND = range(2000, 2028)
"""Years in which every date falls on every weekday, in leap years too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FiscalPeriod:
    """The twelfth of a fiscal year that a day falls into, also called its fiscal month."""

    year: int
    """As the company names it."""
    number: int
    """1 to 12."""
    first: date
    last: date

    @property
    def quarter(self) -> int:
        """1 to 4."""
        return (self.number + 2) // 3


_STARTS = r"^(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])$"


def _check_start(value: Any) -> Any:
    if not isinstance(value, str) or re.fullmatch(_STARTS, value) is None:
        told = f'is {value!r}; the year begins on a month and a day up to 28, in quotes, such as "04-01"'
        raise ValueError(told)
    return value


class FiscalYear(BaseModel):
    """When the company's year begins and how it is divided."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    starts: Annotated[
        str, Field(pattern=_STARTS), BeforeValidator(_check_start, json_schema_input_type=str)
    ] = Field(default="01-01", description="Month and day on which the year begins, such as 04-01.")
    weeks: Literal["4-4-5", "4-5-4", "5-4-4"] | None = Field(
        default=None,
        description="Months of whole weeks, each quarter divided so; calendar months when left out.",
    )
    week_starts: Weekday = Field(default="sun", description="First day of the weeks, with `weeks`.")
    first_week: Literal["nearest", "on_or_before", "on_or_after"] = Field(
        default="nearest",
        description="With `weeks`: the year begins on the `week_starts` nearest to `starts`, or on or before it, or on or after it.",
    )
    named_after: Literal["end", "start"] = Field(
        default="end",
        description="Calendar year that names the fiscal year: the one it ends in, or starts in. Where that is"
        " now the one and now the next (years of weeks around 1 January), the one with most of its days.",
    )

    def period_of(self, day: date) -> FiscalPeriod:
        """Return the period that a day falls into."""
        begun = max(year for year in range(day.year - 1, day.year + 2) if self.year_start(year) <= day)
        return next(one for one in self.periods(begun) if one.first <= day <= one.last)

    def periods(self, begun: int) -> list[FiscalPeriod]:
        """Return the twelve periods of the fiscal year that `starts` in this calendar year."""
        firsts = [*self._firsts(begun), self.year_start(begun + 1)]
        return [
            FiscalPeriod(year=begun + self._name, number=number, first=first, last=firsts[number] - _DAY)
            for number, first in enumerate(firsts[:-1], start=1)
        ]

    @cached_property
    def _name(self) -> int:
        """How far the name of a year is from the calendar year of its `starts`.

        Years of weeks that begin around 1 January end (or start) now in the one calendar year and now in the next; by that,
        two of them would have the same name. They have the name of the calendar year with most of their days, as ISO weeks do.
        """
        starts = {year: self.year_start(year) for year in _EVERY_KIND}
        if self.named_after == "start":
            told = {first.year - year for year, first in starts.items()}
        else:
            told = {(self.year_start(year + 1) - _DAY).year - year for year in starts}
        if len(told) == 1:
            return told.pop()
        return (starts[_EVERY_KIND[0]] + 26 * _WEEK).year - _EVERY_KIND[0]

    def year_start(self, year: int) -> date:
        """Return the first day of the fiscal year whose `starts` lies in this calendar year."""
        nominal = self._nominal(year)
        if self.weeks is None:
            return nominal
        back = timedelta(days=(nominal.weekday() - WEEKDAYS.index(self.week_starts)) % 7)
        before = nominal - back
        after = before if not back else before + _WEEK
        if self.first_week == "nearest":
            return before if nominal - before <= after - nominal else after
        return before if self.first_week == "on_or_before" else after

    def _nominal(self, year: int) -> date:
        return date.fromisoformat(f"{year:04}-{self.starts}")

    def _firsts(self, begun: int) -> Iterator[date]:
        """Yield the first days of the twelve periods; a 53rd week belongs to the last."""
        if self.weeks is None:
            month, day = map(int, self.starts.split("-"))
            for index in range(month - 1, month + 11):
                yield date(begun + index // 12, index % 12 + 1, day)
            return
        lengths = [int(weeks) for weeks in self.weeks.split("-")] * 4
        for weeks in accumulate(lengths[:-1], initial=0):
            yield self.year_start(begun) + weeks * _WEEK
