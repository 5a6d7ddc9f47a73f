"""The SFTP destination on two real servers: the contract, logging in, and what servers do differently."""

import contextlib
import json
import logging
import re
import shutil
import tempfile
from pathlib import Path

import asyncssh
import paramiko
import pytest

from contracts.destination_contract import Crash, FileStoreContract, Harness, find, send
from leadferry.destinations import sftp
from leadferry.destinations.sftp import Sftp
from leadferry.errors import (
    AuthenticationError,
    ConnectTimeoutError,
    DeliveryError,
    HostKeyError,
    NameConflictError,
    NoSuchPathError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    QuotaError,
    TransferInterruptedError,
)
from servers import sftp as servers
from servers.proxy import Wire

PUBLISH = {
    "rename": {},
    "temp_directory": {"temporary_directory": "/uploads"},
    "direct": {},
    "direct_with_marker": {},
}
"""Every way of publishing, with the keys that it needs."""


class SftpHarness(Harness):
    """A server whose root is a local folder, behind a wire that can be cut."""

    def __init__(self, server, wire, *, directory, folder, connect):
        self.server = server
        self.wire = wire
        self.folder = self.uploads = folder
        folder.mkdir(parents=True, exist_ok=True)
        connect("buyer", server.announcement(), port=wire.port)
        self.destination = Sftp(id="buyer", connection="buyer", directory=directory, timeout=20)

    def publishing(self, how, *, uploads=None):
        """Publish in another way."""
        keys = {**self.destination.model_dump(mode="json"), **PUBLISH[how], "publish": how}
        if how == "temp_directory" and uploads:
            self.uploads = uploads
            uploads.mkdir(exist_ok=True)
        self.destination = Sftp.model_validate(keys)
        self.hides_parts = not how.startswith("direct")
        self.shows_only_complete = how != "direct"
        self.waits_for_marker = how == "direct_with_marker"
        return self

    waits_for_marker = False

    def visible(self):
        """What a recipient reads who ignores hidden files and waits for the marker, where one is agreed."""
        there = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        if self.waits_for_marker:
            there = {name.removesuffix(".done") for name in there if name.endswith(".done")}
        return {name: (self.folder / name).read_bytes() for name in sorted(there)}

    def remains(self):
        """Hidden files, files in the temporary directory, and files without the marker that belongs to them."""
        here = {path.name for path in self.folder.iterdir()}
        hidden = [name for name in here if name.startswith(".")]
        if self.uploads != self.folder:
            hidden += [path.name for path in self.uploads.iterdir()]
        if self.waits_for_marker:
            files = {name for name in here if not name.endswith(".done")}
            hidden += files ^ {name.removesuffix(".done") for name in here - files}
        return sorted(hidden)

    def put(self, name, data):
        (self.folder / name).write_bytes(data)
        if self.waits_for_marker:
            (self.folder / f"{name}.done").touch()

    def leave_partial(self, parcel, data):
        if self.hides_parts:
            (self.uploads / parcel.temporary_name).write_bytes(data)
        else:
            (self.folder / parcel.file.name).write_bytes(data)

    def failing_half_way(self):
        return self.wire.cutting(300_000)

    def crashing(self, monkeypatch, *, when):
        """Crash around the one step that counts: the rename, the marker, or the last byte."""
        owner, names = paramiko.SFTPClient, ("rename", "posix_rename")
        if self.waits_for_marker:
            owner, names = sftp.Remote, ("put",)
        elif not self.hides_parts:
            owner, names = sftp.SftpSession, ("_upload",)
        for name in names:
            monkeypatch.setattr(owner, name, self._crash(getattr(owner, name), when=when))

    def _crash(self, really, *, when):
        def step(one, path, *args, **keys):
            counts = not self.waits_for_marker or path.endswith(".done")
            if counts and when == "before":
                raise Crash
            really(one, path, *args, **keys)
            if counts:
                raise Crash

        return step

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
class TestSftp(FileStoreContract):
    pass


