"""Excel workbooks that people open: every value a text cell as it is, a bold header that stays in view, filters.

The workbook is written by Rust code that pulls one frame at a time through the Arrow C stream interface, so that
memory stays the same however many leads there are. Python's part of that interface is `_FrameStream`.
"""

from __future__ import annotations

import ctypes
import errno
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import IO, TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar, Literal

from pydantic import Field

from leadferry.errors import RenderError
from leadferry.formats.base import (
    ControlCharacters,
    FileContext,
    FormatBase,
    Tally,
    columns_where,
    prepared,
    without_control_characters,
)
from leadferry.templates import Template, render

if TYPE_CHECKING:
    import polars as pl

_ROWS = 1_048_576
_COLUMNS = 16_384
_CHARACTERS = 32_767
"""What a sheet and a cell hold: Microsoft, "Excel specifications and limits". Characters are UTF-16 code units."""
_SHEET_NAME = 31

_NARROWEST, _WIDEST = 8.0, 60.0
_MEASURED_ROWS = 100

_CORE_PROPERTIES = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties"'
    ' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:creator>Leadferry</dc:creator></cp:coreProperties>'
)
"""Without `created` and `modified`: the library writes the time of day there, and the same leads must give the same bytes."""

Width = Annotated[float, Field(gt=0, le=255)]


