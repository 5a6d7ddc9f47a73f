"""Delimited text: what nearly every buyer's system takes.

UTF-8 goes from polars to the file in blocks, without a step per lead; every other encoding is made from that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from leadferry.errors import RenderError
from leadferry.formats.base import (
    FileContext,
    FormatBase,
    Tally,
    columns_where,
    prepared,
    refuse_bad_columns,
    text_columns,
)
from leadferry.formats.text import (
    LINE_ENDINGS,
    Encoding,
    Unencodable,
    codec_name,
    control_record,
    encodable,
    encoder,
    fits,
)

if TYPE_CHECKING:
    import polars as pl

_NAMED_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_QUOTE_STYLES: dict[str, Any] = {
    "minimal": "necessary",
    "all": "always",
    "non_numeric": "non_numeric",
    "never": "never",
}

_DAY_CODES = frozenset(
    ["%Y", "%y", "%m", "%-m", "%B", "%b", "%d", "%-d", "%e", "%j", "%A", "%a", "%G", "%V", "%u", "%F", "%%"]
)
_CLOCK_CODES = frozenset(["%H", "%-H", "%I", "%-I", "%M", "%S", "%p", "%z", "%:z", "%T", "%R"])
_ISO = {"date": "%Y-%m-%d", "datetime": "%Y-%m-%dT%H:%M:%S%.6f", "time": "%H:%M:%S%.9f"}

_FORMULA = r"^\s*[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]"
"""How text begins that spreadsheets run, the full-width signs of Japanese editions included.

