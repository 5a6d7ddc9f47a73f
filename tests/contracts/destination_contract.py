"""What every destination that stores files promises, tried on its real server.

A test file supplies a `harness` fixture and inherits the tests.
"""

import abc
import contextlib
import hashlib
import logging
import re
import threading
from datetime import timedelta

import pytest

from leadferry.destinations import transfer
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    DeliveryError,
    NameConflictError,
    NoSuchPathError,
    PermanentDeliveryError,
)


class Crash(BaseException):
    """The process ends here: nothing that handles errors may run."""


class Harness(abc.ABC):
    """One kind of destination with its server."""

    destination: object
    wrong_credentials: object = None
    """The same destination by a connection with a wrong password; None where nobody logs in."""

    hides_parts = True
    """Whether a file that is not complete never stands under its final name."""
    shows_only_complete = True
    """Whether who reads as agreed (waits for the marker, where there is one) never reads a part."""

    @property
    def overwriting(self):
        """The same destination when it may replace what stands under the name."""
        return self.destination.model_copy(update={"on_name_taken": "overwrite"})

    @abc.abstractmethod
    def visible(self):
        """Return the bytes of everything under a final name, by name."""

    def remains(self):
        """Return temporary names that are still there."""
        return []

    @abc.abstractmethod
    def put(self, name, data):
        """Put somebody's file there."""

    def leave_partial(self, parcel, data):  # noqa: B027  (stores that show no parts have nothing to leave)
        """Leave what a try that was killed in the middle leaves."""

    @abc.abstractmethod
    def failing_half_way(self):
        """Return a context in which the transfer of the file breaks in its middle."""

    @abc.abstractmethod
    def crashing(self, monkeypatch, *, when):
        """Raise `Crash` in the next send, `before` or `after` the file got its final name."""

    @abc.abstractmethod
    def forbidden(self):
        """Return a context in which the login may not write."""


def send(destination, parcel):
    with destination.open() as session:
        return session.send(parcel)


def find(destination, parcel):
    with destination.open() as session:
        return session.find(parcel)


