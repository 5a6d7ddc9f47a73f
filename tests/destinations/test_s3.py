"""The S3 destination on a store of its own: the contract, and what stores do differently."""

import contextlib

import pytest
from botocore.client import BaseClient

from contracts.destination_contract import Crash, FileStoreContract, Harness, find, send
from leadferry.destinations import s3
from leadferry.destinations.s3 import S3
from leadferry.errors import (
    ConnectTimeoutError,
    DestinationBusyError,
    NameConflictError,
    NoSuchPathError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    TooLargeError,
    TransferInterruptedError,
)
from servers import s3 as servers
from servers.proxy import Wire


class S3Harness(Harness):
    def __init__(self, server, wire, connect):
        self.server = server
        self.wire = wire
        endpoint = {"endpoint_url": f"http://127.0.0.1:{wire.port}"}
        connect("lake", server.announcement(), extra=endpoint)
        connect("stranger", server.announcement(), extra=endpoint, login="wrong-key", password="wrong horse")
        self.destination = S3(
            id="lake", connection="lake", bucket=server.bucket, prefix="in/{{ delivery.date }}", timeout=20
        )
        self.wrong_credentials = self.destination.model_copy(update={"connection": "stranger"})

    def visible(self):
        found = self.server.objects(self.server.bucket)
        return {key.removeprefix("in/2026-01-31/"): body for key, body in found.items()}

    def put(self, name, data):
        self.server.client().put_object(Bucket=self.server.bucket, Key=f"in/2026-01-31/{name}", Body=data)

    def failing_half_way(self):
        return self.wire.cutting(300_000)

    def crashing(self, monkeypatch, *, when):
        really = BaseClient._make_api_call

        def call(client, operation, arguments):
            if operation == "PutObject" and when == "before":
                raise Crash
            answer = really(client, operation, arguments)
            if operation == "PutObject":
                raise Crash
            return answer

        monkeypatch.setattr(BaseClient, "_make_api_call", call)

    @contextlib.contextmanager
    def forbidden(self):
        self.server.faults.answers["PUT"] = ("403 Forbidden", "AccessDenied")
        yield
        self.server.faults.answers.clear()


@pytest.fixture
def harness(connect):
    with servers.receiver() as server, Wire(server.port) as wire:
        yield S3Harness(server, wire, connect)


@pytest.mark.req("R145", "R146")
class TestS3(FileStoreContract):
    pass


@pytest.mark.parametrize("condition", ["unsupported", "ignored"])
class TestS3OnStoresWithoutConditions:
    @pytest.mark.req("R146")
    def test_a_file_arrives_and_other_bytes_stay(self, harness, parcel, content, make_parcel, condition):
        harness.server.faults.condition = condition
        send(harness.destination, parcel)
        with pytest.raises(NameConflictError):
            send(harness.destination, make_parcel(b"other bytes", key="another"))
        assert {"leads.csv": content} == harness.visible()


