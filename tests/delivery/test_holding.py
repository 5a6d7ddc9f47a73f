"""What is left alone: a refused login, failures in a row, a hold by a person; leads wait, nothing is tried, it is told once."""

import pytest

from batches import add_leads, execute, folder, make_batch, rows, scalars, waiting
from ferry import SFTP, email, messages
from leadferry.delivery.notices import tell_outcome, tell_unsettled
from leadferry.delivery.params import DeliverNow
from leadferry.errors import (
    AuthenticationError,
    DestinationSuspendedError,
    RenderError,
    StoreError,
    StoreUnavailableError,
)
from leadferry.states import DeliveryState
from leadferry.store import history, suspensions

BUYER = "leads@acme.example"
OPS = "ops@example.com"
TOLD = {"notify": {"failure": [OPS]}}


@pytest.fixture
def inbox(tmp_path):
    return tmp_path / "inbox"


@pytest.fixture
def locked_sftp(buyer_sftp, connection):
    """The buyer's server with a password that it does not know any more."""
    announced = buyer_sftp.announcement()["connection"]
    connection("buyer_sftp", **{**announced, "password": "changed by the buyer"})
    return buyer_sftp


def blocked(inbox):
    if not inbox.exists():
        inbox.write_text("in the way")
    return folder(inbox)


def fail(ferry, batch, *runs):
    return [ferry.carry(batch, run).state for run in runs]


def hold(ferry, **keys):
    what = {"scope": "batch", "name": "acme", "reason": "contract under review", "actor": "kim", **keys}
    suspensions.hold(ferry.database, **what)


def resume(ferry, **keys):
    what = {"scope": "batch", "name": "acme", "reason": "mended", "actor": "kim", **keys}
    return suspensions.resume(ferry.database, **what)


# --- a refused login


@pytest.mark.req("F36")
def test_a_refused_login_is_tried_exactly_once_and_suspends_the_destination(ferry, locked_sftp):
    leads = add_leads(ferry.database, 3)
    files = [{"id": kind, "name": f"leads.{kind}", "format": {"type": kind}} for kind in ("csv", "json")]
    batch = make_batch(destinations=[SFTP], files=files)
    claimed = ferry.rendered(batch)
    assert isinstance(ferry.try_to_deliver(claimed, "sftp"), AuthenticationError)
    # Airflow would not, but somebody may clear the task: nothing is tried any more.
    assert isinstance(ferry.try_to_deliver(claimed, "sftp"), DestinationSuspendedError)
    assert ferry.settle(claimed).state is DeliveryState.FAILED
    assert ferry.attempts() == [("sftp", 1, "failed", "auth")]
    assert waiting(ferry.database) == leads
    again = ferry.extract(batch, "run-2")
    assert (again.state, again.on_hold) == (DeliveryState.SKIPPED, True)
    assert "destination 'sftp' is suspended" in again.reason
    assert waiting(ferry.database) == leads


@pytest.mark.req("F36")
def test_after_it_is_resumed_the_waiting_leads_go(ferry, locked_sftp, connect):
    leads = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[SFTP])
    assert ferry.carry(batch).state is DeliveryState.FAILED
    connect("buyer_sftp", locked_sftp)
    assert ferry.extract(batch, "run-2").on_hold
    assert resume(ferry, destination="sftp") == 1
    assert ferry.carry(batch, "run-3").state is DeliveryState.DELIVERED
    assert len(leads) == 3
    assert waiting(ferry.database) == []


def test_with_a_fallback_deliveries_go_on_while_the_destination_is_suspended(ferry, locked_sftp, mail):
    batch = make_batch(destinations=[SFTP, email(BUYER, fallback_for="sftp")])
    for run in ("run-1", "run-2"):
        add_leads(ferry.database)
        assert ferry.carry(batch, run).state is DeliveryState.DELIVERED
    assert len(messages(mail)) == 2
    assert [one for one in ferry.attempts() if one[0] == "sftp"] == [("sftp", 1, "failed", "auth")]


