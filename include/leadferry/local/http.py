"""A buyer's API for the try-out and the tests: `python -m leadferry.local.http --root DIR --state DIR`.

It takes leads at any path as JSON, form or XML, keeps every accepted request in the inbox, answers with an id of its
own, and knows a repeated request by its `Idempotency-Key`.
"""

from __future__ import annotations

import argparse
import hmac
import itertools
import json
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from leadferry.local.background import Receiver, private_folder, serve
from leadferry.local.certificates import certificates

HOST = "127.0.0.1"
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, read completely."""

    method: str
    path: str
    """With the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    stored: Path
    """The body."""

    @property
    def body(self) -> bytes:
        """The body, in memory."""
        return self.stored.read_bytes()


@dataclass(frozen=True, kw_only=True)
class Response:
    """What the buyer answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(document: Any, *, status: int = 200, **headers: str) -> Response:
    """Return an answer in JSON; underscores in names of headers are dashes."""
    told = {
        "Content-Type": "application/json",
        **{name.replace("_", "-"): one for name, one in headers.items()},
    }
    return Response(status=status, body=json.dumps(document).encode(), headers=told)


class HttpReceiver(Receiver):
    """An HTTP server on 127.0.0.1, with TLS and a certificate authority of its own.

    Args:
        root: the inbox: a file for each accepted request.
        state: where the authority's certificate stays, so that it is the same after a restart.
        token: what `Authorization: Bearer` must carry; None takes everybody.
        port: 0 takes a free one.
        tls: whether it speaks https.
    """

    def __init__(
        self, *, root: Path, state: Path, token: str | None = None, port: int = 0, tls: bool = True
    ) -> None:
        self.root = root
        self.port = port
        self.token = token
        self._state = private_folder(state)
        self.ca_file = certificates(self._state, name="http") if tls else None
        # After a restart, what arrived before keeps its name.
        arrived = [int(path.stem) for path in root.glob("*.*") if path.stem.isdigit()]
        self._numbers = itertools.count(max(arrived, default=0) + 1)
        self._answered: dict[str, Response] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Listen."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._server = _Server((HOST, self.port), self)
        if self.ca_file is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._state / "http.pem", self._state / "http.key")
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening and hang up."""
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join(timeout=30)

    def announcement(self) -> dict[str, Any]:
        """Say the port and the Airflow connection."""
        connection = {
            "conn_type": "http",
            "host": HOST,
            "port": self.port,
            "schema": "http" if self.ca_file is None else "https",
            "login": "leadferry",
            "password": self.token,
            "extra": {} if self.ca_file is None else {"ca_file": str(self.ca_file)},
        }
        return {"port": self.port, "connection": connection}

    def stored_at(self) -> Path:
        """Return a place for the next body, out of the inbox."""
        return self._state / f"{next(self._numbers):09d}.body"

    def answer(self, request: Request) -> Response:
        """Answer one request; tests hand in buyers that misbehave."""
        given = request.headers.get("authorization", "")
        if self.token is not None and not hmac.compare_digest(
            given.encode(), f"Bearer {self.token}".encode()
        ):
            return as_json({"error": "who are you?"}, status=401)
        if request.method == "OPTIONS":  # the doctor looks whether somebody is there; nothing has arrived
            return Response(status=204)
        key = request.headers.get("idempotency-key", "")
        with self._lock:
            if key and key in self._answered:
                return self._answered[key]
            kept = self._keep(request)
            answer = as_json({"result": "accepted", "id": kept.stem}, status=201)
            if key:
                self._answered[key] = answer
            return answer

    def _keep(self, request: Request) -> Path:
        kind = re.search(r"/([\w.-]+)", request.headers.get("content-type", ""))
        ending = {"json": "json", "xml": "xml"}.get(kind[1] if kind else "", "txt")
        path = self.root / f"{request.stored.stem}.{ending}"
        shutil.move(request.stored, path)
        return path


class _Server(ThreadingHTTPServer):
    """Keeps its open connections, to cut them at the end."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], receiver: HttpReceiver) -> None:
        super().__init__(address, _Handler)
        self.receiver = receiver
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Cut what is open."""
        for one in list(self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it went by itself

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    """Reads a request whole, then asks the receiver for the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: _Server

    def do_POST(self) -> None:
        """Take a request."""
        receiver = self.server.receiver
        stored = receiver.stored_at()
        try:
            if not self._read_into(stored):
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(method=self.command, path=self.path, headers=headers, stored=stored)
            self.reply(receiver.answer(request))
        finally:
            stored.unlink(missing_ok=True)

    do_PUT = do_PATCH = do_OPTIONS = do_POST  # noqa: N815  (the base class's names)

    def reply(self, answer: Response) -> None:
        """Send the answer."""
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def _read_into(self, path: Path) -> bool:
        """Store the body; tells whether it came whole."""
        left = int(self.headers.get("Content-Length", 0))
        with path.open("wb") as out:
            while left and (block := self.rfile.read(min(left, _BLOCK))):
                out.write(block)
                left -= len(block)
        return not left

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        """Write no log: paths may hold a lead's data."""


def main(arguments: list[str] | None = None) -> None:
    """Run the receiver until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the inbox")
    parser.add_argument("--state", type=Path, required=True, help="where the certificate stays")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--token", default=None, help="what clients must send as bearer token")
    chosen = parser.parse_args(arguments)
    serve(HttpReceiver(root=chosen.root, state=chosen.state, port=chosen.port, token=chosen.token))


if __name__ == "__main__":
    main()
