"""What waits, as operators see it."""

from datetime import UTC, datetime, timedelta

import pytest

from batches import add_leads, claim, scalars
from leadferry.store.queue import Stop, stop
from leadferry.store.routing import route_new_leads
from leadferry.store.waiting import Waiting, first_waiting, queue_of, queues


@pytest.fixture
def now(database):
    return scalars(database, "SELECT now()")[0]


@pytest.fixture
def waits(database, now):
    """Leads by how long they have waited, in two flows."""

    def waits(flow, *hours):
        return [add_leads(database, 1, flow=flow, received_at=now - timedelta(hours=one))[0] for one in hours]

    return waits


def route(database):
    return route_new_leads(database, batch_id="acme", flows=["auto", "home"])


@pytest.mark.req("R061")
def test_the_queue_is_told_by_flow_and_age(database, waits, now):
    waits("auto", 0.5, 0.7, 5, 7, 30)
    waits("home", 80, 500)
    found = queue_of(database, route(database))
    assert (found.leads, found.held, found.cancelled) == (7, 0, 0)
    assert found.flows == {"auto": 5, "home": 2}
    assert list(found.ages.values()) == [2, 1, 1, 1, 1, 1]
    assert found.oldest_received_at == now - timedelta(hours=500)
    assert found.newest_received_at == now - timedelta(hours=0.5)
    assert found.oldest_age_seconds is not None
    assert 500 * 3600 <= found.oldest_age_seconds < 501 * 3600


def test_an_empty_queue_has_no_oldest_lead(database):
    found = queue_of(database, route(database))
    assert (found.leads, found.oldest_received_at, found.oldest_age_seconds) == (0, None, None)
    assert set(found.ages.values()) == {0}


def test_held_leads_wait_and_cancelled_ones_do_not(database, waits):
    leads = waits("auto", 1, 2, 3, 90)
    batch_no = route(database)
    stop(database, [leads[0]], Stop.HELD, batch_id="acme", actor="kim", reason="x")
    stop(database, [leads[3]], Stop.CANCELLED, batch_id="acme", actor="kim", reason="x")
    found = queue_of(database, batch_no)
    assert (found.leads, found.held, found.cancelled) == (3, 1, 1)
    assert found.ages["3 to 7 days"] == 0
    oldest = first_waiting(database, batch_no, limit=10)
    assert [(one["id"], one["status"]) for one in oldest] == [
        (leads[3], "cancelled"),
        (leads[2], "pending"),
        (leads[1], "pending"),
        (leads[0], "held"),
    ]
    assert first_waiting(database, batch_no, limit=1)[0]["id"] == leads[3]


def test_all_queues_are_told_the_longest_wait_first_and_with_what_is_not_yet_in_them(database, waits, now):
    waits("home", 4)
    route(database)
    route_new_leads(database, batch_id="other", flows=["auto"])
    waits("auto", 1, 2)
    waits("life", 9)
    oldest, newest = now - timedelta(hours=2), now - timedelta(hours=1)
    assert list(queues(database).items()) == [
        ("acme", Waiting(leads=3, oldest=now - timedelta(hours=4), newest=newest)),
        ("other", Waiting(leads=2, oldest=oldest, newest=newest)),
    ]
    assert len(scalars(database, "SELECT lead_id FROM arrival")) == 3
    claim(database, flows=["auto", "home"])
    assert queues(database) == {"other": Waiting(leads=2, oldest=oldest, newest=newest)}


def test_a_cancelled_lead_counts_in_no_queue_that_it_is_cancelled_for(database, waits):
    leads = waits("auto", 4, 3, 2)
    route(database)
    route_new_leads(database, batch_id="other", flows=["auto"])
    leads += waits("auto", 1)
    for lead, batch in ((leads[0], "acme"), (leads[1], None), (leads[3], None)):
        stop(database, [lead], Stop.CANCELLED, batch_id=batch, actor="kim", reason="x")
    stop(database, [leads[2]], Stop.HELD, batch_id=None, actor="kim", reason="x")
    assert {batch: one.leads for batch, one in queues(database).items()} == {"acme": 1, "other": 2}
    assert queue_of(database, route(database)).leads == 1


def test_a_lead_whose_clock_is_ahead_is_young(database):
    add_leads(database, 1, received_at=datetime(2999, 1, 1, tzinfo=UTC))
    assert next(iter(queue_of(database, route(database)).ages.values())) == 1
