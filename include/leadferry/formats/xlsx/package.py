"""The written workbook, gone over once more: what the library cannot say, and the time of day that it does say.

A workbook is a ZIP archive of XML parts. The small parts stand at its end and are replaced there, so nothing large is
compressed again. Only where cells need more (values of formulas, links) is the whole archive copied, part by part,
the sheets in pieces of whole rows.
"""

from __future__ import annotations

import copy
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr

from leadferry.formats.xlsx.formulas import NO_VALUE
from leadferry.formats.xlsx.names import letters

_CORE = "docProps/core.xml"
_STYLES = "xl/styles.xml"
_BLOCK = 1 << 20
_LARGE = 1 << 31
_EPOCH = (1980, 1, 1, 0, 0, 0)

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_HYPERLINK = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"
_RELATIONSHIPS = (
    b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"></Relationships>'
)

Patch = Callable[[bytes], bytes]
"""Makes a part of the archive new."""


def core_properties(*, author: str, title: str = "", created: str = "") -> bytes:
    """Return the document properties; without the time of day, since the same leads must give the same bytes.

    Args:
        author: who made the workbook.
        title: what it is called; none when empty.
        created: the moment in UTC, `2026-01-31T14:00:00Z`; none when empty.
    """
    parts = [f"<dc:title>{escape(title)}</dc:title>"] if title else []
    parts.append(f"<dc:creator>{escape(author)}</dc:creator>")
    parts += [
        f'<dcterms:{name} xsi:type="dcterms:W3CDTF">{created}</dcterms:{name}>'
        for name in ("created", "modified")
        if created
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<cp:coreProperties'
        ' xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/"'
        f' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">{"".join(parts)}</cp:coreProperties>'
    ).encode()


def patch_end(workbook: IO[bytes], patches: Mapping[str, Patch]) -> None:
    """Replace parts at the end of the archive, from the document properties on.

    The archive is continued from where they begin, and nothing before them is compressed again.
    """
    workbook.seek(0)
    with zipfile.ZipFile(workbook, "a") as archive:
        core = archive.getinfo(_CORE)
        last = [info for info in archive.infolist() if info.header_offset >= core.header_offset]
        contents = [(info, archive.read(info)) for info in last]
        for info in last:
            archive.filelist.remove(info)
            del archive.NameToInfo[info.filename]
        archive.start_dir = core.header_offset
        for info, content in contents:
            archive.writestr(timeless(info), patches.get(info.filename, bytes)(content))


