"""JSON: the contract, the batch's facts, nesting, layout."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.format_contract import FormatContract, frame, nasty, written
from leadferry.formats.json import Json

SCHEMA = {
    "type": "object",
    "required": ["batch_info", "leads"],
    "additionalProperties": False,
    "properties": {
        "batch_info": {
            "type": "object",
            "required": ["batch_id", "delivery_id", "delivery_date", "lead_count"],
            "properties": {
                "batch_id": {"type": "string"},
                "delivery_date": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
                "lead_count": {"type": "integer"},
            },
        },
        "leads": {"type": "array", "items": {"type": "object", "required": ["id", "value"]}},
    },
}


class TestJsonContract(FormatContract):
    @pytest.fixture
    def written_by(self):
        return Json()

    def read(self, data):
        return json.loads(data)["leads"]


@pytest.mark.req("R086")
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("leads", [nasty(), nasty().clear()], ids=["leads", "none"])
def test_the_document_fits_a_schema_and_counts_its_leads(leads, indent):
    document = json.loads(written(Json(indent=indent), leads))
    jsonschema.validate(document, SCHEMA)
    assert document["batch_info"] == {
        "batch_id": "acme_auto",
        "batch_name": "Acme Auto",
        "delivery_id": "d-7",
        "delivery_date": "2026-01-31",
        "lead_count": len(document["leads"]),
    }


def test_facts_are_templates_and_whole_numbers_stay_numbers():
    facts = {"no": "{{ delivery.number }}", "what": "{{ lead.count }} for {{ recipient.name }}"}
    document = json.loads(written(Json(batch_info=facts, info_key="about", leads_key="rows"), frame(a=["1"])))
    assert document == {"about": {"no": 7, "what": "1 for Acme"}, "rows": [{"a": "1"}]}


def test_a_fact_that_does_not_exist_is_refused_when_the_batch_file_is_read():
    with pytest.raises(ValidationError, match="delivery"):
        Json(batch_info={"when": "{{ delivery.dat }}"})


def test_the_two_keys_must_differ():
    with pytest.raises(ValidationError, match="different names"):
        Json(leads_key="batch_info")


def test_one_lead_stands_on_one_line():
    assert written(Json(batch_info={}), frame(a=["1", None])) == b'{"leads":[\n{"a":"1"},\n{"a":null}\n]}\n'


def test_indented_it_is_laid_out_for_readers():
    leads = frame(**{"contact.name": ["É\n"], "zip": ["02138"]})
    assert written(Json(indent=2, batch_info={"id": "{{ batch.id }}"}), leads).decode() == (
        '{\n  "batch_info": {\n    "id": "acme_auto"\n  },\n  "leads": [\n'
        '    {\n      "contact": {\n        "name": "É\\n"\n      },\n      "zip": "02138"\n    }\n  ]\n}\n'
    )


def test_indented_several_frames_give_the_bytes_of_one():
    leads = nasty()
    assert written(Json(indent=1), leads[:3], leads[3:]) == written(Json(indent=1), leads)


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(values=st.lists(st.none() | st.text(), min_size=1), indent=st.sampled_from([None, 1, 4]))
def test_any_text_reads_back_the_same(values, indent):
    document = json.loads(written(Json(indent=indent), frame(**{"a.b": values})))
    assert [lead["a"]["b"] for lead in document["leads"]] == values
