"""Excel workbooks: the contract, what a reader sees, limits, and that no clock is in the bytes."""

import gc
import io
import zipfile

import openpyxl
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from openpyxl.utils.escape import unescape
from pydantic import ValidationError

from contracts.format_contract import TYPED, VARIABLES, FormatContract, context, frame, nasty, written
from leadferry.errors import RenderError
from leadferry.formats.base import FileContext
from leadferry.formats.xlsx import Xlsx, sheet_name
from leadferry.formats.xlsx.stream import FrameStream


def opened(data):
    return openpyxl.load_workbook(io.BytesIO(data))


def values(data):
    return [list(row) for row in opened(data).active.values]


class TestXlsxContract(FormatContract):
    @pytest.fixture
    def written_by(self):
        return Xlsx()

    def read(self, data):
        header, *rows = values(data)
        return [dict(zip(header, row, strict=True)) for row in rows]

    def expected(self, value):
        """An empty text is an empty cell, and a line break in a cell is a line feed."""
        return (value or "").replace("\r\n", "\n") or None


@pytest.mark.req("R079", "F13", "C15", "C16")
def test_zip_codes_phones_and_formulas_stay_text():
    texts = [
        "02138",
        "+44 7700 900123",
        "5046218927",
        "-5",
        "1E5",
        "=1+1",
        "@SUM(A1)",
        "2026-01-31",
        "TRUE",
        "#N/A",
    ]
    sheet = opened(written(Xlsx(), frame(a=texts))).active
    cells = [row[0] for row in sheet.iter_rows(min_row=2)]
    assert [cell.value for cell in cells] == texts
    assert {cell.data_type for cell in cells} <= {"s", "inlineStr"}
    assert {cell.number_format for cell in cells} == {"General"}


@pytest.mark.req("R079")
def test_the_header_is_bold_frozen_and_filtered():
    sheet = opened(written(Xlsx(), frame(a=["1"], b=["2"]))).active
    assert [cell.font.bold for cell in sheet[1]] == [True, True]
    assert [cell.font.bold for cell in sheet[2]] == [False, False]
    assert sheet.freeze_panes == "A2"
    assert sheet.auto_filter.ref == "A1:B2"


def test_the_looks_of_the_header_can_be_switched_off():
    plain = Xlsx(bold_header=False, freeze_header=False, autofilter=False)
    sheet = opened(written(plain, frame(a=["1"]))).active
    assert (sheet["A1"].font.bold, sheet.freeze_panes, sheet.auto_filter.ref) == (False, None, None)


def test_no_leads_make_a_sheet_with_a_header():
    assert values(written(Xlsx(), frame(a=[], b=[]))) == [["a", "b"]]


def test_widths_fit_what_is_in_the_columns_within_bounds():
    leads = frame(a=["x"], b=["y" * 30], c=["z" * 500], d=[None])
    widths = opened(written(Xlsx(widths={"d": 12.5}), leads)).active.column_dimensions
    short, fitting, long, given_ = (widths[letter].width for letter in "ABCD")
    assert 8 <= short < 10
    assert 30 < fitting < 34
    assert 60 <= long < 62
    assert 12.5 <= given_ < 13.5


def test_a_width_for_a_field_that_does_not_exist_is_a_problem():
    assert Xlsx(widths={"zipp": 9}).problems(["zip"]) == ["widths has 'zipp', which is no field"]
    with pytest.raises(RenderError, match="zipp"):
        written(Xlsx(widths={"zipp": 9}), frame(zip=["1"]))


@pytest.mark.req("R080")
@pytest.mark.parametrize(
    ("wanted", "golden"),
    [
        ("Acme Auto 2026-01-31", "Acme Auto 2026-01-31"),
        ("Leads [a]:b*c?d/e\\f", "Leads _a__b_c_d_e_f"),
        ("x" * 40, "x" * 31),
        ("😀" * 20, "😀" * 15),
        ("'quoted'", "quoted"),
        ("History", "History_"),
        ("  ", "Leads"),
        ("a\nb", "a b"),
        ("Leads", "Leads"),
        ("30 characters and then a quote'''", "30 characters and then a quote"),
    ],
)
def test_the_sheet_has_the_name_of_the_template_made_fit_for_excel(wanted, golden):
    variables = {**VARIABLES, "batch": {"name": wanted}}
    data = written(Xlsx(sheet="{{ batch.name }}"), frame(a=["1"]), variables=variables)
    assert opened(data).sheetnames == [golden]


