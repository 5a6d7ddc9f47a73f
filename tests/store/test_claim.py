"""The claim: who takes which lead, in which order, and never twice."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from batches import add_leads, carried, claim, execute, rows, scalars, until_someone_waits, waiting
from leadferry.errors import StoreError
from leadferry.states import DeliveryState
from leadferry.store import ledger, settling
from leadferry.store.queue import Stop, stop
from leadferry.store.routing import route_new_leads
from leadferry.store.tables import lead

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
SERVED = {"name": "served_states", "field": "state", "in": ["CA", "TX"]}
NEW_ENOUGH = {"name": "car_not_too_old", "field": "year", "at_least": 2005}


def route(database, batch_id="acme", flows=("auto",), **keys):
    return route_new_leads(database, batch_id=batch_id, flows=list(flows), **keys)


# --- which leads a claim takes


@pytest.mark.parametrize(("order", "expected"), [("oldest", [0, 1, 2]), ("newest", [4, 3, 2])])
def test_a_limit_takes_the_first_in_order_and_leaves_the_rest(database, order, expected):
    leads = add_leads(database, 5)
    claimed = claim(database, order=order, limit=3)
    assert carried(database, claimed.delivery_id) == [leads[index] for index in expected]
    assert waiting(database) == sorted(set(leads) - {leads[index] for index in expected})


def test_leads_received_at_the_same_instant_go_in_the_order_of_their_ids(database):
    leads = [*add_leads(database, received_at=JANUARY), *add_leads(database, received_at=JANUARY)]
    claimed = claim(database, limit=1)
    assert carried(database, claimed.delivery_id) == leads[:1]
    assert waiting(database) == leads[1:]


def test_random_order_takes_as_many_as_asked_and_not_always_the_same(database):
    leads = add_leads(database, 60)
    taken = [
        carried(database, claim(database, f"run-{n}", order="random", limit=20).delivery_id) for n in range(3)
    ]
    assert [len(one) for one in taken] == [20, 20, 20]
    drawn = [lead for one in taken for lead in one]
    assert sorted(drawn) == leads
    assert drawn != leads


def test_a_random_draw_may_be_as_large_as_one_likes(database):
    """PostgreSQL takes at most 65,535 parameters in a statement."""
    add_leads(database, 66_001)
    assert claim(database, order="random", limit=66_000).included == 66_000
    assert len(waiting(database)) == 1


def test_the_limit_counts_only_leads_that_may_go(database):
    states = ["NY", "CA", "NY", "TX", "CA", "NY"]
    leads = [add_leads(database, received_at=JANUARY + timedelta(hours=n), fields={"state": state})[0]
             for n, state in enumerate(states)]  # fmt: skip
    claimed = claim(database, rules=[SERVED], limit=2)
    assert (claimed.included, claimed.withheld) == (2, 2)
    assert carried(database, claimed.delivery_id) == [leads[1], leads[3]]
    assert waiting(database) == [leads[4], leads[5]]


@pytest.mark.req("R063")
def test_a_lead_that_fails_is_withheld_with_the_name_of_the_first_rule_it_does_not_meet(database):
    both = add_leads(database, fields={"state": "NY", "year": 1990})[0]
    second = add_leads(database, fields={"state": "CA", "year": 1990})[0]
    missing = add_leads(database, fields={"year": 2020})[0]
    good = add_leads(database, fields={"state": "CA", "year": 2020})[0]
    claimed = claim(database, rules=[SERVED, NEW_ENOUGH])
    found = rows(database, "SELECT lead_id, outcome::text, reason FROM delivery_lead ORDER BY lead_id")
    assert found == [
        (both, "withheld", "served_states"),
        (second, "withheld", "car_not_too_old"),
        (missing, "withheld", "served_states"),
        (good, "included", None),
    ]
    assert (claimed.included, claimed.withheld) == (1, 3)
    assert waiting(database) == []


# --- minimum


@pytest.mark.req("R045")
def test_under_the_minimum_leads_stay_pending_and_the_reason_is_recorded(database):
    leads = add_leads(database, 9)
    under = claim(database, minimum=10)
    assert (under.state, under.reason) == (DeliveryState.SKIPPED, "9 leads may go, the minimum is 10")
    assert waiting(database) == leads
    leads += add_leads(database)
    assert claim(database, "run-2", minimum=10).included == 10


def test_withheld_leads_do_not_count_for_the_minimum_and_do_not_come_back(database):
    add_leads(database, 5, fields={"state": "NY"})
    may_go = add_leads(database, 2, fields={"state": "CA"})
    under = claim(database, rules=[SERVED], minimum=3)
    assert (under.state, under.included, under.withheld) == (DeliveryState.SKIPPED, 0, 5)
    assert waiting(database) == may_go


def test_the_minimum_does_not_count_once_the_oldest_lead_has_waited_long_enough(database):
    (lead,) = add_leads(database, received_at=JANUARY)
    keys = {"minimum": 10, "max_wait": timedelta(days=3)}
    early = claim(database, "early", window_to=JANUARY + timedelta(days=3, microseconds=-1), **keys)
    assert early.state is DeliveryState.SKIPPED
    on_time = claim(database, "on time", window_to=JANUARY + timedelta(days=3), **keys)
    assert carried(database, on_time.delivery_id) == [lead]


def test_a_withheld_lead_that_waited_long_does_not_make_the_others_depart(database):
    add_leads(database, received_at=JANUARY, fields={"state": "NY"})
    young = add_leads(database, received_at=JANUARY + timedelta(days=9), fields={"state": "CA"})
    keys = {"minimum": 10, "max_wait": timedelta(days=3), "window_to": JANUARY + timedelta(days=10)}
    assert claim(database, rules=[SERVED], **keys).state is DeliveryState.SKIPPED
    assert waiting(database) == young


def test_departing_empty_takes_no_lead_and_has_a_number(database):
    leads = add_leads(database, 2)
    empty = claim(database, minimum=3, departs_empty=True)
    assert (empty.state, empty.included) == (DeliveryState.CLAIMED, 0)
    assert waiting(database) == leads
    assert ledger.get_delivery(database, empty.delivery_id).number == 1


def test_when_nothing_goes_people_read_what_is_with_the_leads_that_wait(database):
    now = datetime.now(tz=UTC)
    add_leads(database, 3, received_at=now + timedelta(hours=1))
    first, *_ = add_leads(database, 2)
    route(database)
    stop(database, [first], Stop.HELD, batch_id="acme", actor="kim", reason="asked for")
    claimed = claim(database, window_to=now, must_wait=lead.c.id > first)
    assert claimed.reason == (
        "no lead waits that may go (waiting: 3 received after the window, 1 held, 1 in their quiet hours)"
    )


def test_a_skipped_departure_takes_no_number(database):
    claim(database)
    add_leads(database)
    assert ledger.get_delivery(database, claim(database, "run-2").delivery_id).number == 1


# --- which run


def test_the_same_run_finds_its_delivery_again(database):
    add_leads(database, 2)
    first = claim(database)
    add_leads(database, 2)
    again = claim(database)
    assert (again.delivery_id, again.included, again.is_new) == (first.delivery_id, 2, False)


def test_a_run_that_is_cleared_after_its_delivery_failed_makes_a_new_one_with_the_same_leads(database):
    leads = add_leads(database, 2)
    first = claim(database)
    settling.settle(database, first.delivery_id)
    second = claim(database)
    assert second.delivery_id != first.delivery_id
    assert carried(database, second.delivery_id) == leads
    assert ledger.delivery_of_run(database, batch_id="acme", run_id="run-1") == second.delivery_id


def test_a_run_that_was_skipped_may_deliver_when_it_is_cleared(database):
    assert claim(database).state is DeliveryState.SKIPPED
    add_leads(database)
    assert claim(database).included == 1


def test_keep_for_next_delivers_now_and_again_with_the_next_departure(database):
    leads = add_leads(database, 3)
    now = claim(database, "by hand", keep_for_next=True)
    assert carried(database, now.delivery_id) == leads
    assert waiting(database) == leads
    assert carried(database, claim(database, "scheduled").delivery_id) == leads


def test_a_failed_delivery_that_kept_the_queue_puts_nothing_into_it_twice(database):
    leads = add_leads(database, 3)
    now = claim(database, "by hand", keep_for_next=True)
    settling.settle(database, now.delivery_id)
    assert waiting(database) == leads
    assert claim(database, "scheduled").included == 3


# --- windows


@pytest.mark.req("F42")
def test_a_lead_received_exactly_at_the_end_of_a_window_belongs_to_the_next(database):
    before = add_leads(database, received_at=JANUARY - timedelta(microseconds=1))
    at_the_end = add_leads(database, received_at=JANUARY)
    first = claim(database, "run-1", window_to=JANUARY)
    second = claim(database, "run-2", window_to=JANUARY + timedelta(days=1))
    assert carried(database, first.delivery_id) == before
    assert carried(database, second.delivery_id) == at_the_end


@pytest.mark.req("F42")
def test_a_lead_that_arrives_late_goes_with_the_next_window(database):
    add_leads(database, received_at=JANUARY - timedelta(hours=2))
    claim(database, "run-1", window_to=JANUARY)
    late = add_leads(database, received_at=JANUARY - timedelta(hours=1))
    second = claim(database, "run-2", window_to=JANUARY + timedelta(days=1))
    assert carried(database, second.delivery_id) == late


@pytest.mark.req("F42")
def test_a_lead_whose_clock_runs_ahead_waits_until_its_time_has_come(database):
    ahead = add_leads(database, received_at=JANUARY + timedelta(minutes=5))
    assert claim(database, "run-1", window_to=JANUARY).state is DeliveryState.SKIPPED
    assert waiting(database) == ahead
    later = claim(database, "run-2", window_to=JANUARY + timedelta(hours=1))
    assert carried(database, later.delivery_id) == ahead


@pytest.mark.req("F42")
def test_windows_meet_without_gap_or_overlap_whatever_failed_or_was_skipped_between(database):
    ends = [JANUARY + timedelta(days=day) for day in range(1, 6)]
    delivered = []
    for number, end in enumerate(ends):
        if number != 2:  # the third window finds nothing and is skipped
            add_leads(database, 2, received_at=end - timedelta(hours=1))
        claimed = claim(database, f"run-{number}", window_to=end)
        if number == 1:
            settling.settle(database, claimed.delivery_id)  # fails: nothing was sent
        elif claimed.state is not DeliveryState.SKIPPED:
            delivered.append(claimed.delivery_id)
    windows = rows(
        database,
        "SELECT window_from, window_to FROM delivery WHERE id = ANY(:ids) ORDER BY number",
        ids=delivered,
    )
    assert [start for start, _ in windows] == [None, *[end for _, end in windows[:-1]]]
    # The second window failed, so its leads went with the third departure: each lead in exactly one.
    everything = [lead for taken in (carried(database, one) for one in delivered) for lead in taken]
    assert sorted(everything) == sorted(scalars(database, "SELECT id FROM lead"))


@pytest.mark.req("F42")
def test_claims_that_wait_for_each_other_have_windows_that_go_forward(database):
    """The claim that waits for the other ends its window after it got its turn, not when it began to wait."""
    add_leads(database)
    claim(database, "run-0")
    with database.transaction() as other:
        other.execute(text("SELECT FROM batch WHERE id = 'acme' FOR UPDATE"))
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(claim, database, "run-2", departs_empty=True)
            until_someone_waits(database)
            turn = other.scalar(text("SELECT clock_timestamp()"))
            other.commit()
            waits.result()
    ((start, end),) = rows(database, "SELECT window_from, window_to FROM delivery WHERE run_id = 'run-2'")
    assert start < turn < end


def test_a_window_never_ends_before_the_last_one_did_although_the_clock_was_set_back(database):
    add_leads(database)
    far = datetime.now(UTC) + timedelta(days=1)
    claim(database, "run-1", window_to=far)
    claim(database, "run-2", departs_empty=True)
    assert rows(database, "SELECT window_from, window_to FROM delivery WHERE run_id = 'run-2'") == [
        (far, far)
    ]


# --- I1


A_SECOND_PLACE = """
    INSERT INTO queue_entry (batch_no, lead_id, lot_id, received_at)
    SELECT batch_no, lead_id, lot_id + 1, now() FROM queue_entry
