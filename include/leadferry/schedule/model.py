"""The key `schedule` of a batch file: the word `manual`, or times of day and the days they apply to."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    TypeAdapter,
    model_validator,
)

from leadferry.schedule.calendar import PLAIN, Calendar
from leadferry.schedule.clock import WEEKDAYS, Clock, Weekday, spoken, write_clock
from leadferry.schedule.days import Dates, Days, PeriodDays, Recurrence, days_between, say_days, weekdays_of
from leadferry.schedule.recurrence import cron_days, parse_cron
from leadferry.units import Duration, told_duration
from leadferry.zones import Zone

__all__ = [
    "WEEKDAYS",
    "AssetName",
    "Clock",
    "Cron",
    "Every",
    "Hourly",
    "OnAsset",
    "Schedule",
    "Scheduled",
    "Timed",
    "Weekday",
]

Policy = Literal["skip", "previous", "next", "deliver"]
"""What happens to a departure on a closed day."""

Missed = Literal["combine", "each", "skip"]

_SPOKEN_TIMES = 8
"""How many times of day are named when a schedule is said aloud; of more, their number and the span."""

_SPOKEN_LETTERS = 300
"""How much of a rule or a cron expression is said aloud; Airflow keeps no more than 1000 characters of all."""

_LONGEST_AHEAD = timedelta(hours=12)
_LONGEST_SPREAD = timedelta(hours=12)
_DAY_MINUTES = 24 * 60
_DAY = timedelta(days=1)


def _check_calendar(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"{value!r} was not found among the calendars")  # noqa: TRY004  # pydantic reports only ValueError
    return value


CalendarName = Annotated[
    Calendar,
    BeforeValidator(_check_calendar, json_schema_input_type=str),
]
"""Written as the name of a file in `config/calendars/`; the loader puts what it holds in its place."""


def _check_asset(name: str) -> str:
    if not name.strip() or name in ("self", "context"):
        raise ValueError("must be a name that Airflow allows: not blank, not self, not context")
    return name


AssetName = Annotated[str, Field(min_length=1, max_length=1500), AfterValidator(_check_asset)]
"""Name of an Airflow asset; Airflow refuses others when the DAG is built, and all DAGs of that file with it."""


class Scheduled(BaseModel):
    """What every schedule with a timetable says, however it chooses its days and times."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: str | None = Field(
        default=None,
        description="Start from this template: a built-in one, or a file in config/schedules without .yaml.",
    )
    timezone: Zone | None = Field(
        default=None,
        description="Zone of the times and days; the batch's (so the recipient's) when left out.",
    )
    calendar: CalendarName | None = Field(
        default=None, description="Name of a file in config/calendars, without .yaml."
    )
    on_closed_day: Policy | None = Field(
        default=None,
        description="A departure on a closed day is left out (skip, the default with a calendar), goes on the open "
        "day before or after (previous, next), or goes all the same (deliver, the default without one).",
    )
    on_weekend: Policy | None = Field(
        default=None, description="The same for the days of the weekend, when it differs from on_closed_day."
    )
    missed: Missed = Field(
        default="combine",
        description="Departures missed while the scheduler was down or the DAG paused: one run for all (combine), "
        "one run for each (each), or none, leads go with the next departure (skip).",
    )
    on_asset: AssetName | None = Field(
        default=None, description="Also depart whenever this Airflow asset is updated."
    )
    generate_before: Annotated[Duration, Field(gt=timedelta(), le=_LONGEST_AHEAD)] | None = Field(
        default=None,
        description="Take the leads and make the files this much before the departure; they are sent at its time.",
    )
    spread: Annotated[Duration, Field(gt=timedelta(), le=_LONGEST_SPREAD)] | None = Field(
        default=None,
        description="Depart up to this much later, always the same for one batch, so that many batches due at the "
        "same minute do not all start at once.",
    )

    @property
    def calendar_or_plain(self) -> Calendar:
        """The calendar, or Monday to Friday without holidays."""
        return self.calendar or PLAIN

    def policy_on(self, *, weekend: bool) -> Policy:
        """Return what happens to a departure on a closed day."""
        general: Policy = self.on_closed_day or ("skip" if self.calendar else "deliver")
        return (self.on_weekend or general) if weekend else general

    def offset(self, batch_id: str) -> timedelta:
        """Return how much later than the schedule says a batch departs: a share of `spread`, in whole seconds."""
        if self.spread is None:
            return timedelta()
        drawn = int.from_bytes(hashlib.sha256(batch_id.encode()).digest()[:8])
        return timedelta(seconds=drawn % int(self.spread.total_seconds()))

    def said_with_calendar(self, words: str) -> str:
        """Add calendar and spread to the words for days and times."""
        parts = [words]
        if self.calendar:
            parts.append(f"calendar {self.calendar}")
        if self.generate_before:
            parts.append(f"built {told_duration(self.generate_before)} ahead")
        if self.on_asset:
            parts.append(f"and when the asset {self.on_asset} is updated")
        if self.spread:
            parts.append("spread")
        return ", ".join(parts)


