"""Deliver by mail: one message per recipient, all files attached.

A mail server cannot be asked later whether it took a message.
So the moment from which on only it knows, the end of the data, is watched here and not left to smtplib:
a cut before it is tried again, a cut after it is `OutcomeUnknownError`.
The Airflow hook opens the connection; it does not send, because it repeats what the server refused
and says nothing about recipients that were refused.
"""

from __future__ import annotations

import hashlib
import html
import math
import re
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from email.utils import format_datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from leadferry.destinations import faults
from leadferry.destinations.base import (
    DestinationBase,
    OutgoingFile,
    Parcel,
    Receipt,
    Session,
    pool_name,
    with_texts,
)
from leadferry.errors import HostKeyError, OutcomeUnknownError, PermanentDeliveryError, TooLargeError
from leadferry.templates import Template, render

if TYPE_CHECKING:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

_START_MAIL_INPUT = 354
_OK = 250


def _one_address(value: str) -> str:
    """Refuse what is not exactly one bare address; `Name <address>` belongs into nobody's envelope."""
    if not re.fullmatch(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+", value):
        raise ValueError("must be one mail address, such as leads@acme.example")
    return value


Address = Annotated[str, AfterValidator(_one_address)]
"""One mail address without a display name."""


class Email(DestinationBase):
    """One message per recipient, the files attached; recipients do not see each other."""

    sends_files_together: ClassVar[bool] = True

    type: Literal["email"] = "email"
    connection: str = Field(default="smtp", min_length=1, description="Airflow connection of type smtp.")
    to: list[Address] = Field(min_length=1, description="Addresses; each gets a message of its own.")
    subject: Template = Field(min_length=1, description="Subject; a template.")
    body: Template = Field(description="The message as plain text; a template.")
    html: Template | None = Field(
        default=None,
        description="The message as HTML, for mail programs that show it; a template, values are escaped.",
    )
    sender: Address | None = Field(
        default=None, description="Address in From; the connection's `from_email` or login when left out."
    )
    reply_to: Address | None = Field(default=None, description="Where answers go, when not to the sender.")
    allow_plaintext: bool = Field(default=False, description="Send without TLS; needs `plaintext_reason`.")
    plaintext_reason: str | None = Field(
        default=None, description="Why a connection without TLS is acceptable here."
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the server may stay silent.")

    @model_validator(mode="after")
    def _plaintext_has_a_reason(self) -> Self:
        if self.allow_plaintext and not (self.plaintext_reason or "").strip():
            raise ValueError("allow_plaintext needs plaintext_reason: say why no TLS is acceptable here")
        return self

    @model_validator(mode="after")
    def _recipients_differ(self) -> Self:
        seen = [address.lower() for address in self.to]
        if len(set(seen)) < len(seen):
            raise ValueError("an address stands twice in `to`; it would get the message twice")
        return self

    @property
    def can_be_asked(self) -> bool:
        """No: a mail server does not tell later what it took."""
        return False

    def addressees(self) -> list[str | None]:
        """Return the recipients: each is sent to, confirmed and tried again on its own."""
        return list(self.to)

    @property
    def where(self) -> str:
        """The connection and the recipients' domains."""
        domains = sorted({address.rpartition("@")[2] for address in self.to})
        return f"smtp connection '{self.connection}', {len(self.to)} recipients at {', '.join(domains)}"

    @property
    def pool(self) -> str:
        """One pool per connection."""
        return pool_name("email", self.connection)

    @contextmanager
    def open(self) -> Iterator[EmailSession]:
        """Connect, prove the server's certificate and log in by the Airflow connection."""
        hook = _hook(self)
        where = f"smtp connection '{self.connection}'"
        try:
            with faults.smtp(where):
                hook.get_conn()
                where = f"{where} ({hook.host}:{hook.port})"
                sender = self.sender or hook.from_email or hook.smtp_user
            if not sender or "@" not in sender:
                raise PermanentDeliveryError(f"{where}: no sender", hint="Give the destination a `sender`")
            yield EmailSession(self, _client(hook), sender=sender, where=where)
        finally:
            _say_goodbye(hook)


def _hook(destination: Email) -> SmtpHook:
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
                    f"smtp connection '{destination.connection}' has TLS switched off",
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

    def __init__(self, destination: Email, client: smtplib.SMTP, *, sender: str, where: str) -> None:
        self._destination = destination
        self._client = client
        self._sender = sender
        self._where = where

    def find(self, parcel: Parcel) -> Receipt | None:
        """Nobody can tell: mail servers answer no questions about earlier messages."""
        raise OutcomeUnknownError(
            f"{self._where}: a mail server cannot be asked whether message {self._message_id(parcel)} arrived"
        )

    def send(self, parcel: Parcel) -> Receipt:
        """Hand the message to the mail server for one recipient."""
        recipient = self._recipient(parcel)
        message = self._message(parcel, recipient)
        utf8 = not (self._sender + recipient).isascii()
        data = message.as_bytes(policy=SMTPUTF8 if utf8 else SMTP)
        with faults.smtp(self._where), self._transaction():
            self._client.ehlo_or_helo_if_needed()
            self._check_size(data)
            self._begin(recipient, size=len(data), utf8=utf8)
            reply = self._transmit(data)
        details = {"reply": reply, "recipient": recipient, "encoded_size": len(data)}
        return Receipt(location=str(message["Message-ID"]), size=len(data), details=details)

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
            raise PermanentDeliveryError(f"{self._where}: a parcel without an addressee cannot be mailed")
        return parcel.addressee

    def _begin(self, recipient: str, *, size: int, utf8: bool) -> None:
        """Give the server the envelope; one recipient, so nothing can be half refused."""
        options = [f"SIZE={size}"] if self._client.has_extn("size") else []
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

    def _check_size(self, data: bytes) -> None:
        limit = self._client.esmtp_features.get("size", "")
        if limit.isdigit() and 0 < int(limit) < len(data):
            raise TooLargeError(f"{self._where}: the message has {len(data)} bytes, the server takes {limit}")

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
        unique = hashlib.sha256(parcel.key.encode()).hexdigest()[:32]
        return f"<{unique}.leadferry@{self._sender.rpartition('@')[2]}>"

    def _message(self, parcel: Parcel, recipient: str) -> EmailMessage:
        message = EmailMessage(policy=_POLICY)
        message["From"] = self._sender
        message["To"] = recipient
        if self._destination.reply_to:
            message["Reply-To"] = self._destination.reply_to
        # A line break in a value would start a header of its own.
        message["Subject"] = " ".join(render(self._destination.subject, parcel.variables).split())
        message["Message-ID"] = self._message_id(parcel)
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(render(self._destination.body, parcel.variables))
        if self._destination.html is not None:
            escaped = with_texts(parcel.variables, html.escape)
            message.add_alternative(render(self._destination.html, escaped), subtype="html")
        for file in parcel.files:
            _attach(message, file)
        return message


# Not every server on the way takes bytes above 127; seven bits pass everywhere.
_POLICY: EmailPolicy[EmailMessage] = EmailPolicy(linesep="\r\n", cte_type="7bit")


def _attach(message: EmailMessage, file: OutgoingFile) -> None:
    """Attach the stored bytes under their name, whatever letters it has, with their own type."""
    main, _, sub = file.media_type.partition(";")[0].partition("/")
    message.add_attachment(
        b"".join(file.blocks()), maintype=main, subtype=sub or "octet-stream", filename=file.name
    )


def _dotted(data: bytes) -> bytes:
    """Write a message as DATA wants it: CRLF, no line that is only a dot, a line end at the end."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    return re.sub(rb"(?m)^\.", b"..", lines if lines.endswith(b"\r\n") else lines + b"\r\n")


def _printable(text: bytes) -> str:
    """Keep the server's answer short and harmless; mostly it is the queue id, which the recipient's people can look up."""
    return re.sub(r"[^ -~]+", " ", text.decode("ascii", "replace"))[:200]
