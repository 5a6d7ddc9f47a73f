"""What no vectorised way covers is asked once per distinct value."""

from __future__ import annotations

import polars as pl

from leadferry.mapping.rest import fill_rest


def column(*values):
    return pl.Series(values, dtype=pl.String)


def test_each_distinct_open_value_is_asked_once_and_found_ones_never():
    asked = []

    def one(value):
        asked.append(value)
        return None if value == "bad" else value.upper()

    filled = fill_rest(
        column("A", None, None, None, None, None), column("a", "b", "b", "bad", None, "c"), one
    )

    assert filled.to_list() == ["A", "B", "B", None, None, "C"]
    assert sorted(asked) == ["b", "bad", "c"]


def test_nothing_open_asks_nothing():
    assert fill_rest(column("A", None), column("a", None), lambda _: "never").to_list() == ["A", None]
