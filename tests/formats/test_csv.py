"""CSV: the contract, golden bytes for the settings, encodings, and what spreadsheets would do."""

import codecs
import csv
import io
from datetime import datetime

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.format_contract import NASTY, TYPED, FormatContract, context, frame, nasty, written
from leadferry.errors import RenderError
from leadferry.formats.csv import Csv

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


def rows(text, **dialect):
    return list(csv.reader(io.StringIO(text, newline=""), strict=True, **dialect))


class TestCsvContract(FormatContract):
    @pytest.fixture
    def written_by(self):
        return Csv(spreadsheet_safe=False)

    def read(self, data):
        return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))

    def expected(self, value):
        return "" if value is None else value


LEADS = frame(**{"First Name": ["O'Brien, Al", 'Say "hi"', "two\nlines"], "Zip": ["02138", None, ""]})

GOLDEN = {
    "default": ({}, b'First Name,Zip\r\n"O\'Brien, Al",02138\r\n"Say ""hi""",\r\n"two\nlines",""\r\n'),
    "lf": ({"line_ending": "lf"}, b'First Name,Zip\n"O\'Brien, Al",02138\n"Say ""hi""",\n"two\nlines",""\n'),
    "semicolon": (
        {"delimiter": "semicolon"},
        b'First Name;Zip\r\nO\'Brien, Al;02138\r\n"Say ""hi""";\r\n"two\nlines";""\r\n',
    ),
    "tab": (
        {"delimiter": "tab"},
        b'First Name\tZip\r\nO\'Brien, Al\t02138\r\n"Say ""hi"""\t\r\n"two\nlines"\t""\r\n',
    ),
    "pipe": (
        {"delimiter": "|"},
        b'First Name|Zip\r\nO\'Brien, Al|02138\r\n"Say ""hi"""|\r\n"two\nlines"|""\r\n',
    ),
    "any character": (
        {"delimiter": "\x1f"},
        b'First Name\x1fZip\r\nO\'Brien, Al\x1f02138\r\n"Say ""hi"""\x1f\r\n"two\nlines"\x1f""\r\n',
    ),
    "single quotes": (
        {"quote": "'"},
        b"First Name,Zip\r\n'O''Brien, Al',02138\r\nSay \"hi\",\r\n'two\nlines',''\r\n",
    ),
    "all quoted": (
        {"quoting": "all"},
        b'"First Name","Zip"\r\n"O\'Brien, Al","02138"\r\n"Say ""hi""",""\r\n"two\nlines",""\r\n',
    ),
    "text quoted": (
        {"quoting": "non_numeric"},
        b'"First Name","Zip"\r\n"O\'Brien, Al","02138"\r\n"Say ""hi""",\r\n"two\nlines",""\r\n',
    ),
    "no header": ({"header": False}, b'"O\'Brien, Al",02138\r\n"Say ""hi""",\r\n"two\nlines",""\r\n'),
    "null token": (
        {"null": r"\N"},
        b'First Name,Zip\r\n"O\'Brien, Al",02138\r\n"Say ""hi""",\\N\r\n"two\nlines",""\r\n',
    ),
    "byte order mark": (
        {"encoding": "utf-8-sig"},
        b'\xef\xbb\xbfFirst Name,Zip\r\n"O\'Brien, Al",02138\r\n"Say ""hi""",\r\n"two\nlines",""\r\n',
    ),
}


@pytest.mark.req("F14", "R074", "R075", "R076", "R077", "C14")
@pytest.mark.parametrize(("wanted", "golden"), GOLDEN.values(), ids=GOLDEN)
def test_every_setting_is_right_to_the_byte(wanted, golden):
    assert written(Csv(**wanted), LEADS) == golden


