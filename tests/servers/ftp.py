"""FTP servers: one that misbehaves on demand, and vsftpd."""

import contextlib
import dataclasses
import hashlib
import logging
import os
import random
import shutil
import socket
from pathlib import Path

from OpenSSL import SSL
from pyftpdlib.filesystems import AbstractedFS
from pyftpdlib.handlers import TLS_DTPHandler, TLS_FTPHandler

from leadferry.local.certificates import certificates
from leadferry.local.ftps import FtpsReceiver
from servers.inetd import Inetd
from servers.proxy import Wire

VSFTPD = "/usr/sbin/vsftpd"
NEAR = "127.0.0.2"
"""Where clients connect to: wires that can be cut, each with the port number of what it leads to on 127.0.0.1."""

PASSIVE_PORTS = 8

OWNER = "daemon"
"""As whom vsftpd stores files: a user without rights whose home folder exists, on which vsftpd insists."""

# Its words about single transfers are of no interest, and it would configure logging for everybody.
logging.getLogger("pyftpdlib").addHandler(logging.NullHandler())
logging.getLogger("pyftpdlib").propagate = False


@dataclasses.dataclass
class Faults:
    """What the server does wrong; everything off at first."""

    denies: bool = False
    room: int | None = None
    """Bytes until the disk is full."""
    truncates_at: int | None = None
    """Says yes to every byte, keeps only these."""
    damages: bool = False
    """Keeps other bytes than it was sent."""
    moves_to: Path | None = None
    """Takes a file away as soon as it has its final name."""
    rename: str = "works"
    """works | fails | never replaces | cut before | cut after | done but fails"""
    answers: dict = dataclasses.field(default_factory=dict)
    """What is answered instead of carrying out a command."""
    features: tuple = ()
    """More lines of FEAT."""
    without: tuple = ()
    """Commands that this server does not have."""
    no_session_reuse: bool = False
    seen: list = dataclasses.field(default_factory=list)
    """Every command with its argument."""
    resumed: list = dataclasses.field(default_factory=list)
    """For each data connection, whether it resumed a TLS session."""
    stalls: bool = False
    hides: bool = False
    """Shows names with a dot in front only to `NLST -a`."""


class Disk:
    """An open file on a disk with faults."""

    def __init__(self, file, faults):
        self._file = file
        self._faults = faults
        self._written = 0

    def write(self, data):
        self._written += len(data)
        if self._faults.truncates_at is not None and self._written > self._faults.truncates_at:
            return
        self._file.write(b"X" * len(data) if self._faults.damages else data)

    def __getattr__(self, name):
        return getattr(self._file, name)


class Data(TLS_DTPHandler):
    """Data connections that may have to resume the session of the control connection."""

    def handle_ssl_established(self):
        # pyOpenSSL has no method for it.
        reused = bool(SSL._lib.SSL_session_reused(self.socket._ssl))
        self.cmd_channel.faults.resumed.append(reused)
        if self.cmd_channel.reuse_required and not reused:
            self._resp = ("522 SSL connection failed; session reuse required", logging.debug)
            self.close()

    def handle_read_event(self):
        faults = self.cmd_channel.faults
        if self._ssl_established and faults.stalls:
            return
        if faults.room is not None and self.tot_bytes_received > faults.room:
            # pyftpdlib itself answers nothing when a file cannot be written under TLS.
            self._resp = ("452 Insufficient storage space.", logging.debug)
            self.close()
            return
        super().handle_read_event()


class Misbehaving(TLS_FTPHandler):
    faults: Faults
    reuse_required = True
    dtp_handler = Data
    use_sendfile = False
    auth_failed_timeout = 0
    implicit = False
    proto_cmds = TLS_FTPHandler.proto_cmds | {
        name: {"perm": "r", "auth": True, "arg": True, "help": name} for name in ("HASH", "XSHA256")
    }

    def handle(self):
        if self.implicit:
            self.secure_connection(self.ssl_context)
        else:
            super().handle()

    def handle_ssl_established(self):
        if self.implicit:
            super().handle()

    def process_command(self, cmd, *args, **kwargs):
        faults = self.faults
        faults.seen.append(" ".join((cmd, *map(str, args))))
        if cmd in faults.answers:
            self.respond(faults.answers[cmd])
        elif cmd in faults.without:
            self.respond(f"500 {cmd} not understood.")
        elif faults.denies and cmd in {"STOR", "MKD", "DELE"}:
            self.respond("550 Permission denied.")
        else:
            super().process_command(cmd, *args, **kwargs)

    def pre_process_command(self, line, cmd, arg):
        self.line = line
        if cmd == "NLST" and arg == "-a":
            self.shows_all, arg = True, ""
        else:
            self.shows_all = False
        super().pre_process_command(line, cmd, arg)

    def ftp_FEAT(self, line):  # noqa: ARG002, N802  (pyftpdlib's names, here and below)
        known = {"MLST", "UTF8", "SIZE", "TVFS"} - set(self.faults.without)
        lines = ["MLST type*;size*;", "UTF8", "SIZE", "TVFS", *self.faults.features]
        shown = [one for one in lines if one.split()[0] in known or one in self.faults.features]
        self.push("211-Features supported:\r\n" + "".join(f" {one}\r\n" for one in shown))
        self.respond("211 End FEAT.")

    def ftp_RNTO(self, path):  # noqa: N802
        how = self.faults.rename
        if how == "fails" or (how == "never replaces" and os.path.lexists(path)):
            self._rnfr = None
            self.respond("550 Rename failed.")
            return
        if how == "cut before":
            self.close()
            return
        source, self._rnfr = self._rnfr, None
        Path(source).rename(path)
        if self.faults.moves_to:
            shutil.move(path, self.faults.moves_to)
        if how == "cut after":
            self.close()
        else:
            self.respond("550 Rename failed." if how == "done but fails" else "250 Renaming ok.")

    def ftp_OPTS(self, line):  # noqa: N802
        if line.upper() == "HASH SHA-256":
            self.respond("200 SHA-256")
        else:
            super().ftp_OPTS(line)

    def ftp_HASH(self, path):  # noqa: N802
        self.respond(f"213 SHA-256 0-1 {_sha256(path)} {Path(path).name}")

    def ftp_XSHA256(self, path):  # noqa: N802
        self.respond(f"250 {_sha256(path).upper()}")


