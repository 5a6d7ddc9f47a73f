"""What the settings of a workbook make of it, as openpyxl reads it back."""

import io
import json
import subprocess
import sys
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import openpyxl
import polars as pl
import pytest
from lxml import etree
from pydantic import TypeAdapter, ValidationError

from contracts.format_contract import VARIABLES, context, frame, nasty, written
from leadferry.errors import RenderError
from leadferry.formats import Format
from leadferry.formats.xlsx import Xlsx
from leadferry.formats.xlsx.formulas import NO_VALUE

SAMPLES = Path(__file__).parents[2] / "samples/us_500.csv"

SOLD = pl.DataFrame(
    {
        "State": ["CA", "TX", "CA", None, "ca", "CA"],
        "Email": ["a@example.com", "b@example.com", "", None, "e@example.com", "f@example.com"],
        "Price": [10.0, 2.5, None, 4.0, 1.25, 100.0],
        "Quantity": [1, 2, 3, 0, None, 5],
        "Status": ["new"] * 6,
        "Received": [date(2026, 1, day) for day in range(1, 7)],
    }
)

FULL = {
    "sheet_by": "State",
    "banded_color": "#F2F6FA",
    "freeze_columns": 1,
    "number_formats": {"Price": "#,##0.00", "Total": "#,##0.00"},
    "formulas": {"Total": "=[Price]*[Quantity]"},
    "totals": {"Total": "sum"},
    "choices": {"Status": ["new", "contacted"]},
    "links": ["Email"],
    "notes": {"Email": "As the lead wrote it"},
    "chart": {"by": "State", "kind": "pie"},
    "document_title": "{{ batch.name }}",
    "print_header": "{{ recipient.name }} · {{ delivery.id }}",
}


def opened(data, **how):
    return openpyxl.load_workbook(io.BytesIO(data), **how)


def moment(*parts):
    """A time as Excel knows it, without a zone."""
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)


def column(sheet, letter):
    return [cell.value for cell in sheet[letter]]


def part(data, name):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.namelist()) == len(set(archive.namelist()))
        return archive.read(name)


@pytest.mark.req("R081")
def test_every_value_of_a_field_gets_a_sheet_and_no_lead_is_lost():
    book = opened(written(Xlsx(sheet_by="State", sheet="No state"), SOLD[:2], SOLD[2:]))
    assert book.sheetnames == ["CA", "ca (2)", "TX", "No state"]
    dates = {sheet.title: [cell.day for cell in column(sheet, "F")[1:]] for sheet in book}
    assert dates == {"CA": [1, 3, 6], "ca (2)": [5], "TX": [2], "No state": [4]}
    assert all([cell.value for cell in sheet[1]] == SOLD.columns for sheet in book)


