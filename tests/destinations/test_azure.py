"""The Azure Blob Storage destination on Azurite, Microsoft's own emulator."""

import contextlib
import dataclasses
import hashlib
import json
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobBlock,
    BlobClient,
    ContentSettings,
    ResourceTypes,
    generate_account_sas,
)

from contracts.destination_contract import Crash, Harness, ObjectStoreContract, find, send
from leadferry.destinations import azure as module
from leadferry.destinations.azure import Azure
from leadferry.destinations.base import Shares
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
from servers import azure as servers
from servers.proxy import Wire
from servers.sender import LARGE, kill_while_sending, large_parcel

NAME = "in/2026-01-31/leads.csv"

pytestmark = pytest.mark.skipif(
    servers.program() is None,
    reason="Azurite is not installed: npm install --prefix .leadferry/azurite azurite",
)


@pytest.fixture(scope="module")
def azurite(tmp_path_factory):
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as port:
        yield port


class AzureHarness(Harness):
    def __init__(self, account, wire, connect):
        self.account = account
        self.faults = account.faults
        self.wire = wire
        connect("lake", servers.announcement(wire.port))
        connect("stranger", servers.announcement(wire.port, password=servers.OTHER_KEY))
        self.destination = Azure(
            id="lake",
            connection="lake",
            container=account.container,
            prefix="in/{{ delivery.date }}",
            timeout=20,
        )
        self.wrong_credentials = self.destination.model_copy(update={"connection": "stranger"})

    def visible(self):
        return {key.removeprefix("in/2026-01-31/"): body for key, body in self.account.objects().items()}

    def put(self, name, data):
        self.account.blob(f"in/2026-01-31/{name}").upload_blob(data)

    def failing_half_way(self):
        return self.wire.cutting(300_000)

    def crashing(self, monkeypatch, *, when):
        for name in ("upload_blob", "commit_block_list"):
            really = getattr(BlobClient, name)

            def crash(*arguments, really=really, **options):
                if when == "after":
                    really(*arguments, **options)
                raise Crash

            monkeypatch.setattr(BlobClient, name, crash)

    @contextlib.contextmanager
    def forbidden(self):
        self.faults.answers["PUT"] = (403, "AuthorizationPermissionMismatch")
        yield
        self.faults.answers.clear()


@pytest.fixture
def harness(azurite, connect):
    with servers.receiver(azurite) as account, Wire(account.front.port) as wire:
        yield AzureHarness(account, wire, connect)


@pytest.fixture
def in_blocks(monkeypatch):
    """Files of more than 250,000 bytes go in blocks."""
    monkeypatch.setattr(module, "_BLOCK", 250_000)


@pytest.mark.req("R148")
class TestAzure(ObjectStoreContract):
    pass


@pytest.mark.req("R148")
@pytest.mark.usefixtures("in_blocks")
class TestAzureInBlocks(ObjectStoreContract):
    pass


@pytest.mark.req("C01", "F01", "F02", "F03")
def test_a_process_that_is_killed_in_the_middle_of_200_mb_leaves_one_complete_blob_after_the_next_try(
    harness, tmp_path
):
    parcel, front = large_parcel(tmp_path), harness.account.front
    kill_while_sending(
        harness.destination,
        parcel,
        when=lambda: sum("comp=block&" in f"{path}&" for _, path, _ in front.requests) > 6,
    )
    assert harness.visible() == {}
    receipt = send(harness.destination, dataclasses.replace(parcel, attempt=2))
    assert parcel.file.sha256 == receipt.sha256
    ((name, stored),) = harness.visible().items()
    assert (name, len(stored)) == ("leads.csv", LARGE)
    assert hashlib.sha256(stored).hexdigest() == parcel.file.sha256


@pytest.mark.usefixtures("in_blocks")
def test_a_large_file_goes_in_blocks_of_its_own(harness, parcel, content):
    """Somebody else stages other bytes for the same name at the same time."""
    harness.account.blob(NAME).stage_block("0" * 46, b"other bytes")
    send(harness.destination, parcel)
    assert {"leads.csv": content} == harness.visible()
    committed, _ = harness.account.blob(NAME).get_block_list()
    assert [one.size for one in committed] == [250_000, 250_000, 100_000]