class Xlsx(FormatBase):
    """A workbook with the leads on one sheet (on several where one cannot hold them)."""

    extension: ClassVar[str] = "xlsx"
    media_type: ClassVar[str] = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

    type: Literal["xlsx"] = "xlsx"
    sheet: Template = Field(
        default="Leads",
        description="The sheet's name; what Excel forbids becomes _, and 31 characters are kept.",
    )
    bold_header: bool = True
    freeze_header: bool = Field(default=True, description="Keep the header in view while scrolling.")
    autofilter: bool = Field(default=True, description="Put filter buttons on the header.")
    widths: dict[str, Width] = Field(
        default={},
        description="Column widths in characters, by field; the others fit the header and the first 100 leads.",
    )
    control_characters: ControlCharacters = Field(
        default="remove",
        description="For characters that Excel forbids: remove, replace by U+FFFD (both reported), or fail.",
    )
    too_many_rows: Literal["next_sheet", "fail"] = Field(
        default="next_sheet",
        description="Beyond 1,048,575 leads: go on on another sheet, or fail. Nothing is cut off.",
    )

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`."""
        found = [f"widths has {name!r}, which is no field" for name in self.widths if name not in columns]
        if len(columns) > _COLUMNS:
            found.append(f"{len(columns)} fields are more than the {_COLUMNS} columns of an Excel sheet")
        long = [name for name in columns if _units(name) > _CHARACTERS]
        return found + [f"the name of field {name[:40]!r}… is too long for a cell" for name in long]

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        for problem in self.problems(context.columns):
            raise RenderError(problem, hint="Correct the batch file")
        names = self._sheets(context)
        steps = (
            without_control_characters(self.control_characters),
            _line_breaks,
            _short_enough,
            _wall_clock,
        )
        source = _Source(prepared(frames, context, *steps))
        # Unlinked from the start: lead data must not stay on disk when the process is killed.
        with tempfile.TemporaryFile() as workbook:
            self._write_workbook(source, workbook, names)
            _without_time_of_day(workbook)
            workbook.seek(0)
            shutil.copyfileobj(workbook, out, 1 << 20)

    def _sheets(self, context: FileContext) -> list[str]:
        """Return the names of the sheets that it takes."""
        name = sheet_name(render(self.sheet, context.variables))
        needed = max(1, -(-context.rows // (_ROWS - 1)))
        if needed > 1 and self.too_many_rows == "fail":
            raise RenderError(
                f"{context.rows} leads are more than the {_ROWS - 1} that fit on an Excel sheet",
                hint="Set select.limit, set too_many_rows: next_sheet, or choose another format",
            )
        return [name, *(_numbered(name, number) for number in range(2, needed + 1))]

    def _write_workbook(self, source: _Source, workbook: IO[bytes], names: list[str]) -> None:
        from rustpy_xlsxwriter import write_worksheets

        widths = self._widths(source)
        streams = [_FrameStream(source, rows=_ROWS - 1) for _ in names]
        try:
            write_worksheets(
                list(zip(names, streams, strict=True)),
                # By descriptor, since the library would otherwise gather the whole workbook in memory.
                f"/dev/fd/{workbook.fileno()}",
                freeze_panes={"general": {"row": 1, "col": 0}} if self.freeze_header else None,
                bold_headers=self.bold_header,
                column_widths=dict.fromkeys(names, widths),
                autofilter=dict.fromkeys(names, self.autofilter),
                ignore_errors={name: list(source.first.columns) for name in names},
            )
        except Exception as error:  # noqa: BLE001 - the library raises many kinds, and their texts may hold a value
            # What went wrong while frames were pulled comes back as an I/O error; the cause is in the source.
            if source.error is not None:
                raise source.error from None
            raise RenderError(f"the workbook cannot be written ({type(error).__name__})") from None
        if source.error is not None:
            raise source.error

    def _widths(self, source: _Source) -> list[float]:
        """Return the widths of the columns, the same however the leads are divided into frames."""
        sample = source.peek(_MEASURED_ROWS)
        longest = sample.select(_longest(name) for name in sample.columns).row(0)
        fitting = [
            min(max(len(name) * 1.1 + 3, (most or 0) + 1.0, _NARROWEST), _WIDEST)
            for name, most in zip(sample.columns, longest, strict=True)
        ]
        return [
            float(self.widths.get(name, round(fit, 1)))
            for name, fit in zip(sample.columns, fitting, strict=True)
        ]


def _longest(column: str) -> pl.Expr:
    import polars as pl

    return pl.col(column).cast(pl.String).str.len_chars().max()


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _cut(text: str, units: int) -> str:
    return text.encode("utf-16-le")[: units * 2].decode("utf-16-le", errors="ignore")


def sheet_name(wanted: str) -> str:
    r"""Make a name that Excel takes for a sheet: 31 characters, none of `[ ] : * ? / \`, no apostrophe at the ends.

    Never empty: what leaves nothing becomes `Leads`.
    """
    clean = re.sub(r"[\[\]:*?/\\]", "_", re.sub(r"[\x00-\x1f\x7f\ufffe\uffff]", "", wanted))
    name = _cut(clean.strip().strip("'").strip(), _SHEET_NAME).rstrip(" '")
    if name.casefold() == "history":  # reserved by Excel for tracked changes
        name += "_"
    return name or "Leads"


def _numbered(name: str, number: int) -> str:
    ending = f" ({number})"
    return _cut(name, _SHEET_NAME - len(ending)).rstrip() + ending


def _line_breaks(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """A line break in a cell is a line feed; Excel would show a carriage return as `_x000D_`."""
    import polars as pl

    hits = columns_where(frame, lambda column: column.str.contains("\r", literal=True))
    for name, values in hits.items():
        tally.changed(name, values, "carriage returns written as line feeds")
    return frame.with_columns(pl.col(list(hits)).str.replace_all("\r\n?", "\n")) if hits else frame


def _short_enough(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Excel refuses to open a workbook with a longer text, and cutting it would lose data."""
    import polars as pl

    for name in columns_where(frame, lambda column: column.str.len_bytes() > _CHARACTERS):
        texts = frame[name].filter(frame[name].str.len_bytes() > _CHARACTERS)
        values = sum(_units(text) > _CHARACTERS for text in texts)
        if values:
            hint = "Shorten the field, or choose another format"
            tally.refused(
                name, values, f"are longer than the {_CHARACTERS} characters of an Excel cell", hint=hint
            )
    return frame.with_columns(pl.selectors.decimal().cast(pl.Float64), pl.selectors.time().cast(pl.String))


def _wall_clock(frame: pl.DataFrame, _: Tally) -> pl.DataFrame:
    """Excel knows no time zones: a time is written as its own zone's clock shows it."""
    import polars as pl

    return frame.with_columns(pl.selectors.datetime(time_zone="*").dt.replace_time_zone(None))


class _Source:
    """The frames, as several sheets pull them one after the other, never more rows at once than asked for."""

    def __init__(self, frames: Iterator[pl.DataFrame]) -> None:
        self._frames = frames
        self.first = next(frames)
        self._waiting: list[pl.DataFrame] = [self.first]
        self.error: BaseException | None = None

    def peek(self, rows: int) -> pl.DataFrame:
        """Return the first rows without taking them away."""
        import polars as pl

        while sum(frame.height for frame in self._waiting) < rows:
            frame = next(self._frames, None)
            if frame is None:
                break
            self._waiting.append(frame)
        return pl.concat(self._waiting, how="vertical_relaxed").head(rows)

    def take(self, rows: int) -> pl.DataFrame | None:
        """Return the next frame, at most so many rows of it; None when all rows were taken."""
        frame = next(chain(self._drain(), self._frames), None)
        if frame is None or frame.height <= rows:
            return frame
        self._waiting.insert(0, frame[rows:])
        return frame[:rows]

    def _drain(self) -> Iterator[pl.DataFrame]:
        while self._waiting:
            yield self._waiting.pop(0)


class _ArrowSchema(ctypes.Structure):
    """Only passed on, so its inside does not matter."""


class _ArrowArray(ctypes.Structure):
    _fields_: ClassVar = [
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.c_void_p),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


class _ArrowArrayStream(ctypes.Structure):
    pass


_GetSchema = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_ArrowArrayStream), ctypes.POINTER(_ArrowSchema))
_GetNext = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_ArrowArrayStream), ctypes.POINTER(_ArrowArray))
_GetLastError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ArrowArrayStream))
_Release = ctypes.CFUNCTYPE(None, ctypes.POINTER(_ArrowArrayStream))
_ArrowArrayStream._fields_ = [  # after the class, because its functions take a pointer to it
    ("get_schema", _GetSchema),
    ("get_next", _GetNext),
    ("get_last_error", _GetLastError),
    ("release", _Release),
    ("private_data", ctypes.c_void_p),
]

_CAPSULE = b"arrow_array_stream"
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


class _FrameStream:
    """The rows of one sheet, pulled frame by frame: https://arrow.apache.org/docs/format/CStreamInterface.html.

    polars hands over only frames that are already there; this stands before it and asks for the next frame when the
    last one is used up. The object must live as long as the stream is read.
    """

    def __init__(self, source: _Source, *, rows: int) -> None:
        self._source = source
        self._left = rows
        self._capsule: object = None
        self._stream = _ArrowArrayStream(
            _GetSchema(self._get_schema),
            _GetNext(self._get_next),
            _GetLastError(_no_message),
            _Release(_release),
        )

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the stream as Arrow's PyCapsule interface wants it."""
        return _new_capsule(ctypes.addressof(self._stream), _CAPSULE, None)

    def _get_schema(self, _: Any, schema: Any) -> int:
        stream, self._capsule = _stream_of(self._source.first.clear())
        return int(stream.get_schema(ctypes.byref(stream), schema))

    def _get_next(self, _: Any, array: Any) -> int:
        try:
            frame = self._source.take(self._left) if self._left else None
            if frame is None:
                array.contents.release = None  # says that the stream has ended
                return 0
            self._left -= frame.height
            stream, self._capsule = _stream_of(frame.cast(self._source.first.schema).rechunk())
            return int(stream.get_next(ctypes.byref(stream), array))
        except BaseException as error:  # noqa: BLE001 - nothing may be raised through C; `write` raises it again
            self._source.error = error
            return errno.EIO


def _stream_of(frame: pl.DataFrame) -> tuple[Any, object]:
    """Return polars' own stream of a frame, and the capsule that keeps it alive."""
    capsule = frame.__arrow_c_stream__()
    return _ArrowArrayStream.from_address(_capsule_pointer(capsule, _CAPSULE)), capsule


def _no_message(_: Any) -> None:
    return None


def _release(stream: Any) -> None:
    """Mark the stream as released; its memory belongs to the `_FrameStream`."""
    stream.contents.release = _Release()


def _without_time_of_day(workbook: IO[bytes]) -> None:
    """Write the document properties anew, without the time at which the workbook was made.

    They are the last parts of the archive, so the archive is continued from where they begin
    and nothing before them is compressed again.
    """
    workbook.seek(0)
    with zipfile.ZipFile(workbook, "a") as archive:
        core = archive.getinfo("docProps/core.xml")
        last = [info for info in archive.infolist() if info.header_offset >= core.header_offset]
        contents = [(info, archive.read(info)) for info in last]
        for info in last:
            archive.filelist.remove(info)
            del archive.NameToInfo[info.filename]
        archive.start_dir = core.header_offset
        for info, content in contents:
            _add(archive, info, _CORE_PROPERTIES.encode() if info is core else content)


def _add(archive: zipfile.ZipFile, like: zipfile.ZipInfo, content: bytes) -> None:
    info = zipfile.ZipInfo(like.filename, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = like.external_attr
    archive.writestr(info, content)
