"""Lines of `name=value`, a blank line between leads: what some mail readers and old import programs take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, BinaryIO, ClassVar, Literal

from pydantic import AfterValidator, Field

from leadferry.formats.base import FileContext, FormatBase, prepared, refuse_bad_columns
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


def _on_the_line(value: str) -> str:
    if not value.isprintable() and value != "\t":
        raise ValueError("must be printable characters, or a tab")
    return value


class NameValue(FormatBase):
    """One `name=value` per line; the first separator ends the name, the line's end ends the value."""

    extension: ClassVar[str] = "txt"
    media_type: ClassVar[str] = "text/plain"
    takes_control_records: ClassVar[bool] = True

    type: Literal["name_value"] = "name_value"
    separator: Annotated[str, AfterValidator(_on_the_line)] = Field(
        default="=",
        min_length=1,
        max_length=3,
        description="Between name and value, such as = or a colon and a space.",
    )
    null: Annotated[str, AfterValidator(_on_the_line)] = Field(
        default="", description="Written where a lead has no value."
    )
    line_ending: Literal["crlf", "lf"] = "crlf"
    encoding: Encoding = Field(
        default="utf-8", description="ascii, windows-1252, utf-8, utf-8-sig (with BOM), any Python codec."
    )
    unencodable: Unencodable = Field(
        default="fail",
        description="For characters that the encoding lacks: fail, write ?, or write the nearest letters it has.",
    )
    control_characters: OneLine = Field(
        default="replace", description="For line breaks, tabs and the like: a space each (reported), or fail."
    )

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`: a name must end where the separator begins."""
        codec = codec_name(self.encoding)
        told = [
            f"field {name!r} holds the separator {self.separator!r} or a line break"
            for name in columns
            if self.separator in f"{name}{self.separator}"[:-1] or not name.isprintable()
        ]
        told += [
            f"field {name!r} cannot be written in {self.encoding}"
            for name in columns
            if not fits(name, codec)
        ]
        if not fits(self.separator + self.null, codec):
            told.append(f"separator or null cannot be written in {self.encoding}")
        return told

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        refuse_bad_columns(self, context)
        mark, encode = encoder(self.encoding)
        end = LINE_ENDINGS[self.line_ending]
        record = partial(control_record, encoding=self.encoding, end=end, encode=encode)
        out.write(mark + record(context.first_line))
        between = "" if context.first_line is None else end
        steps = on_one_line(self.control_characters), encodable(self.encoding, self.unencodable)
        for frame in prepared(frames, context, *steps):
            if not frame.is_empty():
                out.write(encode(between + end.join(self._leads(frame, end))))
                between = end
        if last := record(context.last_line()):
            out.write(encode(between) + last)

    def _leads(self, frame: pl.DataFrame, end: str) -> list[str]:
        import polars as pl

        lines = [
            part
            for name in frame.columns
            for part in (
                pl.lit(f"{name}{self.separator}"),
                pl.col(name).fill_null(pl.lit(self.null)),
                pl.lit(end),
            )
        ]
        return frame.select(lead=pl.concat_str(lines))["lead"].to_list()
