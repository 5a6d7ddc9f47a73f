"""Formulas of the batch file: what may stand in one, what Excel gets, and that our value is the one it calculates."""

import polars as pl
import pytest

from leadferry.formats.xlsx.formulas import NO_VALUE, parse

LEADS = pl.DataFrame({"Price": [2.5, 1.125, None], "Units sold": [4, 3, 2], "[x": [0, 0, 0]})
COLUMNS = {"Price": "C", "Units sold": "AA"}


@pytest.mark.req("R083")
@pytest.mark.parametrize(
    ("formula", "excel", "values"),
    [
        ("=[Price]*[Units sold]", "C{row}*AA{row}", [10, 3.375, 0]),
        ("= [Price] + 1", "C{row}+1", [3.5, 2.125, 1]),
        ("=[Price]-[Price]-[Price]", "(C{row}-C{row})-C{row}", [-2.5, -1.125, 0]),
        ("=1+2*[Units sold]", "1+(2*AA{row})", [9, 7, 5]),
        ("=(1+2)*[Units sold]", "(1+2)*AA{row}", [12, 9, 6]),
        ("=-[Price]", "-C{row}", [-2.5, -1.125, 0]),
        ("=[Units sold]/[Price]", 'IFERROR(AA{row}/C{row},"")', [1.6, 3 / 1.125, NO_VALUE]),
        ("=round([Price]*1.19, 2)", "ROUND(C{row}*1.19,2)", [2.98, 1.34, 0]),
        ("=ROUND([Price],2)", "ROUND(C{row},2)", [2.5, 1.13, 0]),
        ("=MAX([Price],[Units sold],3)", "MAX(C{row},AA{row},3)", [4, 3, 3]),
        ("=MIN([Price],2)+ABS(-3)", "MIN(C{row},2)+ABS(-3)", [5, 4.125, 3]),
        ("=SUM([Price],[Units sold])", "SUM(C{row},AA{row})", [6.5, 4.125, 2]),
        ("=(1+2)*(3+4)", "(1+2)*(3+4)", [21, 21, 21]),
        ("=.5*[Price]", "0.5*C{row}", [1.25, 0.5625, 0]),
    ],
)
def test_a_formula_is_understood(formula, excel, values):
    parsed = parse(formula)
    assert parsed.excel(COLUMNS) == excel
    found = LEADS.select(value=parsed.value())["value"].to_list()
    assert found == pytest.approx(values if len(found) == 3 else values[:1])


@pytest.mark.parametrize(
    "formula",
    [
        "[Price]",
        "=",
        "=A1",
        "=[Price",
        "=[Price]]",
        "=[Price]**2",
        "=[Price]//2",
        "=[Price] [Price]",
        "=[Price]*",
        "=([Price]",
        "=[Price])",
        "=1,2",
        "=()",
        "=SUM()",
        "=ABS(1,2)",
        "=ROUND([Price])",
        "=ROUND([Price],[Price])",
        "=ROUND([Price],11)",
        "=ROUND([Price],1.5)",
        "=(ROUND)([Price],1)",
        "=WEBSERVICE(1)",
        '=HYPERLINK("x")',
        "=cmd|' /C calc'!A0",
        "=Sheet2!A1",
        "={row}",
        "=[Price]&[Price]",
        "=1e5",
        "=f0",
        "=lambda: 1",
        "=SUM(*[Price])",
    ],
)
def test_what_is_no_arithmetic_over_fields_is_refused(formula):
    with pytest.raises(ValueError, match="the formula"):
        parse(formula)