def test_a_name_that_is_taken_between_the_look_and_the_upload_is_left_alone(harness, parcel, monkeypatch):
    really = BaseClient._make_api_call

    def call(client, operation, arguments):
        if operation == "PutObject" and "IfNoneMatch" in arguments:
            harness.put("leads.csv", b"faster")
        return really(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    with pytest.raises(NameConflictError):
        send(harness.destination, parcel)
    assert harness.visible() == {"leads.csv": b"faster"}


def test_an_object_says_what_it_is(harness, parcel):
    receipt = send(harness.destination, parcel)
    head = harness.server.client().head_object(Bucket=harness.server.bucket, Key="in/2026-01-31/leads.csv")
    assert {"sha256": parcel.file.sha256, "leadferry": parcel.mark} == head["Metadata"]
    assert head["ContentType"] == "text/csv"
    assert head["ETag"] == receipt.details["etag"]
    assert f"s3://{harness.server.bucket}/in/2026-01-31/leads.csv" == receipt.location


def test_a_versioned_bucket_gives_the_version(harness, parcel):
    client = harness.server.client()
    client.put_bucket_versioning(Bucket=harness.server.bucket, VersioningConfiguration={"Status": "Enabled"})
    assert send(harness.destination, parcel).details["version"]


def test_encryption_is_asked_for(harness, parcel):
    send(harness.destination.model_copy(update={"encryption": "AES256"}), parcel)
    head = harness.server.client().head_object(Bucket=harness.server.bucket, Key="in/2026-01-31/leads.csv")
    assert head["ServerSideEncryption"] == "AES256"


@pytest.mark.req("R149")
def test_a_bucket_that_does_not_exist_is_said(harness, parcel):
    with pytest.raises(NoSuchPathError, match="NoSuchBucket") as caught:
        send(harness.destination.model_copy(update={"bucket": "no-such-bucket"}), parcel)
    assert not caught.value.retry


@pytest.mark.req("R149")
@pytest.mark.parametrize(
    ("prefix", "key"), [("", "leads.csv"), ("a/b/", "a/b/leads.csv"), ("/a", "a/leads.csv")]
)
def test_the_prefix_stands_before_the_name(harness, parcel, prefix, key):
    send(harness.destination.model_copy(update={"prefix": prefix}), parcel)
    assert [key] == list(harness.server.objects(harness.server.bucket))


@pytest.mark.req("R138", "F06")
def test_a_store_that_keeps_other_bytes_is_found_out(harness, parcel):
    harness.server.faults.damages = True
    with pytest.raises(TransferInterruptedError, match="other bytes"):
        send(harness.destination, parcel)


@pytest.mark.req("F03")
def test_an_answer_that_is_lost_is_looked_up(harness, parcel, content):
    harness.server.faults.drops_answer_to_put = True
    assert parcel.file.sha256 == send(harness.destination, parcel).sha256
    assert {"leads.csv": content} == harness.visible()
    assert harness.server.misbehaving.requests.count("PUT") - 1 == 1


@pytest.mark.req("F03")
def test_an_answer_that_is_lost_with_nobody_to_ask_is_unknown(harness, parcel, monkeypatch):
    really = BaseClient._make_api_call

    def call(client, operation, arguments):
        if operation == "PutObject":
            harness.wire.target = 1
            harness.wire.cut()
        return really(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    with pytest.raises(OutcomeUnknownError):
        send(harness.destination, parcel)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (("503 Slow Down", "SlowDown"), DestinationBusyError),
        (("500 Internal Server Error", "InternalError"), DestinationBusyError),
        (("409 Conflict", "ConditionalRequestConflict"), DestinationBusyError),
        (("400 Bad Request", "EntityTooLarge"), TooLargeError),
        (("418 Teapot", "Teapot"), PermanentDeliveryError),
    ],
)
@pytest.mark.req("R200")
def test_what_the_store_answers_decides_what_happens_next(harness, parcel, answer, kind):
    harness.server.faults.answers["PUT"] = answer
    with pytest.raises(kind) as caught:
        send(harness.destination, parcel)
    assert kind is type(caught.value)


def test_a_login_that_may_write_but_not_look_can_deliver(harness, parcel, content):
    harness.server.faults.answers["HEAD"] = ("403 Forbidden", "AccessDenied")
    receipt = send(harness.destination, parcel)
    assert receipt.details["verified"] == "answer to the upload"
    harness.server.faults.answers.clear()
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("R141")
def test_a_store_that_stays_silent_is_given_up(harness, parcel):
    harness.server.faults.stalls = True
    with pytest.raises(ConnectTimeoutError) as caught:
        find(harness.destination.model_copy(update={"timeout": 0.5}), parcel)
    assert caught.value.retry


def test_a_file_over_the_limit_of_one_upload_is_said_before(harness, parcel, monkeypatch):
    monkeypatch.setattr(s3, "LARGEST", 1000)
    with pytest.raises(TooLargeError, match="1000"):
        send(harness.destination, parcel)
    assert harness.visible() == {}


def test_a_missing_connection_does_not_take_what_lies_around(parcel, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    with pytest.raises(PermanentDeliveryError, match="does not know this connection"):
        send(S3(id="lake", connection="nowhere", bucket="leads"), parcel)
