"""The transform `number`: decimal numbers as the recipient writes them, exact to the last digit."""

from __future__ import annotations

import decimal
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from leadferry.mapping.step import Context, Options, Text

if TYPE_CHECKING:
    import polars as pl

# What fits into a 128-bit decimal with ten places, and so can be rounded by polars without a second rounding.
_FITS = r"^[+-]?\d{1,27}(?:\.\d{1,10})?$"
_PLACES = 10
_LONGEST = 400
"""Digits above which a number is taken for a mistake; more than any double has."""


class Number(Options):
    """Rounds numbers and writes them with the recipient's marks."""

    decimals: int | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Places after the decimal mark, halves rounded away from zero; as they are when left out.",
    )
    decimal_mark: Text = Field(
        default=".", min_length=1, max_length=1, description="Written between whole and decimals."
    )
    thousands: Text = Field(
        default="", max_length=1, description="Written between groups of three digits; none when left out."
    )
    input_decimal_mark: Text = Field(
        default=".", min_length=1, max_length=1, description="The decimal mark that leads come with."
    )
    input_thousands: Text = Field(
        default="", max_length=1, description="The mark between thousands that leads come with; removed."
    )

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        for decimal_mark, thousands in (
            (self.decimal_mark, self.thousands),
            (self.input_decimal_mark, self.input_thousands),
        ):
            if decimal_mark == thousands:
                raise ValueError(
                    f"{decimal_mark!r} cannot be both the decimal mark and the mark between thousands"
                )
            if any(mark.isalnum() or mark in "+-" for mark in decimal_mark + thousands):
                raise ValueError("a mark must not be a letter, a digit or a sign")
        return self

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Round and write every number; text that is no number fails."""
        return self._marked(self._rounded(self._plain(values)))

    def _plain(self, values: pl.Series) -> pl.Series:
        plain = values.str.strip_chars()
        if self.input_thousands:
            plain = plain.str.replace_all(self.input_thousands, "", literal=True)
        if self.input_decimal_mark != ".":
            # A point that is not announced as a mark makes the text no number.
            plain = plain.str.replace_all(".", "?", literal=True).str.replace_all(
                self.input_decimal_mark, ".", literal=True
            )
        return plain

    def _rounded(self, plain: pl.Series) -> pl.Series:
        import polars as pl

        from leadferry.mapping.rest import fill_rest

        easy = pl.select(pl.when(plain.str.contains(_FITS)).then(plain)).to_series()
        if self.decimals is None:
            easy = easy.str.strip_prefix("+")
        else:
            exact = easy.cast(pl.Decimal(38, _PLACES)).round(self.decimals, mode="half_away_from_zero")
            easy = exact.cast(pl.Decimal(38, self.decimals)).cast(pl.String)
        return fill_rest(easy, plain, self._round_one)

    def _round_one(self, text: str) -> str | None:
        """Round what polars' decimals do not hold: exponents, very long numbers, `.5`."""
        try:
            number = decimal.Decimal(text)
        except decimal.InvalidOperation:
            return None
        if not number.is_finite() or "_" in text or abs(number.adjusted()) + len(text) > _LONGEST:
            return None
        with decimal.localcontext(prec=2 * _LONGEST):
            if self.decimals is not None:
                number = number.quantize(
                    decimal.Decimal(1).scaleb(-self.decimals), rounding=decimal.ROUND_HALF_UP
                )
            return format(abs(number) if number.is_zero() else number, "f")

    def _marked(self, numbers: pl.Series) -> pl.Series:
        import polars as pl

        if self.decimal_mark == "." and not self.thousands:
            return numbers
        parts = numbers.str.splitn(".", 2).struct.unnest()
        whole, rest = (parts.get_column(name) for name in parts.columns)
        if self.thousands:
            whole = _grouped(whole, mark=self.thousands)
        marked = pl.concat_str(pl.lit(whole), pl.lit(self.decimal_mark), pl.lit(rest))
        return pl.select(pl.coalesce(marked, pl.lit(whole))).to_series()


def _grouped(whole: pl.Series, *, mark: str) -> pl.Series:
    """Put the mark between groups of three digits, from the right; the sign stays in front."""
    import polars as pl

    frame = pl.DataFrame({"whole": whole}).select(
        "whole", head=pl.col("whole").str.strip_prefix("-").str.head(-3), grouped=pl.col("whole").str.tail(3)
    )
    while (frame.get_column("head") != "").any():
        head, grouped = pl.col("head"), pl.col("grouped")
        longer = pl.concat_str(head.str.tail(3), pl.lit(mark), grouped)
        frame = frame.with_columns(
            head=head.str.head(-3), grouped=pl.when(head != "").then(longer).otherwise(grouped)
        )
    # A number of up to three digits still has its sign, as the last three characters or fewer may hold it.
    digits = pl.col("grouped").str.strip_prefix("-")
    negative = pl.col("whole").str.starts_with("-")
    return frame.select(pl.when(negative).then(pl.format("-{}", digits)).otherwise(digits)).to_series()
