"""What people type into forms, through every text format and Parquet, read back by programs of others."""

import csv
import io
import json
import re
import shutil
import subprocess

import pandas as pd
import polars as pl
import pytest
from lxml import etree
from pydantic import TypeAdapter

from contracts.format_contract import context, frame
from leadferry.formats import Format

VALUES = {
    "plain": "plain",
    "double quotes": 'say "hi", ""twice"" "',
    "single quotes": "'O''Neil'",
    "delimiters": "comma, semicolon; tab\t pipe| end",
    "equals": "a=b=c",
    "line feed": "one\ntwo\n",
    "CRLF": "one\r\ntwo",
    "carriage return": "one\rtwo",
    "blank line": "one\n\ntwo\r\n\r\nthree",
    "backslashes": "back\\slash \\n \\",
    "formula": "=cmd|' /C calc'!A0",
    "function": "@SUM(A1:A9)",
    "phone": "+44 7700 900123",
    "negative": "-5",
    "zip": "02138",
    "exponent": "1E5",
    "long number": "12345678901234567890",
    "emoji": "👩‍👩‍👧 😀",
    "right to left": "שלום \u202eعربية",
    "combining": "e\u0301 n\u0303o",
    "beyond Latin": "Łódź Ελλάς 日本語",
    "NUL": "a\x00b",
    "vertical tab": "a\x0bb",
    "markup": "<b>&amp;</b> ]]> <!-- -->",
    "null word": "NULL",
    "not a number": "NaN",
    "spaces": "  spaces  ",
    "separators": "no\u00a0break \u2028 \u2029 \x85",
    "long": "é" * 65_536,
    "empty": "",
    "null": None,
}
CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
FORMULAS = {VALUES["formula"], VALUES["function"]}
BACKSLASH = {"escape": "backslash", "spreadsheet_safe": False}


def with_csv(data, **dialect):
    text = data if isinstance(data, str) else data.decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True, **dialect))


def with_csv_backslashes(data):
    return with_csv(data, escapechar="\\", doublequote=False)


def with_csv_unquoted(data):
    return with_csv(data, delimiter="\t", escapechar="\\", quoting=csv.QUOTE_NONE)


def with_pandas(data):
    # Its own parser ends a text at NUL; the one in Python reads on.
    told = {"dtype": str, "keep_default_na": False, "engine": "python", "encoding": "utf-8"}
    return pd.read_csv(io.BytesIO(data), **told).to_dict("records")


def with_iconv(data):
    if not shutil.which("iconv"):
        pytest.skip("needs iconv, which comes with the C library: apt-get install libc-bin")
    command = ["iconv", "-f", "UTF-16", "-t", "UTF-8"]
    text = subprocess.run(command, input=data, capture_output=True, check=True).stdout
    return with_csv(text)


def with_json(data):
    return json.loads(data)["leads"]


def with_json_lines(data):
    # Only LF ends a line: str.splitlines would also cut at the separators inside values.
    return [json.loads(line) for line in data.removesuffix(b"\n").split(b"\n")]


def with_pandas_lines(data):
    back = pd.read_json(io.BytesIO(data), lines=True, dtype=False)
    return back.astype(object).where(back.notna(), None).to_dict("records")


def with_lxml(data):
    records = [{field.tag: field.text or "" for field in lead} for lead in etree.fromstring(data)]
    return [{"id": None, "value": None} | record for record in records]


def with_xmllint(data):
    if not shutil.which("xmllint"):
        pytest.skip("needs xmllint: apt-get install libxml2-utils")
    done = subprocess.run(["xmllint", "--c14n", "-"], input=data, capture_output=True, check=True)
    return with_lxml(done.stdout)


def with_positions(data):
    lines = data.decode().split("\r\n")
    assert lines.pop() == ""
    assert {len(line) for line in lines} == {3 + 65_536}
    return [{"id": line[:3].strip(" "), "value": line[3:].rstrip(" ")} for line in lines]


def with_partition(data):
    leads = data.decode().removesuffix("\r\n").split("\r\n\r\n")
    return [{line.partition("=")[0]: line.partition("=")[2] for line in lead.split("\r\n")} for lead in leads]


def with_pyarrow(data):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install pyarrow")
    return parquet.read_table(io.BytesIO(data)).to_pylist()


def with_polars(data):
    return pl.read_parquet(io.BytesIO(data)).to_dicts()


def same(value):
    return value


def text(value):
    """CSV readers do not tell an empty text from a missing one."""
    return value or ""


def safe(value):
    return f"'{value}" if value in FORMULAS else text(value)


def xml_text(value):
    return value if value is None else NOT_IN_XML.sub("", value)


def one_line(value):
    return CONTROL.sub(" ", value or "")


def filled(value):
    return one_line(value).rstrip(" ")


PLACES = [{"name": "id", "width": 3}, {"name": "value", "width": 65_536}]
CASES = {
    "csv": ({"type": "csv"}, with_csv, safe),
    "csv as it is": ({"type": "csv", "spreadsheet_safe": False}, with_csv, text),
    "csv pandas": ({"type": "csv", "quoting": "all"}, with_pandas, safe),
    "csv utf-16 iconv": ({"type": "csv", "encoding": "utf-16"}, with_iconv, safe),
    "csv backslashes": ({"type": "csv", **BACKSLASH}, with_csv_backslashes, text),
    "csv unquoted": (
        {"type": "csv", "delimiter": "tab", "quoting": "never", **BACKSLASH},
        with_csv_unquoted,
        text,
    ),
    "json": ({"type": "json"}, with_json, same),
    "json indented": ({"type": "json", "indent": 2}, with_json, same),
    "ndjson": ({"type": "ndjson"}, with_json_lines, same),
    "ndjson pandas": ({"type": "ndjson"}, with_pandas_lines, same),
    "xml": ({"type": "xml"}, with_lxml, xml_text),
    "xml ascii": ({"type": "xml", "encoding": "ascii", "null": "omit"}, with_lxml, xml_text),
    "xml xmllint": ({"type": "xml"}, with_xmllint, xml_text),
    "fixed width": ({"type": "fixed_width", "columns": PLACES}, with_positions, filled),
    "name=value": ({"type": "name_value"}, with_partition, one_line),
    "parquet": ({"type": "parquet"}, with_polars, same),
    "parquet pyarrow": ({"type": "parquet", "compression": "zstd"}, with_pyarrow, same),
}


def write(wanted, leads):
    out, changes = io.BytesIO(), []
    written_by = TypeAdapter(Format).validate_python(wanted)
    written_by.write([leads], out, context(leads, report=changes.append))
    return out.getvalue(), changes


@pytest.mark.req("F13", "F52", "R074", "R075", "R078")
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize(("wanted", "read", "expected"), CASES.values(), ids=CASES)
def test_a_value_arrives_as_the_format_promises_and_what_is_changed_is_told(wanted, read, expected, value):
    leads = frame(id=["1", "2", "3"], value=["before", value, "after"])
    data, changes = write(wanted, leads)
    assert read(data) == [
        {"id": "1", "value": "before"},
        {"id": "2", "value": expected(value)},
        {"id": "3", "value": "after"},
    ]
    # Padding and the one word for "no value" are the format's own and no change.
    is_changed = expected(value) != value and (expected(value) or "").rstrip(" ") != (value or "").rstrip(" ")
    assert [(one.column, one.count) for one in changes] == ([("value", 1)] if is_changed else [])
