"""What waits is told for every batch, also for one that never came so far as to look for its leads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from batches import add_leads, execute, rows, scalars, waiting
from leadferry.batch.load import load_all
from leadferry.delivery.params import DeliverNow
from leadferry.store import suspensions
from leadferry.watch.queues import follow, uncounted
from leadferry.watch.status import status

from .conftest import DAY, MONDAY

NOW = MONDAY + timedelta(hours=9)


def kinds(watched):
    return [str(one.kind) for one in watched.open]


def pending(port):
    return {row["batch"]: row["pending"] for row in status(port.database, port.config, now=NOW)}


def batches(port):
    return {batch.id: batch for batch in load_all(port.config)[0]}


@pytest.mark.req("R168")
def test_leads_of_a_batch_that_never_came_so_far_as_to_take_any_are_told_with_the_first_look(port):
    port.batch(schedule="manual", watch={"max_pending": 2, "max_age": "2d"})
    add_leads(port.database, 3, received_at=MONDAY - 3 * DAY)

    watched = port.watch(MONDAY)

    assert kinds(watched) == ["depth", "age"]
    assert watched.open[0].detail.startswith("3 leads wait for batch acme")
    assert pending(port) == {"acme": 3}
    assert kinds(port.watch(MONDAY)) == ["depth", "age"]
    assert port.carry() == 1
    assert port.watch(MONDAY).open == []


def test_what_waits_is_what_the_next_departure_takes_after_flows_were_added_and_removed(port):
    port.batch(schedule="manual")
    add_leads(port.database, 1)
    add_leads(port.database, 2, flow="home")
    add_leads(port.database, 4, flow="life")
    told = []
    for flows in (["auto"], ["auto", "home"], ["life"]):
        port.batch(schedule="manual", flows=flows)
        before = pending(port)["acme"]
        port.watch(MONDAY)
        told.append((before, pending(port)["acme"]))

    assert told == [(None, 1), (None, 3), (None, 4)]
    port.carry()
    assert scalars(port.database, "SELECT included FROM delivery") == [4]


def test_leads_of_a_batch_on_hold_are_counted_and_those_of_a_disabled_one_when_it_is_enabled(port):
    add_leads(port.database, 2)
    port.batch("bolt", enabled=False)
    port.batch("held")
    suspensions.hold(port.database, scope="batch", name="held", reason="moving", actor="kim")

    port.watch(MONDAY)
    assert pending(port) == {"bolt": None, "held": 2}

    port.batch("bolt")
    port.watch(MONDAY)
    assert pending(port) == {"bolt": 2, "held": 2}


def test_the_day_from_which_on_a_batch_collects_counts_until_its_first_delivery_as_it_stands_then(port):
    add_leads(port.database, 5, received_at=MONDAY - timedelta(hours=1))
    add_leads(port.database, 1, received_at=MONDAY + timedelta(hours=1))
    told = []
    for day in (None, "2026-02-02", "2026-02-01"):
        port.batch(schedule="manual", select={"received_from": day})
        port.watch(MONDAY)
        told.append(pending(port)["acme"])
    assert told == [6, 1, 6]

    port.batch(schedule="manual", select={"received_from": "2026-02-02"})
    port.carry(at=NOW)
    port.batch(schedule="manual")
    port.watch(MONDAY)
    assert pending(port) == {"acme": 0}


def test_a_look_routes_nothing_while_all_queues_follow_their_files(port):
    port.batch()
    port.watch(MONDAY)
    leads = add_leads(port.database, 2)

    port.watch(MONDAY)

    assert pending(port) == {"acme": 2}
    assert scalars(port.database, "SELECT lead_id FROM arrival ORDER BY lead_id") == leads
    assert rows(port.database, "SELECT count(*) FROM lot JOIN queue_entry ON lot_id = lot.id") == [(0,)]


def test_the_status_asks_for_no_right_but_to_read_and_waits_for_nobody(port):
    port.batch()
    port.batch("bolt", flows=["home"])
    add_leads(port.database, 3)
    follow(port.database, {"acme": batches(port)["acme"]})
    execute(
        port.database,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());"
        " END $$",
    )
    with port.database.transaction() as routing:
        routing.execute(text("SET TRANSACTION READ WRITE"))
        routing.execute(text("LOCK TABLE subscription IN SHARE ROW EXCLUSIVE MODE"))

        assert pending(port) == {"acme": 3, "bolt": None}


def test_a_look_tells_what_else_is_wrong_although_another_routing_does_not_end(port, caplog):
    port.batch("acme")
    port.batch("bolt")
    with port.database.transaction() as stuck:
        stuck.execute(text("LOCK TABLE subscription IN SHARE ROW EXCLUSIVE MODE"))
        follow(port.database, batches(port), within=timedelta(seconds=4))

    for one in ("acme", "bolt"):
        assert f"The queue of batch {one} does not follow its file yet. store: " in caplog.text
    assert uncounted(port.database, batches(port).values()) == ["acme", "bolt"]
    follow(port.database, batches(port))
    assert uncounted(port.database, batches(port).values()) == []


def test_what_there_is_no_time_for_follows_its_file_with_the_next_look(port, caplog):
    port.batch("acme")
    follow(port.database, batches(port), within=timedelta())
    assert "The time is over" in caplog.text
    assert uncounted(port.database, batches(port).values()) == ["acme"]


def test_looks_and_departures_at_the_same_time_give_each_lead_one_place(port):
    for one in ("acme", "bolt"):
        port.batch(one, schedule="manual")
    leads = add_leads(port.database, 50)
    loaded = batches(port)

    with ThreadPoolExecutor(6) as pool:
        looks = [pool.submit(follow, port.database, loaded) for _ in range(3)]
        taken = [pool.submit(port.extract, "acme", run_id=f"run {number}") for number in range(3)]
        [one.result() for one in [*looks, *taken]]

    assert sorted(scalars(port.database, "SELECT included FROM delivery")) == [0, 0, 50]
    assert (waiting(port.database, "acme"), sorted(waiting(port.database, "bolt"))) == ([], leads)


def test_a_test_of_a_new_batch_leaves_its_queue_to_follow_the_file(port):
    add_leads(port.database, 2, received_at=MONDAY - DAY)
    port.batch(schedule="manual")
    port.extract(params=DeliverNow(test=True))

    port.batch(schedule="manual", select={"received_from": "2026-02-02"})
    port.watch(MONDAY)

    assert pending(port) == {"acme": 0}


@pytest.mark.parametrize("day", ["2026-04-24", "2026-04-25"])
def test_a_queue_that_begins_at_a_midnight_which_clocks_skip_follows_its_file(port, day):
    """In Cairo clocks go from 00:00 to 01:00 on 24 April 2026."""
    port.batch(schedule="manual", timezone="Africa/Cairo", select={"received_from": day})
    follow(port.database, batches(port))

    assert uncounted(port.database, batches(port).values()) == []
