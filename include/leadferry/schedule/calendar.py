"""Which days a recipient works: weekends, holidays, half days, business hours, blackouts, the fiscal year.

A calendar holds plain dates. Where they came from (the holidays of a country, an exchange, a file) was resolved when
the configuration was read, so that the scheduler needs no file, no package and no network to ask it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from leadferry.schedule.clock import WEEKDAYS, Clock, Weekday, spoken, write_clock
from leadferry.schedule.fiscal import FiscalYear

_DAY = timedelta(days=1)

LONGEST_CLOSURE = 400
"""Days after which the search for an open day is given up."""


def _write_wall(value: datetime) -> str:
    return value.isoformat(timespec="minutes")


Wall = Annotated[datetime, PlainSerializer(_write_wall, return_type=str)]
"""A local date and time without a zone, such as 2026-12-31T18:00."""


class Blackout(BaseModel):
    """A time in which nothing departs; what is due in it departs at its end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    starts: Wall | Clock = Field(description="2026-12-31T18:00, or a time of day such as 02:00.")
    ends: Wall | Clock = Field(description="First moment at which departures go again.")
    on: tuple[Weekday, ...] | None = Field(
        default=None,
        description="With times of day: the weekdays on which it starts; every day when left out.",
    )
    reason: str = Field(default="blackout", min_length=1)

    @model_validator(mode="after")
    def _ends_fit(self) -> Self:
        one_off = isinstance(self.starts, datetime)
        if one_off is not isinstance(self.ends, datetime):
            raise ValueError("starts and ends must both be times of day, or both dates with a time")
        if isinstance(self.starts, datetime) and isinstance(self.ends, datetime):
            if self.starts.tzinfo or self.ends.tzinfo:
                raise ValueError("starts and ends are local times; leave the zone out")
            if self.ends <= self.starts:
                raise ValueError("ends must be later than starts")
        elif self.starts == self.ends:
            raise ValueError("starts and ends are the same time of day")
        if one_off and self.on is not None:
            raise ValueError("on goes with times of day only")
        if self.on is not None and not self.on:
            raise ValueError("on needs at least one weekday")
        return self

    def around(self, wall: datetime, *, lead: timedelta = timedelta()) -> tuple[datetime, datetime] | None:
        """Return begin and end of the blackout that a local time falls into; None outside.

        Args:
            wall: local time without a zone.
            lead: how much earlier the blackout counts, for departures that are delayed by that much afterwards.
        """
        if isinstance(self.starts, datetime) and isinstance(self.ends, datetime):
            return (self.starts, self.ends) if self.starts - lead <= wall < self.ends else None
        for back in (0, 1, -1):
            found = self._on_day(wall.date() - back * _DAY)
            if found and found[0] - lead <= wall < found[1]:
                return found
        return None

    def __str__(self) -> str:
        """Say when it is: `from 21:00 to 23:45 on sat and sun (backup)`, `from 2026-12-31 18:00 to 2027-01-01 08:00 (closing)`."""
        written = "%H:%M" if isinstance(self.starts, time) else "%Y-%m-%d %H:%M"
        days = f" on {spoken(list(self.on))}" if self.on else ""
        return f"from {self.starts:{written}} to {self.ends:{written}}{days} ({self.reason})"

    def _on_day(self, day: date) -> tuple[datetime, datetime] | None:
        if not isinstance(self.starts, time) or not isinstance(self.ends, time):
            return None
        if self.on is not None and WEEKDAYS[day.weekday()] not in self.on:
            return None
        last = day if self.starts < self.ends else day + _DAY
        return datetime.combine(day, self.starts), datetime.combine(last, self.ends)