@pytest.mark.req("F05")
@pytest.mark.parametrize("how", ["temp_directory", "direct", "direct_with_marker"])
class TestWaysOfPublishing(FileStoreContract):
    @pytest.fixture
    def harness(self, harness, server, how):
        return harness.publishing(how, uploads=server.root / "uploads")


class OpenSshHarness(SftpHarness):
    @contextlib.contextmanager
    def forbidden(self):
        shutil.chown(self.folder, "root")
        yield
        shutil.chown(self.folder, "nobody")

    def put(self, name, data):
        super().put(name, data)
        self._give_away()

    def leave_partial(self, parcel, data):
        super().leave_partial(parcel, data)
        self._give_away()

    def _give_away(self):
        for path in self.folder.iterdir():
            shutil.chown(path, "nobody")


@pytest.fixture
def openssh():
    if reason := servers.why_no_openssh():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="leadferry-sshd-"))
    folder.chmod(0o755)
    with servers.OpenSsh(folder) as running:
        yield running
    shutil.rmtree(folder)


class TestSftpOnOpenSsh(FileStoreContract):
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

    @pytest.mark.req("F05")
    @pytest.mark.parametrize("how", PUBLISH)
    @pytest.mark.parametrize("standing", [None, b"yesterday's"], ids=["free", "overwriting"])
    def test_every_way_of_publishing_works_on_openssh(  # noqa: PLR0913, PLR0917  (parameters and fixtures)
        self, harness, openssh, parcel, content, next_try, how, standing
    ):
        uploads = openssh.root / "uploads"
        harness.publishing(how, uploads=uploads if how == "temp_directory" else None)
        if how == "temp_directory":
            shutil.chown(uploads, "nobody")
            harness.destination = _with(harness.destination, temporary_directory=str(uploads))
            harness.folder = openssh.root / "inbound"
            harness.folder.mkdir()
            shutil.chown(harness.folder, "nobody")
            harness.destination = _with(harness.destination, directory=str(harness.folder))
        if standing:
            harness.put("leads.csv", standing)
        destination = (
            _with(harness.destination, on_name_taken="overwrite") if standing else harness.destination
        )
        send(destination, parcel)
        assert harness.visible() == {"leads.csv": content}
        assert find(destination, next_try(parcel)).sha256 == parcel.file.sha256
        harness.leave_partial(parcel.named("next.csv"), content[:1000])
        send(destination, next_try(parcel).named("next.csv"))
        assert harness.visible() == {"leads.csv": content, "next.csv": content}
        assert harness.remains() == []

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


@pytest.mark.req("R132")
@pytest.mark.parametrize(
    ("real", "stored"), [(" correct horse ", " correct horse "), ("correct horse", "correct horse\n")]
)
def test_a_password_logs_in_with_the_spaces_at_its_edges_and_without_a_line_end(  # noqa: PLR0913, PLR0917  (parameters and fixtures)
    tmp_path, connect, parcel, content, real, stored
):
    with servers.receiver(tmp_path, passwords={"ferry": real}) as server:
        connect("buyer", server.announcement(), password=stored)
        send(Sftp(id="buyer", connection="buyer"), parcel)
        assert content == (server.root / "leads.csv").read_bytes()


@pytest.mark.req("R140")
def test_a_connection_that_changed_between_runs_needs_nothing_else(tmp_path, connect, parcel, content):
    frozen = Sftp(id="buyer", connection="buyer").model_dump(mode="json")
    with servers.receiver(tmp_path) as server:
        connect("buyer", server.announcement())
        send(Sftp.model_validate(frozen), parcel)
        server.passwords["ferry"] = "battery staple"
        (server.root / "leads.csv").unlink()
        with pytest.raises(AuthenticationError):
            send(Sftp.model_validate(frozen), parcel)
        connect("buyer", server.announcement())
        send(Sftp.model_validate(frozen), parcel)
        assert content == (server.root / "leads.csv").read_bytes()


