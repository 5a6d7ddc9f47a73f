from __future__ import annotations

import csv
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

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
    assert file.name == "TEST_acme.csv"
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["Email"] for row in rows] == ["test1@example.com", "test2@example.com"]
    assert all(all(row.values()) for row in rows)
    with database.transaction() as connection:
        assert len(connection.execute(select(pending)).all()) == 1
    assert get_delivery(database, settled.delivery_id).number is None
