"""Functions of the user's own: what they get, what they may return, and that their errors tell no values."""

from __future__ import annotations

import textwrap

import polars as pl
import pytest
from pydantic import TypeAdapter

from leadferry.errors import RenderError
from leadferry.mapping.fields import LEAD_ID, Mapping, OutputField

SOURCE = """
import datetime
import pandas

def shout(frame):
    return frame["value"].str.upper() + "!"

def full_name(frame):
    return (frame["first"] + " " + frame["last"]).where(frame["first"].notna() & frame["last"].notna())

def columns(frame):
    return pandas.Series(["|".join(frame.columns)] * len(frame))

def length(frame):
    return frame["value"].str.len()

def day(frame):
    return pandas.Series([datetime.date(2026, 1, 31)] * len(frame))

def boom(frame):
    for value in frame["value"]:
        raise KeyError(value)

def no_series(frame):
    return frame["value"].tolist()

def too_short(frame):
    return frame["value"].head(1)

def shuffled(frame):
    return frame["value"].sort_values(ascending=False)

def mixed(frame):
    return pandas.Series(["secret", 5, None][: len(frame)], dtype=object)

def lists(frame):
    return pandas.Series([["secret"]] * len(frame))

not_callable = 7
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"buyer_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    (tmp_path / f"{name}_broken.py").write_text("raise ValueError('secret')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def apply(module, function, *steps, on_error="fail", reads=()):
    python = {"python": {"function": f"{module}.{function}", "reads": list(reads)}}
    fields = [
        {"to": "X", "from": "first", "transform": [python, *steps], "on_error": on_error},
        {"to": "Y", "from": "last"},
    ]
    mapping = Mapping(TypeAdapter(list[OutputField]).validate_python(fields), timezone="UTC", locale="en_US")
    leads = pl.DataFrame(
        {
            LEAD_ID: [1, 2, 3],
            "first": ["ann", None, "cy"],
            "last": ["lee", "ray", None],
            "age": ["1", "2", "3"],
        }
    )
    return mapping.apply(leads).frame.get_column("X")


@pytest.mark.req("R065")
@pytest.mark.parametrize(
    ("function", "steps", "expected"),
    [
        ("shout", [], ["ANN!", None, "CY!"]),
        ("shout", ["lower", {"cut": 2}], ["an", None, "cy"]),
        ("full_name", [], ["ann lee", None, None]),
        ("columns", [], ["first|last|value"] * 3),
        ("length", [{"pad": {"width": 5, "with": "0"}}], ["003.0", None, "002.0"]),
    ],
)
def test_a_function_changes_the_value_with_the_other_columns_at_hand(module, function, steps, expected):
    assert apply(module, function, *steps).to_list() == expected


def test_a_function_gets_the_fields_that_it_reads(module):
    assert apply(module, "columns", reads=["age"]).to_list() == ["first|age|last|value"] * 3


def test_a_function_may_return_numbers_and_dates(module):
    assert apply(module, "length").dtype == pl.Float64
    assert apply(module, "day").dtype == pl.Date


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("boom", r"function raised KeyError in \w+\.boom, line 22"),
        ("no_series", "returned list, not a pandas.Series"),
        ("too_short", "returned 1 values for 3 leads"),
        ("shuffled", "changed their index"),
        ("mixed", "all of one type"),
        ("lists", "all of one type"),
        ("missing", "no function 'missing'"),
        ("not_callable", "no function 'not_callable'"),
    ],
)
@pytest.mark.parametrize("policy", ["fail", "blank", "withhold"])
def test_a_function_that_does_not_work_fails_the_delivery_whatever_the_policy(module, function, says, policy):
    with pytest.raises(RenderError, match=says) as caught:
        apply(module, function, on_error=policy)

    assert not any(value in str(caught.value) for value in ("ann", "secret"))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert caught.value.what.startswith("field 'X': python: ")


def test_a_module_that_cannot_be_imported_is_told_without_its_message(module):
    with pytest.raises(RenderError, match="cannot be imported \\(ValueError") as caught:
        apply(f"{module}_broken", "anything")

    assert "secret" not in str(caught.value)


def test_a_lead_field_called_value_must_be_named_in_full(module):
    fields = [{"to": "X", "from": "value", "transform": [{"python": f"{module}.shout"}]}]

    with pytest.raises(RenderError, match=r"Write the lead field as fields\.value"):
        Mapping(TypeAdapter(list[OutputField]).validate_python(fields), timezone="UTC", locale="en_US")
