"""A departure that a person wants left out: the one that was named, no other, and nothing is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from batches import add_leads, make_batch, rows, waiting
from leadferry.delivery.extract import Trigger, left_out, note_not_ready
from leadferry.delivery.extract import extract as claim_leads
from leadferry.delivery.leaving_out import keep_next, leave_out_next, why_none_departs
from leadferry.errors import StoreError
from leadferry.states import DeliveryState
from leadferry.store import settling
from leadferry.store.precedents import is_under_way
from leadferry.store.suspensions import hold

NOW = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)
NINE, TEN, TOMORROW = (
    datetime(2026, 1, 30, 14, tzinfo=UTC),
    datetime(2026, 1, 30, 15, tzinfo=UTC),
    datetime(2026, 1, 31, 14, tzinfo=UTC),
)
"""Nine and ten in New York today, and nine tomorrow."""

CLAIMED, SKIPPED = DeliveryState.CLAIMED, DeliveryState.SKIPPED


def daily(*at, **keys):
    schedule = {"at": list(at) or ["09:00"], **keys.pop("schedule", {})}
    return make_batch(timezone="America/New_York", schedule=schedule, **keys)


def skip_next(database, batch=None, *, now=NOW, reason="their importer is down", actor="dana"):
    found = leave_out_next(database, batch or daily(), now=now, actor=actor, reason=reason)
    return found.departure.utc, found.is_new


def keep(database, batch=None, *, now=NOW):
    return keep_next(database, batch or daily(), now=now, actor="luis", reason="it is up again")


def asked(departs_at, run_id=None, **keys):
    return Trigger(run_id=run_id or f"scheduled__{departs_at}", departs_at=departs_at, **keys)


def run(database, departs_at, batch=None, **keys):
    """A run's claim, as the timetable or a person starts it."""
    return claim_leads(database, batch or daily(), asked(departs_at, **keys))


@pytest.mark.req("R050")
def test_the_departure_that_is_named_is_left_out_and_the_one_after_takes_the_leads(database):
    leads = add_leads(database, 3)
    assert skip_next(database) == (NINE, True)
    first = run(database, NINE)
    told = "left out on request of dana: their importer is down (the departure of Fri 2026-01-30 09:00 EST (14:00 UTC))"
    assert (first.state, first.reason, first.on_request) == (SKIPPED, told, True)
    assert waiting(database) == leads
    second = run(database, TOMORROW)
    assert (second.state, second.included) == (CLAIMED, 3)
    assert rows(database, "SELECT actor, action, object, detail FROM audit") == [
        (
            "dana",
            "schedule.skip_next",
            "batch acme",
            {"reason": "their importer is down", "departs_at": "2026-01-30T14:00:00+00:00"},
        )
    ]


@pytest.mark.req("R050")
def test_a_run_that_was_due_before_the_order_goes_although_it_claims_after_it(database):
    add_leads(database, 3)
    assert skip_next(database, now=NINE + timedelta(seconds=30)) == (TOMORROW, True)
    assert run(database, NINE).state is CLAIMED
    assert run(database, TOMORROW).on_request
    assert not run(database, TOMORROW + timedelta(days=1)).on_request


@pytest.mark.req("R050", "R044")
def test_a_departure_whose_leads_are_taken_ahead_of_it_cannot_be_left_out_any_more(database):
    """It would go, and the one after it would be left out instead."""
    add_leads(database, 3)
    ahead = daily(schedule={"generate_before": "30m"})
    assert run(database, NINE, ahead).state is CLAIMED
    with pytest.raises(
        StoreError, match=r"Fri 2026-01-30 09:00 EST \(14:00 UTC\) cannot be left out any more"
    ) as refused:
        skip_next(database, ahead, now=NINE - timedelta(minutes=10))
    assert "leadferry hold acme" in str(refused.value)
    assert "Sat 2026-01-31 09:00 EST (14:00 UTC)" in str(refused.value)
    assert rows(database, "SELECT count(*) FROM skip_order") == [(0,)]
    assert rows(database, "SELECT count(*) FROM audit") == [(0,)]
    add_leads(database)
    assert run(database, TOMORROW, ahead).state is CLAIMED


@pytest.mark.req("R050", "R044")
def test_what_is_said_to_stop_a_departure_that_is_built_already_stops_it(ferry):
    leads = add_leads(ferry.database, 3)
    claimed = run(ferry.database, NINE, daily(schedule={"generate_before": "30m"}))
    ferry.render(claimed)
    hold(ferry.database, scope="batch", name="acme", reason="their importer is down", actor="dana")
    assert "on hold by dana" in str(ferry.try_to_deliver(claimed, "drop"))
    assert ferry.settle(claimed).state is DeliveryState.FAILED
    assert waiting(ferry.database) == leads


