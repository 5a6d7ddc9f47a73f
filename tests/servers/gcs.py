"""Google Cloud Storage: the emulator, made stricter where the real one is, and misbehaving on demand.

The emulator ignores `ifGenerationMatch`, takes anybody's requests and stores what is left of a request that was cut.
"""

import contextlib
import dataclasses
import functools
import http.server
import io
import itertools
import json
import re
import threading
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage
from google.auth import jwt

TOKEN = "a-token-of-the-ferry"


@dataclasses.dataclass
class Faults:
    answers: dict = dataclasses.field(default_factory=dict)
    """(status, reason) by HTTP method; not for tokens."""
    token: str = ""
    """What the token endpoint says instead of giving one."""
    drops_answer_to_upload: bool = False
    damages: bool = False
    """Changes a byte in the middle of every upload."""
    stalls: bool = False
    forgets_md5: bool = False
    """Describes every object as composed of others: without an MD5."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, key):
        self.storage = Storage(use_memory_fs=True)
        self.faults = Faults()
        self.key = key
        self.requests = []
        self.bodies = []
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.conditional = {}
        self.clock = lambda: datetime.now(UTC)
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, self.storage))
        self.port = self.server_address[1]

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path):
        request = urllib.request.Request(self.endpoint + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def described(self, bucket, name):
        return json.loads(self.ask(f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"))

    def objects(self, bucket):
        """Return everything that is in a bucket, by name; asked like any client would."""
        listed = json.loads(self.ask(f"/storage/v1/b/{bucket}/o")).get("items", [])
        names = [one["name"] for one in listed]
        quoted = {name: urllib.parse.quote(name, safe="") for name in names}
        return {
            name: self.ask(f"/download/storage/v1/b/{bucket}/o/{quoted[name]}?alt=media") for name in names
        }


class Handler(RequestHandler):
    def log_message(self, *_):
        pass

    def _serve(self, method, handle):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            return
        path, _, query = self.path.partition("?")
        self.asked = {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
        if path == "/token":
            self._token(body)
            return
        self.server.requests.append((method, path, self.asked))
        if refusal := self._refusal(method):
            self._answer(*refusal)
            return
        if self.server.faults.stalls:
            self.server.released.wait(timeout=30)
        upload = path.startswith("/upload/")
        self._really(handle, body, upload=upload)

    def _refusal(self, method):
        if (refused := self._not_let_in()) is not None:
            return refused
        answer = self.server.faults.answers.get(method)
        return answer and (answer[0], _error(*answer))

    def _not_let_in(self):
        if "X-Goog-Signature" in self.asked:
            signed = datetime.strptime(self.asked["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            over = signed + timedelta(seconds=int(self.asked["X-Goog-Expires"]))
            return (400, b"<Error><Code>ExpiredToken</Code></Error>") if self.server.clock() > over else None
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, _error(401, "authError")
        return None

    def _token(self, body):
        assertion = dict(urllib.parse.parse_qsl(body.decode()))["assertion"]
        try:
            jwt.decode(assertion, certs=public(self.server.key), clock_skew_in_seconds=60)
        except ValueError:
            problem = "Invalid JWT Signature."
        else:
            problem = self.server.faults.token
        if problem:
            told = {"error": "invalid_grant", "error_description": problem}
            self._answer(400, json.dumps(told).encode())
            return
        given = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        self._answer(200, json.dumps(given).encode())

    def _really(self, handle, body, *, upload):
        faults = self.server.faults
        with self.server.lock:
            if upload:
                self.server.bodies.append(body)
                if self._taken(body):
                    self._answer(412, _error(412, "conditionNotMet"))
                    return
                if faults.damages:
                    middle = len(body) // 2
                    body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
            said = self._let_the_emulator_answer(handle, body)
        if upload and faults.drops_answer_to_upload:
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if faults.forgets_md5:
            head, _, text = said.partition(b"\r\n\r\n")
            text = text.replace(b'"md5Hash"', b'"md5Hush"')
            said = head + b"\r\n\r\n" + text
        self.wfile.write(said)

    def _let_the_emulator_answer(self, handle, body):
        really, self.rfile, self.wfile = self.wfile, io.BytesIO(body), io.BytesIO()
        try:
            handle()
            said = self.wfile.getvalue()
        finally:
            self.wfile = really
        starts = self.command == "POST" and self.asked.get("uploadType") == "resumable"
        if starts and self.asked.get("ifGenerationMatch") == "0":
            upload_id = said.partition(b"upload_id=")[2].split()[0].decode()
            self.server.conditional[upload_id] = self._name(body)
        return said

    def _taken(self, body):
        """Tell whether the object must not exist and does; a part of an upload is asked only for the last one."""
        if upload_id := self.asked.get("upload_id"):
            if upload_id not in self.server.conditional or self.headers["Content-Range"].endswith("/*"):
                return False
            last, _, total = self.headers["Content-Range"].rpartition("-")[2].partition("/")
            if int(last) + 1 < int(total):
                return False
        elif self.asked.get("ifGenerationMatch") != "0":
            return False
        name = self.server.conditional.get(self.asked.get("upload_id")) or self._name(body)
        bucket = self.path.partition("/b/")[2].partition("/")[0]
        try:
            self.server.storage.get_file_obj(bucket, name)
        except Exception:  # noqa: BLE001  (the emulator's own class for what is not there)
            return False
        return True

    def _name(self, body):
        return self.asked.get("name") or re.search(rb'"name": ?"([^"]+)"', body)[1].decode()

    def _answer(self, status, body):
        self.send_response(int(status))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _served(method):
    really = getattr(RequestHandler, f"do_{method}")

    def serve(handler):
        handler._serve(method, functools.partial(really, handler))

    return serve


for _method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(Handler, f"do_{_method}", _served(_method))


def _error(status, reason):
    told = {"code": int(status), "message": reason, "errors": [{"reason": reason, "message": reason}]}
    return json.dumps({"error": told}).encode()


@functools.cache
def private_key(name):
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key):
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*kinds).decode()


def public(key):
    kinds = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(*kinds).decode()


def announcement(port, *, key):
    """Return the Airflow connection for the server on a port, with a service account's key."""
    endpoint = f"http://127.0.0.1:{port}"
    account = {
        "type": "service_account",
        "client_email": "ferry@acme.example",
        "private_key": pem(key),
        "private_key_id": "1",
        "project_id": "acme",
        "token_uri": f"{endpoint}/token",
    }
    extra = {"keyfile_dict": json.dumps(account), "project": "acme", "api_endpoint": endpoint}
    return {"connection": {"conn_type": "google_cloud_platform", "extra": extra}}


_numbers = itertools.count()


@contextlib.contextmanager
def receiver():
    with Server(private_key("ferry")) as server:
        server.bucket = f"leads-{next(_numbers)}"
        server.storage.create_bucket(
            server.bucket, {"name": server.bucket, "location": "EUROPE-WEST3", "kind": "storage#bucket"}
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join(timeout=30)
