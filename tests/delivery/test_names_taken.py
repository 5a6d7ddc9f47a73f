"""What happens when something else stands under a file's name at the destination: fail, another name, or overwrite."""

import os

import pytest
from pydantic import ValidationError

from batches import add_leads, folder, make_batch, rows
from leadferry.delivery import deliver as delivering
from leadferry.errors import DestinationBusyError, NameConflictError, StoreError
from leadferry.states import DeliveryState, DispatchState
from leadferry.store import sending

NAME = "leads.csv.gz"


class Crash(BaseException):
    """The process ends here: nothing that handles errors may run."""


@pytest.fixture
def inbox(tmp_path):
    path = tmp_path / "inbox"
    path.mkdir()
    return path


@pytest.fixture
def claimed(ferry, inbox):
    """A rendered delivery that goes where names may be taken; a function of the policy."""

    def rendered(on_name_taken):
        add_leads(ferry.database, 3)
        file = {"name": "leads.csv", "format": {"type": "csv"}, "compress": "gzip"}
        return ferry.rendered(
            make_batch(files=[file], destinations=[folder(inbox, on_name_taken=on_name_taken)])
        )

    return rendered


def sent_as(ferry):
    ((name, state),) = rows(ferry.database, "SELECT sent_as, state::text FROM dispatch")
    return name, state


def names(inbox):
    return sorted(path.name for path in inbox.iterdir())


def crash_at(monkeypatch, *, when, look=lambda: None):
    """End the process when the file gets its final name, before or after it has it."""
    really = os.link

    def link(source, target):
        if when == "after":
            really(source, target)
        look()
        raise Crash

    monkeypatch.setattr(os, "link", link)


@pytest.mark.req("F53")
@pytest.mark.parametrize(
    ("taken", "name"),
    [
        ([], NAME),
        ([NAME], "leads_2.csv.gz"),
        ([NAME, "leads_2.csv.gz", "leads_3.csv.gz"], "leads_4.csv.gz"),
        (["leads_2.csv.gz"], NAME),
    ],
)
def test_with_suffix_a_file_goes_under_the_first_free_name(ferry, claimed, inbox, taken, name):
    for one in taken:
        (inbox / one).write_bytes(b"somebody's")
    delivery = claimed("suffix")
    assert ferry.deliver(delivery, "drop") == 1
    assert ferry.settle(delivery).state is DeliveryState.DELIVERED
    assert sent_as(ferry) == (name, "confirmed")
    assert names(inbox) == sorted({*taken, name})
    assert all((inbox / one).read_bytes() == b"somebody's" for one in taken)
    assert rows(ferry.database, "SELECT receipt->>'location' FROM dispatch") == [(str(inbox / name),)]


@pytest.mark.req("F53")
def test_with_suffix_the_same_bytes_under_the_name_count_as_delivered(ferry, claimed, inbox):
    delivery = claimed("suffix")
    (key,) = rows(ferry.database, "SELECT archive_key FROM file")
    (inbox / NAME).write_bytes((ferry.archive.root / key[0]).read_bytes())
    ferry.deliver(delivery, "drop")
    assert names(inbox) == [NAME]


@pytest.mark.req("F53", "F03")
def test_i4_the_name_is_in_the_ledger_before_anything_stands_under_it(ferry, claimed, inbox, monkeypatch):
    (inbox / NAME).write_bytes(b"somebody's")
    delivery, seen = claimed("suffix"), []
    crash_at(monkeypatch, when="before", look=lambda: seen.append(sent_as(ferry)))
    with pytest.raises(Crash):
        ferry.deliver(delivery, "drop")
    assert seen == [("leads_2.csv.gz", "sending")]


@pytest.mark.req("F53", "F03")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("freed", [True, False], ids=["own name free meanwhile", "own name still taken"])
def test_i6_after_a_crash_the_file_stands_once_under_the_name_that_was_chosen(  # noqa: PLR0913, PLR0917  (fixtures)
    ferry, claimed, inbox, monkeypatch, when, freed
):
    (inbox / NAME).write_bytes(b"somebody's")
    delivery = claimed("suffix")
    with monkeypatch.context() as patch:
        crash_at(patch, when=when)
        with pytest.raises(Crash):
            ferry.deliver(delivery, "drop")
    if freed:
        (inbox / NAME).unlink()
    ferry.deliver(delivery, "drop")
    assert sent_as(ferry) == ("leads_2.csv.gz", "confirmed")
    assert names(inbox) == sorted(["leads_2.csv.gz", *([] if freed else [NAME])])


