"""Which leads a departure may take by the time they were received: its window `[from, to)`.

A lead belongs to the first window whose end it was received before and at whose departure it was there.
So one that comes late (received within a window that has departed, or between two of them) goes with the next,
and none is in two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from leadferry.schedule.calendar import PLAIN, Calendar
from leadferry.schedule.clock import WEEKDAYS, Weekday, check_word
from leadferry.schedule.instants import resolve
from leadferry.zones import time_zone

_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a departure covers; both ends aware."""

    begins: datetime | None
    """None: where the last delivery's window ended."""
    ends: datetime | None
    """Leads received from here on stay; None: the moment of the claim."""


def _parse_days(value: Any) -> Any:
    """Read `mon-fri` as the days from Monday to Friday."""
    if isinstance(value, (list, tuple)):
        for word in value:
            check_word(word, allowed=WEEKDAYS)
        if not value or tuple(value) != _parse_days(f"{value[0]}-{value[-1]}"):
            raise ValueError("must be days that follow each other, such as mon-fri")
        return tuple(value)
    if not isinstance(value, str):
        return value
    first, _, last = value.partition("-")
    for word in (first, last or first):
        check_word(word, allowed=WEEKDAYS)
    begin = WEEKDAYS.index(first)
    count = (WEEKDAYS.index(last or first) - begin) % len(WEEKDAYS) + 1
    return tuple(WEEKDAYS[(begin + step) % len(WEEKDAYS)] for step in range(count))


def _write_days(days: tuple[Weekday, ...]) -> str:
    return f"{days[0]}-{days[-1]}" if len(days) > 1 else days[0]


Span = Annotated[
    tuple[Weekday, ...],
    BeforeValidator(_parse_days, json_schema_input_type=str),
    PlainSerializer(_write_days, return_type=str),
]
"""Weekdays that follow each other, written `mon-fri`; the week begins with the first of them."""


class Period(BaseModel):
    """A day, week or month of the local calendar."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period: Literal["day", "week", "month"]
    days: Span | None = Field(
        default=None,
        description="With week: only from the first to the last of these days, such as mon-fri, without closed days"
        " of the schedule's calendar at either end; the whole week, from Monday, when left out.",
    )
    which: Literal["current", "previous"] = Field(
        default="current",
        description="current: the period of the departure, up to the departure. previous: the whole one before it.",
    )

    @model_validator(mode="after")
    def _days_are_of_a_week(self) -> Self:
        if self.days is not None and self.period != "week":
            raise ValueError("days goes with period: week")
        return self

    def window(self, departs_at: datetime, *, zone: ZoneInfo, calendar: Calendar = PLAIN) -> Window:
        """Return the window of a departure.

        Args:
            departs_at: aware. At the first moment of a period it is the period before that goes, whatever `which` says: it is over.
            zone: where the period's days are meant.
            calendar: whose closed days `days` leaves out at both ends.
        """
        if self.which == "current":
            begin = self._begin((departs_at - _TICK).astimezone(zone).date())
        else:
            begin = self._begin(self._begin(departs_at.astimezone(zone).date()) - _DAY)
        first, end = self._open_part(begin, calendar=calendar)
        begins, ends = (resolve(datetime.combine(day, time()), zone=zone).utc for day in (first, end))
        return Window(begins=begins, ends=min(ends, max(departs_at, begins)))

    def _begin(self, day: date) -> date:
        if self.period == "month":
            return day.replace(day=1)
        if self.period == "day":
            return day
        starts = WEEKDAYS.index(self.days[0]) if self.days else 0
        return day - (day.weekday() - starts) % 7 * _DAY

    def _open_part(self, begin: date, *, calendar: Calendar) -> tuple[date, date]:
        """Return the first day and the day after the last."""
        if self.period == "day":
            return begin, begin + _DAY
        if self.period == "month":
            return begin, (begin + 31 * _DAY).replace(day=1)
        days = [begin + step * _DAY for step in range(len(self.days or WEEKDAYS))]
        open_days = [day for day in days if self.days is None or day not in calendar.closed]
        return (open_days[0], open_days[-1] + _DAY) if open_days else (begin, begin)


def _read_window(value: Any) -> Any:
    words = ("all_pending", "since_previous")
    if isinstance(value, str):
        check_word(value, allowed=words)
    elif not isinstance(value, (Mapping, Period)):
        raise ValueError(f"must be {', '.join(words)} or a period such as {{period: week, days: mon-fri}}")  # noqa: TRY004  # pydantic reports only ValueError
    return value


WindowRule = Annotated[Literal["all_pending", "since_previous"] | Period, BeforeValidator(_read_window)]
"""The key `select.window`."""


def window_of(
    rule: Literal["all_pending", "since_previous"] | Period,
    departs_at: datetime,
    *,
    zone: str,
    calendar: Calendar | None,
) -> Window:
    """Return the window of a departure.

    Args:
        rule: the batch's `select.window`.
        departs_at: the timetable's instant, or the moment of the trigger by hand; aware.
        zone: the schedule's zone.
        calendar: the schedule's calendar.
    """
    if isinstance(rule, Period):
        return rule.window(departs_at, zone=time_zone(zone), calendar=calendar or PLAIN)
    return Window(begins=None, ends=departs_at if rule == "since_previous" else None)
