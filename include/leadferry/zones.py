"""Time zones of the IANA database, their names and their rules the same on every machine.

Both come from the `tzdata` package, whose version is pinned, rather than from the machine's own files. Those are of any age,
so that scheduler and workers would disagree about the hour after a country has changed its clocks; and they hold names
that must not be used: `localtime` (another zone on every machine), `right/…` (leap seconds).
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator

_ABBREVIATIONS = {
    "PST": "America/Los_Angeles",
    "PDT": "America/Los_Angeles",
    "MDT": "America/Denver",
    "CST": "America/Chicago",
    "CDT": "America/Chicago",
    "EDT": "America/New_York",
    "BST": "Europe/London",
    "CEST": "Europe/Berlin",
    "IST": "Asia/Kolkata",
    "JST": "Asia/Tokyo",
    "AEST": "Australia/Sydney",
    "AEDT": "Australia/Sydney",
}
"""What people who write an abbreviation that is no zone probably mean; only ever suggested, never assumed."""


class PinnedZone(ZoneInfo):
    """A zone with the rules of the `tzdata` package; copied and pickled by its name, so that it stays one object."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name alone: a zone that was read from a file cannot be pickled otherwise."""
        return time_zone, (self.key,)


@cache
def time_zone(name: str) -> ZoneInfo:
    """Return a zone by the rules of the `tzdata` package; by the machine's own where the package has no such name.

    Every calculation of Leadferry uses this and never `ZoneInfo(name)`, which prefers the machine's files.

    Raises:
        ZoneInfoNotFoundError: a KeyError; nobody knows the zone.
        ValueError: the name cannot be one.
    """
    if name not in zone_names():
        return ZoneInfo(name)
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return PinnedZone.from_file(data, key=name)


def told_moment(moment: datetime, *, zone: str | None = None) -> str:
    """Say an instant to people, on the clock of a batch and in UTC: `Mon 2026-11-23 07:00 EST (12:00 UTC)`.

    Args:
        moment: aware.
        zone: the batch's; the moment's own when left out, so that one in UTC is said in UTC alone.
    """
    local, utc = moment.astimezone(time_zone(zone)) if zone else moment, moment.astimezone(UTC)
    if local.tzname() == "UTC":
        return told_clock(local)
    day = "" if local.date() == utc.date() else f"{utc:%a %Y-%m-%d} "
    return f"{told_clock(local)} ({day}{utc:%H:%M} UTC)"


def told_clock(local: datetime) -> str:
    """Say what the clock of a place shows, and whose clock it is: `Mon 2026-11-23 07:00 EST`, `Mon 2026-11-23 20:00 UTC+08`.

    Args:
        local: aware, in the zone of the place.
    """
    return f"{local:%a %Y-%m-%d %H:%M} {told_zone(local)}"


def told_zone(local: datetime) -> str:
    """Say whose clock an aware moment is on: `EST`, or `UTC+08` where the clock has no abbreviation."""
    name = local.tzname() or ""
    return name if name.isalpha() else f"UTC{name}"


@cache
def zone_names() -> frozenset[str]:
    """Return every name of a time zone that may be written."""
    text = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return frozenset(text.split())


def _check_zone(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be the name of a time zone, such as America/New_York")  # noqa: TRY004  # pydantic reports only ValueError
    if value in zone_names():
        return value
    near = _nearest(value)
    hint = f"; did you mean {near!r}?" if near else "; names look like America/New_York, Asia/Kolkata or UTC"
    raise ValueError(f"{value!r} is no time zone{hint}")


def _nearest(written: str) -> str | None:
    """Return the zone that was probably meant: by abbreviation, by whole name, or by the city alone."""
    if written.upper() in _ABBREVIATIONS:
        return _ABBREVIATIONS[written.upper()]
    folded = written.strip().replace(" ", "_").casefold()
    by_name = {name.casefold(): name for name in sorted(zone_names())}
    by_city = {name.rsplit("/", 1)[-1]: full for name, full in by_name.items()}
    for names in (by_name, by_city):
        found = difflib.get_close_matches(folded, names, n=1, cutoff=0.8)
        if found:
            return names[found[0]]
    return None


Zone = Annotated[str, BeforeValidator(_check_zone, json_schema_input_type=str)]
"""The name of a time zone as the IANA database writes it: `America/New_York`, `Asia/Kolkata`, `UTC`."""