@pytest.mark.req("F53", "F03")
def test_a_crash_before_a_name_was_chosen_needs_no_person(ferry, claimed, inbox, monkeypatch):
    (inbox / NAME).write_bytes(b"somebody's")
    delivery = claimed("suffix")

    def crash(*_, **__):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(sending, "choose_name", crash)
        with pytest.raises(Crash):
            ferry.deliver(delivery, "drop")
    assert sent_as(ferry) == (None, "sending")
    ferry.deliver(delivery, "drop")
    assert sent_as(ferry) == ("leads_2.csv.gz", "confirmed")


@pytest.mark.req("F53", "F03")
def test_a_chosen_name_with_other_bytes_under_it_after_a_crash_is_a_question_for_a_person(
    ferry, claimed, inbox, monkeypatch
):
    """Our file may have been there and replaced since; sending it under another name could be a second copy."""
    delivery = claimed("suffix")
    with monkeypatch.context() as patch:
        crash_at(patch, when="after")
        with pytest.raises(Crash):
            ferry.deliver(delivery, "drop")
    (inbox / NAME).write_bytes(b"replaced")
    assert ferry.try_to_deliver(delivery, "drop").code == "unknown"
    assert names(inbox) == [NAME]


@pytest.mark.req("F53")
def test_a_name_that_is_taken_between_the_look_and_the_link_leaves_the_next_try_the_next_name(
    ferry, claimed, inbox, monkeypatch
):
    delivery, really = claimed("suffix"), os.link

    def faster(source, target):
        (inbox / NAME).write_bytes(b"somebody's")
        really(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", faster)
        assert isinstance(ferry.try_to_deliver(delivery, "drop"), DestinationBusyError)
    ferry.deliver(delivery, "drop")
    assert names(inbox) == [NAME, "leads_2.csv.gz"]
    assert (inbox / NAME).read_bytes() == b"somebody's"


def test_names_end_somewhere(ferry, claimed, inbox, monkeypatch):
    monkeypatch.setattr(delivering, "MOST_NAMES", 3)
    for one in (NAME, "leads_2.csv.gz", "leads_3.csv.gz"):
        (inbox / one).write_bytes(b"somebody's")
    error = ferry.try_to_deliver(claimed("suffix"), "drop")
    assert isinstance(error, NameConflictError)
    assert "3 names" in str(error)


def test_a_sender_that_was_taken_over_chooses_no_name(ferry, claimed):
    delivery = claimed("suffix")
    (one,) = sending.dispatches_to(ferry.database, delivery.delivery_id)
    with pytest.raises(StoreError, match="not being sent by attempt 1"):
        sending.choose_name(ferry.database, [one], "leads_2.csv.gz", number=1)
    assert one.state is DispatchState.READY


@pytest.mark.req("F53")
@pytest.mark.parametrize(("policy", "state"), [("fail", "failed"), ("overwrite", "confirmed")])
def test_other_policies_keep_the_name(ferry, claimed, inbox, policy, state):
    (inbox / NAME).write_bytes(b"somebody's")
    ferry.try_to_deliver(claimed(policy), "drop")
    assert sent_as(ferry) == (None, state)
    assert names(inbox) == [NAME]
    assert ((inbox / NAME).read_bytes() == b"somebody's") == (policy == "fail")


@pytest.mark.req("F53", "F03")
def test_an_overwriting_sender_that_died_before_it_replaced_is_followed_by_one_that_does(
    ferry, claimed, inbox, monkeypatch
):
    (inbox / NAME).write_bytes(b"somebody's")
    delivery = claimed("overwrite")

    def crash(*_):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(Crash):
            ferry.deliver(delivery, "drop")
    assert (inbox / NAME).read_bytes() == b"somebody's"
    ferry.deliver(delivery, "drop")
    assert sent_as(ferry) == (None, "confirmed")
    assert (inbox / NAME).read_bytes() != b"somebody's"


@pytest.mark.parametrize(
    "keys",
    [
        {"manifest": {}},
        {"files": [{"name": "a.csv", "format": {"type": "csv"}, "checksum": "sha256"}]},
    ],
    ids=["manifest", "checksum"],
)
def test_what_tells_a_files_name_goes_nowhere_where_that_may_change(inbox, keys):
    with pytest.raises(ValidationError, match="with suffix a file may get another name"):
        make_batch(destinations=[folder(inbox, on_name_taken="suffix")], **keys)
