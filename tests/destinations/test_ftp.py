"""The FTP destination on two real servers: the contract, TLS, ways to publish, and what servers do differently."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
import socket
import ssl
import subprocess
import tempfile
import types
from pathlib import Path

import pytest

from contracts.destination_contract import Crash, FileStoreContract, Harness, find, send
from leadferry.destinations.ftp import Ftp
from leadferry.destinations.ftp.client import Client
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectTimeoutError,
    DnsError,
    HostKeyError,
    NameConflictError,
    NoSuchPathError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    QuotaError,
    TransferInterruptedError,
    TransientDeliveryError,
)
from leadferry.local.certificates import certificates
from servers import ftp as servers
from servers.proxy import Wire
from servers.sender import LARGE, kill_while_sending, large_parcel


class FtpHarness(Harness):
    """A server whose root is a local folder, behind wires that can be cut."""

    def __init__(self, server, wires, *, folder, connect, **settings):
        self.server = server
        self.wires = wires
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        connect("buyer", server.announcement(), host=servers.NEAR, port=wires.port)
        connect("stranger", server.announcement(), host=servers.NEAR, port=wires.port, **self.stranger)
        settings = {"directory": "/inbound", "timeout": 20, **settings}
        self.destination = Ftp(id="buyer", connection="buyer", **settings)
        self.wrong_credentials = self.destination.model_copy(update={"connection": "stranger"})

    stranger = types.MappingProxyType({"password": "wrong horse"})

    def everything(self):
        """Return what is not hidden, markers too."""
        return {
            path.name: path.read_bytes() for path in self.folder.iterdir() if not path.name.startswith(".")
        }

    def visible(self):
        return {name: data for name, data in self.everything().items() if not name.endswith(".done")}

    def remains(self):
        return [path.name for path in self.folder.iterdir() if path.name.startswith(".")]

    def put(self, name, data):
        (self.folder / name).write_bytes(data)

    def leave_partial(self, parcel, data):
        self.put(parcel.temporary_name, data)

    def failing_half_way(self):
        return self.wires.cutting(300_000)

    def crashing(self, monkeypatch, *, when):
        really = Client.rename

        def rename(client, old, new):
            if when == "after":
                really(client, old, new)
            raise Crash

        monkeypatch.setattr(Client, "rename", rename)

    @contextlib.contextmanager
    def forbidden(self):
        self.server.faults.denies = True
        yield
        self.server.faults.denies = False


@contextlib.contextmanager
def harbour(tmp_path, connect, *, kind=FtpHarness, attributes=(), **settings):
    """Run the misbehaving server and give its harness."""
    with (
        servers.Wires() as wires,
        servers.receiver(tmp_path, passive_ports=wires.passive_ports, **dict(attributes)) as server,
    ):
        wires.control.target = server.port
        yield kind(server, wires, folder=server.root / "inbound", connect=connect, **settings)


@contextlib.contextmanager
def vsftpd_harbour(connect, *, implicit=False, **settings):
    """Run vsftpd and give its harness."""
    if reason := servers.why_no_vsftpd():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="leadferry-vsftpd-"))
    folder.chmod(0o755)
    with (
        servers.Wires() as wires,
        servers.Vsftpd(folder, passive_ports=wires.passive_ports, implicit=implicit) as server,
    ):
        wires.control.target = server.port
        yield VsftpdHarness(server, wires, folder=server.root, connect=connect, **settings)
    shutil.rmtree(folder)


@pytest.fixture
def harness(tmp_path, connect):
    with harbour(tmp_path, connect) as made:
        yield made


@pytest.mark.req("R131", "R136", "R137")
class TestFtp(FileStoreContract):
    pass


@pytest.mark.req("F05")
class TestByAnotherDirectory(FileStoreContract):
    @pytest.fixture
    def harness(self, tmp_path, connect):
        class Elsewhere(FtpHarness):
            def remains(self):
                return [path.name for path in (self.server.root / "tmp").iterdir()]

            def leave_partial(self, parcel, data):
                (self.server.root / "tmp" / parcel.temporary_name).write_bytes(data)

        where = {"publish": "temp_directory", "temporary_directory": "/tmp"}
        with harbour(tmp_path, connect, kind=Elsewhere, **where) as made:
            (made.server.root / "tmp").mkdir()
            yield made


class InSight(FtpHarness):
    hides_parts = False

    def crashing(self, monkeypatch, *, when):
        really = Client.upload
        last = ".done" if self.destination.publish == "direct_with_marker" else ".csv"

        def upload(client, name, blocks):
            if not name.endswith(last) or when == "after":
                really(client, name, blocks)
            if name.endswith(last):
                raise Crash

        monkeypatch.setattr(Client, "upload", upload)

    def leave_partial(self, parcel, data):
        self.put(parcel.file.name, data)


@pytest.mark.req("F05")
class TestInSight(FileStoreContract):
    """Everything but what cannot be promised where a file grows under its final name."""

    test_a_watcher_never_sees_a_part_under_the_final_name = None
    test_a_watcher_of_an_overwritten_name_sees_the_old_bytes_or_the_new_ones_and_nothing_else = None
    test_overwriting_that_breaks_in_the_middle_leaves_the_old_bytes = None

    @pytest.fixture(params=["direct", "direct_with_marker"])
    def harness(self, request, tmp_path, connect):
        with harbour(tmp_path, connect, kind=InSight, publish=request.param) as made:
            yield made


class VsftpdHarness(FtpHarness):
    stranger = types.MappingProxyType({"login": "stranger", "password": "wrong horse"})

    @contextlib.contextmanager
    def forbidden(self):
        shutil.chown(self.folder, "root")
        yield
        shutil.chown(self.folder, servers.OWNER)

    def put(self, name, data):
        super().put(name, data)
        shutil.chown(self.folder / name, servers.OWNER)


@pytest.mark.req("R131", "R136")
class TestFtpOnVsftpd(FileStoreContract):
    """vsftpd refuses data connections that do not resume the TLS session."""

    @pytest.fixture
    def harness(self, connect):
        with vsftpd_harbour(connect) as made:
            yield made

    def test_a_client_that_does_not_resume_the_session_is_refused(self, harness, parcel, monkeypatch):
        """The server really insists, so that the tests above prove something."""
        really = ssl.SSLContext.wrap_socket
        monkeypatch.setattr(
            ssl.SSLContext,
            "wrap_socket",
            lambda *args, **options: really(*args, **options | {"session": None}),
        )
        with pytest.raises(PermanentDeliveryError, match="FTP 522"):
            send(harness.destination, parcel)

    @pytest.mark.req("R200")
    def test_a_full_disk_is_tried_again_and_the_hint_says_what_it_may_be(self, harness, parcel):
        options = "size=256k,mode=0777"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", harness.folder], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("a small disk could not be mounted: run scripts/test as root with the right to mount")
        try:
            with pytest.raises(TransientDeliveryError, match="disk is full"):
                send(harness.destination, parcel)
            assert harness.remains() == []
        finally:
            # Lazily: the server's session may need a moment to leave the folder.
            subprocess.run(["umount", "--lazy", harness.folder], check=True)


@pytest.mark.req("R136")
def test_vsftpd_by_implicit_tls(connect, parcel, content):
    with vsftpd_harbour(connect, implicit=True, security="implicit_tls") as made:
        send(made.destination, parcel)
        assert {"leads.csv": content} == made.visible()


def directly(connect, server, **extra):
    """Define the connection `direct`, straight to a server."""
    return connect("direct", server.announcement(), extra=extra)


@pytest.mark.req("R136")
def test_implicit_tls(tmp_path, connect, parcel, content):
    with harbour(tmp_path, connect, attributes={"implicit": True}, security="implicit_tls") as made:
        receipt = send(made.destination, parcel)
        assert {"leads.csv": content} == made.visible()
        assert receipt.location.startswith("ftps://")


@pytest.mark.req("R136", "C11")
def test_every_data_connection_is_protected_and_resumes_the_session(harness, parcel, next_try):
    send(harness.destination, parcel)
    send(harness.destination, next_try(parcel))
    faults = harness.server.faults
    transfers = [one for one in faults.seen if one.split()[0] in {"STOR", "RETR", "MLSD"}]
    assert "PROT P" in faults.seen
    assert len(transfers) == len(faults.resumed) >= 4
    assert all(faults.resumed)


@pytest.mark.req("R136", "R218", "C11")
def test_nothing_secret_is_said_before_tls(harness, parcel):
    send(harness.destination, parcel)
    verbs = [one.split()[0] for one in harness.server.faults.seen]
    assert verbs.index("AUTH") < verbs.index("USER") < verbs.index("PASS")


@pytest.mark.req("R136", "R218")
@pytest.mark.parametrize("command", ["AUTH", "PROT", "PBSZ"])
def test_a_server_without_tls_gets_nothing(harness, parcel, command):
    harness.server.faults.without = (command,)
    with pytest.raises(PermanentDeliveryError) as caught:
        send(harness.destination, parcel)
    assert not caught.value.retry
    assert not [one for one in harness.server.faults.seen if one.startswith("STOR")]
    if command == "AUTH":
        assert "`security`" in str(caught.value)
        assert not [one for one in harness.server.faults.seen if one.startswith(("USER", "PASS"))]


@pytest.mark.req("F10", "R136", "C11")
def test_a_certificate_of_an_unknown_authority_is_refused(harness, connect, parcel, tmp_path):
    other = certificates(tmp_path / "state" / "..", name="other")
    connect("buyer", harness.server.announcement(), extra={"ca_file": str(other)})
    with pytest.raises(HostKeyError, match="ca_file"):
        send(harness.destination, parcel)
    assert not [one for one in harness.server.faults.seen if one.startswith(("USER", "PASS"))]


@pytest.mark.req("F10", "R136", "C11")
def test_a_certificate_for_another_host_is_refused(tmp_path, connect, parcel):
    with harbour(tmp_path, connect) as made:
        connect("buyer", made.server.announcement(), host="127.0.0.3", port=made.server.port)
        with (
            socket.create_server(("127.0.0.3", 0)) as listener,
            Wire(made.server.port, listener=listener) as wire,
        ):
            connect("buyer", made.server.announcement(), host="127.0.0.3", port=wire.port)
            with pytest.raises(HostKeyError, match="certificate"):
                send(made.destination, parcel)


@pytest.mark.req("F10")
def test_the_workers_own_authorities_decide_when_none_is_named(harness, connect, parcel):
    connect("buyer", harness.server.announcement(), extra={"ca_file": None})
    with pytest.raises(HostKeyError):
        send(harness.destination, parcel)


@pytest.mark.req("R136")
def test_the_authority_may_stand_in_the_config_folder(harness, connect, parcel, tmp_path, monkeypatch):
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "config"))
    (tmp_path / "config/certificates").mkdir(parents=True)
    shutil.copy(harness.server.ca_file, tmp_path / "config/certificates/buyer.pem")
    connect(
        "buyer",
        harness.server.announcement(),
        host=servers.NEAR,
        port=harness.wires.port,
        extra={"ca_file": None},
    )
    named = Ftp(id="a", connection="buyer", directory="/inbound", ca_file="certificates/buyer.pem")
    assert send(named, parcel).size == parcel.file.size
    (tmp_path / "config/certificates/buyer.pem").unlink()
    with pytest.raises(PermanentDeliveryError, match="ca_file"):
        send(named, parcel)


@pytest.mark.parametrize("path", ["/etc/ssl/ca.pem", "../ca.pem", "certificates/../../ca.pem"])
def test_an_authority_outside_the_config_folder_is_refused(path):
    with pytest.raises(ValueError, match="below the config folder"):
        Ftp(id="a", connection="b", ca_file=path)


def test_an_authority_that_is_not_there_is_told_when_the_file_is_read(tmp_path):
    (tmp_path / "empty.pem").touch()
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ValueError, match=r"cannot be read, or is no PEM"):
            Ftp.model_validate(
                {"id": "a", "type": "ftp", "connection": "b", "ca_file": name}, context={"config": tmp_path}
            )


def plain(**settings):
    return Ftp(
        id="a",
        connection="direct",
        security="none",
        allow_plaintext=True,
        plaintext_reason="a test",
        **settings,
    )


@pytest.mark.req("R135")
@pytest.mark.parametrize("passive", [True, False])
def test_plain_ftp_works_where_the_batch_allows_it(tmp_path, connect, parcel, content, passive):
    with servers.receiver(tmp_path) as server:
        directly(connect, server)
        receipt = send(plain(passive=passive), parcel)
        assert receipt.location.startswith("ftp://127.0.0.1")
        assert (server.root / "leads.csv").read_bytes() == content
        assert any(one.startswith("PASV" if passive else "PORT") for one in server.faults.seen)
        assert not any(one.startswith("AUTH") for one in server.faults.seen)


@pytest.mark.req("R135", "R218")
@pytest.mark.parametrize("given", [{}, {"allow_plaintext": True}, {"plaintext_reason": "why not"}])
def test_plain_ftp_needs_permission_and_a_reason(given):
    with pytest.raises(ValueError, match="plaintext_reason"):
        Ftp(id="a", connection="b", security="none", **given)


@pytest.mark.req("R218")
def test_a_server_that_wants_tls_says_so_to_a_plain_login(tmp_path, connect, parcel):
    with servers.receiver(tmp_path, tls_control_required=True) as server:
        directly(connect, server)
        with pytest.raises(PermanentDeliveryError, match="security: explicit_tls"):
            send(plain(), parcel)


def test_active_mode_over_tls_by_the_connections_extra(tmp_path, connect, parcel, content):
    with servers.receiver(tmp_path) as server:
        directly(connect, server, passive="false")
        send(Ftp(id="a", connection="direct"), parcel)
        assert (server.root / "leads.csv").read_bytes() == content
        assert any(one.startswith("PORT") for one in server.faults.seen)


@pytest.mark.req("R134", "C10")
def test_a_missing_directory_is_said_or_made(harness, parcel, content):
    missing = harness.destination.model_copy(update={"directory": "/inbound/{{ delivery.date }}/new"})
    with pytest.raises(NoSuchPathError):
        send(missing, parcel)
    assert find(missing, parcel) is None
    send(missing.model_copy(update={"create_directory": True}), parcel)
    assert content == (harness.folder / "2026-01-31/new/leads.csv").read_bytes()


@pytest.mark.req("R142", "C10")
def test_a_directory_that_may_not_be_made_is_said(harness, parcel):
    harness.server.faults.denies = True
    missing = harness.destination.model_copy(update={"directory": "/inbound/new", "create_directory": True})
    with pytest.raises(AccessDeniedError):
        send(missing, parcel)


def test_a_probe_takes_the_directories_that_it_made_away_again(harness, make_parcel):
    new = harness.destination.model_copy(update={"directory": "/inbound/a/b", "create_directory": True})
    with new.open() as session:
        session.probe(make_parcel(b"probe"))
    assert not (harness.folder / "a").exists()


def test_a_relative_directory_starts_where_the_login_does(harness, parcel, content):
    receipt = send(harness.destination.model_copy(update={"directory": "inbound"}), parcel)
    assert {"leads.csv": content} == harness.visible()
    assert receipt.location.endswith("/inbound/leads.csv")


OLD = {
    "no MLST": {"without": ("MLST",)},
    "no MLST, hidden names": {"without": ("MLST",), "hides": True},
    "no MLST, no SIZE": {"without": ("MLST", "SIZE"), "hides": True},
    "no FEAT": {"answers": {"FEAT": "500 What?"}, "hides": True},
    "no OPTS": {"answers": {"OPTS": "501 No."}},
    "no list": {"answers": {"MLSD": "550 No."}},
    "no list, no MLST": {"answers": {"NLST": "550 No."}, "without": ("MLST",)},
}


@pytest.mark.parametrize("lacks", OLD.values(), ids=OLD)
def test_servers_that_lack_something_get_the_file_once(harness, parcel, content, next_try, lacks):
    vars(harness.server.faults).update(lacks)
    can_list = "NLST" not in lacks.get("answers", {}) and "MLSD" not in lacks.get("answers", {})
    if can_list:
        harness.leave_partial(parcel, content[:1000])
    assert find(harness.destination, parcel) is None
    send(harness.destination, next_try(parcel))
    assert find(harness.destination, next_try(parcel)).sha256 == parcel.file.sha256
    assert {"leads.csv": content} == harness.visible()
    assert harness.remains() == []
    harness.put("leads.csv", content[:-1] + b"!")
    with pytest.raises(NameConflictError):
        send(harness.destination, next_try(parcel))


@pytest.mark.parametrize("lacks", [{}, {"without": ("MLST",)}], ids=["MLST", "SIZE"])
def test_a_directory_in_the_place_of_the_file_is_a_conflict(harness, parcel, lacks):
    vars(harness.server.faults).update(lacks)
    (harness.folder / "leads.csv").mkdir()
    for destination in (harness.destination, harness.overwriting):
        with pytest.raises(NameConflictError):
            send(destination, parcel)


def test_answers_in_another_encoding_do_not_matter(harness, parcel, content):
    harness.server.faults.answers["OPTS"] = "200 Einverst\udce4nden"
    send(harness.destination, parcel)
    assert {"leads.csv": content} == harness.visible()


def test_names_are_written_in_the_encoding_of_the_server(harness, make_parcel):
    latin = harness.destination.model_copy(update={"encoding": "latin-1"})
    with pytest.raises(PermanentDeliveryError, match="encoding"):
        send(latin, make_parcel(b"x", name="Лиды.csv"))


def test_an_unknown_encoding_is_refused():
    with pytest.raises(ValueError, match="no encoding that Python knows"):
        Ftp(id="a", connection="b", encoding="latin-one")


@pytest.mark.req("F05", "C08")
def test_a_server_that_does_not_replace_gets_the_old_file_removed_first(harness, parcel, content):
    harness.put("leads.csv", b"yesterday's")
    harness.server.faults.rename = "never replaces"
    receipt = send(harness.overwriting, parcel)
    assert receipt.details["published"] == "remove, then rename"
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("F05", "C08")
def test_a_server_that_never_renames_fails_and_keeps_nothing(harness, parcel, content):
    harness.server.faults.rename = "fails"
    with pytest.raises(AccessDeniedError):
        send(harness.destination, parcel)
    assert (harness.visible(), harness.remains()) == ({}, [])
    marked = harness.destination.model_copy(update={"publish": "direct_with_marker"})
    send(marked, parcel)
    assert {"leads.csv": content, "leads.csv.done": b""} == harness.everything()


@pytest.mark.req("F05", "C09")
def test_a_server_that_renames_and_answers_with_a_failure_has_the_file(harness, parcel, content):
    harness.server.faults.rename = "done but fails"
    send(harness.destination, parcel)
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("F05")
def test_temporary_names_begin_and_end_as_the_server_wants(harness, parcel, content):
    named = harness.destination.model_copy(update={"temporary_prefix": "tmp_", "temporary_suffix": ".txt"})
    harness.put(parcel.temporary(prefix="tmp_", suffix=".txt"), b"left")
    send(named, parcel)
    assert {"leads.csv": content} == harness.visible()
    (stored,) = [one for one in harness.server.faults.seen if one.startswith("STOR")]
    assert Path(stored).name.startswith("tmp_leads.csv.")
    assert stored.endswith(".1.txt")


@pytest.mark.req("F05", "C07")
def test_the_marker_comes_after_the_file_and_is_asked_for(harness, parcel, content):
    marked = harness.destination.model_copy(
        update={"publish": "direct_with_marker", "marker": "{{ file.name }}.ok"}
    )
    harness.put("leads.csv", content)
    assert find(marked, parcel) is None
    send(marked, parcel)
    stored = [Path(one).name for one in harness.server.faults.seen if one.startswith("STOR")]
    assert stored == ["leads.csv.ok"]
    assert find(marked, parcel).sha256 == parcel.file.sha256
    with marked.open() as session:
        session.remove(parcel)
    assert harness.everything() == {}


@pytest.mark.req("F05")
def test_a_marker_of_another_day_is_gone_before_the_file_grows(harness, parcel):
    marked = harness.destination.model_copy(update={"publish": "direct_with_marker"})
    harness.put("leads.csv.done", b"")
    with harness.failing_half_way(), pytest.raises(TransferInterruptedError):
        send(marked, parcel)
    assert harness.everything() == {}


@pytest.mark.req("F05")
@pytest.mark.parametrize("standing", [None, "ours"])
def test_something_else_under_the_name_of_the_marker_is_a_conflict(harness, parcel, content, standing):
    marked = harness.destination.model_copy(update={"publish": "direct_with_marker"})
    if standing:
        harness.put("leads.csv", content)
    harness.put("leads.csv.done", b"somebody's")
    with pytest.raises(NameConflictError, match=r"leads\.csv\.done"):
        send(marked, parcel)
    assert harness.everything()["leads.csv.done"] == b"somebody's"


def test_the_markers_name_may_be_made_of_all_that_is_known_of_the_file(harness, parcel):
    marker = "{{ file.name }}.{{ file.part }}of{{ file.parts }}"
    marked = harness.destination.model_copy(update={"publish": "direct_with_marker", "marker": marker})
    file = {"name": "rendered.csv", "part": 2, "parts": 3}
    send(marked, dataclasses.replace(parcel, variables={**parcel.variables, "file": file}))
    assert set(harness.everything()) == {"leads.csv", "leads.csv.2of3"}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"publish": "temp_directory"}, "only used together"),
        ({"temporary_directory": "/tmp"}, "only used together"),
        ({"marker": "{{ file.name }}.ok"}, "only used with"),
        ({"publish": "direct_with_marker", "marker": "done"}, "must be made of"),
        ({"publish": "direct_with_marker", "marker": "{{ file.name }}"}, "must be made of"),
        ({"directory": "/{{ delivery.dat }}"}, r"delivery\.dat"),
    ],
)
def test_keys_that_do_not_fit_are_refused_when_the_file_is_read(keys, told):
    with pytest.raises(ValueError, match=told):
        Ftp(id="a", connection="b", **keys)


@pytest.mark.req("F03", "C09")
@pytest.mark.parametrize("how", ["works", "done but fails"])
def test_a_server_that_takes_the_file_away_at_once_has_received_it(harness, parcel, content, tmp_path, how):
    (tmp_path / "taken").mkdir()
    harness.server.faults.moves_to = tmp_path / "taken"
    harness.server.faults.rename = how
    receipt = send(harness.destination.model_copy(update={"collected": True}), parcel)
    assert receipt.details["collected"]
    assert content == (tmp_path / "taken/leads.csv").read_bytes()


@pytest.mark.req("F03")
@pytest.mark.parametrize("publish", ["rename", "direct"])
def test_where_files_are_collected_a_missing_file_is_no_proof(harness, parcel, content, publish):
    collected = harness.destination.model_copy(update={"collected": True, "publish": publish})
    with pytest.raises(OutcomeUnknownError, match="may have collected"):
        find(collected, parcel)
    harness.put("leads.csv" if publish == "direct" else parcel.temporary_name, content[:1000])
    assert find(collected, parcel) is None


@pytest.mark.req("R143")
def test_a_cut_right_after_the_rename_is_found_out(harness, parcel, content):
    harness.server.faults.rename = "cut after"
    assert len(content) == send(harness.destination, parcel).size
    assert {"leads.csv": content} == harness.visible()


@pytest.mark.req("R143")
def test_a_cut_right_before_the_rename_leaves_nothing(harness, parcel):
    harness.server.faults.rename = "cut before"
    with pytest.raises(TransferInterruptedError) as caught:
        send(harness.destination, parcel)
    assert caught.value.retry
    assert (harness.visible(), harness.remains()) == ({}, [])


def test_a_cut_at_the_rename_with_nobody_to_ask_is_unknown(harness, parcel, monkeypatch):
    def rename(client, old, new):
        harness.wires.control.target = 1
        harness.wires.control.cut()
        raise EOFError

    monkeypatch.setattr(Client, "rename", rename)
    with pytest.raises(OutcomeUnknownError):
        send(harness.destination, parcel)


@pytest.mark.req("R138", "F06", "C02")
@pytest.mark.parametrize("publish", ["rename", "direct"])
def test_a_server_that_drops_bytes_silently_is_found_out(harness, parcel, publish):
    harness.server.faults.truncates_at = 300_000
    with pytest.raises(TransferInterruptedError, match="of 600000 bytes"):
        send(harness.destination.model_copy(update={"publish": publish}), parcel)
    assert (harness.visible(), harness.remains()) == ({}, [])


@pytest.mark.req("R138", "F06")
@pytest.mark.parametrize("feature", [None, "HASH SHA-1;SHA-256*", "XSHA256"])
@pytest.mark.parametrize("damages", [False, True], ids=["well", "damaged"])
def test_what_arrives_is_compared_by_hash_before_it_gets_its_name(harness, parcel, feature, damages):
    checked = harness.destination.model_copy(update={"verify": "sha256"})
    harness.server.faults.features = (feature,) if feature else ()
    harness.server.faults.damages = damages
    if damages:
        with pytest.raises(TransferInterruptedError, match="not what was sent"):
            send(checked, parcel)
        assert (harness.visible(), harness.remains()) == ({}, [])
    else:
        assert parcel.file.sha256 == send(checked, parcel).sha256
    read_back = any(one.startswith("RETR") for one in harness.server.faults.seen)
    assert read_back == (feature is None)


@pytest.mark.req("R200")
@pytest.mark.parametrize("reply", ["452 Insufficient storage space.", "552 Quota exceeded."])
def test_no_room_left_is_said(harness, parcel, reply):
    harness.server.faults.answers["STOR"] = reply
    with pytest.raises(QuotaError) as caught:
        send(harness.destination, parcel)
    assert not caught.value.retry
    assert (harness.visible(), harness.remains()) == ({}, [])


def test_a_disk_that_gets_full_leaves_nothing(harness, parcel):
    harness.server.faults.room = 300_000
    with pytest.raises(QuotaError):
        send(harness.destination, parcel)
    assert (harness.visible(), harness.remains()) == ({}, [])


@pytest.mark.parametrize("ask", [send, find])
def test_a_file_that_may_not_be_read_cannot_be_told_from_ours(harness, parcel, content, ask):
    harness.put("leads.csv", content)
    harness.server.faults.answers["RETR"] = "550 Permission denied."
    with pytest.raises(OutcomeUnknownError, match="may not be read"):
        ask(harness.destination, parcel)


@pytest.mark.req("R141")
def test_a_server_that_stops_reading_is_given_up(tmp_path, connect, make_parcel, content):
    with harbour(tmp_path, connect, timeout=1) as made:
        made.server.faults.stalls = True
        with pytest.raises((ConnectTimeoutError, TransferInterruptedError)) as caught:
            send(made.destination, make_parcel(content * 20))
        assert caught.value.retry
        assert made.visible() == {}


@pytest.mark.req("R141")
def test_a_server_that_never_greets_is_given_up(connect, parcel):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        announcement = {
            "connection": {"conn_type": "ftp", "host": "127.0.0.1", "port": listener.getsockname()[1]}
        }
        connect("silent", announcement)
        with pytest.raises(ConnectTimeoutError):
            send(Ftp(id="a", connection="silent", timeout=0.3), parcel)


@pytest.mark.req("R144")
def test_a_host_that_does_not_exist_is_said(connect, parcel):
    connect("nowhere", {"connection": {"conn_type": "ftp", "host": "ftp.acme.invalid"}})
    with pytest.raises(DnsError):
        send(Ftp(id="a", connection="nowhere"), parcel)


@pytest.mark.req("R144")
def test_an_unknown_connection_and_one_without_a_host_are_said(connect, parcel):
    with pytest.raises(PermanentDeliveryError, match="does not know this connection"):
        send(Ftp(id="a", connection="nobody_made_it"), parcel)
    connect("empty", {"connection": {"conn_type": "ftp"}})
    with pytest.raises(PermanentDeliveryError, match="has no host"):
        send(Ftp(id="a", connection="empty"), parcel)


@pytest.mark.req("R144")
@pytest.mark.parametrize(("security", "port"), [("explicit_tls", 21), ("implicit_tls", 990)])
def test_the_endpoint_has_the_usual_port_unless_the_connection_says_another(connect, security, port):
    connect("usual", {"connection": {"conn_type": "ftp", "host": "ftp.acme.example"}})
    destination = Ftp(id="a", connection="usual", security=security)
    assert destination.endpoint() == ("ftp.acme.example", port)
    connect("usual", {"connection": {"conn_type": "ftp", "host": "ftp.acme.example", "port": 2121}})
    assert destination.endpoint() == ("ftp.acme.example", 2121)


@pytest.mark.req("R140")
def test_a_changed_password_needs_no_change_of_the_batch(harness, connect, parcel):
    connect(
        "buyer", harness.server.announcement(), host=servers.NEAR, port=harness.wires.port, password="old"
    )
    with pytest.raises(AuthenticationError):
        send(harness.destination, parcel)
    connect("buyer", harness.server.announcement(), host=servers.NEAR, port=harness.wires.port)
    send(harness.destination, parcel)


@pytest.mark.req("R139")
def test_the_access_log_tells_every_step_and_no_secret(harness, parcel, caplog):
    caplog.set_level(logging.INFO, logger="leadferry.access")
    send(harness.destination, parcel)
    lines = [one.getMessage() for one in caplog.records if one.name == "leadferry.access"]
    assert [line.split()[0] for line in lines] == ["connect", "put", "rename", "close"]
    assert all(f"ftps://{servers.NEAR}:{harness.wires.port}" in line for line in lines)
    assert not any("correct horse" in line for line in lines)


def test_a_receipt_can_be_written_as_json(harness, parcel):
    json.dumps(dict(send(harness.destination, parcel).details))


@pytest.mark.req("F03", "R143", "C01")
@pytest.mark.parametrize("publish", ["rename", "direct"])
def test_after_a_kill_in_the_middle_of_a_large_upload_the_next_try_leaves_one_complete_file(
    harness, tmp_path, next_try, publish
):
    parcel = large_parcel(tmp_path)
    destination = harness.destination.model_copy(update={"publish": publish})
    kill_while_sending(
        destination,
        parcel,
        when=lambda: any(path.stat().st_size > LARGE // 4 for path in harness.folder.iterdir()),
    )
    left = harness.visible() if publish == "direct" else harness.remains()
    assert len(left) == 1

    assert find(destination, next_try(parcel)) is None
    send(destination, next_try(parcel))

    assert [path.name for path in harness.folder.iterdir()] == ["leads.csv"]
    with (harness.folder / "leads.csv").open("rb") as stored:
        assert hashlib.file_digest(stored, "sha256").hexdigest() == parcel.file.sha256
