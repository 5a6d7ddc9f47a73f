"""Certificates near their end, and the mail servers of domains."""

from datetime import UTC, datetime, timedelta

import pytest

from leadferry.doctor import wire
from leadferry.doctor.finding import Verdict
from leadferry.doctor.wire import Opening
from servers import smtp as smtp_servers
from servers.dns import NameServer


@pytest.mark.parametrize(
    ("left", "verdict", "told"),
    [
        (timedelta(days=40), Verdict.OK, "holds until"),
        (timedelta(days=12), Verdict.WARNING, "in 11 days"),
        (timedelta(days=-1), Verdict.FAILED, "ended on"),
    ],
)
def test_the_end_of_a_certificate_is_told_in_time(tmp_path, left, verdict, told):
    with smtp_servers.receiver(tmp_path) as server:
        asked = {"opening": Opening.SMTP, "timeout": 10}
        first = wire.certificate("127.0.0.1", server.port, now=datetime.now(UTC), **asked)
        ends = datetime.fromisoformat(first.what.rsplit(" ", 1)[1]).replace(tzinfo=UTC) + timedelta(days=1)
        found = wire.certificate("127.0.0.1", server.port, now=ends - left, **asked)

    assert (found.verdict, told in found.what) == (verdict, True)
    assert bool(found.remedy) == (verdict is not Verdict.OK)


@pytest.fixture
def names():
    records = {
        ("acme.example", "MX"): ["20 second.acme.example.", "10 first.acme.example."],
        ("old.example", "A"): ["192.0.2.1"],
        ("six.example", "AAAA"): ["2001:db8::1"],
        ("no-mail.example", "MX"): ["0 ."],
        ("empty.example", "TXT"): ['"nothing here"'],
    }
    with NameServer(records) as server:
        server.fails.add("broken.example")
        yield server


@pytest.mark.req("F43", "R144")
@pytest.mark.parametrize(
    ("domain", "verdict", "told"),
    [
        ("acme.example", Verdict.OK, "first.acme.example"),
        ("old.example", Verdict.OK, "mail goes to its address"),
        ("six.example", Verdict.OK, "mail goes to its address"),
        ("no-mail.example", Verdict.WARNING, "takes no mail"),
        ("empty.example", Verdict.WARNING, "neither"),
        ("amce.example", Verdict.WARNING, "no such domain"),
        ("broken.example", Verdict.WARNING, "did not say"),
    ],
)
def test_whether_a_domain_takes_mail(names, domain, verdict, told):
    (found,) = wire.mail_servers([domain], resolver=names.resolver())

    assert (found.verdict, told in found.what) == (verdict, True)


def test_each_domain_is_asked_for_once(names):
    found = wire.mail_servers(["acme.example", "old.example", "acme.example"], resolver=names.resolver())

    assert [one.what.partition(":")[0] for one in found] == ["acme.example", "old.example"]
