"""Dates from ICS files, as calendar programs export them: series, their exceptions, moved and cancelled events.

An event closes days, not hours. Which days a time means depends on a clock: its own (`TZID`, or none at all), or, for times
in UTC, the zone of the calendar, without which a whole day of another country would be told as two.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import takewhile
from pathlib import Path
from typing import Any

from leadferry.schedule.date_files import DateFileError, opened
from leadferry.schedule.holiday_lists import DatesFound
from leadferry.schedule.recurrence import days_of_rule
from leadferry.zones import time_zone, zone_names

_LONGEST_EVENT = timedelta(days=366)
_READ = {"DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "SUMMARY"}
"""What is read of an event; a fault in anything else does not matter."""
_FAULTS = (ValueError, KeyError, TypeError, AttributeError, IndexError)
_DAY = timedelta(days=1)
_UTC_NAMES = {"UTC", "Etc/UTC"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """How a file is read."""

    years: range
    zone: str | None
    """In which times in UTC are meant."""


def ics_dates(file: Path, *, years: range, zone: str | None = None) -> DatesFound:
    """Return the days of all events in an ICS file; recurring ones within the years.

    Cancelled events are left out; an instance of a series that was moved closes its new days only.

    Args:
        file: UTF-8, with or without a byte order mark.
        years: for which series are computed.
        zone: in which times in UTC are meant; what the file says (`X-WR-TIMEZONE`) when left out.

    Raises:
        DateFileError: an event cannot be understood; says the line, or the event's first one when no single line is to blame.
    """
    with opened(file) as lines:
        text = list(lines)
    reading = _Reading(years=years, zone=zone or _zone_of(text))
    events = [(_read(line, block, reading), line, block) for line, block in _events(text)]
    replaced = _replaced(event for event, _, _ in events)
    closed: dict[date, str] = {}
    kept = [one for one in events if not _is_cancelled(one[0])]
    for event, line, block in kept:
        gone = () if "RECURRENCE-ID" in event else replaced.get(str(event.get("UID", "")), ())
        with _told_with_line(line, block, reading):
            days = _days_of(event, reading, gone=gone)
        closed.update(dict.fromkeys(days, str(event.get("SUMMARY", file.stem))))
    recurs = any("RRULE" in event for event, _, _ in kept)
    until = date(years[-1], 12, 31) if recurs else max(closed, default=None)
    return DatesFound(closed=dict(sorted(closed.items())), known_until=until)


def _zone_of(lines: list[str]) -> str | None:
    """Return the zone that the file names for itself, as Google's exports do."""
    for line in lines:
        name, _, value = line.strip().partition(":")
        if name.partition(";")[0].upper() == "X-WR-TIMEZONE" and value in zone_names():
            return value
    return None


def _read(line: int, block: str, reading: _Reading) -> Any:
    from icalendar import Event

    with _told_with_line(line, block, reading):
        event = Event.from_ical(block)
        if "RECURRENCE-ID" in event and event["RECURRENCE-ID"].params.get("RANGE"):
            raise ValueError("it moves all that follow (RANGE); make these a series of their own")
        return event


@contextmanager
def _told_with_line(line: int, block: str, reading: _Reading) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        at = line + _broken_line(block, reading)
        raise DateFileError(f"this event cannot be understood: {error}", line=at) from None


def _is_cancelled(event: Any) -> bool:
    return str(event.get("STATUS", "")).upper() == "CANCELLED"


def _replaced(events: Iterable[Any]) -> dict[str, list[Any]]:
    """Return by UID which instances of a series stand in the file on their own, moved or cancelled."""
    found = defaultdict(list)
    for event in events:
        if "UID" in event and isinstance(getattr(event.get("RECURRENCE-ID"), "dt", None), date):
            found[str(event["UID"])].append(event["RECURRENCE-ID"].dt)
    return found


