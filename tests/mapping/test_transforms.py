"""Every transform as it is written in a batch file, and what it makes of values."""

from __future__ import annotations

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from leadferry.mapping.step import Context
from leadferry.mapping.transforms import Transform

CONTEXT = Context(timezone="America/New_York", locale="en_US", sources=pl.DataFrame())


def run(step, *values, context=CONTEXT):
    column = pl.Series(values, dtype=pl.String)
    return Transform.model_validate(step).apply(column, context).to_list()


@pytest.mark.req("R065")
@pytest.mark.parametrize(
    ("step", "value", "expected"),
    [
        ("trim", "  Ann\t", "Ann"),
        ("trim", "\u00a0Ann\u2003", "Ann"),
        ("collapse", "12  Main \t St", "12 Main St"),
        ("upper", "straße é", "STRASSE É"),
        ("lower", "ANN@EXAMPLE.COM", "ann@example.com"),
        ("title", "o'neil-SMITH", "O'Neil-Smith"),
        ("title", "42ND street, levi's", "42nd Street, Levi's"),
        ("digits", "(201) 555-0123 ext. 7", "20155501237"),
        ("digits", "none", ""),
        ({"regex": {"pattern": r"\s*\(.*\)$", "replace": ""}}, "Acme (US)", "Acme"),
        ({"regex": {"pattern": r"(\w+), (\w+)", "replace": "$2 $1"}}, "Neil, Ann", "Ann Neil"),
        ({"regex": {"pattern": r"(?P<a>\d+)", "replace": "${a}th $$1$1st"}}, "4", "4th $14st"),
        ({"regex": {"pattern": r"(\d{5})(-\d{4})?", "extract": 1}}, "NJ 07001-1234", "07001"),
        ({"regex": {"pattern": r"(?P<zip>\d{5})", "extract": "zip"}}, "NJ 07001", "07001"),
        ({"regex": {"pattern": r"\d+", "extract": 0}}, "NJ 07001", "07001"),
        ({"regex": {"pattern": r"\d+", "extract": 0, "missing": "keep"}}, "NJ", "NJ"),
        ({"regex": {"pattern": r"\d+", "extract": 0, "missing": "blank"}}, "NJ", ""),
        ({"regex": {"pattern": r"\d+", "extract": 0}}, "NJ", None),
        ({"replace": {"&": "and", "St.": "Street"}}, "A & B, Main St.", "A and B, Main Street"),
        ({"replace": {"a": "b", "b": "a", "ab": "X"}}, "abba", "Xab"),
        ({"lookup": {"table": {"CA": "California"}}}, "CA", "California"),
        ({"lookup": {"table": {"CA": "California"}}}, "ca", None),
        ({"lookup": {"table": {"CA": "California"}, "missing": "keep"}}, "TX", "TX"),
        ({"lookup": {"table": {"CA": "California"}, "missing": "blank"}}, "TX", ""),
        ({"lookup": {"table": {1: "January"}}}, "1", "January"),
        ({"cut": 3}, "éabc", "éab"),
        ({"cut": 9}, "abc", "abc"),
        ({"pad": {"width": 5, "with": 0}}, "7001", "07001"),
        ({"pad": {"width": 5, "with": ".", "side": "right"}}, "é", "é...."),
        ({"pad": {"width": 2}}, "long", "long"),
        ({"boolean": {True: "Y", False: "N"}}, "TRUE", "Y"),
        ({"boolean": {"true": "Y", "false": "N"}}, " no ", "N"),
        ({"boolean": {}}, "1", "true"),
        ({"boolean": {"true": "Y"}}, "maybe", None),
    ],
)
def test_each_transform_gives_the_documented_value(step, value, expected):
    assert run(step, value) == [expected]


ALL_STEPS = [
    *("trim", "collapse", "upper", "lower", "title", "digits"),
    {"regex": {"pattern": "a", "replace": "b"}},
    {"regex": {"pattern": "a", "extract": 0, "missing": "blank"}},
    {"replace": {"a": "b"}},
    {"lookup": {"table": {"a": "b"}, "missing": "blank"}},
    {"number": {"decimals": 2, "decimal_mark": ",", "thousands": "."}},
    {"date": "%A %m/%d/%Y %H:%M %z"},
    {"date": {"input": ["%m/%d/%Y", "iso"], "format": "%d.%m.%Y", "timezone": "Europe/Berlin"}},
    {"phone": {"region": "US", "format": "national"}},
    {"cut": 3},
    {"pad": {"width": 3, "with": "0"}},
    {"boolean": {"true": "Y"}},
    *({"mask": show} for show in ("last4", "first2", "email", "nothing")),
    {"hash": "sha256"},
    {"hash": {"algorithm": "md5", "of": "phone", "region": "US"}},
    *({"type": kind} for kind in ("integer", "number", "boolean", "date", "datetime")),
]


