from __future__ import annotations

import csv
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from batches import folder, make_batch
from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.delivery.deliver import deliver
from leadferry.delivery.extract import Trigger, extract
from leadferry.delivery.params import DeliverNow
from leadferry.delivery.render import render
from leadferry.delivery.settle import settle
from leadferry.states import DeliveryState
from leadferry.store.ledger import get_delivery
from leadferry.store.tables import lead, pending


def batch_to(folder) -> Batch:
    fields = [
        {"to": "Name", "from": "name", "transform": ["trim", "title"]},
        {"to": "Phone", "from": "phone", "transform": [{"phone": {"region": "US", "format": "e164"}}]},
        {"to": "Born", "from": "born", "transform": [{"date": "%m/%d/%Y"}]},
        {"to": "Score", "from": "score", "transform": [{"number": {"decimals": 1}}]},
        {"to": "State", "from": "state", "transform": [{"lookup": {"table": {"CA": "California"}}}]},
        {"to": "Email", "from": "email", "transform": ["lower"]},
        {"to": "Agreed", "from": "agreed", "transform": [{"boolean": {"true": "Y", "false": "N"}}]},
        {"to": "Received", "from": "received_at", "transform": [{"date": "%Y"}]},
    ]
    return Batch.model_validate(
        {
            "id": "acme",
            "name": "Acme",
            "recipient": {"id": "acme", "name": "Acme"},
            "flows": ["auto"],
            "schedule": "manual",
            "select": {"rules": [{"name": "nobody", "field": "name", "equals": "no such name"}]},
            "conditions": {"min_leads": 100},
            "fields": fields,
            "files": [{"id": "leads", "name": "{{ batch.id }}.csv", "format": {"type": "csv"}}],
            "destinations": [{"id": "share", "type": "folder", "path": str(folder)}],
        }
    )


def run(database, archive, batch, params):
    trigger = Trigger(run_id="r", departs_at=datetime(2026, 1, 31, tzinfo=UTC), params=params, actor="ops")
    claim = extract(database, batch, trigger)
    render(database, archive, claim.delivery_id)
    deliver(database, archive, claim.delivery_id, "share")
    return settle(database, archive, claim.delivery_id)


@pytest.mark.req("R012")
def test_a_test_delivers_two_made_up_leads_in_a_marked_file_and_leaves_the_queue_alone(database, tmp_path):
    with database.transaction() as connection:
        connection.execute(lead.insert().values(flow="auto", fields={"name": "Waiting"}))
    inbox, archive = tmp_path / "inbox", Archive(str(tmp_path / "archive"))
    settled = run(database, archive, batch_to(inbox), DeliverNow(test=True))
    assert (settled.state, settled.included) == (DeliveryState.DELIVERED, 2)
    (file,) = inbox.iterdir()
    assert file.name == f"TEST_{settled.delivery_id}_acme.csv"
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["Email"] for row in rows] == ["test1@example.com", "test2@example.com"]
    assert all(all(row.values()) for row in rows)
    with database.transaction() as connection:
        assert len(connection.execute(select(pending)).all()) == 1
    assert get_delivery(database, settled.delivery_id).number is None


CSV = {"type": "csv"}


def try_out(ferry, batch, run_id="test-1"):
    """A test of a batch with the destination `drop`, and what arrived there, by name."""
    claimed = ferry.extract(batch, run_id, params=DeliverNow(test=True))
    ferry.render(claimed)
    for one in batch.destinations:
        assert ferry.try_to_deliver(claimed, one.id) is None
    return ferry.settle(claimed)


@pytest.mark.req("R012")
def test_a_batch_can_be_tested_again_while_the_files_of_the_last_test_are_there(ferry, tmp_path):
    file = {"name": "{{ batch.id }}_{{ delivery.number }}.json", "format": {"type": "json"}}
    batch = make_batch(files=[file], manifest={}, destinations=[folder(tmp_path / "inbox")])
    for run_id in ("first", "second"):
        assert try_out(ferry, batch, run_id).state is DeliveryState.DELIVERED
    names = [one.name for one in (tmp_path / "inbox").iterdir()]
    assert len(names) == 4
    assert all(one.startswith("TEST_") for one in names)


@pytest.mark.req("R012", "F18")
@pytest.mark.parametrize("unknown", ["withhold", "default"])
def test_a_test_reaches_every_segment_that_is_named(ferry, tmp_path, unknown):
    segment = {"by": "state", "values": ["CA", "TX", "NY"], "unknown": unknown}
    file = {"name": "{{ file.segment }}.csv", "format": CSV, "segment": segment}
    batch = make_batch(
        files=[file],
        destinations=[
            folder(
                tmp_path / "inbox",
                segments=[*segment["values"], *(["other"] if unknown == "default" else [])],
            ),
            folder(tmp_path / "texas", id="texas", segments=["TX"]),
        ],
    )
    settled = try_out(ferry, batch)
    assert (settled.state, settled.included, settled.withheld) == (DeliveryState.DELIVERED, 3, 0)
    assert len(list((tmp_path / "inbox").iterdir())) == 3
    assert len(list((tmp_path / "texas").iterdir())) == 1


@pytest.mark.req("R012", "F16", "F52")
def test_made_up_leads_can_be_added_up_and_fit_into_narrow_columns(ferry, tmp_path):
    fields = [{"to": label, "from": label.lower()} for label in ("Amount", "State", "Email")]
    summed = {"sums": ["Amount"], "trailer": "{{ sum.Amount }}"}
    columns = [{"name": "State", "width": 2}, {"name": "Email", "width": 9}]
    files = [
        {"id": "a", "name": "a.csv", "format": CSV, "control": summed},
        {
            "id": "b",
            "name": "b.txt",
            "format": {"type": "fixed_width", "columns": columns},
            "fields": ["State", "Email"],
        },
    ]
    inbox = tmp_path / "inbox"
    try_out(ferry, make_batch(fields=fields, files=files, destinations=[folder(inbox)]))
    by_ending = {one.suffix: one.read_text().split() for one in inbox.iterdir()}
    assert by_ending[".csv"][-1] == "3"
    assert by_ending[".txt"] == ["TEtest1@exa", "TEtest2@exa"]