def _sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Files(AbstractedFS):
    def open(self, filename, mode):
        file = super().open(filename, mode)
        return Disk(file, self.cmd_channel.faults) if "w" in mode else file

    def listdir(self, path):
        faults = self.cmd_channel.faults
        names = super().listdir(path)
        return [one for one in names if self.cmd_channel.shows_all or not (faults.hides and one[0] == ".")]


Misbehaving.abstracted_fs = Files


class Wires:
    """Wires to a server's control port and to ports for its data connections, that can be cut.

    The ports for data are taken here first, so that nobody else gets them; the server uses the same numbers.
    """

    def __init__(self):
        self._listeners = _listeners()
        self.passive_ports = [one.getsockname()[1] for one in self._listeners]
        self.control = Wire(None, listener=socket.create_server((NEAR, 0)))
        self.port = self.control.port
        self.data = [
            Wire(port, listener=listener)
            for port, listener in zip(self.passive_ports, self._listeners, strict=True)
        ]

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for wire in (self.control, *self.data):
                stack.enter_context(wire)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    @contextlib.contextmanager
    def cutting(self, after):
        """Cut each data connection after so many bytes from the client."""
        with contextlib.ExitStack() as stack:
            for wire in self.data:
                stack.enter_context(wire.cutting(after))
            yield


def _listeners():
    """Listen on ports in a row, below those that the system gives to clients."""
    while True:
        first = random.randrange(20000, 32000, PASSIVE_PORTS)
        with contextlib.ExitStack() as stack:
            try:
                found = [
                    stack.enter_context(socket.create_server((NEAR, first + offset)))
                    for offset in range(PASSIVE_PORTS)
                ]
            except OSError:
                continue
            stack.pop_all()
            return found


@contextlib.contextmanager
def receiver(folder, *, passive_ports=None, **attributes):
    """Run the receiver with a root under `folder`; its `faults` can be set while it runs."""
    faults = Faults()
    handler = type("Handler", (Misbehaving,), {"faults": faults, "shows_all": False, **attributes})
    with FtpsReceiver(
        root=folder / "root",
        state=folder / "state",
        passwords={"ferry": "correct horse"},
        passive_ports=passive_ports,
        addresses=("127.0.0.1", NEAR),
        handler=handler,
    ) as server:
        server.faults = faults
        yield server


def why_no_vsftpd():
    """Say how to get vsftpd, or None when it is there."""
    if not Path(VSFTPD).exists():
        return "vsftpd is not installed: apt-get install vsftpd"
    if os.geteuid() != 0:
        return "vsftpd is tested as root only: run scripts/test as root, for example in a container"
    return None


class Vsftpd(Inetd):
    """One vsftpd per connection, as inetd starts it, so that no port must be guessed; everybody is `anonymous`."""

    def __init__(self, folder, *, passive_ports, implicit=False):
        self.folder = folder
        self.root = folder / "root" / "inbound"
        self.root.mkdir(parents=True)
        # vsftpd goes only into a root that the login cannot write to.
        self.root.parent.chmod(0o755)
        shutil.chown(self.root, OWNER)
        (folder / "empty").mkdir()
        self.ca_file = certificates(folder, name="ftps", addresses=("127.0.0.1", NEAR))
        self._write_config(passive_ports, implicit=implicit)

    def _write_config(self, passive_ports, *, implicit):
        settings = {
            "listen": "NO",
            "seccomp_sandbox": "NO",
            "secure_chroot_dir": self.folder / "empty",
            "ftp_username": OWNER,
            "anon_root": self.root.parent,
            "anon_umask": "022",
            "pasv_min_port": min(passive_ports),
            "pasv_max_port": max(passive_ports),
            "rsa_cert_file": self.folder / "ftps.pem",
            "rsa_private_key_file": self.folder / "ftps.key",
            "implicit_ssl": "YES" if implicit else "NO",
            "xferlog_enable": "NO",
        }
        allowed = (
            "anonymous_enable",
            "no_anon_password",
            "write_enable",
            "anon_upload_enable",
            "anon_mkdir_write_enable",
            "anon_other_write_enable",
            "ssl_enable",
            "allow_anon_ssl",
            "force_anon_logins_ssl",
            "force_anon_data_ssl",
            "require_ssl_reuse",
            "strict_ssl_read_eof",
        )
        settings |= dict.fromkeys(allowed, "YES") | {"anon_world_readable_only": "NO"}
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        (self.folder / "config").write_text("".join(lines))

    def command(self):
        return [VSFTPD, str(self.folder / "config")]

    def announcement(self):
        extra = {"ca_file": str(self.ca_file)}
        return {"connection": {"conn_type": "ftp", "host": "127.0.0.1", "port": self.port, "extra": extra}}
