"""The transform `type`: real numbers, dates and truth values, for formats that know them (JSON, Excel)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadferry.mapping.dates import ISO, read
from leadferry.mapping.step import Context, Options
from leadferry.mapping.text import FALSE, TRUE

if TYPE_CHECKING:
    import polars as pl

_INTEGER = r"^[+-]?\d{1,18}$"
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$"


class Typed(Options):
    """Makes a text what it says, so that JSON has no quotes around it and Excel can calculate with it."""

    to: Literal["integer", "number", "boolean", "date", "datetime"] = Field(
        description="What the values are; date and datetime are read as ISO 8601 and told in the recipient's zone."
    )

    def apply(self, values: pl.Series, context: Context) -> pl.Series:
        """Convert every value; what is no such thing fails."""
        import polars as pl

        plain = values.str.strip_chars()
        if self.to == "boolean":
            truths = dict.fromkeys(TRUE, True) | dict.fromkeys(FALSE, False)
            return plain.str.to_lowercase().replace_strict(truths, default=None, return_dtype=pl.Boolean)
        if self.to in {"date", "datetime"}:
            moments = read(plain, formats=[ISO], zone=context.timezone)
            return moments.dt.date() if self.to == "date" else moments
        shape, dtype = (_INTEGER, pl.Int64) if self.to == "integer" else (_NUMBER, pl.Float64)
        fitting = pl.select(pl.when(plain.str.contains(shape)).then(plain.str.strip_prefix("+"))).to_series()
        numbers = fitting.cast(dtype, strict=False)
        return numbers.set(numbers.is_infinite(), None) if self.to == "number" else numbers
