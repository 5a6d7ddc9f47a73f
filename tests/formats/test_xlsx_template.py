"""The user's own workbook, filled: everything in it stays, the leads stand where it says, in its styles."""

import io
import json
import zipfile
from datetime import date, datetime, time

import openpyxl
import polars as pl
import pytest
from lxml import etree
from openpyxl.formatting.rule import CellIsRule
from openpyxl.styles import Font, PatternFill
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.table import Table
from pydantic import TypeAdapter, ValidationError

from contracts.format_contract import NASTY, VARIABLES, FormatContract, context, frame, written
from leadferry.errors import RenderError
from leadferry.formats import Format
from leadferry.formats.xlsx import Xlsx

HEADINGS = ["Name", "Zip", "Price", "Born", "Called", "Member"]
LEADS = pl.DataFrame(
    {
        "Name": ["Jane & <Joe>", None, "=1+1"],
        "Zip": ["02138", "", "1E5"],
        "Price": [12.5, None, 3.0],
        "Born": [date(1990, 5, 17), None, date(1900, 1, 1)],
        "Called": [datetime.combine(date(2026, 1, 31), time(12, 30)), None, None],
        "Member": [True, False, None],
    }
)


def blank_template():
    """A workbook as a user would make it: a title, headings, one styled row for the first lead, a note sheet."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Our leads"
    sheet["A1"] = "ACME"
    sheet["A1"].font = Font(size=22, bold=True)
    sheet["C2"] = "=COUNTA(B6:B1000)"
    sheet.merge_cells("A1:C1")
    for number, heading in enumerate(HEADINGS, start=2):
        sheet.cell(5, number, heading).font = Font(bold=True)
        sheet.cell(6, number).fill = PatternFill("solid", fgColor="FFEEEEEE")
    sheet["D6"].number_format = '0.00 "USD"'
    sheet["E6"].number_format = "dd.mm.yyyy"
    sheet.row_dimensions[6].height = 25
    sheet.column_dimensions["B"].width = 40
    sheet.conditional_formatting.add(
        "D6:D999", CellIsRule(operator="greaterThan", formula=["10"], font=Font(bold=True))
    )
    rule = DataValidation(type="list", formula1='"yes,no"')
    rule.add("G6:G999")
    sheet.add_data_validation(rule)
    book.create_sheet("Terms")["A1"] = "Our terms"
    book.defined_names["leads"] = DefinedName("leads", attr_text="'Our leads'!$B$6")
    return book


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "config/templates").mkdir(parents=True)
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def wanted(project):
    blank_template().save(project / "config/templates/acme.xlsx")
    return Xlsx(template={"file": "config/templates/acme.xlsx", "at": "leads"})


def opened(data):
    return openpyxl.load_workbook(io.BytesIO(data))


class TestFilledTemplateContract(FormatContract):
    @pytest.fixture
    def written_by(self, project):
        book = openpyxl.Workbook()
        book.active.append(["headings", "are the template's"])
        book.save(project / "plain.xlsx")
        return Xlsx(template={"file": "plain.xlsx", "at": "A2"})

    def read(self, data):
        rows = list(opened(data).active.iter_rows(min_row=2, values_only=True))
        names = {2: ["id", "value"]}.get(len(rows[0]) if rows else 0, list("abcdefghijklmnopqrstu"))
        return [dict(zip(names, row, strict=False)) for row in rows if any(one is not None for one in row)]

    def expected(self, value):
        return (value or "").replace("\r\n", "\n") or None

    def test_columns_come_in_the_order_of_the_context(self, written_by):
        out = io.BytesIO()
        written_by.write([frame(b=["2"], a=["1"])], out, context(frame(a=["1"], b=["2"])))
        assert next(opened(out.getvalue()).active.iter_rows(min_row=2, values_only=True)) == ("1", "2")


@pytest.mark.req("R079", "R082")
def test_leads_stand_where_the_name_says_in_the_styles_of_the_template(wanted):
    book = opened(written(wanted, LEADS[:1], LEADS[1:]))
    sheet = book["Our leads"]
    found = [[cell.value for cell in row] for row in sheet.iter_rows(6, 8, 2, 7)]
    assert found == [
        [
            "Jane & <Joe>",
            "02138",
            12.5,
            *(datetime.combine(date(1990, 5, 17), time()),),
            LEADS["Called"][0],
            True,
        ],
        [None, None, None, None, None, False],
        ["=1+1", "1E5", 3, datetime.combine(date(1900, 1, 1), time()), None, None],
    ]
    assert {cell.fill.fgColor.rgb for row in sheet.iter_rows(6, 8, 2, 7) for cell in row} == {"FFEEEEEE"}
    assert [sheet.row_dimensions[row].height for row in (6, 7, 8)] == [25, 25, 25]
    assert [sheet[cell].number_format for cell in ("D8", "E8", "F6")] == [
        '0.00 "USD"',
        "dd.mm.yyyy",
        "m/d/yy h:mm",
    ]
    assert {sheet[cell].data_type for cell in ("B6", "B8", "C6", "C8")} == {"inlineStr"} or sheet[
        "B8"
    ].data_type == "s"
    assert sheet.max_row == 8


def test_everything_else_in_the_template_stays(wanted):
    sheet = opened(written(wanted, LEADS))["Our leads"]
    assert (sheet["A1"].value, sheet["A1"].font.size, sheet["C2"].value) == ("ACME", 22, "=COUNTA(B6:B1000)")
    assert [str(one) for one in sheet.merged_cells.ranges] == ["A1:C1"]
    assert [cell.value for cell in sheet[5][1:]] == HEADINGS
    assert sheet.column_dimensions["B"].width == 40
    assert len(sheet.conditional_formatting) == len(sheet.data_validations.dataValidation) == 1
    assert opened(written(wanted, LEADS))["Terms"]["A1"].value == "Our terms"


def test_parts_that_nobody_knows_are_copied_byte_for_byte(wanted, project):
    path = project / "config/templates/acme.xlsx"
    logo = bytes(range(256)) * 10
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("xl/media/image1.png", logo)
    with zipfile.ZipFile(io.BytesIO(written(wanted, LEADS))) as archive:
        assert archive.read("xl/media/image1.png") == logo
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        book = etree.fromstring(archive.read("xl/workbook.xml"))
    assert [one.get("fullCalcOnLoad") for one in book if one.tag.endswith("calcPr")] == ["1"]


def test_the_order_of_calculation_is_dropped(wanted, project):
    path = project / "config/templates/acme.xlsx"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/calcChain.xml"] = b"<calcChain/>"
    override = b'<Override PartName="/xl/calcChain.xml" ContentType="x"/></Types>'
    parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace(b"</Types>", override)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with zipfile.ZipFile(io.BytesIO(written(wanted, LEADS))) as archive:
        assert "xl/calcChain.xml" not in archive.namelist()
        assert b"calcChain" not in archive.read("[Content_Types].xml")


def test_a_table_grows_with_the_leads(project):
    book = blank_template()
    book.active.add_table(Table(displayName="Sold", ref="B5:G6"))
    book.save(project / "table.xlsx")
    data = written(Xlsx(template={"file": "table.xlsx", "at": "leads"}), LEADS)
    assert opened(data)["Our leads"].tables["Sold"].ref == "B5:G8"
    none = written(Xlsx(template={"file": "table.xlsx", "at": "leads"}), LEADS.clear())
    assert opened(none)["Our leads"].tables["Sold"].ref == "B5:G6"


@pytest.mark.parametrize("at", ["leads", "Our leads!B6", "'Our leads'!$B$6", "b6", "'Our leads'!B6:G6"])
def test_the_place_is_a_name_or_a_cell(wanted, at):
    there = wanted.model_copy(update={"template": wanted.template.model_copy(update={"at": at})})
    assert opened(written(there, LEADS))["Our leads"]["C6"].value == "02138"


@pytest.mark.req("F13")
def test_nasty_values_arrive_in_a_template(wanted):
    values = [*(value for value in NASTY if value and "\r" not in value), "_x000D_", "a_x0041_b", "  ", "\t"]
    leads = frame(**dict.fromkeys(HEADINGS, values))
    found = [
        row[0]
        for row in opened(written(wanted, leads))["Our leads"].iter_rows(6, None, 2, 2, values_only=True)
    ]
    assert [one.replace("_x005F_", "_") for one in found] == values


@pytest.mark.parametrize(
    ("file", "at", "told"),
    [
        ("config/templates/acm.xlsx", "leads", "does not exist"),
        (
            "config/templates/acme.xlsx",
            "leadz",
            r"has no name 'leadz' \(its names: leads\), nor is that a cell",
        ),
        ("config/templates/acme.xlsx", "Leads!A1", "has no sheet 'Leads'; it has 'Our leads', 'Terms'"),
        ("config/templates/acme.xlsx", "XFD1", "has no room for 6 fields"),
        ("no.xlsx", "A1", "is no Excel workbook"),
    ],
)
def test_a_template_that_cannot_be_filled_is_a_problem(wanted, project, file, at, told):
    (project / "no.xlsx").write_text("Name;Zip")
    broken = Xlsx(template={"file": file, "at": at})
    (problem,) = broken.problems(HEADINGS)
    assert wanted.problems(HEADINGS) == []
    with pytest.raises(RenderError, match=told) as raised:
        written(broken, LEADS)
    assert problem in str(raised.value)


@pytest.mark.parametrize("cell", ["A6", "H6", "C7", "A900"])
def test_nothing_of_the_template_is_overwritten(project, cell):
    book = blank_template()
    book.active[cell] = "Total"
    book.save(project / "full.xlsx")
    with pytest.raises(RenderError, match=f"has contents in {cell}"):
        written(Xlsx(template={"file": "full.xlsx", "at": "leads"}), LEADS)


def test_an_example_in_the_row_of_the_first_lead_is_replaced(project):
    book = blank_template()
    book.active["B6"] = "Jane Doe"
    book.save(project / "example.xlsx")
    example = Xlsx(template={"file": "example.xlsx", "at": "leads"})
    assert opened(written(example, LEADS))["Our leads"]["B6"].value == "Jane & <Joe>"
    assert opened(written(example, LEADS.clear()))["Our leads"]["B6"].value is None


def test_more_leads_than_rows_fail_the_file(wanted, monkeypatch):
    monkeypatch.setattr("leadferry.formats.xlsx.template.ROWS", 7)
    with pytest.raises(RenderError, match="3 leads do not fit on the template's sheet below row 5"):
        written(wanted, LEADS)


@pytest.mark.parametrize(
    "setting", [{"sheet_by": "Zip"}, {"totals": {"Price": "sum"}}, {"autofilter": False}, {"sheet": "x"}]
)
def test_settings_that_the_template_decides_are_refused_beside_it(setting):
    with pytest.raises(ValidationError, match="has no effect with template"):
        Xlsx(template={"file": "acme.xlsx"}, **setting)


def test_the_model_with_a_template_survives_being_frozen_as_json(wanted):
    assert (
        TypeAdapter(Format).validate_python(json.loads(json.dumps(wanted.model_dump(mode="json")))) == wanted
    )
    assert VARIABLES["lead"]["count"]
