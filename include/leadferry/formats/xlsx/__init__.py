"""Excel workbooks that people open: every text a text cell as it is, a header that stays in view, filters.

`workbook` writes them, `stream` brings the leads to it, `sheets` says what goes where, `package` adds what the library
cannot say, `template` fills a workbook of the user's own, `cells` says what happens to values. Here is what stands in
YAML.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import IO, TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, Self

from pydantic import Field, model_validator

from leadferry.errors import RenderError
from leadferry.formats.base import (
    Change,
    ControlCharacters,
    FileContext,
    FormatBase,
    Step,
    prepared,
    without_control_characters,
)
from leadferry.formats.xlsx import chart, names, sheets
from leadferry.formats.xlsx.cells import line_breaks, numbers, short_enough, shown, times, widths
from leadferry.formats.xlsx.formulas import Formula, parse
from leadferry.formats.xlsx.names import letters, sheet_name, unique, units
from leadferry.formats.xlsx.package import SheetPatch, copy_patched, core_properties, patch_end
from leadferry.formats.xlsx.settings import (
    Aggregate,
    Chart,
    Choices,
    Color,
    Label,
    Note,
    NumberFormat,
    SheetTitle,
    TemplateBook,
    Width,
)
from leadferry.formats.xlsx.sheets import Part, Seen
from leadferry.formats.xlsx.stream import Source
from leadferry.formats.xlsx.template import Template as Filled
from leadferry.formats.xlsx.workbook import Looks, Summary, Workbook
from leadferry.templates import Template, render
from leadferry.zones import time_zone

if TYPE_CHECKING:
    import polars as pl

_LONGEST_PRINT_LINE = 255
_AUTHOR = "Leadferry"

_FORMULAS = {"sum": "SUM", "average": "AVERAGE", "count": "COUNTA", "min": "MIN", "max": "MAX"}
_SUFFICIENT = 12
"""Digits of a total's stored value: sums of fractions differ in their last digits with the order of adding."""

_WITH_TEMPLATE = {"type", "template", "control_characters", "long_text"}
"""The settings that a template workbook does not decide itself."""


