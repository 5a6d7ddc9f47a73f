"""Departures before their time are asked for once, however often and by however many it is looked."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from batches import add_leads, claim, rows
from leadferry.store import ledger
from leadferry.store.early import order_early


def order(database, *, leads=None, oldest=None):
    return order_early(database, "acme", flows=["auto"], received_from=None, leads=leads, oldest=oldest)


@pytest.mark.req("R047")
def test_crossing_the_threshold_asks_for_one_departure_not_for_one_at_each_look(database):
    add_leads(database, 4)
    assert order(database, leads=5) is None
    add_leads(database)
    assert [order(database, leads=5) for _ in range(3)] == ["5 leads wait", None, None]
    add_leads(database, 3)
    assert order(database, leads=5) is None


@pytest.mark.req("R047")
def test_after_a_delivery_the_next_crossing_asks_again(database):
    add_leads(database, 5)
    assert order(database, leads=5)
    claim(database, "early")
    assert order(database, leads=5) is None
    add_leads(database, 5)
    assert order(database, leads=5) == "5 leads wait"


@pytest.mark.req("R047")
def test_a_departure_that_failed_or_took_nothing_is_not_repeated_by_it(database):
    add_leads(database, 5)
    assert order(database, leads=5)
    claim(database, "early", minimum=6)
    assert order(database, leads=5) is None
    failed = claim(database, "early again")
    ledger.settle(database, failed.delivery_id)
    assert order(database, leads=5) is None


@pytest.mark.req("R047")
def test_of_several_who_look_at_once_one_asks(database):
    add_leads(database, 5)
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: order(database, leads=5), range(4)))
    assert sum(one is not None for one in asked) == 1


def test_a_lead_that_waits_for_too_long_asks_for_a_departure(database):
    add_leads(database, received_at=datetime.now(tz=UTC) - timedelta(hours=2))
    assert order(database, oldest=timedelta(hours=3)) is None
    assert order(database, leads=100, oldest=timedelta(hours=2)) == "a lead waits for 120 minutes"
    assert rows(database, "SELECT after_delivery, reason FROM early_departure") == [
        (0, "a lead waits for 120 minutes")
    ]


def test_an_empty_queue_asks_for_nothing(database):
    assert order(database, leads=1, oldest=timedelta(seconds=1)) is None
