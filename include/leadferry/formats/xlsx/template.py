"""Fills the user's own workbook: everything in it stays, and the leads stand where it says.

The package is copied part by part, so logo, charts, styles and print settings stay as they are; only the sheet that gets the
leads is written anew, row by row, in constant memory. The row where the leads begin is the pattern: each of its cells lends
its style to the column below it.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from leadferry.errors import RenderError
from leadferry.formats.xlsx.names import COLUMNS, ROWS, letters
from leadferry.formats.xlsx.package import Styles, read_blocks, timeless, to_xml, write_blocks
from leadferry.formats.xlsx.settings import TemplateBook
from leadferry.formats.xlsx.stream import Source
from leadferry.project import project_folder

if TYPE_CHECKING:
    import polars as pl

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_OFFICE = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_CELL = re.compile(r"\$?([A-Z]{1,3})\$?([1-9][0-9]{0,6})(?::\$?[A-Z]{1,3}\$?[1-9][0-9]{0,6})?")
_MARK = b"<!--leads-->"
_DATE, _MOMENT = "14", "22"
"""Excel's own number formats for a day and for a day with a time, in the reader's language."""


@dataclass(frozen=True)
class _Place:
    """Where the leads begin."""

    part: str
    """The sheet's part of the package."""
    column: int
    """Counted from 0."""
    row: int
    """Counted from 1."""


class Template:
    """A workbook to be filled."""

    def __init__(self, wanted: TemplateBook) -> None:
        self._wanted = wanted

    @property
    def _path(self) -> Path:
        return project_folder() / self._wanted.file

    def problems(self, columns: int) -> list[str]:
        """Say why the workbook cannot take so many columns; empty when it can."""
        file = self._wanted.file
        try:
            with zipfile.ZipFile(self._path) as archive:
                place = self._place(archive)
        except FileNotFoundError:
            return [
                f"the template {file!r} does not exist; its path is relative to the folder that holds config/"
            ]
        except (OSError, zipfile.BadZipFile, KeyError, ParseError):
            return [f"the template {file!r} is no Excel workbook (.xlsx)"]
        except ValueError as error:
            return [f"the template {file!r} {error}"]
        if place.column + columns > COLUMNS:
            return [f"the template {file!r} has no room for {columns} fields right of {self._wanted.at}"]
        return []

    def _place(self, archive: zipfile.ZipFile) -> _Place:
        """Find where the leads begin.

        Raises:
            ValueError: there is no such sheet or name; says which there are.
        """
        book = fromstring(archive.read("xl/workbook.xml"))  # noqa: S314 - the user's own file, as the batch file is
        targets = _targets(archive, "xl/workbook.xml")
        sheets = {
            sheet.get("name", ""): targets[sheet.get(f"{_OFFICE}id", "")]
            for sheet in book.iter(f"{_MAIN}sheet")
        }
        named = {name.get("name", ""): name.text or "" for name in book.iter(f"{_MAIN}definedName")}
        title, _, cell = named.get(self._wanted.at, self._wanted.at).rpartition("!")
        title = title.removeprefix("'").removesuffix("'").replace("''", "'") or next(iter(sheets))
        found = _CELL.fullmatch(cell.upper())
        if found is None:
            known = ", ".join(name for name in named if not name.startswith("_")) or "none"
            raise ValueError(f"has no name {self._wanted.at!r} (its names: {known}), nor is that a cell")
        if title not in sheets:
            raise ValueError(f"has no sheet {title!r}; it has {', '.join(map(repr, sheets))}")
        return _Place(sheets[title], _number(found[1]), int(found[2]))

    def fill(self, source: Source, out: IO[bytes], *, rows: int) -> None:
        """Write the workbook with the leads.

        Raises:
            RenderError: the leads do not fit, or would overwrite something.
        """
        with zipfile.ZipFile(self._path) as archive, zipfile.ZipFile(out, "w") as new:
            place = self._place(archive)
            if place.row - 1 + rows > ROWS:
                raise RenderError(
                    f"{rows} leads do not fit on the template's sheet below row {place.row - 1}",
                    hint="Set select.limit, or leave the template out",
                )
            _Filling(archive, new, place, last_row=place.row + max(rows, 1) - 1).write(source)


