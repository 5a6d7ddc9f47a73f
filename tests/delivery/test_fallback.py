"""Several destinations: what counts as delivered, and a fallback that takes over once, for what did not arrive."""

import pytest
from sqlalchemy import text

from batches import add_leads, carried, execute, folder, make_batch, waiting
from ferry import SFTP, email, messages
from leadferry.errors import (
    LeadferryError,
    NoSuchPathError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    StoreError,
    TransientDeliveryError,
)
from leadferry.states import DeliveryState, DispatchState
from leadferry.store import ledger, sending, settling

BUYER = "leads@acme.example"
MAIL = email(BUYER, fallback_for="drop")


@pytest.fixture
def inbox(tmp_path):
    return tmp_path / "inbox"


def blocked(inbox, **keys):
    """A destination that fails until somebody clears the way: a file stands where its folder should be."""
    inbox.write_text("in the way")
    return folder(inbox, **keys)


def three(tmp_path, *, broken, **keys):
    """A batch with the destinations one, two and three, of which some fail; and the folders."""
    folders = {name: tmp_path / name for name in ("one", "two", "three")}
    made = [
        blocked(path, id=name) if name in broken else folder(path, id=name) for name, path in folders.items()
    ]
    return make_batch(destinations=made, **keys), folders


# --- what counts as delivered


@pytest.mark.req("F39", "C21")
def test_of_three_that_one_refuses_two_have_a_receipt_and_only_the_failed_one_is_tried_again(ferry, tmp_path):
    add_leads(ferry.database, 3)
    batch, folders = three(tmp_path, broken={"two"})
    claimed = ferry.rendered(batch)
    errors = [ferry.try_to_deliver(claimed, one.id) for one in batch.destinations]
    assert [type(one) for one in errors] == [type(None), NoSuchPathError, type(None)]
    assert ferry.settle(claimed).state is DeliveryState.PARTIAL
    folders["two"].unlink()
    for one in batch.destinations:
        ferry.deliver(claimed, one.id)
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    assert ferry.attempts() == [
        ("one", 1, "confirmed", None),
        ("three", 1, "confirmed", None),
        ("two", 1, "failed", "no_such_path"),
        ("two", 2, "confirmed", None),
    ]


@pytest.mark.req("F39")
@pytest.mark.parametrize(
    ("success", "broken", "state"),
    [
        ("all", {"two"}, "partial"),
        ("all", {"one", "two", "three"}, "failed"),
        ("any", {"one", "two"}, "delivered"),
        ("any", {"one", "two", "three"}, "failed"),
        ("primary", {"two", "three"}, "delivered"),
        ("primary", {"one"}, "partial"),
        ("primary", {"one", "two", "three"}, "failed"),
    ],
)
def test_the_policy_decides_what_counts_as_delivered(ferry, tmp_path, success, broken, state):
    leads = add_leads(ferry.database, 3)
    batch, _ = three(tmp_path, broken=broken, success=success)
    settled = ferry.carry(batch)
    assert settled.state == state
    assert waiting(ferry.database) == (leads if state == "failed" else [])
    assert settled.reason == ", ".join(f"{one}: no_such_path" for one in sorted(broken))


def test_the_primary_destination_need_not_be_the_first(ferry, tmp_path):
    add_leads(ferry.database)
    batch, _ = three(tmp_path, broken={"one", "three"}, success="primary")
    marked = [one.model_copy(update={"primary": one.id == "two"}) for one in batch.destinations]
    assert ferry.carry(batch.model_copy(update={"destinations": marked})).state is DeliveryState.DELIVERED


def test_what_the_policy_did_not_ask_for_may_still_be_sent_afterwards(ferry, tmp_path):
    add_leads(ferry.database)
    batch, folders = three(tmp_path, broken={"two"}, success="primary")
    claimed = ferry.rendered(batch)
    for one in batch.destinations:
        ferry.try_to_deliver(claimed, one.id)
    assert ferry.settle(claimed).reason == "two: no_such_path"
    folders["two"].unlink()
    assert ferry.deliver(claimed, "two") == 1
    settled = ferry.settle(claimed)
    assert (settled.state, settled.reason) == (DeliveryState.DELIVERED, None)


