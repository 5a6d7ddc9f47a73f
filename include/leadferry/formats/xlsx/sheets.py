"""What goes on which sheet, and what is learned from the leads on their way there."""

from __future__ import annotations

import re
import sys
import tempfile
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, TYPE_CHECKING, cast

from leadferry.errors import RenderError
from leadferry.formats.xlsx.formulas import NO_VALUE
from leadferry.formats.xlsx.names import letters, sheet_name, unique
from leadferry.formats.xlsx.stream import Source

if TYPE_CHECKING:
    import polars as pl

MOST_SHEETS = 255
"""Sheets that a field may make; a workbook with more is one that nobody finds anything in."""
MOST_VALUES = 10_000
"""Different values that a chart counts; they are kept in memory."""
MOST_LINKS = 65_530
"""Links that Excel takes on one sheet: Microsoft, "Excel specifications and limits"."""

_LONGEST_LINK = 2_079
_LINK = r"^(?i:https?://[a-z0-9.-]+(?::\d+)?(?:[/?#]\S*)?|mailto:[^\s@?&]+@[a-z0-9.-]+)$"
"""What becomes a link: only pages and mail addresses. A lead must not bring a link to a file or into the workbook."""


@dataclass(frozen=True)
class Part:
    """The leads of one sheet, not yet pulled."""

    title: str
    rows: int
    source: Source
    first: bool = True
    """Whether the source begins with this sheet."""


def one_after_the_other(source: Source, title: str, *, rows: int, capacity: int) -> list[Part]:
    """Divide leads over as many sheets as they need: `Leads`, `Leads (2)`."""
    counts = _divided(rows, capacity)
    titles = unique([title] * len(counts))
    return [
        Part(name, count, source, first=not number)
        for number, (name, count) in enumerate(zip(titles, counts, strict=True))
    ]


def _divided(rows: int, capacity: int) -> list[int]:
    full, rest = divmod(rows, capacity)
    return [capacity] * full + ([rest] if rest or not full else [])


class ByValue:
    """Leads sorted onto sheets by the value of a field, in a file without a name that vanishes with the process.

    Memory holds one frame and, for every sheet, where its leads are in the file.
    """

    def __init__(self, spool: IO[bytes], column: str) -> None:
        self._spool = spool
        self._column = column
        self._chunks: dict[str, list[tuple[int, int]]] = {}
        self._rows: Counter[str] = Counter()
        self._end = 0

    def gather(self, source: Source) -> None:
        """Take all leads.

        Raises:
            RenderError: the field has more values than a workbook should have sheets.
        """
        import polars as pl

        key = pl.col(self._column).cast(pl.String).fill_null("").str.strip_chars()
        while (frame := source.take(sys.maxsize)) is not None:
            if frame.is_empty():
                continue
            for (value,), part in frame.group_by(key.alias("value"), maintain_order=True):
                self._append(str(value), part)
            if len(self._chunks) > MOST_SHEETS:
                raise RenderError(
                    f"sheet_by: field {self._column!r} has more than {MOST_SHEETS} different values",
                    hint="Choose a field with fewer values, or sheet_by nothing and let people filter",
                )

    def _append(self, value: str, part: pl.DataFrame) -> None:
        block = BytesIO()
        part.write_ipc_stream(block)
        self._spool.write(block.getbuffer())
        self._chunks.setdefault(value, []).append((self._end, block.tell()))
        self._end += block.tell()
        self._rows[value] += part.height

    def parts(self, blank_title: str, empty: pl.DataFrame, *, capacity: int) -> list[Part]:
        """Return a sheet for every value, sorted; leads without a value come last, under `blank_title`."""
        values = sorted(self._chunks, key=lambda value: (not value, value.casefold(), value)) or [""]
        sheets = [(value, rows) for value in values for rows in _divided(self._rows[value], capacity)]
        titles = unique(sheet_name(value) if value else blank_title for value, _ in sheets)
        sources = {value: Source(self._frames(value, empty)) for value in values}
        found: list[Part] = []
        for title, (value, rows) in zip(titles, sheets, strict=True):
            is_first = all(part.source is not sources[value] for part in found)
            found.append(Part(title, rows, sources[value], first=is_first))
        return found

    def _frames(self, value: str, empty: pl.DataFrame) -> Iterator[pl.DataFrame]:
        import polars as pl

        yield empty
        for start, size in self._chunks.get(value, []):
            self._spool.seek(start)
            yield pl.read_ipc_stream(BytesIO(self._spool.read(size)))


