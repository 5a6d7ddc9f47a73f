"""Fixed width: the contract, golden bytes, positions, padding, what is too long, what breaks a line."""

import io
import re
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.format_contract import FormatContract, context, frame, nasty, written
from leadferry.errors import RenderError
from leadferry.formats.fixed_width import FixedWidth

CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")


def columns(**widths):
    return [{"name": name, "width": width} for name, width in widths.items()]


def width_of(name):
    return 30_000 if name == "value" else 40


class ForAnyFields:
    """The contract writes several sets of fields; this gives each a place."""

    extension, media_type = FixedWidth.extension, FixedWidth.media_type

    @staticmethod
    def of(names):
        return FixedWidth(columns=columns(**{name: width_of(name) for name in names}), header=True)

    def write(self, frames, out, about):
        self.of(about.columns).write(frames, out, about)

    def model_dump(self, **how):
        return self.of(f"field_{number}" for number in range(13)).model_dump(**how)

    def __eq__(self, other):
        return other == self.of(f"field_{number}" for number in range(13))

    __hash__ = None


class TestFixedWidthContract(FormatContract):
    """Spaces at the end of a value are not told from the padding."""

    @pytest.fixture
    def written_by(self):
        return ForAnyFields()

    def read(self, data):
        header, *lines = data.decode().removesuffix("\r\n").split("\r\n")
        places, start = {}, 0
        while start < len(header):
            name = header[start : start + 40].rstrip()
            places[name] = slice(start, start + width_of(name))
            start = places[name].stop
        assert {len(line) for line in lines} <= {start}
        return [{name: line[place].rstrip(" ") for name, place in places.items()} for line in lines]

    def expected(self, value):
        return CONTROL.sub(" ", value or "").rstrip(" ")

    def test_it_has_an_extension_a_media_type_and_a_page(self, written_by):
        assert (written_by.extension, written_by.media_type) == ("txt", "text/plain")
        assert (Path(__file__).parents[2] / "docs/formats/fixed_width.md").is_file()


LEADS = frame(**{"First Name": ["Zoë", None], "Amount": ["-5", ""], "Zip": ["02138", "1"]})
PLACES = [
    {"name": "First Name", "width": 10},
    {"name": "Amount", "width": 6, "align": "right", "pad": "0"},
    {"name": "Zip", "width": 5, "align": "right"},
]

GOLDEN = {
    "default": ({}, "Zoë       -0000502138\r\n                    1\r\n"),
    "header": (
        {"header": True},
        "First NameAmountZip  \r\nZoë       -0000502138\r\n                    1\r\n",
    ),
    "lf": ({"line_ending": "lf"}, "Zoë       -0000502138\n                    1\n"),
    "records without line ends": (
        {"line_ending": "none", "line_width": 24},
        "Zoë       -0000502138                       1   ",
    ),
    "gaps": (
        {
            "columns": [PLACES[0] | {"start": 3}, PLACES[1] | {"start": 14}, PLACES[2]],
            "header": True,
            "line_width": 26,
        },
        "  First Name AmountZip    \r\n  Zoë        -0000502138  \r\n                       1  \r\n",
    ),
    "other padding": (
        {"columns": [PLACES[0] | {"pad": "."}, PLACES[1] | {"pad": "*"}, PLACES[2] | {"align": "left"}]},
        "Zoë.......****-502138\r\n                1    \r\n",
    ),
}


@pytest.mark.req("F52")
@pytest.mark.parametrize(("wanted", "golden"), GOLDEN.values(), ids=GOLDEN)
def test_every_setting_is_right_to_the_byte(wanted, golden):
    assert written(FixedWidth(**{"columns": PLACES} | wanted), LEADS) == golden.encode()


@pytest.mark.req("F52", "R078")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "windows-1252", "cp037"])
def test_widths_are_characters_and_bytes_where_a_character_is_a_byte(encoding):
    data = written(FixedWidth(columns=PLACES, encoding=encoding), LEADS)
    assert data.decode(encoding) == GOLDEN["default"][1]
    if encoding in {"windows-1252", "cp037"}:
        assert len(data) == 2 * 23


@pytest.mark.req("F52")
def test_pandas_reads_the_same_records():
    leads = pl.read_csv(Path(__file__).parents[2] / "samples/us_500.csv", infer_schema=False)
    widths = {name: (leads[name].str.len_chars().max() or 0) + 1 for name in leads.columns}
    widths = {name: max(width, len(name) + 1) for name, width in widths.items()}
    data = written(FixedWidth(columns=columns(**widths), header=True), leads)
    back = pd.read_fwf(io.BytesIO(data), widths=list(widths.values()), dtype=str, keep_default_na=False)
    assert back.to_dict("records") == leads.to_dicts()


def test_the_columns_stand_in_their_own_order_whatever_that_of_the_fields():
    wanted = FixedWidth(columns=columns(b=2, a=2), header=True)
    assert written(wanted, frame(a=["1"], b=["2"])) == b"b a \r\n2 1 \r\n"