def timeless(like: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return the archive's entry for a part, without a time of day."""
    info = zipfile.ZipInfo(like.filename, date_time=_EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = like.external_attr
    return info


@dataclass
class SheetPatch:
    """What one sheet still needs."""

    formulas: Mapping[str, str] = field(default_factory=dict)
    """By the letters of the column: the formula, with `{row}`."""
    totals: Mapping[str, tuple[str, float | None]] = field(default_factory=dict)
    """By the letters of the column: the formula of its total, and the result."""
    totals_row: int = 0
    columns: int = 0
    """How many the sheet has."""
    links: Sequence[tuple[str, str]] = ()
    """Cells, and the addresses that they lead to."""

    def rewrite(self, blocks: Iterator[bytes], styles: Styles) -> Iterator[bytes]:
        """Yield the sheet anew, from blocks that need not end where a row ends."""
        cells, rest = self._formula_cells(), b""
        for block in blocks:
            if b"<cols>" in block:
                styles.of_columns = _column_styles(block)
            rows, end, rest = (rest + block).rpartition(b"</row>")
            yield self._with_formulas(cells, rows + end, styles)
        head, end, tail = rest.partition(b"</sheetData>")
        yield self._with_formulas(cells, head, styles) + end + self._with_links(tail)

    def _formula_cells(self) -> re.Pattern[bytes] | None:
        if not self.formulas and not self.totals:
            return None
        columns = b"|".join(column.encode() for column in {*self.formulas, *self.totals})
        return re.compile(
            rb'<c r="(' + columns + rb')(\d+)"( s="\d+")?(?: t="str")?>(?:<f>[^<]*</f>)?<v>([^<]*)</v></c>'
        )

    def _with_formulas(self, cells: re.Pattern[bytes] | None, rows: bytes, styles: Styles) -> bytes:
        if cells is None:
            return rows
        changed = cells.sub(lambda match: self._cell(match, styles), rows)
        before, opening, after = changed.partition(b'<row r="%d"' % self.totals_row)
        if not self.totals or not opening:
            return changed
        return before + opening + self._across(after)

    def _across(self, row: bytes) -> bytes:
        """Give the totals row a cell in every column, so that its line has no gaps."""
        start, rest = row.split(b">", 1)
        cells, end, behind = rest.partition(b"</row>")
        there = dict(re.findall(rb'(?s)<c r="([A-Z]+)\d+"((?:(?!</c>).)*</c>)', cells))
        style = min(re.findall(rb' s="\d+"', cells), key=len, default=b"")
        whole = []
        for number in range(self.columns):
            column = letters(number).encode()
            cell = b'<c r="%s%d"' % (column, self.totals_row)
            whole.append(cell + there.get(column, style + b"/>"))
        return start + b">" + b"".join(whole) + end + behind

    def _cell(self, match: re.Match[bytes], styles: Styles) -> bytes:
        column, row, style, value = match.groups()
        place = column.decode()
        if int(row) == self.totals_row:
            if place not in self.totals:
                return match[0]
            return _formula(column + row, styles.total(style, place), *self.totals[place])
        if place not in self.formulas:
            return match[0]
        formula = self.formulas[place].replace("{row}", row.decode())
        number = float(value)
        return _formula(column + row, style, formula, None if number == NO_VALUE else number)

    def _with_links(self, tail: bytes) -> bytes:
        if not self.links:
            return tail
        links = "".join(
            f'<hyperlink ref="{cell}" r:id="link{number}"/>'
            for number, (cell, _) in enumerate(self.links, start=1)
        )
        at = re.search(rb"<printOptions|<pageMargins", tail)
        place = at.start() if at else 0
        return tail[:place] + f"<hyperlinks>{links}</hyperlinks>".encode() + tail[place:]

    def relationships(self, content: bytes) -> bytes:
        """Return the sheet's relationships with the addresses of its links."""
        told = "".join(
            f'<Relationship Id="link{number}" Type="{_HYPERLINK}" Target={quoteattr(address)} TargetMode="External"/>'
            for number, (_, address) in enumerate(self.links, start=1)
        )
        return content.replace(b"</Relationships>", told.encode() + b"</Relationships>")


def _formula(cell: bytes, style: bytes | None, formula: str, value: float | None) -> bytes:
    """Return a cell with a formula and its value, for readers that calculate nothing."""
    head = b'<c r="' + cell + b'"' + (style or b"")
    told = escape(formula).encode()
    if value is None:
        return head + b' t="str"><f>' + told + b"</f><v></v></c>"
    return head + b"><f>" + told + b"</f><v>" + repr(value).removesuffix(".0").encode() + b"</v></c>"


def _column_styles(head: bytes) -> dict[str, int]:
    """Return the style of each column that has one, by letters, as the sheet's head says."""
    found: dict[str, int] = {}
    for first, last, style in re.findall(rb'<col min="(\d+)" max="(\d+)"[^>]*? style="(\d+)"', head):
        found |= {letters(column - 1): int(style) for column in range(int(first), int(last) + 1)}
    return found


class Styles:
    """The workbook's styles: a total looks like the totals row, and shows numbers as its column does."""

    def __init__(self, content: bytes) -> None:
        from lxml import etree

        self._root = etree.fromstring(content)
        self._formats = self._root.find(f"{_MAIN}cellXfs")
        self._known: dict[tuple[int, int], int] = {}
        self.of_columns: dict[str, int] = {}
        """The styles of the sheet that is being written."""

    def total(self, style: bytes | None, column: str) -> bytes | None:
        """Return the attribute of a total's cell."""
        if style is None or column not in self.of_columns:
            return style
        number = self.shown_as(int(re.sub(rb"\D", b"", style)), self.of_columns[column])
        return b' s="%d"' % number

    def shown_as(self, looks: int, numbers: int) -> int:
        """Return the style that has the looks of one, and shows numbers where and as another does."""
        if (looks, numbers) not in self._known:
            new = self.add(looks, self.number_format(numbers))
            for alignment in self._formats[numbers].iterchildren(f"{_MAIN}alignment"):
                self._formats[new].append(copy.deepcopy(alignment))
                self._formats[new].set("applyAlignment", "1")
            self._known[looks, numbers] = new
        return self._known[looks, numbers]

    def add(self, looks: int, number_format: str) -> int:
        """Add a style that differs from another in its number format, and return its number."""
        new = copy.deepcopy(self._formats[looks])
        new.set("numFmtId", number_format)
        new.set("applyNumberFormat", "1")
        self._formats.append(new)
        self._formats.set("count", str(len(self._formats)))
        return len(self._formats) - 1

    def number_format(self, style: int) -> str:
        """Return the number of a style's number format; `0` shows everything as it comes."""
        return str(self._formats[style].get("numFmtId", "0"))

    def content(self) -> bytes:
        """Return the part."""
        return to_xml(self._root)


def to_xml(root: Any) -> bytes:
    """Return a part as Excel writes it."""
    from lxml import etree

    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True))


def copy_patched(
    workbook: IO[bytes], out: IO[bytes], sheets: Mapping[int, SheetPatch], patches: Mapping[str, Patch]
) -> None:
    """Copy the archive; `sheets` are numbered from 1, as the library numbers their parts."""
    workbook.seek(0)
    with zipfile.ZipFile(workbook) as old, zipfile.ZipFile(out, "w") as new:
        styles = Styles(old.read(_STYLES))
        by_name = {f"xl/worksheets/sheet{number}.xml": patch for number, patch in sheets.items()}
        all_patches = dict(patches) | _relationship_patches(sheets)
        for info in old.infolist():
            if info.filename in by_name:
                blocks = by_name[info.filename].rewrite(read_blocks(old, info), styles)
                write_blocks(new, info, blocks)
            elif info.filename != _STYLES:
                patch = all_patches.pop(info.filename, None)
                if patch is None:
                    write_blocks(new, info, read_blocks(old, info))
                else:
                    new.writestr(timeless(info), patch(old.read(info)))
        new.writestr(timeless(old.getinfo(_STYLES)), styles.content())
        for name in sorted(all_patches.keys() - patches.keys()):
            new.writestr(timeless(zipfile.ZipInfo(name)), all_patches[name](_RELATIONSHIPS))


def _relationship_patches(sheets: Mapping[int, SheetPatch]) -> dict[str, Patch]:
    return {
        f"xl/worksheets/_rels/sheet{number}.xml.rels": patch.relationships
        for number, patch in sheets.items()
        if patch.links
    }


def read_blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield a part in blocks."""
    with archive.open(info) as part:
        while block := part.read(_BLOCK):
            yield block


def write_blocks(archive: zipfile.ZipFile, like: zipfile.ZipInfo, blocks: Iterable[bytes]) -> None:
    """Write a part from blocks."""
    # Formulas make a sheet larger, at most about three times.
    with archive.open(timeless(like), "w", force_zip64=like.file_size > _LARGE // 3) as part:
        for block in blocks:
            part.write(block)
