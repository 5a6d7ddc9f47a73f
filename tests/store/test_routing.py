"""Routing: which lead is offered to whom, once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Text, case, cast, func, text

from batches import add_leads, carried, claim, departure, make_batch, scalars, until_someone_waits, waiting
from leadferry.delivery.extract import selection_of
from leadferry.delivery.params import DeliverNow
from leadferry.errors import StoreConflictError
from leadferry.states import DeliveryState
from leadferry.store import claim as claiming
from leadferry.store import settling
from leadferry.store.database import Database
from leadferry.store.routing import route_new_leads

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
SERVED = {"name": "served_states", "field": "state", "in": ["CA", "TX"]}
NEW_ENOUGH = {"name": "car_not_too_old", "field": "year", "at_least": 2005}


def route(database, batch_id="acme", flows=("auto",), **keys):
    return route_new_leads(database, batch_id=batch_id, flows=list(flows), **keys)


# --- routing


def test_a_new_lead_is_offered_to_every_batch_that_listens_to_its_flow(database):
    for batch, flows in (("acme", ["auto"]), ("zeta", ["auto", "home"]), ("home_only", ["home"])):
        route(database, batch, flows)
    (auto,) = add_leads(database, flow="auto")
    (home,) = add_leads(database, flow="home")
    route(database)
    assert [waiting(database, batch) for batch in ("acme", "zeta", "home_only")] == [
        [auto],
        [auto, home],
        [home],
    ]
    assert scalars(database, "SELECT lead_id FROM arrival") == []


def test_routing_twice_offers_nothing_twice(database):
    leads = add_leads(database, 3)
    route(database)
    route(database)
    assert waiting(database) == leads


def test_a_batch_that_comes_later_gets_the_earlier_leads_once(database):
    leads = add_leads(database, 3)
    assert claim(database).included == 3
    assert claim(database, batch_id="zeta").included == 3
    assert claim(database, "run-2", batch_id="zeta").state is DeliveryState.SKIPPED
    assert waiting(database, "zeta") == []
    assert leads


def test_a_new_batch_collects_only_leads_received_from_its_first_day_on(database):
    add_leads(database, received_at=JANUARY - timedelta(microseconds=1))
    at_midnight = add_leads(database, received_at=JANUARY)
    route(database, received_from=JANUARY)
    assert waiting(database) == at_midnight


def test_until_its_first_delivery_a_queue_follows_the_day_from_which_on_it_collects(database):
    old = add_leads(database, received_at=JANUARY - timedelta(days=1))
    new = add_leads(database, received_at=JANUARY)
    for day, leads in ((JANUARY, new), (None, old + new), (JANUARY, new)):
        route(database, received_from=day)
        assert waiting(database) == leads
    assert claim(database, received_from=JANUARY).included == 1
    route(database)
    assert waiting(database) == []
    route(database, flows=["other"])
    route(database)
    assert waiting(database) == old


def test_a_flow_that_is_removed_and_added_again_never_offers_taken_leads_again(database):
    add_leads(database, 2)
    assert claim(database).included == 2
    later = add_leads(database, 2)
    route(database)
    route(database, flows=["other"])
    assert waiting(database) == []
    route(database)
    assert waiting(database) == later


def test_a_withheld_lead_is_not_offered_again_when_its_flow_is_added_again(database):
    add_leads(database, fields={"state": "NY"})
    assert claim(database, rules=[SERVED]).withheld == 1
    route(database, flows=["other"])
    route(database)
    assert waiting(database) == []


def test_a_lead_of_a_failed_delivery_comes_back_when_its_flow_is_added_again(database):
    leads = add_leads(database, 2)
    settling.settle(database, claim(database).delivery_id)
    route(database, flows=["other"])
    route(database)
    assert waiting(database) == leads


def test_a_lead_that_came_back_while_its_flow_was_removed_is_offered_once(database):
    leads = add_leads(database, 2)
    claimed = claim(database)
    route(database, flows=["other"])
    settling.settle(database, claimed.delivery_id)
    route(database)
    assert waiting(database) == leads


@pytest.mark.parametrize("subscribed", [True, False], ids=["while routing", "while a batch subscribes"])
def test_a_lead_whose_insert_is_not_yet_committed_is_neither_lost_nor_doubled(database, subscribed):
    if subscribed:
        route(database)
    with Database(str(database.engine.url.render_as_string(hide_password=False))).transaction() as late:
        (lead,) = late.scalars(text("INSERT INTO lead (flow, fields) VALUES ('auto', '{}') RETURNING id"))
        route(database)
        assert waiting(database) == []
    route(database)
    assert waiting(database) == [lead]
    assert claim(database).included == 1
    route(database)
    assert waiting(database) == []


def test_leads_that_arrive_during_many_subscriptions_at_once_reach_every_batch_once(database):
    inserted, stop = [], threading.Event()

    def insert():
        while not stop.is_set():
            inserted.extend(add_leads(database, 5))

    with ThreadPoolExecutor(5) as pool:
        writing = pool.submit(insert)
        list(pool.map(lambda number: route(database, f"batch_{number % 4}"), range(24)))
        stop.set()
        writing.result()
    for number in range(4):
        route(database, f"batch_{number}")
        assert sorted(waiting(database, f"batch_{number}")) == sorted(inserted)


def test_leads_of_a_flow_that_was_removed_do_not_come_back_from_a_failed_delivery_until_it_is_added_again(
    database,
):
    old = add_leads(database, 2, flow="old")
    (new,) = add_leads(database, 1, flow="new")
    taken = claim(database, "run-1", flows=["old", "new"], config={"flows": ["old", "new"]})
    route(database, flows=["new"])
    settling.settle(database, taken.delivery_id)
    assert waiting(database) == [new]
    route(database, flows=["old", "new"])
    assert sorted(waiting(database)) == sorted([*old, new])


def test_leads_of_a_flow_that_is_being_removed_do_not_come_back_from_a_failed_delivery(database):
    old = add_leads(database, 2, flow="old")
    (new,) = add_leads(database, 1, flow="new")
    taken = claim(database, flows=["old", "new"], config={"flows": ["old", "new"]})
    with database.transaction() as routing, ThreadPoolExecutor(1) as pool:
        routing.execute(text("LOCK TABLE subscription IN SHARE ROW EXCLUSIVE MODE"))
        routing.execute(text("DELETE FROM subscription WHERE flow = 'old'"))
        settled = pool.submit(settling.settle, database, taken.delivery_id)
        until_someone_waits(database, unless=settled)
        routing.commit()
        settled.result()
    assert waiting(database) == [new]
    route(database, flows=["old", "new"])
    assert sorted(waiting(database)) == sorted([*old, new])


def test_an_early_copy_does_not_keep_a_lead_from_coming_back_with_its_flow(database):
    leads = add_leads(database, 2)
    claim(database, "run-1", keep_for_next=True)
    route(database, flows=["other"])
    assert waiting(database) == []
    route(database)
    assert waiting(database) == leads


def test_a_departure_is_not_disturbed_by_one_of_another_batch_that_takes_leads_meanwhile(database):
    """Routing gives leads to all batches, so it waits for the claim of one, which counts its deliveries."""
    route(database, "bolt")
    leads = add_leads(database, 2)
    with database.transaction() as bolt, ThreadPoolExecutor(1) as pool:
        bolt.execute(text("SELECT FROM batch WHERE id = 'bolt' FOR UPDATE"))
        bolt.execute(text("UPDATE batch SET last_number = 1 WHERE id = 'bolt'"))
        claimed = pool.submit(claim, database)
        until_someone_waits(database)
        bolt.commit()
        assert claimed.result().included == 2
    assert waiting(database, "bolt") == leads


def test_what_stands_in_the_way_of_every_try_is_told_as_what_it_is(database, monkeypatch):
    tried = []

    def conflict(*_, **__):
        tried.append(1)
        raise StoreConflictError("Another transaction of the lead store was in the way")

    monkeypatch.setattr("leadferry.store.routing.route", conflict)
    with pytest.raises(StoreConflictError, match="was in the way"):
        route(database)
    assert len(tried) == 20


def test_a_flow_that_is_removed_while_a_claim_judges_its_leads_leaves_after_it(database):
    leads = [*add_leads(database, 3), *add_leads(database, 2, flow="home")]
    pauses = cast(func.pg_advisory_xact_lock_shared(5), Text) == "never"
    capped = selection_of(make_batch(select={"caps": [{"leads": 9, "per": "total"}]}), DeliverNow())
    chosen = replace(capped, failed_rule=case((pauses, "paused")))
    going = departure(flows=["auto", "home"])
    with database.transaction() as pause, ThreadPoolExecutor(2) as pool:
        pause.execute(text("SELECT pg_advisory_xact_lock(5)"))
        claimed = pool.submit(claiming.claim, database, going, chosen)
        until_someone_waits(database)
        removed = pool.submit(route, database)
        until_someone_waits(database, number=2, unless=removed)
        pause.commit()
        assert claimed.result().included == 5
        removed.result()
    assert sorted(carried(database, claimed.result().delivery_id)) == leads
