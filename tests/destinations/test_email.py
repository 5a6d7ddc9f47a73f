"""The mail destination on a real mail server: what arrives, and what is known when the server or the wire fails."""

import dataclasses
import email
import email.policy
import re

import pytest

from contracts.destination_contract import find, send
from leadferry.destinations.email import Email
from leadferry.destinations.email.message import estimate
from leadferry.destinations.parcel import OutgoingFile
from leadferry.errors import (
    AuthenticationError,
    DeliveryError,
    DestinationBusyError,
    HostKeyError,
    MessageRefusedError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    RejectedPolicyError,
    TooLargeError,
    TransferInterruptedError,
)
from servers import smtp as servers
from servers.proxy import Wire


@pytest.fixture
def server(tmp_path):
    with servers.receiver(tmp_path) as running:
        yield running


@pytest.fixture
def destination(server, connect):
    connect("mail", server.announcement())
    return Email(
        id="mail",
        connection="mail",
        to=["leads@acme.example", "boss@acme.example"],
        subject="{{ batch.name }} - {{ delivery.date }} Leads",
        body="Attached please find {{ lead.count }} leads for {{ delivery.period }}\n.\n.dot\n",
        timeout=20,
    )


@pytest.fixture
def mail(make_parcel):
    return make_parcel(b"id,name\r\n1,A\r\n", addressee="leads@acme.example")


def received(server):
    return [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in server.inbox.messages()
    ]


@pytest.mark.req("R004", "R110", "R113")
def test_the_message_arrives_as_it_was_written(destination, server, mail):
    receipt = send(destination, mail)
    (message,) = received(server)
    assert message["Subject"] == "Acme Auto - 2026-01-31 Leads"
    assert "leads@acme.example" == message["To"] == message["X-Envelope-To"]
    assert "ferry@leadferry.example" == message["From"] == message["X-Envelope-From"]
    body = message.get_body().get_content()
    assert body.splitlines() == ["Attached please find 3 leads for 2026-01-30", ".", ".dot"]
    (attachment,) = message.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content_type()) == ("leads.csv", "text/csv")
    assert attachment.get_payload(decode=True) == b"id,name\r\n1,A\r\n"
    assert receipt.location == message["Message-ID"]
    assert receipt.details["reply"].startswith("250 2.0.0 Ok: queued as")


@pytest.mark.req("R109", "C23")
def test_each_recipient_gets_a_message_of_their_own(destination, server, make_parcel):
    assert destination.addressees() == ["leads@acme.example", "boss@acme.example"]
    with destination.open() as session:
        for one in destination.addressees():
            session.send(make_parcel(b"x", key=f"7 {one}", addressee=one))
    assert destination.addressees() == [message["To"] for message in received(server)]
    assert len({message["Message-ID"] for message in received(server)}) == 2
    assert all(str(message).count("@acme.example") == 2 for message in received(server))


@pytest.mark.req("R109", "C22")
def test_a_refused_recipient_does_not_block_the_others(destination, server, make_parcel):
    server.faults.rcpt["leads@acme.example"] = "550 5.1.1 no such user"
    with destination.open() as session:
        with pytest.raises(MessageRefusedError, match="SMTP 550") as caught:
            session.send(make_parcel(b"x", key="a", addressee="leads@acme.example"))
        session.send(make_parcel(b"x", key="b", addressee="boss@acme.example"))
    assert not caught.value.retry
    assert [message["To"] for message in received(server)] == ["boss@acme.example"]


@pytest.mark.req("F02")
def test_every_try_carries_the_same_message_id(destination, server, mail, next_try):
    send(destination, mail)
    send(destination, next_try(mail))
    first, second = received(server)
    assert first["Message-ID"] == second["Message-ID"]