def by_value(stack: ExitStack, source: Source, column: str, *, blank_title: str, capacity: int) -> list[Part]:
    """Sort the leads onto a sheet for every value of a column; the file they wait in lives as long as `stack`."""
    spool: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed by the stack
    sorted_ = ByValue(spool, column)
    sorted_.gather(source)
    return sorted_.parts(blank_title, source.first.clear(), capacity=capacity)


@dataclass
class Seen:
    """What one sheet's leads held: results for its totals, and its links."""

    totals: Mapping[str, str]
    links: Sequence[str]
    columns: Sequence[str]
    rows: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    ends: dict[str, float] = field(default_factory=dict)
    found_links: list[tuple[str, str]] = field(default_factory=list)
    """Cell and address."""
    plain: Counter[str] = field(default_factory=Counter)
    """Addresses by field that are no links, because the sheet has as many as Excel takes."""

    def __call__(self, frame: pl.DataFrame) -> None:
        """Look at the next rows of the sheet."""
        for name, kind in self.totals.items():
            self._add(name, kind, frame)
        for name in self.links:
            self._link(name, frame)
        self.rows += frame.height

    def _add(self, name: str, kind: str, frame: pl.DataFrame) -> None:
        values = frame[name].drop_nulls()
        if kind == "count":
            self.counts[name] += len(values)
            return
        values = values.filter(values != NO_VALUE)
        self.counts[name] += len(values)
        if not len(values):
            return
        self.sums[name] = self.sums.get(name, 0) + float(values.sum())
        end: Callable[[list[float]], float] = min if kind == "min" else max
        here = values.min() if kind == "min" else values.max()
        self.ends[name] = end([*([self.ends[name]] if name in self.ends else []), cast("float", here)])

    def total(self, name: str) -> float | None:
        """Return what Excel will show as the total of a column; None where it shows an error."""
        kind, count = self.totals[name], self.counts[name]
        if kind == "count":
            return count
        if kind == "sum":
            return self.sums.get(name, 0)
        if kind == "average":
            return self.sums[name] / count if count else None
        return self.ends.get(name, 0)

    def _link(self, name: str, frame: pl.DataFrame) -> None:
        import polars as pl

        column = letters(self.columns.index(name))
        test = pl.col(name).str.contains(_LINK) & (pl.col(name).str.len_bytes() <= _LONGEST_LINK)
        for row, address in frame.with_row_index("row").filter(test).select("row", name).iter_rows():
            if len(self.found_links) < MOST_LINKS:
                self.found_links.append((f"{column}{self.rows + row + 2}", quoted(address)))
            else:
                self.plain[name] += 1


def quoted(address: str) -> str:
    """Return the address with what no URI may hold written as `%XX`; else Excel calls the workbook damaged."""
    quoted_ = urllib.parse.quote(address, safe="%/:=&?~#+!$,;'@()*[]")
    return re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", quoted_)


class Counts:
    """The leads of the whole file, counted by the values of a field, for the chart."""

    OTHER, NONE = "Other", "(none)"

    def __init__(self, column: str) -> None:
        self.column = column
        self.heading = "Leads" if column != "Leads" else "Number of leads"
        self._counts: Counter[str] = Counter()

    def add(self, frame: pl.DataFrame) -> None:
        """Count the next leads.

        Raises:
            RenderError: the field has too many different values.
        """
        import polars as pl

        values = frame[self.column].cast(pl.String).fill_null("").str.strip_chars()
        self._counts.update(dict(values.value_counts().iter_rows()))
        if len(self._counts) > MOST_VALUES:
            raise RenderError(
                f"chart: field {self.column!r} has more than {MOST_VALUES} different values",
                hint="Choose a field with fewer values",
            )

    def table(self, *, most: int | None) -> pl.DataFrame:
        """Return values and counts.

        Args:
            most: the values with most leads first, so many rows at most, the last of them for all others;
                None for all values in their own order.
        """
        import polars as pl

        if most is None:
            ordered = sorted(self._counts.items())
        else:
            ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        if most is not None and len(ordered) > most:
            rest = sum(count for _, count in ordered[most - 1 :])
            ordered = [*ordered[: most - 1], (self.OTHER, rest)]
        told = [(value or self.NONE, count) for value, count in ordered]
        schema = {self.column: pl.String, self.heading: pl.Int64}
        return pl.DataFrame(told, schema=schema, orient="row")