@pytest.mark.req("R144")
def test_each_stage_of_a_connection_that_fails_has_an_error_of_its_own(harness, server, connect, parcel):
    """What a preflight shows: name, port, host key, login, path, right to write; and that all is well."""
    stage = {}
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with Wire(1) as nobody:
        changes = {
            "dns": {"host": "sftp.acme.invalid"},
            "silent": {"port": nobody.port},
            "host key": {"extra": {"host_key": " ".join(other.split()[:2])}},
            "login": {"password": "wrong horse"},
        }
        for name, change in changes.items():
            connect("buyer", server.announcement(), **{"port": harness.wire.port, **change})
            stage[name] = _preflight(harness.destination, parcel)
    connect("buyer", server.announcement())
    stage["path"] = _preflight(harness.destination.model_copy(update={"directory": "/nowhere"}), parcel)
    with harness.forbidden():
        stage["write"] = _preflight(harness.destination, parcel)
    assert stage == {
        "dns": "dns",
        "silent": "busy",
        "host key": "host_key",
        "login": "auth",
        "path": "no_such_path",
        "write": "permission",
    }
    assert _preflight(harness.destination, parcel) == "a file was written, published and removed"
    assert harness.visible() == {}


def _preflight(destination, parcel):
    try:
        with destination.open() as session:
            return session.probe(parcel)
    except DeliveryError as error:
        return error.code


@pytest.mark.req("R144", "R131")
def test_the_endpoint_is_what_the_connection_says_with_the_usual_port_for_none(server, connect):
    destination = Sftp(id="buyer", connection="buyer")
    connect("buyer", server.announcement(), host="sftp.acme.example", port=2022)
    assert destination.endpoint() == ("sftp.acme.example", 2022)
    connect("buyer", server.announcement(), host="sftp.acme.example", port=None)
    assert destination.endpoint() == ("sftp.acme.example", 22)
    with pytest.raises(PermanentDeliveryError, match="does not know this connection"):
        Sftp(id="buyer", connection="nobody").endpoint()


def test_a_probe_takes_the_directories_with_it_that_it_had_to_make(harness, parcel):
    deep = _with(harness.destination, directory="/a/b", create_directory=True)
    deep = _with(deep, publish="temp_directory", temporary_directory="/a/c")
    with deep.open() as session:
        session.probe(parcel)
    assert sorted(path.name for path in harness.server.root.iterdir()) == ["inbound"]


@pytest.mark.req("R139")
@pytest.mark.parametrize("how", PUBLISH)
def test_the_access_log_tells_everything_that_was_done_in_order_and_no_secret(  # noqa: PLR0913, PLR0917  (fixtures)
    harness, server, parcel, content, caplog, how
):
    harness.publishing(how, uploads=server.root / "uploads")
    caplog.set_level(logging.INFO, logger="leadferry.access")
    with harness.destination.open() as session:
        session.send(parcel)
        session.remove(parcel)
    lines = [one.getMessage() for one in caplog.records if one.name == "leadferry.access"]
    done = ["put", "rename", "remove"] if harness.hides_parts else ["put", "remove"]
    if harness.waits_for_marker:
        done = ["put", "put", "remove", "remove"]
    assert [line.split()[0] for line in lines] == ["connect", *done, "close"]
    place = rf"sftp://127\.0\.0\.1:{harness.wire.port}"
    assert all(re.fullmatch(rf"\w+ {place}\S* ok ((\d+) bytes )?\d+\.\d+ s", line) for line in lines), lines
    assert f" {len(content)} bytes " in lines[1]
    assert not any("ferry" in line or "horse" in line for line in lines)


@pytest.mark.req("F10", "C11")
def test_an_unknown_host_key_is_refused_by_default(server, connect, parcel):
    connect("buyer", server.announcement(), extra={"host_key": None})
    with pytest.raises(HostKeyError):
        send(Sftp(id="buyer", connection="buyer"), parcel)


