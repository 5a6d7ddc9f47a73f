"""SFTP servers: one that misbehaves on demand, and OpenSSH's own."""

import asyncio
import contextlib
import dataclasses
import os
import pwd
import re
import shutil
from pathlib import Path

import asyncssh

from leadferry.local.sftp import Files, SftpReceiver
from servers.inetd import Inetd

SSHD = "/usr/sbin/sshd"


@dataclasses.dataclass
class Faults:
    """What the server does wrong; everything off at first."""

    denies: bool = False
    room: int | None = None
    """Bytes until the disk is full."""
    truncates_at: int | None = None
    """Says yes to every byte, keeps only these."""
    moves_to: Path | None = None
    """Takes a file away as soon as it has its final name."""
    rename: str = "works"
    """works | unsupported | forbidden | fails | cut before | cut after | done but fails"""
    posix_rename: str = "works"
    takes_only: str = ".*"
    """Pattern of the names that may be written."""
    makes_no_directories: bool = False
    removes_nothing: bool = False
    collects_to: Path | None = None
    """Takes a file away as soon as it was written and closed, under whatever name."""
    converts: bool = False
    """Stores line ends of its own."""
    not_readable: bool = False
    not_listable: bool = False
    stalls: bool = False
    on_write: object = None


class Misbehaving(Files):
    faults: Faults

    def __init__(self, channel):
        super().__init__(channel)
        self.writing = {}

    def open(self, path, pflags, attrs):
        writes = pflags & (asyncssh.FXF_WRITE | asyncssh.FXF_CREAT)
        if (self.faults.denies and writes) or (self.faults.not_readable and not writes):
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        if writes and not re.fullmatch(self.faults.takes_only, path.decode().rpartition("/")[2]):
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        opened = super().open(path, pflags, attrs)
        if writes:
            self.writing[opened] = Path(self.map_path(path).decode())
        return opened

    def close(self, file_obj):
        super().close(file_obj)
        written = self.writing.pop(file_obj, None)
        if written and self.faults.converts:
            written.write_bytes(written.read_bytes().replace(b"\n", b"\r\n"))
        if written and self.faults.collects_to:
            shutil.move(written, self.faults.collects_to)

    def remove(self, path):
        if self.faults.removes_nothing:
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        super().remove(path)

    async def write(self, file_obj, offset, data):
        faults = self.faults
        if faults.stalls:
            try:
                await asyncio.Event().wait()
            finally:
                file_obj.close()
        if faults.room is not None and offset + len(data) > faults.room:
            raise asyncssh.SFTPFailure("No space left on device")
        if faults.truncates_at is not None and offset + len(data) > faults.truncates_at:
            return len(data)
        if faults.on_write:
            faults.on_write()
        return super().write(file_obj, offset, data)

    def scandir(self, path):
        if self.faults.not_listable:
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        return super().scandir(path)

    def mkdir(self, path, attrs):
        if self.faults.denies or self.faults.makes_no_directories:
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        return super().mkdir(path, attrs)

    def rename(self, oldpath, newpath):
        self._renamed(self.faults.rename, super().rename, oldpath, newpath)

    def posix_rename(self, oldpath, newpath):
        self._renamed(self.faults.posix_rename, super().posix_rename, oldpath, newpath)

    def _renamed(self, how, really, oldpath, newpath):
        if how == "unsupported":
            raise asyncssh.SFTPOpUnsupported("Operation unsupported")
        if how == "forbidden":
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        if how == "fails":
            raise asyncssh.SFTPFailure("Failure")
        if how == "cut before":
            self.channel.get_connection().abort()
            return
        really(oldpath, newpath)
        if self.faults.moves_to:
            shutil.move(self.map_path(newpath).decode(), self.faults.moves_to)
        if how == "cut after":
            self.channel.get_connection().abort()
        if how == "done but fails":
            raise asyncssh.SFTPFailure("Failure")


@contextlib.contextmanager
def receiver(folder, **options):
    """Run the receiver with a root under `folder`; its `faults` can be set while it runs."""
    faults = Faults()
    options = {"passwords": {"ferry": "correct horse"}, **options}
    files = type("Files", (Misbehaving,), {"faults": faults})
    with SftpReceiver(root=folder / "root", state=folder / "state", files=files, **options) as server:
        server.faults = faults
        yield server


def why_no_openssh():
    """Say how to get OpenSSH's server, or None when it is there."""
    if not Path(SSHD).exists():
        return "OpenSSH's server is not installed: apt-get install openssh-server"
    if os.geteuid() != 0:
        return "OpenSSH's server is tested as root only: run scripts/test as root, for example in a container"
    return None


class OpenSsh(Inetd):
    """One `sshd -i` per connection, so that no port must be guessed; logs in as `nobody` by key."""

    host_key: str

    def __init__(self, folder):
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir(mode=0o755)
        nobody = pwd.getpwnam("nobody")
        os.chown(self.root, nobody.pw_uid, nobody.pw_gid)
        # sshd gives up its rights in here; packages make it at boot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        host, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        (folder / "host").touch(mode=0o600)
        (folder / "host").write_bytes(host.export_private_key())
        (folder / "authorized").write_bytes(client.export_public_key())
        self.host_key = " ".join(host.export_public_key().decode().split()[:2])
        self.private_key = client.export_private_key().decode()
        self._write_config()

    def _write_config(self):
        (self.folder / "config").write_text(
            f"HostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nSubsystem sftp internal-sftp\nForceCommand internal-sftp\nLogLevel QUIET\n"
        )

    def command(self):
        return [SSHD, "-i", "-f", str(self.folder / "config")]

    def announcement(self):
        extra = {"host_key": self.host_key, "private_key": self.private_key, "look_for_keys": False}
        return {
            "connection": {
                "conn_type": "sftp",
                "host": "127.0.0.1",
                "port": self.port,
                "login": "nobody",
                "extra": extra,
            }
        }
