"""A buyer's mail server for the try-out and the tests: `python -m leadferry.local.smtp --root DIR --state DIR`.

It wants STARTTLS and a login, and keeps every message as one `.eml` file in its inbox.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from leadferry.local.background import AsyncReceiver, private_folder, serve_logins
from leadferry.local.certificates import certificates

HOST = "127.0.0.1"


class Inbox:
    """What happens to messages: each becomes a file, named by the order of arrival.

    The names of the methods are aiosmtpd's.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802
        """Store the message with its envelope, then say yes."""
        return self.keep(envelope)

    def keep(self, envelope: Envelope) -> str:
        """Write the message to the inbox, complete or not at all, and return the answer to it."""
        number = len(self.messages()) + 1
        recipients = ", ".join(envelope.rcpt_tos)
        head = f"X-Envelope-From: {envelope.mail_from}\r\nX-Envelope-To: {recipients}\r\n"
        content = envelope.content or b""
        unfinished = self.root / f".{number:04}.part"
        unfinished.write_bytes(head.encode() + (content.encode() if isinstance(content, str) else content))
        unfinished.rename(self.root / f"{number:04}.eml")
        return f"250 2.0.0 Ok: queued as {number:04}"

    def messages(self) -> list[Path]:
        """Return the files of all messages, in the order of arrival."""
        return sorted(self.root.glob("*.eml"))


class SmtpReceiver(AsyncReceiver):
    """A mail server on 127.0.0.1 with STARTTLS and a certificate of an authority of its own.

    Args:
        inbox: what keeps the messages; tests hand in inboxes that refuse.
        state: where the authority's certificate and the server's key stay.
        passwords: password by user name.
        port: 0 takes a free one.
        tls: whether STARTTLS is offered, and wanted before anything else.
        largest: bytes that a message may have.
        server: the protocol; tests hand in servers that misbehave.
    """

    def __init__(  # noqa: PLR0913  (all by keyword, most with a default)
        self,
        *,
        inbox: Inbox,
        state: Path,
        passwords: Mapping[str, str],
        port: int = 0,
        tls: bool = True,
        largest: int = 32 * 1024 * 1024,
        server: type[SMTP] = SMTP,
    ) -> None:
        self.inbox = inbox
        self.passwords = dict(passwords)
        self.port = port
        self.ca_file = certificates(private_folder(state), name="smtp")
        self._state = state
        self._tls = tls
        self._largest = largest
        self._protocol = server

    async def listen(self) -> None:
        """Start the server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._state / "smtp.pem", self._state / "smtp.key")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self._connection(context, loop), HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _connection(self, context: ssl.SSLContext, loop: asyncio.AbstractEventLoop) -> SMTP:
        return self._protocol(
            self.inbox,
            hostname="localhost",
            data_size_limit=self._largest,
            enable_SMTPUTF8=True,
            tls_context=context if self._tls else None,
            require_starttls=self._tls,
            auth_required=bool(self.passwords),
            auth_require_tls=self._tls,
            authenticator=self._authenticate,
            loop=loop,
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        if not isinstance(data, LoginPassword):
            return AuthResult(success=False, handled=False)
        expected = self.passwords.get(data.login.decode())
        return AuthResult(
            success=expected is not None and hmac.compare_digest(expected.encode(), data.password),
            handled=False,
        )

    async def close(self) -> None:
        """Stop listening; open connections end with the loop."""
        self._server.close()
        await self._server.wait_closed()

    def announcement(self) -> dict[str, Any]:
        """Say the port, the authority's certificate, and the Airflow connection of the first user."""
        user, password = next(iter(self.passwords.items()), (None, None))
        extra = {
            "disable_ssl": True,
            "disable_tls": not self._tls,
            "from_email": "ferry@leadferry.example",
            "ca_file": str(self.ca_file),
        }
        connection = {
            "conn_type": "smtp",
            "host": "localhost",
            "port": self.port,
            "login": user,
            "password": password,
            "extra": extra,
        }
        return {"port": self.port, "ca_file": str(self.ca_file), "connection": connection}


def _with_inbox(*, root: Path, **more: Any) -> SmtpReceiver:
    return SmtpReceiver(inbox=Inbox(root), **more)


if __name__ == "__main__":
    serve_logins(_with_inbox, description=__doc__)
