"""The SFTP destination on two real servers: the contract, logging in, and what servers do differently."""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import asyncssh
import paramiko
import pytest

from contracts.destination_contract import Crash, DestinationContract, Harness, find, send
from leadferry.destinations.sftp import Sftp
from leadferry.errors import (
    AuthenticationError,
    ConnectTimeoutError,
    HostKeyError,
    NoSuchPathError,
    OutcomeUnknownError,
    QuotaError,
    TransferInterruptedError,
)
from servers import sftp as servers
from servers.proxy import Wire


class SftpHarness(Harness):
    """A server whose root is a local folder, behind a wire that can be cut."""

    def __init__(self, server, wire, *, directory, folder, connect):
        self.server = server
        self.wire = wire
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        connect("buyer", server.announcement(), port=wire.port)
        self.destination = Sftp(id="buyer", connection="buyer", directory=directory, timeout=20)

    def visible(self):
        return {
            path.name: path.read_bytes() for path in self.folder.iterdir() if not path.name.startswith(".")
        }

    def remains(self):
        return [path.name for path in self.folder.iterdir() if path.name.startswith(".")]

    def put(self, name, data):
        (self.folder / name).write_bytes(data)

    def leave_partial(self, parcel, data):
        self.put(parcel.temporary_name, data)

    def failing_half_way(self):
        return self.wire.cutting(300_000)

    def crashing(self, monkeypatch, *, when):
        really = paramiko.SFTPClient.rename

        def rename(client, old, new):
            if when == "after":
                really(client, old, new)
            raise Crash

        monkeypatch.setattr(paramiko.SFTPClient, "rename", rename)

    @contextlib.contextmanager
    def forbidden(self):
        self.server.faults.denies = True
        yield
        self.server.faults.denies = False


@pytest.fixture
def server(tmp_path):
    with servers.receiver(tmp_path) as running:
        yield running


@pytest.fixture
def harness(server, connect):
    with Wire(server.port) as wire:
        made = SftpHarness(
            server, wire, directory="/inbound", folder=server.root / "inbound", connect=connect
        )
        connect("stranger", server.announcement(), port=wire.port, password="wrong horse")
        made.wrong_credentials = made.destination.model_copy(update={"connection": "stranger"})
        yield made


@pytest.mark.req("R131")
class TestSftp(DestinationContract):
    pass


class OpenSshHarness(SftpHarness):
    @contextlib.contextmanager
    def forbidden(self):
        shutil.chown(self.folder, "root")
        yield
        shutil.chown(self.folder, "nobody")

    def put(self, name, data):
        super().put(name, data)
        shutil.chown(self.folder / name, "nobody")


@pytest.fixture
def openssh():
    if reason := servers.why_no_openssh():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="leadferry-sshd-"))
    folder.chmod(0o755)
    with servers.OpenSsh(folder) as running:
        yield running
    shutil.rmtree(folder)


class TestSftpOnOpenSsh(DestinationContract):
    @pytest.fixture
    def harness(self, openssh, connect):
        with Wire(openssh.port) as wire:
            made = OpenSshHarness(
                openssh, wire, directory=str(openssh.root), folder=openssh.root, connect=connect
            )
            stranger = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
            connect("stranger", openssh.announcement(), port=wire.port, extra={"private_key": stranger})
            made.wrong_credentials = made.destination.model_copy(update={"connection": "stranger"})
            yield made

    def test_the_rename_of_openssh_never_replaces(self, harness, parcel, monkeypatch):
        """Another file appears after our look: plain rename must fail, and we must not go on with posix-rename."""
        really = paramiko.SFTPClient.rename

        def rename(client, old, new):
            harness.put("leads.csv", b"faster")
            really(client, old, new)

        monkeypatch.setattr(paramiko.SFTPClient, "rename", rename)
        with pytest.raises(Exception, match=r"leads\.csv"):
            send(harness.destination, parcel)
        assert harness.visible() == {"leads.csv": b"faster"}
        assert harness.remains() == []

    def test_a_full_disk_is_said(self, harness, parcel):
        import subprocess

        options = "size=256k,mode=0777"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", harness.folder], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("a small disk could not be mounted: run scripts/test as root with the right to mount")
        try:
            with pytest.raises(QuotaError):
                send(harness.destination, parcel)
            assert harness.remains() == []
        finally:
            subprocess.run(["umount", harness.folder], check=True)