class DestinationContract:
    @pytest.mark.req("R004", "F06")
    def test_a_file_arrives_once_with_exactly_its_bytes(self, harness, parcel, content):
        receipt = send(harness.destination, parcel)
        assert {"leads.csv": content} == harness.visible()
        assert len(content) == receipt.size
        assert receipt.location.endswith("leads.csv")
        assert harness.remains() == []

    @pytest.mark.req("F02", "C01")
    def test_sending_it_again_leaves_one_and_gives_a_receipt(self, harness, parcel, content, next_try):
        send(harness.destination, parcel)
        receipt = send(harness.destination, next_try(parcel))
        assert {"leads.csv": content} == harness.visible()
        assert hashlib.sha256(content).hexdigest() == receipt.sha256

    def test_an_empty_file_arrives(self, harness, make_parcel):
        send(harness.destination, make_parcel(b""))
        assert harness.visible() == {"leads.csv": b""}

    def test_a_file_that_was_never_sent_is_not_found(self, harness, parcel):
        assert find(harness.destination, parcel) is None

    def test_a_file_that_was_sent_is_found_with_its_hash(self, harness, parcel, content):
        send(harness.destination, parcel)
        assert hashlib.sha256(content).hexdigest() == find(harness.destination, parcel).sha256

    @pytest.mark.req("F03", "C01")
    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("asked", [True, False], ids=["after a look", "without a look"])
    def test_a_crash_around_the_final_name_leaves_exactly_one_after_the_next_try(  # noqa: PLR0913, PLR0917  (fixtures)
        self, harness, parcel, content, next_try, monkeypatch, when, asked
    ):
        with monkeypatch.context() as patch:
            harness.crashing(patch, when=when)
            with pytest.raises(Crash):
                send(harness.destination, parcel)
        if asked:
            found = find(harness.destination, next_try(parcel))
            assert (found is not None) == (when == "after")
        send(harness.destination, next_try(parcel))
        assert {"leads.csv": content} == harness.visible()
        assert harness.remains() == []

    def test_what_a_killed_try_left_is_removed_by_the_look_and_by_the_next_try(
        self, harness, parcel, content, next_try
    ):
        harness.leave_partial(parcel, content[: len(content) // 2])
        assert find(harness.destination, next_try(parcel)) is None
        assert harness.remains() == []
        harness.leave_partial(parcel, content[: len(content) // 2])
        send(harness.destination, next_try(parcel))
        assert harness.remains() == []
        assert {"leads.csv": content} == harness.visible()

    def test_what_another_parcel_is_writing_stays(self, harness, parcel, make_parcel, content):
        harness.leave_partial(make_parcel(content, key="another"), b"half")
        before = harness.remains()
        if not harness.hides_parts:
            with pytest.raises(NameConflictError):
                send(harness.destination, parcel)
            assert before == harness.remains()
            return
        send(harness.destination, parcel)
        assert before == harness.remains()

    @pytest.mark.req("R143", "R137", "C07")
    def test_a_transfer_that_breaks_in_the_middle_shows_nothing_and_the_next_try_leaves_exactly_one(
        self, harness, parcel, content, next_try
    ):
        with harness.failing_half_way(), pytest.raises(DeliveryError):
            send(harness.destination, parcel)
        assert harness.visible() == {}
        send(harness.destination, next_try(parcel))
        assert {"leads.csv": content} == harness.visible()
        assert harness.remains() == []

    @pytest.mark.req("C27")
    @pytest.mark.parametrize("other", [b"somebody's", b"same size"], ids=["other size", "same size"])
    @pytest.mark.parametrize("ask", [send, find])
    def test_other_bytes_under_the_name_are_a_conflict_and_stay(self, harness, make_parcel, other, ask):
        parcel = make_parcel(b"our bytes")
        harness.put("leads.csv", other)
        with pytest.raises(NameConflictError, match=r"leads\.csv"):
            ask(harness.destination, parcel)
        assert {"leads.csv": other} == harness.visible()
        assert harness.remains() == []

    @pytest.mark.req("C27")
    def test_the_same_bytes_under_the_name_count_as_delivered(self, harness, parcel, content):
        harness.put("leads.csv", content)
        assert len(content) == send(harness.destination, parcel).size
        assert {"leads.csv": content} == harness.visible()

    @pytest.mark.req("R137", "C07")
    def test_a_watcher_never_sees_a_part_under_the_final_name(self, harness, parcel, content):
        seen, done = [harness.visible()], threading.Event()

        def watch():
            while not done.is_set():
                seen.append(harness.visible())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            send(harness.destination, parcel)
        finally:
            done.set()
            watcher.join()
        seen.append(harness.visible())
        assert [{}, {"leads.csv": content}] == [seen[0], seen[-1]]
        if harness.shows_only_complete:
            assert all(view in ({}, {"leads.csv": content}) for view in seen)
        assert all(content.startswith(view.get("leads.csv", b"")) for view in seen)

    @pytest.mark.req("R142", "R200", "C10")
    def test_no_permission_is_said_and_not_tried_again(self, harness, parcel):
        with harness.forbidden(), pytest.raises(AccessDeniedError) as caught:
            send(harness.destination, parcel)
        assert not caught.value.retry
        assert harness.visible() == {}

    @pytest.mark.req("R132", "R200")
    def test_wrong_credentials_are_said_and_not_tried_again(self, harness, parcel):
        if harness.wrong_credentials is None:
            assert not hasattr(harness.destination, "connection")
            return
        with pytest.raises(AuthenticationError) as caught:
            send(harness.wrong_credentials, parcel)
        assert not caught.value.retry
        assert "wrong horse" not in str(caught.value)
        assert harness.visible() == {}

    def test_bytes_that_changed_in_the_archive_are_never_published(self, harness, parcel, content):
        parcel.file.path.write_bytes(content[:-1] + b"!")
        with pytest.raises(PermanentDeliveryError, match="not what was rendered"):
            send(harness.destination, parcel)
        assert harness.visible() == {}
        assert harness.remains() == []

    def test_a_stored_file_that_is_gone_is_said(self, harness, parcel):
        parcel.file.path.unlink()
        with pytest.raises(PermanentDeliveryError, match="stored copy"):
            send(harness.destination, parcel)
        assert harness.visible() == {}

    def test_two_at_the_same_time_leave_exactly_one(self, harness, parcel, content, next_try):
        """A try that is thought dead may still run while the next one does its work."""
        outcomes = []

        def run(one):
            with contextlib.suppress(DeliveryError):
                outcomes.append(send(harness.destination, one))

        threads = [threading.Thread(target=run, args=(one,)) for one in (parcel, next_try(parcel))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not harness.hides_parts:
            # Both wrote under the same name; only the try after them puts that right.
            outcomes.append(send(harness.destination, next_try(next_try(parcel))))
        assert {"leads.csv": content} == harness.visible()
        assert outcomes

    def test_the_model_survives_json(self, harness):
        model = type(harness.destination)
        assert harness.destination == model.model_validate(harness.destination.model_dump(mode="json"))
        assert harness.destination.pool.replace("_", "").isalnum()
        assert harness.destination.pool.islower()


class FileStoreContract(DestinationContract):
    """What is more to expect where files stand under names (`leadferry.destinations.base.FileStore`)."""

    @pytest.mark.req("F53", "C08")
    @pytest.mark.parametrize("other", [b"somebody's", b"same size"], ids=["other size", "same size"])
    def test_overwriting_replaces_other_bytes_and_only_when_it_sends(self, harness, make_parcel, other):
        parcel = make_parcel(b"our bytes")
        harness.put("leads.csv", other)
        harness.put("others.csv", b"stays")
        assert find(harness.overwriting, parcel) is None
        assert {"leads.csv": other, "others.csv": b"stays"} == harness.visible()
        receipt = send(harness.overwriting, parcel)
        assert len(b"our bytes") == receipt.size
        assert harness.visible() == {"leads.csv": b"our bytes", "others.csv": b"stays"}
        assert harness.remains() == []

    @pytest.mark.req("F53", "C27")
    def test_overwriting_finds_what_it_sent_and_sends_it_once(self, harness, parcel, content, next_try):
        harness.put("leads.csv", b"yesterday's")
        send(harness.overwriting, parcel)
        assert hashlib.sha256(content).hexdigest() == find(harness.overwriting, next_try(parcel)).sha256
        assert len(content) == send(harness.overwriting, next_try(parcel)).size
        assert {"leads.csv": content} == harness.visible()

    @pytest.mark.req("F53")
    def test_overwriting_where_nothing_stands_delivers(self, harness, parcel, content):
        send(harness.overwriting, parcel)
        assert {"leads.csv": content} == harness.visible()
        assert harness.remains() == []

    @pytest.mark.req("F53", "R137")
    def test_a_watcher_of_an_overwritten_name_sees_the_old_bytes_or_the_new_ones_and_nothing_else(
        self, harness, parcel, content
    ):
        harness.put("leads.csv", b"yesterday's")
        seen, done = [], threading.Event()

        def watch():
            while not done.is_set():
                seen.append(harness.visible())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            send(harness.overwriting, parcel)
        finally:
            done.set()
            watcher.join()
        if harness.hides_parts:
            assert all(view in ({"leads.csv": b"yesterday's"}, {"leads.csv": content}) for view in seen)
        assert {"leads.csv": content} == harness.visible()

    @pytest.mark.req("F53", "R143")
    def test_overwriting_that_breaks_in_the_middle_leaves_the_old_bytes(
        self, harness, parcel, content, next_try
    ):
        harness.put("leads.csv", b"yesterday's")
        with harness.failing_half_way(), pytest.raises(DeliveryError):
            send(harness.overwriting, parcel)
        assert harness.visible() == ({"leads.csv": b"yesterday's"} if harness.hides_parts else {})
        send(harness.overwriting, next_try(parcel))
        assert {"leads.csv": content} == harness.visible()
        assert harness.remains() == []

    @pytest.mark.req("F53", "F03")
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_crash_around_an_overwritten_name_leaves_exactly_one_after_the_next_try(  # noqa: PLR0913, PLR0917  (fixtures)
        self, harness, parcel, content, next_try, monkeypatch, when
    ):
        harness.put("leads.csv", b"yesterday's")
        with monkeypatch.context() as patch:
            harness.crashing(patch, when=when)
            with pytest.raises(Crash):
                send(harness.overwriting, parcel)
        found = find(harness.overwriting, next_try(parcel))
        assert (found is not None) == (when == "after")
        send(harness.overwriting, next_try(parcel))
        assert {"leads.csv": content} == harness.visible()
        assert harness.remains() == []

    def test_a_probe_proves_that_a_file_can_be_delivered_and_leaves_nothing(self, harness, make_parcel):
        harness.put("others.csv", b"stays")
        with harness.destination.open() as session:
            told = session.probe(make_parcel(b"probe", name="leadferry_probe.txt"))
        assert told
        assert harness.visible() == {"others.csv": b"stays"}
        assert harness.remains() == []

    def test_a_probe_where_nothing_may_be_written_says_so(self, harness, make_parcel):
        probe = make_parcel(b"probe", name="leadferry_probe.txt")
        with (
            harness.forbidden(),
            pytest.raises(AccessDeniedError),
            harness.destination.open() as session,
        ):
            session.probe(probe)

    def test_only_the_parcels_own_bytes_are_removed(self, harness, parcel, make_parcel, content):
        send(harness.destination, parcel)
        harness.put("others.csv", b"stays")
        with harness.destination.open() as session:
            session.remove(make_parcel(b"other bytes", key="another"))
            assert {"leads.csv": content, "others.csv": b"stays"} == harness.visible()
            session.remove(parcel)
            assert harness.visible() == {"others.csv": b"stays"}
            session.remove(parcel)
        assert harness.visible() == {"others.csv": b"stays"}

    @pytest.mark.req("R139")
    def test_every_transfer_stands_in_the_access_log_with_place_bytes_and_seconds(
        self, harness, parcel, content, caplog
    ):
        caplog.set_level(logging.INFO, logger="leadferry.access")
        send(harness.destination, parcel)
        lines = [one.getMessage() for one in caplog.records if one.name == "leadferry.access"]
        puts = [line for line in lines if line.startswith("put ")]
        assert any(re.search(rf"://.* ok {len(content)} bytes \d+\.\d+ s$", line) for line in puts), lines

    @pytest.mark.req("R139")
    def test_a_failed_transfer_stands_in_the_access_log_as_failed(self, harness, parcel, caplog):
        caplog.set_level(logging.INFO, logger="leadferry.access")
        with harness.failing_half_way(), pytest.raises(DeliveryError):
            send(harness.destination, parcel)
        lines = [one.getMessage() for one in caplog.records if one.name == "leadferry.access"]
        assert any(line.startswith("put ") and " failed" in line for line in lines), lines

    def test_a_limit_of_the_pace_is_kept(self, harness, parcel, content, monkeypatch):
        """The clock is not waited for: what counts is that every byte passes the brake."""
        waits = []
        monkeypatch.setattr(transfer, "sleep", waits.append)
        slow = harness.destination.model_copy(update={"max_bytes_per_second": 10_000})
        send(slow, parcel)
        assert {"leads.csv": content} == harness.visible()
        assert max(waits) > len(content) / 10_000 * 0.5


class ObjectStoreContract(FileStoreContract):
    """What stores promise besides whose objects anybody can fetch who has the link."""

    def test_there_is_no_link_to_nothing_and_none_that_works_too_long_or_never(self, harness, parcel):
        with harness.destination.open() as session:
            with pytest.raises(NoSuchPathError):
                session.link(parcel, expires=timedelta(hours=1))
            for expires in (timedelta(days=8), timedelta(0)):
                with pytest.raises(PermanentDeliveryError, match="7 days"):
                    session.link(parcel, expires=expires)

    def test_host_and_port_are_those_that_the_client_talks_to(self, harness):
        assert harness.destination.endpoint() == ("127.0.0.1", harness.wire.port)

    def test_a_missing_connection_does_not_take_what_lies_around(self, harness, parcel):
        with pytest.raises(PermanentDeliveryError, match="does not know this connection"):
            send(harness.destination.model_copy(update={"connection": "nowhere"}), parcel)
