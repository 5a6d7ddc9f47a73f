"""Azurite, Microsoft's own emulator of Azure Blob Storage, and a front that misbehaves on demand."""

import base64
import contextlib
import dataclasses
import http.client
import http.server
import itertools
import re
import shutil
import subprocess
import threading
from pathlib import Path

from azure.storage.blob import BlobServiceClient

ACCOUNT = "ferry"
KEY = base64.b64encode(b"the key of an account of the tests" * 2).decode()
OTHER_KEY = base64.b64encode(b"wrong horse" * 6).decode()

_numbers = itertools.count()


def program():
    """Return the path of Azurite, None if it is not installed."""
    local = Path(__file__).parents[2] / ".leadferry/azurite/node_modules/.bin/azurite-blob"
    return str(local) if local.exists() else shutil.which("azurite-blob")


@contextlib.contextmanager
def azurite(folder):
    """Run Azurite on a free port; yields its port."""
    command = [
        program(),
        *("--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"),
        *("--skipApiVersionCheck", "--disableTelemetry", "--silent"),
    ]
    environment = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}", "PATH": _path()}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _port(process)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _path():
    return f"{shutil.which('node').rpartition('/')[0]}:/usr/bin:/bin"


def _port(process):
    for line in process.stdout:
        if found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise AssertionError("Azurite ended before it listened")


@dataclasses.dataclass
class Faults:
    answers: dict = dataclasses.field(default_factory=dict)
    """(status, code) by HTTP method."""
    drops_answer_to_put: bool = False
    damages: bool = False
    stalls: bool = False


class Front(http.server.ThreadingHTTPServer):
    """Hands requests on to Azurite."""

    daemon_threads = True

    def __init__(self, target):
        self.target = target
        self.faults = Faults()
        self.requests = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), FrontHandler)
        self.port = self.server_address[1]

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class FrontHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        faults = self.server.faults
        if faults.stalls:
            self.server.released.wait(timeout=30)
        if self.command in faults.answers:
            status, code = faults.answers[self.command]
            told = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
            self._answer(
                status, [("x-ms-error-code", code), ("Content-Type", "application/xml")], told.encode()
            )
            return
        if faults.damages and self.command == "PUT" and body:
            body = body[::-1]
        self._hand_on(body)

    def _hand_on(self, body):
        onward = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=30)
        with contextlib.closing(onward):
            onward.request(self.command, self.path, body=body, headers=dict(self.headers))
            answer = onward.getresponse()
            told = answer.read()
        if self.command == "PUT" and self.server.faults.drops_answer_to_put:
            self.close_connection = True
            self.connection.shutdown(2)
            return
        kept = [one for one in answer.getheaders() if one[0].lower() not in _OWN]
        self._answer(answer.status, kept, told, length=answer.getheader("Content-Length"))

    def _answer(self, status, headers, body, *, length=None):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        empty = self.command == "HEAD"
        self.send_header("Content-Length", (length or "0") if empty else str(len(body)))
        self.end_headers()
        if not empty:
            self.wfile.write(body)


_OWN = {"content-length", "transfer-encoding", "connection", "keep-alive"}

for _method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
    setattr(FrontHandler, f"do_{_method}", FrontHandler._serve)


class Account:
    """An account in Azurite with a container of its own, behind a front."""

    def __init__(self, port, front):
        self.port = port
        self.front = front
        self.faults = front.faults
        self.container = f"leads-{next(_numbers)}"
        self.client = BlobServiceClient(
            f"http://127.0.0.1:{port}/{ACCOUNT}", credential={"account_name": ACCOUNT, "account_key": KEY}
        )
        self.client.create_container(self.container)

    def blob(self, name):
        return self.client.get_blob_client(self.container, name)

    def objects(self):
        """Return everything that is in the container, by name; asked of Azurite itself."""
        container = self.client.get_container_client(self.container)
        return {name: container.download_blob(name).readall() for name in container.list_blob_names()}


def announcement(port, **changes):
    """Return the Airflow connection for the account at a port."""
    connection = {
        "conn_type": "wasb",
        "host": f"http://127.0.0.1:{port}/{ACCOUNT}",
        "login": ACCOUNT,
        "password": KEY,
        "extra": {},
    }
    return {"connection": {**connection, **changes}}


@contextlib.contextmanager
def receiver(port):
    """Put a front before Azurite, and make a container."""
    with Front(port) as front:
        thread = threading.Thread(target=front.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        account = Account(port, front)
        try:
            yield account
        finally:
            account.client.close()
            front.released.set()
            front.shutdown()
            thread.join(timeout=30)
