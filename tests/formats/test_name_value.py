"""name=value: the contract, golden bytes, names that cannot be, what breaks a line."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.format_contract import FormatContract, context, frame, written
from leadferry.errors import RenderError
from leadferry.formats.name_value import NameValue

CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")


class TestNameValueContract(FormatContract):
    @pytest.fixture
    def written_by(self):
        return NameValue()

    def read(self, data):
        leads = data.decode().removesuffix("\r\n").split("\r\n\r\n")
        return [
            {line.partition("=")[0]: line.partition("=")[2] for line in lead.split("\r\n")}
            for lead in leads
            if lead
        ]

    def expected(self, value):
        return CONTROL.sub(" ", value or "")

    def test_it_has_an_extension_a_media_type_and_a_page(self, written_by):
        assert (written_by.extension, written_by.media_type) == ("txt", "text/plain")
        assert (Path(__file__).parents[2] / "docs/formats/name_value.md").is_file()


LEADS = frame(**{"First Name": ["Zoë", None], "note": ["a=b", " x "]})

GOLDEN = {
    "default": ({}, "First Name=Zoë\r\nnote=a=b\r\n\r\nFirst Name=\r\nnote= x \r\n"),
    "lf": ({"line_ending": "lf"}, "First Name=Zoë\nnote=a=b\n\nFirst Name=\nnote= x \n"),
    "colon": (
        {"separator": ": ", "null": "-"},
        "First Name: Zoë\r\nnote: a=b\r\n\r\nFirst Name: -\r\nnote:  x \r\n",
    ),
}


@pytest.mark.req("F52")
@pytest.mark.parametrize(("wanted", "golden"), GOLDEN.values(), ids=GOLDEN)
def test_every_setting_is_right_to_the_byte(wanted, golden):
    assert written(NameValue(**wanted), LEADS[:1], LEADS[1:]) == golden.encode()


def test_what_the_encoding_lacks_and_line_breaks_are_told():
    told = []
    leads = frame(a=["Łódź\nx"])
    out = io.BytesIO()
    wanted = NameValue(encoding="windows-1252", unencodable="transliterate")
    wanted.write([leads], out, context(leads, report=told.append))
    assert out.getvalue() == "a=Lódz x\r\n".encode("cp1252")
    assert len(told) == 2
    for strict in (NameValue(control_characters="fail"), NameValue(encoding="ascii")):
        with pytest.raises(RenderError, match="1 value of column 'a'"):
            written(strict, leads)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [({}, "a=b"), ({}, "a\nb"), ({"separator": "=="}, "a="), ({"encoding": "ascii"}, "é")],
)
def test_names_that_could_not_be_told_from_values_are_a_problem(wanted, name):
    assert NameValue(**wanted).problems(["fine", name])
    with pytest.raises(RenderError):
        written(NameValue(**wanted), frame(**{name: ["x"]}))


@pytest.mark.parametrize(
    "wrong", [{"separator": ""}, {"separator": "\n"}, {"null": "a\nb"}, {"encoding": "utf9"}]
)
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValidationError):
        NameValue(**wrong)


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(values=st.lists(st.none() | st.text(), min_size=1))
def test_any_text_without_line_breaks_reads_back_the_same(values):
    lines = written(NameValue(line_ending="lf"), frame(a=values)).decode().split("\n\n")
    shown = [CONTROL.sub(" ", one or "") for one in values]
    assert "\n\n".join(lines) == "\n".join(f"a={one}\n" for one in shown)