@pytest.mark.req("R050", "R044")
def test_ahead_of_a_departure_that_has_not_claimed_it_is_still_left_out(database):
    add_leads(database, 3)
    ahead = daily(schedule={"generate_before": "30m"})
    assert skip_next(database, ahead, now=NINE - timedelta(minutes=10)) == (NINE, True)
    assert run(database, NINE, ahead).on_request
    assert skip_next(database, ahead, now=NINE - timedelta(minutes=5)) == (NINE, False)
    kept = keep(database, ahead, now=NINE - timedelta(minutes=5))
    assert (kept.withdrawn, kept.too_late, kept.departure.utc) == (False, NINE, TOMORROW)


@pytest.mark.req("R050")
def test_a_departure_that_found_nothing_ahead_of_its_time_is_over_and_the_next_one_is_named(database):
    ahead = daily(schedule={"generate_before": "30m"})
    assert run(database, NINE, ahead).state is SKIPPED
    assert skip_next(database, ahead, now=NINE - timedelta(minutes=10)) == (TOMORROW, True)


@pytest.mark.req("R050")
def test_an_order_whose_departure_never_came_about_leaves_no_later_one_out(database):
    """The DAG was paused, or one run stands for all that were missed."""
    add_leads(database, 3)
    skip_next(database)
    assert run(database, TOMORROW).state is CLAIMED
    late = TOMORROW + timedelta(hours=1)
    assert not keep(database, now=late).withdrawn
    assert skip_next(database, now=late) == (TOMORROW + timedelta(days=1), True)


@pytest.mark.req("R050")
@pytest.mark.parametrize(
    ("edited", "left_out_at", "goes"),
    [
        (["10:00"], TEN, TOMORROW + timedelta(hours=1)),  # the time is no more: the first after it is meant
        (["08:00", "10:00"], TEN, NINE - timedelta(hours=1)),  # not the one before it
        (["09:00", "10:00"], NINE, TEN),  # it is still there
    ],
)
def test_when_the_schedule_is_edited_an_order_means_the_first_departure_from_its_instant_on(
    database, edited, left_out_at, goes
):
    add_leads(database, 3)
    skip_next(database)
    assert run(database, goes, daily(*edited)).state is CLAIMED
    assert run(database, left_out_at, daily(*edited)).on_request
    assert rows(database, "SELECT departs_at FROM skip_order") == [(left_out_at,)]


@pytest.mark.req("R050")
def test_an_order_for_a_time_that_is_no_more_stands_for_the_one_that_came_in_its_place(database):
    skip_next(database)
    assert skip_next(database, daily("10:00")) == (TEN, False)
    assert keep(database, daily("10:00")).departure.utc == TEN
    assert run(database, TEN, daily("10:00")).on_request is False


@pytest.mark.req("R050")
def test_a_retried_or_cleared_task_of_the_run_that_was_left_out_stays_left_out(database):
    add_leads(database, 3)
    skip_next(database)
    assert [run(database, NINE).state for _ in range(3)] == [SKIPPED] * 3
    assert run(database, TOMORROW).state is CLAIMED


@pytest.mark.req("R050")
def test_of_several_departures_that_are_due_at_once_the_one_that_is_meant_is_left_out(database):
    """After downtime, with `missed: each`."""
    add_leads(database, 3)
    skip_next(database)
    batch = daily(empty="header_only")
    due = [NINE + timedelta(days=number) for number in range(-2, 2)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: run(database, at, batch), due))
    assert [one.on_request for one in found] == [at == NINE for at in due]


@pytest.mark.req("R050")
def test_however_an_order_and_the_claim_meet_it_is_left_out_or_the_order_is_refused(database):
    ahead = daily(schedule={"generate_before": "30m"}, empty="header_only")

    def order(day):
        try:
            return skip_next(database, ahead, now=NINE + timedelta(days=day, minutes=-10))[1]
        except StoreError:
            return False

    with ThreadPoolExecutor(8) as pool:
        orders = [pool.submit(order, day) for day in range(8)]
        runs = [pool.submit(run, database, NINE + timedelta(days=day), ahead) for day in range(8)]
        ordered, left = [one.result() for one in orders], [one.result().on_request for one in runs]
    assert ordered == left