@pytest.mark.usefixtures("in_blocks")
def test_a_name_that_is_taken_between_the_look_and_the_commit_is_left_alone(harness, parcel, monkeypatch):
    really = BlobClient.stage_block

    def stage(*arguments, **options):
        harness.put("leads.csv", b"faster")
        return really(*arguments, **options)

    monkeypatch.setattr(BlobClient, "stage_block", _once(stage, really))
    with pytest.raises(NameConflictError):
        send(harness.destination, parcel)
    assert harness.visible() == {"leads.csv": b"faster"}


@pytest.mark.req("R148")
def test_a_blob_that_a_faster_try_put_there_counts_as_delivered(harness, parcel, content, monkeypatch):
    really = BlobClient.upload_blob

    def upload(*arguments, **options):
        send(harness.destination, parcel)
        return really(*arguments, **options)

    monkeypatch.setattr(BlobClient, "upload_blob", _once(upload, really))
    assert parcel.file.sha256 == send(harness.destination, parcel).sha256
    assert {"leads.csv": content} == harness.visible()


def _once(first, then):
    """Call `first` the first time and `then` ever after."""
    calls = iter([first])

    def call(*arguments, **options):
        return next(calls, then)(*arguments, **options)

    return call


@pytest.mark.req("R151")
def test_a_blob_is_what_the_batch_asks_for(harness, parcel):
    asked = {
        "tier": "Cool",
        "tags": {"batch": "{{ batch.name }}!"},
        "metadata": {"batch": "{{ batch.name }} ü"},
        "encryption_scope": "leads",
    }
    send(harness.destination.model_copy(update=asked), parcel)
    found = harness.account.blob(NAME).get_blob_properties()
    assert found.metadata == {
        "batch": "Acme Auto u",
        "sha256": parcel.file.sha256,
        "leadferry": parcel.mark,
    }
    assert found.blob_tier == "Cool"
    assert found.content_settings.content_type == "text/csv"
    assert harness.account.blob(NAME).get_blob_tags() == {"batch": "Acme Auto_"}
    ((_, _, headers),) = [one for one in harness.account.front.requests if one[0] == "PUT"]
    assert headers["x-ms-encryption-scope"] == "leads"


@pytest.mark.req("R149")
def test_a_container_that_does_not_exist_is_said(harness, parcel):
    with pytest.raises(NoSuchBucketError, match="ContainerNotFound") as caught:
        send(harness.destination.model_copy(update={"container": "no-such-container"}), parcel)
    assert not caught.value.retry


@pytest.mark.req("R138", "F06")
@pytest.mark.parametrize("blocks", [True, False], ids=["in blocks", "at once"])
def test_bytes_that_change_on_the_way_are_found_out(harness, parcel, monkeypatch, blocks):
    if blocks:
        monkeypatch.setattr(module, "_BLOCK", 250_000)
    harness.faults.damages = True
    with pytest.raises(TransferInterruptedError):
        send(harness.destination, parcel)
    assert harness.visible() == {}


def test_an_md5_that_somebody_else_wrote_beside_other_bytes_proves_nothing(harness, make_parcel):
    parcel = make_parcel(b"our bytes")
    md5 = bytearray(hashlib.md5(b"our bytes").digest())
    blob = harness.account.blob(NAME)
    blob.stage_block("x", b"not ours!")
    blob.commit_block_list([BlobBlock("x")], content_settings=ContentSettings(content_md5=md5))
    with pytest.raises(NameConflictError):
        find(harness.destination, parcel)


@pytest.mark.req("F03", "R148")
def test_an_answer_that_is_lost_is_looked_up(harness, parcel, content):
    harness.faults.drops_answer_to_put = True
    assert parcel.file.sha256 == send(harness.destination, parcel).sha256
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("F03")
def test_an_answer_that_is_lost_with_nobody_to_ask_is_unknown(harness, parcel, monkeypatch):
    really = BlobClient.upload_blob

    def upload(*arguments, **options):
        harness.wire.target = 1
        harness.wire.cut()
        return really(*arguments, **options)

    monkeypatch.setattr(BlobClient, "upload_blob", upload)
    with pytest.raises(OutcomeUnknownError):
        send(harness.destination, parcel)


@pytest.mark.req("R141")
def test_a_store_that_stays_silent_is_given_up(harness, parcel):
    harness.faults.stalls = True
    with pytest.raises(ConnectTimeoutError):
        find(harness.destination.model_copy(update={"timeout": 0.5}), parcel)