def test_a_test_finds_out_whether_a_suspended_destination_works_again(ferry, locked_sftp, connect):
    add_leads(ferry.database)
    batch = make_batch(destinations=[SFTP])
    ferry.carry(batch)
    connect("buyer_sftp", locked_sftp)
    claimed = ferry.extract(batch, "run-2", params=DeliverNow(test=True))
    ferry.render(claimed)
    assert ferry.deliver(claimed, "sftp") == 1


def test_a_login_refused_in_a_test_suspends_nothing(ferry, locked_sftp):
    claimed = ferry.extract(make_batch(destinations=[SFTP]), params=DeliverNow(test=True))
    ferry.render(claimed)
    assert isinstance(ferry.try_to_deliver(claimed, "sftp"), AuthenticationError)
    assert suspensions.active(ferry.database) == []


# --- failures in a row


@pytest.mark.req("F36")
def test_after_so_many_failures_in_a_row_the_destination_is_left_alone(ferry, inbox):
    leads = add_leads(ferry.database, 2)
    batch = make_batch(destinations=[blocked(inbox)], suspend={"after_failures": 2, "retry_after": None})
    assert fail(ferry, batch, "run-1") == ["failed"]
    assert suspensions.active(ferry.database) == []
    assert fail(ferry, batch, "run-2") == ["failed"]
    (one,) = suspensions.active(ferry.database)
    assert (one.destination, one.cause, one.error_code, one.until) == (
        "drop",
        "failures",
        "no_such_path",
        None,
    )
    assert ferry.extract(batch, "run-3").on_hold
    assert waiting(ferry.database) == leads


def test_a_delivery_that_arrives_ends_the_row(ferry, inbox):
    add_leads(ferry.database)
    batch = make_batch(destinations=[blocked(inbox)], suspend={"after_failures": 2})
    fail(ferry, batch, "run-1")
    inbox.unlink()
    assert fail(ferry, batch, "run-2") == ["delivered"]
    add_leads(ferry.database)
    inbox.rename(inbox.with_name("elsewhere"))
    blocked(inbox)
    assert fail(ferry, batch, "run-3") == ["failed"]
    assert suspensions.active(ferry.database) == []


def test_when_its_time_is_over_it_is_tried_again_and_one_more_failure_suspends_it_anew(ferry, inbox):
    add_leads(ferry.database)
    batch = make_batch(destinations=[blocked(inbox)], suspend={"after_failures": 2, "retry_after": "1h"})
    fail(ferry, batch, "run-1", "run-2")
    execute(ferry.database, "UPDATE suspension SET until = now() - interval '1 second'")
    assert fail(ferry, batch, "run-3") == ["failed"]
    assert len(suspensions.active(ferry.database)) == 1
    assert scalars(ferry.database, "SELECT resumed_by FROM suspension ORDER BY id") == ["retry_after", None]


def test_failures_before_it_was_resumed_are_forgiven(ferry, inbox):
    add_leads(ferry.database)
    batch = make_batch(destinations=[blocked(inbox)], suspend={"after_failures": 2, "retry_after": None})
    fail(ferry, batch, "run-1", "run-2")
    resume(ferry)
    assert fail(ferry, batch, "run-3") == ["failed"]
    assert suspensions.active(ferry.database) == []


def test_without_a_limit_it_is_tried_for_ever(ferry, inbox):
    add_leads(ferry.database)
    batch = make_batch(destinations=[blocked(inbox)], suspend={"after_failures": None})
    assert fail(ferry, batch, *(f"run-{n}" for n in range(7))) == ["failed"] * 7
    assert suspensions.active(ferry.database) == []


# --- held by a person


