"""The HTTP destination: its keys, and how it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from leadferry.destinations.base import Session
from leadferry.destinations.http.keys import HttpKeys
from leadferry.errors import PermanentDeliveryError


class Http(HttpKeys):
    """A buyer's API."""

    def endpoint(self) -> tuple[str, int] | None:
        """Return the host and the port that the connection leads to."""
        from urllib.parse import urlsplit

        from leadferry.destinations.http.session import look_up

        address, _ = look_up(self)
        parts = urlsplit(address.base)
        return str(parts.hostname), parts.port or (80 if address.is_plain else 443)

    @contextmanager
    def open(self) -> Iterator[Session]:
        """Read the connection and make a client; the first request connects.

        Raises:
            PermanentDeliveryError: the connection makes no sense, or leads to a host without TLS.
        """
        from leadferry.destinations.http.session import HttpSession, look_up
        from leadferry.destinations.http.transport import Wire, client

        address, credentials = look_up(self)
        where = f"{self.via} ({address.base})"
        if address.is_plain and not self.allow_plaintext:
            raise PermanentDeliveryError(
                f"{where}: this connection sends without TLS",
                hint="Use https in the connection, or set allow_plaintext with plaintext_reason in the batch file",
            )
        with client(credentials, timeout=self.timeout, parallel=self.parallel) as opened:
            wire = Wire(opened, address, where=where, timeout=self.timeout)
            signer = self.auth.signer(credentials, wire.post) if self.auth else None
            yield HttpSession(self, wire, signer, where=where)
