"""A departure that a person wants left out: one scheduled run, no other, and nothing is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from batches import add_leads, make_batch, rows, waiting
from leadferry.states import DeliveryState
from leadferry.store.skips import order_skip, withdraw_skip


@pytest.mark.req("R050")
def test_the_next_scheduled_departure_is_left_out_and_the_one_after_takes_the_leads(ferry):
    leads = add_leads(ferry.database, 3)
    assert order_skip(ferry.database, "acme", actor="dana", reason="their importer is down")
    first = ferry.extract(make_batch(), run_id="scheduled__1")
    assert (first.state, first.reason) == (
        DeliveryState.SKIPPED,
        "left out on request of dana: their importer is down",
    )
    assert waiting(ferry.database) == leads
    second = ferry.extract(make_batch(), run_id="scheduled__2")
    assert (second.state, second.included) == (DeliveryState.CLAIMED, 3)
    audited = rows(ferry.database, "SELECT actor, action, object, detail FROM audit")
    assert [tuple(one) for one in audited] == [
        ("dana", "schedule.skip_next", "batch acme", {"reason": "their importer is down"})
    ]


@pytest.mark.req("R050")
def test_a_retried_or_cleared_task_of_the_run_that_was_left_out_stays_left_out(ferry):
    add_leads(ferry.database, 3)
    order_skip(ferry.database, "acme", actor="dana", reason="not today")
    states = [ferry.extract(make_batch(), run_id="scheduled__1").state for _ in range(3)]
    assert states == [DeliveryState.SKIPPED] * 3
    assert ferry.extract(make_batch(), run_id="scheduled__2").state is DeliveryState.CLAIMED


@pytest.mark.req("R050")
def test_of_several_runs_at_once_exactly_one_is_left_out(ferry):
    add_leads(ferry.database, 3)
    order_skip(ferry.database, "acme", actor="dana", reason="not today")
    batch = make_batch(empty="header_only")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: ferry.extract(batch, run_id=f"scheduled__{n}"), range(4)))
    assert sum(one.on_request for one in found) == 1


def test_a_run_by_hand_goes_and_leaves_the_order_for_the_timetable(ferry):
    add_leads(ferry.database, 3)
    order_skip(ferry.database, "acme", actor="dana", reason="not today")
    by_hand = ferry.extract(make_batch(), run_id="manual__1", actor="luis")
    assert by_hand.state is DeliveryState.CLAIMED
    assert ferry.extract(make_batch(), run_id="scheduled__1").on_request


def test_another_batch_is_not_left_out(ferry):
    add_leads(ferry.database, 3)
    order_skip(ferry.database, "harbor", actor="dana", reason="not today")
    assert ferry.extract(make_batch(), run_id="scheduled__1").state is DeliveryState.CLAIMED


def test_ordering_twice_leaves_out_one_departure(ferry):
    asked = [order_skip(ferry.database, "acme", actor="dana", reason="not today") for _ in range(2)]
    assert asked == [True, False]


def test_an_order_can_be_taken_back_once(ferry):
    add_leads(ferry.database, 3)
    order_skip(ferry.database, "acme", actor="dana", reason="not today")
    taken = [withdraw_skip(ferry.database, "acme", actor="luis", reason="it is up again") for _ in range(2)]
    assert taken == [True, False]
    assert ferry.extract(make_batch(), run_id="scheduled__1").state is DeliveryState.CLAIMED


def test_a_batch_that_must_not_be_empty_does_not_fail_when_it_is_left_out(ferry):
    order_skip(ferry.database, "acme", actor="dana", reason="not today")
    skipped = ferry.extract(make_batch(empty="fail"), run_id="scheduled__1")
    assert skipped.on_request
