from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects import postgresql

from leadferry.mapping.rule_sql import failed_rule
from leadferry.mapping.rules import MAX_DEPTH, OPERATORS, Condition, Rule, describe_rule, patterns
from leadferry.store.database import Database
from leadferry.store.tables import lead

ZONE = "America/New_York"
RECEIVED = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)


# --- an evaluator of its own, in Python, that knows nothing of the SQL ------------------------------------------


def _as_text(value: Any) -> str | None:
    """What PostgreSQL's ->> shows of a JSON value, without white space at its ends; None when nothing is left."""
    if value is None:
        return None
    if isinstance(value, bool):
        shown = "true" if value else "false"
    elif isinstance(value, float):
        shown = (
            format(Decimal(repr(value)), "f").replace("-0.0", "0.0")
            if value == 0
            else format(Decimal(repr(value)), "f")
        )
    elif isinstance(value, str):
        shown = value
    else:
        shown = json.dumps(value, ensure_ascii=False)
    return shown.strip(" \t\n\r\f\v\u00a0") or None


def _as_number(shown: str) -> Decimal | None:
    plain = len(shown) <= 1000 and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", shown, re.ASCII)
    return Decimal(shown) if plain else None


def _as_local(shown: str, zone: str) -> datetime | None:
    """An aware date-time; days are their first moment."""
    found = re.fullmatch(
        r"([1-9]\d{3})-(\d\d)-(\d\d)(?:[tT ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|z|[-+]\d\d(?::?\d\d)?)?)?",
        shown,
        re.ASCII,
    )
    if found is None:
        return None
    *numbers, fraction, offset = found.groups()
    try:
        moment = datetime(*(int(number or 0) for number in numbers))  # noqa: DTZ001 the zone comes next
    except ValueError:
        return None
    moment += timedelta(microseconds=round(float(f"0.{fraction or 0}") * 1_000_000))
    if offset is None:
        return _in_zone(moment, zone)
    if offset in "zZ":
        return moment.replace(tzinfo=UTC)
    hours, minutes = int(offset[1:3]), int(offset[-2:]) if len(offset) > 3 else 0
    if hours > 14 or minutes > 59:
        return None
    shift = timedelta(hours=hours, minutes=minutes)
    return (moment - (shift if offset[0] == "+" else -shift)).replace(tzinfo=UTC)


def _in_zone(naive: datetime, zone: str) -> datetime:
    choices = [naive.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (0, 1)]
    shown_twice = choices[0].utcoffset() > choices[1].utcoffset()
    return choices[1 if shown_twice else 0]


def _comparable(value: Any, shown: str, zone: str, *, ignore_case: bool) -> tuple[Any, Any]:
    """The lead's value and the rule's, as two things that Python can compare; the first may be None."""
    if isinstance(value, bool):
        return shown.lower(), str(value).lower()
    if isinstance(value, (int, float)):
        return _as_number(shown), Decimal(str(value))
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        local = _as_local(shown, zone)
        return local and local.astimezone(ZoneInfo(zone)).date(), date.fromisoformat(value)
    if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:", value):
        moments = (_as_local(shown, zone), _as_local(value, zone))
        return tuple(moment and moment.astimezone(UTC) for moment in moments)
    return (shown.lower(), value.lower()) if ignore_case else (shown, value)


def _expected(rule: Condition, fields: dict[str, Any], zone: str) -> bool:
    if rule.operator == "all":
        return all(_expected(one, fields, zone) for one in rule.argument)
    if rule.operator in {"any", "not"}:
        return any(_expected(one, fields, zone) for one in rule.argument) is (rule.operator == "any")
    own = {"received_at": RECEIVED.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "id": "1", "flow": "auto"}
    name = str(rule.field)
    raw = own[name] if name in own else fields.get(name.removeprefix("fields."))
    return _compare(rule.operator, rule.argument, _as_text(raw), zone, ignore_case=rule.ignore_case)


