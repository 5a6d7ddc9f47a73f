"""What the formats made of lines of text share: encodings, and values that must stay on one line."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from leadferry.errors import RenderError
from leadferry.formats.base import Step, Tally, columns_where

if TYPE_CHECKING:
    import polars as pl

LINE_ENDINGS = {"crlf": "\r\n", "lf": "\n", "none": ""}

_NO_CHARACTER_SETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
_ASCII = "".join(map(chr, range(128)))


def _known_codec(value: str) -> str:
    try:
        codec = codecs.lookup(value)
        whole = codec.name not in _NO_CHARACTER_SETS and _ASCII.encode(value).decode(value) == _ASCII
    except (LookupError, ValueError):
        whole = False
    if not whole:
        raise ValueError(f"{value!r} is no text encoding; use for example utf-8, utf-8-sig, windows-1252")
    return value


Encoding = Annotated[str, AfterValidator(_known_codec)]
"""Any character set that Python knows."""

Unencodable = Literal["fail", "replace", "transliterate"]
"""What becomes of characters that an encoding lacks."""

OneLine = Literal["replace", "fail"]
"""What becomes of line breaks and other control characters where a value must stay on one line."""

_CONTROL = r"[\x00-\x1f\x7f\x{85}\x{2028}\x{2029}]"


def on_one_line(policy: OneLine) -> Step:
    """Return the step that makes every column text without line breaks, tabs and other control characters."""

    def step(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        import polars as pl

        text = frame.cast(pl.String)
        hits = columns_where(text, lambda column: column.str.contains(_CONTROL))
        for name, values in hits.items():
            if policy == "fail":
                hint = "Set control_characters: replace, or correct the leads"
                tally.refused(
                    name,
                    values,
                    "hold line breaks or control characters, which this format cannot have",
                    hint=hint,
                )
            else:
                tally.changed(name, values, "line breaks and control characters replaced by spaces")
        return text.with_columns(pl.col(name).str.replace_all(_CONTROL, " ") for name in hits)

    return step


def codec_name(encoding: str) -> str:
    """Return the one name that Python has for an encoding: `cp1252` for `windows-1252`."""
    return codecs.lookup(encoding).name


def encoder(encoding: str) -> tuple[bytes, Callable[[str], bytes]]:
    """Return the byte order mark of a file, and what encodes its text piece by piece."""
    codec = codec_name(encoding)
    if codec == "utf-8-sig":
        return codecs.BOM_UTF8, str.encode
    # Python's utf-16 and utf-32 follow the machine's byte order; the same batch must give the same bytes anywhere.
    marks = {"utf-16": codecs.BOM_UTF16_LE, "utf-32": codecs.BOM_UTF32_LE}
    incremental = codecs.getincrementalencoder(f"{codec}-le" if codec in marks else codec)()
    return marks.get(codec, b""), incremental.encode


def control_record(
    text: str | None, *, encoding: str, end: str, encode: Callable[[str], bytes], width: int = 0
) -> bytes:
    """Return a control record as it stands in the file; nothing where there is none.

    Args:
        text: the record, one line.
        encoding: of the file, as the batch file names it.
        end: what ends a line of the file.
        encode: what encodes the rest of the file.
        width: characters of every line, where they have a width.

    Raises:
        RenderError: it is not one line, has a character that the encoding lacks, or is too wide.
    """
    if text is None:
        return b""
    if any(sign in text for sign in "\r\n") or not fits(text, codec_name(encoding)):
        raise RenderError(
            f"a control record has a line break, or a character that {encoding} lacks",
            hint="Correct control.header or control.trailer in the batch file; the leads are back in the queue",
        )
    if width and len(text) > width:
        raise RenderError(
            f"a control record is {len(text)} characters long, and the lines of the file {width}",
            hint="Shorten control.header or control.trailer, or set line_width",
        )
    return encode(text.ljust(width) + end)


def encodable(encoding: str, unencodable: Unencodable) -> Step:
    """Return the step that leaves only characters which the encoding has, and counts what it changed or refused."""
    codec = codec_name(encoding)

    def step(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        if codec.startswith("utf"):
            return frame
        beyond_ascii = columns_where(frame, lambda column: column.str.len_bytes() != column.str.len_chars())
        for name in beyond_ascii:
            frame = _encodable_column(frame, name, tally, encoding=encoding, unencodable=unencodable)
        return frame

    return step


def _encodable_column(
    frame: pl.DataFrame, name: str, tally: Tally, *, encoding: str, unencodable: Unencodable
) -> pl.DataFrame:
    import polars as pl

    codec = codec_name(encoding)
    values = frame[name].to_list()
    wrong = [row for row, value in enumerate(values) if value is not None and not fits(value, codec)]
    if not wrong:
        return frame
    if unencodable == "fail":
        hint = "Set encoding: utf-8, or unencodable: replace or transliterate, or correct the leads"
        tally.refused(name, len(wrong), f"cannot be written in {encoding}", hint=hint)
        return frame
    tally.changed(name, len(wrong), f"characters that {encoding} lacks {unencodable}d")
    for row in wrong:
        values[row] = _fitted(values[row], codec, transliterate=unencodable == "transliterate")
    return frame.with_columns(pl.Series(name, values, dtype=pl.String))


def fits(text: str, codec: str) -> bool:
    """Say whether the codec has every character of the text."""
    try:
        text.encode(codec)
    except UnicodeError:
        return False
    return True


def _fitted(text: str, codec: str, *, transliterate: bool) -> str:
    """Return the text with only characters that the codec has."""
    import unicodedata

    if not transliterate:
        return "".join(one if fits(one, codec) else "?" for one in text)
    # Composed first: `e` + combining accent is one letter that Windows-1252 has.
    return "".join(map(partial(_nearest, codec=codec), unicodedata.normalize("NFC", text)))


def _nearest(one: str, *, codec: str) -> str:
    """Return the nearest letters that the codec has; `?` where there are none, so that nothing vanishes."""
    import unicodedata

    from anyascii import anyascii

    if fits(one, codec):
        return one
    if unicodedata.combining(one):
        return ""  # an accent whose letter stays
    near = anyascii(one)
    return near if near and fits(near, codec) else "?"
