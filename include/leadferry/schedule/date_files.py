"""Dates from files that somebody else keeps: ICS (what calendar programs export) and CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

from leadferry.schedule.holiday_lists import DatesFound
from leadferry.schedule.recurrence import days_of_rule

_LONGEST_EVENT = 366
_READ = {"DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "SUMMARY"}
"""What is read of an event; a fault in anything else does not matter."""
_FAULTS = (ValueError, KeyError, TypeError, AttributeError, IndexError)
_DAY = timedelta(days=1)


class DateFileError(ValueError):
    """A file of dates cannot be read; says the line."""

    def __init__(self, text: str, *, line: int) -> None:
        super().__init__(text)
        self.text = text
        self.line = line
        self.file = ""
        """Its name; filled in by whoever knows it."""


def csv_dates(file: Path, *, column: str, name_column: str | None, date_format: str | None) -> DatesFound:
    """Return the dates in a column of a CSV file with a header.

    Args:
        file: UTF-8, with or without a byte order mark.
        column: holds the dates.
        name_column: holds what the days are called; `name` when the file has such a column.
        date_format: as in strptime; ISO dates such as 2026-12-25 when left out.

    Raises:
        DateFileError: a column is missing or a date cannot be read; says the line.
    """
    closed: dict[date, str] = {}
    with _opened(file) as lines:
        rows = csv.DictReader(lines, strict=True)
        try:
            names = _columns(rows, column=column, name_column=name_column)
            for row in rows:
                text = (row[column] or "").strip()
                day = _date(text, date_format=date_format, line=rows.line_num)
                closed[day] = ((row.get(names) or "").strip() if names else "") or file.stem
        except csv.Error as error:
            raise DateFileError(f"cannot be read as CSV: {error}", line=rows.line_num) from None
    return DatesFound(closed=closed, known_until=max(closed, default=None))


def _opened(file: Path) -> Any:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DateFileError("there is no such file", line=1) from None
    except (OSError, UnicodeDecodeError) as error:
        line = 1
        if isinstance(error, UnicodeDecodeError):
            line = error.object[: error.start].count(b"\n") + 1
        raise DateFileError("cannot be read as UTF-8 text", line=line) from None
    from io import StringIO

    return StringIO(text, newline="")


def _columns(rows: csv.DictReader[str], *, column: str, name_column: str | None) -> str | None:
    header = [name.strip() for name in rows.fieldnames or []]
    rows.fieldnames = header
    for wanted in filter(None, (column, name_column)):
        if wanted not in header:
            raise DateFileError(
                f"there is no column {wanted!r}; the header has {', '.join(header) or 'nothing'}", line=1
            )
    return name_column or ("name" if "name" in header else None)


def _date(text: str, *, date_format: str | None, line: int) -> date:
    try:
        if date_format is None:
            return date.fromisoformat(text)
        return datetime.strptime(text, date_format).date()  # noqa: DTZ007  # a day has no zone
    except ValueError:
        like = date_format or "2026-12-25"
        raise DateFileError(f"{text[:40]!r} is no date such as {like}", line=line) from None


def ics_dates(file: Path, *, years: range) -> DatesFound:
    """Return the days of all events in an ICS file; recurring ones within the years.

    Raises:
        DateFileError: an event cannot be understood; says the line, or the event's first one when no single line is to blame.
    """
    from icalendar import Event

    closed: dict[date, str] = {}
    recurs = False
    with _opened(file) as lines:
        for line, block in _events(list(lines)):
            try:
                event = Event.from_ical(block)
                days = _days_of(event, years=years)
            except _FAULTS as error:
                at = line + _broken_line(block, years=years)
                raise DateFileError(f"this event cannot be understood: {error}", line=at) from None
            recurs = recurs or "RRULE" in event
            closed.update(dict.fromkeys(days, str(event.get("SUMMARY", file.stem))))
    until = date(years[-1], 12, 31) if recurs else max(closed, default=None)
    return DatesFound(closed=dict(sorted(closed.items())), known_until=until)


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


def _days_of(event: Any, *, years: range) -> list[date]:
    """Return the days that an event closes.

    Raises:
        Exception: one of `_FAULTS`; the foreign ones are those of icalendar and dateutil.
    """
    broken = [told for name, told in event.errors if name is None or name in _READ]
    if broken:
        raise ValueError(broken[0])
    start, length = _first_day(event), _length(event)
    left_out = _listed(event, "EXDATE")
    firsts = _recurring(event, start, years=years) if "RRULE" in event else {start}
    firsts = (firsts | _listed(event, "RDATE")) - left_out
    return [first + number * _DAY for first in sorted(firsts) for number in range(length)]


def _broken_line(block: str, *, years: range) -> int:
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
            _days_of(Event.from_ical(alone), years=years)
        except _FAULTS:
            return number
    return 0


def _first_day(event: Any) -> date:
    if "DTSTART" not in event:
        raise ValueError("DTSTART is missing")
    return _as_day(event.decoded("DTSTART"))


def _length(event: Any) -> int:
    """Return how many days an event covers; its end is not part of it."""
    start = event.decoded("DTSTART")
    end = event.decoded("DTEND") if "DTEND" in event else None
    if end is None and "DURATION" in event:
        end = start + event.decoded("DURATION")
    if end is None:
        return 1
    last = _as_day(end)
    if isinstance(end, datetime) and end.time() != time():
        last += _DAY
    if last < _as_day(start):
        raise ValueError("it ends before it begins")
    days = max((last - _as_day(start)).days, 1)
    if days > _LONGEST_EVENT:
        raise ValueError("it lasts longer than a year")
    return days


def _as_day(moment: Any) -> date:
    if not isinstance(moment, date):
        raise ValueError("its date cannot be read")  # noqa: TRY004  # told like every other fault of the file
    return moment.date() if isinstance(moment, datetime) else moment


def _recurring(event: Any, start: date, *, years: range) -> set[date]:
    rule = event["RRULE"].to_ical().decode()
    days = takewhile(lambda day: day.year <= years[-1], days_of_rule(rule, start))
    return {day for day in days if day.year >= years[0]}


def _listed(event: Any, name: str) -> set[date]:
    """Return the dates of EXDATE or RDATE, which may stand several times."""
    listed = event.get(name, [])
    groups = listed if isinstance(listed, list) else [listed]
    return {_as_day(one.dt) for group in groups for one in group.dts}
