"""The Google Cloud Storage destination on an emulator that is as strict as the real one."""

import collections
import contextlib
import dataclasses
import hashlib
import json
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from google.cloud.storage import Blob
from google.oauth2.service_account import Credentials

from contracts.destination_contract import Crash, Harness, ObjectStoreContract, find, send
from leadferry.destinations.base import Shares
from leadferry.destinations.gcs import Gcs
from leadferry.errors import (
    ConnectTimeoutError,
    ExpiredCredentialsError,
    MissingExtraError,
    NameConflictError,
    NoSuchBucketError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    RegionError,
    TransferInterruptedError,
)
from servers import gcs as servers
from servers.proxy import Wire
from servers.sender import LARGE, kill_while_sending, large_parcel

NAME = "in/2026-01-31/leads.csv"


class GcsHarness(Harness):
    def __init__(self, server, wire, connect):
        self.server = server
        self.wire = wire
        connect("lake", servers.announcement(wire.port, key=server.key))
        connect("stranger", servers.announcement(wire.port, key=servers.private_key("stranger")))
        self.destination = Gcs(
            id="lake", connection="lake", bucket=server.bucket, prefix="in/{{ delivery.date }}", timeout=20
        )
        self.wrong_credentials = self.destination.model_copy(update={"connection": "stranger"})

    def visible(self):
        found = self.server.objects(self.server.bucket)
        return {key.removeprefix("in/2026-01-31/"): body for key, body in found.items()}

    def put(self, name, data):
        path = f"/upload/storage/v1/b/{self.server.bucket}/o?uploadType=media&name=in/2026-01-31/{name}"
        headers = {"Authorization": f"Bearer {servers.TOKEN}", "Content-Type": "text/csv"}
        request = urllib.request.Request(
            self.server.endpoint + path, data=data, headers=headers, method="POST"
        )
        urllib.request.urlopen(request, timeout=30).close()

    def failing_half_way(self):
        return self.wire.cutting(300_000)

    def crashing(self, monkeypatch, *, when):
        really = Blob.upload_from_file

        def upload(*arguments, **options):
            if when == "after":
                really(*arguments, **options)
            raise Crash

        monkeypatch.setattr(Blob, "upload_from_file", upload)

    @contextlib.contextmanager
    def forbidden(self):
        self.server.faults.answers["POST"] = (403, "forbidden")
        yield
        self.server.faults.answers.clear()


@pytest.fixture(scope="module", autouse=True)
def _nobody_outside_is_asked():
    # google-auth asks Google in the background, whatever comes of it, in which regions a service account may work.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Credentials, "_is_regional_access_boundary_lookup_required", lambda _: False)
        yield


@pytest.fixture
def harness(connect):
    with servers.receiver() as server, Wire(server.port) as wire:
        yield GcsHarness(server, wire, connect)


@pytest.mark.req("R147")
class TestGcs(ObjectStoreContract):
    pass


@pytest.fixture
def large(make_parcel):
    """Needs three requests."""
    return make_parcel(b"0123456789abcdef" * (1 << 20) + b"the end")


def test_a_large_file_goes_in_chunks_and_never_replaces(harness, large, make_parcel):
    receipt = send(harness.destination, large)
    assert large.file.path.read_bytes() == harness.visible()["leads.csv"]
    assert large.file.sha256 == receipt.sha256
    chunks = [body for body in harness.server.bodies if len(body) > 1000]
    assert [len(body) for body in chunks] == [8 << 20, 8 << 20, 7] or len(chunks) == 2
    assert max(len(body) for body in chunks) == 8 << 20
    other = make_parcel(b"x" * (9 << 20), key="another")
    with pytest.raises(NameConflictError):
        send(harness.destination, other)


def test_a_delivery_asks_for_its_object_and_nothing_else(harness, parcel):
    send(harness.destination, parcel)

    for thread in threading.enumerate():
        if thread.daemon and "_fetch_background" in thread.name:
            thread.join()
    assert [path for _, path, _ in harness.server.requests if "/o" not in path] == []


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_name_that_is_taken_between_the_look_and_the_upload_is_left_alone(
    harness, parcel, large, monkeypatch, size
):
    really = Blob.upload_from_file

    def upload(*arguments, **options):
        harness.put("leads.csv", b"faster")
        return really(*arguments, **options)

    monkeypatch.setattr(Blob, "upload_from_file", upload)
    with pytest.raises(NameConflictError):
        send(harness.destination, {"small": parcel, "large": large}[size])
    assert harness.visible() == {"leads.csv": b"faster"}


