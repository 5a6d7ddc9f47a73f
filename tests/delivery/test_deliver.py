"""The third step with real destinations: one render and many receipts, failures that pass, outcomes nobody knows."""

import hashlib
import importlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from batches import add_leads, carried, folder, make_batch, rows, scalars, waiting
from ferry import SFTP, email, messages
from leadferry.delivery.notices import tell_failure
from leadferry.errors import (
    AuthenticationError,
    DeliveryError,
    MessageRefusedError,
    OutcomeUnknownError,
    QuotaError,
    StoreError,
    TransferInterruptedError,
    TransientDeliveryError,
)
from leadferry.states import DeliveryState, DispatchState
from leadferry.store import sending, settling
from servers.sftp import receiver as sftp_receiver
from servers.smtp import receiver as mail_receiver

BUYER = "leads@acme.example"
LEASE = timedelta(hours=1)


@pytest.fixture
def inbox(tmp_path):
    return tmp_path / "inbox"


def blocked(inbox):
    """A destination that fails until somebody clears the way: a file stands where its folder should be."""
    inbox.write_text("in the way")
    return folder(inbox)


# --- one render, several destinations


@pytest.mark.req("R234", "R235")
def test_three_destinations_are_served_at_once_from_one_render_with_a_receipt_each(
    ferry, buyer_sftp, mail, inbox
):
    add_leads(ferry.database, 20)
    batch = make_batch(destinations=[folder(inbox), SFTP, email(BUYER)])
    claimed = ferry.rendered(batch)
    # Tasks are processes of their own; in threads, the first import of Airflow would race.
    importlib.import_module("airflow.sdk")
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda one: ferry.deliver(claimed, one.id), batch.destinations)) == [1, 1, 1]
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    ((name, sha256),) = rows(ferry.database, "SELECT name, sha256 FROM file")
    for arrived in (inbox / name, buyer_sftp.root / name):
        assert hashlib.sha256(arrived.read_bytes()).hexdigest() == sha256
    assert [to for to, _, _ in messages(mail)] == [BUYER]
    receipts = scalars(ferry.database, "SELECT receipt->>'location' FROM dispatch ORDER BY destination")
    assert receipts[0] == str(inbox / name)
    assert receipts[2].startswith("sftp://127.0.0.1:")
    assert len(receipts) == 3


def test_a_destination_gets_only_the_files_it_asks_for(ferry, inbox, tmp_path):
    add_leads(ferry.database)
    files = [{"id": kind, "name": f"leads.{kind}", "format": {"type": kind}} for kind in ("csv", "json")]
    destinations = [folder(inbox, id="all"), folder(tmp_path / "json", id="one", files=["json"])]
    ferry.carry(make_batch(files=files, destinations=destinations))
    assert sorted(path.name for path in inbox.iterdir()) == ["leads.csv", "leads.json"]
    assert [path.name for path in (tmp_path / "json").iterdir()] == ["leads.json"]


@pytest.mark.req("C01")
def test_delivering_again_sends_nothing(ferry, inbox):
    add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[folder(inbox)]))
    assert [ferry.deliver(claimed, "drop") for _ in range(2)] == [1, 1]
    assert ferry.attempts() == [("drop", 1, "confirmed", None)]


# --- failures


@pytest.mark.req("R196", "R197")
def test_what_failed_is_tried_again_and_every_attempt_is_recorded(ferry, buyer_sftp):
    add_leads(ferry.database, 3)
    claimed = ferry.rendered(make_batch(destinations=[SFTP]))
    for rename, room, error in (("cut before", None, TransferInterruptedError), ("works", 1, QuotaError)):
        buyer_sftp.faults.rename, buyer_sftp.faults.room = rename, room
        with pytest.raises(error):
            ferry.deliver(claimed, "sftp")
        assert [path for path in buyer_sftp.root.iterdir() if not path.name.startswith(".")] == []
    buyer_sftp.faults.room = None
    assert ferry.deliver(claimed, "sftp") == 1
    assert ferry.attempts() == [
        ("sftp", 1, "failed", "interrupted"),
        ("sftp", 2, "failed", "quota"),
        ("sftp", 3, "confirmed", None),
    ]
    assert [path.name for path in buyer_sftp.root.iterdir()] == ["acme_1.csv"]


