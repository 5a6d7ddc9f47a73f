"""What the control records of one file say: counts that are known beforehand, sums that are known at its end."""

from __future__ import annotations

import decimal
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from leadferry.batch.control import Control
from leadferry.batch.files import OutputFile
from leadferry.errors import RenderError
from leadferry.formats.base import FileContext
from leadferry.templates import render

if TYPE_CHECKING:
    import polars as pl

_EXACT = decimal.Context(prec=200, traps=[decimal.Inexact, decimal.InvalidOperation])
"""Room for the sum of more numbers of 50 digits than there are leads; an inexact sum is an error, not a rounding."""

_PLAIN = re.compile(r"[+-]?(?:\d{1,30}|\d{1,3}(?:,\d{3}){1,9})(?:\.\d{1,20})?", re.ASCII)
_SWAPPED = str.maketrans(".,", ",.")


class Sum(Decimal):
    """A number that templates write with all its digits, never as 1E-7."""

    def __str__(self) -> str:
        """Write it out."""
        return format(self, "f")


class ControlRecords:
    """The control records of one file or part, and the sums in them; the leads pass through once."""

    def __init__(self, file: OutputFile, *, rows: int, variables: Mapping[str, Any]) -> None:
        """Begin.

        Args:
            file: as the batch file has it.
            rows: leads in this part.
            variables: what templates may use about this part.
        """
        self._control: Control | None = file.control
        labels = file.format.label_rows
        records = sum(text is not None for text in self._templates)
        counts = {"leads": rows, "rows": rows + labels, "all_rows": rows + labels + records}
        self._variables = {**variables, "control": counts}
        self._sums = dict.fromkeys(file.control.sums if file.control else [], Decimal())

    @property
    def _templates(self) -> tuple[str | None, str | None]:
        return (None, None) if self._control is None else (self._control.header, self._control.trailer)

    def context(self, *, columns: list[str], rows: int) -> FileContext:
        """Return what the format is told about the part."""
        header, trailer = self._templates
        return FileContext(
            columns=columns,
            rows=rows,
            variables=self._variables,
            first_line=None if header is None else render(header, self._variables),
            last_line=lambda: None if trailer is None else self._trailer(trailer),
        )

    def _trailer(self, template: str) -> str:
        sums = {label: Sum(total) for label, total in self._sums.items()}
        return render(template, {**self._variables, "sum": sums})

    def added_up(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Hand the frames on and add up what is to be summed.

        Raises:
            RenderError: a value is no number; says how many and in which column.
        """
        for frame in frames:
            for label in self._sums:
                self._sums[label] = _EXACT.add(self._sums[label], self._sum(frame[label]))
            yield frame

    def _sum(self, column: pl.Series) -> Decimal:
        total, wrong = Decimal(), 0
        # Amounts repeat, so there are far fewer different ones than leads.
        for value, times in column.value_counts(name="times").rows():
            number = self._number(value)
            if number is None:
                wrong += times
            else:
                total = _EXACT.add(total, _EXACT.multiply(number, Decimal(times)))
        if wrong:
            counted = f"{wrong} {'value is no number' if wrong == 1 else 'values are no numbers'}"
            raise RenderError(
                f"column {column.name!r} cannot be added up for the trailer: {counted}",
                hint="Give the field a transform that writes numbers like 1234.50, or withhold those leads by a rule",
            )
        return total

    def _number(self, value: Any) -> Decimal | None:
        """Return a value as a number: zero where there is no value, None where it is something else."""
        if value is None or value == "":
            return Decimal()
        if isinstance(value, str):
            comma = self._control is not None and self._control.decimal_mark == ","
            text = value.strip().translate(_SWAPPED) if comma else value.strip()
            return Decimal(text.replace(",", "")) if _PLAIN.fullmatch(text) else None
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return None
        # The digits that are written, not those of the binary number behind them.
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        return number if number.is_finite() else None