@pytest.mark.req("F36")
@pytest.mark.parametrize(
    "place",
    [{"scope": "recipient", "name": "buyer"}, {}, {"destination": "drop"}],
    ids=["recipient", "batch", "destination"],
)
def test_while_it_is_on_hold_leads_wait_and_nothing_is_sent(ferry, inbox, place):
    leads = add_leads(ferry.database, 2)
    batch = make_batch(destinations=[folder(inbox)], empty="fail")
    under_way = ferry.rendered(batch)
    hold(ferry, **place)
    assert isinstance(ferry.try_to_deliver(under_way, "drop"), DestinationSuspendedError)
    settled = ferry.settle(under_way)
    assert (settled.state, settled.reason) == (DeliveryState.FAILED, "drop: suspended")
    claimed = ferry.extract(batch, "run-2")
    assert (claimed.on_hold, "on hold by kim" in claimed.reason) == (True, True)
    assert ferry.extract(batch, "run-3", params=DeliverNow(test=True)).on_hold
    assert waiting(ferry.database) == leads
    assert not inbox.exists()
    resume(ferry, **place)
    assert ferry.carry(batch, "run-4").state is DeliveryState.DELIVERED


def test_a_hold_concerns_nobody_else(ferry, inbox):
    add_leads(ferry.database)
    hold(ferry, name="another")
    hold(ferry, scope="recipient", name="acme")
    assert ferry.carry(make_batch(destinations=[folder(inbox)])).state is DeliveryState.DELIVERED


@pytest.mark.parametrize(
    ("success", "held", "waits"),
    [("all", "two", True), ("primary", "two", False), ("primary", "one", True), ("any", "one", False)],
)
def test_only_a_destination_that_the_policy_asks_for_keeps_the_batch_waiting(
    ferry, tmp_path, success, held, waits
):
    add_leads(ferry.database)
    both = [folder(tmp_path / name, id=name) for name in ("one", "two")]
    hold(ferry, destination=held)
    assert ferry.extract(make_batch(destinations=both, success=success)).on_hold is waits


@pytest.mark.req("F36")
def test_who_held_and_resumed_it_and_why_is_audited(ferry):
    hold(ferry, destination="drop")
    resume(ferry, destination="drop")
    assert rows(ferry.database, "SELECT actor, action, object, detail->>'reason' FROM audit ORDER BY id") == [
        ("kim", "hold", "batch acme, destination drop", "contract under review"),
        ("kim", "resume", "batch acme, destination drop", "mended"),
    ]


def test_it_cannot_be_held_twice_or_resumed_when_it_is_not_held(ferry):
    with pytest.raises(StoreError, match="is not suspended"):
        resume(ferry)
    hold(ferry)
    with pytest.raises(StoreError, match="is on hold already"):
        hold(ferry)


def test_a_hold_takes_the_place_of_an_automatic_suspension(ferry, inbox):
    add_leads(ferry.database)
    batch = make_batch(destinations=[blocked(inbox)], suspend={"after_failures": 1, "retry_after": "1h"})
    fail(ferry, batch, "run-1")
    hold(ferry, destination="drop")
    (one,) = suspensions.active(ferry.database)
    assert (one.cause, one.until) == ("hold", None)


# --- who hears of it


def told(ferry, batch, run):
    settlement = ferry.carry(batch, run)
    delivery = history_of(ferry, settlement)
    return tell_outcome(ferry.database, delivery, settlement)


def history_of(ferry, settlement):
    from leadferry.store import ledger

    return ledger.get_delivery(ferry.database, settlement.delivery_id)


@pytest.mark.req("C24", "F08")
@pytest.mark.parametrize("why", ["a destination that fails", "a file that cannot be rendered"])
def test_of_a_failure_operators_hear_and_the_recipient_hears_nothing(ferry, inbox, mail, why):
    add_leads(ferry.database)
    wrong = {"to": "N", "from": "email", "transform": [{"number": {"decimals": 1}}]}
    failing = {"destinations": [blocked(inbox)]}
    if why == "a file that cannot be rendered":
        failing = {"destinations": [email(BUYER)], "fields": [wrong]}
    buyer = {"id": "buyer", "name": "Acme", "contacts": [{"name": "Robin Vale", "email": BUYER}]}
    batch = make_batch(recipient=buyer, **failing, **TOLD)
    claimed = ferry.extract(batch)
    if why == "a destination that fails":
        settled = ferry.carry(batch)
    else:
        with pytest.raises(RenderError):
            ferry.render(claimed)
        settled = ferry.settle(claimed)
    assert not tell_outcome(ferry.database, history_of(ferry, settled), settled)
    assert [to for to, *_ in messages(mail)] == [OPS]