@pytest.mark.req("R074", "R075")
@pytest.mark.parametrize("quoting", ["minimal", "all", "non_numeric"])
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_nasty_values_read_back_with_every_delimiter_and_quote(delimiter, quote, quoting):
    wanted = Csv(delimiter=delimiter, quote=quote, quoting=quoting, spreadsheet_safe=False)
    text = written(wanted, nasty()).decode()
    back = rows(text, delimiter=DELIMITERS[delimiter], quotechar=quote)
    assert [value for _, value in back[1:]] == [value or "" for value in NASTY]


def test_pandas_reads_the_same_records():
    data = written(Csv(spreadsheet_safe=False, null="<none>"), nasty())
    back = pd.read_csv(
        io.BytesIO(data), dtype=str, keep_default_na=False, na_values=["<none>"], lineterminator=None
    )
    # pandas' own C parser reads a lone line feed or CRLF inside quotes as it is.
    assert [None if pd.isna(value) else value for value in back["value"]] == NASTY


@pytest.mark.req("R076")
def test_without_a_header_the_first_line_is_data():
    assert rows(written(Csv(header=False), frame(a=["1"], b=["2"])).decode()) == [["1", "2"]]


@pytest.mark.req("R077")
def test_labels_appear_exactly():
    labels = ["First Name", "Código, postal", 'The "one"', "電話"]
    text = written(Csv(), frame(**{label: ["1"] for label in labels})).decode()
    assert rows(text)[0] == labels


def test_no_leads_make_a_header_and_nothing_else():
    assert written(Csv(), frame(a=[], b=[])) == b"a,b\r\n"
    assert written(Csv(header=False, encoding="utf-8-sig"), frame(a=[])) == codecs.BOM_UTF8


@pytest.mark.parametrize("quoting", ["minimal", "all", "non_numeric"])
def test_a_lead_whose_only_field_is_empty_still_has_a_line(quoting):
    text = written(Csv(quoting=quoting), frame(a=["1", None, "", "2"])).decode()
    assert rows(text) == [["a"], ["1"], [""], [""], ["2"]]
    assert len(pd.read_csv(io.StringIO(text), skip_blank_lines=True)) == 4


ACCENTS = ["José", "Łódź", "“quoted”", "日本", None, "plain"]


@pytest.mark.req("R078", "C14")
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7", "gb18030", "cp1252", "latin-1", "cp037"],
)
def test_bytes_decode_in_the_chosen_encoding(encoding):
    values = ["José", "Straße", "plain"] if encoding in {"cp1252", "latin-1", "cp037"} else ACCENTS
    data = written(Csv(encoding=encoding), frame(a=values), frame(a=values))
    expected = "\r\n".join(["a", *(rendered(value) for value in values * 2), ""])
    assert data.decode(encoding) == expected


def rendered(value):
    return '""' if value is None else value


def test_utf_16_has_the_same_bytes_on_every_machine():
    assert written(Csv(encoding="utf-16"), frame(a=["é"])) == codecs.BOM_UTF16_LE + "a\r\né\r\n".encode(
        "utf-16-le"
    )


@pytest.mark.req("R078", "C14")
def test_what_the_encoding_lacks_fails_with_column_and_count_and_without_the_value():
    leads = [
        frame(name=["José", "Łódź"], city=["日本", "Ulm"]),
        frame(name=["Łódź", "Al"], city=["東京", "京都"]),
    ]
    with pytest.raises(RenderError) as failed:
        written(Csv(encoding="windows-1252"), *leads)
    message = str(failed.value)
    assert "2 values of column 'name' cannot be written in windows-1252" in message
    assert "3 values of column 'city' cannot be written in windows-1252" in message
    assert not any(value in message for value in ("Ł", "日", "東"))
    assert failed.value.__cause__ is None