def _compare(operator: str, argument: Any, shown: str | None, zone: str, *, ignore_case: bool) -> bool:
    if operator == "exists":
        return (shown is not None) is argument
    if operator in {"not_equals", "not_in"}:
        return not _compare(operator[4:], argument, shown, zone, ignore_case=ignore_case)
    if shown is None:
        return False
    if operator == "contains":
        return argument.lower() in shown.lower() if ignore_case else argument in shown
    if operator == "matches":
        argument = argument.replace(r"\m", r"\b").replace(r"\M", r"\b")
        return bool(re.search(argument, shown, re.DOTALL | (re.IGNORECASE if ignore_case else 0)))
    values = argument if isinstance(argument, list) else [argument]
    pairs = [_comparable(value, shown, zone, ignore_case=ignore_case) for value in values]
    tests = {
        "equals": lambda: pairs[0][0] == pairs[0][1],
        "in": lambda: any(left == right for left, right in pairs),
        "at_least": lambda: pairs[0][0] >= pairs[0][1],
        "at_most": lambda: pairs[0][0] <= pairs[0][1],
        "between": lambda: pairs[0][1] <= pairs[0][0] <= pairs[1][1],
        "before": lambda: pairs[0][0] < pairs[0][1],
        "after": lambda: pairs[0][0] > pairs[0][1],
    }
    readable = operator == "in" or pairs[0][0] is not None
    return readable and tests[operator]()


# --- running rules in the database ------------------------------------------------------------------------------


def rule(**keys: Any) -> Rule:
    return Rule.model_validate({"name": "r", **keys})


def add_leads(connection: Connection, leads: Sequence[dict[str, Any]]) -> None:
    connection.execute(
        insert(lead), [{"flow": "auto", "received_at": RECEIVED, "fields": fields} for fields in leads]
    )


def verdicts(connection: Connection, rules: Sequence[Rule], *, zone: str = ZONE) -> list[str | None]:
    query = select(failed_rule(rules, lead, timezone=zone)).select_from(lead).order_by(lead.c.id)
    return list(connection.scalars(query))


@pytest.fixture(scope="module")
def store(postgres):
    """One store for all tests here: none of them commits."""
    postgres.ensure_database("store_rules", template="template_leadferry")
    yield Database(postgres.url("store_rules"))
    postgres.drop_database("store_rules")


@pytest.fixture
def connection(store):
    with store.engine.connect() as opened:
        yield opened


TWENTY = [
    {"n": 1, "state": "CA", "year": "2004", "email": "ann@example.com", "born": "1980-02-29"},
    {"n": 2, "state": "CA", "year": 2005, "email": "Bob@Example.com", "born": "1999-12-31"},
    {
        "n": 3,
        "state": " CA ",
        "year": " 2005.0 ",
        "email": "carl@example.org",
        "born": "2000-01-01T00:30:00Z",
    },
    {"n": 4, "state": "ca", "year": "2.006e3", "email": "", "born": "2000-01-01T23:30:00-05:00"},
    {"n": 5, "state": "TX", "year": "n/a", "email": "dora@example.com", "born": "02/03/2000"},
    {"n": 6, "state": "TX", "year": "1e400", "email": "   ", "born": "2026-02-30"},
    {"n": 7, "state": "TX", "year": "NaN", "email": None, "born": "13/45"},
    {"n": 8, "state": "NJ", "year": "1,000", "email": "eve@test.example", "born": ""},
    {"n": 9, "state": "NJ", "year": "", "email": "fay@example.com", "born": None},
    {"n": 10, "state": "NJ", "year": None, "email": "gus@example.com"},
    {"n": 11, "state": "NY", "year": "20051", "email": "hal+x@example.com", "born": "2000-06-15"},
    {"n": 12, "state": "NY", "year": "-2005", "email": "ida@example.com", "born": "2000-06-15 12:00"},
    {
        "n": 13,
        "state": "",
        "year": "+2010",
        "email": "joe@example.com",
        "born": "2000-06-15T12:00:00.123456789Z",
    },
    {"n": 14, "state": None, "year": 2010.5, "email": "kim@example.com", "newsletter": True},
    {"n": 15, "year": "2010", "email": "lea@example.com", "newsletter": "TRUE"},
    {"n": 16, "state": ["CA"], "year": [2010], "email": "max@example.com", "newsletter": False},
    {"n": 17, "state": {"code": "CA"}, "year": True, "email": "ned@example.com", "newsletter": "yes"},
    {"n": 18, "state": "California", "year": "2007\n", "email": "ola@example.com", "newsletter": 1},
    {
        "n": 19,
        "state": "LA",
        "year": "\uff12\uff10\uff10\uff15",
        "email": "pia@example.com",
        "born": "0000-01-01",
    },
    {"n": 20, "state": "\u00a0LA\t", "year": "9" * 1001, "email": "quin@example.com", "born": "9999-12-31"},
]


