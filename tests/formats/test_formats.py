"""All formats side by side: the same leads are the same records, whatever the file."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import openpyxl
import pandas as pd
import polars as pl
import pytest
import yaml
from lxml import etree
from pydantic import TypeAdapter, ValidationError

from contracts.format_contract import written
from leadferry.formats import Format

SAMPLES = Path(__file__).parents[2] / "samples/us_500.csv"


def from_csv(data):
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def from_pandas(data):
    return pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False).to_dict("records")


def from_json(data):
    return json.loads(data)["leads"]


def from_ndjson(data):
    return [json.loads(line) for line in data.splitlines()]


def from_xml(data):
    return [{field.tag: field.text for field in lead} for lead in etree.fromstring(data)]


def from_xlsx(data):
    header, *rows = openpyxl.load_workbook(io.BytesIO(data)).active.iter_rows(values_only=True)
    return [dict(zip(header, row, strict=True)) for row in rows]


def from_pandas_xlsx(data):
    return pd.read_excel(io.BytesIO(data), dtype=str, keep_default_na=False).to_dict("records")


def from_fixed_width(data):
    with SAMPLES.open(newline="", encoding="utf-8") as samples:
        names = next(csv.reader(samples))
    lines = data.decode().splitlines()
    return [
        {name: line[place * 60 : place * 60 + 60].rstrip() for place, name in enumerate(names)}
        for line in lines
    ]


def from_name_value(data):
    leads = data.decode().split("\r\n\r\n")
    return [dict(line.split("=", 1) for line in lead.splitlines()) for lead in leads]


def from_parquet(data):
    return pl.read_parquet(io.BytesIO(data)).to_dicts()


def from_pyarrow(data):
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="the reader of others for Parquet: pip install pyarrow"
    )
    return parquet.read_table(io.BytesIO(data)).to_pylist()


READERS = [
    ("csv", from_csv),
    ("csv", from_pandas),
    ("xlsx", from_xlsx),
    ("xlsx", from_pandas_xlsx),
    ("json", from_json),
    ("ndjson", from_ndjson),
    ("xml", from_xml),
    ("fixed_width", from_fixed_width),
    ("name_value", from_name_value),
    ("parquet", from_parquet),
    ("parquet", from_pyarrow),
]
KINDS = ["csv", "fixed_width", "json", "name_value", "ndjson", "parquet", "xlsx", "xml"]
EXTENSIONS = {"fixed_width": "txt", "name_value": "txt"}
COLUMNS = {"fixed_width": {"columns": [{"name": "a", "width": 60}]}}
"""What a format cannot do without."""


@pytest.mark.req("R005")
@pytest.mark.parametrize("count", [3, 500])
@pytest.mark.parametrize(("kind", "read"), READERS, ids=[f"{kind}-{read.__name__}" for kind, read in READERS])
def test_the_same_leads_read_back_as_the_same_records(kind, read, count):
    with SAMPLES.open(newline="", encoding="utf-8") as samples:
        records = list(csv.DictReader(samples))[:count]
    needed = {"columns": [{"name": name, "width": 60} for name in records[0]]} if kind in COLUMNS else {}
    wanted = TypeAdapter(Format).validate_python({"type": kind} | needed)
    assert read(written(wanted, pl.DataFrame(records))) == records


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in COLUMNS])
def test_a_format_is_named_by_its_type_alone(kind):
    wanted = TypeAdapter(Format).validate_python({"type": kind})
    assert (wanted.type, wanted.extension) == (kind, EXTENSIONS.get(kind, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_setting_is_refused(kind):
    with pytest.raises(ValidationError, match="extra"):
        TypeAdapter(Format).validate_python({"type": kind, "colour": "red"} | COLUMNS.get(kind, {}))


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match=", ".join(f"'{kind}'" for kind in KINDS)):
        TypeAdapter(Format).validate_python({"type": "exel"})


def test_reading_a_batch_file_loads_no_heavy_library():
    code = (
        "import sys; import leadferry.formats as f; from pydantic import TypeAdapter\n"
        f"needed = {COLUMNS!r}\n"
        f"for kind in {KINDS!r}:\n"
        "    TypeAdapter(f.Format).validate_python({'type': kind} | needed.get(kind, {})).problems(['a'])\n"
        "print([m for m in ('polars', 'pandas', 'lxml', 'openpyxl', 'rustpy_xlsxwriter') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def from_yaml(example):
    # Plain PyYAML takes the key `null` for nothing; batch files are read with keys as they are written.
    return yaml.load(example, yaml.BaseLoader)["format"]


PAGES = sorted((Path(__file__).parents[2] / "docs/formats").glob("*.md"))
EXAMPLES = [
    (page, block) for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
]


@pytest.mark.parametrize(("page", "example"), EXAMPLES, ids=[page.stem for page, _ in EXAMPLES])
def test_every_example_in_the_docs_is_a_format(page, example):
    wanted = TypeAdapter(Format).validate_python(from_yaml(example))
    assert wanted.type == page.stem


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_setting_stands_in_the_docs_and_no_other(page):
    (model,) = [one for one in get_args(get_args(Format)[0]) if one.model_fields["type"].default == page.stem]
    table = re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)
    keys = [field.alias or name for name, field in model.model_fields.items()]
    assert table == [key for key in keys if key != "type"]


def test_the_large_example_of_the_xml_page_is_what_comes_out():
    text = (PAGES[0].parent / "xml.md").read_text()
    example = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    shown = re.findall(r"```xml\n(.*?)```", text, re.DOTALL)[1]
    fields = {"Lead ID": "17", "First Name": "James", "Last Name": "Butt", "Phone": "+44 7700 900123"}
    wanted = TypeAdapter(Format).validate_python(from_yaml(example))
    assert written(wanted, pl.DataFrame([fields])).decode() == shown


def test_the_example_of_the_json_page_is_what_comes_out():
    shown = re.findall(r"```json\n(.*?)```", (PAGES[0].parent / "json.md").read_text(), re.DOTALL)[0]
    leads = [{"name": "James Butt", "zip": "02138"}, {"name": "Josephine Darakjy", "zip": None}]
    assert (
        written(TypeAdapter(Format).validate_python({"type": "json"}), pl.DataFrame(leads)).decode() == shown
    )
