"""The S3 destination on a store of its own: the contract, and what stores do differently."""

import contextlib
import dataclasses
import logging
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from botocore.client import BaseClient
from pydantic import ValidationError

from contracts.destination_contract import Crash, Harness, ObjectStoreContract, find, send
from leadferry.destinations import s3
from leadferry.destinations.base import Shares
from leadferry.destinations.s3 import S3
from leadferry.errors import (
    ConnectTimeoutError,
    DestinationBusyError,
    NameConflictError,
    NoSuchBucketError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    RegionError,
    TooLargeError,
    TransferInterruptedError,
)
from servers import s3 as servers
from servers.proxy import Wire
from servers.sender import LARGE, kill_while_sending, large_parcel


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
            publishes = operation in {"PutObject", "CompleteMultipartUpload"}
            if publishes and when == "before":
                raise Crash
            answer = really(client, operation, arguments)
            if publishes:
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
class TestS3(ObjectStoreContract):
    pass


class InParts(S3Harness):
    """Files of more than 100,000 bytes go in parts of 16 MiB, so the contract's in one."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        update = {"multipart_above": 100_000}
        self.destination = self.destination.model_copy(update=update)
        self.wrong_credentials = self.wrong_credentials.model_copy(update=update)

    def uploads(self):
        found = self.server.client().list_multipart_uploads(Bucket=self.server.bucket)
        return [one["Key"] for one in found.get("Uploads", [])]

    @contextlib.contextmanager
    def forbidden(self):
        self.server.faults.answers["POST"] = ("403 Forbidden", "AccessDenied")
        with super().forbidden():
            yield


@pytest.fixture
def in_parts(connect):
    with servers.receiver() as server, Wire(server.port) as wire:
        yield InParts(server, wire, connect)


@pytest.mark.req("R145")
class TestS3InParts(ObjectStoreContract):
    @pytest.fixture
    def harness(self, in_parts):
        return in_parts


@pytest.fixture
def large(make_parcel):
    """Two parts, the second one byte."""
    return make_parcel(b"0123456789abcdef" * (1 << 20) + b"!")


def test_a_large_file_goes_in_parts_and_is_known_again_without_being_read_back(in_parts, large):
    receipt = send(in_parts.destination, large)
    assert large.file.path.read_bytes() == in_parts.visible()["leads.csv"]
    assert large.file.sha256 == receipt.sha256
    assert receipt.details["etag"].endswith('-2"')
    reads = in_parts.server.misbehaving.requests.count("GET")
    assert "parts" in find(in_parts.destination, large).details["verified"]
    assert reads == in_parts.server.misbehaving.requests.count("GET")
    assert in_parts.uploads() == []


def test_a_name_that_is_taken_while_parts_are_sent_is_left_alone(in_parts, large, monkeypatch):
    really = BaseClient._make_api_call

    def call(client, operation, arguments):
        if operation == "CompleteMultipartUpload" and "IfNoneMatch" in arguments:
            in_parts.put("leads.csv", b"faster")
        return really(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    with pytest.raises(NameConflictError):
        send(in_parts.destination, large)
    assert in_parts.visible() == {"leads.csv": b"faster"}


def test_parts_of_a_failed_try_are_taken_away_by_itself(in_parts, large):
    in_parts.server.faults.answers["PUT"] = ("503 Slow Down", "SlowDown")
    with pytest.raises(DestinationBusyError):
        send(in_parts.destination, large)
    assert in_parts.uploads() == []


def test_parts_of_a_killed_try_are_taken_away_by_the_next_one_and_those_of_other_files_stay(in_parts, large):
    client = in_parts.server.client()
    for name in ("leads.csv", "leads.csv.more"):
        client.create_multipart_upload(Bucket=in_parts.server.bucket, Key=f"in/2026-01-31/{name}")
    send(in_parts.destination, large)
    assert in_parts.uploads() == ["in/2026-01-31/leads.csv.more"]


def test_a_part_is_16_mib_unless_there_would_be_too_many():
    assert s3.part_size(1) == 16 << 20
    assert s3.part_size(5 * 1024**4) * 10_000 >= 5 * 1024**4


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


@pytest.mark.req("R151")
@pytest.mark.parametrize("above", [5_000_000, 1000], ids=["at once", "in parts"])
def test_an_object_is_what_the_batch_asks_for(harness, parcel, above):
    asked = {
        "multipart_above": above,
        "encryption": "aws:kms",
        "kms_key": "arn:aws:kms:us-east-1:123456789012:key/leads",
        "acl": "authenticated-read",
        "storage_class": "STANDARD_IA",
        "tags": {"batch": "{{ batch.name }}!", "for": "acme"},
        "metadata": {"batch": "{{ batch.name }} ü"},
    }
    send(harness.destination.model_copy(update=asked), parcel)
    client, there = (
        harness.server.client(),
        {"Bucket": harness.server.bucket, "Key": "in/2026-01-31/leads.csv"},
    )
    head = client.head_object(**there)
    assert head["ServerSideEncryption"] == "aws:kms"
    assert head["SSEKMSKeyId"] == asked["kms_key"]
    assert head["StorageClass"] == "STANDARD_IA"
    assert head["Metadata"]["batch"] == "Acme Auto u"
    tags = {one["Key"]: one["Value"] for one in client.get_object_tagging(**there)["TagSet"]}
    assert tags == {"batch": "Acme Auto_", "for": "acme"}
    grants = client.get_object_acl(**there)["Grants"]
    assert "AuthenticatedUsers" in str(grants)


def test_encryption_by_the_store_is_asked_for(harness, parcel):
    send(harness.destination.model_copy(update={"encryption": "AES256"}), parcel)
    head = harness.server.client().head_object(Bucket=harness.server.bucket, Key="in/2026-01-31/leads.csv")
    assert head["ServerSideEncryption"] == "AES256"


def test_a_kms_key_needs_kms():
    with pytest.raises(ValidationError, match="kms_key needs"):
        S3(id="lake", bucket="leads", kms_key="x")


@pytest.mark.req("R154")
def test_a_bucket_outside_the_allowed_regions_is_refused_before_the_upload(harness, parcel):
    harness.server.faults.region = "eu-central-1"
    elsewhere = harness.destination.model_copy(update={"allowed_regions": ["us-east-1"]})
    with pytest.raises(RegionError, match=r"eu-central-1, expected us-east-1"):
        send(elsewhere, parcel)
    assert "PUT" not in harness.server.misbehaving.requests[1:]
    assert harness.visible() == {}
    inside = harness.destination.model_copy(update={"allowed_regions": ["us-east-1", "EU-central-1"]})
    assert send(inside, parcel).size == parcel.file.size


@pytest.mark.req("R154")
def test_a_wrong_region_is_said_with_the_right_one(harness, parcel):
    harness.server.faults.region = "eu-central-1"
    harness.server.faults.answers["PUT"] = ("400 Bad Request", "AuthorizationHeaderMalformed")
    with pytest.raises(RegionError, match="expected eu-central-1") as caught:
        send(harness.destination, parcel)
    assert not caught.value.retry


@pytest.mark.req("R146")
def test_the_batch_may_name_the_endpoint_the_region_and_how_buckets_are_addressed(
    harness, parcel, content, connect
):
    connect("bare", {"connection": {**harness.server.announcement()["connection"], "extra": {}}})
    there = {
        "connection": "bare",
        "endpoint_url": harness.server.endpoint,
        "region": "eu-west-1",
        "addressing": "path",
    }
    named = harness.destination.model_copy(update=there)
    send(named, parcel)
    assert {"leads.csv": content} == harness.visible()
    assert named.endpoint() == ("127.0.0.1", harness.server.port)


@pytest.mark.req("F59", "R231")
def test_a_link_works_for_anybody_until_it_expires(harness, parcel, content):
    send(harness.destination, parcel)
    with harness.destination.open() as session:
        assert isinstance(session, Shares)
        link = session.link(parcel, expires=timedelta(hours=2))
    with urllib.request.urlopen(link, timeout=30) as answer:
        assert answer.read() == content
    harness.server.clock = lambda: datetime.now(UTC) + timedelta(hours=3)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link, timeout=30)


def test_a_link_is_never_made_for_a_store_without_https(harness, parcel):
    with harness.destination.open() as session, pytest.raises(PermanentDeliveryError, match="unencrypted"):
        session._safe("leads.csv", "http://store.example.com/leads.csv?signature")


def test_the_log_of_a_link_does_not_hold_it(harness, parcel, caplog):
    caplog.set_level(logging.INFO, logger="leadferry.access")
    send(harness.destination, parcel)
    with harness.destination.open() as session:
        session.link(parcel, expires=timedelta(hours=1))
    lines = [one.getMessage() for one in caplog.records if one.name == "leadferry.access"]
    assert any(line.startswith("link s3://") for line in lines)
    assert "Signature" not in "".join(lines)


@pytest.mark.req("F02", "F03", "C01")
def test_a_process_that_is_killed_in_the_middle_of_200_mb_leaves_one_complete_object_after_the_next_try(
    in_parts, tmp_path
):
    parcel = large_parcel(tmp_path)
    puts = in_parts.server.misbehaving.requests
    # The second part has begun: the first is stored.
    kill_while_sending(in_parts.destination, parcel, when=lambda: puts.count("PUT") > 2)
    assert in_parts.visible() == {}
    assert in_parts.uploads() == ["in/2026-01-31/leads.csv"]
    receipt = send(in_parts.destination, dataclasses.replace(parcel, attempt=2))
    assert parcel.file.sha256 == receipt.sha256
    assert in_parts.uploads() == []
    stored = in_parts.server.client().head_object(
        Bucket=in_parts.server.bucket, Key="in/2026-01-31/leads.csv"
    )
    assert stored["ContentLength"] == LARGE
    assert list(in_parts.visible()) == ["leads.csv"]


@pytest.mark.req("R149")
def test_a_bucket_that_does_not_exist_is_said(harness, parcel):
    with pytest.raises(NoSuchBucketError, match="NoSuchBucket") as caught:
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
    monkeypatch.setattr(S3, "largest", 1000)
    with pytest.raises(TooLargeError, match="1000"):
        send(harness.destination, parcel)
    assert harness.visible() == {}


def test_a_missing_connection_does_not_take_what_lies_around(parcel, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    with pytest.raises(PermanentDeliveryError, match="does not know this connection"):
        send(S3(id="lake", connection="nowhere", bucket="leads"), parcel)
