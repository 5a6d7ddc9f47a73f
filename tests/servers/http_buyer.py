"""A buyer's API that can be told to misbehave: real sockets, real TLS."""

import json
import socket
import struct
import threading
import time

from leadferry.local.http import HttpReceiver, Request, Response, as_json


class Buyer(HttpReceiver):
    """Answers as it is told, request by request, and remembers every request and every accepted lead.

    `script` holds what to do with the next requests; when it is empty, `usual` answers. An entry is a Response, a
    function of the request, or CUT.
    """

    def __init__(self, **keys):
        super().__init__(**keys)
        self.requests = []
        self.bodies = []
        self.script = []
        self.usual = self.accept
        self.accepted = []
        self.by_key = {}
        self.at_once = 0
        self.most_at_once = 0
        self.times = []
        self._mutex = threading.Lock()

    def answer(self, request: Request) -> Response:
        with self._mutex:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.times.append(time.monotonic())
            self.requests.append(request)
            self.bodies.append(request.body)
            told = self.script.pop(0) if self.script else self.usual
        try:
            return told(request) if callable(told) else told
        finally:
            with self._mutex:
                self.at_once -= 1

    def accept(self, request):
        """Take what comes, once for each key."""
        with self._mutex:
            key = request.headers.get("idempotency-key")
            if key not in self.by_key:
                document = json.loads(request.body)
                several = document if isinstance(document, list) else [document]
                self.accepted += [int(one["Lead"]) for one in several]
                results = [
                    {"lead": one["Lead"], "result": "accepted", "id": f"B{one['Lead']}"} for one in several
                ]
                self.by_key[key] = {"results": results} if isinstance(document, list) else results[0]
            return as_json(self.by_key[key])

    @property
    def documents(self):
        return [json.loads(one) for one in self.bodies]


class CutError(Exception):
    """The buyer hangs up instead of answering."""


def cut(request):
    """Hang up without an answer."""
    raise CutError


def then_cut(buyer):
    """Take the leads, then hang up: the answer is lost."""

    def act(request):
        buyer.accept(request)
        raise CutError

    return act


def wait_for(event):
    """Answer only when told."""

    def act(request):
        event.wait(30)
        raise CutError

    return act


class NoServer:
    """A port on which something listens that is no HTTP server."""

    def __init__(self, behave):
        self._behave = behave
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                found, _ = self._socket.accept()
            except OSError:
                return
            with found:
                self._behave(found)

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


def reset(found):
    """Read something, then cut the connection hard."""
    found.recv(65536)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def babble(found):
    """Answer in no protocol at all."""
    found.recv(65536)
    found.sendall(b"220 hello, this is no web server\r\n")


def drop(found):
    """Hang up at once."""


def half(found):
    """Promise more than comes."""
    found.recv(65536)
    found.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


def silent(found):
    """Read and never answer; ends when the client has had enough."""
    found.settimeout(10)
    while found.recv(65536):
        pass
