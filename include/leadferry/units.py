"""Lengths of time, times of day and numbers of bytes as people write them in batch files."""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_LONGEST = timedelta(days=36500)
"""A hundred years: more is a mistake, and counted from today it would leave what Python's calendar can say."""


def _parse_duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"0*([0-9]{1,15})([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be a number with s, m, h or d behind it, such as 90s, 15m, 2h or 3d")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"must be at most {write_duration(_LONGEST)}")
    return timedelta(seconds=seconds)


def write_duration(value: timedelta) -> str:
    """Write a length of time as a batch file has it: `90s`, `15m`; parts of a second are left out."""
    seconds = int(value.total_seconds())
    sizes = ((86400, "d"), (3600, "h"), (60, "m"))
    return next(
        (f"{seconds // size}{unit}" for size, unit in sizes if seconds and seconds % size == 0), f"{seconds}s"
    )


_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def told_duration(value: timedelta) -> str:
    """Say a length of time to a reader: `30 minutes`, `1 day 4 hours`; parts of a second are left out."""
    left = int(value.total_seconds())
    words = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(words) or "0 seconds"


def told_roughly(value: timedelta) -> str:
    """Say a length of time that was measured: the same, to the minute from one minute on."""
    minute = timedelta(minutes=1)
    return told_duration(value if value < minute else round(value / minute) * minute)


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration, json_schema_input_type=str),
    PlainSerializer(write_duration, return_type=str),
]
"""A length of time as people write it: `90s`, `15m`, `2h`, `3d`."""

MOST_LEADS = 10**12
"""More than anybody has: a greater number is a mistake, and at some size the database cannot count so far."""

_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _parse_size(value: Any) -> Any:
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"(\d+)\s*([A-Za-z]+)", value) if isinstance(value, str) else None
    if found is None or found[2].upper() not in _SIZES:
        raise ValueError("must be a number with B, KB, MB, GB, KiB, MiB or GiB behind it, such as 10MB")
    return int(found[1]) * _SIZES[found[2].upper()]


Size = Annotated[
    int,
    BeforeValidator(_parse_size, json_schema_input_type=str),
    PlainSerializer(lambda size: f"{size}B", return_type=str),
]
"""A number of bytes as people write it: `500KB`, `10MB`, `1GiB`."""

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
