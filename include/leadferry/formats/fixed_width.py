"""Fixed width: every value at its position, for mainframes and old import programs.

Nothing marks where a value ends, so a value that is too long would become a part of the next one: it is refused, or
cut where the batch file allows it, and told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leadferry.formats.base import FileContext, FormatBase, Tally, prepared, refuse_bad_columns
from leadferry.formats.text import (
    LINE_ENDINGS,
    Encoding,
    OneLine,
    Unencodable,
    codec_name,
    control_record,
    encodable,
    encoder,
    fits,
    on_one_line,
)

if TYPE_CHECKING:
    import polars as pl


class Column(BaseModel):
    """Where a field stands in the line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="The field's label, as written under `to`.")
    start: int | None = Field(
        default=None, ge=1, description="Position of its first character, from 1; after the column before."
    )
    width: int = Field(ge=1, le=100_000, description="How many characters it has.")
    align: Literal["left", "right"] = "left"
    pad: str = Field(default=" ", min_length=1, max_length=1, description="Fills up shorter values.")
    overflow: Literal["fail", "cut"] = Field(
        default="fail", description="For longer values: fail, or keep the first characters (reported)."
    )


class FixedWidth(FormatBase):
    """One line per lead, every value at a position of its own; widths are characters."""

    extension: ClassVar[str] = "txt"
    media_type: ClassVar[str] = "text/plain"
    takes_control_records: ClassVar[bool] = True

    type: Literal["fixed_width"] = "fixed_width"
    columns: list[Column] = Field(min_length=1, description="Every field of the batch, from left to right.")
    line_width: int | None = Field(
        default=None,
        ge=1,
        description="Fill lines up to so many characters; otherwise the last column ends it.",
    )
    header: bool = Field(default=False, description="Whether the first line holds the fields' names.")
    line_ending: Literal["crlf", "lf", "none"] = Field(
        default="crlf", description="With none, lines follow each other."
    )
    encoding: Encoding = Field(
        default="utf-8", description="ascii, windows-1252, cp037 (EBCDIC), utf-8, any Python codec."
    )
    unencodable: Unencodable = Field(
        default="fail",
        description="For characters that the encoding lacks: fail, write ?, or write the nearest letters it has.",
    )
    control_characters: OneLine = Field(
        default="replace", description="For line breaks, tabs and the like: a space each (reported), or fail."
    )

    @model_validator(mode="after")
    def _columns_stand_side_by_side(self) -> Self:
        names = [column.name for column in self.columns]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"column {name!r} stands twice")
        for column, start, end in self._places():
            if column.start is not None and column.start <= end:
                raise ValueError(
                    f"column {column.name!r} starts at {column.start}, where the one before still is"
                )
            if self.line_width is not None and start + column.width - 1 > self.line_width:
                raise ValueError(f"column {column.name!r} does not fit into a line of {self.line_width}")
            if not fits(column.pad, codec_name(self.encoding)) or not column.pad.isprintable():
                raise ValueError(f"the pad of column {column.name!r} cannot be written in {self.encoding}")
        return self

    def _places(self) -> Iterator[tuple[Column, int, int]]:
        """Yield each column with its first position and the last position of what is before it."""
        end = 0
        for column in self.columns:
            start = column.start or end + 1
            yield column, start, end
            end = start + column.width - 1

    @property
    def label_rows(self) -> int:
        """See `FormatBase.label_rows`."""
        return int(self.header)

    @property
    def _width(self) -> int:
        """How many characters every line has, its ending aside."""
        *_, (last, start, _) = self._places()
        return max(self.line_width or 0, start + last.width - 1)

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`: every field has a place, and its label fits if there is a header."""
        known = {column.name: column for column in self.columns}
        told = [f"field {name!r} has no place: add it to columns" for name in columns if name not in known]
        told += [
            f"columns has {name!r}, which is no field; there is {', '.join(columns)}"
            for name in known
            if name not in columns
        ]
        if not self.header:
            return told
        labels = [known[name] for name in columns if name in known]
        told += [
            f"the label {one.name!r} is longer than its {one.width} characters"
            for one in labels
            if len(one.name) > one.width
        ]
        codec = codec_name(self.encoding)
        return told + [
            f"the label {one.name!r} cannot be written in {self.encoding}"
            for one in labels
            if not fits(one.name, codec) or not one.name.isprintable()
        ]

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        refuse_bad_columns(self, context)
        mark, encode = encoder(self.encoding)
        end = LINE_ENDINGS[self.line_ending]
        record = partial(control_record, encoding=self.encoding, end=end, encode=encode, width=self._width)
        out.write(mark + record(context.first_line))
        if self.header:
            out.write(encode(self._header()))
        steps = (
            on_one_line(self.control_characters),
            encodable(self.encoding, self.unencodable),
            self._fitting,
        )
        out.writelines(encode(self._lines(frame)) for frame in prepared(frames, context, *steps))
        out.write(record(context.last_line()))

    def _header(self) -> str:
        labels = "".join(
            " " * (start - end - 1) + column.name.ljust(column.width) for column, start, end in self._places()
        )
        return labels.ljust(self.line_width or 0) + LINE_ENDINGS[self.line_ending]

    def _fitting(self, frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        """See that no value is longer than its column."""
        import polars as pl

        widths = {column.name: column.width for column in self.columns}
        too_long = frame.select(
            (pl.col(name).str.len_chars() > width).sum() for name, width in widths.items()
        )
        counts = too_long.row(0, named=True)
        cut = []
        for column in self.columns:
            if not counts[column.name]:
                continue
            if column.overflow == "fail":
                hint = "Give the column more width, set overflow: cut, or correct the leads"
                told = f"are longer than {column.width} characters"
                tally.refused(column.name, counts[column.name], told, hint=hint)
            else:
                tally.changed(column.name, counts[column.name], f"cut to {column.width} characters")
                cut.append(pl.col(column.name).str.head(column.width))
        return frame.with_columns(cut)

    def _lines(self, frame: pl.DataFrame) -> str:
        import polars as pl

        parts: list[pl.Expr] = []
        width = 0
        for column, start, end in self._places():
            if start > end + 1:
                parts.append(pl.lit(" " * (start - end - 1)))
            parts.append(_placed(column))
            width = start + column.width - 1
        rest = " " * max((self.line_width or 0) - width, 0) + LINE_ENDINGS[self.line_ending]
        lines = frame.select(line=pl.concat_str([*parts, pl.lit(rest)]))
        return "".join(lines["line"].to_list())


def _placed(column: Column) -> pl.Expr:
    """Return the column's values at their full width; spaces where a lead has no value, whatever the padding."""
    import polars as pl

    value = pl.col(column.name)
    if column.align == "left":
        filled = value.str.pad_end(column.width, column.pad)
    elif column.pad == "0":
        filled = value.str.zfill(column.width)  # -5 becomes -0005, not 000-5
    else:
        filled = value.str.pad_start(column.width, column.pad)
    return pl.when(value != "").then(filled).otherwise(pl.lit(" " * column.width))