def test_the_same_file_of_a_faster_try_counts_as_delivered(harness, parcel, content, monkeypatch):
    really = Blob.upload_from_file

    def upload(*arguments, **options):
        harness.put("leads.csv", content)
        return really(*arguments, **options)

    monkeypatch.setattr(Blob, "upload_from_file", upload)
    assert parcel.file.sha256 == send(harness.destination, parcel).sha256
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("R151")
def test_an_object_is_what_the_batch_asks_for(harness, parcel):
    key = "projects/acme/locations/europe-west3/keyRings/ring/cryptoKeys/leads"
    asked = {
        "storage_class": "NEARLINE",
        "acl": "bucketOwnerRead",
        "kms_key": key,
        "metadata": {"batch": "{{ batch.name }} ü"},
    }
    receipt = send(harness.destination.model_copy(update=asked), parcel)
    told = harness.server.described(harness.server.bucket, NAME)
    assert told["metadata"] == {
        "batch": "Acme Auto u",
        "sha256": parcel.file.sha256,
        "leadferry": parcel.mark,
    }
    assert told["storageClass"] == "NEARLINE"
    assert told["contentType"] == "text/csv"
    assert str(receipt.details["generation"]) == told["generation"]
    assert receipt.details["crc32c"] == told["crc32c"]
    assert receipt.location == f"gs://{harness.server.bucket}/{NAME}"
    ((_, _, query),) = [one for one in harness.server.requests if one[0] == "POST"]
    assert query["predefinedAcl"] == "bucketOwnerRead"
    assert query["kmsKeyName"] == key


@pytest.mark.req("R149")
def test_a_bucket_that_does_not_exist_is_said(harness, parcel):
    with pytest.raises(NoSuchBucketError) as caught:
        send(harness.destination.model_copy(update={"bucket": "no-such-bucket"}), parcel)
    assert not caught.value.retry


@pytest.mark.req("R138", "F06", "C02")
def test_bytes_that_change_on_the_way_are_found_out(harness, parcel):
    harness.server.faults.damages = True
    with pytest.raises(TransferInterruptedError):
        send(harness.destination, parcel)
    harness.server.faults.damages = False
    assert harness.visible() == {}


def test_an_object_without_an_md5_is_read_back(harness, parcel):
    send(harness.destination, parcel)
    harness.server.faults.forgets_md5 = True
    assert find(harness.destination, parcel).details["verified"] == "read back"


@pytest.mark.req("F03")
def test_an_answer_that_is_lost_is_looked_up(harness, parcel, content):
    harness.server.faults.drops_answer_to_upload = True
    assert parcel.file.sha256 == send(harness.destination, parcel).sha256
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("F03")
def test_an_answer_that_is_lost_with_nobody_to_ask_is_unknown(harness, parcel, monkeypatch):
    really = Blob.upload_from_file

    def upload(*arguments, **options):
        harness.wire.target = 1
        harness.wire.cut()
        return really(*arguments, **options)

    monkeypatch.setattr(Blob, "upload_from_file", upload)
    with pytest.raises(OutcomeUnknownError):
        send(harness.destination, parcel)


NOBODY_OUTSIDE = """
from google.oauth2.service_account import Credentials
Credentials._is_regional_access_boundary_lookup_required = lambda _: False
"""