@pytest.mark.parametrize("step", ALL_STEPS, ids=str)
def test_null_stays_null_and_no_leads_are_no_problem(step):
    assert run(step, None, None) == [None, None]
    assert run(step) == []


@pytest.mark.parametrize("step", [*ALL_STEPS, {"python": "my_package.score"}], ids=str)
def test_a_transform_survives_being_frozen_as_json(step):
    first = Transform.model_validate(step)

    frozen = TypeAdapter(list[Transform]).dump_json([first])

    assert TypeAdapter(list[Transform]).validate_json(frozen) == [first]


@pytest.mark.parametrize(
    ("step", "place", "says"),
    [
        ("trimm", (), "unknown transform 'trimm': did you mean 'trim'? allowed are trim, collapse"),
        ({"fone": {}}, (), "did you mean 'phone'?"),
        ("zzz", (), "unknown transform 'zzz': allowed are"),
        ("phone", (), "transform 'phone' needs options"),
        ({"trim": None}, (), "write the bare word trim"),
        ({"cut": 1, "pad": {"width": 1}}, (), "mapping with one key"),
        (7, (), "a bare word or a mapping with one key"),
        ({"word": "trim"}, (), "unknown transform 'word'"),
        ({"phone": {"region": "usa"}}, ("phone", "region"), "pattern"),
        ({"phone": {"regio": "US"}}, ("phone", "regio"), "Extra inputs"),
        ({"cut": 0}, ("cut", "length"), "greater than or equal to 1"),
        ({"cut": True}, ("cut",), "valid dictionary"),
        ({"pad": {"width": 2, "with": "ab"}}, ("pad", "with"), "at most 1"),
        ({"regex": {"pattern": "(", "replace": ""}}, ("regex", "pattern"), "is no regular expression"),
        ({"regex": {"pattern": "(?=a)", "replace": ""}}, ("regex", "pattern"), "look-around"),
        ({"regex": {"pattern": r"(a)\1", "replace": ""}}, ("regex", "pattern"), "back-references"),
        ({"regex": {"pattern": "a", "replace": "$1"}}, ("regex",), "no group '1'"),
        ({"regex": {"pattern": "a", "replace": "$"}}, ("regex",), "written $$"),
        ({"regex": {"pattern": "a", "extract": 1}}, ("regex",), "no group '1'"),
        ({"regex": {"pattern": "a"}}, ("regex",), "exactly one of replace and extract"),
        ({"regex": {"pattern": "a", "replace": "", "missing": "keep"}}, ("regex",), "goes with extract"),
        ({"replace": {"": "x"}}, ("replace", "parts"), "must not be empty"),
        ({"lookup": {"table": {False: "Norway"}}}, ("lookup", "table"), "write it in quotes"),
        ({"lookup": {"table": {"NO": True}}}, ("lookup", "table", "NO"), "write it in quotes"),
        ({"lookup": {"table": {"a": 1.10}}}, ("lookup", "table", "a"), "write it in quotes"),
        ({"boolean": {"true": True}}, ("boolean", "true"), "write it in quotes"),
        ({"number": {"decimal_mark": ",", "thousands": ","}}, ("number",), "both the decimal mark"),
        ({"number": {"decimals": 11}}, ("number", "decimals"), "less than or equal to 10"),
        ({"number": {"decimal_mark": "5"}}, ("number",), "a mark must not be"),
        ({"date": "%m/%Q"}, ("date", "format"), "'%Q' is no date code"),
        ({"date": "today"}, ("date", "format"), "has no date code"),
        ({"date": {"format": "%Y", "input": "%m/%d"}}, ("date", "input", 0), "year, month and day"),
        ({"date": {"format": "%Y", "timezone": "New York"}}, ("date", "timezone"), "no time zone"),
        ({"python": "score"}, ("python", "function"), "pattern"),
    ],
)
def test_a_mistake_is_told_at_its_place_with_what_is_allowed(step, place, says):
    with pytest.raises(ValidationError) as caught:
        Transform.model_validate(step)

    assert any(error["loc"] == place and says in error["msg"] for error in caught.value.errors())


def test_the_json_schema_lists_words_and_options_as_they_are_written():
    schema = TypeAdapter(list[Transform]).json_schema()["$defs"]["Transform"]
    words, options = schema["anyOf"]

    assert words["enum"] == ["trim", "collapse", "upper", "lower", "title", "digits"]
    assert set(options["properties"]) == {
        *("regex", "replace", "lookup", "number", "date", "phone", "cut", "pad", "boolean"),
        *("mask", "hash", "pseudonym", "type", "python"),
    }
    assert (options["minProperties"], options["maxProperties"], options["additionalProperties"]) == (
        1,
        1,
        False,
    )
    assert {"type": "string"} in options["properties"]["date"]["anyOf"]
    assert all(option["description"] for option in options["properties"].values())
