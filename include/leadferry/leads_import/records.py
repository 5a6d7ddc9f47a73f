"""What a file of leads holds, one record at a time: a lead, or a reason why a line is none.

A bad line never ends the reading, and never takes its neighbours with it:
behind a quote that is never closed, reading goes on at the next line.
Nothing here knows the store.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import json
import re
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from leadferry.errors import LeadImportError
from leadferry.leads_import.layout import DELIMITERS, Layout

MAX_RECORD = 1_000_000
"""Characters of one lead as it stands in the file."""


_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Found(NamedTuple):
    """One lead as it stands in the file."""

    line: int
    record: str
    """The text of it, for the rejects."""
    fields: str
    """A JSON object that PostgreSQL takes."""
    external_id: Any = None
    received_at: Any = None


class Bad(NamedTuple):
    """One record that is no lead."""

    line: int
    record: str
    reason: str
    """Without any of the data."""


def encoding_of(path: Path, layout: Layout) -> str:
    """Return the encoding of a text file: what was said, what its byte order mark says, or UTF-8."""
    if layout.encoding:
        return layout.encoding
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")


def read_records(path: Path, layout: Layout) -> Iterator[Found | Bad]:
    """Read a file, in constant memory; an XLSX file's table of texts alone is held as a whole.

    Raises:
        LeadImportError: it cannot be read at all.
    """
    kind = layout.type_of(path)
    if kind == "xlsx":
        yield from _xlsx(path, layout)
        return
    with path.open(encoding=encoding_of(path, layout), newline="") as text:
        yield from _csv(text, layout) if kind == "csv" else _ndjson(text, layout)


# --- lines ----------------------------------------------------------------------------------------------------


class _TooLongError(Exception):
    """One record is longer than any lead."""


class _Lines:
    """The lines of a text file with their numbers, of which some can be given back."""

    def __init__(self, text: TextIO) -> None:
        self.number = 0
        self.taken: list[str] = []
        self._text = text
        self._returned: deque[str] = deque()
        self._size = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else self._text.readline(MAX_RECORD + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        self._size += len(line)
        if self._size > MAX_RECORD:
            self._skip_rest(line)
            raise _TooLongError
        return line

    def begin(self) -> None:
        """Forget the lines of the record before."""
        self.taken.clear()
        self._size = 0

    def give_back(self, lines: Sequence[str]) -> None:
        """Read these lines again, before the ones after them."""
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)

    def _skip_rest(self, line: str) -> None:
        """Pass over what was not read of an endless line, and end it, in case it is given back."""
        if not line.endswith(("\n", "\r")):
            while line and not line.endswith(("\n", "\r")):
                line = self._text.readline(MAX_RECORD)
            self.taken[-1] += "\n"


# --- CSV ------------------------------------------------------------------------------------------------------

_write_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _csv(text: TextIO, layout: Layout) -> Iterator[Found | Bad]:
    records = _CsvRecords(text, layout.delimiter or _delimiter(text))
    header = _Header.of(records.header(), layout)
    for line, record, row in records:
        if isinstance(row, str):
            yield Bad(line, record, row)
        elif len(row) != header.width:
            yield Bad(line, record, f"{len(row)} columns instead of {header.width}")
        else:
            yield header.found(line, record, row)


def _delimiter(text: TextIO) -> str:
    """Return the delimiter that cuts the first line into the most columns; a comma when none does."""
    first = next((line for line in iter(lambda: text.readline(MAX_RECORD), "") if line.strip()), "")
    text.seek(0)
    return max(DELIMITERS, key=lambda one: _columns(first, one))


def _columns(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return 0


class _CsvRecords:
    """The records of a CSV file: (line, text, columns or what is wrong)."""

    def __init__(self, text: TextIO, delimiter: str) -> None:
        self._lines = _Lines(text)
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self._astray = False

    def header(self) -> list[str]:
        """Return the names of the columns."""
        for line, _, row in self:
            if isinstance(row, str):
                raise LeadImportError(
                    f"Line {line} should name the columns, but {row}",
                    hint="Correct that line; nothing was loaded",
                )
            return row
        raise LeadImportError("The file is empty", hint="Its first line must name the columns")

    def __iter__(self) -> Iterator[tuple[int, str, list[str] | str]]:
        while (row := self._next()) is not None:
            lines = self._lines
            record = lines.taken[0] if len(lines.taken) == 1 else "".join(lines.taken)
            if row:
                yield lines.number - len(lines.taken) + 1, record, row

    def _next(self) -> list[str] | str | None:
        self._lines.begin()
        try:
            row = next(self._reader)
        except StopIteration:
            return None
        except _TooLongError:
            one_line = len(self._lines.taken) == 1
            return f"longer than {MAX_RECORD:,} characters" if one_line else self._stray_quote()
        except csv.Error:
            return self._stray_quote()
        return self._checked(row)

    def _checked(self, row: list[str]) -> list[str] | str:
        taken = self._lines.taken
        if "\x00" in taken[0] or (len(taken) > 1 and any("\x00" in line for line in taken)):
            return "holds a NUL character"
        if self._astray and sum(line.count('"') for line in taken) % 2:
            return self._stray_quote()
        self._astray = False
        return row

    def _stray_quote(self) -> str:
        """Give up only the first line: a quote that is never closed swallows the lines after it."""
        self._lines.give_back(self._lines.taken[1:])
        del self._lines.taken[1:]
        self._astray = True
        return "a quotation mark too many or too few"


class _Header:
    """The columns of a table, and how a row of it becomes a lead."""

    def __init__(self, names: list[str], *, external_id: int | None, received_at: int | None) -> None:
        self.width = len(names)
        self._names = names
        self._external_id = external_id
        self._received_at = received_at

    @classmethod
    def of(cls, columns: Sequence[str], layout: Layout) -> Self:
        columns = [column.strip() for column in columns]
        for number, column in enumerate(columns, start=1):
            if not column or "\x00" in column:
                raise LeadImportError(f"Column {number} has no name", hint="Name it in the first line")
        for column in layout.names:
            _position(column, columns)
        names = [layout.names.get(column, column) for column in columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise LeadImportError(
                f"Two columns have the name {twice!r}", hint="Give one of them another name"
            )
        return cls(
            names,
            external_id=_position(layout.external_id, columns),
            received_at=_position(layout.received_at, columns),
        )

    def found(self, line: int, record: str, row: Sequence[Any]) -> Found:
        return Found(
            line,
            record,
            _write_json(dict(zip(self._names, row, strict=True))),
            None if self._external_id is None else row[self._external_id],
            None if self._received_at is None else row[self._received_at],
        )


def _position(column: str | None, columns: Sequence[str]) -> int | None:
    if column is None:
        return None
    if column not in columns:
        near = difflib.get_close_matches(column, columns, n=1)
        raise LeadImportError(
            f"There is no column {column!r}",
            hint=f"Did you mean {near[0]!r}?" if near else f"There is {', '.join(columns)}",
        )
    return columns.index(column)


# --- NDJSON ---------------------------------------------------------------------------------------------------


_MAX_PARTS = 1000
"""Lists and objects in one lead; thousands inside one another would exhaust the server's stack."""