def _events(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield each event with the number of its first line."""
    if not any(line.strip().upper() == "BEGIN:VCALENDAR" for line in lines):
        raise DateFileError("is no ICS file: BEGIN:VCALENDAR is missing", line=1)
    begun: int | None = None
    for number, line in enumerate(lines, start=1):
        word = line.strip().upper()
        if word == "BEGIN:VEVENT":
            if begun is not None:
                raise DateFileError("this event does not end before the next one begins", line=begun)
            begun = number
        elif word == "END:VEVENT":
            if begun is None:
                raise DateFileError("an event ends here that did not begin", line=number)
            yield begun, "".join(f"{one.rstrip()}\r\n" for one in lines[begun - 1 : number])
            begun = None
    if begun is not None:
        raise DateFileError("this event does not end: END:VEVENT is missing", line=begun)


def _days_of(event: Any, reading: _Reading, *, gone: Iterable[Any] = ()) -> list[date]:
    """Return the days that an event closes.

    Args:
        event: of icalendar.
        reading: years and zone.
        gone: instances of the series that stand on their own.

    Raises:
        Exception: one of `_FAULTS`; the foreign ones are those of icalendar and dateutil.
    """
    broken = [told for name, told in event.errors if name is None or name in _READ]
    if broken:
        raise ValueError(broken[0])
    if "DTSTART" not in event:
        raise ValueError("DTSTART is missing")
    first = event.decoded("DTSTART")
    clock = _clock(first)
    if clock is UTC and reading.zone is None:
        told = "its times are in UTC, and which days they mean depends on a zone; write `timezone: Europe/Berlin`, or yours, beside `file`"
        raise ValueError(told)
    start, length = _own(first, clock), _length(event, first, clock)
    without = {_own(one, clock).date() for one in [*_listed(event, "EXDATE"), *gone]}
    starts = _recurring(event, start, clock, years=reading.years) if "RRULE" in event else {start}
    starts |= {_own(one, clock) for one in _listed(event, "RDATE")}
    days = [
        day
        for one in sorted(starts)
        if one.date() not in without
        for day in _covered(one, one + length, zone=reading.zone if clock is UTC else None)
    ]
    return [day for day in days if day.year in reading.years] if "RRULE" in event else days


def _broken_line(block: str, reading: _Reading) -> int:
    """Return which line of an event cannot be understood, counted from its first one; 0 when no line is wrong by itself."""
    from icalendar import Event

    lines = block.splitlines()
    begins = [n for n, one in enumerate(lines) if one[:1] not in {" ", "\t"}]
    parts = {n: lines[n:following] for n, following in zip(begins, [*begins[1:], len(lines)], strict=True)}
    named = {n: re.split("[:;]", lines[n], maxsplit=1)[0].upper() for n in begins}
    first_days = [n for n in begins if named[n] == "DTSTART"]
    others = [n for n in begins if n not in first_days and named[n] not in {"BEGIN", "END"}]
    for number in [*first_days, *others] if first_days else []:
        told = parts[number] if number in first_days else [*parts[first_days[0]], *parts[number]]
        try:
            alone = "".join(f"{one}\r\n" for one in ["BEGIN:VEVENT", *told, "END:VEVENT"])
            _days_of(Event.from_ical(alone), reading)
        except _FAULTS:
            return number
    return 0


def _clock(moment: Any) -> tzinfo | None:
    """Return the clock that an event goes by; None for whole days and for times of no zone."""
    zone = moment.tzinfo if isinstance(moment, datetime) else None
    if zone is None:
        return None
    name = str(zone)
    if name in _UTC_NAMES:
        return UTC
    return time_zone(name) if name in zone_names() else zone


def _own(moment: Any, clock: tzinfo | None) -> datetime:
    """Return a date or time as an event's clock shows it, without a zone."""
    if not isinstance(moment, date):
        raise ValueError("its date cannot be read")  # noqa: TRY004  # told like every other fault of the file
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time())
    aware = clock is not None and moment.tzinfo is not None
    shown: datetime = moment.astimezone(clock) if aware else moment
    return shown.replace(tzinfo=None)


def _length(event: Any, first: Any, clock: tzinfo | None) -> timedelta:
    """Return how long an event lasts on its own clock."""
    end = event.decoded("DTEND") if "DTEND" in event else None
    if end is None and "DURATION" in event:
        end = first + event.decoded("DURATION")
    if end is None:
        return timedelta()
    length = _own(end, clock) - _own(first, clock)
    if length < timedelta():
        raise ValueError("it ends before it begins")
    if length > _LONGEST_EVENT:
        raise ValueError("it lasts longer than a year")
    return length


def _covered(start: datetime, end: datetime, *, zone: str | None) -> list[date]:
    """Return the days that a span touches, its end not included; with a zone, the span is in UTC."""
    if zone is not None:
        start, end = (one.replace(tzinfo=UTC).astimezone(time_zone(zone)) for one in (start, end))
    first, last = start.date(), end.date()
    if end.time() != time():
        last += _DAY
    return [first + number * _DAY for number in range(max((last - first).days, 1))]


def _recurring(event: Any, start: datetime, clock: tzinfo | None, *, years: range) -> set[datetime]:
    rule = event["RRULE"].to_ical().decode()
    for until in event["RRULE"].get("UNTIL", []):
        last = _own(until, clock)
        same_clock = isinstance(until, datetime) and (clock is not None or until.tzinfo is None)
        if same_clock and last.time() < start.time():
            last -= _DAY
        rule = re.sub(r"UNTIL=[^;]*", f"UNTIL={last:%Y%m%d}", rule)
    begin, end = date(years[0], 1, 1) - _DAY, date(years[-1], 12, 31) + _DAY
    days = takewhile(lambda day: day <= end, days_of_rule(rule, start.date()))
    return {datetime.combine(day, start.time()) for day in days if day >= begin}


def _listed(event: Any, name: str) -> list[Any]:
    """Return the dates of EXDATE or RDATE, which may stand several times."""
    listed = event.get(name, [])
    groups = listed if isinstance(listed, list) else [listed]
    return [one.dt for group in groups for one in group.dts]