def test_an_attempt_that_cannot_even_connect_is_recorded_too(ferry, connect, tmp_path):
    with sftp_receiver(tmp_path / "sftp") as server:
        connect("buyer_sftp", server)
    add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[SFTP]))
    with pytest.raises(TransientDeliveryError):
        ferry.deliver(claimed, "sftp")
    assert ferry.attempts() == [("sftp", 1, "failed", "refused")]


@pytest.mark.req("C21")
def test_of_one_that_fails_and_one_that_confirms_only_the_failed_one_is_tried_again(ferry, inbox, tmp_path):
    leads = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[folder(tmp_path / "good", id="good"), {**blocked(inbox), "id": "bad"}])
    settled = ferry.carry(batch)
    assert (settled.state, settled.reason, settled.returned) == (
        DeliveryState.PARTIAL,
        "bad: no_such_path",
        0,
    )
    assert waiting(ferry.database) == []
    inbox.unlink()
    again = ferry.extract(batch)
    assert [ferry.deliver(again, one) for one in ("good", "bad")] == [1, 1]
    assert ferry.settle(again).state is DeliveryState.DELIVERED
    assert ferry.attempts() == [
        ("bad", 1, "failed", "no_such_path"),
        ("bad", 2, "confirmed", None),
        ("good", 1, "confirmed", None),
    ]
    assert carried(ferry.database, again.delivery_id) == leads


@pytest.mark.req("R170")
def test_leads_of_a_delivery_that_failed_are_back_in_their_old_place(ferry, inbox):
    older = add_leads(ferry.database, 3, received_at=datetime(2026, 1, 1, tzinfo=UTC))
    batch = make_batch(destinations=[blocked(inbox)])
    settled = ferry.carry(batch)
    assert (settled.state, settled.returned) == (DeliveryState.FAILED, 3)
    newer = add_leads(ferry.database, 2)
    inbox.unlink()
    claimed = ferry.rendered(batch, "run-2")
    assert carried(ferry.database, claimed.delivery_id) == older + newer
    ferry.deliver(claimed, "drop")
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    assert [path.name for path in inbox.iterdir()] == ["acme_2.csv"]


@pytest.mark.req("C30")
def test_a_run_that_is_cleared_after_its_delivery_failed_delivers_the_leads_once(ferry, inbox):
    add_leads(ferry.database, 3)
    batch = make_batch(destinations=[blocked(inbox)])
    failed = ferry.carry(batch)
    inbox.unlink()
    with pytest.raises(StoreError, match="is failed and can go no further"):
        sending.begin_sending(
            ferry.database, sending.dispatches_to(ferry.database, failed.delivery_id), lease=LEASE
        )
    assert ferry.carry(batch).state is DeliveryState.DELIVERED
    assert len(list(inbox.iterdir())) == 1


def test_other_bytes_under_the_same_name_are_left_alone(ferry, inbox):
    add_leads(ferry.database)
    inbox.mkdir()
    (inbox / "acme_1.csv").write_text("somebody else's")
    settled = ferry.carry(make_batch(destinations=[folder(inbox)]))
    assert (settled.state, settled.reason) == (DeliveryState.FAILED, "drop: conflict")
    assert (inbox / "acme_1.csv").read_text() == "somebody else's"


def test_a_parcel_that_fails_does_not_keep_the_next_from_being_sent(ferry, inbox):
    add_leads(ferry.database)
    files = [{"id": kind, "name": f"leads.{kind}", "format": {"type": kind}} for kind in ("csv", "json")]
    inbox.mkdir()
    (inbox / "leads.csv").write_text("in the way")
    claimed = ferry.rendered(make_batch(files=files, destinations=[folder(inbox)]))
    assert isinstance(ferry.try_to_deliver(claimed, "drop"), DeliveryError)
    assert sorted(path.name for path in inbox.iterdir()) == ["leads.csv", "leads.json"]
    assert ferry.settle(claimed).state is DeliveryState.PARTIAL