@pytest.mark.req("R062")
@pytest.mark.parametrize(
    ("condition", "selected"),
    [
        ({"field": "state", "equals": "CA"}, {1, 2, 3}),
        ({"field": "state", "equals": "ca", "ignore_case": True}, {1, 2, 3, 4}),
        ({"field": "state", "not_equals": "CA"}, set(range(4, 21))),
        ({"field": "state", "in": ["CA", "LA"]}, {1, 2, 3, 19, 20}),
        ({"field": "state", "in": ["ca", "la"], "ignore_case": True}, {1, 2, 3, 4, 19, 20}),
        ({"field": "state", "not_in": ["CA", "LA", "TX", "NJ"]}, {4, 11, 12, 13, 14, 15, 16, 17, 18}),
        (
            {"field": "email", "contains": "example.com"},
            {1, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
        ),
        ({"field": "email", "contains": "B@example", "ignore_case": True}, {2}),
        ({"field": "email", "matches": r"^[a-e][a-z]+@"}, {1, 3, 5, 8}),
        ({"field": "email", "matches": r"\mexample\M.*org$"}, {3}),
        ({"field": "year", "at_least": 2005}, {2, 3, 4, 6, 11, 13, 14, 15, 18}),
        ({"field": "year", "at_most": 2005}, {1, 2, 3, 12}),
        ({"field": "year", "between": [2005, 2010]}, {2, 3, 4, 13, 15, 18}),
        ({"field": "year", "equals": 2005}, {2, 3}),
        ({"field": "year", "in": [2005, 2010]}, {2, 3, 13, 15}),
        ({"field": "year", "in": ["2010", 2006]}, {4, 15}),
        ({"field": "born", "after": "1999-12-31"}, {4, 11, 12, 13, 20}),
        ({"field": "born", "at_least": "1999-12-31"}, {2, 3, 4, 11, 12, 13, 20}),
        ({"field": "born", "before": "2000-01-01"}, {1, 2, 3}),
        ({"field": "born", "before": "2000-01-01T00:00"}, {1, 2, 3}),
        ({"field": "born", "equals": "2000-06-15"}, {11, 12, 13}),
        ({"field": "born", "equals": "2000-06-15T16:00Z"}, {12}),
        ({"field": "born", "between": ["1999-12-31", "2000-01-01"]}, {2, 3, 4}),
        ({"field": "newsletter", "equals": True}, {14, 15}),
        ({"field": "newsletter", "not_equals": True}, set(range(1, 21)) - {14, 15}),
        ({"field": "email", "exists": True}, set(range(1, 21)) - {4, 6, 7}),
        ({"field": "state", "exists": False}, {13, 14, 15}),
        ({"field": "received_at", "equals": "2026-01-31"}, set(range(1, 21))),
        ({"field": "received_at", "after": "2026-01-31T18:30"}, set()),
        ({"field": "flow", "equals": "auto"}, set(range(1, 21))),
        ({"field": "fields.flow", "exists": True}, set()),
        ({"all": [{"field": "state", "equals": "CA"}, {"field": "year", "at_least": 2005}]}, {2, 3}),
        (
            {"any": [{"field": "state", "equals": "LA"}, {"field": "year", "at_least": 20000}]},
            {6, 11, 19, 20},
        ),
        ({"not": [{"field": "state", "exists": True}, {"field": "n", "equals": 13}]}, {14, 15}),
        ({"not": [{"all": [{"field": "n", "at_least": 3}, {"field": "n", "at_most": 20}]}]}, {1, 2}),
    ],
    ids=lambda value: json.dumps(value, ensure_ascii=True)[:80] if isinstance(value, dict) else "",
)
def test_each_operator_selects_the_expected_of_twenty_leads(connection, condition, selected):
    add_leads(connection, TWENTY)
    one = rule(**condition)

    found = {number for number, verdict in enumerate(verdicts(connection, [one]), start=1) if verdict is None}

    assert found == selected
    assert found == {fields["n"] for fields in TWENTY if _expected(one, fields, ZONE)}


# --- whatever leads and rules hold ------------------------------------------------------------------------------

ODD_TEXTS = [
    "", " ", "n/a", "NaN", "nan", "Infinity", "-inf", "1e400", "1e999", "1e1000", "1e-400", "1,000", "1_000", "0x10", "1.", ".5",
    ".", "-", "+", "e5", "١٢", "½", "5 5", " 7 ", "\u00a07\u00a0", "7\n", "9" * 1000, "9" * 1001, "-0", "00012", "TRUE", "True",
    "2026-02-30", "2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "13/45", "0000-01-01", "0001-01-01", "2026-13-01",
    "2026-01-31T24:00", "2026-01-31T10", "2026-01-31 10:00", "2026-01-31T10:00:60", "2026-01-31T10:00:00.9999999Z",
    "2026-01-31T10:00+14:00", "2026-01-31T10:00+15:00", "2026-01-31T10:00+0530", "2026-01-31T10:00-05", "2026-01-31T10:00 UTC",
    "2026-03-08T02:30", "2026-11-01T01:30", "2026-01-31\n", "2026-01-31Z", "today", "now", "infinity", "epoch", "BC", "{}", "[",
    "'", '"', "\\", "%", "%s", ":x", "a'; --", "NULL", "null", "\u2028", "\U0001f600", "z" * 3000,
]  # fmt: skip

_day = st.dates(date(1990, 1, 1), date(2040, 12, 31)).map(str)
_moment = st.builds(
    "{}{}{:02}:{:02}{}{}".format,
    _day,
    st.sampled_from("T "),
    st.integers(0, 23),
    st.integers(0, 59),
    st.sampled_from(["", ":00", ":59", ":30.5", ":30.000001"]),
    st.sampled_from(["", "", "Z", "+00:00", "-05:00", "+05:30"]),
)
_word = st.text("abcABC xyz019.-", min_size=1, max_size=4)
_no_nul = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
_number = (
    st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.1, 1e22, 2005])
)
_scalar_json = (
    st.none()
    | st.booleans()
    | _number
    | _no_nul
    | _word
    | _day
    | _moment
    | _number.map(str)
    | st.sampled_from(ODD_TEXTS)
)
_part = st.integers() | _word
_json = _scalar_json | st.lists(_part, max_size=2) | st.dictionaries(st.just("k"), _part)
_trimmed = (
    st.one_of(_word, _no_nul, st.sampled_from(ODD_TEXTS[2:30]))
    .map(lambda t: t.strip(" \t\n\r\f\v\u00a0"))
    .filter(bool)
)
_texts = _trimmed.map(lambda t: t[:1000]).filter(lambda t: not re.match(r"\d{4}-\d\d-\d\d", t, re.ASCII))
_times = _day | _moment
_scalars = st.booleans() | _number | _texts | _times


