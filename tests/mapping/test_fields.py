"""Which columns a file has, what stands in them, and what happens to leads that do not fit."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from leadferry.errors import RenderError
from leadferry.mapping.fields import LEAD_ID, Mapping, OutputField

READ = TypeAdapter(list[OutputField])


def mapping(*fields, zone="America/New_York", locale="en_US"):
    return Mapping(READ.validate_python(list(fields)), timezone=zone, locale=locale)


def block(**columns):
    rows = len(next(iter(columns.values())))
    text = {name: pl.Series(values, dtype=pl.String) for name, values in columns.items()}
    return pl.DataFrame({LEAD_ID: pl.Series(range(1, rows + 1), dtype=pl.Int64), **text})


def column(field, **columns):
    return mapping(field | {"to": "X"}).apply(block(**columns)).frame.get_column("X").to_list()


PHONE = {"phone": {"region": "US"}}


@pytest.mark.req("R064")
def test_columns_stand_in_the_order_of_the_mapping_under_their_labels_and_nothing_else_does():
    fields = mapping(
        {"to": "Nachname ☎", "from": "last"}, {"to": "Code", "value": "A1"}, {"to": "first", "from": "first"}
    )
    leads = block(first=["Ann", "Bob"], secret=["x", "y"], last=["Lee", "Ray"])

    mapped = fields.apply(leads)

    assert fields.columns == mapped.frame.columns == ["Nachname ☎", "Code", "first"]
    assert fields.sources == ["last", "first"]
    assert mapped.frame.rows() == [("Lee", "A1", "Ann"), ("Ray", "A1", "Bob")]


@pytest.mark.req("R065")
@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ({"from": "a"}, " as it is ", " as it is "),
        ({"from": "a"}, "   ", None),
        ({"from": "a"}, "", None),
        ({"from": "a", "default": "n/a"}, None, "n/a"),
        ({"from": "a", "default": "n/a"}, " ", "n/a"),
        ({"from": "a", "default": "n/a", "transform": ["digits"]}, "none", "n/a"),
        ({"from": "a", "default": "n/a", "transform": ["upper"]}, "x", "X"),
        ({"from": "a", "default": "n/a", "transform": ["upper"]}, None, "n/a"),
        ({"value": 5}, "x", "5"),
        ({"value": ""}, "x", None),
        ({"value": "ann", "transform": ["title"]}, "x", "Ann"),
        ({"from": "a", "transform": ["trim", "collapse", "title", {"cut": 6}]}, " mary  ann lee ", "Mary A"),
    ],
)
def test_a_field_takes_its_value_or_its_default(field, value, expected):
    assert column(field, a=[value]) == [expected]


@pytest.mark.req("R065")
def test_concat_leaves_out_what_is_missing():
    assert column(
        {"concat": ["a", "b", "c"], "separator": ", "},
        a=["1", None, " "],
        b=["2", "", None],
        c=["3", "4", ""],
    ) == [
        "1, 2, 3",
        "4",
        None,
    ]


def test_the_same_source_may_stand_in_several_columns():
    mapped = mapping({"to": "A", "from": "a"}, {"to": "B", "from": "a", "transform": ["upper"]}).apply(
        block(a=["x"])
    )

    assert mapped.frame.rows() == [("x", "X")]


@pytest.mark.parametrize("policy", ["fail", "blank", "withhold"])
def test_no_leads_are_no_problem(policy):
    fields = mapping(
        {"to": "P", "from": "p", "transform": [PHONE], "on_error": policy}, {"to": "V", "value": "v"}
    )

    mapped = fields.apply(block(p=[]))

    assert (mapped.frame.shape, mapped.frame.columns, mapped.withheld, mapped.blanked) == (
        (0, 2),
        ["P", "V"],
        {},
        {},
    )


def test_a_failing_value_fails_the_delivery_and_the_error_tells_leads_but_no_value():
    fields = mapping({"to": "Phone", "from": "p", "transform": ["trim", PHONE]})

    with pytest.raises(RenderError) as caught:
        fields.apply(block(p=["2015550123", None, *(f"secret-{n}" for n in range(7))]))

    assert caught.value.what == (
        "field 'Phone': transform phone cannot handle the value of 7 of 9 leads in this block (lead ids 3, 4, 5, 6, 7, …)"
    )
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_blank_leaves_the_value_out_counts_it_and_the_default_applies():
    fields = mapping(
        {"to": "P", "from": "p", "transform": [PHONE], "on_error": "blank"},
        {"to": "Q", "from": "p", "transform": [PHONE], "on_error": "blank", "default": "none"},
    )

    mapped = fields.apply(block(p=["2015550123", "bad", None]))

    assert mapped.frame.rows() == [("+12015550123", "+12015550123"), (None, "none"), (None, "none")]
    assert (mapped.blanked, mapped.withheld) == ({"P": 1, "Q": 1}, {})


def test_withhold_takes_the_lead_out_with_the_first_reason():
    fields = mapping(
        {"to": "P", "from": "p", "transform": ["trim", PHONE], "on_error": "withhold"},
        {"to": "D", "from": "d", "transform": [{"date": "%m/%d/%Y"}], "on_error": "withhold"},
    )

    mapped = fields.apply(
        block(p=["2015550123", "bad", "bad", "2015550124"], d=["2026-01-31", "2026-01-31", "bad", "bad"])
    )

    assert mapped.frame.rows() == [("+12015550123", "01/31/2026")]
    assert mapped.withheld == {2: "field P: phone", 3: "field P: phone", 4: "field D: date"}


def test_a_withheld_lead_neither_fails_the_delivery_nor_counts_as_blanked():
    fields = mapping(
        {"to": "F", "from": "f", "transform": [{"number": {}}]},
        {"to": "B", "from": "f", "transform": [{"number": {}}], "on_error": "blank"},
        {"to": "W", "from": "w", "transform": [{"number": {}}], "on_error": "withhold"},
    )

    mapped = fields.apply(block(f=["1", "bad"], w=["1", "bad"]))

    assert (mapped.frame.rows(), mapped.withheld, mapped.blanked) == (
        [("1", "1", "1")],
        {2: "field W: number"},
        {},
    )


@pytest.mark.parametrize(("policy", "expected"), [("fail", False), ("blank", False), ("withhold", True)])
def test_a_mapping_tells_whether_it_may_withhold(policy, expected):
    assert (
        mapping({"to": "P", "from": "p", "transform": [PHONE], "on_error": policy}).may_withhold is expected
    )


def test_a_lookup_that_blanks_is_no_failure_and_later_steps_see_no_value():
    step = {"lookup": {"table": {"CA": "California"}, "missing": "blank"}}

    assert column({"from": "s", "transform": [step, {"number": {}}]}, s=["TX"]) == [None]


def test_blocks_of_any_size_give_the_same_rows():
    fields = mapping(
        {"to": "N", "from": "n", "transform": ["trim", "title"]},
        {"to": "D", "from": "d", "transform": [{"date": "%A %H:%M"}]},
        {
            "to": "W",
            "from": "n",
            "transform": [{"regex": {"pattern": "^[^7]+$", "extract": 0}}],
            "on_error": "withhold",
        },
    )
    leads = block(
        n=[f" name {n} " for n in range(100)],
        d=[f"2026-01-{n % 28 + 1:02d}T10:00:00.000000Z" for n in range(100)],
    )

    whole = fields.apply(leads)
    parts = [fields.apply(leads.slice(start, 9)) for start in range(0, 100, 9)]

    assert whole.frame.equals(pl.concat([part.frame for part in parts]))
    assert whole.withheld == {lead: reason for part in parts for lead, reason in part.withheld.items()}
    assert len(whole.withheld) == 19


@pytest.mark.parametrize(
    "field",
    [
        {"to": "A", "from": "a"},
        {"to": "A", "value": ""},
        {"to": "A", "concat": ["a", "b"], "separator": "", "default": "0", "on_error": "blank"},
        {
            "to": "A",
            "from": "fields.id",
            "transform": ["trim", {"pad": {"width": 5, "with": "0"}}, {"python": "a.b"}],
        },
    ],
    ids=str,
)
def test_a_field_survives_being_frozen_as_json(field):
    first = OutputField.model_validate(field)

    frozen = first.model_dump(mode="json")

    assert OutputField.model_validate(frozen) == first
    assert frozen.get("from") == field.get("from")


def test_the_json_schema_uses_the_words_of_the_batch_file():
    schema = OutputField.model_json_schema()

    assert set(schema["properties"]) == {
        "to",
        "from",
        "value",
        "concat",
        "separator",
        "transform",
        "default",
        "on_error",
    }
    assert schema["required"] == ["to"]
    assert schema["oneOf"] == [{"required": ["from"]}, {"required": ["value"]}, {"required": ["concat"]}]


def test_sources_are_what_the_field_and_its_functions_read():
    field = OutputField.model_validate(
        {
            "to": "A",
            "concat": ["a", "b", "a"],
            "transform": [{"python": {"function": "m.f", "reads": ["c", "b"]}}],
        }
    )

    assert field.sources == ["a", "b", "c"]
    assert OutputField.model_validate({"to": "A", "value": "x"}).sources == []


@pytest.mark.parametrize(
    ("field", "place", "says"),
    [
        ({"to": "A"}, (), "exactly one of from"),
        ({"to": "A", "from": "a", "value": "b"}, (), "exactly one of from"),
        ({"to": "A", "from": "a", "separator": ","}, (), "goes with concat"),
        ({"to": "", "from": "a"}, ("to",), "at least 1"),
        ({"to": "A", "from": ""}, ("from",), "at least 1"),
        ({"to": "A", "from": LEAD_ID}, ("from",), "reserved"),
        ({"to": "A", "concat": []}, ("concat",), "at least 1"),
        ({"to": "A", "value": True}, ("value",), "write it in quotes"),
        ({"to": "A", "from": "a", "on_error": "skip"}, ("on_error",), "'fail', 'blank' or 'withhold'"),
        ({"to": "A", "form": "a"}, ("form",), "Extra inputs"),
        ({"to": "A", "from": "a", "transform": ["trim", "tilte"]}, ("transform", 1), "did you mean 'title'?"),
    ],
)
def test_a_mistake_is_told_at_its_place(field, place, says):
    with pytest.raises(ValidationError) as caught:
        OutputField.model_validate(field)

    assert any(error["loc"] == place and says in error["msg"] for error in caught.value.errors())


def test_reading_a_batch_file_imports_no_heavy_library(run_python):
    code = """