# --- outcomes that nobody knows


@pytest.mark.req("F03", "C01")
def test_a_mail_cut_after_its_data_is_held_told_and_never_sent_again(ferry, mail, tmp_path, connect):
    leads = add_leads(ferry.database, 3)
    batch = make_batch(
        destinations=[email(BUYER)],
        notify={"failure": ["ops@example.com"], "connection": "smtp_notices"},
    )
    claimed = ferry.rendered(batch)
    mail.faults.cut = "before the answer"
    with pytest.raises(OutcomeUnknownError):
        ferry.deliver(claimed, "mail")
    mail.faults.cut = None
    for _ in range(3):
        with pytest.raises(OutcomeUnknownError, match="may have arrived"):
            ferry.deliver(claimed, "mail")
    settled = ferry.settle(claimed)
    assert settled.state is DeliveryState.HELD
    assert waiting(ferry.database) == []
    assert [to for to, _, _ in messages(mail)] == [BUYER]
    with mail_receiver(tmp_path / "notices") as notices:
        connect("smtp_notices", notices)
        tell_failure(ferry.delivery(claimed), settled)
        ((to, subject, text),) = messages(notices)
    assert (to, subject) == ("ops@example.com", "Leadferry: Acme, daily: held")
    assert "leadferry dispatch confirm|fail" in text
    (dispatch,) = sending.dispatches_to(ferry.database, claimed.delivery_id)
    ended = settling.resolve(
        ferry.database, dispatch.id, DispatchState.FAILED, actor="jo", reason="Acme has no mail"
    )
    assert (ended.state, waiting(ferry.database)) == (DeliveryState.FAILED, leads)


@pytest.mark.req("F03", "C22")
@pytest.mark.parametrize("turn", [0, 1])
def test_a_mail_of_unknown_outcome_does_not_keep_the_other_recipient_from_getting_theirs(ferry, mail, turn):
    """Whichever of the two is first in line."""
    add_leads(ferry.database)
    people = ["first@acme.example", "second@acme.example"]
    in_doubt, later = people[turn], people[1 - turn]
    claimed = ferry.rendered(make_batch(destinations=[email(*people)]))
    mail.faults.cut, mail.faults.rcpt = "before the answer", {later: "451 try again later"}
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), OutcomeUnknownError)
    mail.faults.cut, mail.faults.rcpt = None, {}
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), OutcomeUnknownError)
    assert sorted(ferry.dispatches()) == sorted([("mail", in_doubt, "unknown"), ("mail", later, "confirmed")])
    assert [to for to, _, _ in messages(mail)] == [in_doubt, later]


def test_a_sender_that_died_over_a_mail_leaves_it_to_a_person(ferry, mail):
    add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[email(BUYER)]))
    _dies_while_sending(ferry, claimed)
    assert ferry.settle(claimed).state is DeliveryState.HELD
    assert messages(mail) == []
    assert ferry.dispatches() == [("mail", BUYER, "unknown")]


def test_a_sender_that_died_over_a_file_is_looked_up_and_nothing_is_doubled(ferry, buyer_sftp):
    add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[SFTP]))
    _dies_while_sending(ferry, claimed)
    assert ferry.deliver(claimed, "sftp") == 1
    assert ferry.attempts() == [("sftp", 1, "ready", "interrupted"), ("sftp", 2, "confirmed", None)]


def test_settling_looks_up_what_a_dead_sender_left_and_sends_nothing(ferry, buyer_sftp):
    leads = add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[SFTP]))
    _dies_while_sending(ferry, claimed)
    assert ferry.settle(claimed).state is DeliveryState.FAILED
    assert (list(buyer_sftp.root.iterdir()), waiting(ferry.database)) == ([], leads)