@pytest.mark.req("F10", "C11")
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


@pytest.mark.req("R134", "C10")
def test_a_missing_directory_is_said_or_made(harness, parcel, content):
    missing = harness.destination.model_copy(update={"directory": "/inbound/{{ delivery.date }}/new"})
    with pytest.raises(NoSuchPathError):
        send(missing, parcel)
    assert find(missing, parcel) is None
    send(missing.model_copy(update={"create_directory": True}), parcel)
    assert content == (harness.folder / "2026-01-31/new/leads.csv").read_bytes()


@pytest.mark.req("C08")
def test_a_server_without_plain_rename_gets_the_file_by_posix_rename(harness, parcel, content):
    harness.server.faults.rename = "unsupported"
    receipt = send(harness.destination, parcel)
    assert receipt.details["published"] == "posix-rename"
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("C08")
def test_a_server_without_posix_rename_gets_the_file_by_rename(harness, parcel, content):
    harness.server.faults.posix_rename = "unsupported"
    send(harness.destination, parcel)
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("F05", "C08")
@pytest.mark.parametrize("how", ["fails", "forbidden", "unsupported"])
def test_a_server_that_can_rename_in_no_way_fails_says_the_remedy_and_keeps_nothing(harness, parcel, how):
    harness.server.faults.rename = harness.server.faults.posix_rename = how
    with pytest.raises(DeliveryError, match="publish: direct") as caught:
        send(harness.destination, parcel)
    assert caught.value.retry == (how == "fails")
    assert (harness.visible(), harness.remains()) == ({}, [])


_CHARACTERS = {
    "no plain rename": ({"rename": "unsupported"}, {}),
    "no posix-rename": ({"posix_rename": "unsupported"}, {}),
    "no posix-rename, overwriting": ({"posix_rename": "unsupported"}, {"on_name_taken": "overwrite"}),
    "renames and says it did not": ({"rename": "done but fails"}, {}),
    "forbids rename": ({"rename": "forbidden", "posix_rename": "forbidden"}, {"publish": "direct"}),
    "forbids rename, marker": (
        {"rename": "fails", "posix_rename": "unsupported"},
        {"publish": "direct_with_marker"},
    ),
    "forbids hidden names": ({"takes_only": r"[^.].*"}, {"temporary_prefix": "", "temporary_suffix": ".tmp"}),
    "takes only csv": (
        {"takes_only": r"\w.*\.csv"},
        {"temporary_prefix": "tmp_", "temporary_suffix": ".csv"},
    ),
    "forbids mkdir": ({"makes_no_directories": True}, {"create_directory": True}),
    "forbids listing": ({"not_listable": True}, {}),
    "forbids removing": ({"removes_nothing": True}, {}),
}
"""What real servers refuse, and the keys with which they get their file all the same."""


@pytest.mark.req("F05")
@pytest.mark.parametrize("character", _CHARACTERS)
def test_a_server_with_a_character_of_its_own_gets_the_file_with_the_right_keys(
    harness, parcel, content, next_try, character
):
    faults, keys = _CHARACTERS[character]
    vars(harness.server.faults).update(faults)
    destination = harness.destination.model_copy(update=keys)
    send(destination, parcel)
    assert find(destination, next_try(parcel)).sha256 == parcel.file.sha256
    there = harness.visible()
    there.pop("leads.csv.done", None)
    assert there == {"leads.csv": content}


@pytest.mark.req("F05")
def test_a_server_that_takes_every_file_away_at_once_gets_it_from_another_directory(
    harness, parcel, content, server, tmp_path
):
    """Whatever it sees in the inbox it takes, hidden or not; elsewhere it does not look."""
    harness.publishing("temp_directory", uploads=server.root / "uploads")
    (tmp_path / "taken").mkdir()
    server.faults.moves_to = tmp_path / "taken"
    collected = harness.destination.model_copy(update={"collected": True})
    assert send(collected, parcel).details["collected"]
    assert content == (tmp_path / "taken/leads.csv").read_bytes()
    assert harness.remains() == []