class Xlsx(FormatBase):
    """A workbook with the leads on one sheet, on one for every value of a field, or in the user's own workbook."""

    extension: ClassVar[str] = "xlsx"
    media_type: ClassVar[str] = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

    type: Literal["xlsx"] = "xlsx"
    sheet: SheetTitle = Field(
        default="Leads",
        description="The sheet's name; with sheet_by that of the leads without a value.",
    )
    sheet_by: str | None = Field(
        default=None, description="A field: every value of it gets a sheet of its own, named by the value."
    )
    bold_header: bool = True
    header_color: Color | None = Field(
        default="#1F4E78",
        description="Colour behind the header; black or white letters follow. null for none.",
    )
    banded_color: Color | None = Field(default=None, description="Colour behind every other lead.")
    freeze_header: bool = Field(default=True, description="Keep the header in view while scrolling.")
    freeze_columns: int = Field(default=0, ge=0, le=20, description="So many first columns stay in view too.")
    autofilter: bool = Field(default=True, description="Put filter buttons on the header.")
    widths: dict[str, Width] = Field(
        default={},
        description="Column widths in characters, by field; the others fit the header and the first 100 leads.",
    )
    number_formats: dict[str, NumberFormat] = Field(
        default={}, description="How numbers and dates are shown, by field: '#,##0.00', 'dd/mm/yyyy'."
    )
    formulas: dict[str, Formula] = Field(
        default={}, description="Further columns, calculated: {Total: '=[Price]*[Quantity]'}."
    )
    totals: dict[str, Aggregate] = Field(
        default={}, description="A row below the leads, by field: sum, average, count, min, max."
    )
    totals_label: Label = Field(default="Total", description="In the first column, unless that has a total.")
    choices: dict[str, Choices] = Field(default={}, description="Drop-down lists, by field.")
    links: tuple[str, ...] = Field(
        default=(), description="Fields whose web and mail addresses (https://…, mailto:…) can be clicked."
    )
    notes: dict[str, Note] = Field(default={}, description="Notes on the cells of the header, by field.")
    chart: Chart | None = Field(
        default=None, description="A sheet that counts the leads by a field, as a chart."
    )
    document_title: Template | None = Field(
        default=None, description="Title among the document's properties."
    )
    author: Template = Field(default=_AUTHOR, description="Author among the document's properties.")
    print_header: Template | None = Field(
        default=None, description="Printed above every page: '{{ recipient.name }} · {{ delivery.id }}'."
    )
    print_footer: Template | None = Field(
        default=None, description="Printed below every page, left of the page number."
    )
    control_characters: ControlCharacters = Field(
        default="remove",
        description="For characters that Excel forbids: remove, replace by U+FFFD (both reported), or fail.",
    )
    long_text: Literal["fail", "cut"] = Field(
        default="fail",
        description="For texts beyond the 32,767 characters of a cell: fail, or cut (reported).",
    )
    too_many_rows: Literal["next_sheet", "fail"] = Field(
        default="next_sheet",
        description="Beyond 1,048,575 leads: go on on another sheet, or fail. Nothing is cut off.",
    )
    template: TemplateBook | None = Field(
        default=None, description="A workbook of your own, with logo and styles, that is filled in."
    )

    @model_validator(mode="after")
    def _template_decides_looks(self) -> Self:
        if self.template is None:
            return self
        fresh = type(self)()
        for name in type(self).model_fields.keys() - _WITH_TEMPLATE:
            if getattr(self, name) != getattr(fresh, name):
                raise ValueError(
                    f"{name} has no effect with template, whose workbook decides that; remove it"
                )
        return self

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`."""
        every = [*columns, *self.formulas]
        found = [
            f"{setting} has {name!r}, which is no field"
            for setting, wanted in self._named().items()
            for name in wanted
            if name not in (columns if setting == "links" else every)
        ]
        found += self._formula_problems(columns)
        if len(every) > names.COLUMNS:
            found.append(f"{len(every)} fields are more than the {names.COLUMNS} columns of an Excel sheet")
        long = [name for name in every if units(name) > names.CHARACTERS]
        found += [f"the name of field {name[:40]!r}… is too long for a cell" for name in long]
        return found + (Filled(self.template).problems(len(columns)) if self.template else [])

    def _named(self) -> dict[str, Iterable[str]]:
        """Return the settings that name fields."""
        return {
            "sheet_by": [self.sheet_by] if self.sheet_by is not None else [],
            "widths": self.widths,
            "number_formats": self.number_formats,
            "totals": self.totals,
            "choices": self.choices,
            "links": self.links,
            "notes": self.notes,
            "chart": [self.chart.by] if self.chart else [],
        }

    def _formula_problems(self, columns: Sequence[str]) -> Iterator[str]:
        for place, (name, formula) in enumerate(self.formulas.items()):
            if name in columns:
                yield f"formulas has {name!r}, which is a field; choose another name"
            known = [*columns, *list(self.formulas)[:place]]
            for field in parse(formula).fields:
                if field not in known:
                    yield f"the formula of {name!r} has [{field}], which is no field before it"

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        for problem in self.problems(context.columns):
            raise RenderError(problem, hint="Correct the batch file")
        source = Source(prepared(frames, context, *self._steps()))
        with ExitStack() as stack:
            # Unlinked from the start: lead data must not stay on disk when the process is killed.
            finished: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            if self.template is not None:
                Filled(self.template).fill(source, finished, rows=context.rows)
            else:
                finished = _Writing(self, source, context, stack).into(finished)
            finished.seek(0)
            shutil.copyfileobj(finished, out, 1 << 20)

    def _steps(self) -> list[Step]:
        return [
            without_control_characters(self.control_characters),
            line_breaks,
            partial(short_enough, cut=self.long_text == "cut"),
            numbers,
            times,
        ]


class _Writing:
    """One workbook being written: the settings, the leads, and what the sheets turn out to hold."""

    def __init__(self, wanted: Xlsx, source: Source, context: FileContext, stack: ExitStack) -> None:
        self._wanted = wanted
        self._context = context
        self._stack = stack
        if context.rows:  # without leads nobody knows what the columns would have held
            self._refuse_what_is_no_number(source.first)
        self._summary = self._make_summary()
        self._source = Source(self._with_formulas(source))
        self.columns = list(self._source.first.columns)

    def _refuse_what_is_no_number(self, first: pl.DataFrame) -> None:
        wanted = self._wanted
        needed = {name: "totals" for name, kind in wanted.totals.items() if kind != "count"}
        for formula in wanted.formulas.values():
            needed |= dict.fromkeys(parse(formula).fields, "formulas")
        for name, setting in needed.items():
            if name not in wanted.formulas and not first.schema[name].is_numeric():
                raise RenderError(
                    f"{setting} calculates with field {name!r}, which is no number",
                    hint="Give the field the transform {type: number}, so that it is one",
                )

    def _make_summary(self) -> Summary | None:
        wanted = self._wanted.chart
        if wanted is None:
            return None
        title = f"Leads by {wanted.by}" if wanted.title is None else self._render(wanted.title)
        name = sheet_name(self._render(wanted.sheet))
        counts = sheets.Counts(wanted.by)
        return Summary(counts=counts, kind=wanted.kind, title=title, sheet=name, most=wanted.most)

    def _render(self, template: str | None) -> str:
        told = render(template, self._context.variables) if template else ""
        return re.sub(r"[\x00-\x1f\ufffe\uffff]", " ", told)  # names may hold what XML cannot

    def _with_formulas(self, source: Source) -> Iterator[pl.DataFrame]:
        while (frame := source.take(1 << 62)) is not None:
            ready = frame
            for name, formula in self._wanted.formulas.items():
                ready = ready.with_columns(parse(formula).value().alias(name))
            if self._summary is not None:
                self._summary.counts.add(ready)
            yield ready

    def into(self, first: IO[bytes]) -> IO[bytes]:
        """Write the workbook and return the file that it is in, which may be another one."""
        book = Workbook(self._looks(), self.columns)  # first, since it measures leads that then are taken
        parts = self._parts()
        seen = [Seen(self._wanted.totals, self._wanted.links, self.columns) for _ in parts]
        for part, one in zip(parts, seen, strict=True):
            book.add(part, one)
        if self._summary is not None:
            book.add_summary(self._summary)
        book.write(first)
        return self._completed(first, seen)

    def _parts(self) -> list[Part]:
        wanted, rows = self._wanted, self._context.rows
        capacity = names.ROWS - 1 - bool(wanted.totals)
        title = sheet_name(self._render(wanted.sheet))
        if wanted.sheet_by is not None:
            parts = sheets.by_value(
                self._stack, self._source, wanted.sheet_by, blank_title=title, capacity=capacity
            )
        else:
            parts = sheets.one_after_the_other(self._source, title, rows=rows, capacity=capacity)
        if wanted.too_many_rows == "fail" and not all(part.first for part in parts):
            raise RenderError(
                f"{rows} leads are more than the {capacity} that fit on an Excel sheet",
                hint="Set select.limit, set too_many_rows: next_sheet, or choose another format",
            )
        return self._beside_the_summary(parts)

    def _beside_the_summary(self, parts: list[Part]) -> list[Part]:
        """Number a sheet of leads that has the name of the chart's sheet."""
        if self._summary is None:
            return parts
        _, *titles = unique([self._summary.sheet, *(part.title for part in parts)])
        return [
            Part(title, part.rows, part.source, first=part.first)
            for title, part in zip(titles, parts, strict=True)
        ]

    def _looks(self) -> Looks:
        wanted = self._wanted
        schema = self._source.first.schema
        locale = str(self._context.variables.get("recipient", {}).get("locale", ""))
        footer = self._printed("print_footer")
        return Looks(
            bold=wanted.bold_header,
            header_color=wanted.header_color,
            banded_color=wanted.banded_color,
            freeze=(int(wanted.freeze_header), wanted.freeze_columns),
            autofilter=wanted.autofilter,
            widths=widths(self._source, wanted.widths, totals=wanted.totals),
            numbers=[name for name, dtype in schema.items() if dtype.is_numeric()],
            dates=[name for name, dtype in schema.items() if dtype.is_temporal()],
            formats=shown(self._source.first) | wanted.number_formats,
            links=wanted.links,
            totals=wanted.totals,
            totals_label=wanted.totals_label,
            choices=wanted.choices,
            notes=wanted.notes,
            header=f"&L{header}" if (header := self._printed("print_header")) else "",
            footer=(f"&L{footer}" if footer else "") + "&RPage &P of &N",
            locale=locale,
        )

    def _printed(self, setting: str) -> str:
        """Return a line for print, in which `&` would begin a command."""
        told = " ".join(self._render(getattr(self._wanted, setting)).replace("&", "&&").split())
        if units(told) > _LONGEST_PRINT_LINE - len("&L&RPage &P of &N"):
            raise RenderError(
                f"{setting} is longer than the {_LONGEST_PRINT_LINE} characters that Excel prints",
                hint="Shorten it in the batch file",
            )
        return told

    def _completed(self, book: IO[bytes], seen: list[Seen]) -> IO[bytes]:
        patches = {"docProps/core.xml": lambda _: self._core_properties()}
        if self._summary is not None:
            table = self._summary.table()
            patches[chart.PART] = chart.finished(table, color=self._wanted.header_color)
        self._report_plain_links(seen)
        if not (self._wanted.formulas or self._wanted.totals or any(one.found_links for one in seen)):
            patch_end(book, patches)
            return book
        finished: IO[bytes] = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed by the stack
        copy_patched(
            book, finished, {number: self._patch(one) for number, one in enumerate(seen, start=1)}, patches
        )
        return finished

    def _core_properties(self) -> bytes:
        return core_properties(
            author=self._render(self._wanted.author),
            title=self._render(self._wanted.document_title),
            created=_departure(self._context.variables.get("delivery", {})),
        )

    def _patch(self, seen: Seen) -> SheetPatch:
        places = {name: letters(number) for number, name in enumerate(self.columns)}
        formulas = {
            places[name]: parse(formula).excel(places) for name, formula in self._wanted.formulas.items()
        }
        totals = {
            places[name]: (
                f"{_FORMULAS[kind]}({places[name]}2:{places[name]}{seen.rows + 1})",
                _stored(seen, name),
            )
            for name, kind in self._wanted.totals.items()
        }
        return SheetPatch(formulas, totals, seen.rows + 2, len(self.columns), seen.found_links)

    def _report_plain_links(self, seen: list[Seen]) -> None:
        for name in self._wanted.links:
            if count := sum(one.plain[name] for one in seen):
                what = f"plain text, since a sheet has at most {sheets.MOST_LINKS} links"
                self._context.report(Change(column=name, count=count, what=what))


def _stored(seen: Seen, name: str) -> float | None:
    value = seen.total(name)
    return value if value is None else float(f"{value:.{_SUFFICIENT}g}")


def _departure(delivery: Mapping[str, Any]) -> str:
    """Return the departure as document properties have it, in UTC; empty when it is not known."""
    from datetime import UTC, datetime

    if not all(delivery.get(name) for name in ("date", "time", "timezone")):
        return ""
    local = datetime.strptime(f"{delivery['date']} {delivery['time']}", "%Y-%m-%d %H%M").replace(
        tzinfo=time_zone(str(delivery["timezone"]))
    )
    return f"{local.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


__all__ = ["Xlsx", "sheet_name"]