@pytest.mark.req("R080")
@pytest.mark.parametrize("bad", ["Leads [new]", "a/b {{ delivery.date }}", "x" * 32, "a:b", "what?"])
def test_a_name_that_excel_forbids_is_refused_when_the_batch_file_is_read(bad):
    with pytest.raises(ValidationError, match="a sheet's name"):
        Xlsx(sheet=bad)
    with pytest.raises(ValidationError, match="a sheet's name"):
        Xlsx(chart={"by": "a", "sheet": bad})


def test_an_unknown_variable_in_the_sheets_name_is_refused_when_the_batch_file_is_read():
    with pytest.raises(ValidationError, match="delivery"):
        Xlsx(sheet="{{ delivery.dat }}")


@settings(deadline=None, derandomize=True, database=None, max_examples=200)
@given(wanted=st.text(max_size=60))
def test_any_sheet_name_can_be_made_fit(wanted):
    name = sheet_name(wanted)
    assert 0 < len(name.encode("utf-16-le")) // 2 <= 31
    assert not set(name) & set("[]:*?/\\")
    assert name[0] != "'"
    assert name[-1] != "'"


@pytest.mark.req("F13", "C17")
@pytest.mark.parametrize(("policy", "golden"), [("remove", "ab"), ("replace", "a\ufffdb")])
def test_control_characters_are_taken_out_and_counted(policy, golden):
    changes, out = [], io.BytesIO()
    leads = [frame(n=["1"], a=["a\x0bb"]), frame(n=["2"], a=["a\x00b"])]
    Xlsx(control_characters=policy).write(leads, out, context(*leads, report=changes.append))
    assert [row[1] for row in values(out.getvalue())[1:]] == [golden, golden]
    assert [(change.column, change.count) for change in changes] == [("a", 2)]


@pytest.mark.req("C17")
def test_control_characters_can_fail_the_file():
    with pytest.raises(RenderError, match="1 value of column 'a'"):
        written(Xlsx(control_characters="fail"), frame(a=["a\x0bb"]))


def test_carriage_returns_become_line_feeds_and_are_counted():
    changes, out = [], io.BytesIO()
    leads = frame(a=["a\r\nb\rc", "d\ne"])
    Xlsx().write([leads], out, context(leads, report=changes.append))
    assert values(out.getvalue())[1:] == [["a\nb\nc"], ["d\ne"]]
    assert [(change.column, change.count) for change in changes] == [("a", 1)]


@pytest.mark.req("C18")
def test_text_longer_than_a_cell_fails_the_file_instead_of_being_cut():
    fits, longer, wide = "x" * 32_767, "x" * 32_768, "😀" * 16_384
    assert values(written(Xlsx(), frame(a=[fits, "é" * 32_767])))[1:] == [[fits], ["é" * 32_767]]
    with pytest.raises(RenderError, match="2 values of column 'a' are longer than the 32767 characters"):
        written(Xlsx(), frame(a=[fits, longer, wide]))


def test_no_clock_is_in_the_bytes():
    with zipfile.ZipFile(io.BytesIO(written(Xlsx(), nasty()))) as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        core = archive.read("docProps/core.xml")
        assert len(archive.namelist()) == len(set(archive.namelist()))
    assert [one.tag.rpartition("}")[2] for one in etree.fromstring(core)] == ["creator"]