@pytest.mark.req("F05")
@pytest.mark.parametrize("collected", [True, False])
def test_a_file_that_is_collected_before_it_can_be_verified_is_proven_by_the_answers_to_its_blocks(
    harness, parcel, content, tmp_path, collected
):
    harness.publishing("direct")
    (tmp_path / "taken").mkdir()
    harness.server.faults.collects_to = tmp_path / "taken"
    destination = harness.destination.model_copy(update={"collected": collected})
    if collected:
        assert "answer to each block" in send(destination, parcel).details["verified"]
    else:
        with pytest.raises(OutcomeUnknownError, match="collected: true"):
            send(destination, parcel)
    assert content == (tmp_path / "taken/leads.csv").read_bytes()


@pytest.mark.req("F05", "F06")
@pytest.mark.parametrize("how", PUBLISH)
def test_a_server_that_converts_line_ends_is_believed_its_answers(harness, make_parcel, server, how):
    harness.publishing(how, uploads=server.root / "uploads")
    server.faults.converts = True
    parcel = make_parcel(b"a\nb\n")
    with pytest.raises(TransferInterruptedError, match="6 of 4 bytes"):
        send(harness.destination, parcel)
    assert (harness.visible(), harness.remains()) == ({}, [])
    receipt = send(harness.destination.model_copy(update={"verify": "answers"}), parcel)
    assert "answer to each block" in receipt.details["verified"]
    assert receipt.sha256 is None
    assert harness.visible() == {"leads.csv": b"a\r\nb\r\n"}


def test_with_answers_a_full_disk_is_said_by_the_first_block_that_does_not_fit(harness, parcel):
    harness.server.faults.room = 300_000
    with pytest.raises(QuotaError):
        send(harness.destination.model_copy(update={"verify": "answers"}), parcel)
    assert (harness.visible(), harness.remains()) == ({}, [])


@pytest.mark.req("F05", "F01")
@pytest.mark.parametrize("how", PUBLISH)
def test_a_process_that_dies_at_any_request_leaves_one_complete_file_after_the_next_try(  # noqa: PLR0913, PLR0917  (parameters and fixtures)
    harness, make_parcel, server, next_try, monkeypatch, how
):
    harness.publishing(how, uploads=server.root / "uploads")
    for number in range(1, 40):
        data = b"%d\n" % number * 1000
        parcel = make_parcel(data, name=f"leads_{number}.csv", key=f"delivery {number}")
        with monkeypatch.context() as patch:
            _die_before(patch, number)
            try:
                send(harness.destination, parcel)
            except Crash:
                died = True
            else:
                died = False
        if harness.shows_only_complete:
            assert harness.visible().get(parcel.file.name, data) == data
        found = find(harness.destination, next_try(parcel))
        assert found is None or harness.visible()[parcel.file.name] == data
        assert harness.remains() == []
        send(harness.destination, next_try(parcel))
        assert harness.visible()[parcel.file.name] == data
        if not died:
            break
    assert not died
    assert number > 5, "so few requests cannot be all"


def _die_before(patch, number):
    """End the process before its n-th request, as far as a server can tell: the wire is gone as well.

    After a request is before the next one.
    """
    really = paramiko.SFTPClient._async_request
    left = [number]

    def request(client, *args):
        left[0] -= 1
        if left[0] <= 0:
            client.get_channel().get_transport().close()
            raise Crash
        return really(client, *args)

    patch.setattr(paramiko.SFTPClient, "_async_request", request)