def test_a_run_by_hand_or_at_an_event_goes_and_leaves_the_order_for_the_timetable(database):
    skip_next(database)
    for actor in ("luis", "event"):
        add_leads(database, 3)
        assert run(database, NINE, run_id=f"by {actor}", actor=actor).state is CLAIMED
    assert run(database, NINE).on_request


def test_another_batch_is_not_left_out(database):
    add_leads(database, 3)
    skip_next(database, daily().model_copy(update={"id": "harbor"}))
    assert run(database, NINE).state is CLAIMED


def test_ordering_twice_leaves_out_one_departure(database):
    assert [skip_next(database) for _ in range(2)] == [(NINE, True), (NINE, False)]


def test_an_order_can_be_taken_back_once(database):
    add_leads(database, 3)
    skip_next(database)
    kept = [keep(database) for _ in range(2)]
    assert [(one.withdrawn, one.departure.utc) for one in kept] == [(True, NINE), (False, NINE)]
    assert rows(database, "SELECT actor, action, detail->>'departs_at' FROM audit ORDER BY id") == [
        ("dana", "schedule.skip_next", NINE.isoformat()),
        ("luis", "schedule.keep_next", NINE.isoformat()),
    ]
    assert run(database, NINE).state is CLAIMED


def test_an_order_is_taken_back_while_its_run_waits_for_something(database):
    add_leads(database, 3)
    skip_next(database)
    kept = keep(database, now=NINE + timedelta(minutes=5))
    assert (kept.withdrawn, kept.departure.utc) == (True, NINE)
    assert run(database, NINE).state is CLAIMED


def test_a_batch_that_must_not_be_empty_does_not_fail_when_it_is_left_out(database):
    skip_next(database)
    assert run(database, NINE, daily(empty="fail")).on_request


# --- a run that waits for something first

READY = {"ready": {"file": {"path": "/nowhere/{{ date }}.done"}}}


@pytest.mark.req("R050", "R046")
def test_a_run_that_is_to_be_left_out_does_not_wait(database):
    batch = daily(conditions=READY)
    assert left_out(database, batch, asked(NINE)) is None
    skip_next(database, batch)
    found = left_out(database, batch, asked(NINE))
    assert (found.on_request, found.state) == (True, SKIPPED)
    assert left_out(database, batch, asked(NINE)).reason == found.reason
    assert left_out(database, batch, asked(TOMORROW)) is None
    assert left_out(database, batch, asked(NINE, "by hand", actor="luis")) is None


@pytest.mark.req("R050", "R046")
def test_a_run_that_waited_in_vain_was_left_out_when_a_person_wanted_that_meanwhile(database):
    batch = daily(conditions=READY, schedule={"generate_before": "30m"})
    skip_next(database, batch, now=NINE - timedelta(minutes=10))
    noted = note_not_ready(database, batch, asked(NINE), error=None)
    assert (noted.on_request, noted.on_hold) == (True, False)
    assert noted.reason.startswith("left out on request of dana")
    assert rows(database, "SELECT state::text, reason FROM delivery") == [("skipped", noted.reason)]


@pytest.mark.req("R046")
def test_a_run_that_has_its_delivery_waits_for_nothing_when_it_is_cleared(database):
    """Somebody clears a whole run to send what is missing: its leads are taken, and the upstream file may be gone."""
    batch = daily(conditions=READY)
    add_leads(database, 2)
    assert not is_under_way(database, batch.id, run_id=asked(NINE).run_id)
    claimed = run(database, NINE, batch)
    assert is_under_way(database, batch.id, run_id=asked(NINE).run_id)
    assert not is_under_way(database, batch.id, run_id=asked(TOMORROW).run_id)
    settling.settle(database, claimed.delivery_id)
    assert not is_under_way(database, batch.id, run_id=asked(NINE).run_id)


# --- where nothing departs by a timetable


@pytest.mark.req("R050")
@pytest.mark.parametrize(
    ("batch", "told"),
    [
        (make_batch(), "only when it is triggered by hand"),
        (make_batch(schedule={"on_asset": "prices"}), "when the asset prices is updated"),
        (daily(enabled=False), "it is disabled"),
        (
            daily(schedule={"on": {"dates": ["2026-01-05"]}}),
            "the schedule is over since Mon 2026-01-05 09:00 EST (14:00 UTC)",
        ),
    ],
    ids=["manual", "event", "disabled", "over"],
)
def test_where_nothing_departs_by_a_timetable_there_is_nothing_to_leave_out(batch, told):
    assert told in why_none_departs(batch, now=NOW)


def test_a_timetable_that_also_departs_at_an_event_has_a_next_departure():
    assert why_none_departs(daily(schedule={"on_asset": "prices"}), now=NOW) is None
