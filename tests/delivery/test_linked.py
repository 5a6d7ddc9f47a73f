"""A mail that would be too large carries a link: the file is on a store first, and the ledger tells of the switch."""

from __future__ import annotations

import json
import re
import urllib.request
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy

import pytest
from pydantic import ValidationError

from batches import add_leads, make_batch, rows
from ferry import email
from leadferry.destinations.s3 import S3Session
from leadferry.errors import DestinationBusyError, DestinationSuspendedError
from leadferry.states import DeliveryState
from leadferry.store import suspensions
from servers import s3

BUYER, BOSS = "leads@acme.example", "boss@acme.example"
LIMITS = {"max_message": "10KB", "when_too_large": ["link"], "link_via": "lake", "link_expires": "2d"}


@pytest.fixture
def lake(connect):
    with s3.receiver() as store:
        connect("lake", store)
        yield store


@pytest.fixture
def sharing(monkeypatch):
    """The store's session signs links as the protocol `Shares` says."""

    def link(self, parcel, *, expires):
        asked = {"Bucket": self._destination.bucket, "Key": self._key(parcel)}
        return self._client.generate_presigned_url(
            "get_object", asked, ExpiresIn=int(expires.total_seconds())
        )

    monkeypatch.setattr(S3Session, "link", link, raising=False)


def store(lake, **keys):
    return {"id": "lake", "type": "s3", "connection": "lake", "bucket": lake.bucket, **keys}


def linking(lake, *to, **keys):
    mail = email(*to, **{**LIMITS, **keys})
    del mail["body"]
    return mail


def received(mail):
    return [message_from_bytes(path.read_bytes(), policy=policy.default) for path in mail.inbox.messages()]


@pytest.fixture
def leads(database):
    add_leads(database, 500)


@pytest.mark.req("R130", "F40")
@pytest.mark.usefixtures("leads", "sharing")
def test_the_file_is_stored_the_mail_links_to_it_and_the_ledger_tells_both(ferry, mail, lake, database):
    batch = make_batch(destinations=[linking(lake, BUYER, link_via_gets_files=False), store(lake)])
    settled = ferry.carry(batch)
    ((key, content),) = lake.objects(lake.bucket).items()
    (message,) = received(mail)
    assert settled.state is DeliveryState.DELIVERED
    assert list(message.iter_attachments()) == []
    (link,) = re.findall(r"http://\S+", message.get_body(("plain",)).get_content())
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == content
    assert content.count(b"@example.com") == 500
    ((receipt,),) = rows(database, "SELECT receipt FROM dispatch")
    assert receipt["details"]["too_large"] == "link"
    (told,) = receipt["details"]["links"]
    assert (told["via"], told["file"]) == ("lake", key)
    assert (
        timedelta(days=1) < datetime.fromisoformat(told["expires"]) - datetime.now(UTC) <= timedelta(days=2)
    )
    assert "Signature" in link
    assert "Signature" not in json.dumps(receipt)


@pytest.mark.req("R130")
@pytest.mark.usefixtures("leads", "sharing")
def test_a_store_that_is_a_destination_too_has_the_file_once(ferry, mail, lake):
    settled = ferry.carry(make_batch(destinations=[linking(lake, BUYER, BOSS), store(lake)]))
    assert settled.state is DeliveryState.DELIVERED
    assert len(lake.objects(lake.bucket)) == 1
    assert [one["X-Envelope-To"] for one in received(mail)] == [BUYER, BOSS]


@pytest.mark.req("R130", "F39")
@pytest.mark.usefixtures("leads", "sharing")
def test_no_mail_goes_before_its_file_is_stored(ferry, mail, lake):
    claimed = ferry.rendered(
        make_batch(destinations=[linking(lake, BUYER, link_via_gets_files=False), store(lake)])
    )
    lake.faults.answers["PUT"] = ("503 Slow Down", "SlowDown")
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), DestinationBusyError)
    assert received(mail) == []
    lake.faults.answers.clear()
    assert ferry.try_to_deliver(claimed, "mail") is None
    assert len(received(mail)) == 1
    assert [outcome for _, _, outcome, _ in ferry.attempts()] == ["failed", "confirmed"]


@pytest.mark.req("F36", "R130")
@pytest.mark.usefixtures("leads", "sharing")
def test_nothing_is_put_on_a_store_that_is_on_hold(ferry, mail, lake, database):
    batch = make_batch(destinations=[linking(lake, BUYER, link_via_gets_files=False), store(lake)])
    claimed = ferry.rendered(batch)
    suspensions.hold(
        database, scope="batch", name="acme", destination="lake", reason="their account moves", actor="ops"
    )
    error = ferry.try_to_deliver(claimed, "mail")
    assert isinstance(error, DestinationSuspendedError)
    assert lake.objects(lake.bucket) == {}
    assert received(mail) == []


@pytest.mark.req("F36", "R130")
@pytest.mark.usefixtures("leads", "sharing")
def test_a_store_that_refuses_the_login_is_left_alone_and_not_the_mail_server(ferry, mail, lake, database):
    batch = make_batch(destinations=[linking(lake, BUYER, link_via_gets_files=False), store(lake)])
    claimed = ferry.rendered(batch)
    lake.faults.answers["PUT"] = ("403 Forbidden", "InvalidAccessKeyId")
    error = ferry.try_to_deliver(claimed, "mail")
    assert isinstance(error, DestinationSuspendedError)
    found = suspensions.active(database, batch_id="acme", recipient_id="buyer")
    assert [(one.destination, one.cause) for one in found] == [("lake", "auth")]
    assert received(mail) == []


def test_a_destination_that_makes_no_links_is_refused_when_the_file_is_read(tmp_path):
    share = {"id": "lake", "type": "folder", "path": str(tmp_path / "share")}
    with pytest.raises(ValidationError, match="'lake' makes no links that anybody can open"):
        make_batch(destinations=[linking(None, BUYER), share])


def test_a_store_that_does_not_exist_is_refused_when_the_file_is_read():
    with pytest.raises(ValidationError, match="there is no other destination 'lake'; known: none"):
        make_batch(destinations=[linking(None, BUYER)])


def test_files_for_one_recipient_must_exist():
    with pytest.raises(ValidationError, match="there is no file 'lead' in this mail; known: leads"):
        make_batch(destinations=[email(BUYER, {"address": BOSS, "files": ["lead"]})])


def test_a_chart_tells_only_of_fields_that_the_recipient_may_get():
    recipient = {"id": "acme", "name": "Acme", "allowed_fields": ["id", "email"]}
    mail = email(BUYER, chart={"field": "income"})
    del mail["body"]
    with pytest.raises(ValidationError, match="'income' is not among the allowed_fields"):
        make_batch(recipient=recipient, destinations=[mail])