def _unmixed(values: list[Any]) -> bool:
    return not {bool, str} <= {type(value) for value in values}


def _in_order(ends: tuple[Any, Any]) -> list[Any]:
    return sorted(ends, key=lambda end: _comparable(end, "x", "UTC", ignore_case=False)[1])


_lists = st.lists(_scalars, min_size=1, max_size=4).filter(_unmixed)
_ranges = st.one_of(*(st.tuples(kind, kind).map(_in_order) for kind in (_number, _texts, _day, _moment)))
_arguments = {
    "equals": _scalars, "not_equals": _scalars, "in": _lists, "not_in": _lists,
    "contains": _texts, "matches": st.sampled_from(["a", "^[a-c]+$", "[0-9]", "x|y", "[^a]", "b.?c", "(ab)*", "$"]),
    "at_least": _number | _texts | _times, "at_most": _number | _texts | _times, "between": _ranges,
    "before": _times, "after": _times, "exists": st.booleans(),
}  # fmt: skip
_name = st.sampled_from(["a", "b", "fields.a", "received_at", "flow"])
_leaf = st.sampled_from(sorted(_arguments)).flatmap(
    lambda operator: st.fixed_dictionaries({"field": _name, operator: _arguments[operator]})
)
_condition = st.recursive(
    _leaf,
    lambda inner: st.sampled_from(["all", "any", "not"]).flatmap(
        lambda group: st.fixed_dictionaries({group: st.lists(inner, min_size=1, max_size=3)})
    ),
    max_leaves=4,
)