def _key(kind, passphrase=None):
    key = asyncssh.generate_private_key(kind)
    return key, key.export_private_key("openssh", passphrase=passphrase, rounds=50).decode()


@pytest.mark.req("R133")
@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa"])
@pytest.mark.parametrize("passphrase", [None, "open sesame"])
def test_a_key_logs_in(tmp_path, connect, parcel, content, kind, passphrase):  # noqa: PLR0913, PLR0917  (parameters and fixtures)
    key, private = _key(kind, passphrase)
    public = key.export_public_key().decode()
    with servers.receiver(tmp_path, keys={"ferry": public}) as server:
        extra = {"private_key": private, "private_key_passphrase": passphrase}
        connect("buyer", server.announcement(), password=None, extra=extra)
        send(Sftp(id="buyer", connection="buyer"), parcel)
        assert content == (server.root / "leads.csv").read_bytes()


@pytest.mark.req("R133")
def test_a_key_with_a_wrong_passphrase_is_said(server, connect, parcel):
    _, private = _key("ssh-ed25519", "open sesame")
    connect(
        "buyer",
        server.announcement(),
        extra={"private_key": private, "private_key_passphrase": "close sesame"},
    )
    with pytest.raises(AuthenticationError) as caught:
        send(Sftp(id="buyer", connection="buyer"), parcel)
    assert "sesame" not in str(caught.value)


@pytest.mark.req("F10")
def test_an_unknown_host_key_is_refused_by_default(server, connect, parcel):
    connect("buyer", server.announcement(), extra={"host_key": None})
    with pytest.raises(HostKeyError):
        send(Sftp(id="buyer", connection="buyer"), parcel)


@pytest.mark.req("F10")
def test_another_host_key_than_the_pinned_one_is_refused(server, connect, parcel):
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    connect("buyer", server.announcement(), extra={"host_key": other})
    with pytest.raises(HostKeyError, match="BadHostKey"):
        send(Sftp(id="buyer", connection="buyer"), parcel)


def test_the_host_key_stays_the_same_over_a_restart(tmp_path):
    with servers.receiver(tmp_path) as first:
        before = first.host_key
    with servers.receiver(tmp_path) as second:
        assert before == second.host_key


@pytest.mark.req("R134")
def test_a_missing_directory_is_said_or_made(harness, parcel, content):
    missing = harness.destination.model_copy(update={"directory": "/inbound/{{ delivery.date }}/new"})
    with pytest.raises(NoSuchPathError):
        send(missing, parcel)
    assert find(missing, parcel) is None
    send(missing.model_copy(update={"create_directory": True}), parcel)
    assert content == (harness.folder / "2026-01-31/new/leads.csv").read_bytes()


def test_a_server_without_plain_rename_gets_the_file_by_posix_rename(harness, parcel, content):
    harness.server.faults.rename = "unsupported"
    receipt = send(harness.destination, parcel)
    assert receipt.details["published"] == "posix-rename"
    assert {"leads.csv": content} == harness.visible()


def test_a_server_without_posix_rename_gets_the_file_by_rename(harness, parcel, content):
    harness.server.faults.posix_rename = "unsupported"
    send(harness.destination, parcel)
    assert {"leads.csv": content} == harness.visible()


def test_a_server_that_can_rename_in_no_way_fails_and_keeps_nothing(harness, parcel):
    harness.server.faults.rename = harness.server.faults.posix_rename = "fails"
    with pytest.raises(Exception, match="did not explain"):
        send(harness.destination, parcel)
    assert (harness.visible(), harness.remains()) == ({}, [])


def test_a_server_that_renames_and_answers_with_a_failure_has_the_file(harness, parcel, content):
    harness.server.faults.rename = "done but fails"
    send(harness.destination, parcel)
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("F03")
@pytest.mark.parametrize("how", ["rename", "done but fails"])
def test_a_server_that_takes_the_file_away_at_once_has_received_it(harness, parcel, content, tmp_path, how):
    (tmp_path / "taken").mkdir()
    harness.server.faults.moves_to = tmp_path / "taken"
    harness.server.faults.rename = how
    receipt = send(harness.destination, parcel)
    assert receipt.details["collected"]
    assert content == (tmp_path / "taken/leads.csv").read_bytes()


@pytest.mark.req("F03")
def test_where_files_are_collected_a_missing_file_is_no_proof(harness, parcel, content):
    collected = harness.destination.model_copy(update={"collected": True})
    with pytest.raises(OutcomeUnknownError, match="may have collected"):
        find(collected, parcel)
    harness.leave_partial(parcel, b"never finished")
    assert find(collected, parcel) is None


