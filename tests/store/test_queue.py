"""Single leads that are held, released and cancelled, and what claims make of it."""

import pytest

from batches import add_leads, carried, claim, execute, kept_back, rows, waiting
from leadferry.errors import StoreError
from leadferry.store import settling
from leadferry.store.queue import Stop, release, stop
from leadferry.store.routing import route_new_leads

CA = {"name": "served", "field": "state", "in": ["CA"]}


def route(database, batch_id="acme"):
    return route_new_leads(database, batch_id=batch_id, flows=["auto"])


def hold(database, *leads, batch_id="acme"):
    return stop(database, leads, Stop.HELD, batch_id=batch_id, actor="kim", reason="asked us to wait")


def cancel(database, *leads, batch_id="acme"):
    return stop(database, leads, Stop.CANCELLED, batch_id=batch_id, actor="kim", reason="asked us not to")


def let_go(database, *leads, batch_id="acme"):
    release(database, leads, batch_id=batch_id, actor="kim", reason="all right again")


def audit(database):
    return rows(database, "SELECT actor, action, object, detail FROM audit ORDER BY id")


@pytest.fixture
def leads(database):
    found = add_leads(database, 4)
    route(database)
    return found


@pytest.mark.parametrize("keys", [{}, {"limit": 3}, {"rules": [CA]}, {"rules": [CA], "limit": 3}])
def test_a_held_lead_stays_in_its_place_and_goes_once_it_is_released(database, keys):
    one, two, three, four = add_leads(database, 4, fields={"state": "CA"})
    route(database)
    hold(database, two)
    assert carried(database, claim(database, **keys).delivery_id) == [one, three, four]
    assert waiting(database) == [two]
    later = add_leads(database, 1, fields={"state": "CA"})
    let_go(database, two)
    assert carried(database, claim(database, "run-2", **keys).delivery_id) == [two, *later]


@pytest.mark.parametrize("keys", [{}, {"limit": 2}, {"rules": [CA]}])
def test_a_cancelled_lead_is_withheld_and_never_comes_back(database, keys):
    one, two, three = add_leads(database, 3, fields={"state": "CA"})
    route(database)
    cancel(database, two)
    claimed = claim(database, **keys)
    assert carried(database, claimed.delivery_id) == [one, three]
    assert kept_back(database, claimed.delivery_id) == {two: "cancelled"}
    assert (claimed.included, claimed.withheld) == (2, 1)
    assert waiting(database) == []


def test_a_cancelled_lead_is_withheld_again_after_its_delivery_failed(database, leads):
    cancel(database, leads[0])
    settling.settle(database, claim(database).delivery_id)
    assert waiting(database) == leads
    again = claim(database, "run-2")
    assert kept_back(database, again.delivery_id) == {leads[0]: "cancelled"}


def test_cancelled_counts_more_than_held_and_more_than_a_rule(database, leads):
    hold(database, leads[0])
    cancel(database, leads[1])
    claimed = claim(database, rules=[CA])
    assert kept_back(database, claimed.delivery_id) == {
        leads[1]: "cancelled", leads[2]: "served", leads[3]: "served",
    }  # fmt: skip
    cancel(database, leads[0])
    assert waiting(database) == leads[:1]


def test_when_all_are_held_nothing_departs_and_they_wait_on(database, leads):
    hold(database, *leads)
    claimed = claim(database)
    assert (claimed.state, claimed.included, claimed.withheld) == ("skipped", 0, 0)
    assert waiting(database) == leads


def test_held_leads_do_not_count_for_the_minimum(database, leads):
    hold(database, leads[0])
    assert claim(database, minimum=4).state == "skipped"
    assert claim(database, "run-2", minimum=3).included == 3


def test_copies_that_go_early_are_without_the_held_leads(database, leads):
    hold(database, leads[1])
    copied = claim(database, keep_for_next=True)
    assert carried(database, copied.delivery_id) == [leads[0], *leads[2:]]
    assert waiting(database) == leads


def test_a_stop_is_for_one_batch_or_for_all(database, leads):
    route(database, "other")
    hold(database, leads[0])
    hold(database, leads[1], batch_id=None)
    assert carried(database, claim(database, batch_id="other").delivery_id) == [leads[0], *leads[2:]]
    assert carried(database, claim(database).delivery_id) == leads[2:]


def test_a_stop_for_all_batches_counts_for_one_that_comes_later(database, leads):
    cancel(database, leads[0], batch_id=None)
    claimed = claim(database, batch_id="later")
    assert kept_back(database, claimed.delivery_id) == {leads[0]: "cancelled"}


def test_who_stopped_what_and_why_is_written_down_once(database, leads):
    assert hold(database, leads[0]).new == (leads[0],)
    assert hold(database, leads[0]).new == ()
    let_go(database, leads[0])
    cancel(database, leads[0], batch_id=None)
    assert audit(database) == [
        ("kim", "lead.hold", f"lead {leads[0]}", {"batch": "acme", "reason": "asked us to wait"}),
        ("kim", "lead.release", f"lead {leads[0]}", {"batch": "acme", "reason": "all right again"}),
        ("kim", "lead.cancel", f"lead {leads[0]}", {"batch": None, "reason": "asked us not to"}),
    ]


def test_leads_that_a_delivery_has_taken_are_told(database, leads):
    claim(database, limit=1)
    assert hold(database, *leads[:2]).under_way == (leads[0],)


@pytest.mark.parametrize(
    ("batch_id", "lead", "said"),
    [
        ("nobody", 0, "No lead ever came to a batch 'nobody'"),
        ("acme", 99, "There is no lead 99"),
        (None, 99, "There is no lead 99"),
    ],
)
def test_what_is_not_known_is_refused_and_nothing_is_stopped(database, leads, batch_id, lead, said):
    with pytest.raises(StoreError, match=said):
        hold(database, leads[0], lead or leads[1], batch_id=batch_id)
    assert rows(database, "SELECT * FROM lead_stop") == audit(database) == []


def test_a_lead_that_was_withheld_or_is_not_in_the_queue_cannot_be_held(database, leads):
    claim(database, rules=[CA])
    other = add_leads(database, 1, flow="home")
    for lead in (leads[0], other[0]):
        with pytest.raises(StoreError, match=f"Lead {lead} does not wait for batch 'acme'"):
            hold(database, lead)


def test_what_is_not_held_just_so_is_not_released(database, leads):
    hold(database, leads[0])
    cancel(database, leads[1])
    for lead, batch_id in ((leads[1], "acme"), (leads[2], "acme"), (leads[0], None)):
        with pytest.raises(StoreError, match=f"Lead {lead} is not held"):
            let_go(database, leads[0], lead, batch_id=batch_id)
    assert rows(database, "SELECT lead_id, kind FROM lead_stop ORDER BY 1") == [
        (leads[0], "held"),
        (leads[1], "cancelled"),
    ]


def test_the_database_takes_no_cancellation_back(database, leads):
    cancel(database, leads[0])
    for statement in ("DELETE FROM lead_stop", "UPDATE lead_stop SET kind = 'held'"):
        with pytest.raises(StoreError, match="never taken back"):
            execute(database, statement)
