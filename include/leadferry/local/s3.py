"""A buyer's S3 store for the try-out and the tests: `python -m leadferry.local.s3 --bucket NAME`.

Objects live in memory and go when it stops. Requests must carry a known access key,
links must not have expired; signatures are not checked.
"""

from __future__ import annotations

import argparse
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from leadferry.local.background import Receiver, serve

HOST = "127.0.0.1"

Middleware = Callable[[WSGIApplication], WSGIApplication]
Clock = Callable[[], datetime]


class S3Receiver(Receiver):
    """An S3 store on 127.0.0.1.

    Args:
        buckets: made at the start, empty.
        keys: secret by access key.
        port: 0 takes a free one.
        middleware: stands between client and store; tests hand in ones that misbehave.
        clock: tells when links expire.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[str],
        keys: Mapping[str, str],
        port: int = 0,
        middleware: Middleware = lambda store: store,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self.buckets = list(buckets)
        self.keys = dict(keys)
        self.port = port
        self._middleware = middleware
        self.clock = clock

    def _now(self) -> datetime:
        return self.clock()

    @property
    def endpoint(self) -> str:
        """The URL of the store."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Start the store and make the buckets."""
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        store = DomainDispatcherApplication(create_backend_app)
        app = _key_checked(self._middleware(store), keys=self.keys, now=self._now)
        self._server = make_server(HOST, self.port, app, threaded=True, request_handler=_handler())
        self.port = self._server.port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="S3Receiver", daemon=True
        )
        self._thread.start()
        for bucket in self.buckets:
            self.client().create_bucket(Bucket=bucket)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the store; the objects go with it."""
        self._server.shutdown()
        self._thread.join(timeout=30)
        self._server.server_close()

    def client(self) -> Any:
        """Return a boto3 client with the first access key."""
        import boto3
        from botocore.config import Config

        access, secret = next(iter(self.keys.items()))
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Return everything that is in a bucket, by key."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def announcement(self) -> dict[str, Any]:
        """Say the port, the endpoint, the buckets, and the Airflow connection of the first key."""
        access, secret = next(iter(self.keys.items()))
        extra = {
            "endpoint_url": self.endpoint,
            "region_name": "us-east-1",
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        }
        connection = {"conn_type": "aws", "login": access, "password": secret, "extra": extra}
        return {
            "port": self.port,
            "endpoint": self.endpoint,
            "buckets": self.buckets,
            "connection": connection,
        }


def _handler() -> type:
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class Quiet(MotoRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  (werkzeug's name)
            """Write no line per request."""

    return Quiet


def refuse(start: StartResponse, *, status: str, code: str) -> Iterable[bytes]:
    """Answer a request with an S3 error."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _key_checked(store: WSGIApplication, *, keys: Mapping[str, str], now: Clock) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        # In a header, or in a link that was signed for somebody without a key.
        said = f"{environ.get('HTTP_AUTHORIZATION', '')} {environ.get('QUERY_STRING', '')}"
        found = re.search(r"(?:Credential|AWSAccessKeyId)=([^/&%]+)", said)
        if found is None or found[1] not in keys:
            return refuse(start, status="403 Forbidden", code="InvalidAccessKeyId")
        end = _end_of_link(parse_qs(environ.get("QUERY_STRING", "")))
        if end is not None and now() > end:
            return refuse(start, status="403 Forbidden", code="AccessDenied")
        return store(environ, start)

    return answer


def _end_of_link(query: Mapping[str, Sequence[str]]) -> datetime | None:
    """Return when a signed link expires, in the newer and in the older way to sign; None for other requests."""
    if "X-Amz-Expires" in query:
        made = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return made + timedelta(seconds=int(query["X-Amz-Expires"][0]))
    return datetime.fromtimestamp(int(query["Expires"][0]), UTC) if "Expires" in query else None


def main(arguments: list[str] | None = None) -> None:
    """Run the receiver until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--bucket", action="append", required=True, help="made at the start; may be given again"
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--access-key", default="leadferry")
    parser.add_argument(
        "--secret-key", default="leadferry", help="guards a store that only this machine can reach"
    )
    chosen = parser.parse_args(arguments)
    serve(S3Receiver(buckets=chosen.bucket, port=chosen.port, keys={chosen.access_key: chosen.secret_key}))


if __name__ == "__main__":
    main()