_LONGEST_DAYS = 2500
"""Most days between two departures; less than the horizon after which a schedule counts as ended."""

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EVERY = r"(\d+)\s*(minute|hour|day|week|m|h|d|w)s?"


class Every(BaseModel):
    """A distance between departures: `15 minutes`, `2 hours`, `3 days`, `2 weeks`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(ge=1)
    unit: Literal["minutes", "hours", "days", "weeks"]

    @property
    def within_a_day(self) -> bool:
        """Whether the distance is counted on the clock, not on the calendar."""
        return self.unit in ("minutes", "hours")

    def __str__(self) -> str:
        return f"{self.count} {self.unit if self.count > 1 else self.unit[:-1]}"


def _parse_every(value: Any) -> Any:
    if isinstance(value, Every):
        return value
    found = re.fullmatch(_EVERY, value.strip().casefold()) if isinstance(value, str) else None
    if found is None or int(found[1]) < 1:
        raise ValueError("must be a number and a unit: 15 minutes, 2 hours, 3 days or 2 weeks")
    every = Every(count=int(found[1]), unit=_UNITS[found[2][0]])
    if every.within_a_day and every.count * (60 if every.unit == "hours" else 1) >= _DAY_MINUTES:
        raise ValueError("minutes and hours must be less than a day; write it in days")
    if not every.within_a_day and every.count * (7 if every.unit == "weeks" else 1) > _LONGEST_DAYS:
        raise ValueError(f"must be at most {_LONGEST_DAYS} days")
    return every


Interval = Annotated[
    Every, BeforeValidator(_parse_every, json_schema_input_type=str), PlainSerializer(str, return_type=str)
]


class Hourly(BaseModel):
    """Minutes past the hour, every hour or every so many hours from midnight on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minute: Annotated[
        tuple[Annotated[int, Field(ge=0, le=59)], ...],
        BeforeValidator(
            lambda value: [value] if isinstance(value, int) else value, json_schema_input_type=int | list[int]
        ),
        Field(min_length=1),
    ] = Field(default=(0,), description="Minutes past the hour: 17, or a list such as [0, 30].")
    every: int = Field(default=1, ge=1, le=23, description="Every so many hours, counted from midnight.")