def test_other_bytes_under_the_name_after_a_crash_are_left_to_a_person(ferry, buyer_sftp):
    """Otherwise the delivery could neither go on nor end: only the recipient knows whether ours was there before."""
    leads = add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[SFTP]))
    _dies_while_sending(ferry, claimed)
    (buyer_sftp.root / "acme_1.csv").write_text("somebody else's")
    settled = ferry.settle(claimed)
    assert (settled.state, settled.reason) == (DeliveryState.HELD, "sftp: conflict")
    (dispatch,) = sending.dispatches_to(ferry.database, claimed.delivery_id)
    settling.resolve(ferry.database, dispatch.id, DispatchState.FAILED, actor="jo", reason="never arrived")
    assert waiting(ferry.database) == leads
    assert (buyer_sftp.root / "acme_1.csv").read_text() == "somebody else's"


def _dies_while_sending(ferry, claimed):
    """All that a killed sender leaves in the store: the intent."""
    parcel = sending.dispatches_to(ferry.database, claimed.delivery_id)
    sending.begin_sending(ferry.database, parcel, lease=LEASE)


# --- the worst error counts


def test_the_error_that_needs_a_person_most_is_the_one_that_is_raised(ferry, mail):
    add_leads(ferry.database)
    people = ["later@acme.example", "never@acme.example"]
    mail.faults.rcpt = {people[0]: "451 later", people[1]: "550 no such user"}
    claimed = ferry.rendered(make_batch(destinations=[email(*people)]))
    error = ferry.try_to_deliver(claimed, "mail")
    assert isinstance(error, MessageRefusedError)
    assert not error.retry


# --- errors that come after the file was published


ERRORS = [
    OutcomeUnknownError("the answer got lost"),
    TransferInterruptedError("cut after the rename"),
    QuotaError("full, after all was written"),
]


def _published_then(monkeypatch, error, *, asked=None):
    """Publish the file and fail afterwards; `asked` is what the look-up then raises, the truth when left out."""
    from leadferry.destinations.folder import FolderSession

    published, found = FolderSession.send, FolderSession.find
    sent = []

    def fails_afterwards(session, parcel):
        published(session, parcel)
        sent.append(parcel)
        raise error

    def asking(session, parcel):
        if asked is not None and sent:
            raise asked
        return found(session, parcel)

    monkeypatch.setattr(FolderSession, "send", fails_afterwards)
    monkeypatch.setattr(FolderSession, "find", asking)


@pytest.mark.req("F03")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_i6_an_error_after_the_file_was_published_is_no_reason_to_send_it_again(
    ferry, inbox, monkeypatch, error
):
    add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[folder(inbox)]))
    _published_then(monkeypatch, error)
    assert ferry.deliver(claimed, "drop") == 1
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    assert len(list(inbox.iterdir())) == 1


@pytest.mark.req("F03")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_i6_leads_do_not_go_back_while_nobody_can_say_whether_they_arrived(ferry, inbox, monkeypatch, error):
    add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[folder(inbox)]))
    with monkeypatch.context() as broken:
        _published_then(broken, error, asked=TransferInterruptedError("gone"))
        with pytest.raises(TransferInterruptedError, match="the next try asks"):
            ferry.deliver(claimed, "drop")
        with pytest.raises(TransferInterruptedError):
            ferry.settle(claimed)
    assert ferry.dispatches() == [("drop", "", "sending")]
    assert waiting(ferry.database) == []
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    assert len(list(inbox.iterdir())) == 1


def test_credentials_that_are_refused_only_at_the_first_request_are_no_doubt_about_the_leads(
    ferry, inbox, monkeypatch
):
    """S3 has no log-in: what is refused there before anything was sent is a failure, tried once, and leads go back."""
    from leadferry.destinations.folder import FolderSession

    def refused(session, parcel):
        raise AuthenticationError("refused")

    leads = add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[folder(inbox)]))
    for request in ("send", "find"):
        monkeypatch.setattr(FolderSession, request, refused)
    with pytest.raises(AuthenticationError):
        ferry.deliver(claimed, "drop")
    assert ferry.dispatches() == [("drop", "", "failed")]
    assert ferry.settle(claimed).state is DeliveryState.FAILED
    assert waiting(ferry.database) == leads
