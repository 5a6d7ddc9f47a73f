"""What is wrong is noticed by comparing batch files with the store, once per incident, and told to be over once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from batches import add_leads, execute, rows, scalars
from leadferry.batch.model import Batch, Retention, Watch
from leadferry.delivery.params import DeliverNow
from leadferry.store.incidents import Kind
from leadferry.store.waiting import queues

from .conftest import DAY, MONDAY

NINE = timedelta(hours=9)
LATE = timedelta(hours=9, minutes=31)


def kinds(watched):
    return [(one.batch, str(one.kind)) for one in watched.open]


# --- departures that did not happen ------------------------------------------------------------------------------


@pytest.mark.req("F44", "C03")
def test_a_departure_of_which_nothing_is_in_the_store_is_missing_after_the_deadline_and_not_before(port):
    port.batch()
    port.watch(MONDAY)

    in_time, at_the_deadline = port.watch(MONDAY + NINE), port.watch(MONDAY + NINE + timedelta(minutes=30))

    assert kinds(in_time) == []
    assert kinds(at_the_deadline) == [("acme", "missing")]
    assert at_the_deadline.open[0].since == MONDAY + NINE
    assert "Mon 2026-02-02 09:00 UTC" in at_the_deadline.open[0].detail
    assert "batch_acme" in at_the_deadline.open[0].detail


def test_a_departure_that_happened_is_not_missing_even_when_there_was_nothing_to_deliver(port):
    port.batch()
    port.watch(MONDAY)
    port.extract(at=MONDAY + NINE)

    assert scalars(port.database, "SELECT state::text FROM delivery") == ["skipped"]
    assert kinds(port.watch(MONDAY + LATE)) == []


@pytest.mark.req("F44")
def test_one_incident_lasts_over_many_looks_and_missed_departures_until_one_happens(port):
    port.batch()
    looks = [port.watch(MONDAY + hours * timedelta(hours=5)) for hours in range(16)]
    port.extract(at=MONDAY + 3 * DAY + NINE)

    after = port.watch(MONDAY + 3 * DAY + LATE)

    assert sum(len(one.begun) for one in looks) == 1
    assert [len(one.ended) for one in looks if one.ended] == []
    assert [one.kind for one in after.ended] == [Kind.MISSING]
    assert after.open == []
    assert port.watch(MONDAY + 3 * DAY + LATE).ended == []


def test_a_run_by_hand_after_the_missed_departure_ends_it_and_a_test_or_an_earlier_run_does_not(port):
    add_leads(port.database, 2)
    port.batch()
    port.watch(MONDAY)
    port.extract(at=MONDAY + timedelta(hours=8))
    port.extract(at=MONDAY + timedelta(hours=10), params=DeliverNow(test=True))

    assert ("acme", "missing") in kinds(port.watch(MONDAY + timedelta(hours=11)))

    port.extract(at=MONDAY + timedelta(hours=10, minutes=1), actor="kim")
    assert ("acme", "missing") not in kinds(port.watch(MONDAY + timedelta(hours=11)))


@pytest.mark.parametrize(
    "keys",
    [{"enabled": False}, {"schedule": "manual"}, {"deadline": None}],
    ids=["disabled", "by hand", "no deadline"],
)
def test_what_need_not_depart_is_not_missing(port, keys):
    port.batch(**keys)
    port.watch(MONDAY)

    assert kinds(port.watch(MONDAY + DAY)) == []


def test_what_was_due_before_a_batch_was_added_or_its_schedule_changed_is_not_missing(port):
    port.batch()
    port.watch(MONDAY + timedelta(hours=12))
    port.batch(schedule={"at": ["11:00"]})

    assert kinds(port.watch(MONDAY + timedelta(hours=13))) == []
    assert kinds(port.watch(MONDAY + DAY + timedelta(hours=11, minutes=30))) == [("acme", "missing")]


def test_a_changed_schedule_does_not_end_what_was_missing_before(port):
    port.batch()
    port.watch(MONDAY)
    port.watch(MONDAY + LATE)
    port.batch(schedule={"at": ["11:00"]})

    still = port.watch(MONDAY + timedelta(hours=10))
    port.extract(at=MONDAY + timedelta(hours=10, minutes=30))

    assert (kinds(still), still.begun, still.ended) == ([("acme", "missing")], [], [])
    assert kinds(port.watch(MONDAY + timedelta(hours=10, minutes=31))) == []


def test_the_departure_is_told_in_the_batchs_own_time(port):
    port.batch(schedule={"at": ["09:00"], "timezone": "America/New_York"})
    port.watch(MONDAY)

    assert "Mon 2026-02-02 09:00 EST (14:00 UTC)" in port.watch(MONDAY + timedelta(hours=15)).open[0].detail


def test_closed_days_are_no_missed_departures(port):
    port.batch(schedule={"at": ["09:00"], "on": "weekdays"})
    port.watch(MONDAY - 2 * DAY)

    assert kinds(port.watch(MONDAY - DAY + timedelta(hours=20))) == []


@pytest.mark.req("F44", "C03")
def test_a_delivery_that_has_not_arrived_by_the_deadline_is_late_until_it_is_settled(port):
    add_leads(port.database, 2)
    port.batch()
    port.watch(MONDAY)
    delivery_id = port.rendered(at=MONDAY + NINE)

    assert kinds(port.watch(MONDAY + NINE)) == []
    late = port.watch(MONDAY + LATE)
    assert kinds(late) == [("acme", "late")]
    assert f"Delivery {delivery_id} " in late.open[0].detail

    execute(port.database, "UPDATE delivery SET state = 'failed' WHERE id = :id", id=delivery_id)
    assert [one.kind for one in port.watch(MONDAY + LATE).ended] == [Kind.LATE]


@pytest.mark.req("F44", "R042")
def test_what_is_late_because_it_waits_and_what_still_waits_to_depart_is_told_with_that(port):
    add_leads(port.database, 2)
    port.batch()
    port.batch("waits", conditions={"ready": {"file": {"path": "/nowhere/ready.flag"}}})
    port.watch(MONDAY)
    delivery_id = port.rendered(at=MONDAY + NINE)
    held = "waits until Tue 2026-02-03 09:00 UTC: Mon 09:00 is after 08:00, when business hours end"
    execute(port.database, "UPDATE delivery SET reason = :held WHERE id = :id", held=held, id=delivery_id)

    told = {one.kind: one.detail for one in port.watch(MONDAY + LATE).open}
    assert f"has not arrived within 30 minutes; it {held}. See its run" in told[Kind.LATE]
    assert "is stuck in extract or still waits for the file /nowhere/ready.flag, and" in told[Kind.MISSING]


@pytest.mark.req("F44")
def test_a_batch_file_that_cannot_be_loaded_is_an_incident_of_that_batch_alone(port):
    port.batch("fine")
    port.batch("torn").write_text("name: [\n")

    watched = port.watch(MONDAY)
    assert kinds(watched) == [("torn", "broken")]
    assert "config/batches/torn.yaml:" in watched.open[0].detail

    port.batch("torn")
    assert [one.batch for one in port.watch(MONDAY + NINE).ended] == ["torn"]


def test_a_batch_whose_file_is_deleted_is_no_longer_missing(port):
    file = port.batch()
    port.watch(MONDAY)
    port.watch(MONDAY + LATE)
    file.unlink()

    assert kinds(port.watch(MONDAY + DAY)) == []


# --- queues --------------------------------------------------------------------------------------------------------


@pytest.mark.req("R168")
def test_a_queue_that_is_too_long_is_told_once_and_once_that_it_is_well_again(port):
    port.batch(schedule="manual", watch={"max_pending": 3})
    add_leads(port.database, 1)
    port.extract(params=DeliverNow(test=True))
    add_leads(port.database, 2)

    enough = port.watch(MONDAY)
    add_leads(port.database, 1)
    too_many, again = port.watch(MONDAY), port.watch(MONDAY + NINE)
    port.carry()
    well = port.watch(MONDAY + DAY)

    assert kinds(enough) == []
    assert [str(one.kind) for one in too_many.begun] == ["depth"]
    assert "4 leads wait for batch acme" in too_many.begun[0].detail
    assert (again.begun, kinds(again)) == ([], [("acme", "depth")])
    assert ([str(one.kind) for one in well.ended], well.open) == (["depth"], [])


@pytest.mark.req("R168")
def test_a_lead_that_waits_for_too_long_is_told_since_when_it_did(port):
    port.batch(schedule="manual", watch={"max_age": "2d"})
    add_leads(port.database, 1, received_at=MONDAY)
    port.extract(params=DeliverNow(test=True))

    assert kinds(port.watch(MONDAY + 2 * DAY)) == []
    late = port.watch(MONDAY + 2 * DAY + timedelta(seconds=1))
    assert [(str(one.kind), one.since) for one in late.begun] == [("age", MONDAY + 2 * DAY)]


def test_leads_that_no_queue_was_offered_yet_count_for_every_batch_that_listens(port):
    for one in ("acme", "bolt"):
        port.batch(one, schedule="manual")
        port.extract(one)
    add_leads(port.database, 3)
    add_leads(port.database, 2, flow="home")

    assert {batch: one.leads for batch, one in queues(port.database).items()} == {
        "acme": 3,
        "bolt": 3,
    }
    assert rows(port.database, "SELECT count(*) FROM arrival") == [(5,)]


# --- deliveries in doubt -------------------------------------------------------------------------------------------


def test_a_delivery_held_for_longer_than_the_batchs_patience_is_told_with_the_command(port):
    add_leads(port.database, 2)
    port.batch(schedule="manual", watch={"held": "2h"})
    delivery_id = port.rendered()
    execute(port.database, "UPDATE dispatch SET state = 'sending'")
    execute(port.database, "UPDATE dispatch SET state = 'unknown'")
    execute(
        port.database,
        "UPDATE delivery SET state = 'held', settled_at = :at WHERE id = :id",
        at=MONDAY,
        id=delivery_id,
    )
    (dispatch,) = scalars(port.database, "SELECT id FROM dispatch")

    assert kinds(port.watch(MONDAY + timedelta(hours=1))) == []
    watched = port.watch(MONDAY + timedelta(hours=2))
    assert kinds(watched) == [("acme", "held")]
    assert "`leadferry dispatch confirm|fail ID --reason TEXT`" in watched.open[0].detail
    assert watched.open[0].detail.endswith(f"the ids: {dispatch}.")


def test_an_abandoned_delivery_names_the_tasks_to_clear(port):
    add_leads(port.database, 2)
    port.batch(schedule="manual", deadline=None)
    delivery_id = port.rendered()
    execute(port.database, "UPDATE dispatch SET state = 'sending'")
    execute(port.database, "UPDATE delivery SET lease_until = :at WHERE id = :id", at=MONDAY, id=delivery_id)

    assert port.watch(MONDAY + timedelta(minutes=30)).open == []
    (doubt,) = port.watch(MONDAY + timedelta(minutes=31)).open

    assert (doubt.kind, doubt.since) == (Kind.DOUBT, MONDAY)
    assert "clear deliver.drop of run" in doubt.detail
    assert f"`leadferry dispatch list {delivery_id}`" in doubt.detail


# --- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_that_is_not_there_is_told_before_a_delivery_needs_it(port):
    port.batch(
        schedule="manual",
        files=[
            {"name": "a.csv", "format": {"type": "csv"}, "encrypt": {"type": "pgp", "recipients": ["buyer"]}}
        ],
    )

    (incident,) = port.watch(MONDAY).open

    assert incident.kind is Kind.KEY_UNUSABLE
    assert "config/keys/buyer.asc" in incident.detail


@pytest.mark.parametrize(("keys", "told"), [({"keys": "20d"}, 1), ({"keys": "5d"}, 0)])
def test_a_key_is_told_days_before_it_expires(port, keys, told):
    from pysequoia import Tsk

    now = datetime.now(tz=UTC)
    key = Tsk.generate(user_id="Buyer <buyer@example.com>")
    expiring = key.extract_certificate().set_expiration(now + 10 * DAY, key.certifier())
    keyfile = port.config / "keys" / "buyer.asc"
    keyfile.parent.mkdir()
    keyfile.write_text(str(expiring))
    port.batch(
        schedule="manual",
        watch=keys,
        files=[
            {"name": "a.csv", "format": {"type": "csv"}, "encrypt": {"type": "pgp", "recipients": ["buyer"]}}
        ],
    )

    assert [str(one.kind) for one in port.watch(now).open] == ["key_expires"] * told


# --- small things --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        Watch(max_pending=10_000, max_age=2 * DAY, held=None),
        Retention.model_validate({"files": "90d", "then": {"move": "s3://cold/leads", "keep": "400d"}}),
        Retention.model_validate({"files": "400d", "then": "delete"}),
    ],
)
def test_settings_survive_being_frozen(model):
    assert type(model).model_validate(model.model_dump(mode="json")) == model


def test_incidents_are_never_deleted(port):
    from leadferry.errors import StoreError

    port.batch("torn").write_text("name: [\n")
    port.watch(MONDAY)

    with pytest.raises(StoreError, match="rows of incident are never deleted"):
        execute(port.database, "DELETE FROM incident")


def test_a_moment_in_another_zone_is_the_same_moment(port):
    port.batch()
    port.watch(MONDAY)

    there = (MONDAY + LATE).astimezone(timezone(timedelta(hours=-5)))
    assert kinds(port.watch(there)) == [("acme", "missing")]


def test_the_model_of_a_batch_knows_its_deadline(port):
    from leadferry.batch.load import load_batch

    port.batch(deadline="45m")
    batch = load_batch("acme", config=port.config)

    assert batch.deadline == timedelta(minutes=45)
    assert Batch.model_validate(batch.model_dump(mode="json")) == batch


# --- schedules that are over -------------------------------------------------------------------------------------

LAST = {"at": ["09:00"], "on": {"dates": ["2026-02-02"]}}


def test_leads_that_wait_for_a_schedule_that_is_over_are_told_once_its_last_departure_had_its_time(port):
    port.batch(schedule=LAST)
    port.watch(MONDAY)
    port.extract(at=MONDAY + NINE)
    add_leads(port.database, 2, received_at=MONDAY + timedelta(hours=10))

    before, after = port.watch(MONDAY + NINE + timedelta(minutes=29)), port.watch(MONDAY + DAY)

    assert kinds(before) == []
    assert kinds(after) == [("acme", "over")]
    assert after.open[0].since == MONDAY + timedelta(hours=9, minutes=59)
    assert after.open[0].detail.startswith(
        "2 leads wait for batch acme, and the schedule is over since Mon 2026-02-02 09:00 UTC"
    )
    assert "batch_acme" in after.open[0].detail


def test_it_is_over_when_they_went_or_the_schedule_goes_on(port):
    for mend in (
        lambda: port.extract(at=MONDAY + 2 * DAY, actor="kim"),
        lambda: port.batch(schedule={"at": ["09:00"]}),
    ):
        port.batch(schedule=LAST)
        add_leads(port.database, 2, received_at=MONDAY)
        port.watch(MONDAY)
        port.extract(at=MONDAY + NINE)
        add_leads(port.database, 2, received_at=MONDAY + timedelta(hours=10))
        assert ("acme", "over") in kinds(port.watch(MONDAY + DAY))
        mend()
        assert ("acme", "over") not in kinds(port.watch(MONDAY + 2 * DAY + timedelta(hours=1)))


@pytest.mark.parametrize(
    "keys",
    [
        {"enabled": False},
        {"schedule": {**LAST, "on_asset": "prices"}},
        {"conditions": {"depart_early": {"leads": 5}}},
        {"flows": ["home"]},
    ],
    ids=["disabled", "at an event", "early", "nothing waits"],
)
def test_what_need_not_depart_or_still_does_is_not_over(port, keys):
    port.batch(**{"schedule": LAST, **keys})
    port.watch(MONDAY)
    add_leads(port.database, 2, received_at=MONDAY + timedelta(hours=10))
    assert ("acme", "over") not in kinds(port.watch(MONDAY + DAY))
