"""kill -9 of the process that mails: what may have been sent is held for a person, all else is sent once (I4, I6)."""

import os
import signal

import pytest

from batches import make_batch, scalars, waiting
from leadferry.archive import Archive
from leadferry.delivery.settle import settle
from leadferry.states import DeliveryState

LEADS = 20


@pytest.fixture
def post(forks, store_url, tmp_path):
    """A harbour whose buyer has a mail server; `deadly` names the word of SMTP at which the sender is killed."""
    from harbour import Harbour

    from servers import smtp

    class Inbox(smtp.MisbehavingInbox):
        async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802  (aiosmtpd's)
            kill_if("RCPT")
            return await super().handle_RCPT(server, session, envelope, address, options)

        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            said = await super().handle_DATA(server, session, envelope)
            kill_if("the message is kept")
            return said

    class Server(smtp.MisbehavingServer):
        async def smtp_DATA(self, arg):  # noqa: N802
            kill_if("DATA")
            await super().smtp_DATA(arg)

    def kill_if(word):
        if harbour.deadly == word:
            harbour.deadly = None
            os.kill(harbour.driver.process.pid, signal.SIGKILL)

    inbox = Inbox(tmp_path / "inbox")
    passwords = {"ferry": "correct horse"}
    with smtp.SmtpReceiver(
        inbox=inbox, state=tmp_path / "keys", passwords=passwords, server=Server
    ) as receiver:
        receiver.root = inbox.root
        harbour = Harbour(store=store_url, folder=tmp_path, receiver=receiver)
        harbour.deadly = harbour.driver = None
        mail = {"id": "buyer", "type": "email", "connection": "buyer", "to": ["leads@acme.example"]}
        harbour.batch = make_batch(
            destinations=[{**mail, "subject": "Leads", "body": "{{ lead.count }} leads"}]
        ).model_dump(mode="json")
        harbour.messages = inbox.messages
        harbour.add_leads(LEADS)
        yield harbour


def attempt(harbour, **keys):
    """One try; what it said, or None when it was killed."""
    harbour.driver = harbour.start("run-1", **keys)
    said = harbour.driver.hear()
    harbour.driver.end()
    return said


@pytest.mark.req("C01", "F03", "F01")
@pytest.mark.parametrize(
    ("word", "arrived"), [("RCPT", 0), ("DATA", 0), ("the message is kept", 1)], ids=["RCPT", "DATA", "kept"]
)
def test_i6_killed_within_a_mail_it_is_held_for_a_person_and_never_sent_again(post, word, arrived):
    post.deadly = word
    assert attempt(post) is None
    assert post.deadly is None
    assert attempt(post) == ("OutcomeUnknownError", False)
    assert attempt(post) == ("OutcomeUnknownError", False)
    (delivery,) = scalars(post.database, "SELECT id FROM delivery")
    assert settle(post.database, Archive(str(post.archive)), delivery).state is DeliveryState.HELD
    assert scalars(post.database, "SELECT state::text FROM dispatch") == ["unknown"]
    assert len(post.messages()) == arrived
    assert waiting(post.database) == []


@pytest.mark.req("C01", "F01")
@pytest.mark.parametrize("kill", [("before", "begin_sending"), ("after", "end_sending")], ids=" ".join)
def test_i6_killed_before_or_after_a_mail_it_is_sent_once(post, kill):
    assert attempt(post, kill=kill) is None
    assert attempt(post) == "delivered"
    assert len(post.messages()) == 1
    assert scalars(post.database, "SELECT state::text FROM dispatch") == ["confirmed"]