def sas(*, until):
    return generate_account_sas(
        servers.ACCOUNT,
        servers.KEY,
        ResourceTypes(object=True),
        AccountSasPermissions(read=True, write=True, create=True, delete=True, list=True, tag=True),
        expiry=until,
    )


@pytest.mark.parametrize("kind", ["connection string", "SAS", "key in the extra"])
def test_logins_of_several_kinds_deliver(harness, parcel, content, connect, kind):
    host = f"http://127.0.0.1:{harness.wire.port}/{servers.ACCOUNT}"
    text = f"BlobEndpoint={host};AccountName={servers.ACCOUNT};AccountKey={servers.KEY}"
    extra = {
        "connection string": {"connection_string": text},
        "SAS": {"sas_token": sas(until=datetime.now(UTC) + timedelta(hours=1))},
        "key in the extra": {"extra__wasb__shared_access_key": servers.KEY},
    }[kind]
    connect("other", servers.announcement(harness.wire.port, password=None, extra=extra))
    send(harness.destination.model_copy(update={"connection": "other"}), parcel)
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("R152")
def test_a_sas_out_of_its_time_is_told_from_a_wrong_one(harness, parcel, connect):
    extra = {"sas_token": sas(until=datetime.now(UTC) - timedelta(hours=1))}
    connect("late", servers.announcement(harness.wire.port, password=None, extra=extra))
    with pytest.raises(ExpiredCredentialsError) as caught:
        send(harness.destination.model_copy(update={"connection": "late"}), parcel)
    assert caught.value.code == "auth_expired"
    assert not caught.value.retry
    assert "sig=" not in str(caught.value)


@pytest.mark.req("R154")
@pytest.mark.parametrize("told", ["westeurope", None])
def test_an_account_outside_the_allowed_regions_is_refused_before_the_upload(harness, parcel, connect, told):
    connect("far", servers.announcement(harness.wire.port), extra={"region": told} if told else {})
    far = harness.destination.model_copy(update={"connection": "far", "allowed_regions": ["eastus"]})
    with pytest.raises(RegionError, match="nothing was uploaded"):
        send(far, parcel)
    assert harness.account.front.requests == []
    if told:
        assert send(far.model_copy(update={"allowed_regions": ["eastus", "WestEurope"]}), parcel).size


@pytest.mark.req("F59", "R231")
def test_a_link_works_for_anybody_until_it_expires(harness, parcel, content, monkeypatch):
    send(harness.destination, parcel)
    with harness.destination.open() as session:
        assert isinstance(session, Shares)
        link = session.link(parcel, expires=timedelta(hours=2))
        with urllib.request.urlopen(link, timeout=30) as answer:
            assert answer.read() == content

        class ThreeHoursAgo(datetime):
            @classmethod
            def now(cls, zone=None):
                return datetime.now(zone) - timedelta(hours=3)

        monkeypatch.setattr(module, "datetime", ThreeHoursAgo)
        late = session.link(parcel, expires=timedelta(hours=2))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(late, timeout=30)


def test_a_sas_makes_no_links(harness, parcel, connect):
    send(harness.destination, parcel)
    extra = {"sas_token": sas(until=datetime.now(UTC) + timedelta(hours=1))}
    connect("by_sas", servers.announcement(harness.wire.port, password=None, extra=extra))
    with (
        harness.destination.model_copy(update={"connection": "by_sas"}).open() as session,
        pytest.raises(PermanentDeliveryError, match="cannot sign"),
    ):
        session.link(parcel, expires=timedelta(hours=1))


def test_without_the_extra_the_error_has_the_line_that_installs_it(harness, parcel, monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(MissingExtraError, match=r'pip install "leadferry\[azure\]"'):
        send(harness.destination, parcel)


def test_a_full_model_survives_json():
    full = Azure(
        id="lake",
        connection="lake",
        container="leads",
        prefix="in",
        metadata={"a": "b"},
        tags={"a b": "c"},
        allowed_regions=["eu"],
        tier="Cold",
        encryption_scope="leads",
        on_name_taken="suffix",
        max_bytes_per_second="500KB",
    )
    assert full == Azure.model_validate(json.loads(json.dumps(full.model_dump(mode="json"))))
