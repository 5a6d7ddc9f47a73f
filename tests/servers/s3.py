"""An S3 store that misbehaves on demand."""

import contextlib
import dataclasses
import io
import itertools
import threading

from leadferry.local.s3 import S3Receiver, refuse

_numbers = itertools.count()


@dataclasses.dataclass
class Faults:
    answers: dict = dataclasses.field(default_factory=dict)
    """(status, code) by HTTP method."""
    condition: str = "works"
    """works | unsupported (501) | ignored: what the store does with If-None-Match."""
    drops_answer_to_put: bool = False
    stalls: bool = False
    region: str = ""
    """What the store says that the bucket's region is."""
    damages: bool = False
    """Keeps other bytes of the same length."""


class Misbehaving:
    def __init__(self, store):
        self.store = store
        self.faults = Faults()
        self.requests = []
        self.released = threading.Event()

    def __call__(self, environ, start):
        method = environ["REQUEST_METHOD"]
        self.requests.append(method)
        if self.faults.stalls:
            self.released.wait(timeout=30)
        if method in self.faults.answers:
            status, code = self.faults.answers[method]
            _body(environ)
            return self._refuse(start, status=status, code=code)
        if self.faults.region:
            start = self._with_region(start)
        if method == "PUT":
            return self._put(environ, start)
        return self.store(environ, start)

    def _refuse(self, start, *, status, code):
        return refuse(self._with_region(start) if self.faults.region else start, status=status, code=code)

    def _with_region(self, start):
        return lambda status, headers, *rest: start(
            status,
            [one for one in headers if one[0] != "x-amz-bucket-region"]
            + [("x-amz-bucket-region", self.faults.region)],
            *rest,
        )

    def _put(self, environ, start):
        if "HTTP_IF_NONE_MATCH" in environ:
            if self.faults.condition == "unsupported":
                _body(environ)
                return refuse(start, status="501 Not Implemented", code="NotImplemented")
            if self.faults.condition == "ignored":
                del environ["HTTP_IF_NONE_MATCH"]
        if self.faults.damages:
            environ["wsgi.input"] = io.BytesIO(_body(environ)[::-1])
        answer = self.store(environ, start)
        if self.faults.drops_answer_to_put:
            list(answer)
            environ["werkzeug.socket"].shutdown(2)
            return []
        return answer


def _body(environ):
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


@contextlib.contextmanager
def receiver():
    wrapped = []

    def middleware(store):
        wrapped.append(Misbehaving(store))
        return wrapped[0]

    # moto keeps one memory per process, so every receiver needs a bucket of its own.
    bucket = f"leads-{next(_numbers)}"
    with S3Receiver(buckets=[bucket], keys={"ferry-key": "correct horse"}, middleware=middleware) as server:
        server.bucket = bucket
        server.misbehaving = wrapped[0]
        server.faults = wrapped[0].faults
        yield server
        wrapped[0].released.set()
