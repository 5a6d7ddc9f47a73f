"""Mail by the ledger: what is done when it would be too large, who gets what, and what is tried again."""

from __future__ import annotations

import csv
import io
import random
import re
import zipfile
from email import message_from_bytes, policy

import pytest

from batches import add_leads, make_batch, rows
from ferry import email
from leadferry.errors import MessageRefusedError, OutcomeUnknownError, TooLargeError
from leadferry.states import DeliveryState
from leadferry.store import sending

BUYER, BOSS = "leads@acme.example", "boss@acme.example"
WIDE = {"note": "\u00e4 long text that a buyer wants, said again and again. " * 6}


def received(mail):
    return [message_from_bytes(path.read_bytes(), policy=policy.default) for path in mail.inbox.messages()]


def sizes(mail):
    """Bytes of each message as it was sent: without the two lines that the inbox adds."""
    found = (path.read_bytes().split(b"\r\n", 2)[2] for path in mail.inbox.messages())
    return [len(one) for one in found]


def attached(message):
    return {part.get_filename(): part.get_content() for part in message.iter_attachments()}


def leads_in(content):
    text = content.decode() if isinstance(content, bytes) else content
    return [row["Email"] for row in csv.DictReader(io.StringIO(text))]


def noted(*destinations, **keys):
    """A batch whose files have some hundred bytes per lead."""
    fields = [{"to": "Email", "from": "email"}, {"to": "Note", "from": "note"}]
    return make_batch(fields=fields, destinations=list(destinations), **keys)


def evidence(database):
    return [
        row[0].get("details", {})
        for row in rows(database, "SELECT DISTINCT receipt FROM dispatch WHERE receipt IS NOT NULL")
    ]


@pytest.fixture
def leads(database):
    add_leads(database, 300, fields=WIDE)
    return [f"lead{n}@example.com" for n in range(1, 301)]


@pytest.mark.req("F40", "R114", "R202")
def test_a_mail_that_is_small_enough_is_left_as_it_is(ferry, mail, leads):
    limits = {"max_message": "1MB", "when_too_large": ["zip", "split", "fail"]}
    settled = ferry.carry(noted(email(BUYER, **limits)))
    (message,) = received(mail)
    assert settled.state is DeliveryState.DELIVERED
    assert leads_in(attached(message)["acme_1.csv"]) == leads


@pytest.mark.req("F40", "R114", "R202", "C12")
def test_the_encoded_size_counts_and_zip_comes_first(ferry, mail, database, leads):
    """The file alone is under the limit; in a mail it is not."""
    size = 300 * (len(WIDE["note"].encode()) + 25)
    limit = int(size * 1.2)
    limits = {"max_message": f"{limit}B", "when_too_large": ["zip", "split", "fail"]}
    settled = ferry.carry(noted(email(BUYER, **limits)))
    assert rows(database, "SELECT size < :limit FROM file WHERE kind = 'leads'", limit=limit) == [(True,)]
    (message,) = received(mail)
    (packed,) = attached(message).items()
    with zipfile.ZipFile(io.BytesIO(packed[1])) as box:
        assert packed[0] == "acme_1.csv.zip"
        assert leads_in(box.read("acme_1.csv")) == leads
    assert settled.state is DeliveryState.DELIVERED
    assert [one["too_large"] for one in evidence(database)] == ["zip"]


@pytest.mark.req("F40", "R202")
def test_split_sends_complete_files_in_messages_that_say_which_they_are(ferry, mail, database, leads):
    limits = {"max_message": "60KB", "when_too_large": ["split", "zip", "fail"]}
    batch = noted(email(BUYER, subject="Leads {{ mail.part }}/{{ mail.parts }}", **limits))
    settled = ferry.carry(batch)
    messages = received(mail)
    count = len(messages)
    assert settled.state is DeliveryState.DELIVERED
    assert count > 2
    assert [one["Subject"] for one in messages] == [f"Leads {n}/{count}" for n in range(1, count + 1)]
    assert [name for one in messages for name in attached(one)] == [
        f"acme_1_{n}.csv" for n in range(1, count + 1)
    ]
    assert [lead for one in messages for file in attached(one).values() for lead in leads_in(file)] == leads
    assert max(sizes(mail)) <= 60_000
    assert len({one["Message-ID"] for one in messages}) == count
    assert {one["too_large"] for one in evidence(database)} == {"split"}
    assert {one["part"] for one in evidence(database)} == {f"{n} of {count}" for n in range(1, count + 1)}


