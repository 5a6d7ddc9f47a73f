"""The FTP destination on two real servers: the contract, TLS, ways to publish, and what servers do differently."""

import contextlib
import shutil
import ssl
import subprocess
import tempfile
import types
from pathlib import Path

import pytest

from contracts.destination_contract import Crash, FileStoreContract, Harness, send
from leadferry.destinations.ftp import Ftp
from leadferry.destinations.ftp.client import Client
from leadferry.errors import (
    PermanentDeliveryError,
    TransientDeliveryError,
)
from servers import ftp as servers


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
def harbour(tmp_path, connect, *, kind=FtpHarness, server=None, **settings):
    """Run the misbehaving server, unless there is another, and give its harness."""
    with contextlib.ExitStack() as stack:
        server = server or stack.enter_context(servers.receiver(tmp_path))
        wires = stack.enter_context(servers.Wires(server.port, server.passive))
        folder = server.root if server.root.name == "inbound" else server.root / "inbound"
        yield kind(server, wires, folder=folder, connect=connect, **settings)


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
        if parcel.key == "delivery 7, leads":
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


@pytest.fixture
def vsftpd_folder():
    if reason := servers.why_no_vsftpd():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="leadferry-vsftpd-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.req("R131", "R136")
class TestFtpOnVsftpd(FileStoreContract):
    """vsftpd refuses data connections that do not resume the TLS session."""

    @pytest.fixture
    def harness(self, vsftpd_folder, tmp_path, connect):
        with (
            servers.Vsftpd(vsftpd_folder) as running,
            harbour(tmp_path, connect, kind=VsftpdHarness, server=running) as made,
        ):
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
            subprocess.run(["umount", harness.folder], check=True)


@pytest.mark.req("R136")
def test_vsftpd_by_implicit_tls(vsftpd_folder, tmp_path, connect, parcel, content):
    with (
        servers.Vsftpd(vsftpd_folder, implicit=True) as running,
        harbour(tmp_path, connect, kind=VsftpdHarness, server=running, security="implicit_tls") as made,
    ):
        send(made.destination, parcel)
        assert {"leads.csv": content} == made.visible()
