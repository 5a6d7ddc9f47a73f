"""The receivers of the try-out as processes: they say when they are ready, take a delivery, and stop when told."""

import contextlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from leadferry.destinations.email import Email
from leadferry.destinations.ftp import Ftp
from leadferry.destinations.http import Http
from leadferry.destinations.s3 import S3
from leadferry.destinations.sftp import Sftp


@contextlib.contextmanager
def running(name, *arguments):
    command = [sys.executable, "-m", f"leadferry.local.{name}", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0


def deliver(destination, parcel):
    with destination.open() as session:
        return session.send(parcel)


@pytest.mark.req("R131")
def test_sftp(tmp_path, connect, parcel, content):
    with running("sftp", "--root", tmp_path / "inbox", "--port", 0, "--state", tmp_path / "state") as said:
        assert said["host_key"].startswith("ssh-ed25519 ")
        deliver(Sftp(id="out", connection=connect("buyer", said)), parcel)
    assert (tmp_path / "inbox/leads.csv").read_bytes() == content


@pytest.mark.req("R136")
def test_ftps(tmp_path, connect, parcel, content):
    with running("ftps", "--root", tmp_path / "inbox", "--port", 0, "--state", tmp_path / "state") as said:
        deliver(Ftp(id="out", connection=connect("buyer", said)), parcel)
    assert (tmp_path / "inbox/leads.csv").read_bytes() == content


def test_smtp(tmp_path, connect, make_parcel):
    with running("smtp", "--root", tmp_path / "inbox", "--port", 0, "--state", tmp_path / "state") as said:
        mail = Email(
            id="out", connection=connect("mail", said), to=["leads@acme.example"], subject="s", body="b"
        )
        deliver(mail, make_parcel(b"id\r\n", addressee="leads@acme.example"))
    assert b"X-Envelope-To: leads@acme.example" in (tmp_path / "inbox/0001.eml").read_bytes()


def test_s3(connect, parcel):
    with running("s3", "--bucket", "leads", "--port", 0) as said:
        receipt = deliver(S3(id="out", connection=connect("lake", said), bucket=said["buckets"][0]), parcel)
    assert receipt.sha256 == parcel.file.sha256


def test_http(tmp_path, connect, make_parcel):
    from servers.answers import Memory

    for content in (b'{"Lead": 1}', b'{"Lead": 2}'):
        with running(
            "http", "--root", tmp_path / "inbox", "--state", tmp_path / "state", "--token", "t"
        ) as said:
            api = Http(
                id="out",
                connection=connect("api", said),
                send="file",
                auth={"type": "bearer"},
                answers=[{"when": {"json": "$.result", "equals": "accepted"}, "then": "accepted"}],
                capture={"buyer_id": {"json": "$.id"}},
            )
            parcel = make_parcel(content, name="leads.json", media_type="application/json")
            receipt = deliver(api, replace(parcel, answers=Memory()))
        assert (tmp_path / "inbox" / f"{receipt.details['buyer_id']}.json").read_bytes() == content
    assert len(list((tmp_path / "inbox").iterdir())) == 2


def test_a_look_whether_the_api_is_there_leaves_nothing_in_its_inbox(tmp_path, connect, make_parcel):
    with running("http", "--root", tmp_path / "inbox", "--state", tmp_path / "state", "--token", "t") as said:
        api = Http(
            id="out",
            connection=connect("api", said),
            auth={"type": "bearer"},
            answers=[{"when": {"status": ["2xx"]}, "then": "accepted"}],
        )
        with api.open() as session:
            session.probe(make_parcel(b""))
    assert list((tmp_path / "inbox").iterdir()) == []