@pytest.mark.req("F05", "C07")
def test_the_marker_appears_when_the_file_is_verified_and_is_named_as_the_batch_says(
    harness, parcel, content
):
    harness.publishing("direct_with_marker")
    marked = harness.destination.model_copy(update={"marker": "{{ file.name | replace('.csv', '') }}.ok"})
    harness.server.faults.truncates_at = 300_000
    with pytest.raises(TransferInterruptedError):
        send(marked, parcel)
    assert list(harness.folder.iterdir()) == []
    harness.server.faults.truncates_at = None
    receipt = send(marked, parcel.named("leads_2.csv"))
    assert receipt.details["marker"].endswith("/inbound/leads_2.ok")
    there = {path.name: path.read_bytes() for path in harness.folder.iterdir()}
    assert there == {"leads_2.csv": content, "leads_2.ok": b""}


@pytest.mark.req("F05")
def test_a_marker_from_another_day_is_withdrawn_before_the_file_grows(harness, parcel):
    harness.publishing("direct_with_marker")
    marker = harness.folder / "leads.csv.done"
    marker.touch()
    seen = []
    harness.server.faults.on_write = lambda: seen.append(marker.exists())
    send(harness.destination, parcel)
    assert set(seen) == {False}
    assert marker.exists()


@pytest.mark.req("F05")
@pytest.mark.parametrize("standing", [None, "ours"])
def test_something_else_under_the_name_of_the_marker_is_a_conflict(harness, parcel, content, standing):
    harness.publishing("direct_with_marker")
    if standing:
        (harness.folder / "leads.csv").write_bytes(content)
    (harness.folder / "leads.csv.done").write_bytes(b"somebody's")
    with pytest.raises(NameConflictError, match=r"leads\.csv\.done"):
        send(harness.destination, parcel)
    assert (harness.folder / "leads.csv.done").read_bytes() == b"somebody's"


@pytest.mark.parametrize("marker", ["{{ file.name }}", "done", "sub/{{ file.name }}"])
def test_a_marker_that_could_not_be_told_from_others_is_refused(harness, parcel, marker):
    with pytest.raises((ValueError, NoSuchPathError), match="marker"):
        send(_with(harness.destination, publish="direct_with_marker", marker=marker), parcel)
    assert harness.visible() == {}


@pytest.mark.parametrize(
    "keys",
    [
        {"publish": "temp_directory"},
        {"temporary_directory": "/uploads"},
        {"marker": "{{ file.name }}.ok"},
        {"temporary_prefix": "sub/"},
        {"max_bytes_per_second": "1B"},
        {"timeout": 0},
    ],
)
def test_keys_that_do_not_fit_are_refused_when_the_file_is_read(keys):
    with pytest.raises(ValueError, match="|".join([*keys, "together", "marker"])):
        Sftp.model_validate({"id": "buyer", "connection": "buyer", **keys})


def test_the_pace_survives_json_as_people_write_it():
    paced = Sftp(id="buyer", connection="buyer", max_bytes_per_second="500KB")
    assert paced.max_bytes_per_second == 500_000
    assert Sftp.model_validate(paced.model_dump(mode="json")) == paced


def _with(destination, **keys):
    return Sftp.model_validate({**destination.model_dump(mode="json"), **keys})


@pytest.mark.req("C09")
def test_a_server_that_renames_and_answers_with_a_failure_has_the_file(harness, parcel, content):
    harness.server.faults.rename = "done but fails"
    send(harness.destination, parcel)
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("F03", "C09")
@pytest.mark.parametrize("how", ["rename", "done but fails"])
def test_a_server_that_takes_the_file_away_at_once_has_received_it(harness, parcel, content, tmp_path, how):
    (tmp_path / "taken").mkdir()
    harness.server.faults.moves_to = tmp_path / "taken"
    harness.server.faults.rename = how
    receipt = send(harness.destination, parcel)
    assert receipt.details["collected"]
    assert content == (tmp_path / "taken/leads.csv").read_bytes()


@pytest.mark.req("F03", "C09")
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


@pytest.mark.req("R138", "F06", "C02")
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
        send(harness.destination.model_copy(update={"timeout": 0.4}), parcel)
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