@pytest.mark.req("R113", "C13")
def test_names_and_types_of_attachments_survive(destination, server, make_parcel):
    named = [
        ("Große Liste, März.csv", "text/csv"),
        ("リスト.xlsx", "application/vnd.ms-excel"),
        ("plain.zip", "application/zip"),
    ]
    parcels = [
        make_parcel(name.encode(), name=name, media_type=kind, addressee="leads@acme.example")
        for name, kind in named
    ]
    files = tuple(parcel.file for parcel in parcels)
    assert all(isinstance(file, OutgoingFile) for file in files)
    send(destination, dataclasses.replace(parcels[0], files=files))
    (message,) = received(server)
    assert named == [(part.get_filename(), part.get_content_type()) for part in message.iter_attachments()]
    assert [name.encode() for name, _ in named] == [
        part.get_payload(decode=True) for part in message.iter_attachments()
    ]


@pytest.mark.req("R110")
def test_text_of_any_language_and_html_arrive_and_values_are_escaped(destination, server, mail):
    mail.variables["batch"]["name"] = "Käse <b>& Söhne"
    wanted = destination.model_copy(
        update={
            "html": "<p>{{ batch.name }}</p>",
            "subject": "{{ batch.name }} ✓",
            "reply_to": "ops@example.com",
        }
    )
    send(wanted, mail)
    mail.variables["batch"]["name"] = "Acme Auto"
    (message,) = received(server)
    assert message["Subject"] == "Käse <b>& Söhne ✓"
    assert message.get_body(("html",)).get_content().strip() == "<p>Käse &lt;b&gt;&amp; Söhne</p>"
    assert message["Reply-To"] == "ops@example.com"


def test_a_line_break_in_a_value_starts_no_header(destination, server, mail):
    mail.variables["batch"]["name"] = "Acme\r\nBcc: thief@example.com"
    send(destination, mail)
    mail.variables["batch"]["name"] = "Acme Auto"
    (message,) = received(server)
    assert message["Bcc"] is None
    assert message["X-Envelope-To"] == "leads@acme.example"


def test_an_address_with_letters_beyond_ascii_is_delivered(destination, server, make_parcel):
    send(destination, make_parcel(b"x", addressee="käufer@acme.example"))
    assert [message["X-Envelope-To"] for message in received(server)] == ["käufer@acme.example"]


@pytest.mark.req("F03")
def test_a_cut_after_the_data_is_unknown_and_not_sent_again(destination, server, mail):
    server.faults.cut = "before the answer"
    with pytest.raises(OutcomeUnknownError) as caught:
        send(destination, mail)
    assert not caught.value.retry
    assert len(received(server)) == 1


@pytest.mark.req("R143")
def test_a_server_that_hangs_up_at_data_is_tried_again(destination, server, mail, next_try):
    server.faults.cut = "at data"
    with pytest.raises(TransferInterruptedError) as caught:
        send(destination, mail)
    assert caught.value.retry
    server.faults.cut = None
    send(destination, next_try(mail))
    assert len(received(server)) == 1


@pytest.mark.req("R143")
def test_a_wire_that_is_cut_within_the_data_is_tried_again(destination, server, connect, make_parcel):
    """More bytes than fit into the buffers on the way; a shorter message may already be out when the cut shows."""
    parcel = make_parcel(bytes(12_000_000), addressee="leads@acme.example")
    with Wire(server.port) as wire, wire.cutting(300_000):
        connect("mail", server.announcement(), port=wire.port)
        with pytest.raises(TransferInterruptedError) as caught:
            send(destination, parcel)
    assert caught.value.retry
    assert received(server) == []


@pytest.mark.req("F03")
def test_a_mail_server_cannot_be_asked(destination, mail):
    assert not destination.can_be_asked
    with pytest.raises(OutcomeUnknownError):
        find(destination, mail)