@pytest.mark.req("R062")
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    leads=st.lists(st.fixed_dictionaries({}, optional={"a": _json, "b": _json}), min_size=1, max_size=6),
    condition=_condition,
    zone=st.sampled_from(["UTC", ZONE, "Asia/Kathmandu", "Pacific/Auckland"]),
)
def test_the_database_agrees_with_python_on_any_value_and_rule(connection, leads, condition, zone):
    one = rule(**condition)
    with connection.begin_nested() as savepoint:
        add_leads(connection, leads)
        found = [verdict is None for verdict in verdicts(connection, [one], zone=zone)]
        savepoint.rollback()

    assert found == [_expected(one, fields, zone) for fields in leads]


@pytest.mark.parametrize("operator", ["equals", "at_least", "at_most", "before", "after"])
@pytest.mark.parametrize("value", ["2026-01-31", "2026-01-31T09:00", 5, "text", True])
def test_no_odd_value_makes_a_comparison_raise(connection, operator, value):
    try:
        one = rule(field="a", **{operator: value})
    except ValidationError:
        return
    leads = [{"a": odd} for odd in ODD_TEXTS]
    add_leads(connection, leads)

    found = [verdict is None for verdict in verdicts(connection, [one])]

    assert found == [_expected(one, fields, ZONE) for fields in leads]


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name not in {"all", "any", "not"}])
@pytest.mark.parametrize("fields", [{}, {"a": None}, {"a": ""}, {"a": " \u00a0\t"}])
def test_a_missing_value_meets_only_negated_comparisons(connection, operator, fields):
    arguments = {
        "in": ["x"],
        "not_in": ["x"],
        "between": ["a", "b"],
        "before": "2026-01-31",
        "after": "2026-01-31",
        "exists": False,
    }
    add_leads(connection, [fields])

    met = verdicts(connection, [rule(field="a", **{operator: arguments.get(operator, "x")})]) == [None]

    assert met is (operator in {"not_equals", "not_in", "exists"})


@pytest.mark.parametrize(
    ("zone", "local", "utc"),
    [
        (ZONE, "2026-03-08T02:30", "2026-03-08T07:30:00Z"),
        (ZONE, "2026-11-01T01:30", "2026-11-01T06:30:00Z"),
        (ZONE, "2026-07-01T00:00", "2026-07-01T04:00:00Z"),
        ("UTC", "2026-07-01T00:00", "2026-07-01T00:00:00Z"),
    ],
)
def test_a_time_without_offset_is_meant_in_the_batchs_zone_on_both_sides(connection, zone, local, utc):
    add_leads(connection, [{"a": local}, {"a": utc}])

    for written in (local, utc):
        assert verdicts(connection, [rule(field="a", equals=written)], zone=zone) == [None, None]


def test_a_day_begins_at_midnight_of_the_batchs_zone(connection):
    connection.execute(
        insert(lead), [{"flow": "auto", "received_at": datetime(2026, 2, 1, 4, 59, tzinfo=UTC), "fields": {}}]
    )

    assert verdicts(connection, [rule(field="received_at", equals="2026-01-31")], zone=ZONE) == [None]
    assert verdicts(connection, [rule(field="received_at", equals="2026-02-01")], zone="UTC") == [None]


# --- the first failed rule --------------------------------------------------------------------------------------


@pytest.mark.req("R063")
def test_the_first_rule_that_a_lead_does_not_meet_is_named(connection):
    add_leads(
        connection,
        [{"state": "CA", "year": 2010}, {"state": "XX", "year": 2010}, {"state": "CA"}, {"state": "XX"}, {}],
    )
    rules = [
        Rule.model_validate({"name": "served_states", "field": "state", "in": ["CA", "TX"]}),
        Rule.model_validate({"name": "car_not_too_old", "field": "year", "at_least": 2005}),
    ]

    assert verdicts(connection, rules) == [
        None,
        "served_states",
        "car_not_too_old",
        "served_states",
        "served_states",
    ]
    assert verdicts(connection, rules[::-1])[3] == "car_not_too_old"


def test_without_rules_every_lead_meets_all(connection):
    add_leads(connection, [{}, {"a": 1}])

    assert verdicts(connection, []) == [None, None]


