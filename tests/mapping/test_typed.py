"""Values that are more than text."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl
import pytest

from leadferry.mapping.fields import LEAD_ID, Mapping, OutputField


def column(*values, **field):
    fields = [OutputField.model_validate({"to": "X", "from": "a", "on_error": "blank"} | field)]
    leads = pl.DataFrame({LEAD_ID: range(len(values)), "a": pl.Series(values, dtype=pl.String)})
    mapped = Mapping(fields, timezone="America/New_York", locale="en_US").apply(leads)
    return mapped.frame.get_column("X"), mapped.blanked.get("X", 0)


@pytest.mark.req("R066")
@pytest.mark.parametrize(
    ("kind", "dtype", "good", "expected", "bad"),
    [
        ("integer", pl.Int64, ["7", " -07", "+8"], [7, -7, 8], ["1.0", "x", "9" * 19]),
        (
            "number",
            pl.Float64,
            ["7", "-1.5", "1e3", ".5"],
            [7.0, -1.5, 1000.0, 0.5],
            ["inf", "nan", "1,5", "1e999", "1_0"],
        ),
        ("boolean", pl.Boolean, ["TRUE", "no", "1"], [True, False, True], ["2", "maybe"]),
        ("date", pl.Date, ["2026-01-31", "2026-02-01T03:00:00Z"], [date(2026, 1, 31)] * 2, ["01/31/2026"]),
        (
            "datetime",
            pl.Datetime("us"),
            ["2026-02-01T03:00:00Z"],
            [datetime.fromisoformat("2026-01-31T22:00:00")],
            ["soon"],
        ),
    ],
)
def test_a_text_becomes_what_it_says_and_what_it_does_not_say_fails(kind, dtype, good, expected, bad):
    typed, failed = column(*good, None, *bad, transform=[{"type": kind}])

    assert (typed.dtype, typed.to_list(), failed) == (
        dtype,
        [*expected, None, *([None] * len(bad))],
        len(bad),
    )
    assert column(transform=[{"type": kind}])[0].dtype == dtype


@pytest.mark.parametrize("values", [["7"], ["7", None], []])
def test_a_column_has_the_same_type_in_every_block(values):
    assert column(*values, transform=[{"type": "integer"}])[0].dtype == pl.Int64
    assert column(*values, transform=[{"type": "integer"}], default="none")[0].dtype == pl.String
    assert column(*values, transform=[{"type": "integer"}, {"pad": {"width": 2}}])[0].dtype == pl.String