@pytest.mark.req("R200")
@pytest.mark.parametrize(
    ("fault", "answer", "kind"),
    [
        ("mail", "550 5.7.1 sender not allowed", RejectedPolicyError),
        ("mail", "451 4.7.1 try later", DestinationBusyError),
        ("data", "550 5.7.1 looks like spam", RejectedPolicyError),
        ("data", "451 4.3.0 queue full", DestinationBusyError),
        ("data", "552 5.3.4 too big", TooLargeError),
    ],
)
def test_what_the_server_answers_decides_what_happens_next(destination, server, mail, fault, answer, kind):  # noqa: PLR0913, PLR0917  (parameters and fixtures)
    setattr(server.faults, fault, answer)
    with pytest.raises(kind) as caught:
        send(destination, mail)
    assert kind is type(caught.value)
    assert answer[10:] not in str(caught.value)
    assert received(server) == []


def test_greylisting_is_tried_again(destination, server, mail, next_try):
    server.faults.rcpt["leads@acme.example"] = "450 4.2.0 greylisted"
    with pytest.raises(DestinationBusyError) as caught:
        send(destination, mail)
    assert caught.value.retry
    server.faults.rcpt.clear()
    send(destination, next_try(mail))
    assert len(received(server)) == 1


@pytest.mark.req("R200")
def test_a_message_over_the_servers_size_is_said_before_it_is_sent(
    tmp_path, connect, destination, make_parcel, content
):
    with servers.receiver(tmp_path / "small", largest=100_000) as small:
        connect("mail", small.announcement())
        with pytest.raises(TooLargeError, match="takes 100000"):
            send(destination, make_parcel(content, addressee="leads@acme.example"))


@pytest.mark.req("R132", "R200")
def test_a_wrong_password_is_said(destination, server, connect, mail):
    connect("mail", server.announcement(), password="wrong horse")
    with pytest.raises(AuthenticationError) as caught:
        send(destination, mail)
    assert "wrong horse" not in str(caught.value)


@pytest.mark.req("F10", "C11")
def test_a_certificate_of_an_unknown_authority_is_refused(destination, server, connect, mail):
    connect("mail", server.announcement(), extra={"ca_file": None})
    with pytest.raises(HostKeyError, match="certificate"):
        send(destination, mail)
    assert received(server) == []


@pytest.mark.req("F10")
def test_without_tls_nothing_is_said_to_the_server_unless_allowed_with_a_reason(
    tmp_path, connect, destination, mail
):
    with servers.receiver(tmp_path / "plain", tls=False, passwords={}) as plain:
        connect("mail", plain.announcement())
        with pytest.raises(HostKeyError, match="TLS switched off"):
            send(destination, mail)
        allowed = {"allow_plaintext": True, "plaintext_reason": "the relay runs on this machine"}
        send(destination.model_copy(update=allowed), mail)
        assert len(received(plain)) == 1


@pytest.mark.req("F10")
def test_a_server_without_starttls_is_refused_before_the_login(tmp_path, connect, destination, mail):
    with servers.receiver(tmp_path / "plain", tls=False, passwords={}) as plain:
        connect("mail", plain.announcement(), extra={"disable_tls": False})
        with pytest.raises(HostKeyError, match="SMTPNotSupportedError"):
            send(destination, mail)


def test_plaintext_needs_a_reason():
    with pytest.raises(ValueError, match="plaintext_reason"):
        Email(id="mail", to=["a@acme.example"], subject="s", body="b", allow_plaintext=True)


@pytest.mark.parametrize(
    "bad", ["a", "a@b@c", "A <a@acme.example>", "a@acme.example, b@acme.example", "a@acme.example\nBcc: x@y"]
)
def test_what_is_not_one_address_is_refused_when_the_file_is_read(bad):
    with pytest.raises(ValueError, match="one mail address"):
        Email(id="mail", to=[bad], subject="s", body="b")


def test_an_address_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Email(id="mail", to=["a@acme.example", "A@acme.example"], subject="s", body="b")