def test_a_hostile_name_value_or_field_is_only_data(connection):
    evil = "x'); DROP TABLE lead; -- %s :a {b}"
    add_leads(connection, [{evil: evil}, {"a": "b"}])
    rules = [Rule.model_validate({"name": evil, "field": evil, "in": [evil, "y"]})]

    assert verdicts(connection, rules) == [None, evil]


@pytest.mark.parametrize(
    "keys",
    [
        {"field": "a", "in": ["it's", "b"]},
        {"field": "a", "in": [1, 2.5]},
        {"field": "a", "in": ["2026-01-31", "2026-02-01"]},
        {"field": "a", "in": ["2026-01-31T10:00", "2026-02-01T10:00"]},
        {"field": "a", "between": ["2026-01-31T10:00", "2026-02-01T10:00"]},
        {"field": "a", "matches": "^a:b%c$"},
        {"field": "a", "equals": True},
    ],
    ids=str,
)
def test_the_expression_can_be_written_with_its_values_in_it(connection, keys):
    expression = failed_rule([rule(**keys)], lead, timezone=ZONE)
    dialect = postgresql.psycopg.dialect(paramstyle="named")
    written = select(expression).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    add_leads(connection, [{"a": "it's"}, {"a": 1}, {"a": "2026-01-31T10:00"}, {"a": "a:b%c"}, {"a": True}])

    cursor = connection.connection.cursor()
    literal = [row[0] for row in cursor.execute(f"{written} ORDER BY id".encode()).fetchall()]

    assert literal == verdicts(connection, [rule(**keys)])


