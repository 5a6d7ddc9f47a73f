"""A batch that delivers into a table, from the claim to the settled delivery."""

import json
import os

import psycopg
import pytest

from batches import add_leads, make_batch
from ferry import Ferry
from leadferry.states import DeliveryState

TABLE = {"id": "db", "type": "table", "connection": "buyer_db", "table": "leads", "create": True}


@pytest.fixture
def buyer(postgres, monkeypatch):
    """Ask the buyer's database."""
    name = f"buyer_of_batch_{os.getpid()}"
    postgres.ensure_database(name)
    where = {"host": postgres.socket_folder, "login": "postgres", "schema": name}
    monkeypatch.setenv("AIRFLOW_CONN_BUYER_DB", json.dumps({"conn_type": "postgres", **where}))

    def ask(statement):
        with psycopg.connect(host=postgres.socket_folder, user="postgres", dbname=name) as connection:
            return connection.execute(statement).fetchall()

    yield ask
    postgres.drop_database(name)


@pytest.fixture
def ferry(database, tmp_path):
    return Ferry(database, tmp_path / "archive")


@pytest.mark.req("R104")
def test_the_leads_of_a_delivery_are_rows_and_clearing_the_task_leaves_the_same_rows(ferry, database, buyer):
    leads = add_leads(database, 3)
    batch = make_batch(destinations=[TABLE])

    claimed = ferry.rendered(batch)
    ferry.deliver(claimed, "db")
    ferry.deliver(claimed, "db")
    settled = ferry.settle(claimed)

    assert settled.state is DeliveryState.DELIVERED
    assert buyer('SELECT lead_id, delivery_id, "Email" FROM leads ORDER BY 1') == [
        (lead_id, str(claimed.delivery_id), f"lead{number}@example.com")
        for number, lead_id in enumerate(leads, start=1)
    ]


@pytest.mark.req("R104")
def test_a_delivery_that_the_table_refuses_gives_its_leads_back(ferry, database, buyer):
    add_leads(database, 2)
    batch = make_batch(destinations=[{**TABLE, "types": {"Email": "integer"}}])

    settled = ferry.carry(batch)

    assert settled.state is DeliveryState.FAILED
    assert settled.reason == "db: permanent"
    assert buyer("SELECT to_regclass('leads')") == [(None,)]