def test_bytes_that_changed_in_the_archive_are_never_mailed(destination, server, mail):
    mail.file.path.write_bytes(b"id,name\r\n1,B\r\n")
    with pytest.raises(PermanentDeliveryError, match="not what was rendered"):
        send(destination, mail)
    assert received(server) == []


def test_the_model_survives_json(destination):
    assert destination == Email.model_validate(destination.model_dump(mode="json"))
    assert destination.pool == "leadferry_email_mail"


def changed(destination, **keys):
    return Email.model_validate({**destination.model_dump(mode="json"), **keys})


@pytest.mark.req("F38", "C23")
@pytest.mark.parametrize(
    ("mode", "to", "cc"),
    [
        ("one_per_recipient", "leads@acme.example", None),
        ("bcc", "undisclosed-recipients:;", None),
        ("together", "leads@acme.example, boss@acme.example", "desk@acme.example"),
    ],
)
def test_recipients_see_of_each_other_what_the_mode_says(destination, server, make_parcel, mode, to, cc):  # noqa: PLR0913, PLR0917  (parameters and fixtures)
    mail = changed(destination, mode=mode, cc=[cc] if cc else [], bcc=["hidden@acme.example"])
    everybody = mail.addressees()
    with mail.open() as session:
        for one in everybody:
            session.send(make_parcel(b"x", key=f"7 {one}", addressee=one))
    messages = received(server)
    assert everybody == [message["X-Envelope-To"] for message in messages]
    assert (messages[0]["To"], messages[0]["Cc"]) == (to, cc)
    seen = [set(re.findall(r"[a-z]+@acme", f"{one['To']} {one['Cc']}")) for one in messages]
    assert all("hidden@acme" not in shown for shown in seen[:-1])
    different = len(everybody) if mode == "one_per_recipient" else 1
    assert different == len({message["Message-ID"] for message in messages})


@pytest.mark.req("R125")
def test_from_is_what_the_batch_file_says_whatever_the_connection_says(destination, server, mail):
    send(changed(destination, sender="desk@acme.example", sender_name="Läd, Ferry"), mail)
    (message,) = received(server)
    assert message["From"].addresses[0].display_name == "Läd, Ferry"
    assert "desk@acme.example" == message["From"].addresses[0].addr_spec == message["X-Envelope-From"]
    assert "from desk@acme.example" in changed(destination, sender="desk@acme.example").where


@pytest.mark.req("R126", "R200")
def test_the_status_code_decides_and_only_what_passes_is_tried_again(destination, server, make_parcel):
    """One connection for all of them: after a refusal it is fit for the next message."""
    found = {}
    with destination.open() as session:
        for answer, _ in servers.REPLIES:
            server.faults.rcpt["leads@acme.example"] = f"{answer} of Ada Lovelace"
            with pytest.raises(DeliveryError) as caught:
                session.send(make_parcel(b"x", addressee="leads@acme.example"))
            found[answer] = caught.value
        server.faults.rcpt.clear()
        session.send(make_parcel(b"x", addressee="leads@acme.example"))
    assert {answer: type(error) for answer, error in found.items()} == dict(servers.REPLIES)
    assert all(error.retry == answer.startswith("4") for answer, error in found.items())
    assert not any("Ada" in str(error) for error in found.values())
    assert "SPF" in str(found["550 5.7.26 SPF and DKIM failed"])
    assert "SMTP 550 5.7.26" in str(found["550 5.7.26 SPF and DKIM failed"])


@pytest.mark.req("R125")
def test_the_probe_asks_for_every_recipient_and_sends_nothing(destination, server, make_parcel):
    nobody = make_parcel(b"x")
    with destination.open() as session:
        told = session.probe(nobody)
        assert told == "mail from ferry@leadferry.example to 2 recipients would be accepted"
        server.faults.rcpt["boss@acme.example"] = "550 5.1.1 no such user"
        with pytest.raises(MessageRefusedError, match="1 of 2 recipients"):
            session.probe(nobody)
        assert "1 recipient " in session.probe(make_parcel(b"x", addressee="leads@acme.example"))
        assert received(server) == []
        session.send(make_parcel(b"x", addressee="leads@acme.example"))
    assert len(received(server)) == 1