# --- what a batch file may say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"field": "a", "equls": 1}, "did you mean 'equals'"),
        ({"field": "a", "gte": 1}, "did you mean 'at_least'"),
        ({"field": "a", "regex": "x"}, "did you mean 'matches'"),
        ({"feild": "a", "equals": 1}, "did you mean 'field'"),
        ({"or": []}, "did you mean 'any'"),
        ({"field": "a"}, "exactly one operator, found none"),
        ({"field": "a", "equals": None}, "exactly one operator, found none"),
        ({"field": "a", "equals": 1, "at_most": 3}, "exactly one operator, found equals and at_most"),
        ({"equals": 1}, "equals needs a `field`"),
        ({"field": "a", "all": [{"field": "b", "exists": True}]}, "all needs no `field`"),
        ({"field": "a", "in": "CA"}, "valid list"),
        ({"field": "a", "in": []}, "at least 1 item"),
        ({"any": []}, "at least 1 item"),
        ({"field": "a", "in": ["NO", True]}, "put quotes around it"),
        ({"field": "a", "in": [None]}, "should be a valid"),
        ({"field": "a", "equals": ""}, "must not be empty"),
        ({"field": "a", "equals": " x"}, "white space"),
        ({"field": "a", "equals": float("nan")}, "finite number"),
        ({"field": "a", "equals": "a\x00b"}, "no lead can hold"),
        ({"field": "a", "contains": "\ud800"}, "no lead can hold|valid string"),
        ({"field": "a", "after": "2026-02-30"}, "no such day"),
        ({"field": "a", "equals": "2026-01-31T25:00"}, "no such day or time"),
        ({"field": "a", "before": "tomorrow"}, "must be a day"),
        ({"field": "a", "at_least": True}, "no order"),
        ({"field": "a", "between": [3, 1]}, "must not be above"),
        ({"field": "a", "between": ["2026-02-01", "2026-01-31"]}, "must not be above"),
        ({"field": "a", "between": [1, "2026-01-31"]}, "of one kind"),
        ({"field": "a", "between": [1]}, "at least 2 items"),
        ({"field": "a", "exists": "yes"}, "valid boolean"),
        ({"field": "a", "matches": "("}, "not a regular expression"),
        ({"field": "a", "matches": "x" * 501}, "at most 500"),
        ({"field": "a", "matches": "(?P<x>a)"}, "named groups"),
        ({"field": "a", "matches": r"(a)\1"}, "back-references"),
        ({"field": "a", "matches": "(?i)a"}, "ignore_case"),
        ({"field": "a", "matches": "a{1,300}"}, "not be more than 255"),
        ({"field": "a", "matches": r"\p{L}"}, "do not have this escape"),
        ({"field": "a", "matches": "a++"}, "possessive"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_with_a_reason(keys, message):
    with pytest.raises(ValidationError, match=message):
        rule(**keys)


def test_a_rule_of_a_batch_must_have_a_name():
    with pytest.raises(ValidationError, match=r"name\n.*required"):
        Rule.model_validate({"field": "a", "exists": True})


def test_nesting_is_bounded():
    nested: dict[str, Any] = {"field": "a", "exists": True}
    for _ in range(MAX_DEPTH):
        nested = {"not": [nested]}
    with pytest.raises(ValidationError, match="nested deeper"):
        rule(**nested)


def test_the_fault_names_the_key_for_the_batch_file_checker():
    with pytest.raises(ValidationError) as caught:
        rule(field="a", equls=1)

    assert caught.value.errors()[0]["ctx"]["at"] == ("equls",)


@pytest.mark.parametrize(
    "accepted",
    [r"^\d{5}(-\d{4})?$", r"\m[[:alpha:]]+\M", r"a\+\+", r"\\1", "(?:a|b)", "(?=a)", "(?<=a)b", "{", "é+"],
)
def test_a_pattern_that_is_accepted_runs_in_postgresql(connection, accepted):
    one = rule(field="a", matches=accepted)
    add_leads(connection, [{"a": "x"}])

    assert len(verdicts(connection, [one])) == 1
    assert patterns([one]) == [accepted]


def test_patterns_are_found_at_every_depth():
    nested = {"any": [{"field": "a", "matches": "x"}, {"not": [{"field": "b", "matches": "y"}]}]}

    assert patterns([rule(**nested), rule(field="a", exists=True)]) == ["x", "y"]


class _Frozen(BaseModel):
    rules: list[Rule]


@settings(max_examples=200, deadline=None)
@given(condition=_condition)
def test_a_rule_survives_being_frozen_as_json(condition):
    before = _Frozen(rules=[rule(**condition)])

    with warnings.catch_warnings(action="error"):
        frozen = json.loads(json.dumps(before.model_dump(mode="json")))

    assert _Frozen.model_validate(frozen) == before
    assert frozen["rules"][0] == {"name": "r", **condition}


def test_dates_that_the_yaml_reader_made_are_the_same_as_text():
    assert rule(field="a", after=date(2026, 1, 31)) == rule(field="a", after="2026-01-31")
    assert rule(field="a", equals=datetime(2026, 1, 31, 9, tzinfo=UTC)).equals == "2026-01-31T09:00:00+00:00"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"field": "state", "in": ["CA", "TX"]}, "state is one of CA, TX"),
        ({"field": "year", "between": [2005, 2010]}, "year is between 2005 and 2010"),
        ({"field": "news", "equals": True}, "news is true"),
        ({"field": "state", "equals": "ca", "ignore_case": True}, "state is ca (in upper or lower case)"),
        ({"field": "email", "exists": True}, "email has a value"),
        ({"field": "email", "exists": False}, "email has no value"),
        (
            {"any": [{"field": "a", "equals": 1}, {"all": [{"field": "b", "exists": True}, {"field": "c", "at_most": 2}]}]},
            "a is 1 or (b has a value and c is at most 2)",
        ),
        ({"not": [{"field": "a", "equals": 1}, {"field": "b", "equals": 2}]}, "not (a is 1 or b is 2)"),
    ],
    ids=str,
)  # fmt: skip
def test_a_rule_is_said_in_words(keys, words):
    assert describe_rule(rule(**keys)) == words


# --- the reference page -----------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "rules.md").read_text(encoding="utf-8")


def test_the_pages_example_is_a_batchs_rules_and_runs(connection):
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    rules = [Rule.model_validate(one) for one in yaml.safe_load(block)["select"]["rules"]]
    good = {
        "state": "CA",
        "vehicle_year": "2010",
        "zip": "90210",
        "email": "Ann@Example.com",
        "country": "US",
    }
    add_leads(
        connection,
        [good, {**good, "state": "XX"}, {**good, "country": "DE"}, {**good, "phone_1": "+4930123456"}],
    )

    assert verdicts(connection, rules) == [None, "served_states", "nobody_from_abroad", "nobody_from_abroad"]


def test_the_page_explains_every_operator():
    assert re.findall(r"^\| `([a-z_]+):", PAGE, re.MULTILINE) == list(OPERATORS)