@pytest.mark.req("F40", "F03")
def test_a_cut_after_part_two_never_sends_part_one_again(ferry, mail, leads):
    limits = {"max_message": "60KB", "when_too_large": ["split"]}
    claimed = ferry.rendered(noted(email(BUYER, subject="{{ mail.part }}", **limits)))
    planned = {one.parcel_key for one in sending.dispatches_to(ferry.database, claimed.delivery_id)}
    mail.faults.cut_at = 2
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), OutcomeUnknownError)
    mail.faults.cut_at = None
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), OutcomeUnknownError)
    assert [one["Subject"] for one in received(mail)] == [str(n) for n in range(1, len(planned) + 1)]
    assert ferry.settle(claimed).state is DeliveryState.HELD


@pytest.mark.req("F40")
def test_files_that_fit_alone_are_spread_over_messages_as_they_are(ferry, mail, leads):
    files = [
        {
            "id": one,
            "name": f"{one}_{{{{ delivery.number }}}}.csv",
            "format": {"type": "csv"},
            "checksum": "sha256",
        }
        for one in ("first", "second")
    ]
    limits = {"max_message": "180KB", "when_too_large": ["split"]}
    ferry.carry(noted(email(BUYER, **limits), files=files))
    assert [list(attached(one)) for one in received(mail)] == [
        ["first_1.csv"],
        ["second_1.csv", "first_1.csv.sha256", "second_1.csv.sha256"],
    ]


@pytest.mark.req("F40")
def test_beside_parts_checksums_and_the_manifest_tell_of_the_parts(ferry, mail, leads):
    file = {"name": "acme.csv", "format": {"type": "csv"}, "checksum": "sha256"}
    limits = {"max_message": "60KB", "when_too_large": ["split"]}
    ferry.carry(noted(email(BUYER, **limits), files=[file], manifest={"name": "list.json"}))
    found = {name: content for one in received(mail) for name, content in attached(one).items()}
    parts = [name for name in found if name.endswith(".csv")]
    assert {f"{name}.sha256" for name in parts} == {name for name in found if name.endswith(".sha256")}
    told = found["list.json"].decode() if isinstance(found["list.json"], bytes) else found["list.json"]
    assert re.findall(r'"name": "(.*?)"', told) == parts


@pytest.mark.req("F40", "R202")
def test_remedies_that_do_not_help_are_passed_over_and_leave_nothing(ferry, mail, database):
    """One lead has more text than a mail may: neither its zip nor a part with it alone is small enough."""
    add_leads(database, 3, fields={"note": random.Random(1).randbytes(20_000).hex()})
    limits = {"max_message": "20KB", "when_too_large": ["zip", "split", "fail"]}
    claimed = ferry.rendered(noted(email(BUYER, **limits)))
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), TooLargeError)
    assert rows(database, "SELECT kind::text FROM file") == [("leads",)]
    assert received(mail) == []


def test_too_large_for_every_remedy_is_said_before_anything_is_sent(ferry, mail, leads, tmp_path):
    share = {"id": "share", "type": "folder", "path": str(tmp_path / "share")}
    claimed = ferry.rendered(noted(email(BUYER, max_message="60KB"), share))
    error = ferry.try_to_deliver(claimed, "mail")
    assert isinstance(error, TooLargeError)
    assert "when_too_large" in str(error)
    assert ferry.try_to_deliver(claimed, "share") is None
    assert received(mail) == []
    assert ferry.settle(claimed).state is DeliveryState.PARTIAL


def test_what_a_remedy_made_is_stored_once_for_all_recipients(ferry, mail, database, leads):
    limits = {"max_message": "60KB", "when_too_large": ["zip"]}
    ferry.carry(noted(email(BUYER, BOSS, **limits)))
    assert rows(database, "SELECT count(*) FROM file WHERE kind = 'variant'") == [(1,)]
    first, second = (attached(one) for one in received(mail))
    assert first == second


