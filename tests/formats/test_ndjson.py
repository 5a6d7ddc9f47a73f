"""NDJSON: the contract, nesting, nulls."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.format_contract import FormatContract, frame, written
from leadferry.errors import RenderError
from leadferry.formats.ndjson import Ndjson


class TestNdjsonContract(FormatContract):
    @pytest.fixture
    def written_by(self):
        return Ndjson()

    def read(self, data):
        return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def test_each_lead_is_one_line_ended_by_a_line_feed():
    leads = frame(name=["A\nB", "É"], zip=["02138", None])
    assert written(Ndjson(), leads) == b'{"name":"A\\nB","zip":"02138"}\n{"name":"\xc3\x89","zip":null}\n'


def test_no_leads_make_an_empty_file():
    assert written(Ndjson(), frame(name=[])) == b""


def test_dotted_names_become_objects_in_the_order_of_their_first_field():
    leads = frame(**{"contact.name": ["A"], "zip": ["1"], "contact.phone.home": ["2"]})
    assert written(Ndjson(), leads) == b'{"contact":{"name":"A","phone":{"home":"2"}},"zip":"1"}\n'


def test_nesting_can_be_switched_off():
    assert written(Ndjson(nested=False), frame(**{"contact.name": ["A"]})) == b'{"contact.name":"A"}\n'


def test_keys_without_a_value_can_be_left_out():
    leads = frame(**{"a": ["1", None], "b.c": [None, None], "d": ["", None]})
    assert written(Ndjson(null="omit"), leads) == b'{"a":"1","d":""}\n{}\n'


@pytest.mark.parametrize("names", [("a", "a.b"), ("a.b", "a"), ("a..b",), (".a",), ("a.",)])
def test_names_that_cannot_be_nested_are_a_problem_before_anything_is_written(names):
    leads = frame(**{name: ["1"] for name in names})
    assert Ndjson().problems(leads.columns)
    assert not Ndjson(nested=False).problems(leads.columns)
    with pytest.raises(RenderError):
        written(Ndjson(), leads)


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(
    records=st.lists(st.tuples(st.none() | st.text(), st.none() | st.text()), min_size=1),
    nested=st.booleans(),
)
def test_any_text_reads_back_the_same(records, nested):
    leads = frame(**{"x.a": [one for one, _ in records], "x.b": [other for _, other in records]})
    lines = written(Ndjson(nested=nested), leads).decode().split("\n")[:-1]
    pair = (lambda lead: lead["x"]) if nested else (lambda lead: {key[2:]: lead[key] for key in lead})
    assert [tuple(pair(json.loads(line)).values()) for line in lines] == records
