"""The first and the last line of text files: in the file's encoding, with its line ending, in its shape."""

import json

import pytest

from contracts.format_contract import frame, written
from leadferry.errors import RenderError
from leadferry.formats.csv import Csv
from leadferry.formats.fixed_width import FixedWidth
from leadferry.formats.name_value import NameValue
from leadferry.formats.ndjson import Ndjson

LEADS = frame(a=["1", "2"])
NONE = frame(a=[])
COLUMNS = [{"name": "a", "width": 4}]


def controlled(form, leads, first="H|é", last="T|2"):
    return written(form, leads, first_line=first, last_line=lambda: last)


@pytest.mark.req("F16")
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Csv(), b"H|\xc3\xa9\r\na\r\n1\r\n2\r\nT|2\r\n"),
        (Csv(header=False, line_ending="lf"), b"H|\xc3\xa9\n1\n2\nT|2\n"),
        (Csv(encoding="windows-1252"), b"H|\xe9\r\na\r\n1\r\n2\r\nT|2\r\n"),
        (Csv(encoding="utf-8-sig"), b"\xef\xbb\xbfH|\xc3\xa9\r\na\r\n1\r\n2\r\nT|2\r\n"),
        (Csv(encoding="utf-16"), "\ufeffH|é\r\na\r\n1\r\n2\r\nT|2\r\n".encode("utf-16-le")),
        (Csv(escape="backslash", line_ending="lf"), b"H|\xc3\xa9\na\n1\n2\nT|2\n"),
        (FixedWidth(columns=COLUMNS), b"H|\xc3\xa9 \r\n1   \r\n2   \r\nT|2 \r\n"),
        (
            FixedWidth(columns=COLUMNS, header=True, line_width=6, line_ending="lf"),
            b"H|\xc3\xa9   \na     \n1     \n2     \nT|2   \n",
        ),
        (
            FixedWidth(columns=COLUMNS, line_ending="none", encoding="cp037"),
            "H|é 1   2   T|2 ".encode("cp037"),
        ),
        (NameValue(line_ending="lf"), b"H|\xc3\xa9\n\na=1\n\na=2\n\nT|2\n"),
    ],
)
def test_they_stand_around_the_leads_in_the_files_own_encoding_and_line_ending(form, expected):
    assert controlled(form, LEADS) == expected


@pytest.mark.req("F16")
def test_in_ndjson_they_are_objects_like_the_leads():
    lines = controlled(Ndjson(), LEADS, '{"type": "H", "name": "\\u00e9"}', '{"type": "T", "leads": 2}')
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"type": "H", "name": "é"},
        {"a": "1"},
        {"a": "2"},
        {"type": "T", "leads": 2},
    ]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Csv(), b"H\r\na\r\nT\r\n"),
        (FixedWidth(columns=COLUMNS), b"H   \r\nT   \r\n"),
        (NameValue(), b"H\r\n\r\nT\r\n"),
    ],
)
def test_a_file_without_leads_has_them_too(form, expected):
    assert controlled(form, NONE, "H", "T") == expected


@pytest.mark.parametrize("form", [Csv(), FixedWidth(columns=COLUMNS), NameValue(), Ndjson()])
def test_either_may_be_missing(form):
    plain = written(form, LEADS)
    text = '{"x":1}' if isinstance(form, Ndjson) else "x"
    first, last = controlled(form, LEADS, text, None), controlled(form, LEADS, None, text)
    assert first.endswith(plain)
    assert last.startswith(plain)
    assert len(first) > len(plain) < len(last)


@pytest.mark.parametrize(
    ("form", "record", "told"),
    [
        (Csv(encoding="ascii"), "é", "that ascii lacks"),
        (Csv(), "two\nlines", "line break"),
        (FixedWidth(columns=COLUMNS), "12345", "5 characters long, and the lines of the file 4"),
        (NameValue(encoding="windows-1252"), "日", "that windows-1252 lacks"),
        (Ndjson(), "H|1", "no JSON object"),
        (Ndjson(), "[1]", "no JSON object"),
    ],
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_record_that_cannot_stand_in_the_file_is_an_error(form, record, told, place):
    records = {"first": None, "last": None, place: record}
    with pytest.raises(RenderError, match=told):
        controlled(form, LEADS, **records)