import sys
from leadferry.mapping.fields import OutputField
OutputField.model_validate({"to": "A", "from": "a", "transform": [{"phone": {"region": "US"}}, {"date": "%Y"}, {"python": "no.such"}]})
import leadferry.templates
print([name for name in ("polars", "pandas", "phonenumbers", "babel") if name in sys.modules])
"""
    assert run_python(code) == "[]"


@pytest.fixture
def run_python():
    import subprocess
    import sys

    def run(code):
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()

    return run


DOCS = (Path(__file__).parents[2] / "docs" / "reference" / "fields.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^\| `(\{.*\}|\w+)` \| `(.*)` \| `(.*)` \|$", DOCS, re.MULTILINE)


@pytest.mark.req("R065", "R066")
@pytest.mark.parametrize(("step", "value", "expected"), EXAMPLES)
def test_the_examples_of_the_page_are_true(step, value, expected):
    assert column({"from": "a", "transform": [yaml.safe_load(step)]}, a=[value]) == [expected]


def test_the_page_has_examples_and_its_batch_files_are_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)

    assert (len(EXAMPLES), len(blocks)) == (29, 3)
    assert [len(READ.validate_python(yaml.safe_load(one)["fields"])) for one in blocks] == [8, 3, 2]


def test_the_page_names_every_key_and_every_step():
    steps = OutputField.model_json_schema()["$defs"]["Transform"]["anyOf"]

    assert [name for name in [*steps[0]["enum"], *steps[1]["properties"]] if f"`{name}`" not in DOCS] == []
    assert [
        name for name in OutputField.model_json_schema()["properties"] if f"| `{name}` |" not in DOCS
    ] == []