@pytest.mark.req("F36", "R199", "C03")
def test_a_failure_is_told_in_one_mail_with_what_is_suspended_and_the_recovery_in_another(ferry, inbox, mail):
    add_leads(ferry.database)
    batch = make_batch(
        destinations=[blocked(inbox)], suspend={"after_failures": 1, "retry_after": None}, **TOLD
    )
    assert not told(ferry, batch, "run-1")
    assert ferry.extract(batch, "run-2").on_hold
    inbox.unlink()
    resume(ferry)
    assert told(ferry, batch, "run-3")
    add_leads(ferry.database)
    assert told(ferry, batch, "run-4")
    (failure, recovery) = messages(mail)
    assert failure[:2] == (OPS, "Leadferry: Acme, daily: failed")
    said = failure[2].replace("\n", " ")
    assert "destination 'drop' is suspended" in said
    assert "`leadferry resume acme --destination drop --reason TEXT` ends this" in said
    assert recovery[:2] == (OPS, "Leadferry: Acme, daily: delivers again")


def test_a_fallback_that_was_used_is_told(ferry, inbox, mail, tmp_path):
    add_leads(ferry.database)
    second = folder(tmp_path / "second", id="second", fallback_for="drop")
    assert told(ferry, make_batch(destinations=[blocked(inbox), second], **TOLD), "run-1")
    ((_, subject, text),) = messages(mail)
    assert subject == "Leadferry: Acme, daily: delivered, but not everywhere"
    told_in_one_line = text.replace("\n", " ")
    assert "drop: no_such_path, its fallback has it" in told_in_one_line
    assert "`leadferry dispatch list 1`" in told_in_one_line
    assert "(batch acme)" in told_in_one_line


def test_a_departure_on_hold_is_no_failure_even_where_nothing_to_deliver_is_one(ferry, inbox, mail):
    batch = make_batch(destinations=[folder(inbox)], empty="fail", **TOLD)
    hold(ferry)
    claimed = ferry.extract(batch)
    assert tell_outcome(ferry.database, ferry.delivery(claimed), ferry.settle(claimed))
    assert messages(mail) == []


def test_a_run_that_ends_without_a_delivery_is_told(mail):
    error = StoreUnavailableError("The lead store did not answer")
    tell_unsettled(make_batch(**TOLD), run_id="scheduled__2026-01-30", error=error)
    ((person, subject, text),) = messages(mail)
    assert (person, subject) == (OPS, "Leadferry: Acme, daily: not settled")
    assert "store_unavailable: The lead store did not answer" in text.replace("\n", " ")


# --- what waits for a person


def needs_attention(ferry):
    return [(one["id"], one["why"]) for one in history.needs_attention(ferry.database)]


@pytest.mark.req("C21")
def test_deliveries_that_wait_for_a_person_are_listed(ferry, inbox, tmp_path, mail):
    add_leads(ferry.database)
    partial = ferry.carry(make_batch(destinations=[blocked(inbox), folder(tmp_path / "one", id="one")]))
    add_leads(ferry.database)
    mail.faults.cut = "before the answer"
    held = ferry.carry(make_batch(destinations=[email(BUYER)]), "run-2")
    add_leads(ferry.database)
    lost = ferry.rendered(make_batch(destinations=[folder(inbox)]), "run-3")
    execute(
        ferry.database, "UPDATE dispatch SET state = 'sending' WHERE delivery_id = :id", id=lost.delivery_id
    )
    assert needs_attention(ferry) == [
        (partial.delivery_id, "drop: no_such_path"),
        (held.delivery_id, "nobody can tell whether it arrived"),
    ]
    execute(
        ferry.database, "UPDATE delivery SET lease_until = now() - interval '1 s' WHERE state = 'rendered'"
    )
    assert needs_attention(ferry)[2:] == [(lost.delivery_id, "it may be under way, or its sender died")]


def test_what_goes_well_needs_nobody(ferry, inbox):
    add_leads(ferry.database)
    ferry.carry(make_batch(destinations=[folder(inbox)]))
    assert needs_attention(ferry) == []