@pytest.mark.req("R080", "R081")
def test_values_become_names_that_excel_takes_each_once():
    values = [
        "a/b",
        "a:b",
        "A_B",
        "x" * 40,
        "x" * 31 + "y",
        "'quoted'",
        "History",
        "  ",
        "Leads",
        "=1+1",
        "😀" * 20,
        "\x07",
    ]
    leads = frame(kind=values, n=[str(number) for number in range(len(values))])
    book = opened(written(Xlsx(sheet_by="kind"), leads))
    assert len(book.sheetnames) == len({name.casefold() for name in book.sheetnames}) == len(values) - 1
    assert all(0 < len(name.encode("utf-16-le")) // 2 <= 31 for name in book.sheetnames)
    assert not set("".join(book.sheetnames)) & set("[]:*?/\\")
    found = sorted(int(row[1]) for sheet in book for row in sheet.iter_rows(min_row=2, values_only=True))
    assert found == list(range(len(values)))


def test_a_sheet_for_every_value_has_limits_of_its_own(monkeypatch):
    monkeypatch.setattr("leadferry.formats.xlsx.names.ROWS", 3)
    leads = frame(kind=["a", "b", "a", "a", "a (2)"], n=["1", "2", "3", "4", "5"])
    book = opened(written(Xlsx(sheet_by="kind"), leads))
    found = {sheet.title: column(sheet, "B")[1:] for sheet in book}
    assert found == {"a": ["1", "3"], "a (2)": ["4"], "a (2) (2)": ["5"], "b": ["2"]}
    with pytest.raises(RenderError, match="too_many_rows"):
        written(Xlsx(sheet_by="kind", too_many_rows="fail"), leads)


def test_too_many_values_for_sheets_or_a_chart_fail_the_file(monkeypatch):
    leads = frame(n=[str(number) for number in range(256)])
    with pytest.raises(RenderError, match="'n' has more than 255 different values"):
        written(Xlsx(sheet_by="n"), leads)
    monkeypatch.setattr("leadferry.formats.xlsx.sheets.MOST_VALUES", 100)
    with pytest.raises(RenderError, match="'n' has more than 100 different values"):
        written(Xlsx(chart={"by": "n"}), leads)


@pytest.mark.req("R081")
def test_no_leads_make_one_sheet_with_a_header_whatever_is_asked():
    for wanted in (Xlsx(sheet_by="State"), Xlsx(**FULL)):
        data = written(wanted, SOLD.clear())
        book = opened(data)
        assert column(book.worksheets[0], "A") == ["State"]
        assert part(data, "xl/worksheets/sheet1.xml").count(b"<row ") == 1


@pytest.mark.req("R082")
def test_dates_numbers_and_truths_are_cells_of_their_kind_with_a_number_format():
    leads = pl.DataFrame(
        {
            "whole": [7],
            "money": pl.Series([Decimal("12.30")], dtype=pl.Decimal(10, 2)),
            "day": [date(2026, 1, 31)],
            "old": [date(1900, 1, 1)],
            "moment": pl.Series([datetime(2026, 1, 31, 12, 30, tzinfo=UTC)], dtype=pl.Datetime("us", "UTC")),
            "yes": [True],
            "share": [0.25],
            "zip": ["02138"],
        }
    )
    sheet = opened(
        written(Xlsx(number_formats={"money": "#,##0.00", "share": "0%", "day": "dd/mm/yyyy"}), leads)
    ).active
    shown = {
        head.value: (cell.value, cell.number_format) for head, cell in zip(sheet[1], sheet[2], strict=True)
    }
    assert shown == {
        "whole": (7, "0"),
        "money": (12.3, "#,##0.00"),
        "day": (moment(2026, 1, 31), "dd/mm/yyyy"),
        "old": (moment(1900, 1, 1), "yyyy-mm-dd"),
        "moment": (moment(2026, 1, 31, 12, 30), "yyyy-mm-dd hh:mm"),
        "yes": (True, "General"),
        "share": (0.25, "0%"),
        "zip": ("02138", "General"),
    }
    assert {cell.font.bold for cell in sheet[1]} == {True}


@pytest.mark.parametrize("banded", [None, "#F2F6FA"])
def test_a_number_format_stays_on_banded_rows(banded):
    sheet = opened(written(Xlsx(banded_color=banded), SOLD)).active
    assert {cell.number_format for cell in sheet["F"][1:]} == {"yyyy-mm-dd"}
    fills = [cell.fill.fgColor.rgb for cell in sheet["A"][1:]]
    assert fills.count("FFF2F6FA") == (3 if banded else 0)


@pytest.mark.parametrize(
    ("color", "letters"), [("#1F4E78", "FFFFFFFF"), ("#FFFF00", "FF000000"), (None, None)]
)
def test_the_header_has_its_colour_and_letters_that_can_be_read(color, letters):
    cell = opened(written(Xlsx(header_color=color), frame(a=["1"]))).active["A1"]
    if color is None:
        assert cell.fill.fill_type is None
    else:
        assert (cell.fill.fgColor.rgb, cell.font.color.rgb) == ("FF" + color[1:], letters)


def test_first_columns_stay_in_view():
    sheet = opened(written(Xlsx(freeze_columns=2), SOLD)).active
    assert sheet.freeze_panes == "C2"


@pytest.mark.req("R083")
def test_a_formula_of_the_batch_file_is_a_live_column_with_its_value():
    wanted = Xlsx(formulas={"Total": "=[Price]*[Quantity]", "Twice": "=2*[Total]"})
    data = written(wanted, SOLD)
    live, stored = opened(data).active, opened(data, data_only=True).active
    assert column(live, "G")[:3] == ["Total", "=C2*D2", "=C3*D3"]
    assert column(stored, "G") == ["Total", 10, 5, 0, 0, 0, 500]
    assert column(stored, "H") == ["Twice", 20, 10, 0, 0, 0, 1000]


@pytest.mark.req("R083")
def test_totals_are_live_formulas_with_their_value():
    totals = {"Price": "sum", "Quantity": "average", "Email": "count", "Total": "max"}
    wanted = Xlsx(formulas={"Total": "=[Price]*[Quantity]"}, totals=totals, number_formats={"Price": "0.00"})
    data = written(wanted, SOLD[:1], SOLD[1:])
    live, stored = opened(data).active, opened(data, data_only=True).active
    assert [cell.value for cell in live[8]] == [
        "Total",
        "=COUNTA(B2:B7)",
        "=SUM(C2:C7)",
        "=AVERAGE(D2:D7)",
        None,
        None,
        "=MAX(G2:G7)",
    ]
    assert [cell.value for cell in stored[8]] == ["Total", 4, 117.75, 2.2, None, None, 500]
    assert all(cell.font.bold and cell.border.top.style == "thin" for cell in live[8])
    assert live["C8"].number_format == "0.00"
    assert live.auto_filter.ref == "A1:G7"


def test_each_sheet_has_its_own_totals():
    data = written(Xlsx(sheet_by="State", totals={"Price": "sum"}), SOLD)
    sums = {sheet.title: column(sheet, "C")[-1] for sheet in opened(data, data_only=True)}
    assert sums == {"CA": 110, "ca (2)": 1.25, "TX": 2.5, "Leads": 4}


def test_a_totals_row_leaves_one_row_less_for_leads(monkeypatch):
    monkeypatch.setattr("leadferry.formats.xlsx.names.ROWS", 4)
    book = opened(written(Xlsx(totals={"Price": "min"}), SOLD))
    assert [sheet.max_row for sheet in book] == [4, 4, 4]
    assert [sheet["C4"].value for sheet in book] == ["=MIN(C2:C3)"] * 3


@pytest.mark.req("R083", "F13", "C16")
def test_no_value_of_a_lead_ever_becomes_a_formula():
    texts = [
        "=1+1",
        "=cmd|' /C calc'!A0",
        "@SUM(A1)",
        "+1+1",
        "-2",
        '=HYPERLINK("https://example.com")',
        "{=1}",
    ]
    leads = frame(kind=["=1+1"] * 7, text=texts).with_columns(n=pl.int_range(7))
    wanted = Xlsx(sheet_by="kind", formulas={"Twice": "=2*[n]"}, totals={"n": "sum"}, chart={"by": "text"})
    book = opened(written(wanted, leads))
    formulas = [
        cell.value for sheet in book for row in sheet.iter_rows() for cell in row if cell.data_type == "f"
    ]
    assert formulas == [*(f"=2*C{row}" for row in range(2, 9)), "=SUM(C2:C8)"]
    assert [cell.value for cell in book.worksheets[0]["B"][1:8]] == texts


def test_a_division_by_zero_is_an_empty_value():
    data = written(Xlsx(formulas={"Each": "=[Price]/[Quantity]"}, totals={"Each": "sum"}), SOLD)
    assert column(opened(data).active, "G")[4] == '=IFERROR(C5/D5,"")'
    assert column(opened(data, data_only=True).active, "G")[1:] == [10, 1.25, 0, None, None, 20, 31.25]
    assert str(NO_VALUE).encode() not in part(data, "xl/worksheets/sheet1.xml")


def test_calculating_with_text_is_refused_before_a_byte_is_written():
    for wanted in (Xlsx(totals={"Email": "sum"}), Xlsx(formulas={"x": "=2*[Email]"})):
        out = io.BytesIO()
        with pytest.raises(RenderError, match=r"'Email', which is no number.*type: number"):
            wanted.write([SOLD], out, context(SOLD))
        assert out.getvalue() == b""


@pytest.mark.req("R085")
def test_a_column_has_the_drop_down_list_that_is_configured():
    (rule,) = opened(
        written(Xlsx(choices={"Status": ["new", 'the "other"']}), SOLD)
    ).active.data_validations.dataValidation
    assert (rule.type, rule.formula1, str(rule.sqref)) == ("list", '"new,the ""other"""', "E2:E7")


def test_links_are_only_addresses_of_pages_and_mail():
    addresses = {
        "https://example.com/?a=1&b=2#there": True,
        "HTTP://example.com": True,
        "mailto:jane@example.com": True,
        "https://example.com/ä ö": False,
        "https://example.com/ä": True,
        "https://example.com/100%": True,
        "javascript:alert(1)": False,
        "file://server/share": False,
        "internal:Leads!A1": False,
        "external:c:/x.xlsx": False,
        "ftp://example.com": False,
        "\\\\server\\share": False,
        "jane@example.com": False,
        "https://example.com/" + "x" * 3000: False,
    }
    leads = frame(n=["1"] * len(addresses), web=list(addresses))
    data = written(
        Xlsx(links=["web"], notes={"n": "with a note"}, totals={"n": "count"}), leads[:2], leads[2:]
    )
    cells = [row[1] for row in opened(data).active.iter_rows(min_row=2, max_row=len(addresses) + 1)]
    assert [cell.value for cell in cells] == list(addresses)
    assert [cell.hyperlink is not None for cell in cells] == list(addresses.values())
    assert cells[0].hyperlink.target == "https://example.com/?a=1&b=2#there"
    assert cells[4].hyperlink.target == "https://example.com/%C3%A4"
    assert cells[5].hyperlink.target == "https://example.com/100%25"


def test_links_beyond_those_that_a_sheet_can_have_stay_text_and_are_counted(monkeypatch):
    monkeypatch.setattr("leadferry.formats.xlsx.sheets.MOST_LINKS", 2)
    changes, leads, out = [], frame(web=["https://example.com"] * 5), io.BytesIO()
    Xlsx(links=["web"]).write([leads], out, context(leads, report=changes.append))
    cells = opened(out.getvalue()).active["A"][1:]
    assert [cell.hyperlink is not None for cell in cells] == [True, True, False, False, False]
    assert [(change.column, change.count) for change in changes] == [("web", 3)]


def test_notes_stand_on_the_header():
    sheet = opened(written(Xlsx(notes={"Email": "As the lead wrote it"}), SOLD)).active
    assert "As the lead wrote it" in sheet["B1"].comment.text
    assert sheet["A1"].comment is None


CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"


@pytest.mark.req("R084")
@pytest.mark.parametrize("kind", ["bar", "column", "line", "pie"])
def test_a_chart_refers_to_the_counts_on_its_sheet(kind):
    data = written(
        Xlsx(chart={"by": "State", "kind": kind, "title": "By {{ batch.name }}"}), SOLD[:3], SOLD[3:]
    )
    book = opened(data)
    assert book.sheetnames == ["Leads", "Summary"]
    (chart,) = book["Summary"]._charts
    (series,) = chart.series
    assert (series.val.numRef.f, series.cat.strRef.f) == ("Summary!$B$2:$B$5", "Summary!$A$2:$A$5")
    counts = list(book["Summary"].values)
    assert counts[0] == ("State", "Leads")
    assert dict(counts[1:]) == {"CA": 3, "TX": 1, "ca": 1, "(none)": 1}
    root = etree.fromstring(part(data, "xl/charts/chart1.xml"))
    shown = [one.text for one in root.iter(f"{CHART}v")]
    assert shown == ["Leads", *(name for name, _ in counts[1:]), *(f"{count:.0f}" for _, count in counts[1:])]
    assert "By Acme Auto" in part(data, "xl/charts/chart1.xml").decode()


def test_a_chart_has_the_values_with_most_leads_and_one_row_for_the_others():
    leads = frame(State=["A"] * 3 + ["B"] * 5 + ["C", "D", "E"])
    book = opened(written(Xlsx(chart={"by": "State", "most": 3, "sheet": "Leads"}), leads))
    assert book.sheetnames == ["Leads (2)", "Leads"]
    assert list(book["Leads"].values)[1:] == [("B", 5), ("A", 3), ("Other", 3)]


def test_properties_and_lines_for_print_are_those_of_the_batch_file():
    variables = {
        **VARIABLES,
        "recipient": {"name": "Acme & Sons", "locale": "en_US"},
        "delivery": {"id": "42", "date": "2026-01-31", "time": "0930", "timezone": "America/New_York"},
    }
    wanted = Xlsx(
        document_title="Leads of {{ delivery.date }}",
        author="{{ recipient.name }}",
        print_header="{{ recipient.name }} · {{ delivery.id }}",
        print_footer="Confidential",
    )
    book = opened(written(wanted, SOLD, variables=variables))
    assert (book.properties.title, book.properties.creator) == ("Leads of 2026-01-31", "Acme & Sons")
    assert book.properties.created == book.properties.modified == moment(2026, 1, 31, 14, 30)
    sheet = book.active
    assert "Acme & Sons · 42" in sheet.oddHeader.left.text.replace("&&", "&")
    assert sheet.oddFooter.left.text == "Confidential"
    assert sheet.oddFooter.right.text == "Page &P of &N"
    assert (sheet.page_setup.paperSize, sheet.print_title_rows) == (1, "$1:$1")


@pytest.mark.req("V44")
def test_every_recipient_finds_its_name_and_the_delivery_on_every_sheet():
    data = written(Xlsx(**FULL), SOLD)
    assert {sheet.oddHeader.left.text for sheet in opened(data)} == {"Acme · d-7"}


def test_a_line_for_print_that_is_too_long_fails_the_file():
    with pytest.raises(RenderError, match="print_header is longer"):
        written(Xlsx(print_header="x" * 300), SOLD)


def test_with_every_setting_the_bytes_are_the_same_however_the_leads_come():
    whole = written(Xlsx(**FULL), SOLD)
    assert written(Xlsx(**FULL), SOLD[:1], SOLD[1:1], SOLD[1:5], SOLD[5:]) == whole
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name in archive.namelist():
            etree.fromstring(archive.read(name))


def test_with_every_setting_the_model_survives_being_frozen_as_json():
    wanted = Xlsx(**FULL)
    assert (
        TypeAdapter(Format).validate_python(json.loads(json.dumps(wanted.model_dump(mode="json")))) == wanted
    )


@pytest.mark.req("F13")
def test_nasty_values_pass_the_second_look_at_the_cells_unchanged():
    wanted = Xlsx(totals={"id": "count"}, links=["value"])
    rows = [
        list(row) for row in opened(written(wanted, nasty())).active.iter_rows(min_row=2, values_only=True)
    ]
    assert rows[:-1] == [
        [number, (value or "").replace("\r\n", "\n") or None] for number, value in nasty().iter_rows()
    ]
    assert rows[-1] == [f"=COUNTA(A2:A{nasty().height + 1})", None]


CHILD = """
import io, polars as pl
from leadferry.formats.base import FileContext
from leadferry.formats.xlsx import Xlsx

wanted = Xlsx(
    sheet_by="State", formulas={"Total": "=[Price]*2"}, totals={"Total": "sum"}, chart={"by": "State"}
)

class Nowhere:
    def write(self, data): return len(data)

def frames(rows):
    for start in range(0, rows, 5000):
        number = pl.int_range(start, min(start + 5000, rows), eager=True)
        texts = {f"field_{n}": pl.select(pl.format("value {} of lead {}", n, number)).to_series() for n in range(8)}
        yield pl.DataFrame(texts | {"State": (number % 50).cast(pl.String), "Price": number * 0.5})

for rows in (50_000, 200_000):
    columns = [*(f"field_{n}" for n in range(8)), "State", "Price"]
    wanted.write(frames(rows), Nowhere(), FileContext(columns=columns, rows=rows))
    with open("/proc/self/status") as status:
        print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.req("F58", "R081")
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux, which tells a process's peak"
)
def test_memory_does_not_grow_with_the_leads_on_many_sheets_with_formulas():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    small, large = map(float, done.stdout.split())
    assert large < 400
    assert large - small < 40


@pytest.mark.req("F13")
def test_a_text_that_is_too_long_can_be_cut_and_is_counted():
    changes, out = [], io.BytesIO()
    leads = frame(a=["x" * 65_536, "😀" * 20_000, None, "short"])
    Xlsx(long_text="cut").write([leads], out, context(leads, report=changes.append))
    assert column(opened(out.getvalue()).active, "A")[1:] == ["x" * 32_767, "😀" * 16_383, None, "short"]
    assert [(change.column, change.count) for change in changes] == [("a", 2)]
    with pytest.raises(RenderError, match="2 values of column 'a' are longer"):
        written(Xlsx(), leads)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([10**15, 1], "1 value of column 'n' have more than the 15 digits"),
        ([Decimal("1234567890123456.5")], "15 digits"),
        ([date(1899, 12, 31)], "outside Excel's calendar"),
        ([moment(1800, 1, 1)], "outside Excel's calendar"),
    ],
)
def test_what_excel_would_change_is_refused(values, told):
    with pytest.raises(RenderError, match=told):
        written(Xlsx(), pl.DataFrame({"n": values}))


def test_what_is_no_number_is_an_empty_cell_and_counted():
    changes, out = [], io.BytesIO()
    leads = pl.DataFrame({"id": ["1", "2", "3"], "n": [float("inf"), float("nan"), 1.5]})
    Xlsx().write([leads], out, context(leads, report=changes.append))
    assert column(opened(out.getvalue()).active, "B") == ["n", None, None, 1.5]
    assert [(change.column, change.count) for change in changes] == [("n", 2)]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"sheet_by": "Stat"}, "sheet_by has 'Stat', which is no field"),
        ({"totals": {"Pric": "sum"}}, "totals has 'Pric', which is no field"),
        ({"choices": {"x": ["a"]}}, "choices has 'x', which is no field"),
        ({"links": ["x"]}, "links has 'x', which is no field"),
        ({"notes": {"x": "a"}}, "notes has 'x', which is no field"),
        ({"number_formats": {"x": "0"}}, "number_formats has 'x', which is no field"),
        ({"chart": {"by": "x"}}, "chart has 'x', which is no field"),
        ({"formulas": {"Price": "=1"}}, "formulas has 'Price', which is a field; choose another name"),
        ({"formulas": {"a": "=[x]"}}, "the formula of 'a' has [x], which is no field before it"),
        ({"formulas": {"a": "=[b]", "b": "=1"}}, "the formula of 'a' has [b], which is no field before it"),
    ],
)
def test_a_setting_for_a_field_that_does_not_exist_is_a_problem(setting, told):
    assert Xlsx(**setting).problems(SOLD.columns) == [told]
    with pytest.raises(RenderError, match="Correct the batch file"):
        written(Xlsx(**setting), SOLD)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"header_color": "blue"}, "is no colour"),
        ({"number_formats": {"a": '0"x'}}, "is no number format"),
        ({"number_formats": {"a": "[Red"}}, "is no number format"),
        ({"choices": {"a": ["x,y"]}}, "cannot be a choice"),
        ({"choices": {"a": ["x" * 256]}}, "more than the 255 characters"),
        ({"choices": {"a": []}}, "at least 1"),
        ({"totals": {"a": "median"}}, "'sum', 'average'"),
        ({"chart": {"by": "a", "kind": "radar"}}, "'bar', 'column'"),
        ({"formulas": {"a": "=A1"}}, "allowed are"),
        ({"sheet": "Leads [a]"}, "a sheet's name cannot hold"),
        ({"print_header": "{{ lead.nam }}"}, "unknown"),
        ({"widths": {"a": 0}}, "greater than 0"),
        ({"notes": {"a": "x\x0b"}}, "control character"),
        ({"totals_label": "x\x00"}, "control character"),
    ],
)
def test_a_bad_value_is_refused_when_the_batch_file_is_read(setting, told):
    with pytest.raises(ValidationError, match=told):
        Xlsx(**setting)
