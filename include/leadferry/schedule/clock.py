"""Times of day and days of the week as people write them."""

from __future__ import annotations

import difflib
import re
from datetime import time
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
"""In the order of `datetime.date.weekday()`: Monday is 0."""

_CLOCK = r"^([01]\d|2[0-3]):[0-5]\d$"


def _parse_clock(value: Any) -> Any:
    if isinstance(value, time):
        return value
    if isinstance(value, str) and re.fullmatch(_CLOCK, value):
        return time.fromisoformat(value)
    if value == "24:00":
        raise ValueError("24:00 is 00:00 of the next day; write 00:00 and that day")
    raise ValueError('must be a time of day from 00:00 to 23:59 with two digits each, such as "09:00"')


def write_clock(value: time) -> str:
    """Write a time of day as a batch file has it: `09:00`."""
    return value.strftime("%H:%M")


Clock = Annotated[
    time,
    BeforeValidator(_parse_clock, json_schema_input_type=Annotated[str, Field(pattern=_CLOCK)]),
    PlainSerializer(write_clock, return_type=str),
]
"""A local wall-clock time, hours and minutes: `09:00`."""


def check_word(word: Any, *, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is not in the list, with the one that was probably meant.

    Raises:
        ValueError: names what is allowed.
    """
    if word in allowed:
        return
    near = difflib.get_close_matches(str(word).casefold(), allowed, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{word!r} is not one of {', '.join(allowed)}{hint}")


def spoken(words: list[str]) -> str:
    """Join words as one would say them: `mon, thu and sat`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
