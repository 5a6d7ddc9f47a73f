"""The records file: mapped leads with their ids, for destinations that take leads."""

import json
from io import BytesIO

import pytest
from sqlalchemy import text

from batches import add_leads, make_batch
from leadferry.delivery.records import write_records
from leadferry.delivery.stream import MappedStream, lead_frames
from leadferry.delivery.variables import recipient_zone
from leadferry.mapping.fields import Mapping


def records_of(ferry, batch):
    claimed = ferry.extract(batch)
    mapping = Mapping(batch.fields, timezone=recipient_zone(batch), locale="en_US")
    out = BytesIO()
    frames = lead_frames(ferry.database, mapping, claimed.delivery_id)
    write_records(MappedStream(mapping, frames, with_ids=True).take(2**62), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_each_line_is_one_lead_with_its_id_and_its_mapped_fields(ferry):
    leads = add_leads(ferry.database, 3)
    found = records_of(
        ferry, make_batch(fields=[{"to": "Lead ID", "from": "id"}, {"to": "a.b", "value": "x"}])
    )
    assert found == [{"lead_id": one, "fields": {"Lead ID": str(one), "a.b": "x"}} for one in leads]


def test_numbers_stay_numbers_and_what_is_missing_is_null(ferry):
    (lead,) = add_leads(ferry.database, 1)
    with ferry.database.transaction() as connection:
        connection.execute(text('UPDATE lead SET fields = \'{"price": "12.50"}\''))
    fields = [
        {"to": "Price", "from": "price", "transform": [{"type": "number"}]},
        {"to": "Gone", "from": "none"},
    ]
    assert records_of(ferry, make_batch(fields=fields)) == [
        {"lead_id": lead, "fields": {"Price": 12.5, "Gone": None}}
    ]


def test_withheld_leads_are_not_among_them_and_the_ids_are_those_of_the_others(ferry):
    leads = add_leads(ferry.database, 3)
    with ferry.database.transaction() as connection:
        connection.execute(
            text('UPDATE lead SET fields = \'{"year": "x"}\' WHERE id = :id'), {"id": leads[1]}
        )
    fields = [{"to": "Year", "from": "year", "transform": [{"type": "integer"}], "on_error": "withhold"}]
    assert [one["lead_id"] for one in records_of(ferry, make_batch(fields=fields))] == [leads[0], leads[2]]


def test_a_batch_of_files_needs_a_file():
    with pytest.raises(ValueError, match="add the key 'files'"):
        make_batch(files=[])