def _number(column: str) -> int:
    number = 0
    for letter in column:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _targets(archive: zipfile.ZipFile, part: str) -> dict[str, str]:
    """Return the parts that a part refers to, by the reference's id."""
    path = PurePosixPath(part)
    relationships = str(path.parent / "_rels" / f"{path.name}.rels")
    if relationships not in archive.namelist():
        return {}
    found = {}
    for one in fromstring(archive.read(relationships)):  # noqa: S314 - as above
        if one.get("TargetMode") != "External":
            found[one.get("Id", "")] = _absolute(path.parent, one.get("Target", ""))
    return found


def _absolute(folder: PurePosixPath, target: str) -> str:
    return os.path.normpath("/" + target if target.startswith("/") else f"/{folder}/{target}").lstrip("/")


@dataclass
class _Filling:
    """One template being filled."""

    archive: zipfile.ZipFile
    new: zipfile.ZipFile
    place: _Place
    last_row: int

    def write(self, source: Source) -> None:
        """Copy the package, with the leads in it."""
        styles = Styles(self.archive.read("xl/styles.xml"))
        sheet = _Sheet(self.archive.read(self.place.part), self.place, styles, source.first)
        tables = {name for name in _targets(self.archive, self.place.part).values() if "/tables/" in name}
        changed = {
            "xl/workbook.xml": _calculated_when_opened,
            "xl/_rels/workbook.xml.rels": _without_calculation_order,
            "[Content_Types].xml": _without_calculation_order,
        } | dict.fromkeys(tables, self._stretched)
        for info in self.archive.infolist():
            if info.filename == self.place.part:
                write_blocks(self.new, info, sheet.blocks(source))
            elif info.filename in changed:
                self.new.writestr(timeless(info), changed[info.filename](self.archive.read(info)))
            elif info.filename not in {"xl/styles.xml", "xl/calcChain.xml"} and not info.is_dir():
                write_blocks(self.new, info, read_blocks(self.archive, info))
        self.new.writestr(timeless(self.archive.getinfo("xl/styles.xml")), styles.content())

    def _stretched(self, content: bytes) -> bytes:
        """Let a table that holds the first lead hold them all."""
        from lxml import etree

        root = etree.fromstring(content)
        for one in [root, *root.iter(f"{_MAIN}autoFilter")]:
            corners = re.fullmatch(r"([A-Z]+)(\d+):([A-Z]+)(\d+)", one.get("ref", ""))
            if corners and int(corners[2]) <= self.place.row <= int(corners[4]):
                one.set("ref", f"{corners[1]}{corners[2]}:{corners[3]}{self.last_row}")
        return to_xml(root)


def _calculated_when_opened(content: bytes) -> bytes:
    """Let Excel calculate the template's own formulas, which know nothing of the leads yet."""
    from lxml import etree

    root = etree.fromstring(content)
    calculation = root.find(f"{_MAIN}calcPr")
    if calculation is not None:
        calculation.set("fullCalcOnLoad", "1")
    return to_xml(root)


def _without_calculation_order(content: bytes) -> bytes:
    """Drop the order of calculation, which would name cells that are leads now; Excel makes a new one."""
    return re.sub(rb"<(?:Override|Relationship)\b[^>]*calcChain[^>]*/>", b"", content)