class Hours(BaseModel):
    """The time of day in which deliveries are welcome."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    opens: Clock
    closes: Clock

    @model_validator(mode="after")
    def _opens_first(self) -> Self:
        if self.closes <= self.opens:
            raise ValueError("closes must be later than opens")
        return self


class Calendar(BaseModel):
    """One calendar of `config/calendars/`, resolved to plain dates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    weekend: tuple[Weekday, ...] = ("sat", "sun")
    closed: dict[date, str] = {}
    """Closed days besides the weekend, each with its reason."""
    opened: tuple[date, ...] = ()
    """Days that are open although they fall on a weekend."""
    half_days: dict[date, Clock] = {}
    """Days on which departures go no later than this."""
    hours: Hours | None = None
    blackouts: tuple[Blackout, ...] = ()
    fiscal: FiscalYear = FiscalYear()
    known_until: date | None = None
    """After this day only the weekend is known; None when there is nothing else to know."""

    @model_validator(mode="after")
    def _blackouts_end(self) -> Self:
        why = self.why_never()
        if why is not None:
            raise ValueError(why)
        return self

    def why_never(self, *, lead: timedelta = timedelta()) -> str | None:
        """Say why no week has a time at which anything goes; None when it has one.

        Args:
            lead: how much earlier the blackouts count, for departures that are delayed by that much afterwards.
        """
        repeated = [one for one in self.blackouts if isinstance(one.starts, time)]
        if not repeated:
            return None
        usual = self.model_copy(update={"blackouts": tuple(repeated)})
        week = [datetime(2024, 1, 1) + number * _DAY for number in range(7)]  # noqa: DTZ001  # any week will do
        ends = usual.postponed(week[0], lead=lead)
        if ends and ends[0] - week[0] > timedelta(weeks=2):
            return "the blackouts leave no time of the week"
        worked = [day.date() for day in week if WEEKDAYS[day.weekday()] not in self.weekend]
        if self.hours and worked and not any(usual.has_time_on(day, self.hours, lead=lead) for day in worked):
            return "the blackouts leave no time of the business hours"
        return None

    def has_time_on(self, day: date, hours: Hours, *, lead: timedelta = timedelta()) -> bool:
        """Whether the blackouts leave any time of the hours on a day; for `lead` see `why_never`."""
        opens = datetime.combine(day, hours.opens)
        found = self.postponed(opens, lead=lead)
        return found is None or found[0] <= datetime.combine(day, hours.closes)

    @cached_property
    def _weekend(self) -> frozenset[int]:
        return frozenset(WEEKDAYS.index(name) for name in self.weekend)

    @cached_property
    def _opened(self) -> frozenset[date]:
        return frozenset(self.opened)

    def is_weekend(self, day: date) -> bool:
        """Whether the day falls on the weekend and is not opened."""
        return day.weekday() in self._weekend and day not in self._opened

    def why_closed(self, day: date) -> str | None:
        """Return why nobody works on this day; None when it is open."""
        return self.closed.get(day) or ("weekend" if self.is_weekend(day) else None)

    def is_open(self, day: date) -> bool:
        """Whether this is a business day."""
        return day not in self.closed and not self.is_weekend(day)

    def nearest_open(self, day: date, *, step: Literal[-1, 1]) -> date | None:
        """Return the day itself when it is open, else the first open one after (1) or before (-1) it.

        None when there is none within `LONGEST_CLOSURE` days.
        """
        for _ in range(LONGEST_CLOSURE):
            if self.is_open(day):
                return day
            if not date.min < day < date.max:
                break
            day += step * _DAY
        return None

    def closes_at(self, day: date) -> time | None:
        """Return the latest time of day of a departure, from the half days."""
        return self.half_days.get(day)

    def postponed(self, wall: datetime, *, lead: timedelta = timedelta()) -> tuple[datetime, str] | None:
        """Return when a departure that falls into a blackout goes instead, and why; None outside of all."""
        moved, reasons = wall, []
        while found := next(self._blackouts_around(moved, lead=lead), None):
            moved = found[1]
            reasons.append(found[2])
            if len(reasons) > LONGEST_CLOSURE:
                break
        return (moved, spoken(list(dict.fromkeys(reasons)))) if reasons else None

    def _blackouts_around(
        self, wall: datetime, *, lead: timedelta
    ) -> Iterator[tuple[datetime, datetime, str]]:
        for one in self.blackouts:
            found = one.around(wall, lead=lead)
            if found:
                yield (*found, one.reason)

    def __str__(self) -> str:
        return self.id


PLAIN = Calendar(id="monday to friday")
"""What counts as a business day without a calendar: no holidays, weekend on Saturday and Sunday."""


def told_hours(hours: Hours) -> str:
    """Say business hours: `09:00 to 17:00`."""
    return f"{write_clock(hours.opens)} to {write_clock(hours.closes)}"
