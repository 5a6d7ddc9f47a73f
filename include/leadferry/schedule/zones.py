"""Names of time zones: exactly those of the IANA time zone database, the same on every machine.

The list comes from the `tzdata` package rather than from the machine's own files,
which also hold names that must not be used: `localtime` (another zone on every machine), `right/…` (leap seconds).
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from typing import Annotated, Any

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
