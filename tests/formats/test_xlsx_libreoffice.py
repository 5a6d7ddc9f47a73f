"""Workbooks as LibreOffice reads, calculates and prints them: a reader that nobody here wrote."""

import csv
import io
import shutil
import subprocess
from datetime import date
from pathlib import Path

import openpyxl
import polars as pl
import pytest

from contracts.format_contract import nasty, written
from leadferry.formats.xlsx import Xlsx

SAMPLES = Path(__file__).parents[2] / "samples/us_500.csv"
OFFICE = shutil.which("soffice") or shutil.which("libreoffice")
pytestmark = pytest.mark.skipif(
    OFFICE is None, reason="needs LibreOffice: apt-get install --no-install-recommends libreoffice-calc"
)
EVERY_SHEET = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,true,false,false,-1"
"""Comma, quote, UTF-8, from line 1, cells as they are shown, one file for every sheet."""


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Convert workbooks in one start of LibreOffice; returns the sheets' records by workbook and sheet."""
    folder = tmp_path_factory.mktemp("office")

    def convert(books):
        for name, data in books.items():
            (folder / f"{name}.xlsx").write_bytes(data)
        home = f"-env:UserInstallation=file://{folder}/profile"
        files = [str(folder / f"{name}.xlsx") for name in books]
        command = [OFFICE, "--headless", home, "--convert-to", EVERY_SHEET, "--outdir", str(folder / "out")]
        subprocess.run([*command, *files], check=True, capture_output=True, timeout=200)
        return {
            path.stem: list(csv.reader(io.StringIO(path.read_text("utf-8"), newline="")))
            for path in (folder / "out").iterdir()
        }

    return convert


@pytest.mark.req("R079", "R081", "R083", "F13")
def test_libreoffice_reads_the_same_records_and_calculates_the_same_values(converted, tmp_path, monkeypatch):
    """One start of LibreOffice, which takes seconds, for all that it is asked."""
    samples = pl.read_csv(SAMPLES, infer_schema=False)
    few = samples.filter(pl.col("state").is_in(["CA", "TX", "NJ"]))
    sold = pl.DataFrame(
        {"Who": ["=1+1", "02138", "+44 7700 900123"], "Price": [2.975, 10.0, 3.0], "Units": [1, 3, 0]}
    )
    sold = sold.with_columns(Day=pl.lit(date(2026, 1, 31)))
    calculated = Xlsx(
        formulas={"Total": "=ROUND([Price]*[Units],2)", "Each": "=[Price]/[Units]"},
        totals={"Total": "sum", "Price": "average"},
        number_formats={"Day": "dd.mm.yyyy"},
    )
    book = openpyxl.Workbook()
    book.active.append(["First", "Last"])
    book.save(tmp_path / "template.xlsx")
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "config"))
    found = converted(
        {
            "plain": written(Xlsx(), samples),
            "nasty": written(Xlsx(), nasty()),
            "by_state": written(Xlsx(sheet_by="state", chart={"by": "state"}, links=["email"]), few),
            "calculated": written(calculated, sold),
            "template": written(Xlsx(template={"file": "template.xlsx", "at": "A2"}), samples),
        }
    )
    assert found["plain-Leads"] == [samples.columns, *map(list, samples.rows())]
    assert found["template-Sheet"][1:] == found["plain-Leads"][1:]
    assert found["nasty-Leads"][1:] == [
        [number, (value or "").replace("\r\n", "\n")] for number, value in nasty().iter_rows()
    ]
    for state in ("CA", "TX", "NJ"):
        assert found[f"by_state-{state}"][1:] == [list(row) for row in few.filter(state=state).rows()]
    counts = dict(found["by_state-Summary"][1:])
    assert {state: int(count) for state, count in counts.items()} == dict(
        few["state"].value_counts().iter_rows()
    )
    assert found["calculated-Leads"] == [
        ["Who", "Price", "Units", "Day", "Total", "Each"],
        ["=1+1", "2.975", "1", "31.01.2026", "2.98", "2.975"],
        ["02138", "10", "3", "31.01.2026", "30", "3.33333333333333"],
        ["+44 7700 900123", "3", "0", "31.01.2026", "0", ""],
        ["Total", "5.325", "", "", "32.98", ""],
    ]
