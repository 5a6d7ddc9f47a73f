"""A real Postfix on a free port of this machine: it keeps mail for `acme.example` in a folder. Needs root."""

import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time

from leadferry.local.certificates import certificates
from servers import ports

POSTFIX = "/usr/sbin/postfix"

MAIN = """\
compatibility_level = 3.6
queue_directory = {root}/spool
data_directory = {root}/data
maillog_file = /dev/stdout
maillog_file_prefixes = /dev, {root}
myhostname = mail.acme.example
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
message_size_limit = 200000
smtpd_recipient_limit = 5
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {root}/tls/smtp.pem
smtpd_tls_key_file = {root}/tls/smtp.key
virtual_mailbox_domains = acme.example
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = inline:{{ {{ leads@acme.example = leads/ }} {{ boss@acme.example = boss/ }} }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
"""

MASTER = """\
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""


def why_none():
    """Say how to get Postfix, or None when it is there."""
    if not pathlib.Path(POSTFIX).exists():
        return "Postfix is not installed: apt-get install postfix"
    if os.geteuid() != 0:
        return "Postfix is tested as root only: run scripts/test as root, for example in a container"
    return None


class Postfix:
    def __init__(self, root, port):
        self.root = root
        self.port = port

    def messages(self, mailbox, *, count=1):
        """Every message in a mailbox; waits until there are `count`, because Postfix delivers after it has answered."""
        deadline = time.monotonic() + 30
        folder = self.root / "mail" / mailbox / "new"
        while len(found := sorted(folder.glob("*"))) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return [path.read_bytes() for path in found]

    def announcement(self):
        extra = {
            "disable_ssl": True,
            "from_email": "ferry@leadferry.example",
            "ca_file": str(self.root / "tls" / "ca.pem"),
        }
        return {"connection": {"conn_type": "smtp", "host": "localhost", "port": self.port, "extra": extra}}


@contextlib.contextmanager
def receiver():
    with ports.kept_free() as port, _running(port) as server:
        yield server


@contextlib.contextmanager
def _running(port):
    owner = pwd.getpwnam("postfix")
    root = pathlib.Path(tempfile.mkdtemp(prefix="leadferry-postfix-"))
    root.chmod(0o755)
    for name in ("etc", "spool", "data", "mail", "tls"):
        (root / name).mkdir(mode=0o755)
    for name in ("data", "mail"):
        os.chown(root / name, owner.pw_uid, owner.pw_gid)
    certificates(root / "tls", name="smtp")
    values = {"root": root, "port": port, "uid": owner.pw_uid, "gid": owner.pw_gid}
    (root / "etc" / "main.cf").write_text(MAIN.format(**values))
    (root / "etc" / "master.cf").write_text(MASTER.format(**values))
    command = [POSTFIX, "-c", str(root / "etc")]
    with (root / "log").open("wb") as log:
        # In a session of its own: stopping Postfix ends everything in its process group.
        server = subprocess.Popen([*command, "start-fg"], stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(port)
        yield Postfix(root, port)
    finally:
        subprocess.run([*command, "stop"], check=False, capture_output=True)
        server.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _wait_for(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as greeted:
                assert greeted.recv(3) == b"220"
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