@pytest.mark.req("R078")
@pytest.mark.parametrize(
    ("encoding", "policy", "golden"),
    [
        ("ascii", "replace", ["Jos?", "??d?", "?quoted?", "??", "", "plain"]),
        ("ascii", "transliterate", ["Jose", "Lodz", '"quoted"', "RiBen", "", "plain"]),
        ("windows-1252", "replace", ["José", "?ód?", "“quoted”", "??", "", "plain"]),
        ("windows-1252", "transliterate", ["José", "Lódz", "“quoted”", "RiBen", "", "plain"]),
    ],
)
def test_what_the_encoding_lacks_is_replaced_and_counted(encoding, policy, golden):
    changes = []
    leads = [frame(n=["1"] * 6, a=ACCENTS), frame(n=["1"] * 6, a=ACCENTS)]
    out = io.BytesIO()
    Csv(encoding=encoding, unencodable=policy).write(leads, out, context(*leads, report=changes.append))
    assert [one for _, one in rows(out.getvalue().decode(encoding))[1:]] == golden * 2
    lost = sum(
        value is not None and value.encode(encoding, "replace").decode(encoding) != value for value in ACCENTS
    )
    assert [(change.column, change.count) for change in changes] == [("a", lost * 2)]
    assert encoding in str(changes[0])


def test_transliterating_composes_first_and_lets_nothing_vanish():
    values = ["Jose\u0301", "\ue000", "x\u0301", "\uff45\uff1d\uff46"]
    text = written(Csv(encoding="windows-1252", unencodable="transliterate"), frame(a=values)).decode(
        "cp1252"
    )
    assert text == "a\r\nJosé\r\n?\r\nx\r\ne=f\r\n"


def test_what_transliterating_makes_of_a_value_is_quoted_and_neutralised():
    leads = frame(a=["“a”,b", "\uff1d1"], b=["1", "1"])
    text = written(Csv(encoding="ascii", unencodable="transliterate"), leads).decode()
    assert rows(text)[1:] == [['"a",b', "1"], ["'=1", "1"]]


def test_a_label_that_the_encoding_lacks_is_a_problem():
    assert Csv(encoding="ascii").problems(["Zip", "Straße"]) == ["field 'Straße' cannot be written in ascii"]
    assert Csv(encoding="ascii", header=False).problems(["Straße"]) == []
    with pytest.raises(RenderError, match="Straße"):
        written(Csv(encoding="ascii"), frame(Straße=["1"]))


DANGEROUS = [
    "=1+1",
    "@SUM(A1)",
    "+1+cmd|' /C calc'!A0",
    "-2+3+A1",
    " =1",
    "\t=1",
    "\r\n=1",
    "\uff1d1+1",
    "-A1",
    "=",
    "-5\n=1+1",
]
HARMLESS = [
    "+44 7700 900123",
    "+447700900123",
    "+1 (555) 010-0199 x12",
    "+1.555.010.0199",
    "-5",
    "-1,234.50",
    "-1E5",
    "-12%",
    "-$5.00",
    "-",
    "--",
    "02138",
    "a=b",
    "me@example.com",
    "\ttabbed",
    "\r\nbreak",
    "",
    "1-2",
]


@pytest.mark.req("F13", "C16")
@pytest.mark.parametrize("value", DANGEROUS)
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(value):
    leads, changes, out = frame(n=["1"], a=[value]), [], io.BytesIO()
    Csv().write([leads], out, context(leads, report=changes.append))
    assert rows(out.getvalue().decode())[1] == ["1", f"'{value}"]
    assert [(change.column, change.count) for change in changes] == [("a", 1)]
    assert rows(written(Csv(spreadsheet_safe=False), leads).decode())[1] == ["1", value]


@pytest.mark.req("F13", "C16")
@pytest.mark.parametrize("value", HARMLESS)
def test_phones_numbers_and_plain_text_stay_as_they_are(value):
    assert rows(written(Csv(), frame(n=["1"], a=[value])).decode())[1] == ["1", value]


def test_changes_are_warned_of_in_the_log_without_the_value(caplog):
    written(Csv(), frame(n=["1"], a=["=SECRET"]))
    assert caplog.messages == [
        "1 value of column 'a': apostrophe put before what a spreadsheet would run as a formula"
    ]