See https://owasp.org/www-community/attacks/CSV_Injection; white space before the sign is cut off by some programs.
"""
_NUMBER = r"^\s*[+\-][$€£¥]?[0-9\s.,()/\-]*(?:[eE][+\-]?[0-9]+|%|\s?(?:x|ext\.?)\s?[0-9]+)?$"
"""Negative numbers, international phone numbers, dashes that stand for "none": begin the same, but do no harm."""


def _character(value: Any) -> Any:
    return _NAMED_DELIMITERS.get(value, value) if isinstance(value, str) else value


def _one_ascii_character(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value in "\0\r\n":
        raise ValueError(
            "must be exactly one ASCII character and no line break, or one of comma, semicolon, tab, pipe"
        )
    return value


def _known_codes(pattern: str, codes: frozenset[str]) -> str:
    used = re.findall(r"%[-:]?.?", pattern)
    for code in used:
        if code not in codes:
            raise ValueError(f"{code!r} is no date code here; there are {' '.join(sorted(codes))}")
    if not used:
        raise ValueError("has no date code; write for example %m/%d/%Y")
    return pattern


def _day_codes(pattern: str) -> str:
    return _known_codes(pattern, _DAY_CODES)


def _moment_codes(pattern: str) -> str:
    return _known_codes(pattern, _DAY_CODES | _CLOCK_CODES)


Character = Annotated[str, AfterValidator(_one_ascii_character)]


class Csv(FormatBase):
    """Delimited text, by default as RFC 4180 says: commas, double quotes where needed, CRLF."""

    extension: ClassVar[str] = "csv"
    media_type: ClassVar[str] = "text/csv"
    takes_control_records: ClassVar[bool] = True

    type: Literal["csv"] = "csv"
    delimiter: Annotated[Character, BeforeValidator(_character)] = Field(
        default=",", description="Between the values: one ASCII character, or comma, semicolon, tab, pipe."
    )
    quote: Character = Field(default='"', description="Around values that need it.")
    quoting: Literal["minimal", "all", "non_numeric", "never"] = Field(
        default="minimal",
        description=(
            "Which values are quoted: those that need it, all, those that are not numbers by type, or none"
            " (then a value with a delimiter or a line break is an error, unless escape is backslash)."
        ),
    )
    escape: Literal["double", "backslash"] = Field(
        default="double",
        description="How a quote inside a value is written: twice, or with a backslash before it (and before each \\).",
    )
    header: bool = Field(default=True, description="Whether the first line holds the fields' names.")
    line_ending: Literal["crlf", "lf"] = Field(default="crlf", description="RFC 4180 asks for crlf.")
    encoding: Encoding = Field(
        default="utf-8",
        description="utf-8, utf-8-sig (with BOM), ascii, windows-1252, utf-16, any Python codec.",
    )
    unencodable: Unencodable = Field(
        default="fail",
        description="For characters that the encoding lacks: fail, write ?, or write the nearest letters it has.",
    )
    null: str = Field(default="", description="Written where a lead has no value.")
    decimal_mark: Literal[".", ","] = Field(
        default=".",
        description="In numbers by type; numbers that are text are written as their transforms left them.",
    )
    date_format: Annotated[str, AfterValidator(_day_codes)] | None = Field(
        default=None, description="For dates by type, such as %m/%d/%Y; ISO 8601 when left out."
    )
    datetime_format: Annotated[str, AfterValidator(_moment_codes)] | None = Field(
        default=None, description="For moments by type, such as %d.%m.%Y %H:%M; ISO 8601 when left out."
    )
    spreadsheet_safe: bool = Field(
        default=True, description="Put an apostrophe before text that a spreadsheet would run as a formula."
    )

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.delimiter == self.quote:
            raise ValueError("delimiter and quote must be different characters")
        if self.escape == "backslash" and "\\" in (self.delimiter, self.quote):
            raise ValueError("delimiter and quote must not be the backslash that escapes them")
        if self.quoting == "never" and self.escape == "double" and self.delimiter == self.decimal_mark:
            raise ValueError("without quotes, delimiter and decimal_mark must be different characters")
        if any(sign in self.null for sign in (self.delimiter, self.quote, "\r", "\n")):
            raise ValueError("null must not hold the delimiter, the quote or a line break")
        if not fits(self.null, codec_name(self.encoding)):
            raise ValueError(f"null cannot be written in {self.encoding}")
        return self

    @property
    def label_rows(self) -> int:
        """See `FormatBase.label_rows`."""
        return int(self.header)

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`: labels are never changed, so they must be writable as they are."""
        if not self.header:
            return []
        codec = codec_name(self.encoding)
        signs = (self.delimiter, "\r", "\n")
        unwritable = [name for name in columns if not fits(name, codec)]
        unquoted = [
            name for name in columns if self._has_no_way_for_signs and any(sign in name for sign in signs)
        ]
        return [f"field {name!r} cannot be written in {self.encoding}" for name in unwritable] + [
            f"field {name!r} needs quotes, and quoting is never" for name in unquoted
        ]

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        refuse_bad_columns(self, context)
        mark, encode = encoder(self.encoding)
        record = partial(
            control_record, encoding=self.encoding, end=LINE_ENDINGS[self.line_ending], encode=encode
        )
        out.write(mark + record(context.first_line))
        is_utf8 = codec_name(self.encoding) in {"utf-8", "utf-8-sig"}
        steps = encodable(self.encoding, self.unencodable), self._harmless, self._told, self._unambiguous
        header = self.header
        for frame in prepared(frames, context, *steps):
            block = BytesIO()
            if self.escape == "double":
                self._write_block(frame, block, header=header)
            else:
                self._write_escaped(frame, block, header=header)
            out.write(block.getbuffer() if is_utf8 else encode(block.getvalue().decode()))
            header = False
        out.write(record(context.last_line()))

    def _write_block(self, frame: pl.DataFrame, block: BytesIO, *, header: bool) -> None:
        frame.write_csv(
            block,
            include_header=header,
            separator=self.delimiter,
            quote_char=self.quote,
            quote_style=_QUOTE_STYLES[self.quoting],
            line_terminator=LINE_ENDINGS[self.line_ending],
            null_value=self.null,
            decimal_comma=self.decimal_mark == ",",
        )

    def _write_escaped(self, frame: pl.DataFrame, block: BytesIO, *, header: bool) -> None:
        """Do what polars cannot: backslashes before quotes, or before delimiters where there are no quotes."""
        import polars as pl

        labels = pl.DataFrame({name: [name] for name in frame.columns})
        for part in (labels, frame) if header else (frame,):
            cells = [self._escaped(name, dtype) for name, dtype in part.schema.items()]
            lines = pl.concat_str(cells, separator=self.delimiter) + LINE_ENDINGS[self.line_ending]
            block.writelines(line.encode() for line in part.select(line=lines)["line"].to_list())

    def _escaped(self, name: str, dtype: pl.DataType) -> pl.Expr:
        import polars as pl

        value = pl.col(name).cast(pl.String)
        if dtype.is_numeric():
            value = value.str.replace(".", self.decimal_mark, literal=True)
        # A null is never quoted here: \N outside of quotes is what databases read as null.
        return self._quoted(value, is_number=dtype.is_numeric()).fill_null(pl.lit(self.null))

    def _quoted(self, value: pl.Expr, *, is_number: bool) -> pl.Expr:
        import polars as pl

        if self.quoting == "never":
            return value.str.replace_many({sign: f"\\{sign}" for sign in ("\\", self.delimiter, "\r", "\n")})
        inside = value.str.replace_many({sign: f"\\{sign}" for sign in ("\\", self.quote)})
        whole = pl.concat_str([pl.lit(self.quote), inside, pl.lit(self.quote)])
        if self.quoting == "all" or (self.quoting == "non_numeric" and not is_number):
            return whole
        needed = value.str.contains_any(["\\", self.quote, self.delimiter, "\r", "\n"]) | (value == "")
        return pl.when(needed).then(whole).otherwise(value)

    @property
    def _has_no_way_for_signs(self) -> bool:
        """Whether a delimiter or a line break inside a value cannot be told from a real one."""
        return self.quoting == "never" and self.escape == "double"

    def _told(self, frame: pl.DataFrame, _: Tally) -> pl.DataFrame:
        """Write dates, moments and times of day as text where polars would not write them as wanted."""
        import polars as pl

        texts = []
        for name, dtype in frame.schema.items():
            if isinstance(dtype, pl.Datetime):
                zone = dtype.time_zone is not None
                wanted = self.datetime_format or _ISO["datetime"] + ("%z" if zone else "")
                if not zone and ("%z" in wanted or "%:z" in wanted):
                    raise RenderError(
                        f"column {name!r} holds moments without a zone, and datetime_format asks for it"
                    )
            elif dtype in (pl.Date, pl.Time):
                wanted = (self.date_format if dtype == pl.Date else None) or _ISO[str(dtype).lower()]
            else:
                continue
            texts.append(pl.col(name).dt.to_string(wanted))
        return frame.with_columns(texts) if texts else frame

    def _harmless(self, frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        import polars as pl

        if not self.spreadsheet_safe:
            return frame
        suspects = list(columns_where(frame, lambda column: column.str.contains(_FORMULA)))
        hits = columns_where(frame.select(suspects), _runs)
        for name, values in hits.items():
            tally.changed(name, values, "apostrophe put before what a spreadsheet would run as a formula")
        return frame.with_columns(
            pl.when(_runs(pl.col(name))).then("'" + pl.col(name)).otherwise(pl.col(name)).alias(name)
            for name in hits
        )

    def _unambiguous(self, frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        """See that every line can be read back: nothing that needs quotes without them, no empty lines."""
        import polars as pl

        signs = [self.delimiter, "\r", "\n"]
        if self._has_no_way_for_signs:
            hint = "Set quoting: minimal, escape: backslash, or another delimiter"
            for name, values in columns_where(frame, lambda column: column.str.contains_any(signs)).items():
                tally.refused(name, values, "need quotes, and quoting is never", hint=hint)
        if frame.width > 1 or self.null:
            return frame
        # A line with one empty value is an empty line, which readers skip; "" is not skipped.
        filled = frame.with_columns(pl.col(text_columns(frame)).fill_null(""))
        empty = columns_where(filled, lambda column: column == "") if self.quoting == "never" else {}
        for name, values in empty.items():
            tally.refused(name, values, "would be empty lines", hint="Set quoting: minimal, or null")
        return filled


def _runs(column: pl.Expr) -> pl.Expr:
    """Say of each text whether a spreadsheet would run it, and could do harm."""
    return column.str.contains(_FORMULA) & ~column.str.contains(_NUMBER)
