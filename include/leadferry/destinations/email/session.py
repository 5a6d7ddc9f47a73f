"""Handing messages to a mail server, one recipient at a time.

A mail server cannot be asked later whether it took a message.
So the moment from which on only it knows, the end of the data, is watched here and not left to smtplib:
a cut before it is tried again, a cut after it is `OutcomeUnknownError`.
The Airflow hook opens the connection; it does not send, because it repeats what the server refused
and says nothing about recipients that were refused.
"""

from __future__ import annotations

import hashlib
import math
import re
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from leadferry.destinations.base import Session
from leadferry.destinations.email.message import Envelope, build
from leadferry.destinations.email.settings import MailSettings
from leadferry.destinations.faults.smtp import smtp_faults
from leadferry.destinations.parcel import Parcel, Receipt
from leadferry.destinations.transfer import logged
from leadferry.errors import (
    DeliveryError,
    HostKeyError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    TooLargeError,
)

if TYPE_CHECKING:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

_START_MAIL_INPUT = 354
_OK = 250


@contextmanager
def connected(destination: MailSettings) -> Iterator[EmailSession]:
    """Connect, prove the server's certificate and log in by the Airflow connection."""
    hook = _hook(destination)
    where = destination.via
    try:
        with smtp_faults(where):
            hook.smtp_connection = hook.get_connection(destination.connection)
            place = "{}://{}:{}".format("smtps" if hook.use_ssl else "smtp", *_address(hook))
            with logged("connect", place):
                hook.get_conn()
            where = f"{where} ({hook.host}:{hook.port})"
            sender = destination.sender or hook.from_email or hook.smtp_user
        if not sender or "@" not in sender:
            raise PermanentDeliveryError(f"{where}: no sender", hint="Give the destination a `sender`")
        yield EmailSession(destination, _client(hook), sender=sender, where=where, place=place)
    finally:
        _say_goodbye(hook)


def endpoint(destination: MailSettings) -> tuple[str, int]:
    """Return the mail server's host name and port by the Airflow connection."""
    hook = _hook(destination)
    with smtp_faults(destination.via):
        hook.smtp_connection = hook.get_connection(destination.connection)
        return _address(hook)


def _address(hook: SmtpHook) -> tuple[str, int]:
    return hook.host, hook.port or (smtplib.SMTP_SSL_PORT if hook.use_ssl else smtplib.SMTP_PORT)


def _hook(destination: MailSettings) -> SmtpHook:
    """Return the Airflow hook with its gaps closed; every override says which."""
    import ssl

    from airflow.providers.smtp.hooks.smtp import SmtpHook

    class Hook(SmtpHook):
        @property
        def smtp_retry_limit(self) -> int:
            # The hook reconnects at once and without a pause; trying again is Airflow's part.
            return 0

        @property
        def timeout(self) -> int:
            return math.ceil(destination.timeout)

        @property
        def smtp_starttls(self) -> bool:
            # Both switches are on by default, and STARTTLS inside TLS fails.
            return super().smtp_starttls and not self.use_ssl

        def _build_ssl_context(self) -> ssl.SSLContext:
            # The hook knows only public authorities, or no check at all; a private one is named by the connection.
            return ssl.create_default_context(cafile=self.conn.extra_dejson.get("ca_file"))

        def _build_client(self) -> smtplib.SMTP:
            # Here and not later: the hook logs in right after connecting.
            if not (self.use_ssl or self.smtp_starttls or destination.allow_plaintext):
                raise HostKeyError(
                    f"{destination.via} has TLS switched off",
                    hint="Remove disable_ssl or disable_tls from it, or set allow_plaintext with plaintext_reason",
                )
            return super()._build_client()

    return Hook(smtp_conn_id=destination.connection)


def _say_goodbye(hook: SmtpHook) -> None:
    # Every message is settled by now: a server that hangs up first must not undo that.
    with suppress(Exception):
        client = _client(hook)
        try:
            client.quit()
        finally:
            client.close()