@pytest.mark.req("F52")
def test_a_value_that_is_too_long_fails_with_column_and_count_and_without_the_value():
    leads = [frame(a=["SECRET", "x"], b=["1", "1"]), frame(a=["SECRETS"], b=["1"])]
    with pytest.raises(RenderError) as failed:
        written(FixedWidth(columns=columns(a=5, b=1)), *leads)
    assert "2 values of column 'a' are longer than 5 characters" in str(failed.value)
    assert "SECRET" not in str(failed.value)


@pytest.mark.req("F52")
@pytest.mark.parametrize("align", ["left", "right"])
def test_a_value_that_is_too_long_is_cut_where_that_is_allowed_and_told(align):
    told = []
    leads = [frame(a=["Ångström", "x"]), frame(a=["👩‍👩‍👧 family"])]
    wanted = FixedWidth(columns=[{"name": "a", "width": 3, "overflow": "cut", "align": align}])
    out = io.BytesIO()
    wanted.write(leads, out, context(*leads, report=told.append))
    shown = "x  " if align == "left" else "  x"
    assert out.getvalue().decode() == f"Ång\r\n{shown}\r\n👩\u200d👩\r\n"
    assert [str(one) for one in told] == ["2 values of column 'a': cut to 3 characters"]


def test_what_transliterating_makes_longer_is_too_long():
    wanted = FixedWidth(columns=columns(a=2), encoding="ascii", unencodable="transliterate")
    with pytest.raises(RenderError, match="longer than 2 characters"):
        written(wanted, frame(a=["日本"]))


def test_line_breaks_become_spaces_and_are_told():
    told = []
    leads = frame(a=["x\r\ny\tz\x00\u2028", "plain"])
    out = io.BytesIO()
    FixedWidth(columns=columns(a=8)).write([leads], out, context(leads, report=told.append))
    assert out.getvalue() == b"x  y z  \r\nplain   \r\n"
    assert [(one.column, one.count) for one in told] == [("a", 1)]
    with pytest.raises(RenderError, match="1 value of column 'a' hold line breaks"):
        written(FixedWidth(columns=columns(a=8), control_characters="fail"), leads)


@pytest.mark.parametrize(
    ("wanted", "names", "says"),
    [
        ({}, ["a", "b", "c"], "field 'c' has no place: add it to columns"),
        ({}, ["a"], "columns has 'b', which is no field; there is a"),
        ({"header": True, "columns": columns(a=1, long=3)}, ["a", "long"], "'long' is longer than its 3"),
        (
            {"header": True, "columns": columns(é=1), "encoding": "ascii"},
            ["é"],
            "'é' cannot be written in ascii",
        ),
    ],
)
def test_fields_and_columns_that_do_not_fit_each_other_are_a_problem(wanted, names, says):
    written_by = FixedWidth(**{"columns": columns(a=1, b=1)} | wanted)
    assert any(says in problem for problem in written_by.problems(names))
    with pytest.raises(RenderError):
        written(written_by, frame(**{name: [] for name in names}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": []},
        {"columns": columns(a=0)},
        {"columns": columns(a=1) * 2},
        {"columns": [{"name": "a", "width": 5}, {"name": "b", "width": 1, "start": 5}]},
        {"columns": [{"name": "a", "width": 1, "start": 0}]},
        {"columns": [{"name": "a", "width": 1, "pad": "--"}]},
        {"columns": [{"name": "a", "width": 1, "pad": "\n"}]},
        {"columns": [{"name": "a", "width": 1, "pad": "█"}], "encoding": "ascii"},
        {"columns": [{"name": "a", "width": 1, "overflow": "ignore"}]},
        {"columns": columns(a=5), "line_width": 4},
        {"columns": columns(a=5), "encoding": "utf9"},
        {"columns": columns(a=5), "line_ending": "cr"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValidationError):
        FixedWidth(**wrong)


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(
    values=st.lists(st.none() | st.text(max_size=12), min_size=1), align=st.sampled_from(["left", "right"])
)
def test_any_text_keeps_its_place(values, align):
    wanted = FixedWidth(columns=[{"name": "a", "width": 12, "align": align}, {"name": "b", "width": 1}])
    lines = written(wanted, frame(a=values, b=["|"] * len(values))).decode().split("\r\n")
    assert [line[12:] for line in lines] == ["|"] * len(values) + [""]
    assert [line[:12].strip(" ") for line in lines[:-1]] == [
        CONTROL.sub(" ", one or "").strip(" ") for one in values
    ]


def test_nasty_values_keep_their_line():
    data = written(FixedWidth(columns=columns(id=3, value=30_000)), nasty())
    assert [line[:3] for line in data.decode().split("\r\n")[:-1]] == nasty()["id"].to_list()