"""


@pytest.mark.req("C30")
@pytest.mark.parametrize(
    ("theft", "state"),
    [
        (A_SECOND_PLACE, "claimed"),
        ("UPDATE lot SET delivery_id = delivery_id + 1 WHERE delivery_id IS NOT NULL", "claimed"),
        ("UPDATE lot SET delivery_id = NULL WHERE delivery_id IS NOT NULL", "delivered"),
    ],
    ids=["a second place in the queue", "from one delivery into another", "back out of a confirmed delivery"],
)  # fmt: skip
def test_i1_the_database_refuses_to_let_a_lead_travel_twice(database, theft, state):
    leads = add_leads(database, 3)
    first = claim(database, "run-1").delivery_id
    claim(database, "run-2", departs_empty=True)
    # Only the state that the trigger looks at matters here, not how it was reached.
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text("UPDATE delivery SET state = CAST(:state AS delivery_state)"), {"state": state}
        )
    with pytest.raises(StoreError):
        execute(database, theft)
    assert carried(database, first) == leads


def test_i1_many_claims_at_once_share_the_leads_out(database):
    leads = add_leads(database, 200)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: claim(database, f"run-{n}", limit=30), range(8)))
    taken = [lead for taken in (carried(database, one.delivery_id) for one in claims) for lead in taken]
    assert sorted(taken) == leads
    assert sorted(one.included for one in claims) == [0, 20, 30, 30, 30, 30, 30, 30]


def test_the_same_run_claimed_many_times_at_once_is_one_delivery(database):
    add_leads(database, 10)
    with ThreadPoolExecutor(6) as pool:
        claims = list(pool.map(lambda _: claim(database), range(6)))
    assert len({one.delivery_id for one in claims}) == 1
    assert [one.is_new for one in claims].count(True) == 1


@pytest.mark.req("R169")
def test_a_delivery_with_a_limit_takes_the_oldest_and_tells_how_many_it_left(database):
    leads = add_leads(database, 7)
    claimed = claim(database, limit=4)
    assert carried(database, claimed.delivery_id) == leads[:4]
    told = rows(database, "SELECT left_waiting, left_reason FROM delivery")
    assert told == [(3, "limit of 4")]
    assert waiting(database) == leads[4:]


def test_a_limit_that_leaves_nothing_is_not_told(database):
    add_leads(database, 4)
    claim(database, limit=4)
    told = rows(database, "SELECT left_waiting, left_reason FROM delivery")
    assert told == [(0, None)]


@pytest.mark.req("R045")
def test_what_a_limit_leaves_counts_for_the_fewest_and_the_most_whatever_the_delivery_is(database):
    leads = add_leads(database, 4, fields={"state": "CA"})
    add_leads(database, 2, fields={"state": "NY"})
    asked = {"limit": 2, "rules": [SERVED]}
    assert claim(database, "refused", maximum=3, keep_for_next=True, **asked).reason is not None
    copied = claim(database, "copied", maximum=4, keep_for_next=True, **asked)
    tested = claim(database, "tested", minimum=5, maximum=9, limit=2, made_up=[{"n": 1}] * 5)
    claimed = claim(database, "claimed", minimum=4, maximum=4, **asked)
    assert [one.included for one in (copied, tested, claimed)] == [2, 5, 2]
    assert carried(database, claimed.delivery_id) == leads[:2]
    told = rows(database, "SELECT left_waiting, left_reason FROM delivery ORDER BY id")
    assert told == [(0, None), (0, None), (0, None), (2, "limit of 2")]


def test_a_held_lead_does_not_count_for_the_fewest_beyond_a_limit(database):
    leads = add_leads(database, 4)
    stop(database, leads[:1], Stop.HELD, batch_id=None, actor="kim", reason="x")
    asked = {"limit": 2, "minimum": 4}
    assert claim(database, "few", **asked).reason == "3 leads may go, the minimum is 4"
    add_leads(database, 1)
    assert claim(database, "enough", **asked).included == 2


def test_the_oldest_lead_that_a_limit_leaves_ends_the_wait_for_the_fewest(database):
    old = add_leads(database, 1, received_at=datetime(2026, 1, 1, tzinfo=UTC))
    add_leads(database, 2, received_at=datetime(2026, 1, 2, tzinfo=UTC))
    asked = {"limit": 1, "minimum": 9, "order": "newest", "max_wait": timedelta(hours=36)}
    early, late = (datetime(2026, 1, 2, hour, tzinfo=UTC) for hour in (11, 13))
    assert claim(database, "early", window_to=early, **asked).included == 0
    claimed = claim(database, "late", window_to=late, **asked)
    assert claimed.included == 1
    assert old[0] in waiting(database)
