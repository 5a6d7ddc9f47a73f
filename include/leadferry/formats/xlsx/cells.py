"""What Excel makes of values, before they are written: what it cannot hold is changed, told or refused, and how wide it shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from leadferry.formats.base import Tally, columns_where, text_columns
from leadferry.formats.xlsx import names
from leadferry.formats.xlsx.names import units
from leadferry.formats.xlsx.stream import Source

if TYPE_CHECKING:
    import polars as pl

_NARROWEST, _WITH_TOTAL, _WIDEST = 8.0, 14.0, 60.0
"""Widths in characters; a total is longer than what it adds up, and Excel shows #### where it does not fit."""

_MEASURED_ROWS = 100

_DIGITS = 15
"""Excel keeps so many digits of a number and makes the others 0."""


def widths(source: Source, given: Mapping[str, float], *, totals: Iterable[str]) -> list[float]:
    """Return the widths of the columns, the same however the leads are divided into frames."""
    sample = source.peek(_MEASURED_ROWS)
    longest = sample.select(_longest(name, dtype) for name, dtype in sample.schema.items()).row(0)
    fitting = [
        min(
            max(len(name) * 1.1 + 3, (most or 0) + 1.0, _WITH_TOTAL if name in totals else _NARROWEST),
            _WIDEST,
        )
        for name, most in zip(sample.columns, longest, strict=True)
    ]
    return [float(given.get(name, round(fit, 1))) for name, fit in zip(sample.columns, fitting, strict=True)]


def _longest(column: str, dtype: pl.DataType) -> pl.Expr:
    import polars as pl

    shown = pl.col(column).round(2) if dtype.is_float() else pl.col(column)
    return shown.cast(pl.String).str.len_chars().max()


def shown(frame: pl.DataFrame) -> dict[str, str]:
    """Return how dates and numbers are shown where the batch file does not say it."""
    import polars as pl

    found = {}
    for name, dtype in frame.schema.items():
        if dtype == pl.Date:
            found[name] = "yyyy-mm-dd"
        elif dtype == pl.Datetime:
            found[name] = "yyyy-mm-dd hh:mm"
        elif dtype.is_integer():
            found[name] = "0"
    return found


def line_breaks(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """A line break in a cell is a line feed; Excel would show a carriage return as `_x000D_`."""
    import polars as pl

    hits = columns_where(frame, lambda column: column.str.contains("\r", literal=True))
    for name, values in hits.items():
        tally.changed(name, values, "carriage returns written as line feeds")
    return frame.with_columns(pl.col(list(hits)).str.replace_all("\r\n?", "\n")) if hits else frame


def short_enough(frame: pl.DataFrame, tally: Tally, *, cut: bool) -> pl.DataFrame:
    """Excel refuses to open a workbook with a longer text; an empty text is an empty cell."""
    import polars as pl

    shorter = []
    for name in columns_where(frame, lambda column: column.str.len_bytes() > names.CHARACTERS):
        long = frame[name].str.len_bytes() > names.CHARACTERS
        values = sum(units(text) > names.CHARACTERS for text in frame[name].filter(long))
        if values and cut:
            tally.changed(name, values, f"cut to the {names.CHARACTERS} characters of an Excel cell")
            fitted = partial(names.cut, most=names.CHARACTERS)
            shorter.append(
                pl.when(long).then(pl.col(name).map_elements(fitted, return_dtype=pl.String)).otherwise(name)
            )
        elif values:
            hint = "Shorten the field, set long_text: cut, or choose another format"
            what = f"are longer than the {names.CHARACTERS} characters of an Excel cell"
            tally.refused(name, values, what, hint=hint)
    texts = text_columns(frame)
    return frame.with_columns(*(one.alias(one.meta.output_name()) for one in shorter)).with_columns(
        pl.col(texts).replace("", None)
    )


def numbers(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Excel calculates with 15 digits; a longer number would arrive as another one."""
    import polars as pl

    for name, dtype in frame.schema.items():
        if dtype.is_decimal():
            digits = pl.col(name).cast(pl.String).str.replace_all(r"\D", "").str.strip_chars_start("0")
            long = digits.str.len_chars() > _DIGITS
        elif dtype.is_integer():
            most = 10**_DIGITS - 1
            long = ~pl.col(name).cast(pl.Int128).is_between(-most, most)
        else:
            continue
        if values := frame.select(long.sum()).item():
            hint = "Leave out the field's type transform, so that it stays text"
            tally.refused(name, values, f"have more than the {_DIGITS} digits that Excel keeps", hint=hint)
    for name in frame.select(pl.selectors.float()).columns:
        if values := frame.select((~pl.col(name).is_finite()).sum()).item():
            tally.changed(name, int(values), "no number, written as empty cells")
    finite = pl.when(pl.selectors.float().is_finite()).then(pl.selectors.float())
    return frame.with_columns(pl.selectors.decimal().cast(pl.Float64), finite)


def times(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Excel knows no time zones and no day before 1900: a time is written as its own zone's clock shows it."""
    import polars as pl

    wall = frame.with_columns(
        pl.selectors.datetime(time_zone="*").dt.replace_time_zone(None), pl.selectors.time().cast(pl.String)
    )
    for name in wall.select(pl.selectors.date() | pl.selectors.datetime()).columns:
        year = wall[name].dt.year()
        if values := ((year < 1900) | (year > 9999)).sum():  # noqa: PLR2004 - Excel's calendar
            hint = "Leave out the field's type transform, so that it stays text"
            tally.refused(name, int(values), "are outside Excel's calendar, 1900 to 9999", hint=hint)
    return wall