@pytest.mark.req("C01", "F01", "F02", "F03")
def test_a_process_that_is_killed_in_the_middle_of_200_mb_leaves_one_complete_object_after_the_next_try(
    harness, tmp_path
):
    parcel, server = large_parcel(tmp_path), harness.server
    server.bodies = collections.deque(maxlen=1)  # they are too large to keep
    kill_while_sending(
        harness.destination,
        parcel,
        before=NOBODY_OUTSIDE,
        when=lambda: sum(method == "PUT" for method, *_ in server.requests) > 6,
    )
    assert harness.visible() == {}
    receipt = send(harness.destination, dataclasses.replace(parcel, attempt=2))
    assert parcel.file.sha256 == receipt.sha256
    listed = json.loads(server.ask(f"/storage/v1/b/{server.bucket}/o"))["items"]
    assert [(one["name"], int(one["size"])) for one in listed] == [(NAME, LARGE)]
    stored = server.storage.get_file(server.bucket, NAME)
    assert hashlib.sha256(stored).hexdigest() == parcel.file.sha256


@pytest.mark.req("R141")
def test_a_store_that_stays_silent_is_given_up(harness, parcel):
    harness.server.faults.stalls = True
    with pytest.raises(ConnectTimeoutError):
        find(harness.destination.model_copy(update={"timeout": 0.5}), parcel)


@pytest.mark.req("R152")
@pytest.mark.parametrize("said", ["Token has been expired or revoked.", "The key has expired"])
def test_credentials_that_were_good_once_are_told_from_wrong_ones(harness, parcel, said):
    harness.server.faults.token = said
    with pytest.raises(ExpiredCredentialsError) as caught:
        send(harness.destination, parcel)
    assert not caught.value.retry
    assert caught.value.code == "auth_expired"


@pytest.mark.req("R154")
def test_a_bucket_outside_the_allowed_regions_is_refused_before_the_upload(harness, parcel):
    elsewhere = harness.destination.model_copy(update={"allowed_regions": ["us-east1"]})
    with pytest.raises(RegionError, match=r"europe-west3, expected us-east1"):
        send(elsewhere, parcel)
    assert [one for one in harness.server.requests if one[0] == "POST"] == []
    inside = harness.destination.model_copy(update={"allowed_regions": ["us-east1", "Europe-West3"]})
    assert send(inside, parcel).size == parcel.file.size


@pytest.mark.req("F59", "R231")
def test_a_link_works_for_anybody_until_it_expires(harness, parcel, content):
    send(harness.destination, parcel)
    with harness.destination.open() as session:
        assert isinstance(session, Shares)
        link = session.link(parcel, expires=timedelta(hours=2))
    with urllib.request.urlopen(link, timeout=30) as answer:
        assert answer.read() == content
    harness.server.clock = lambda: datetime.now(UTC) + timedelta(hours=3)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(link, timeout=30)


def test_credentials_without_a_key_make_no_links(harness, parcel, connect):
    send(harness.destination, parcel)
    told = servers.announcement(harness.server.port, key=harness.server.key)
    told["connection"]["extra"] |= {"is_anonymous": True}
    connect("nobody", told)
    with (
        harness.destination.model_copy(update={"connection": "nobody"}).open() as session,
        pytest.raises(Exception) as caught,
    ):
        session.link(parcel, expires=timedelta(hours=1))
    assert isinstance(caught.value, PermanentDeliveryError)


def test_a_key_may_be_a_file_on_the_worker_and_fields_may_have_their_old_names(
    harness, parcel, connect, tmp_path
):
    told = servers.announcement(harness.server.port, key=harness.server.key)
    extra = told["connection"]["extra"]
    (tmp_path / "key.json").write_text(extra.pop("keyfile_dict"))
    extra["extra__google_cloud_platform__key_path"] = str(tmp_path / "key.json")
    connect("by_file", told)
    assert send(harness.destination.model_copy(update={"connection": "by_file"}), parcel).size


def test_without_the_extra_the_error_has_the_line_that_installs_it(harness, parcel, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(MissingExtraError, match=r'pip install "leadferry\[gcs\]"'):
        send(harness.destination, parcel)


def test_a_full_model_survives_json():
    full = Gcs(
        id="lake",
        connection="lake",
        bucket="leads",
        prefix="in",
        metadata={"a": "b"},
        allowed_regions=["eu"],
        acl="private",
        storage_class="ARCHIVE",
        kms_key="projects/a/locations/b/keyRings/c/cryptoKeys/d",
        on_name_taken="suffix",
        max_bytes_per_second="500KB",
    )
    assert full == Gcs.model_validate(json.loads(json.dumps(full.model_dump(mode="json"))))
