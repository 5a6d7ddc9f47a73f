"""The key `schedule` of a batch file: the word `manual`, or times of day and the days they apply to."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date, time
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    model_validator,
)

from leadferry.schedule.zones import Zone

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DayGroup = Literal["days", "weekdays", "weekends"]

WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
"""In the order of `datetime.date.weekday()`: Monday is 0."""

_GROUPS: dict[DayGroup, tuple[Weekday, ...]] = {
    "days": WEEKDAYS,
    "weekdays": WEEKDAYS[:5],
    "weekends": WEEKDAYS[5:],
}


_CLOCK = r"^([01]\d|2[0-3]):[0-5]\d$"


_SPOKEN_TIMES = 8
"""How many times of day are named when a schedule is said aloud; of more, their number and the span."""


def _parse_clock(value: Any) -> Any:
    if isinstance(value, time):
        return value
    if isinstance(value, str) and re.fullmatch(_CLOCK, value):
        return time.fromisoformat(value)
    if value == "24:00":
        raise ValueError("24:00 is 00:00 of the next day; write 00:00 and that day")
    raise ValueError('must be a time of day from 00:00 to 23:59 with two digits each, such as "09:00"')


def _write_clock(value: time) -> str:
    return value.strftime("%H:%M")


Clock = Annotated[
    time,
    BeforeValidator(_parse_clock, json_schema_input_type=Annotated[str, Field(pattern=_CLOCK)]),
    PlainSerializer(_write_clock, return_type=str),
]
"""A local wall-clock time, hours and minutes: `09:00`."""


def _check_days(value: Any) -> Any:
    """Refuse what is neither a group nor a list of weekdays, with one sentence instead of one per alternative."""
    if isinstance(value, str):
        _check_word(value, allowed=(*_GROUPS, *WEEKDAYS))
        if value in WEEKDAYS:
            raise ValueError(f"a single weekday stands in brackets: [{value}]")
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("must be days, weekdays, weekends, or a list of weekdays such as [mon, thu]")
    for day in value:
        _check_word(day, allowed=WEEKDAYS)
        if list(value).count(day) > 1:
            raise ValueError(f"{day} stands twice")
    return value


def _check_word(word: Any, *, allowed: tuple[str, ...]) -> None:
    if word in allowed:
        return
    near = difflib.get_close_matches(str(word).casefold(), allowed, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{word!r} is not one of {', '.join(allowed)}{hint}")


Days = Annotated[DayGroup | tuple[Weekday, ...], BeforeValidator(_check_days)]
"""The days on which a batch departs, in the schedule's own time zone."""


class Timed(BaseModel):
    """Departures at wall-clock times, on chosen days of the week."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: tuple[Clock, ...] = Field(
        description='Local wall-clock times, such as ["09:00", "17:30"].', json_schema_extra={"minItems": 1}
    )
    on: Days = Field(
        default="days",
        description="days (every day), weekdays (Monday to Friday), weekends, or a list such as [mon, thu].",
    )
    timezone: Zone | None = Field(
        default=None,
        description="Zone of the times and days; the batch's (so the recipient's) when left out.",
    )

    @property
    def weekdays(self) -> frozenset[int]:
        """The chosen days of the week, as `datetime.date.weekday()` counts them."""
        names = _GROUPS[self.on] if isinstance(self.on, str) else self.on
        return frozenset(WEEKDAYS.index(name) for name in names)

    def departs_on(self, day: date) -> bool:
        """Whether the batch departs on this local calendar day."""
        return day.weekday() in self.weekdays

    def __str__(self) -> str:
        """Say it as one would aloud: `weekdays at 09:00 and 17:30`."""
        days: str
        if isinstance(self.on, str):
            days = "every day" if self.on == "days" else self.on
        else:
            days = _spoken(sorted(self.on, key=WEEKDAYS.index))
        times = [_write_clock(at) for at in sorted(self.at)]
        if len(times) > _SPOKEN_TIMES:
            return f"{days}, {len(times)} times from {times[0]} to {times[-1]}"
        return f"{days} at {_spoken(times)}"

    @model_validator(mode="after")
    def _times_differ(self) -> Self:
        if not self.at:
            raise ValueError("at needs at least one time; a batch without a timetable has `schedule: manual`")
        twice = [at for at, count in Counter(self.at).items() if count > 1]
        if twice:
            raise ValueError(f"{_write_clock(twice[0])} stands twice in at")
        return self


def _spoken(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "manual"
    return "timed" if isinstance(value, (Mapping, Timed)) else None


Schedule = Annotated[
    Annotated[Literal["manual"], Tag("manual")] | Annotated[Timed, Tag("timed")],
    Discriminator(
        _kind,
        custom_error_type="schedule",
        custom_error_message="must be the word manual, or times and days such as {at: ['09:00'], on: weekdays}",
    ),
]
"""When a batch departs: `manual` (only when triggered by hand), or a mapping with `at` and `on`."""