class _RefusedError(ValueError):
    """Valid for Python, not for PostgreSQL."""


def _ndjson(text: TextIO, layout: Layout) -> Iterator[Found | Bad]:
    lines = _Lines(text)
    while True:
        lines.begin()
        try:
            line = next(lines).strip(" \t\r\n")
        except StopIteration:
            return
        except _TooLongError:
            yield Bad(lines.number, lines.taken[0], f"longer than {MAX_RECORD:,} characters")
            continue
        if line:
            yield _json_lead(lines.number, line, layout)


def _json_lead(number: int, line: str, layout: Layout) -> Found | Bad:
    if line.count("{") + line.count("[") > _MAX_PARTS:
        return Bad(number, line, f"holds more than {_MAX_PARTS:,} lists and objects")
    try:
        lead = json.loads(line, parse_float=_storable_float, parse_constant=_refuse_constant)
        if "\\u" in line:
            _refuse_unstorable(lead)
    except _RefusedError as error:
        return Bad(number, line, str(error))
    except (ValueError, RecursionError):
        return Bad(number, line, "is not JSON")
    if not isinstance(lead, dict):
        return Bad(number, line, "is JSON, but not an object")
    if layout.names and len({layout.names.get(key, key) for key in lead}) < len(lead):
        return Bad(number, line, "two fields get the same name")
    external_id = lead.get(layout.external_id) if layout.external_id else None
    received_at = lead.get(layout.received_at) if layout.received_at else None
    return Found(number, line, line, external_id, received_at)


