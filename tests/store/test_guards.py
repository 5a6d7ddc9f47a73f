"""What the database refuses whoever asks: leads out of a delivery, a ledger with less in it than before."""

import pytest

from batches import add_leads, claim, execute, folder, make_batch, scalars, waiting
from ferry import Ferry
from leadferry.errors import StoreError
from leadferry.store.routing import route_new_leads


@pytest.fixture
def delivered(database, tmp_path):
    """A store with a delivery that arrived, one lead withheld, and a lead that waits."""
    ferry = Ferry(database, tmp_path / "archive")
    add_leads(database, 3)
    rule = {"name": "not_the_first", "field": "n", "at_least": 2}
    batch = make_batch(destinations=[folder(tmp_path / "inbox")], select={"rules": [rule]})
    settled = ferry.carry(batch)
    assert (settled.state, settled.withheld) == ("delivered", 1)
    add_leads(database)
    route_new_leads(database, batch_id="acme", flows=["auto"])
    execute(
        database,
        "INSERT INTO suspension (scope, name, cause, reason, actor) VALUES ('batch', 'acme', 'hold', 'x', 'kim')",
    )
    return database


TABLES = ["delivery", "dispatch", "attempt", "withheld", "queue_entry", "lot", "file", "audit", "suspension"]


@pytest.mark.parametrize("table", [*TABLES[:-2], "suspension"])
def test_nothing_of_the_ledger_is_deleted(delivered, table):
    before = scalars(delivered, f"SELECT count(*) FROM {table}")
    with pytest.raises(StoreError, match="The lead store refused"):
        execute(delivered, f"DELETE FROM {table}")
    assert scalars(delivered, f"SELECT count(*) FROM {table}") == before != [0]


@pytest.mark.parametrize(
    "table", ["lead", "arrival", "lot", "queue_entry", "withheld", "delivery", "dispatch", "attempt"]
)
def test_no_table_is_emptied(delivered, table):
    with pytest.raises(StoreError, match="never emptied"):
        execute(delivered, f"TRUNCATE {table} CASCADE")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "UPDATE queue_entry SET lot_id = (SELECT id FROM lot WHERE delivery_id IS NULL LIMIT 1)",
            "stay in it",
        ),
        (
            "UPDATE queue_entry SET lot_id = (SELECT max(id) FROM lot WHERE delivery_id IS NOT NULL)",
            "stay in it",
        ),
        (
            "UPDATE queue_entry SET lot_id = lot_id + 1000 WHERE lot_id IN (SELECT id FROM lot WHERE delivery_id IS NULL)",
            "stay in it",
        ),
        ("UPDATE queue_entry SET lead_id = lead_id + 1000", "another lead"),
        ("UPDATE queue_entry SET batch_no = 99", "another lead"),
        ('UPDATE dispatch SET receipt = \'{"location": "elsewhere"}\'', "another receipt"),
        ("UPDATE dispatch SET destination = 'elsewhere'", "sent elsewhere"),
        ("UPDATE attempt SET outcome = 'failed'", "after their end"),
        ("UPDATE withheld SET reason = 'another'", "never changed"),
        ("DELETE FROM lot WHERE delivery_id IS NULL", "holds leads"),
        (
            "DELETE FROM queue_entry WHERE lot_id IN (SELECT id FROM lot WHERE delivery_id IS NULL)",
            "no longer listens",
        ),
    ],
)
def test_what_was_written_stays_as_it_is(delivered, change, told):
    with pytest.raises(StoreError, match=told):
        execute(delivered, change)


def test_leads_change_their_lot_while_they_wait_or_are_claimed(database):
    add_leads(database, 3)
    claim(database, limit=1)
    assert len(waiting(database)) == 2


def test_leads_of_a_flow_that_is_no_longer_wanted_leave_the_queue(database):
    add_leads(database, 3)
    route_new_leads(database, batch_id="acme", flows=["auto"])
    route_new_leads(database, batch_id="acme", flows=["home"])
    assert waiting(database) == []
