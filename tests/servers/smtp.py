"""A mail server that misbehaves on demand."""

import contextlib
import dataclasses

from aiosmtpd.smtp import SMTP

from leadferry.errors import (
    AuthenticationError,
    DestinationBusyError,
    MessageRefusedError,
    QuotaError,
    RejectedPolicyError,
    TooLargeError,
)
from leadferry.local.smtp import Inbox, SmtpReceiver


@dataclasses.dataclass
class Faults:
    rcpt: dict = dataclasses.field(default_factory=dict)
    """Answer by address."""
    mail: str | None = None
    data: str | None = None
    """Answer after the data."""
    cut: str | None = None
    """`before the answer`: keeps the message and hangs up. `at data`: hangs up when data begins."""
    cut_at: int | None = None
    """Number of the message that is kept without an answer: hangs up instead."""


class MisbehavingInbox(Inbox):
    def __init__(self, root):
        super().__init__(root)
        self.faults = Faults()

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: ARG002, N802
        if self.faults.mail:
            return self.faults.mail
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: ARG002, N802
        if address in self.faults.rcpt:
            return self.faults.rcpt[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: ARG002, N802
        if self.faults.data:
            return self.faults.data
        answer = self.keep(envelope)
        if self.faults.cut == "before the answer" or self.faults.cut_at == len(self.messages()):
            server.transport.abort()
        return answer


class MisbehavingServer(SMTP):
    async def smtp_DATA(self, arg):  # noqa: N802
        if self.event_handler.faults.cut == "at data":
            self.transport.abort()
            return
        await super().smtp_DATA(arg)


@contextlib.contextmanager
def receiver(folder, **options):
    options = {"passwords": {"ferry": "correct horse"}, "server": MisbehavingServer, **options}
    inbox = MisbehavingInbox(folder / "inbox")
    with SmtpReceiver(inbox=inbox, state=folder / "state", **options) as server:
        server.faults = inbox.faults
        yield server


REPLIES = [
    ("450 4.2.0 greylisted", DestinationBusyError),
    ("450 4.2.2 mailbox full for now", DestinationBusyError),
    ("451 4.7.1 greylisted by policy", DestinationBusyError),
    ("452 4.3.1 no room now", DestinationBusyError),
    ("452 4.5.3 too many recipients", DestinationBusyError),
    ("421 4.7.28 unusual rate", DestinationBusyError),
    ("550 no such user", MessageRefusedError),
    ("550 5.1.1 no such user", MessageRefusedError),
    ("550 5.1.2 no such host", MessageRefusedError),
    ("553 5.1.3 bad syntax", MessageRefusedError),
    ("550 5.1.10 null MX", MessageRefusedError),
    ("550 5.2.1 mailbox disabled", MessageRefusedError),
    ("552 5.2.2 mailbox full", QuotaError),
    ("552 mailbox exceeded", TooLargeError),
    ("552 5.2.3 too long for this mailbox", TooLargeError),
    ("552 5.3.4 too big for the system", TooLargeError),
    ("554 5.3.1 system full", QuotaError),
    ("550 5.4.1 no route", MessageRefusedError),
    ("554 5.6.0 bad content", MessageRefusedError),
    ("550 5.7.0 policy", RejectedPolicyError),
    ("550 5.7.1 relaying denied", RejectedPolicyError),
    ("552 5.7.0 blocked attachment", RejectedPolicyError),
    ("550 5.7.26 SPF and DKIM failed", RejectedPolicyError),
    ("554 5.7.1 spam", RejectedPolicyError),
    ("550 5.7.509 DMARC", RejectedPolicyError),
    ("550 5.7.8 credentials", AuthenticationError),
    ("550 5.7.13 account disabled", AuthenticationError),
    ("530 5.7.0 authenticate first", AuthenticationError),
    ("535 5.7.3 not authenticated", AuthenticationError),
]
"""What a mail server says to a recipient, and the error that it is."""