@pytest.mark.req("R143")
def test_a_cut_right_after_the_rename_is_found_out(harness, parcel, content):
    harness.server.faults.rename = "cut after"
    assert len(content) == send(harness.destination, parcel).size
    assert {"leads.csv": content} == harness.visible()


def test_a_cut_right_before_the_rename_leaves_nothing(harness, parcel):
    harness.server.faults.rename = "cut before"
    with pytest.raises(TransferInterruptedError) as caught:
        send(harness.destination, parcel)
    assert caught.value.retry
    assert (harness.visible(), harness.remains()) == ({}, [])


def test_a_cut_at_the_rename_with_nobody_to_ask_is_unknown(harness, parcel, monkeypatch):
    def rename(client, old, new):
        harness.wire.target = 1
        harness.wire.cut()
        raise EOFError

    monkeypatch.setattr(paramiko.SFTPClient, "rename", rename)
    with pytest.raises(OutcomeUnknownError):
        send(harness.destination, parcel)


@pytest.mark.req("R138", "F06")
def test_a_server_that_drops_bytes_silently_is_found_out(harness, parcel):
    harness.server.faults.truncates_at = 300_000
    with pytest.raises(TransferInterruptedError, match="of 600000 bytes"):
        send(harness.destination, parcel)
    assert (harness.visible(), harness.remains()) == ({}, [])


@pytest.mark.req("R138", "F06")
def test_what_arrives_can_be_read_back_before_it_gets_its_name(harness, parcel):
    checked = harness.destination.model_copy(update={"verify": "sha256"})
    assert parcel.file.sha256 == send(checked, parcel).sha256


@pytest.mark.req("R138", "F06")
def test_bytes_that_changed_on_the_way_are_found_out_by_reading_back(harness, parcel):
    def damage():
        for name in harness.remains():
            with (harness.folder / name).open("r+b") as file:
                file.write(b"XXXX")

    harness.server.faults.on_write = damage
    with pytest.raises(TransferInterruptedError, match="reads back differently"):
        send(harness.destination.model_copy(update={"verify": "sha256"}), parcel)
    assert (harness.visible(), harness.remains()) == ({}, [])


@pytest.mark.req("R200")
def test_a_full_disk_is_said(harness, parcel):
    harness.server.faults.room = 300_000
    with pytest.raises(QuotaError) as caught:
        send(harness.destination, parcel)
    assert not caught.value.retry
    assert (harness.visible(), harness.remains()) == ({}, [])


def test_a_login_that_may_not_list_can_still_deliver(harness, parcel, content):
    harness.server.faults.not_listable = True
    send(harness.destination, parcel)
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.parametrize("ask", [send, find])
def test_a_file_that_may_not_be_read_cannot_be_told_from_ours(harness, parcel, content, ask):
    harness.put("leads.csv", content)
    harness.server.faults.not_readable = True
    with pytest.raises(OutcomeUnknownError, match="may not be read"):
        ask(harness.destination, parcel)


@pytest.mark.req("R141")
def test_a_server_that_stops_reading_is_given_up(harness, parcel):
    harness.server.faults.stalls = True
    with pytest.raises((ConnectTimeoutError, TransferInterruptedError)) as caught:
        send(harness.destination.model_copy(update={"timeout": 1}), parcel)
    assert caught.value.retry
    assert harness.visible() == {}


def test_a_directory_in_the_place_of_the_file_is_a_conflict(harness, parcel):
    (harness.folder / "leads.csv").mkdir()
    with pytest.raises(Exception, match="something else already stands"):
        send(harness.destination, parcel)
    (harness.folder / "leads.csv").rmdir()


def test_a_relative_directory_starts_where_the_login_does(harness, parcel, content):
    receipt = send(harness.destination.model_copy(update={"directory": "inbound"}), parcel)
    assert {"leads.csv": content} == harness.visible()
    assert receipt.location.endswith("/./inbound/leads.csv")


def test_a_receipt_can_be_written_as_json(harness, parcel):
    json.dumps(dict(send(harness.destination, parcel).details))


def test_an_unknown_template_variable_is_refused_when_the_file_is_read():
    with pytest.raises(ValueError, match=r"delivery\.dat"):
        Sftp(id="buyer", connection="buyer", directory="/{{ delivery.dat }}")
