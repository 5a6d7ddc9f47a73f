"""Who hears of incidents: one mail when they begin, one when they are over, whatever happens in between."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from ferry import messages
from leadferry.store import incidents
from leadferry.watch.settings import every

from .conftest import DAY, MONDAY, OPS

KIM = "kim@example.com"
LATE = timedelta(hours=9, minutes=31)


@pytest.mark.req("F44", "R168", "C03")
def test_each_person_gets_one_mail_about_all_that_concerns_them_and_one_when_it_is_over(port, mail):
    port.batch("acme", notify={"failure": [OPS, KIM]})
    port.batch("bolt", notify={"failure": [OPS]})
    port.watch(MONDAY)

    port.watch(MONDAY + LATE)
    port.watch(MONDAY + LATE + timedelta(minutes=10))
    alerts = sorted(messages(mail))
    port.extract("acme", at=MONDAY + LATE)
    port.watch(MONDAY + LATE + timedelta(minutes=20))
    after = sorted(set(messages(mail)) - set(alerts))

    assert [(to, subject) for to, subject, _ in alerts] == [
        (KIM, "Leadferry: acme: needs attention"),
        (OPS, "Leadferry: acme, bolt: needs attention"),
    ]
    assert alerts[1][2].count("there is no delivery") == 2
    assert [(to, subject) for to, subject, _ in after] == [
        (KIM, "Leadferry: acme: is well again"),
        (OPS, "Leadferry: acme: is well again"),
    ]
    assert "Batch acme: missing, since Mon 2026-02-02 09:00 UTC, is over." in after[0][2]


def test_what_the_mail_server_did_not_take_is_told_with_the_next_look(port, mail, monkeypatch):
    port.batch(notify={"failure": [OPS], "connection": "elsewhere"})
    port.watch(MONDAY)
    lost = port.watch(MONDAY + LATE)
    port.batch(notify={"failure": [OPS]})

    found = port.watch(MONDAY + LATE + timedelta(minutes=10))

    assert (lost.begun, len(lost.open)) == ([], 1)
    assert [one.batch for one in found.begun] == ["acme"]
    assert len(messages(mail)) == 1


def test_what_is_over_before_anybody_could_be_told_is_not_told(port, mail):
    port.batch(notify={"failure": [OPS], "connection": "elsewhere"})
    port.watch(MONDAY)
    port.watch(MONDAY + LATE)
    port.batch(notify={"failure": [OPS]})
    port.extract(at=MONDAY + LATE)

    port.watch(MONDAY + LATE + timedelta(minutes=10))

    assert messages(mail) == []
    assert incidents.untold(port.database) == []


def test_a_batch_that_cannot_be_loaded_is_told_to_those_whom_the_defaults_name(port, mail):
    port.defaults(notify={"failure": [OPS]})
    port.batch("torn").write_text("name: [\n")

    port.watch(MONDAY)

    assert [(to, subject) for to, subject, _ in messages(mail)] == [(OPS, "Leadferry: torn: needs attention")]


def test_where_nobody_is_named_the_log_tells_once(port, caplog):
    port.batch()
    port.watch(MONDAY)
    with caplog.at_level(logging.INFO, logger="leadferry.watch"):
        port.watch(MONDAY + LATE)
        first = list(caplog.messages)
        port.watch(MONDAY + LATE)
        port.extract(at=MONDAY + LATE)
        port.watch(MONDAY + DAY)

    assert [text for text in first if text.startswith("missing since Mon 2026-02-02 09:00 UTC: Batch acme")]
    assert "`notify.failure` names nobody" in first[-1]
    assert caplog.messages[len(first) :] == ["Over: missing of batch acme"]


def test_mails_with_many_batches_have_a_short_subject(port, mail):
    port.defaults(notify={"failure": [OPS]})
    for name in ("a", "b", "c", "d", "e"):
        port.batch(name).write_text("name: [\n")

    port.watch(MONDAY)

    assert [subject for _, subject, _ in messages(mail)] == ["Leadferry: a, b, c, …: needs attention"]


@pytest.mark.parametrize(
    ("written", "minutes"),
    [(None, 10), ({"every": "5m"}, 5), ({"every": None}, None), ({"evry": "5m"}, 10), ("often", 10)],
)
def test_how_often_somebody_looks_stands_in_the_defaults(port, written, minutes):
    port.defaults(**({} if written is None else {"maintenance": written}))

    assert every(port.config) == (None if minutes is None else timedelta(minutes=minutes))


def test_a_wrong_setting_is_told_with_file_and_line_and_breaks_no_batch(port):
    from leadferry.batch.check import check

    port.batch()
    port.defaults(maintenance={"evry": "5m"})

    report = check(port.config)

    assert [str(one).split(": ", 1)[0] for one in report.problems] == ["config/defaults.yaml:2"]
    assert [batch.id for batch in report.batches] == ["acme"]
