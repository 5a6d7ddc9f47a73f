"""One HTTP request over the wire: time-outs on everything, no redirects, a bounded answer, failures classified."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from leadferry.destinations.faults.http import http_faults
from leadferry.destinations.http.auth import Answered, Credentials
from leadferry.destinations.http.bodies import Payload
from leadferry.destinations.transfer import logged
from leadferry.errors import (
    ConnectTimeoutError,
    DeliveryError,
    HostKeyError,
    PermanentDeliveryError,
)

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 1 << 20
"""An answer longer than this is cut: no buyer has so much to say about a chunk of leads."""


@dataclass(frozen=True, kw_only=True)
class HttpAnswer(Answered):
    """What came back."""

    headers: Mapping[str, str]
    latency_ms: int


class WireError(Exception):
    """A request that was not answered.

    Args:
        error: what happened, classified.
        perhaps_taken: whether the buyer may have received the whole request.
    """

    def __init__(self, error: DeliveryError, *, perhaps_taken: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.perhaps_taken = perhaps_taken


@dataclass(frozen=True)
class Address:
    """Where the connection leads: `https://host:port/base`, without user and password."""

    base: str

    @property
    def is_plain(self) -> bool:
        """Whether nothing is encrypted on the way."""
        return urlsplit(self.base).scheme == "http"

    def url(self, path: str) -> str:
        """Return the address of a path on this host; a full address stays as it is."""
        return path if "://" in path else f"{self.base.rstrip('/')}/{path.lstrip('/')}"


def address_of(*, host: str | None, schema: str | None, port: int | None) -> Address:
    """Put an address together as Airflow's http connections have it; without a scheme it is https.

    Raises:
        ValueError: there is no host, or it is no http address.
    """
    if not host:
        raise ValueError("no host")
    base = host if "://" in host else f"{schema or 'https'}://{host}"
    parts = urlsplit(base)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("no http address")
    if port and parts.port is None:
        base = parts._replace(netloc=f"{parts.netloc}:{port}").geturl()
    return Address(base)


class Wire:
    """An open client for one host; keeps connections alive; may be used by several threads."""

    def __init__(self, client: httpx.Client, address: Address, *, where: str, timeout: float) -> None:
        self._client = client
        self.address = address
        self._where = where
        self._timeout = timeout

    def post(self, url: str, *, payload: Payload, headers: Mapping[str, str]) -> Answered:
        """Send a login request.

        Raises:
            PermanentDeliveryError: it would leave an encrypted host without encryption.
            DeliveryError: it was not answered.
        """
        full = self.address.url(url)
        if urlsplit(full).scheme != "https" and not self.address.is_plain:
            raise PermanentDeliveryError(
                f"{self._where}: the login's address is not https",
                hint="Correct it in the batch file; nothing was sent",
            )
        try:
            return self.send("POST", full, payload=payload, headers=headers)
        except WireError as failed:
            raise failed.error from None

    def send(
        self, method: str, url: str, *, payload: Payload | None, headers: Mapping[str, str]
    ) -> HttpAnswer:
        """Send a request and return the answer, whatever its status.

        Raises:
            WireError: there was no answer.
        """
        import httpx

        body = _Outgoing(payload)
        sent = {name.encode(): value.encode() for name, value in headers.items()} | body.headers
        began = time.monotonic()
        try:
            with http_faults(self._where), logged(method, self.address.base, size=body.size):
                request = self._client.build_request(method, url, headers=sent, content=body.content())
                answer = self._client.send(request, stream=True, follow_redirects=False)
                try:
                    text = self._read(answer, began)
                finally:
                    answer.close()
        except DeliveryError as error:
            not_sent = isinstance(error.__context__, _BEFORE_SENDING(httpx)) or not body.complete
            raise WireError(_with_hint(error), perhaps_taken=not not_sent) from None
        latency = int((time.monotonic() - began) * 1000)
        return HttpAnswer(answer.status_code, text, headers=answer.headers, latency_ms=latency)

    def _read(self, answer: httpx.Response, began: float) -> str:
        """Read an answer; one that drips is given up."""
        found = bytearray()
        for block in answer.iter_bytes():
            found += block
            if len(found) >= MOST_BYTES:
                break
            if time.monotonic() - began > 2 * self._timeout:
                raise ConnectTimeoutError(f"{self._where}: the answer does not end")
        encoding = answer.charset_encoding or "utf-8"
        try:
            return bytes(found[:MOST_BYTES]).decode(encoding, errors="replace")
        except LookupError:
            return bytes(found[:MOST_BYTES]).decode(errors="replace")


def _BEFORE_SENDING(httpx: Any) -> tuple[type[Exception], ...]:  # noqa: N802
    return (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.UnsupportedProtocol,
        httpx.LocalProtocolError,
        httpx.ProxyError,
        httpx.InvalidURL,
    )


class _Outgoing:
    """A body on its way; knows whether all of it was handed to the socket."""

    def __init__(self, payload: Payload | None) -> None:
        self._payload = payload
        self.size = payload.size if payload else 0
        self.complete = payload is None or not payload.size

    @property
    def headers(self) -> dict[bytes, bytes]:
        if self._payload is None:
            return {}
        # A length in advance: the server can tell a cut body from a whole one.
        return {
            b"Content-Type": self._payload.media_type.encode(),
            b"Content-Length": str(self.size).encode(),
        }

    def content(self) -> Iterator[bytes] | None:
        return self._blocks(self._payload) if self._payload else None

    def _blocks(self, payload: Payload) -> Iterator[bytes]:
        left = payload.size
        for block in payload.blocks():
            left -= len(block)
            self.complete = left <= 0
            yield block


def _with_hint(error: DeliveryError) -> DeliveryError:
    if not isinstance(error, HostKeyError):
        return error
    return HostKeyError(
        error.what,
        hint="Its certificate is not signed by a known authority, is for another name or has run out;"
        " for an authority of the buyer's own, put its file into the connection's extra 'ca_file'",
    )


@contextmanager
def client(credentials: Credentials, *, timeout: float, parallel: int) -> Iterator[httpx.Client]:
    """Open a client: certificates are checked against the system's authorities, or the extra's `ca_file`."""
    import httpx

    # At INFO these two write every address, and at DEBUG the headers: both may hold a lead's data.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    limits = httpx.Limits(max_connections=parallel, max_keepalive_connections=parallel)
    with httpx.Client(
        verify=_tls(credentials), timeout=timeout, limits=limits, follow_redirects=False, http2=False
    ) as opened:
        yield opened


def _tls(credentials: Credentials) -> ssl.SSLContext:
    """Return what certificates are checked with, and our own where the buyer asks for one.

    Raises:
        PermanentDeliveryError: a file that the extra names cannot be read.
    """
    extra = credentials.extra
    try:
        context = ssl.create_default_context(cafile=extra.get("ca_file") or None)
        if extra.get("client_cert"):
            context.load_cert_chain(extra["client_cert"], extra.get("client_key") or None)
    except (OSError, TypeError):
        raise PermanentDeliveryError(
            f"http connection '{credentials.connection}': ca_file, client_cert or client_key cannot be read",
            hint="Correct the paths in the connection's extra; the files must be on every worker",
        ) from None
    return context


def with_query(url: str, query: Mapping[str, str]) -> str:
    """Return the address with these parameters, escaped."""
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query, quote_via=quote)}"
