"""The values that no vectorised way covers: one call per distinct value instead of one per lead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def fill_rest(found: pl.Series, values: pl.Series, one: Callable[[str], str | None]) -> pl.Series:
    """Fill the nulls of `found` by calling `one` for each distinct value that is still without a result.

    Args:
        found: what the vectorised way has found; null where it does not know.
        values: the values that it started from.
        one: returns the result for a single value, or None where there is none.
    """
    import polars as pl

    open_ = found.is_null() & values.is_not_null()
    if not open_.any():
        return found
    rest = values.filter(open_).unique()
    answers = pl.Series([one(value) for value in rest], dtype=pl.String)
    return found.zip_with(~open_, values.replace_strict(rest, answers, default=None, return_dtype=pl.String))
