"""Numbers, exact to the last digit."""

from __future__ import annotations

import decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadferry.mapping.numbers import Number
from leadferry.mapping.step import Context

CONTEXT = Context(timezone="UTC", locale="en_US", sources=pl.DataFrame())


def run(options, *values):
    return Number(**options).apply(pl.Series(values, dtype=pl.String), CONTEXT).to_list()


@pytest.mark.req("R066")
@pytest.mark.parametrize(
    ("options", "value", "expected"),
    [
        ({"decimals": 2, "decimal_mark": ","}, "1234.5", "1234,50"),
        ({"decimals": 2, "decimal_mark": ",", "thousands": "."}, "1234567.895", "1.234.567,90"),
        ({"decimals": 2}, "1.005", "1.01"),
        ({"decimals": 2}, "-1.005", "-1.01"),
        ({"decimals": 2}, "0.00499999999999999", "0.00"),
        ({"decimals": 0, "thousands": ","}, "999999.5", "1,000,000"),
        ({"decimals": 2}, "-0.001", "0.00"),
        ({"decimals": 1, "thousands": " "}, "-123", "-123.0"),
        ({"thousands": ","}, "-1234", "-1,234"),
        ({"decimal_mark": ","}, "+0.10", "0,10"),
        ({"decimals": 1}, "1e3", "1000.0"),
        ({"decimals": 1}, ".25", "0.3"),
        ({"decimals": 2}, " 7 ", "7.00"),
        ({"decimals": 2, "thousands": ","}, "1" + "0" * 30, "1" + ",000" * 10 + ".00"),
        ({"input_decimal_mark": ",", "input_thousands": ".", "decimals": 2}, "1.234,5", "1234.50"),
        ({"input_decimal_mark": ",", "decimals": 2}, "1.5", None),
        ({"input_thousands": ","}, "1,234", "1234"),
        *(
            ({"decimals": 2}, text, None)
            for text in ("abc", "1,5", "$5", "1_000", "NaN", "inf", "1e9999999", "--1", "1.2.3")
        ),
    ],
)
def test_a_number_is_rounded_and_written_with_the_marks(options, value, expected):
    assert run(options, value) == [expected]


@pytest.mark.req("R066")
@given(
    st.lists(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)),
    st.integers(0, 10),
)
def test_rounding_is_the_decimal_modules_half_up_whatever_the_number(numbers, decimals):
    with decimal.localcontext(prec=100):
        rounded = [
            number.quantize(decimal.Decimal(1).scaleb(-decimals), decimal.ROUND_HALF_UP) for number in numbers
        ]
        expected = [f"{abs(number) if number.is_zero() else number:,f}" for number in rounded]

    assert run({"decimals": decimals, "thousands": ","}, *(str(number) for number in numbers)) == expected
