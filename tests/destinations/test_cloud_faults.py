"""What clouds answer when they refuse, as their own libraries report it, and what that means."""

import threading

import azure.core.exceptions
import google.auth.exceptions
import pytest
import requests
import yaml

from contracts.destination_contract import find, send
from leadferry import errors
from leadferry.batch.load import load_batch
from leadferry.batch.problems import BatchFileError
from leadferry.destinations.azure import Azure
from leadferry.destinations.faults.azure import of_azure
from leadferry.destinations.faults.google import of_google
from leadferry.destinations.gcs import Gcs
from leadferry.destinations.s3 import S3
from servers.clouds import REFUSALS, TYPES, Refusing, of_s3


@pytest.fixture(scope="module")
def refusing():
    with Refusing() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=30)


@pytest.fixture
def clouds(refusing, connect):
    def define(kind, extra, **fields):
        connect(kind, {"connection": {"conn_type": TYPES[kind], "extra": extra, **fields}})

    define("s3", {"endpoint_url": refusing.url, "region_name": "us-east-1"}, login="key", password="secret")
    define("gcs", {"api_endpoint": refusing.url, "is_anonymous": True, "project": "acme"})
    define("azure", {}, host=f"{refusing.url}/ferry", login="ferry", password="c2VjcmV0IG9mIHRoZSBmZXJyeQ==")
    return {
        "s3": S3(id="lake", connection="s3", bucket="leads", addressing="path"),
        "gcs": Gcs(id="lake", connection="gcs", bucket="leads"),
        "azure": Azure(id="lake", connection="azure", container="leads"),
    }


@pytest.mark.req("R149", "R152", "R153", "R154", "R200")
@pytest.mark.parametrize(
    "row", REFUSALS, ids=[f"{kind} {status} {code} {n}" for n, (kind, status, _, code) in enumerate(REFUSALS)]
)
def test_a_refusal_has_a_class_a_hint_and_a_decision(clouds, refusing, parcel, row):
    kind, status, answer, code = row
    refusing.says = (status, *answer)
    with pytest.raises(errors.DeliveryError) as caught:
        send(clouds[kind], parcel)
    assert caught.value.code == code
    assert caught.value.retry == (code in {"busy", "interrupted"})
    assert caught.value.hint or code == "permanent"
    assert "555-0100" not in str(caught.value)
    assert kind in str(caught.value) or "leads" in str(caught.value)


@pytest.mark.req("R154")
def test_the_region_that_is_expected_stands_in_the_message(clouds, refusing, parcel):
    refusing.says = (301, *of_s3("PermanentRedirect", **{"x-amz-bucket-region": "eu-central-1"}))
    with pytest.raises(errors.RegionError, match="expected eu-central-1"):
        send(clouds["s3"], parcel)


def test_what_is_no_name_of_a_region_is_not_quoted(clouds, refusing, parcel):
    refusing.says = (301, *of_s3("PermanentRedirect", **{"x-amz-bucket-region": "call 555-0100"}))
    with pytest.raises(errors.RegionError) as caught:
        send(clouds["s3"], parcel)
    assert "555" not in str(caught.value)


@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
def test_a_port_on_which_nobody_listens_is_refused_and_tried_again(clouds, connect, parcel, kind):
    extra = {"s3": {"endpoint_url": "http://127.0.0.1:1"}, "gcs": {"api_endpoint": "http://127.0.0.1:1"}}
    told = {
        "conn_type": TYPES[kind],
        "login": "ferry",
        "password": "c2VjcmV0",
        "host": "http://127.0.0.1:1/ferry",
    }
    more = {"is_anonymous": True, "project": "acme", "region_name": "us-east-1"}
    connect("closed", {"connection": {**told, "extra": {**more, **extra.get(kind, {})}}})
    with pytest.raises(errors.ConnectionRefusedByHostError) as caught:
        find(clouds[kind].model_copy(update={"connection": "closed"}), parcel)
    assert caught.value.retry


def descendants(kind):
    return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))


def blank(kind):
    """Make an exception without its constructor: only its class is asked for."""
    made = type(kind.__name__, (kind,), {"__init__": lambda _: None, "__str__": lambda _: ""})()
    made.inner_exception, made.status_code, made._retryable = None, None, False
    return made


@pytest.mark.req("R200")
@pytest.mark.parametrize(
    "kind", sorted(descendants(azure.core.exceptions.AzureError), key=lambda kind: kind.__name__)
)
def test_every_exception_of_azure_has_a_meaning(kind):
    assert issubclass(of_azure(blank(kind)).kind, errors.DeliveryError)


@pytest.mark.req("R200")
@pytest.mark.parametrize(
    "kind",
    sorted(
        descendants(google.auth.exceptions.GoogleAuthError) | descendants(requests.RequestException),
        key=lambda kind: kind.__name__,
    ),
)
def test_every_exception_of_google_auth_and_requests_has_a_meaning(kind):
    assert issubclass(of_google(blank(kind)).kind, errors.DeliveryError)


@pytest.mark.req("R152")
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("AADSTS7000222: The provided client secret keys are expired.", "auth_expired"),
        ("AADSTS7000215: Invalid client secret provided.", "auth"),
    ],
)
def test_a_login_of_entra_id_that_was_good_once_is_told_from_a_wrong_one(said, code):
    error = azure.core.exceptions.ClientAuthenticationError(said)
    assert of_azure(error).kind.code == code


@pytest.mark.req("R150")
@pytest.mark.parametrize(
    "destination",
    [
        {"type": "s3", "bucket": "leads", "aws_secret_access_key": "x" * 40},
        {"type": "s3", "bucket": "leads", "access_key": "AKIAABCDEFGHIJKLMNOP"},
        {"type": "s3", "bucket": "leads", "prefix": "AKIAABCDEFGHIJKLMNOP"},
        {"type": "s3", "bucket": "leads", "endpoint_url": "https://key:secret@store.example.com"},
        {"type": "gcs", "bucket": "leads", "keyfile_dict": {"private_key": "x"}},
        {"type": "azure", "container": "leads", "sas_token": "sv=2026&sig=abc"},
        {"type": "azure", "container": "leads", "account_key": "x" * 40},
        {"type": "azure", "container": "leads", "connection": "AccountKey=" + "x" * 40},
    ],
    ids=str,
)
def test_keys_in_a_batch_file_are_refused_and_never_repeated(tmp_path, destination):
    batch = {
        "name": "Acme",
        "recipient": "acme",
        "flows": ["auto"],
        "schedule": "manual",
        "fields": [{"to": "Email", "from": "email"}],
        "files": [{"name": "leads.csv", "format": {"type": "csv"}}],
        "destinations": [{"id": "lake", **destination}],
    }
    for folder, name, content in (
        ("batches", "acme", batch),
        ("recipients", "acme", {"name": "Acme", "contacts": [{"name": "Robin Vale"}]}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(BatchFileError) as caught:
        load_batch("acme", config=tmp_path)
    assert "x" * 40 not in str(caught.value)
    assert "AKIAABCDEFGHIJKLMNOP" not in str(caught.value)
    batch["destinations"] = [{"id": "lake", "type": "s3", "bucket": "leads"}]
    (tmp_path / "batches" / "acme.yaml").write_text(yaml.safe_dump(batch))
    assert load_batch("acme", config=tmp_path).destinations[0].type == "s3"
