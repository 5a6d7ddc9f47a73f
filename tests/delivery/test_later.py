"""When a delivery waits although it is ready: business hours, files built ahead, second chances at a time of day."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from batches import add_leads, folder, make_batch, rows, waiting
from leadferry.batch.model import Batch
from leadferry.delivery.extract import Trigger, lease, note_not_ready
from leadferry.delivery.extract import extract as claim_leads
from leadferry.delivery.later import another_time, not_yet
from leadferry.delivery.notices import tell_if_late
from leadferry.delivery.params import DeliverNow
from leadferry.errors import OutcomeUnknownError, QuotaError, TransferInterruptedError
from leadferry.store import settling

NEW_YORK = ZoneInfo("America/New_York")
CALENDAR = {
    "id": "us",
    "closed": {"2026-01-19": "Martin Luther King Jr. Day"},
    "half_days": {"2026-01-15": "13:00"},
    "hours": {"opens": "09:00", "closes": "17:00"},
    "blackouts": [{"starts": "2026-01-21T10:00", "ends": "2026-01-21T12:30", "reason": "maintenance"}],
}


def local(day, at):
    return datetime.fromisoformat(f"2026-01-{day:02}T{at}").replace(tzinfo=NEW_YORK)


def open_nine_to_five(**schedule):
    return make_batch(
        timezone="America/New_York",
        schedule={"at": ["10:00"], "calendar": CALENDAR, **schedule},
        retry={"attempts": 2},
    )


def claimed_at(database, batch, at, **params):
    add_leads(database, received_at=local(2, "00:00"))
    asked = Trigger(run_id=at.isoformat(), departs_at=at, actor="dana", params=DeliverNow(**params))
    return claim_leads(database, batch, asked).delivery_id


@pytest.mark.req("R042", "V66")
@pytest.mark.parametrize(
    ("moment", "until"),
    [
        (local(13, "22:00"), local(14, "09:00")),  # by night
        (local(13, "03:00"), local(13, "09:00")),  # in the early morning
        (local(16, "22:00"), local(20, "09:00")),  # before a weekend and a holiday
        (local(17, "12:00"), local(20, "09:00")),  # on a Saturday
        (local(15, "13:30"), local(16, "09:00")),  # in the afternoon of a half day
        (local(21, "11:00"), local(21, "12:30")),  # in a blackout
        (local(13, "09:00"), None),
        (local(13, "12:00"), None),
        (local(13, "17:10"), None),  # what departed at closing time is on its way
        (local(13, "17:16"), local(14, "09:00")),
    ],
)
def test_what_is_sent_by_hand_or_tried_again_waits_for_the_recipients_business_hours(database, moment, until):
    delivery = claimed_at(database, open_nine_to_five(), local(13, "08:59"))
    found = not_yet(database, delivery, now=moment.astimezone(UTC))
    assert (found.until if found else None) == until


@pytest.mark.req("R042")
def test_a_person_can_send_outside_business_hours_all_the_same(database):
    delivery = claimed_at(database, open_nine_to_five(), local(13, "22:00"), override_window=True)
    assert not_yet(database, delivery, now=local(13, "22:00")) is None


@pytest.mark.req("R042")
def test_the_leads_of_a_delivery_that_waits_over_a_long_weekend_stay_claimed(database):
    batch = open_nine_to_five()
    delivery = claimed_at(database, batch, local(16, "21:59"))
    began = stores_clock(database)
    assert not_yet(database, delivery, now=local(16, "22:00")).until == local(20, "09:00")
    kept = timedelta(hours=83) + lease(batch)  # Friday evening to Tuesday morning
    ((until,),) = rows(database, "SELECT lease_until FROM delivery WHERE id = :id", id=delivery)
    assert began + kept <= until <= stores_clock(database) + kept
    settling.recover_stale(database)
    assert waiting(database) == []


def stores_clock(database):
    ((now,),) = rows(database, "SELECT clock_timestamp()")
    return now


def reason_of(database, delivery):
    ((reason,),) = rows(database, "SELECT reason FROM delivery WHERE id = :id", id=delivery)
    return reason


@pytest.mark.req("R042")
def test_people_can_read_why_a_delivery_waits_and_only_as_long_as_it_does(database):
    delivery = claimed_at(database, open_nine_to_five(), local(13, "22:00"))
    not_yet(database, delivery, now=local(13, "22:00"))
    told = (
        "waits until Wed 2026-01-14 09:00 EST (14:00 UTC): Tue 22:00 is after 17:00, when business hours end"
    )
    assert reason_of(database, delivery) == told
    not_yet(database, delivery, now=local(14, "09:00"))
    assert reason_of(database, delivery) is None


def test_a_test_and_a_batch_without_business_hours_never_wait(database):
    by_hand = claimed_at(database, make_batch(), local(13, "22:00"))
    assert not_yet(database, by_hand, now=local(13, "22:00")) is None
    test = claimed_at(database, open_nine_to_five(), local(14, "22:00"), test=True)
    assert not_yet(database, test, now=local(14, "22:00")) is None


def test_a_batch_that_departs_on_closed_days_does_not_wait_for_an_open_one(database):
    batch = open_nine_to_five(on_closed_day="deliver")
    delivery = claimed_at(database, batch, local(17, "08:00"))
    assert not_yet(database, delivery, now=local(17, "10:00")) is None
    assert not_yet(database, delivery, now=local(17, "22:00")).until == local(18, "09:00")


@pytest.mark.req("R060")
def test_a_holiday_without_business_hours_holds_nobody_back_but_a_blackout_does(database):
    calendar = {**CALENDAR, "hours": None}
    batch = open_nine_to_five(calendar=calendar)
    delivery = claimed_at(database, batch, local(13, "08:59"))
    assert not_yet(database, delivery, now=local(19, "23:00")) is None
    later = not_yet(database, delivery, now=local(21, "10:00"))
    assert (later.until, later.reason) == (
        local(21, "12:30"),
        "Wed 10:00 is in a blackout (maintenance), postponed to its end",
    )


# --- files built ahead


@pytest.mark.req("R044")
def test_files_that_are_built_ahead_wait_for_their_departure_and_its_window_is_honest(database):
    departs_at = datetime.now(tz=UTC) + timedelta(minutes=20)
    batch = make_batch(
        schedule={"at": ["10:00"], "generate_before": "30m"}, select={"window": "since_previous"}
    )
    delivery = claimed_at(database, batch, departs_at)
    found = not_yet(database, delivery, now=departs_at - timedelta(minutes=10))
    assert (found.until, found.reason) == (departs_at, "it was built ahead of its departure")
    assert not_yet(database, delivery, now=departs_at) is None
    ((stored, window_to),) = rows(database, "SELECT departs_at, window_to FROM delivery")
    assert stored == departs_at
    assert window_to < departs_at - timedelta(minutes=15)


@pytest.mark.req("R044")
def test_files_that_were_not_ready_in_time_are_told_once(ferry, mail):
    batch = make_batch(
        schedule={"at": ["10:00"], "generate_before": "30m"}, notify={"failure": ["ops@example.com"]}
    )
    delivery = claimed_at(ferry.database, batch, local(13, "10:00"))
    tell_if_late(ferry.database, delivery, now=local(13, "10:00"))
    assert rows(ferry.database, "SELECT action FROM audit WHERE actor = 'leadferry'") == []
    for _ in range(2):
        tell_if_late(ferry.database, delivery, now=local(13, "10:07"))
    noted = rows(ferry.database, "SELECT action, object, detail FROM audit WHERE actor = 'leadferry'")
    assert noted == [
        ("delivery.built_late", f"delivery {delivery}", {"built": "7 minutes after its departure"})
    ]
    assert len(mail.inbox.messages()) == 1


def test_without_a_time_ahead_nothing_is_late(database):
    delivery = claimed_at(database, open_nine_to_five(), local(13, "10:00"))
    tell_if_late(database, delivery, now=local(13, "12:00"))
    assert rows(database, "SELECT action FROM audit WHERE actor = 'leadferry'") == []


# --- second chances

INTERRUPTED = TransferInterruptedError("The line was cut")


@pytest.mark.req("R059")
def test_after_the_last_failed_try_the_same_file_goes_once_more_at_the_time_that_the_batch_names(
    ferry, tmp_path
):
    inbox = tmp_path / "inbox"
    batch = make_batch(
        timezone="America/New_York", retry={"attempts": 1, "at": ["14:00"]}, destinations=[folder(inbox)]
    )
    add_leads(ferry.database, 2)
    claimed = ferry.rendered(batch)
    inbox.write_text("in the way")
    error = ferry.try_to_deliver(claimed, "drop")
    assert error is not None
    ask = (ferry.database, claimed.delivery_id, "drop", error)
    assert another_time(*ask, now=local(13, "09:10")).until == local(13, "14:00")
    ((sha256, before),) = rows(ferry.database, "SELECT sha256, archive_key FROM file")
    inbox.unlink()
    assert ferry.deliver(claimed, "drop") == 1
    assert str(ferry.settle(claimed).state) == "delivered"
    assert rows(ferry.database, "SELECT sha256, archive_key FROM file") == [(sha256, before)]
    assert [one[2] for one in ferry.attempts()] == ["failed", "confirmed"]


@pytest.mark.req("R059")
@pytest.mark.parametrize("error", [INTERRUPTED, QuotaError("No room")])
def test_each_time_of_day_is_one_chance(database, error):
    batch = make_batch(timezone="America/New_York", retry={"at": ["18:00", "14:00"]})
    ask = (database, claimed_at(database, batch, local(13, "09:00")), "drop", error)
    untils = [another_time(*ask, now=now) for now in (local(13, "15:00"), local(13, "18:01"))]
    assert [one.until for one in untils] == [local(13, "18:00"), local(14, "14:00")]
    assert another_time(*ask, now=local(14, "14:01")) is None
    assert rows(database, "SELECT destination, number, error_code FROM later_try ORDER BY number") == [
        ("drop", 1, error.code),
        ("drop", 2, error.code),
    ]


@pytest.mark.req("R059")
def test_there_is_no_second_chance_where_a_person_must_look_first_or_none_was_asked_for(database):
    chance = make_batch(retry={"at": ["14:00"]})
    unknown = OutcomeUnknownError("Cut after the end")
    first = claimed_at(database, chance, local(13, "09:00"))
    assert another_time(database, first, "drop", unknown, now=local(13, "10:00")) is None
    plain = claimed_at(database, make_batch(), local(14, "09:00"))
    assert another_time(database, plain, "drop", INTERRUPTED, now=local(14, "10:00")) is None


def test_a_destination_may_have_times_of_its_own(database):
    batch = make_batch(
        retry={"at": ["14:00"]}, destinations=[folder("/nowhere", retry={"at": ["16:00"], "attempts": 1})]
    )
    assert Batch.model_validate(batch.model_dump(mode="json")) == batch
    delivery = claimed_at(database, batch, local(13, "09:00"))
    now = datetime(2026, 1, 13, 10, tzinfo=UTC)
    found = another_time(database, delivery, "drop", INTERRUPTED, now=now)
    assert found.until == datetime(2026, 1, 13, 16, tzinfo=UTC)


@pytest.mark.req("R059")
def test_a_destination_that_is_served_meanwhile_takes_neither_time_nor_reason_from_one_that_waits(
    ferry, tmp_path
):
    """Of two destinations one waits until tomorrow, the other is sent to now, and then waits for a sooner time."""
    inbox = tmp_path / "inbox"
    batch = make_batch(
        timezone="America/New_York",
        retry={"attempts": 1, "at": ["09:00"]},
        destinations=[
            folder("/nowhere", id="waits"),
            folder(inbox, id="served"),
            folder("/nowhere", id="sooner", retry={"at": ["14:00"]}),
        ],
    )
    add_leads(ferry.database, 2)
    claimed = ferry.rendered(batch)
    at_once = datetime(2026, 2, 3, 10, tzinfo=NEW_YORK)
    ask = (ferry.database, claimed.delivery_id)
    needed = stores_clock(ferry.database) + timedelta(hours=23)
    waits = another_time(*ask, "waits", INTERRUPTED, now=at_once)
    assert waits.until == datetime(2026, 2, 4, 9, tzinfo=NEW_YORK)

    def stands():
        return rows(ferry.database, "SELECT lease_until > :needed, reason FROM delivery", needed=needed)

    kept = [(True, f"waits until {waits}")]
    assert stands() == kept
    assert not_yet(*ask, now=at_once, destination_id="served") is None
    assert stands() == kept
    assert ferry.deliver(claimed, "served") == 1
    assert stands() == kept
    sooner = another_time(*ask, "sooner", INTERRUPTED, now=at_once)
    assert stands() == [(True, f"waits until {sooner}")]
    assert not_yet(*ask, now=sooner.until, destination_id="sooner") is None
    assert stands() == kept
    assert not_yet(*ask, now=waits.until, destination_id="waits") is None
    assert stands() == [(True, None)]


@pytest.mark.req("R042")
def test_a_task_that_has_nothing_to_send_any_more_does_not_wait_for_business_hours(ferry, tmp_path):
    """A worker that died after the file had arrived, or a task that somebody clears in the evening."""
    batch = make_batch(
        timezone="America/New_York",
        schedule={"at": ["10:00"], "calendar": CALENDAR},
        destinations=[folder(tmp_path / "inbox"), folder("/nowhere", id="other")],
    )
    add_leads(ferry.database, 2)
    claimed = ferry.rendered(batch)
    ferry.deliver(claimed, "drop")
    ask = (ferry.database, claimed.delivery_id)
    assert not_yet(*ask, now=local(30, "22:00"), destination_id="drop") is None
    assert rows(ferry.database, "SELECT reason FROM delivery") == [(None,)]
    assert not_yet(*ask, now=local(30, "22:00"), destination_id="other").until > local(31, "22:00")


@pytest.mark.req("R042", "R059")
def test_what_is_missing_of_a_partial_delivery_is_told_again_after_it_waited_for_business_hours(
    ferry, tmp_path
):
    batch = make_batch(
        timezone="America/New_York",
        schedule={"at": ["10:00"], "calendar": CALENDAR},
        destinations=[folder(tmp_path / "inbox"), folder("/proc/nowhere", id="other")],
    )
    add_leads(ferry.database, 2)
    claimed = ferry.rendered(batch)
    ferry.deliver(claimed, "drop")
    assert ferry.try_to_deliver(claimed, "other") is not None
    partial = ferry.settle(claimed)
    assert (str(partial.state), partial.reason.split(":")[0]) == ("partial", "other")
    ask = (ferry.database, claimed.delivery_id)
    night, morning = local(30, "22:00"), local(30, "22:00") + timedelta(hours=59)
    assert not_yet(*ask, now=night, destination_id="other").until == morning
    assert not_yet(*ask, now=morning, destination_id="other") is None
    assert ferry.try_to_deliver(claimed, "other") is not None
    assert ferry.settle(claimed) == partial


# --- what did not come


@pytest.mark.req("R046")
def test_a_run_that_waited_in_vain_takes_nothing_and_says_so_in_the_ledger(ferry):
    batch = make_batch(conditions={"ready": {"asset": "prices_loaded"}})
    leads = add_leads(ferry.database, 2)
    asked = Trigger(run_id="scheduled__1", departs_at=local(13, "09:00"))
    noted = note_not_ready(ferry.database, batch, asked, error="OperationalError")
    assert noted.reason == (
        "not ready: waited in vain for an update of the asset prices_loaded"
        " (the last look ended in OperationalError)"
    )
    assert rows(ferry.database, "SELECT state::text, reason FROM delivery") == [("skipped", noted.reason)]
    assert waiting(ferry.database) == leads
