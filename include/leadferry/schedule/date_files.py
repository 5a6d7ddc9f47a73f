"""Dates from CSV files that somebody else keeps, and what is said of any file of dates that cannot be read."""

from __future__ import annotations

import csv
from datetime import date, datetime
from pathlib import Path
from typing import Any

from leadferry.schedule.holiday_lists import DatesFound


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
    with opened(file) as lines:
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


def opened(file: Path) -> Any:
    """Return the lines of a UTF-8 file, with or without a byte order mark.

    Raises:
        DateFileError: there is no such file, or it is no text.
    """
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