def test_the_endpoint_is_the_connections(destination, server, connect):
    assert destination.endpoint() == ("localhost", server.port)
    connect("mail", server.announcement(), port=None, extra={"disable_ssl": False})
    assert destination.endpoint() == ("localhost", 465)


def test_the_access_log_tells_the_server_and_the_bytes_and_nobody(destination, mail, caplog):
    caplog.set_level("INFO", logger="leadferry.access")
    receipt = send(destination, mail)
    lines = [record.getMessage() for record in caplog.records if record.name == "leadferry.access"]
    assert [line.split()[0] for line in lines] == ["connect", "mail"]
    assert f"ok {receipt.size} bytes" in lines[1]
    assert all("smtp://localhost:" in line and "@" not in line for line in lines)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"cc": ["c@acme.example"]}, "mode: together"),
        ({"cc": ["A@acme.example"], "mode": "together"}, "twice"),
        ({"to": [{"address": "a@acme.example", "subject": "x"}], "mode": "bcc"}, "one_per_recipient"),
        ({"when_too_large": ["zip"]}, "needs max_message"),
        ({"when_too_large": ["fail", "zip"], "max_message": "1MB"}, "nothing is tried after"),
        ({"when_too_large": ["zip", "zip"], "max_message": "1MB"}, "each remedy once"),
        ({"when_too_large": ["link"], "max_message": "1MB"}, "link_via"),
        ({"link_via": "lake"}, "link_via"),
        ({"chart": {"field": "state"}}, "exactly once"),
        ({"html": "<img src='{{ mail.chart }}'>"}, "what it counts"),
        ({"chart": {"field": "state"}, "html": "{{ mail.chart }}{{ mail.chart }}"}, "exactly once"),
        ({"subject": "{{ mail.sumary }}"}, "did you mean mail.summary"),
        ({"to": [{"address": "nobody"}]}, "one mail address"),
        ({"sender_name": "a\nBcc: x@y"}, "pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_the_file_is_read(keys, told):
    with pytest.raises(ValueError, match=told):
        Email.model_validate({"id": "mail", "to": ["a@acme.example"], "subject": "s", "body": "b", **keys})


@pytest.mark.req("F40", "C12")
@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, 100_000])
def test_the_estimate_is_never_below_the_truth_and_close_to_it(destination, server, make_parcel, size):
    wanted = changed(destination, body=None, sender_name="Leadferry")
    parcel = make_parcel(bytes(size), addressee="leads@acme.example", name="Gr\u00f6\u00dfe.csv")
    receipt = send(wanted, parcel)
    assert receipt.size <= estimate(wanted, parcel) <= receipt.size + 6000


@pytest.mark.req("F40", "R114", "C12")
def test_files_that_cannot_fit_are_refused_before_they_are_read(destination, make_parcel):
    parcel = make_parcel(bytes(50_000), addressee="leads@acme.example")
    parcel.file.path.unlink()
    with pytest.raises(TooLargeError, match="max_message is 60000"):
        send(changed(destination, max_message="60KB"), parcel)


def test_every_setting_survives_json():
    mail = Email.model_validate(
        {
            "id": "mail",
            "to": [
                "a@acme.example",
                {"address": "b@acme.example", "body": "x", "html": "{{ mail.chart }}", "files": ["leads"]},
                {"list": "buyers"},
                {"role": "desk"},
            ],
            "bcc": ["c@acme.example"],
            "subject": "s",
            "chart": {"field": "state", "top": 3},
            "max_message": "10MB",
            "when_too_large": ["zip", "link"],
            "link_via": "lake",
            "link_expires": "2d",
        }
    )
    assert mail == Email.model_validate(mail.model_dump(mode="json"))
    assert mail.groups