@pytest.mark.parametrize("success", ["all", "any", "primary"])
def test_an_outcome_that_nobody_knows_holds_the_delivery_whatever_the_policy(ferry, mail, tmp_path, success):
    leads = add_leads(ferry.database)
    mail.faults.cut = "before the answer"
    batch = make_batch(destinations=[folder(tmp_path / "one"), email(BUYER)], success=success)
    assert ferry.carry(batch).state is DeliveryState.HELD
    assert waiting(ferry.database) == []
    assert leads


@pytest.mark.parametrize(
    ("success", "confirmed"), [("all", {"one", "two"}), ("any", set()), ("primary", {"two", "three"})]
)
def test_the_database_refuses_delivered_when_the_policy_is_not_met(ferry, tmp_path, success, confirmed):
    add_leads(ferry.database)
    batch, _ = three(tmp_path, broken=set(), success=success)
    claimed = ferry.rendered(batch)
    for one in sorted(confirmed):
        ferry.deliver(claimed, one)
    with pytest.raises(StoreError, match="do not add up"):
        execute(ferry.database, "UPDATE delivery SET state = 'delivered'")


def test_the_database_refuses_delivered_by_a_destination_that_has_not_all_leads(ferry, tmp_path):
    """Were only a part of the files planned for a destination, its receipts would not prove that every lead arrived."""
    add_leads(ferry.database, 3)
    batch = make_batch(
        destinations=[folder(tmp_path / "one", id="one"), folder(tmp_path / "two", id="two")],
        files=[{"name": "{{ file.part }}.csv", "format": {"type": "csv"}, "split": {"rows": 1}}],
        success="any",
    )
    claimed = ferry.rendered(batch)
    parts = sending.dispatches_to(ferry.database, claimed.delivery_id, "one")
    assert len(parts) == 3
    confirm = "UPDATE dispatch SET state = 'sending' WHERE id = ANY(:ids)"
    done = "UPDATE dispatch SET state = 'confirmed', receipt = '{}' WHERE id = ANY(:ids)"
    first_two = [one.id for one in parts[:2]]
    execute(ferry.database, confirm, ids=first_two)
    execute(ferry.database, done, ids=first_two)
    with pytest.raises(StoreError, match="do not add up"):
        execute(ferry.database, "UPDATE delivery SET state = 'delivered'")
    assert ferry.settle(claimed).state is DeliveryState.PARTIAL


# --- fallback


@pytest.mark.req("R198")
def test_a_fallback_is_used_once_and_the_destination_is_not_tried_afterwards(ferry, mail, inbox):
    leads = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[blocked(inbox), MAIL])
    claimed = ferry.rendered(batch)
    assert isinstance(ferry.try_to_deliver(claimed, "drop"), NoSuchPathError)
    assert ferry.deliver(claimed, "mail") == 1
    inbox.unlink()
    # Somebody clears everything: the way is free now, but the fallback has it.
    assert [ferry.deliver(claimed, one) for one in ("drop", "mail")] == [0, 1]
    settled = ferry.settle(claimed)
    assert (settled.state, settled.reason) == (
        DeliveryState.DELIVERED,
        "drop: no_such_path, its fallback has it",
    )
    assert not inbox.exists()
    assert [to for to, _, _ in messages(mail)] == [BUYER]
    assert ferry.attempts() == [("drop", 1, "failed", "no_such_path"), ("mail", 1, "confirmed", None)]
    assert ferry.dispatches() == [("drop", "", "skipped"), ("mail", BUYER, "confirmed")]
    assert carried(ferry.database, claimed.delivery_id) == leads


def test_a_fallback_that_is_not_needed_sends_nothing(ferry, mail, inbox):
    add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[folder(inbox), MAIL]))
    assert [ferry.deliver(claimed, one) for one in ("drop", "mail")] == [1, 0]
    assert ferry.settle(claimed).reason is None
    assert messages(mail) == []
    assert ferry.dispatches() == [("drop", "", "confirmed"), ("mail", BUYER, "skipped")]


