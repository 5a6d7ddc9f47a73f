"""Delimited text: what nearly every buyer's system takes.

UTF-8 goes from polars to the file in blocks, without a step per lead; every other encoding is made from that text.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from leadferry.formats.base import (
    FileContext,
    FormatBase,
    Tally,
    columns_where,
    prepared,
    refuse_bad_columns,
    text_columns,
)

if TYPE_CHECKING:
    import polars as pl

_NAMED_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_LINE_ENDINGS = {"crlf": "\r\n", "lf": "\n"}
_QUOTE_STYLES: dict[str, Any] = {
    "minimal": "necessary",
    "all": "always",
    "non_numeric": "non_numeric",
    "never": "never",
}

_NO_CHARACTER_SETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
_ASCII = "".join(map(chr, range(128)))

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


def _known_codec(value: str) -> str:
    try:
        codec = codecs.lookup(value)
        whole = codec.name not in _NO_CHARACTER_SETS and _ASCII.encode(value).decode(value) == _ASCII
    except (LookupError, ValueError):
        whole = False
    if not whole:
        raise ValueError(f"{value!r} is no text encoding; use for example utf-8, utf-8-sig, windows-1252")
    return value


Character = Annotated[str, AfterValidator(_one_ascii_character)]


class Csv(FormatBase):
    """Delimited text, by default as RFC 4180 says: commas, double quotes where needed, CRLF."""

    extension: ClassVar[str] = "csv"
    media_type: ClassVar[str] = "text/csv"

    type: Literal["csv"] = "csv"
    delimiter: Annotated[Character, BeforeValidator(_character)] = Field(
        default=",", description="Between the values: one ASCII character, or comma, semicolon, tab, pipe."
    )
    quote: Character = Field(default='"', description="Around values that need it; doubled inside them.")
    quoting: Literal["minimal", "all", "non_numeric", "never"] = Field(
        default="minimal",
        description=(
            "Which values are quoted: those that need it, all, those that are not numbers by type, or none"
            " (then a value with a delimiter or a line break is an error)."
        ),
    )
    header: bool = Field(default=True, description="Whether the first line holds the fields' names.")
    line_ending: Literal["crlf", "lf"] = Field(default="crlf", description="RFC 4180 asks for crlf.")
    encoding: Annotated[str, AfterValidator(_known_codec)] = Field(
        default="utf-8",
        description="utf-8, utf-8-sig (with BOM), ascii, windows-1252, utf-16, any Python codec.",
    )
    unencodable: Literal["fail", "replace", "transliterate"] = Field(
        default="fail",
        description="For characters that the encoding lacks: fail, write ?, or write the nearest letters it has.",
    )
    null: str = Field(default="", description="Written where a lead has no value.")
    spreadsheet_safe: bool = Field(
        default=True, description="Put an apostrophe before text that a spreadsheet would run as a formula."
    )

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.delimiter == self.quote:
            raise ValueError("delimiter and quote must be different characters")
        if any(sign in self.null for sign in (self.delimiter, self.quote, "\r", "\n")):
            raise ValueError("null must not hold the delimiter, the quote or a line break")
        if not _fits(self.null, self._codec):
            raise ValueError(f"null cannot be written in {self.encoding}")
        return self

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`: labels are never changed, so they must be writable as they are."""
        if not self.header:
            return []
        signs = (self.delimiter, "\r", "\n")
        unwritable = [name for name in columns if not _fits(name, self._codec)]
        unquoted = [
            name for name in columns if self.quoting == "never" and any(sign in name for sign in signs)
        ]
        return [f"field {name!r} cannot be written in {self.encoding}" for name in unwritable] + [
            f"field {name!r} needs quotes, and quoting is never" for name in unquoted
        ]

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        refuse_bad_columns(self, context)
        mark, encode = self._encoder()
        out.write(mark)
        header = self.header
        for frame in prepared(frames, context, self._encodable, self._harmless, self._unambiguous):
            block = BytesIO()
            self._write_block(frame, block, header=header)
            out.write(encode(block))
            header = False

    def _write_block(self, frame: pl.DataFrame, block: BytesIO, *, header: bool) -> None:
        frame.write_csv(
            block,
            include_header=header,
            separator=self.delimiter,
            quote_char=self.quote,
            quote_style=_QUOTE_STYLES[self.quoting],
            line_terminator=_LINE_ENDINGS[self.line_ending],
            null_value=self.null,
        )

    @property
    def _codec(self) -> str:
        return codecs.lookup(self.encoding).name

    def _encoder(self) -> tuple[bytes, Callable[[BytesIO], bytes | memoryview]]:
        """Return the byte order mark, and what turns UTF-8 blocks into the file's bytes."""
        if self._codec in ("utf-8", "utf-8-sig"):
            return (codecs.BOM_UTF8 if self._codec == "utf-8-sig" else b""), BytesIO.getbuffer
        # Python's utf-16 and utf-32 follow the machine's byte order; the same batch must give the same bytes anywhere.
        marks = {"utf-16": codecs.BOM_UTF16_LE, "utf-32": codecs.BOM_UTF32_LE}
        codec = f"{self._codec}-le" if self._codec in marks else self._codec
        encoder = codecs.getincrementalencoder(codec)()
        return marks.get(self._codec, b""), lambda block: encoder.encode(block.getvalue().decode())

    def _encodable(self, frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        if self._codec.startswith("utf"):
            return frame
        for name, values in columns_where(
            frame, lambda column: column.str.len_bytes() != column.str.len_chars()
        ).items():
            frame = self._encodable_column(frame, name, tally) if values else frame
        return frame

    def _encodable_column(self, frame: pl.DataFrame, name: str, tally: Tally) -> pl.DataFrame:
        import polars as pl

        values = frame[name].to_list()
        wrong = [
            row for row, value in enumerate(values) if value is not None and not _fits(value, self._codec)
        ]
        if not wrong:
            return frame
        if self.unencodable == "fail":
            hint = "Set encoding: utf-8, or unencodable: replace or transliterate, or correct the leads"
            tally.refused(name, len(wrong), f"cannot be written in {self.encoding}", hint=hint)
            return frame
        tally.changed(name, len(wrong), f"characters that {self.encoding} lacks {self.unencodable}d")
        for row in wrong:
            values[row] = _fitted(values[row], self._codec, transliterate=self.unencodable == "transliterate")
        return frame.with_columns(pl.Series(name, values, dtype=pl.String))

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
        if self.quoting == "never":
            hint = "Set quoting: minimal, or another delimiter"
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


def _fits(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeError:
        return False
    return True


def _fitted(text: str, codec: str, *, transliterate: bool) -> str:
    """Return the text with only characters that the codec has."""
    import unicodedata

    if not transliterate:
        return "".join(one if _fits(one, codec) else "?" for one in text)
    # Composed first: `e` + combining accent is one letter that Windows-1252 has.
    return "".join(map(partial(_nearest, codec=codec), unicodedata.normalize("NFC", text)))


def _nearest(one: str, *, codec: str) -> str:
    """Return the nearest letters that the codec has; `?` where there are none, so that nothing vanishes."""
    import unicodedata

    from anyascii import anyascii

    if _fits(one, codec):
        return one
    if unicodedata.combining(one):
        return ""  # an accent whose letter stays
    near = anyascii(one)
    return near if near and _fits(near, codec) else "?"