class Timed(Scheduled):
    """Departures at wall-clock times, on chosen days."""

    at: tuple[Clock, ...] | None = Field(
        default=None,
        description='Local wall-clock times, such as ["09:00", "17:30"].',
        json_schema_extra={"minItems": 1},
    )
    hourly: Hourly | None = Field(default=None, description="At minutes past the hour: {minute: 17}.")
    every: Interval | None = Field(
        default=None,
        description="15 minutes or 2 hours (within the day, counted from midnight or from `between`); "
        "3 days or 2 weeks (counted from `starting`, with `at`).",
    )
    between: Annotated[tuple[Clock, Clock], Field(description="First and last time of the day.")] | None = (
        Field(
            default=None,
            description='With hourly or every: only from the first to the last, such as ["08:00", "18:00"].',
        )
    )
    starting: date | None = Field(
        default=None,
        description="First day of `every` in days, or a day in the first week of `every` in weeks.",
    )
    on: Days = Field(
        default="days",
        description="days (every day), weekdays (Monday to Friday), weekends, business_days, a list such as "
        "[mon, thu], or days of a period such as {month: last friday}, {dates: […]} or {rrule: …}.",
    )

    @property
    def weekdays(self) -> frozenset[int]:
        """The chosen days of the week, as `datetime.date.weekday()` counts them; all for days of a period."""
        return (
            frozenset(range(7))
            if isinstance(self.on, PeriodDays | Dates | Recurrence)
            else weekdays_of(self.on)
        )

    @property
    def elapsed(self) -> bool:
        """Whether departures follow each other by time passed, so that an hour that comes twice counts twice."""
        return self.hourly is not None or (self.every is not None and self.every.within_a_day)

    @cached_property
    def times(self) -> tuple[time, ...]:
        """The local wall-clock times of a day of departure, in order."""
        first, last = self.between or (time(0), time(23, 59))
        if self.hourly:
            found = (
                time(hour, minute)
                for hour in range(0, 24, self.hourly.every)
                for minute in self.hourly.minute
            )
            return tuple(sorted(at for at in found if first <= at <= last))
        if self.every and self.every.within_a_day and self.at is None:
            step = self.every.count * (60 if self.every.unit == "hours" else 1)
            stops = range(first.hour * 60 + first.minute, last.hour * 60 + last.minute + 1, step)
            return tuple(time(minute // 60, minute % 60) for minute in stops)
        return tuple(sorted(self.at or ()))

    def days_between(self, first: date, last: date) -> Iterator[date]:
        """Yield the local calendar days that the schedule names, closed ones included, both ends included."""
        days = days_between(self.on, first, last, calendar=self.calendar_or_plain)
        if self.every is None or self.every.within_a_day or self.starting is None:
            return days
        if self.every.unit == "days":
            return _every_days(self.starting, self.every.count, first, last)
        monday = self.starting - self.starting.weekday() * _DAY
        weeks = self.every.count
        return (day for day in days if day >= self.starting and ((day - monday).days // 7) % weeks == 0)

    def why_named(self, day: date) -> str:
        """Say why a day that `days_between` yields is not quite the one that is written; empty when it is."""
        return (
            self.on.why_short(day, calendar=self.calendar_or_plain) if isinstance(self.on, PeriodDays) else ""
        )

    @property
    def names_open_days_only(self) -> bool:
        """Whether every day is named that the calendar does not close, so that only a holiday makes a gap."""
        return self.on == "business_days" and (self.every is None or self.every.within_a_day)

    def __str__(self) -> str:
        """Say it as one would aloud: `weekdays at 09:00 and 17:30`."""
        return self.said_with_calendar(self._aloud())

    def _aloud(self) -> str:
        days = _cut(say_days(self.on))
        if self.every and not self.every.within_a_day:
            days = f"every {self.every}" + (f" on {days}" if self.every.unit == "weeks" else "")
        if self.elapsed:
            return self._aloud_within_the_day(days)
        times = [write_clock(at) for at in self.times]
        if len(times) > _SPOKEN_TIMES:
            return f"{days}, {len(times)} times from {times[0]} to {times[-1]}"
        return f"{days} at {spoken(times)}"

    def _aloud_within_the_day(self, days: str) -> str:
        if self.hourly:
            minutes = spoken([f":{minute:02}" for minute in sorted(self.hourly.minute)])
            step = "hour" if self.hourly.every == 1 else f"{self.hourly.every} hours"
            words = f"every {step} at {minutes}"
        else:
            words = f"every {self.every}"
        if self.between:
            words += f" between {write_clock(self.between[0])} and {write_clock(self.between[1])}"
        return words if self.on == "days" else f"{words}, {days}"

    @model_validator(mode="after")
    def _times_differ(self) -> Self:
        if self.at is not None and not self.at:
            raise ValueError("at needs at least one time; a batch without a timetable has `schedule: manual`")
        twice = [at for at, count in Counter(self.at or ()).items() if count > 1]
        if twice:
            raise ValueError(f"{write_clock(twice[0])} stands twice in at")
        return self

    @model_validator(mode="after")
    def _times_are_said_once(self) -> Self:
        within = self.every is not None and self.every.within_a_day
        ways = [self.at is not None, self.hourly is not None, within]
        if sum(ways) == 0:
            raise ValueError('say when: at: ["09:00"], hourly: {minute: 17}, or every: 15 minutes')
        if sum(ways) > 1:
            raise ValueError("at, hourly and every (in minutes or hours) exclude each other")
        if self.between and self.at is not None:
            raise ValueError("between goes with hourly, or with every in minutes or hours")
        if self.between and self.between[1] <= self.between[0]:
            raise ValueError("between must end later than it begins")
        if not self.times:
            raise ValueError("no time of day is left between these two")
        return self

    @model_validator(mode="after")
    def _days_are_said_once(self) -> Self:
        counted = self.every is not None and not self.every.within_a_day
        if counted and self.starting is None:
            raise ValueError("every in days or weeks counts from a day: add starting: 2026-01-05")
        if self.starting is not None and not counted:
            raise ValueError("starting goes with every in days or weeks")
        if counted and self.every and self.every.unit == "days" and self.on != "days":
            raise ValueError("every in days names the days already; leave on out")
        if counted and not isinstance(self.on, str | tuple):
            raise ValueError("every in weeks goes with weekdays, such as on: [fri]")
        if self.every and self.every.unit == "weeks" and self.on == "business_days" and self.calendar is None:
            raise ValueError("on: business_days needs a calendar here")
        return self


def _cut(words: str) -> str:
    return words if len(words) <= _SPOKEN_LETTERS else f"{words[:_SPOKEN_LETTERS]}…"


def _every_days(starting: date, count: int, first: date, last: date) -> Iterator[date]:
    ahead = max((first - starting).days, 0)
    day = starting + -(-ahead // count) * count * _DAY
    while day <= last:
        yield day
        day += count * _DAY


def _check_cron(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('must be a cron expression in quotes, such as "0 9 * * mon-fri"')  # noqa: TRY004  # pydantic reports only ValueError
    parse_cron(value)
    return " ".join(value.split())


class Cron(Scheduled):
    """Departures by a cron expression, read on the local wall clock."""

    cron: Annotated[str, BeforeValidator(_check_cron, json_schema_input_type=str)] = Field(
        description='Minute, hour, day, month, weekday: "0 9 * * mon-fri".'
    )

    @property
    def elapsed(self) -> bool:
        """Whether an hour that comes twice counts twice: as in Vixie cron, when the hour is `*` or a step of it.

        A step that reaches no second hour, such as `*/24`, means a time of day.
        """
        return self.cron.split()[1].startswith("*") and len({at.hour for at in self.times}) > 1

    @cached_property
    def times(self) -> tuple[time, ...]:
        """The local wall-clock times of a day of departure, in order."""
        return parse_cron(self.cron).times

    def days_between(self, first: date, last: date) -> Iterator[date]:
        """Yield the local calendar days that the expression names, both ends included."""
        return cron_days(parse_cron(self.cron).days, first, last)

    def why_named(self, day: date) -> str:  # noqa: ARG002  # asked like `Timed`
        """Return nothing: cron names the days that it means."""
        return ""

    @property
    def names_open_days_only(self) -> bool:
        """Whether closed days are passed over: cron knows no calendar."""
        return False

    def __str__(self) -> str:
        return self.said_with_calendar(_cut(f"cron {self.cron}"))


class OnAsset(Scheduled):
    """Departures whenever an Airflow asset is updated, and at no time of day."""

    on_asset: AssetName = Field(description="Name of the Airflow asset.")

    @model_validator(mode="after")
    def _has_no_times(self) -> Self:
        timed = [name for name in ("spread", "generate_before") if getattr(self, name) is not None]
        if timed:
            raise ValueError(f"{timed[0]} goes with times of departure")
        return self

    def __str__(self) -> str:
        return f"when the asset {self.on_asset} is updated" + (
            f", calendar {self.calendar}" if self.calendar else ""
        )


_TIMES = ("at", "hourly", "every", "template")


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "manual"
    if isinstance(value, OnAsset) or (
        isinstance(value, Mapping)
        and "on_asset" in value
        and not any(value.get(key) for key in (*_TIMES, "cron"))
    ):
        return "asset"
    if isinstance(value, Cron) or (isinstance(value, Mapping) and "cron" in value):
        return "cron"
    return "timed" if isinstance(value, (Mapping, Timed)) else None


Schedule = Annotated[
    Annotated[Literal["manual"], Tag("manual")]
    | Annotated[Timed, Tag("timed")]
    | Annotated[Cron, Tag("cron")]
    | Annotated[OnAsset, Tag("asset")],
    Discriminator(
        _kind,
        custom_error_type="schedule",
        custom_error_message="must be the word manual, or times and days such as {at: ['09:00'], on: weekdays}",
    ),
]
"""When a batch departs: `manual` (only when triggered by hand), times and days, a cron expression, or an asset."""

SCHEDULES: TypeAdapter[Any] = TypeAdapter(Schedule)
"""Reads a schedule back from what was stored of it."""
