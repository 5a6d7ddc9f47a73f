"""Departures before their time are asked for once, however often and by however many it is looked."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest

from batches import add_leads, claim, execute, rows, waiting
from leadferry.store import settling
from leadferry.store.early import order_early
from leadferry.store.queue import Stop, release, stop
from leadferry.store.tables import lead

HOUR = timedelta(hours=1)


def order(database, *, leads=None, oldest=None, others_come=False, **keys):
    return order_early(
        database,
        "acme",
        flows=["auto"],
        received_from=None,
        leads=leads,
        oldest=oldest,
        again_after=HOUR,
        others_come=others_come,
        **keys,
    )


def let_time_pass(database, minutes):
    """Move all that has happened into the past: nothing here looks at any other clock than the store's."""
    execute(database, f"UPDATE early_departure SET ordered_at = ordered_at - interval '{minutes} minutes'")
    execute(
        database,
        f"UPDATE delivery SET claimed_at = claimed_at - interval '{minutes} minutes',"
        f" settled_at = settled_at - interval '{minutes} minutes'",
    )


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
def test_a_departure_that_failed_or_took_nothing_is_not_repeated_where_others_come(database):
    add_leads(database, 5)
    assert order(database, leads=5, others_come=True)
    claim(database, "early", minimum=6)
    let_time_pass(database, 61)
    assert order(database, leads=5, others_come=True) is None
    failed = claim(database, "early again")
    settling.settle(database, failed.delivery_id)
    let_time_pass(database, 61)
    assert order(database, leads=5, others_come=True) is None


@pytest.mark.req("R047")
def test_where_others_come_it_is_repeated_when_no_departure_followed_at_all(database):
    """As when the triggerer dies after the order was written, and before Airflow hears of it."""
    add_leads(database, 5)
    claim(database, "the one before", minimum=6)
    let_time_pass(database, 1)
    assert order(database, leads=5, others_come=True) == "5 leads wait"
    let_time_pass(database, 59)
    assert order(database, leads=5, others_come=True) is None
    let_time_pass(database, 2)
    assert "asked again" in order(database, leads=5, others_come=True)
    assert order(database, leads=5, others_come=True) is None
    claim(database, "the lost one", minimum=6)
    let_time_pass(database, 61)
    assert order(database, leads=5, others_come=True) is None


@pytest.mark.req("R047")
def test_of_several_who_look_at_once_one_asks(database):
    add_leads(database, 5)
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: order(database, leads=5), range(4)))
    assert sum(one is not None for one in asked) == 1


@pytest.mark.req("R047")
def test_a_batch_for_which_nothing_else_comes_is_asked_again_after_a_pause(database):
    add_leads(database, 5)
    assert order(database, leads=5) == "5 leads wait"
    claim(database, "took nothing", minimum=6)
    assert order(database, leads=5) is None
    let_time_pass(database, 59)
    assert order(database, leads=5) is None
    let_time_pass(database, 2)
    ((first,),) = rows(database, "SELECT ordered_at FROM early_departure")
    told = "5 leads wait; asked again: no departure took leads since"
    asked = [order(database, leads=5, zone="Asia/Kolkata") for _ in range(3)]
    assert asked == [f"{told} {on_two_clocks(first)}", None, None]
    let_time_pass(database, 61)
    since = on_two_clocks(first - timedelta(minutes=61))
    assert order(database, leads=5, zone="Asia/Kolkata") == f"{told} {since}"
    assert rows(database, "SELECT after_delivery, number FROM early_departure ORDER BY number") == [
        (0, 1), (0, 2), (0, 3),
    ]  # fmt: skip


def on_two_clocks(moment):
    """As people are told of it in India, where it is five and a half hours later."""
    there, utc = (moment.astimezone(one) for one in (timezone(timedelta(hours=5, minutes=30)), UTC))
    day = "" if there.date() == utc.date() else f"{utc:%a %Y-%m-%d} "
    return f"{there:%a %Y-%m-%d %H:%M} IST ({day}{utc:%H:%M} UTC)"


@pytest.mark.req("R047")
def test_it_is_asked_again_only_while_there_is_a_reason(database):
    add_leads(database, received_at=datetime.now(tz=UTC) - timedelta(hours=2))
    assert order(database, oldest=HOUR)
    claim(database, "took it")
    let_time_pass(database, 120)
    assert order(database, oldest=HOUR) is None


@pytest.mark.req("R047")
def test_the_pause_begins_when_the_departure_that_failed_has_ended(database):
    add_leads(database, 5)
    assert order(database, leads=5)
    delivery = claim(database, "tried for long")
    let_time_pass(database, 120)
    assert order(database, leads=5) is None
    settling.settle(database, delivery.delivery_id)
    assert order(database, leads=5) is None
    let_time_pass(database, 61)
    assert "asked again" in order(database, leads=5)