class _Sheet:
    """The sheet that gets the leads."""

    def __init__(self, content: bytes, place: _Place, styles: Styles, first: pl.DataFrame) -> None:
        from lxml import etree

        self._root = etree.fromstring(content)
        self._place = place
        self._data = self._root.find(f"{_MAIN}sheetData")
        pattern = self._cleared(first.width)
        self._row_attributes = _row_attributes(pattern)
        self._styles = [
            _style(pattern, f"{letters(place.column + number)}{place.row}", dtype, styles)
            for number, dtype in enumerate(first.dtypes)
        ]

    def _cleared(self, columns: int) -> Any:
        """Take the pattern row, and empty ones below it, out of the sheet; return it.

        Raises:
            RenderError: something stands there that the leads would overwrite.
        """
        pattern = None
        below = [row for row in self._data if int(row.get("r")) >= self._place.row]
        for row in below:
            is_pattern = int(row.get("r")) == self._place.row
            beside = _filled(row, self._place.column, columns) if is_pattern else _filled(row, 0, 0)
            if beside:
                raise RenderError(
                    f"the template has contents in {beside}, beside or below the first lead",
                    hint="Keep the rows from the first lead on free; put totals above the leads",
                )
            pattern = row if is_pattern else pattern
            self._data.remove(row)
        return pattern

    def blocks(self, source: Source) -> Iterator[bytes]:
        """Yield the sheet with the leads in it."""
        from lxml import etree

        dimension = self._root.find(f"{_MAIN}dimension")
        if dimension is not None:
            self._root.remove(dimension)
        self._data.append(etree.Comment("leads"))
        head, _, tail = to_xml(self._root).partition(_MARK)
        yield head
        row = self._place.row
        while (frame := source.take(1 << 62)) is not None:
            if not frame.is_empty():
                yield self._rows(frame, row)
            row += frame.height
        yield tail

    def _rows(self, frame: pl.DataFrame, first: int) -> bytes:
        import polars as pl

        number = pl.col("row number").cast(pl.String)
        cells = [
            _cell(name, dtype, pl.lit(f'<c r="{letters(self._place.column + at)}') + number, self._styles[at])
            for at, (name, dtype) in enumerate(frame.schema.items())
        ]
        opening = pl.lit('<row r="') + number + pl.lit(f'"{self._row_attributes}>')
        whole = pl.concat_str([opening, *cells, pl.lit("</row>")])
        rows = frame.with_row_index("row number", offset=first).select(whole.alias("row"))
        return "".join(rows["row"]).encode()


def _filled(row: Element, first: int, columns: int) -> str:
    """Return the first cell of a row with contents outside the leads' columns; empty when there is none."""
    for cell in row:
        place = cell.get("r", "")
        is_lead = first <= _number(re.sub(r"\d", "", place)) < first + columns
        if len(cell) and not is_lead:
            return place
    return ""


def _row_attributes(pattern: Any) -> str:
    """Return the height of the pattern row, for every row."""
    if pattern is None or pattern.get("ht") is None:
        return ""
    return f' ht="{float(pattern.get("ht"))}" customHeight="1"'


def _style(pattern: Any, cell: str, dtype: pl.DataType, styles: Styles) -> str:
    """Return the attribute of a column's cells: the style of its pattern, which shows dates as dates."""
    import polars as pl

    cells = {one.get("r"): one for one in pattern} if pattern is not None else {}
    style = int(cells[cell].get("s", "0")) if cell in cells else 0
    if dtype.is_temporal() and styles.number_format(style) == "0":
        style = styles.add(style, _DATE if dtype == pl.Date else _MOMENT)
    return f' s="{style}"' if style else ""


def _cell(name: str, dtype: pl.DataType, head: pl.Expr, style: str) -> pl.Expr:
    """Return a cell's XML for every lead; a lead without a value has the style all the same."""
    import polars as pl

    value = pl.col(name)
    if dtype == pl.Boolean:
        told = pl.lit(f'"{style} t="b"><v>') + value.cast(pl.Int8).cast(pl.String) + pl.lit("</v></c>")
    elif dtype.is_temporal():
        told = pl.lit(f'"{style}><v>') + _serial(value, dtype).cast(pl.String) + pl.lit("</v></c>")
    elif dtype.is_numeric():
        told = pl.lit(f'"{style}><v>') + value.cast(pl.String) + pl.lit("</v></c>")
    else:
        opening = f'"{style} t="inlineStr"><is><t xml:space="preserve">'
        told = pl.lit(opening) + _escaped(value) + pl.lit("</t></is></c>")
    return head + told.fill_null(f'"{style}/>')


def _escaped(text: pl.Expr) -> pl.Expr:
    """Write text for XML; `_x000D_` would be read as the character with that number unless its `_` is written so."""
    plain = text.str.replace_all(r"_x([0-9A-Fa-f]{4})_", "_x005F_x${1}_")
    return plain.str.replace_many(["&", "<", ">"], ["&amp;", "&lt;", "&gt;"])


def _serial(moment: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return days since Excel's day 0; Excel has a 29 February 1900, which there was not."""
    import polars as pl

    if dtype == pl.Date:
        days = moment.cast(pl.Int32) + 25_569
    else:
        days = moment.cast(pl.Datetime("us")).cast(pl.Int64) / 86_400_000_000 + 25_569
    return pl.when(days < 61).then(days - 1).otherwise(days)  # noqa: PLR2004 - 61 is 1 March 1900