def test_without_quotes_a_value_that_needs_them_fails_the_file():
    assert written(Csv(quoting="never"), frame(a=['5" pipe'], b=["x"])) == b'a,b\r\n5" pipe,x\r\n'
    for value in ("a,b", "a\nb", "a\rb"):
        with pytest.raises(RenderError, match="1 value of column 'a' need quotes"):
            written(Csv(quoting="never"), frame(a=[value, "x"], b=["x", "x"]))
    with pytest.raises(RenderError, match="empty lines"):
        written(Csv(quoting="never"), frame(a=[None]))
    assert Csv(quoting="never").problems(["a,b"])


def test_numbers_by_type_stay_unquoted_when_only_text_is_quoted():
    leads = pl.DataFrame({"zip": ["02138", None], "price": [12.5, None]})
    assert written(Csv(quoting="non_numeric"), leads) == b'"zip","price"\r\n"02138",12.5\r\n,\r\n'


@pytest.mark.parametrize(
    "wrong",
    [
        {"delimiter": "||"},
        {"delimiter": ""},
        {"delimiter": "§"},
        {"delimiter": "\n"},
        {"delimiter": '"'},
        {"quote": "''"},
        {"quote": ","},
        {"encoding": "utf8-bom"},
        {"encoding": "rot13"},
        {"encoding": "base64"},
        {"encoding": "idna"},
        {"encoding": ""},
        {"null": "a,b"},
        {"null": "\u2013", "encoding": "ascii"},
        {"line_ending": "\n"},
        {"quoting": "some"},
        {"escape": "none"},
        {"escape": "backslash", "quote": "\\"},
        {"escape": "backslash", "delimiter": "\\"},
        {"decimal_mark": "'"},
        {"decimal_mark": ",", "quoting": "never"},
        {"date_format": "%Q"},
        {"date_format": "%d.%m.%Y %H:%M"},
        {"date_format": "today"},
        {"datetime_format": "%H:%M:%f"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValidationError):
        Csv(**wrong)


BACKSLASHED = frame(a=['say "hi"', "back\\slash", "a,b", "\\N", None], b=["x\ny", "", "=1", None, "1"])


@pytest.mark.req("R075")
@pytest.mark.parametrize(
    ("wanted", "golden"),
    [
        (
            {"null": r"\N"},
            'a,b\r\n"say \\"hi\\"","x\ny"\r\n"back\\\\slash",""\r\n"a,b",=1\r\n"\\\\N",\\N\r\n\\N,1\r\n',
        ),
        (
            {"quoting": "all", "header": False},
            '"say \\"hi\\"","x\ny"\r\n"back\\\\slash",""\r\n"a,b","=1"\r\n"\\\\N",\r\n,"1"\r\n',
        ),
        (
            {"quoting": "never", "null": r"\N", "line_ending": "lf"},
            'a,b\nsay "hi",x\\\ny\nback\\\\slash,\na\\,b,=1\n\\\\N,\\N\n\\N,1\n',
        ),
    ],
)
def test_with_backslashes_every_setting_is_right_to_the_byte(wanted, golden):
    wanted = Csv(escape="backslash", spreadsheet_safe=False, **wanted)
    assert written(wanted, BACKSLASHED[:2], BACKSLASHED[2:]).decode() == golden


@pytest.mark.req("R075")
@pytest.mark.parametrize("quoting", ["minimal", "all", "non_numeric"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_nasty_values_read_back_with_backslashes(quote, quoting):
    wanted = Csv(escape="backslash", quote=quote, quoting=quoting, spreadsheet_safe=False)
    back = rows(written(wanted, nasty()).decode(), quotechar=quote, escapechar="\\", doublequote=False)
    assert [value for _, value in back[1:]] == [value or "" for value in NASTY]


@pytest.mark.req("R075")
def test_nasty_values_read_back_without_quotes_where_a_backslash_escapes():
    text = written(Csv(escape="backslash", quoting="never", spreadsheet_safe=False), nasty()).decode()
    back = rows(text, quoting=csv.QUOTE_NONE, escapechar="\\")
    assert [value for _, value in back[1:]] == [value or "" for value in NASTY]


@pytest.mark.parametrize("escape", ["double", "backslash"])
@pytest.mark.parametrize("quoting", ["minimal", "all", "non_numeric"])
def test_typed_columns_are_the_same_text_whatever_the_escape(escape, quoting):
    wanted = Csv(escape=escape, quoting=quoting)
    dialect = {"escapechar": "\\", "doublequote": False} if escape == "backslash" else {}
    back = rows(written(wanted, TYPED).decode(), **dialect)
    as_before = rows(written(Csv(), TYPED.select(pl.exclude("day", "moment", "clock"))).decode())
    assert [one[:5] + one[8:] for one in back] == as_before
    assert [one[5:8] for one in back[1:]] == [
        ["2026-01-31", "2026-01-31T12:30:00.000000+0000", "09:30:00.000000000"],
        ["", "", ""],
    ]


@pytest.mark.req("F14")
@pytest.mark.parametrize("escape", ["double", "backslash"])
def test_decimal_mark_and_date_formats_are_for_values_by_type(escape):
    leads = TYPED.select("fraction", "money", "whole", "day", "moment").with_columns(text=pl.lit("1.5"))
    wanted = Csv(
        escape=escape,
        delimiter=";",
        decimal_mark=",",
        date_format="%d.%m.%y",
        datetime_format="%d %b %Y %H:%M %:z",
        header=False,
    )
    assert written(wanted, leads[:1]) == b"1,5;12,30;1;31.01.26;31 Jan 2026 12:30 +00:00;1.5\r\n"
    assert rows(written(wanted.model_copy(update={"delimiter": ","}), leads[:1]).decode())[0][:3] == [
        "1,5",
        "12,30",
        "1",
    ]


def test_moments_without_a_zone_cannot_tell_it():
    leads = pl.DataFrame({"a": [datetime(2026, 1, 31, 12, 30)]})  # noqa: DTZ001 - it has no zone on purpose
    assert written(Csv(datetime_format="%F %R"), leads) == b"a\r\n2026-01-31 12:30\r\n"
    assert written(Csv(), leads) == b"a\r\n2026-01-31T12:30:00.000000\r\n"
    with pytest.raises(RenderError, match="column 'a' holds moments without a zone"):
        written(Csv(datetime_format="%F %R %z"), leads)


@pytest.mark.parametrize("name", DELIMITERS)
def test_a_delimiter_by_name_is_the_character(name):
    assert Csv(delimiter=name) == Csv(delimiter=DELIMITERS[name])


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(
    records=st.lists(st.tuples(st.text(), st.none() | st.text()), min_size=1),
    delimiter=st.sampled_from([*DELIMITERS, "x", " ", "\x01"]),
    quote=st.sampled_from(['"', "'", "~"]),
    quoting=st.sampled_from(["minimal", "all", "non_numeric"]),
    line_ending=st.sampled_from(["crlf", "lf"]),
)
def test_any_text_reads_back_the_same(records, delimiter, quote, quoting, line_ending):
    wanted = Csv(
        delimiter=delimiter, quote=quote, quoting=quoting, line_ending=line_ending, spreadsheet_safe=False
    )
    leads = frame(A=[one for one, _ in records], B=[other for _, other in records])
    back = rows(written(wanted, leads).decode(), delimiter=wanted.delimiter, quotechar=quote)
    assert back[1:] == [[one, other or ""] for one, other in records]


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(values=st.lists(st.text(alphabet=st.characters(codec="cp1252")), min_size=1))
def test_any_windows_1252_text_reads_back_the_same(values):
    data = written(Csv(encoding="windows-1252", spreadsheet_safe=False), frame(a=values))
    assert [one for (one,) in rows(data.decode("cp1252"))[1:]] == values
