"""A mail server that misbehaves on demand."""

import contextlib
import dataclasses

from aiosmtpd.smtp import SMTP

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
