"""The mail destination against Postfix: what a common mail server takes, refuses and answers."""

import email
import email.policy

import pytest

from contracts.destination_contract import send
from leadferry.destinations.email import Email
from leadferry.errors import MessageRefusedError, RejectedPolicyError, TooLargeError
from servers import postfix as servers


@pytest.fixture(scope="module")
def server():
    if reason := servers.why_none():
        pytest.skip(reason)
    with servers.receiver() as running:
        yield running


@pytest.fixture
def destination(server, connect):
    connect("mail", server.announcement())
    return Email(
        id="mail",
        connection="mail",
        to=["leads@acme.example", "boss@acme.example"],
        subject="{{ batch.name }} ✓ Käse",
        timeout=20,
    )


@pytest.mark.req("R004", "R111", "R113")
def test_a_message_arrives_in_the_mailbox_with_its_texts_and_its_file(destination, server, make_parcel):
    parcel = make_parcel(b"id,name\r\n1,A\r\n", name="März.csv", addressee="leads@acme.example")
    receipt = send(destination, parcel)
    (content,) = server.messages("leads")
    message = email.message_from_bytes(content, policy=email.policy.default)
    (attachment,) = message.iter_attachments()
    assert receipt.location == message["Message-ID"]
    assert message["Subject"] == "Acme Auto ✓ Käse"
    assert (attachment.get_filename(), attachment.get_payload(decode=True)) == (
        "März.csv",
        b"id,name\r\n1,A\r\n",
    )
    assert parcel.file.sha256 in message.get_body(("html",)).get_content()
    assert receipt.details["reply"].startswith("250 2.0.0 Ok: queued as")


@pytest.mark.req("R109")
def test_a_recipient_that_it_does_not_know_is_refused_and_the_next_one_served(
    destination, server, make_parcel
):
    with destination.open() as session:
        with pytest.raises(MessageRefusedError, match=r"SMTP 550 5\.1\.1"):
            session.send(make_parcel(b"x", key="a", addressee="nobody@acme.example"))
        session.send(make_parcel(b"x", key="b", addressee="boss@acme.example"))
    assert len(server.messages("boss")) == 1


@pytest.mark.req("R126")
def test_a_domain_that_it_does_not_serve_is_a_matter_of_policy(destination, make_parcel):
    with pytest.raises(RejectedPolicyError, match=r"SMTP 554 5\.7\.1"):
        send(destination, make_parcel(b"x", addressee="leads@elsewhere.example"))


@pytest.mark.req("R114")
def test_its_limit_is_told_before_anything_is_sent(destination, make_parcel, content):
    with pytest.raises(TooLargeError, match="takes 200000"):
        send(destination, make_parcel(content, addressee="leads@acme.example"))


@pytest.mark.req("R125")
def test_the_probe_finds_the_recipient_that_would_be_refused(destination, make_parcel):
    with destination.open() as session:
        assert "2 recipients would be accepted" in session.probe(make_parcel(b"x"))
        with pytest.raises(MessageRefusedError):
            session.probe(make_parcel(b"x", addressee="nobody@acme.example"))