@pytest.mark.req("R109", "F39", "C22")
@pytest.mark.parametrize("mode", ["one_per_recipient", "bcc", "together"])
def test_only_the_refused_recipient_is_tried_again(ferry, mail, database, mode):
    add_leads(database, 2)
    mail.faults.rcpt[BUYER] = "550 5.1.1 no such user"
    claimed = ferry.rendered(make_batch(destinations=[email(BUYER, BOSS, mode=mode)]))
    assert isinstance(ferry.try_to_deliver(claimed, "mail"), MessageRefusedError)
    mail.faults.rcpt.clear()
    assert ferry.try_to_deliver(claimed, "mail") is None
    assert [one["X-Envelope-To"] for one in received(mail)] == [BOSS, BUYER]


@pytest.mark.req("R129")
def test_recipients_get_their_own_texts_and_files(ferry, mail, database):
    add_leads(database, 2)
    files = [{"id": one, "name": f"{one}.{one}", "format": {"type": one}} for one in ("csv", "ndjson")]
    jim = {
        "address": "jim@acme.example",
        "subject": "For Jim",
        "body": "{{ lead.count }} for you",
        "files": ["csv"],
    }
    ferry.carry(make_batch(files=files, destinations=[email(BUYER, jim)]))
    everybody, to_jim = received(mail)
    assert (everybody["Subject"], list(attached(everybody))) == ("Leads", ["csv.csv", "ndjson.ndjson"])
    assert (to_jim["Subject"], list(attached(to_jim))) == ("For Jim", ["csv.csv"])
    assert to_jim.get_body().get_content().strip() == "2 for you"


@pytest.mark.req("R115")
def test_the_default_text_states_count_period_names_sizes_and_checksums(ferry, mail, database):
    add_leads(database, 2)
    destination = email(BUYER)
    del destination["body"]
    ferry.carry(make_batch(name="Acme <daily>", destinations=[destination]))
    (message,) = received(mail)
    text, page = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))
    ((name, size, sha256),) = rows(database, "SELECT name, size, sha256 FROM file")
    for part in (text, page):
        assert "2" in part
        assert re.search(r"up to \d{4}-\d\d-\d\d", part)
        assert name in part
        assert f"{size} bytes" in part
        assert sha256 in part
    assert "Acme <daily>: 2 leads" in text
    assert "Acme &lt;daily&gt;" in page
    assert "<daily>" not in page
    assert "lead1@example.com" not in text + page


@pytest.mark.req("R116")
def test_the_chart_is_in_the_message_and_referenced_once(ferry, mail, database):
    for state, count in (("CA", 5), ("TX", 3), ("", 1), ("K\u00e4rnten", 2), ("only one", 1)):
        add_leads(database, count, fields={"state": state})
    destination = email(BUYER, chart={"field": "state", "title": "By state"})
    del destination["body"]
    ferry.carry(make_batch(destinations=[destination]))
    (message,) = received(mail)
    (picture,) = [part for part in message.walk() if part.get_content_type() == "image/png"]
    page = message.get_body(("related", "html"))
    page = page if page.get_content_type() == "text/html" else next(iter(page.iter_parts()))
    cid = picture["Content-ID"].strip("<>")
    assert page.get_content().count(f"cid:{cid}") == 1
    assert picture.get_content().startswith(b"\x89PNG")
    assert list(attached(message)) == ["acme_1.csv"]
    assert rows(database, "SELECT count(*) FROM file WHERE kind = 'chart'") == [(1,)]


def test_a_chart_of_no_leads_is_left_out(ferry, mail, database):
    add_leads(database, 1)
    destination = email(BUYER, chart={"field": "state"})
    del destination["body"]
    rule = {"name": "never", "field": "n", "equals": "none"}
    ferry.carry(make_batch(destinations=[destination], empty="header_only", select={"rules": [rule]}))
    (message,) = received(mail)
    assert "cid:" not in message.get_body(("html",)).get_content()