_EXPONENT = re.compile(r"[eE][-+]?0*([0-9]+)$")


def _storable_float(text: str) -> float:
    exponent = _EXPONENT.search(text)
    if len(text) > 1000 or (exponent and len(exponent[1]) > 3):  # noqa: PLR2004  far beyond any meaning
        raise _RefusedError("holds a number that is too large or too small")
    return float(text)


def _refuse_constant(_: str) -> Any:
    raise _RefusedError("is not JSON: NaN and Infinity are no JSON numbers")


def _refuse_unstorable(value: Any) -> None:
    """Refuse what JSON can escape, but no text in PostgreSQL can hold: NUL and halves of surrogate pairs."""
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text.replace("\\\\", ""):
        raise _RefusedError("holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _RefusedError("holds half a character (a lone surrogate)") from None


# --- XLSX -----------------------------------------------------------------------------------------------------


def _xlsx(path: Path, layout: Layout) -> Iterator[Found | Bad]:
    header: _Header | None = None
    for line, row in _rows(path, layout.sheet):
        while row and row[-1] is None:
            row.pop()
        if not row:
            continue
        if header is None:
            header = _Header.of([str(_plain("" if cell is None else cell)) for cell in row], layout)
            continue
        yield _xlsx_lead(line, row, header)
    if header is None:
        raise LeadImportError("The sheet is empty", hint="Its first row must name the columns")


def _xlsx_lead(line: int, row: list[Any], header: _Header) -> Found | Bad:
    values = ["" if cell is None else _plain(cell) for cell in row]
    record = _write_json([str(value) for value in values])
    if len(row) > header.width:
        return Bad(line, record, f"{len(row)} columns instead of {header.width}")
    if len(record) > MAX_RECORD:
        return Bad(line, record, f"longer than {MAX_RECORD:,} characters")
    if "\\u0000" in record.replace("\\\\", ""):
        return Bad(line, record, "holds a NUL character")
    return header.found(line, record, [*values, *[""] * (header.width - len(row))])


def _plain(cell: Any) -> Any:
    """Return a cell as JSON can hold it; a date without a time of day is only a date, and 5.0 is 5."""
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat()
    if isinstance(cell, (date, time)):
        return cell.isoformat()
    if isinstance(cell, float) and isfinite(cell):
        return int(cell) if cell.is_integer() else cell
    return cell if isinstance(cell, (str, int)) else str(cell)


def _rows(path: Path, sheet: str | None) -> Iterator[tuple[int, list[Any]]]:
    import openpyxl

    book: Any = None
    try:
        # openpyxl warns of drawings and validations that it leaves out; nothing of that is a lead.
        with warnings.catch_warnings(action="ignore"):
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            page = _page(book, sheet)
            page.reset_dimensions()
            for line, cells in enumerate(page.iter_rows(values_only=True), start=1):
                yield line, list(cells)
    except (LeadImportError, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001  a damaged workbook can raise anything
        raise LeadImportError(
            f"{path.name} is not a readable XLSX file ({type(error).__name__})",
            hint="Save it again as .xlsx or .csv",
        ) from None
    finally:
        if book is not None:
            book.close()


def _page(book: Any, sheet: str | None) -> Any:
    names: Mapping[str, Any] = {page.title: page for page in book.worksheets}
    if not names:
        raise LeadImportError("The workbook has no sheet", hint="Save it with the leads on a sheet")
    if sheet is not None and sheet not in names:
        raise LeadImportError(f"There is no sheet {sheet!r}", hint=f"There is {', '.join(names)}")
    return names[sheet] if sheet is not None else next(iter(names.values()))
