"""Deliveries that nobody works on any more come to an end: back in the queue, or as the destination says."""

from __future__ import annotations

import json

import pytest

from batches import add_leads, execute, rows, waiting
from ferry import messages
from leadferry.states import DeliveryState
from leadferry.store import sending
from leadferry.watch.recover import recover

from .conftest import MONDAY, OPS


@pytest.mark.req("C05")
def test_leads_of_a_claim_whose_process_died_go_back_and_it_is_told(port, mail):
    leads = add_leads(port.database, 3)
    port.batch(schedule="manual", notify={"failure": [OPS]})
    delivery_id = port.extract()

    in_use = recover(port.database, port.archive)
    port.abandon(delivery_id)
    (settlement,) = recover(port.database, port.archive)

    assert in_use == []
    assert (settlement.delivery_id, settlement.state, settlement.returned) == (
        delivery_id,
        DeliveryState.FAILED,
        3,
    )
    assert waiting(port.database) == leads
    ((to, _, text),) = messages(mail)
    assert to == OPS
    assert "3 leads are back in the queue" in text
    assert recover(port.database, port.archive) == []


@pytest.mark.req("C05")
def test_a_file_that_did_arrive_is_found_at_the_destination_and_not_sent_again(port):
    add_leads(port.database, 3)
    port.batch(schedule="manual")
    delivery_id = port.carry()
    # As if the sender had died between the last byte and the receipt.
    execute(port.database, "ALTER TABLE dispatch DISABLE TRIGGER USER")
    execute(port.database, "ALTER TABLE delivery DISABLE TRIGGER USER")
    execute(port.database, "UPDATE dispatch SET state = 'sending', receipt = NULL")
    execute(port.database, "ALTER TABLE attempt DISABLE TRIGGER USER")
    execute(port.database, "UPDATE attempt SET ended_at = NULL, outcome = NULL")
    execute(port.database, "UPDATE delivery SET state = 'rendered', settled_at = NULL")
    execute(port.database, "ALTER TABLE attempt ENABLE TRIGGER USER")
    execute(port.database, "ALTER TABLE dispatch ENABLE TRIGGER USER")
    execute(port.database, "ALTER TABLE delivery ENABLE TRIGGER USER")
    port.abandon(delivery_id)

    (settlement,) = recover(port.database, port.archive)

    assert settlement.state is DeliveryState.DELIVERED
    assert rows(port.database, "SELECT attempts, state::text FROM dispatch") == [(1, "confirmed")]


@pytest.mark.req("F44")
def test_what_cannot_be_cleared_up_stays_in_doubt_and_one_does_not_hinder_the_other(
    port, monkeypatch, caplog
):
    add_leads(port.database, 3)
    unreachable = json.dumps(
        {"conn_type": "sftp", "host": "127.0.0.1", "port": 1, "login": "x", "password": "y"}
    )
    monkeypatch.setenv("AIRFLOW_CONN_GONE", unreachable)
    port.batch(
        schedule="manual",
        destinations=[{"id": "far", "type": "sftp", "connection": "gone", "directory": "/in"}],
        retry={"attempts": 1},
    )
    port.batch("bolt", schedule="manual")
    stuck, dead = port.rendered(), port.extract("bolt")
    (dispatch,) = sending.dispatches_to(port.database, stuck)
    sending.begin_sending(port.database, [dispatch], lease=MONDAY - MONDAY)
    port.abandon(stuck)
    port.abandon(dead)

    settled = recover(port.database, port.archive)

    assert [(one.delivery_id, one.state) for one in settled] == [(dead, DeliveryState.FAILED)]
    assert f"Delivery {stuck} stays in doubt" in caplog.text
    assert rows(port.database, "SELECT state::text FROM delivery WHERE id = :id", id=stuck) == [("rendered",)]
