"""The ready scenarios of `leadferry batches new --from`: each delivers leads to a server of its own kind."""

import csv
import gzip
import hashlib
import io
import json
from email import message_from_bytes, policy

import boto3
import openpyxl
import pyarrow.parquet as pq
import pytest

from batches import add_leads
from leadferry.batch.load import load_batch
from leadferry.lifecycle.edit import changed
from leadferry.lifecycle.scaffold import scenario_text
from servers import s3

LEAD = {
    "first_name": "Ada",
    "last_name": "Vale",
    "phone": "415 555 0132",
    "state": "CA",
    "zip": "02138",
    "consent_text": "I agree",
    "consent_at": "2026-01-05",
    "certificate_url": "https://cert.example/1",
}


@pytest.fixture
def scenario(tmp_path, ferry, monkeypatch):
    """Deliver three leads by a scenario's batch, with some of its keys changed; returns the batch."""
    config = tmp_path / "config"
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))

    def deliver(name, **changes):
        (config / "batches").mkdir(parents=True)
        (config / "recipients").mkdir()
        (config / "recipients" / "acme.yaml").write_text("name: Acme\ntimezone: America/New_York\n")
        text = changed(
            scenario_text(name),
            {"enabled": True, **{key.replace("__", "."): one for key, one in changes.items()}},
        )
        (config / "batches" / f"{name}.yaml").write_text(text)
        batch = load_batch(name, config=config)
        add_leads(ferry.database, 3, flow=batch.flows[0], fields=LEAD)
        assert ferry.carry(batch).state == "delivered"
        return batch

    return deliver


@pytest.mark.req("R021")
def test_daily_crm(scenario, buyer_sftp):
    (buyer_sftp.root / "import").mkdir()
    scenario("daily_crm", destinations__0__connection="buyer_sftp")
    (file,) = (buyer_sftp.root / "import").iterdir()
    found = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["Email"] for row in found] == [f"lead{n}@example.com" for n in (1, 2, 3)]
    assert {row["Phone"] for row in found} == {"+14155550132"}


@pytest.mark.req("R021")
def test_weekly_reporting(scenario, mail):
    scenario("weekly_reporting")
    (message,) = (
        message_from_bytes(path.read_bytes(), policy=policy.default) for path in mail.inbox.messages()
    )
    assert "3 leads" in message.get_body().get_content()
    (workbook,) = message.iter_attachments()
    sheet = openpyxl.load_workbook(io.BytesIO(workbook.get_content())).active
    assert [row[1] for row in sheet.iter_rows(min_row=2, values_only=True)] == ["Ada Vale"] * 3


@pytest.mark.req("R021")
def test_monthly_campaign(scenario, connect):
    with s3.receiver() as server:
        connect("aws_default", server)
        scenario("monthly_campaign", destinations__0__bucket=server.bucket)
        announced = server.announcement()["connection"]
        client = boto3.client(
            "s3",
            endpoint_url=announced["extra"]["endpoint_url"],
            aws_access_key_id=announced["login"],
            aws_secret_access_key=announced["password"],
            region_name="us-east-1",
        )
        listed = client.list_objects_v2(Bucket=server.bucket)["Contents"]
        bodies = {
            one["Key"]: client.get_object(Bucket=server.bucket, Key=one["Key"])["Body"].read()
            for one in listed
        }
    (data,) = (body for key, body in bodies.items() if key.endswith("CA.ndjson.gz"))
    assert [json.loads(line)["state"] for line in gzip.decompress(data).splitlines()] == ["CA"] * 3
    assert any(key.endswith(".manifest.json") for key in bodies)


@pytest.mark.req("R021")
def test_external_processing(scenario, buyer_sftp):
    (buyer_sftp.root / "in").mkdir()
    scenario("external_processing", destinations__0__connection="buyer_sftp", conditions__min_leads=1)
    names = sorted(file.name for file in (buyer_sftp.root / "in").iterdir())
    (leads,) = (buyer_sftp.root / "in" / name for name in names if name.endswith(".csv"))
    (row, *_) = csv.DictReader(leads.read_text().splitlines())
    assert row["email_sha256"] == hashlib.sha256(b"lead1@example.com").hexdigest()
    assert row["zip"] == "02138"
    assert {name.rpartition(".")[2] for name in names} == {"csv", "sha256", "done"}


@pytest.mark.req("R021")
def test_compliance_archive(scenario, tmp_path):
    scenario("compliance_archive")
    (file,) = (path for path in (tmp_path / "compliance").iterdir() if path.suffix == ".parquet")
    assert pq.read_table(file).column("certificate_url").to_pylist() == ["https://cert.example/1"] * 3
