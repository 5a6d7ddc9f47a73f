"""Writes a workbook with the Rust library: settings in its words, sheets one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from leadferry.errors import RenderError
from leadferry.formats.xlsx.sheets import Counts, Part, Seen
from leadferry.formats.xlsx.stream import FrameStream, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

_LIGHT = 0.55
"""Above this brightness a header has black letters, below it white ones."""
_HEADER_HEIGHT = 20
_WIDE, _VERY_WIDE = 90, 260
"""Widths in characters: more than a portrait page shows, and more than can be read when shrunk to a page."""
_LETTER, _A4 = 1, 9
_LETTER_COUNTRIES = ("_US", "_CA", "_MX", "_PH", "_CO", "_CL")
_LINK_COLOR = "#0563C1"


@dataclass(frozen=True, kw_only=True)
class Looks:
    """How all sheets of a workbook look and print."""

    bold: bool
    header_color: str | None
    banded_color: str | None
    freeze: tuple[int, int]
    """Rows and columns that stay in view."""
    autofilter: bool
    widths: Sequence[float]
    numbers: Sequence[str]
    dates: Sequence[str]
    formats: Mapping[str, str]
    links: Sequence[str]
    totals: Mapping[str, str]
    totals_label: str
    choices: Mapping[str, Sequence[str]]
    notes: Mapping[str, str]
    header: str
    footer: str
    locale: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The sheet with the chart; pulled last, when all leads were counted."""

    counts: Counts
    kind: str
    title: str
    sheet: str
    most: int

    def table(self) -> pl.DataFrame:
        """Return values and counts of the leads that were pulled so far."""
        return self.counts.table(most=None if self.kind == "line" else self.most)

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the table; counted only when it is asked for."""
        yield self.counts.table(most=2).clear()
        yield self.table()


@dataclass
class Workbook:
    """One workbook on its way: the library's arguments, gathered sheet by sheet."""

    looks: Looks
    columns: Sequence[str]
    sheets: list[tuple[str, Any]] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)

    def add(self, part: Part, seen: Seen) -> None:
        """Add a sheet with leads."""
        name, looks = part.title, self.looks
        self._stream(name, part.source, rows=part.rows, seen=seen)
        self._header(name, rows=part.rows)
        self._set(name, "autofilter", looks.autofilter)
        self._set(name, "column_widths", list(looks.widths))
        self._set(name, "column_formats", _formats(looks))
        self._set(name, "ignore_errors", list(self.columns))
        self._set(name, "banded_rows", looks.banded_color)
        self._set(name, "notes", {column: {"text": text} for column, text in looks.notes.items()})
        self._set(name, "page_setup", self._page())
        if part.rows:
            self._set(name, "totals_row", dict(looks.totals))
            self._set(name, "totals_format", _total_format() if looks.totals else None)
            self._set(name, "totals_label", self._label())
            rules = {
                column: {"type": "list", "values": list(values)} for column, values in looks.choices.items()
            }
            self._set(name, "data_validations", rules)

    def _label(self) -> str | None:
        is_free = self.looks.totals and self.columns[0] not in self.looks.totals
        return self.looks.totals_label if is_free else None

    def add_summary(self, summary: Summary) -> None:
        """Add the sheet with the chart."""
        name, counts = summary.sheet, summary.counts
        self._stream(name, Source(summary.frames()), rows=1 << 20, seen=None)
        self._header(name, rows=1)
        self._set(name, "column_widths", [28.0, 12.0])
        self._set(name, "column_formats", {counts.heading: _number_format()})
        self._set(name, "sheet_view", {"gridlines": False})
        self._set(name, "page_setup", self._page(wide=True))
        legend = {} if summary.kind == "pie" else {"legend": False}
        chart = {
            "type": summary.kind,
            "series": [counts.heading],
            "categories": counts.column,
            "title": summary.title,
            "row": 1,
            "col": 3,
            "width": 720,
            "height": 420,
        }
        self._set(name, "charts", [chart | legend])

    def _stream(self, name: str, source: Source, *, rows: int, seen: Seen | None) -> None:
        self.sources.append(source)
        self.sheets.append((name, FrameStream(source, rows=rows, passing=seen)))

    def _set(self, name: str, key: str, value: Any) -> None:
        if value is not None and value != {}:
            self.arguments.setdefault(key, {})[name] = value

    def _header(self, name: str, *, rows: int) -> None:
        row, column = self.looks.freeze
        if row or column:
            self._set(name, "freeze_panes", {"row": row, "col": column})
        self._set(name, "header_format", _header_format(self.looks))
        if rows:  # the library would write the row twice in a sheet without leads
            self._set(name, "row_heights", {0: _HEADER_HEIGHT})

    def _page(self, *, wide: bool = False) -> dict[str, Any]:
        looks, width = self.looks, sum(self.looks.widths)
        page: dict[str, Any] = {
            "landscape": wide or width > _WIDE,
            "paper_size": _LETTER if looks.locale.endswith(_LETTER_COUNTRIES) else _A4,
            "margins": {"left": 0.4, "right": 0.4, "top": 0.7, "bottom": 0.7},
            "footer": looks.footer,
        }
        if looks.header:
            page["header"] = looks.header
        if not wide:
            page["repeat_rows"] = 0
        if wide or width <= _VERY_WIDE:
            page["fit_to_pages"] = (1, 0)
        return page

    def write(self, out: IO[bytes]) -> None:
        """Write all sheets.

        Raises:
            RenderError: the library refuses; or whatever error the frames brought.
        """
        from rustpy_xlsxwriter import write_worksheets

        try:
            # By descriptor, since the library would otherwise gather the whole workbook in memory.
            write_worksheets(self.sheets, f"/dev/fd/{out.fileno()}", **self.arguments)
        except Exception as error:  # noqa: BLE001 - the library raises many kinds, and their texts may hold a value
            # What went wrong while frames were pulled comes back as an I/O error; the cause is in the source.
            self._raise_what_the_frames_brought()
            raise RenderError(f"the workbook cannot be written ({type(error).__name__})") from None
        self._raise_what_the_frames_brought()

    def _raise_what_the_frames_brought(self) -> None:
        for source in self.sources:
            if source.error is not None:
                raise source.error from None


def _header_format(looks: Looks) -> Any:
    from rustpy_xlsxwriter import Format

    header = Format().set_align("vcenter")
    if looks.bold:
        header = header.set_bold()
    if looks.header_color is not None:
        letters = "#000000" if _brightness(looks.header_color) > _LIGHT else "#FFFFFF"
        header = header.set_background_color(looks.header_color).set_font_color(letters)
    return header


def _brightness(color: str) -> float:
    red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _formats(looks: Looks) -> dict[str, Any]:
    from rustpy_xlsxwriter import Format

    formats = {column: Format() for column in (*looks.numbers, *looks.dates)}
    for column, shown in looks.formats.items():
        formats[column] = formats.get(column, Format()).set_num_format(shown)
    for column in looks.numbers:  # away from the text of the next column
        formats[column] = formats[column].set_align("right").set_indent(1)
    for column in looks.dates:  # below their heading
        formats[column] = formats[column].set_align("left")
    for column in looks.links:
        formats[column] = formats.get(column, Format()).set_font_color(_LINK_COLOR).set_underline()
    return formats


def _number_format() -> Any:
    from rustpy_xlsxwriter import Format

    return Format().set_num_format("#,##0").set_align("right").set_indent(1)


def _total_format() -> Any:
    from rustpy_xlsxwriter import Format

    return Format().set_bold().set_border_top("thin")