def _client(hook: SmtpHook) -> smtplib.SMTP:
    client = hook._smtp_client  # noqa: SLF001  (the hook has no public way to the connection)
    if not isinstance(client, smtplib.SMTP):
        raise smtplib.SMTPServerDisconnected
    return client


class EmailSession(Session):
    """A mail server that knows us."""

    def __init__(
        self, destination: MailSettings, client: smtplib.SMTP, *, sender: str, where: str, place: str
    ) -> None:
        self._destination = destination
        self._client = client
        self._sender = sender
        self._where = where
        self._place = place

    def find(self, parcel: Parcel) -> Receipt | None:
        """Nobody can tell: mail servers answer no questions about earlier messages."""
        raise OutcomeUnknownError(
            f"{self._where}: a mail server cannot be asked whether message {self._message_id(parcel)} arrived"
        )

    def send(self, parcel: Parcel) -> Receipt:
        """Hand the message to the mail server for one recipient."""
        recipient = self._recipient(parcel)
        envelope = Envelope(
            sender=self._sender,
            message_id=self._message_id(parcel),
            date=format_datetime(datetime.now(UTC)),
        )
        self._check_least_size(parcel)
        message = build(self._destination, parcel, envelope)
        utf8 = not (self._sender + recipient + str(message["To"]) + str(message["Cc"])).isascii()
        data = message.as_bytes(policy=SMTPUTF8 if utf8 else SMTP)
        self._check_own_size(data)
        with logged("mail", self._place, size=len(data)), smtp_faults(self._where), self._transaction():
            self._client.ehlo_or_helo_if_needed()
            self._check_size(data)
            self._begin(recipient, size=len(data), utf8=utf8)
            reply = self._transmit(data)
        return self._receipt(parcel, envelope, reply=reply, size=len(data))

    def _receipt(self, parcel: Parcel, envelope: Envelope, *, reply: str, size: int) -> Receipt:
        details: dict[str, Any] = {"reply": reply, "recipient": parcel.addressee, "encoded_size": size}
        if parcel.remedy:
            details["too_large"] = parcel.remedy
        if parcel.parts > 1:
            details["part"] = f"{parcel.part} of {parcel.parts}"
        if parcel.links:
            details["links"] = [
                {
                    "file": link.name,
                    "via": link.via,
                    "location": link.location,
                    "expires": link.expires.isoformat(),
                }
                for link in parcel.links
            ]
        return Receipt(location=envelope.message_id, size=size, details=details)

    def probe(self, parcel: Parcel) -> str:
        """Ask the server whether it takes the sender and each recipient; no message is sent."""
        asked = [parcel.addressee] if parcel.addressee else self._destination.addressees()
        refused: list[DeliveryError] = []
        for recipient in filter(None, asked):
            try:
                with logged("probe", self._place), smtp_faults(self._where), self._transaction():
                    self._client.ehlo_or_helo_if_needed()
                    self._begin(recipient, size=0, utf8=not (self._sender + recipient).isascii())
                    self._client.rset()
            except DeliveryError as error:
                refused.append(error)
        if refused:
            worst = max(refused, key=lambda error: not error.retry)
            what = f"{len(refused)} of {len(asked)} recipients were refused: {worst.what}"
            raise type(worst)(what, hint=worst.next_step) from None
        count = "1 recipient" if len(asked) == 1 else f"{len(asked)} recipients"
        return f"mail from {self._sender} to {count} would be accepted"

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Leave the connection fit for the next message after a refusal."""
        try:
            yield
        except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused):
            with suppress(Exception):
                self._client.rset()
            raise

    def _recipient(self, parcel: Parcel) -> str:
        if parcel.addressee is None:
            raise PermanentDeliveryError(
                f"{self._where}: a parcel without an addressee cannot be mailed",
                hint="Name the recipients in `to`; nothing was sent",
            )
        return parcel.addressee

    def _begin(self, recipient: str, *, size: int, utf8: bool) -> None:
        """Give the server the envelope; one recipient, so nothing can be half refused."""
        options = [f"SIZE={size}"] if size and self._client.has_extn("size") else []
        if utf8:
            if not self._client.has_extn("smtputf8"):
                raise smtplib.SMTPNotSupportedError("SMTPUTF8")
            self._client.command_encoding = "utf-8"
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        code, text = self._client.mail(self._sender, options)
        if code != _OK:
            raise smtplib.SMTPSenderRefused(code, text, self._sender)
        code, text = self._client.rcpt(recipient)
        if code not in (_OK, 251):
            raise smtplib.SMTPRecipientsRefused({recipient: (code, text)})

    def _check_least_size(self, parcel: Parcel) -> None:
        """Refuse files that cannot fit before they are read into memory."""
        linked = {link.name for link in parcel.links}
        least = sum(file.size for file in parcel.files if file.name not in linked) * 4 // 3
        most = self._destination.max_message
        if most is not None and least > most:
            raise self._too_large(least, most)

    def _check_own_size(self, data: bytes) -> None:
        most = self._destination.max_message
        if most is not None and len(data) > most:
            raise self._too_large(len(data), most)

    def _too_large(self, size: int, most: int) -> TooLargeError:
        return TooLargeError(
            f"{self._where}: the message has {size} bytes or more, max_message is {most}",
            hint="Add zip, split or link to when_too_large, or make the files smaller",
        )

    def _check_size(self, data: bytes) -> None:
        limit = self._client.esmtp_features.get("size", "")
        if limit.isdigit() and 0 < int(limit) < len(data):
            raise TooLargeError(
                f"{self._where}: the message has {len(data)} bytes, the server takes {limit}",
                hint="Set max_message to what the server takes, and say in when_too_large what is to be done",
            )

    def _transmit(self, data: bytes) -> str:
        """Send the message and return the server's answer to it.

        Raises:
            OutcomeUnknownError: the end of the data went out and no answer came back.
        """
        self._client.putcmd("data")
        code, text = self._client.getreply()
        if code != _START_MAIL_INPUT:
            raise smtplib.SMTPDataError(code, text)
        # Without its end the server must drop a message (RFC 5321, 4.1.1.4), so a cut in here is safe to repeat.
        self._client.send(_dotted(data))
        try:
            self._client.send(b".\r\n")
            code, text = self._client.getreply()
        except (OSError, smtplib.SMTPServerDisconnected):
            # The socket is of no use any more; nothing later may be sent on it.
            self._client.close()
            raise OutcomeUnknownError(
                f"{self._where}: the connection was cut after the message was sent and before the server's answer"
            ) from None
        if code != _OK:
            raise smtplib.SMTPDataError(code, text)
        return f"{code} {_printable(text)}"

    def _message_id(self, parcel: Parcel) -> str:
        key = parcel.key
        if self._destination.mode != "one_per_recipient":
            # It is one message that several people get, so that their answers find together.
            batch, delivery = parcel.variables["batch"]["id"], parcel.variables["delivery"]["id"]
            key = f"{batch}.{delivery}.{self._destination.id}.{parcel.part}"
        unique = hashlib.sha256(key.encode()).hexdigest()[:32]
        return f"<{unique}.leadferry@{self._sender.rpartition('@')[2]}>"


def _dotted(data: bytes) -> bytes:
    """Write a message as DATA wants it: CRLF, no line that is only a dot, a line end at the end."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    return re.sub(rb"(?m)^\.", b"..", lines if lines.endswith(b"\r\n") else lines + b"\r\n")


def _printable(text: bytes) -> str:
    """Keep the server's answer short and harmless; mostly it is the queue id, which the recipient's people can look up."""
    return re.sub(r"[^ -~]+", " ", text.decode("ascii", "replace"))[:200]