def rows_by_sheet(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sheets = {
            name: archive.read(name) for name in archive.namelist() if name.startswith("xl/worksheets/sheet")
        }
    return {name: sheet.count(b"<row ") for name, sheet in sheets.items()}


@pytest.mark.req("C18")
def test_leads_beyond_the_last_row_go_on_on_another_sheet():
    """Really one lead more than Excel's 1,048,576 rows hold under a header."""
    numbers = pl.DataFrame({"n": pl.int_range(1_048_576, eager=True).cast(pl.String)})
    out = io.BytesIO()
    Xlsx(sheet="x" * 31).write(
        (numbers[i : i + 100_000] for i in range(0, 1_048_576, 100_000)), out, context(numbers)
    )
    assert rows_by_sheet(out.getvalue()) == {
        "xl/worksheets/sheet1.xml": 1_048_576,
        "xl/worksheets/sheet2.xml": 2,
    }
    book = openpyxl.load_workbook(io.BytesIO(out.getvalue()), read_only=True)
    assert book.sheetnames == ["x" * 31, "x" * 27 + " (2)"]
    assert list(book.worksheets[1].values) == [("n",), ("1048575",)]


def test_sheets_divide_frames_wherever_the_limit_falls(monkeypatch):
    monkeypatch.setattr("leadferry.formats.xlsx.names.ROWS", 4)  # three leads and the header
    leads = frame(a=[str(number) for number in range(8)])
    for frames in ([leads], [leads[:3], leads[3:]], [leads[:1], leads[1:7], leads[7:]]):
        book = opened(written(Xlsx(), *frames))
        assert book.sheetnames == ["Leads", "Leads (2)", "Leads (3)"]
        assert [[row[0] for row in sheet.values] for sheet in book] == [
            ["a", "0", "1", "2"],
            ["a", "3", "4", "5"],
            ["a", "6", "7"],
        ]


@pytest.mark.req("C18")
def test_more_leads_than_rows_can_fail_before_anything_is_written(monkeypatch):
    monkeypatch.setattr("leadferry.formats.xlsx.names.ROWS", 4)
    with pytest.raises(RenderError, match="4 leads are more than the 3"):
        written(Xlsx(too_many_rows="fail"), frame(a=["1"] * 4))
    assert values(written(Xlsx(too_many_rows="fail"), frame(a=["1"] * 3)))


def test_numbers_dates_and_truths_by_type_are_cells_of_that_type():
    header, first, second = values(written(Xlsx(), TYPED))
    cells = dict(zip(header, first, strict=True))
    assert (cells["whole"], cells["fraction"], cells["money"], cells["yes"]) == (1, 1.5, 12.3, True)
    assert (f"{cells['day']:%Y-%m-%d}", f"{cells['moment']:%Y-%m-%d %H:%M}") == (
        "2026-01-31",
        "2026-01-31 12:30",
    )
    assert set(second) == {"2", None}


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def frames():
        for _ in range(3):
            yield frame(a=["SECRET"] * 200)
            assert list(tmp_path.iterdir()) == []

    with pytest.raises(RenderError, match="700 leads"):
        Xlsx().write(frames(), io.BytesIO(), FileContext(columns=["a"], rows=700))
    assert list(tmp_path.iterdir()) == []


def test_frames_are_let_go_after_they_were_written():
    """The stream interface is C; what it holds must be released through it."""
    written(Xlsx(), nasty())
    gc.collect()
    before = {id(one) for one in gc.get_objects() if type(one) is FrameStream}
    written(Xlsx(), nasty())
    gc.collect()
    assert not {id(one) for one in gc.get_objects() if type(one) is FrameStream} - before


LEGAL = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\r\ufffe\uffff")).map(
    lambda text: "".join(one for one in text if one >= " " or one in "\t\n")
)


@settings(deadline=None, derandomize=True, database=None, max_examples=80)
@given(texts=st.lists(st.none() | LEGAL, min_size=1))
def test_any_text_that_excel_can_hold_reads_back_the_same(texts):
    leads = frame(n=["1"] * len(texts), v=texts)
    read = [row[1] for row in values(written(Xlsx(control_characters="fail"), leads))[1:]]
    assert [None if one is None else unescape(one) for one in read] == [text or None for text in texts]