def test_settling_without_the_fallbacks_task_marks_it_as_not_needed(ferry, inbox):
    add_leads(ferry.database)
    settled = ferry.carry(make_batch(destinations=[folder(inbox), MAIL]))
    assert (settled.state, settled.reason) == (DeliveryState.DELIVERED, None)
    assert ferry.dispatches() == [("drop", "", "confirmed"), ("mail", BUYER, "skipped")]


def test_when_the_fallback_fails_too_the_leads_are_back_in_the_queue(ferry, inbox, tmp_path):
    leads = add_leads(ferry.database, 2)
    second = blocked(tmp_path / "second", id="second", fallback_for="drop")
    settled = ferry.carry(make_batch(destinations=[blocked(inbox), second]))
    assert settled.state is DeliveryState.FAILED
    assert settled.reason == "drop: no_such_path, second: no_such_path"
    assert waiting(ferry.database) == leads


def test_a_fallback_may_have_a_fallback(ferry, mail, inbox, tmp_path):
    add_leads(ferry.database)
    second = blocked(tmp_path / "second", id="second", fallback_for="drop")
    last = email(BUYER, fallback_for="second")
    assert (
        ferry.carry(make_batch(destinations=[last, second, blocked(inbox)])).state is DeliveryState.DELIVERED
    )
    assert len(messages(mail)) == 1


def test_a_fallback_is_not_used_while_it_may_have_arrived(ferry, mail, inbox):
    """The mail server took the message, perhaps: the fallback would bring it a second time."""
    leads = add_leads(ferry.database)
    mail.faults.cut = "before the answer"
    batch = make_batch(destinations=[email(BUYER), folder(inbox, fallback_for="mail")])
    claimed = ferry.rendered(batch)
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), OutcomeUnknownError)
    assert isinstance(ferry.try_to_deliver(claimed, "drop"), OutcomeUnknownError)
    assert not inbox.exists()
    assert ferry.settle(claimed).state is DeliveryState.HELD
    assert waiting(ferry.database) == []
    (unknown,) = sending.dispatches_to(ferry.database, claimed.delivery_id, "mail")
    settling.resolve(ferry.database, unknown.id, DispatchState.FAILED, actor="ops", reason="asked")
    assert waiting(ferry.database) == leads


def died_while_sending(ferry, claimed, destination_id):
    """Leave the dispatches as a sender leaves them that is killed."""
    found = sending.dispatches_to(ferry.database, claimed.delivery_id, destination_id)
    lease = ferry.delivery(claimed).window_to - ferry.delivery(claimed).window_to
    sending.begin_sending(ferry.database, found, lease=lease)


def test_before_a_fallback_sends_the_destination_of_a_dead_sender_is_asked(ferry, mail, buyer_sftp):
    add_leads(ferry.database)
    batch = make_batch(destinations=[SFTP, email(BUYER, fallback_for="sftp")])
    claimed = ferry.rendered(batch)
    died_while_sending(ferry, claimed, "sftp")
    assert ferry.deliver(claimed, "mail") == 1
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    assert ferry.attempts()[1][:3] == ("sftp", 1, "ready")


def test_a_file_that_a_dead_sender_brought_is_found_and_the_fallback_is_not_used(ferry, mail, buyer_sftp):
    add_leads(ferry.database)
    batch = make_batch(destinations=[SFTP, email(BUYER, fallback_for="sftp")])
    claimed = ferry.rendered(batch)
    died_while_sending(ferry, claimed, "sftp")
    (file,) = ledger.stored_files(ferry.database, claimed.delivery_id)
    with ferry.archive.local_copy(file.archive_key, sha256=file.sha256) as stored:
        (buyer_sftp.root / file.name).write_bytes(stored.read_bytes())
    assert ferry.deliver(claimed, "mail") == 0
    assert messages(mail) == []
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED


def test_a_fallback_waits_for_a_destination_that_cannot_be_asked_what_became_of_it(
    ferry, mail, connect, tmp_path
):
    from servers.sftp import receiver

    add_leads(ferry.database)
    with receiver(tmp_path / "sftp") as server:
        connect("buyer_sftp", server)
    batch = make_batch(destinations=[SFTP, email(BUYER, fallback_for="sftp")])
    claimed = ferry.rendered(batch)
    died_while_sending(ferry, claimed, "sftp")
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), TransientDeliveryError)
    assert messages(mail) == []
    assert ("sftp", "", "sending") in ferry.dispatches()