@pytest.mark.req("R047")
def test_after_a_departure_that_took_leads_it_is_asked_as_for_the_first_time(database):
    add_leads(database, 5)
    assert order(database, leads=5)
    claim(database, "took nothing", minimum=6)
    let_time_pass(database, 61)
    assert "asked again" in order(database, leads=5)
    claim(database, "took all")
    add_leads(database, 5)
    assert order(database, leads=5) == "5 leads wait"


@pytest.mark.req("R047")
def test_of_many_who_look_at_once_one_asks_in_each_period(database):
    add_leads(database, 5)
    for period in range(1, 4):
        with ThreadPoolExecutor(8) as pool:
            asked = list(pool.map(lambda _: order(database, leads=5), range(24)))
        assert sum(one is not None for one in asked) == 1
        assert rows(database, "SELECT count(*) FROM early_departure") == [(period,)]
        let_time_pass(database, 61)


def test_a_lead_that_waits_for_too_long_asks_for_a_departure(database):
    add_leads(database, received_at=datetime.now(tz=UTC) - timedelta(hours=2))
    assert order(database, oldest=timedelta(hours=3)) is None
    assert order(database, leads=100, oldest=timedelta(hours=2)) == "a lead waits for 2 hours"
    assert rows(database, "SELECT after_delivery, reason FROM early_departure") == [
        (0, "a lead waits for 2 hours")
    ]


def test_an_empty_queue_asks_for_nothing(database):
    assert order(database, leads=1, oldest=timedelta(seconds=1)) is None


# --- leads that cannot go


def hours_old(hours):
    return datetime.now(tz=UTC) - timedelta(hours=hours)


def hold(database, lead_ids):
    stop(database, lead_ids, Stop.HELD, batch_id=None, actor="kim", reason="asked by the lead")


ASLEEP = {"zone": "asleep"}
BY_NIGHT = lead.c.fields["zone"].astext.is_not_distinct_from("asleep")


def add_one_that_cannot_go(database, why):
    """Add a lead of three hours ago; return what the claim and the watcher are told about it."""
    (old,) = add_leads(database, received_at=hours_old(3), fields=ASLEEP if why == "quiet hours" else {})
    order(database, leads=1000)  # routes it
    if why == "held":
        hold(database, [old])
    return {"quiet hours": {"must_wait": BY_NIGHT}, "window": {"window_to": hours_old(4)}}.get(why, {})


@pytest.mark.req("R047")
@pytest.mark.parametrize("why", ["held", "quiet hours"])
def test_an_old_lead_that_cannot_go_does_not_make_a_departure_of_every_lead_after_it(database, why):
    told = add_one_that_cannot_go(database, why)
    for number in range(4):
        add_leads(database)
        if order(database, oldest=2 * HOUR, **told):
            claim(database, f"early {number}", **told)
    assert rows(database, "SELECT count(*) FROM early_departure") == [(0,)]
    add_leads(database, received_at=hours_old(2))
    assert order(database, oldest=2 * HOUR, **told) == "a lead waits for 2 hours"
    assert claim(database, "early", **told).included == 5
    assert order(database, oldest=2 * HOUR, **told) is None


@pytest.mark.req("R047")
@pytest.mark.parametrize("why", ["held", "quiet hours", "window"])
def test_leads_that_cannot_go_are_not_counted(database, why):
    told = add_one_that_cannot_go(database, why)
    add_leads(database, 2, received_at=hours_old(5))
    assert order(database, leads=3, **told) is None
    add_leads(database, received_at=hours_old(5))
    assert order(database, leads=3, **told) == "3 leads wait"
    assert claim(database, "early", **told).included == 3
    add_leads(database, 2, received_at=hours_old(5))
    assert order(database, leads=3, **told) is None


@pytest.mark.req("R047")
def test_a_lead_counts_from_the_moment_at_which_it_is_released(database):
    ids = add_leads(database, received_at=hours_old(3))
    order(database, leads=1000)
    hold(database, ids)
    assert order(database, oldest=2 * HOUR) is None
    release(database, ids, batch_id=None, actor="kim", reason="all is well")
    assert order(database, oldest=2 * HOUR) == "a lead waits for 3 hours"


@pytest.mark.req("R047")
def test_a_cancelled_lead_counts_for_the_departure_is_what_takes_it_out_of_the_queue(database):
    ids = add_leads(database, received_at=hours_old(3))
    order(database, leads=1000)
    stop(database, ids, Stop.CANCELLED, batch_id=None, actor="kim", reason="asked by the lead")
    assert order(database, oldest=2 * HOUR) == "a lead waits for 3 hours"
    assert claim(database, "early").withheld == 1
    assert waiting(database) == []
    assert order(database, oldest=2 * HOUR) is None