@pytest.mark.parametrize("other", ["sending", "unknown", "confirmed"])
def test_the_database_refuses_to_send_by_two_destinations_of_a_way(ferry, inbox, other):
    add_leads(ferry.database)
    claimed = ferry.rendered(make_batch(destinations=[folder(inbox), MAIL]))
    move = "UPDATE dispatch SET state = 'sending' WHERE destination = :destination"
    execute(ferry.database, move, destination="drop")
    if other != "sending":
        receipt = "'{}'" if other == "confirmed" else "NULL"
        execute(
            ferry.database,
            f"UPDATE dispatch SET state = '{other}', receipt = {receipt} WHERE destination = 'drop'",
        )
    with pytest.raises(StoreError, match="is or may be delivered by another destination"):
        execute(ferry.database, move, destination="mail")
    assert claimed.included == 1


def two_files(*destinations):
    files = [
        {"id": kind, "name": f"leads.{kind}", "format": {"type": kind}, "checksum": "sha256"}
        for kind in ("csv", "json")
    ]
    return make_batch(files=files, manifest={"name": "list.json"}, destinations=list(destinations))


def test_a_fallback_brings_only_the_files_that_did_not_arrive(ferry, inbox, tmp_path):
    """`leads.json` is taken by other bytes; `leads.csv` arrives and must not come twice."""
    add_leads(ferry.database)
    inbox.mkdir()
    (inbox / "leads.json").write_text("somebody else's")
    second = tmp_path / "second"
    batch = two_files(folder(inbox), folder(second, id="second", fallback_for="drop"))
    assert ferry.carry(batch).state is DeliveryState.DELIVERED
    assert sorted(path.name for path in inbox.iterdir()) == ["leads.csv", "leads.json"]
    assert sorted(path.name for path in second.iterdir()) == ["leads.json", "leads.json.sha256", "list.json"]


def test_a_fallback_does_not_bring_a_list_of_files_that_all_arrived(ferry, inbox, tmp_path):
    add_leads(ferry.database)
    inbox.mkdir()
    (inbox / "list.json").write_text("somebody else's")
    second = tmp_path / "second"
    batch = two_files(folder(inbox), folder(second, id="second", fallback_for="drop"))
    settled = ferry.carry(batch)
    assert (settled.state, settled.reason) == (DeliveryState.PARTIAL, "drop: conflict")
    assert not second.exists()


def test_other_destinations_go_on_beside_a_fallback(ferry, mail, inbox, tmp_path):
    add_leads(ferry.database)
    own = tmp_path / "own"
    batch = make_batch(destinations=[blocked(inbox), MAIL, folder(own, id="own")])
    assert ferry.carry(batch).state is DeliveryState.DELIVERED
    assert len(list(own.iterdir())) == len(messages(mail)) == 1


def test_a_fallback_asked_before_anything_is_rendered_sends_nothing(ferry, inbox):
    add_leads(ferry.database)
    claimed = ferry.extract(make_batch(destinations=[folder(inbox), MAIL]))
    assert ferry.deliver(claimed, "mail") == 0


def test_the_pieces_of_a_delivery_that_failed_are_not_sent_by_a_fallback_that_comes_late(ferry, inbox):
    add_leads(ferry.database)
    batch = make_batch(destinations=[blocked(inbox), MAIL])
    claimed = ferry.rendered(batch)
    assert isinstance(ferry.try_to_deliver(claimed, "drop"), PermanentDeliveryError)
    with ferry.database.transaction() as connection:
        connection.execute(text("UPDATE dispatch SET state = 'sending' WHERE destination = 'mail'"))
        connection.execute(text("UPDATE dispatch SET state = 'failed' WHERE destination = 'mail'"))
    assert ferry.settle(claimed).state is DeliveryState.FAILED
    with pytest.raises(LeadferryError, match="can go no further"):
        ferry.deliver(claimed, "mail")
