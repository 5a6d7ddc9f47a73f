"""Departures that get in each other's way, or that reach a recipient who is closed, found before they happen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from leadferry.batch import conflicts as conflicts_module
from leadferry.batch.conflicts import conflicts
from leadferry.batch.load import load_all

BATCH = """
name: Acme
recipient: {recipient}
flows: [auto]
schedule: {schedule}
fields: [{{to: Email, from: email}}]
files: [{{name: "{name}.csv", format: {{type: csv}}}}]
destinations: [{{id: share, type: folder, path: "out/{name}"}}]
{more}
"""

CALENDAR = """
closed: [{dates: 2026-06-10, name: Outing}]
half_days: {2026-06-11: "12:00"}
"""
OFFICE = CALENDAR + 'hours: {opens: "09:00", closes: "17:00"}\n'
BLACKOUT = 'blackouts: [{starts: "2026-06-04T06:00", ends: "2026-06-04T20:00", reason: year-end close}]\n'

MONDAY = datetime(2026, 6, 1, 4, tzinfo=UTC)
"""Midnight in New York."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for part in ("batches", "recipients", "calendars"):
        (tmp_path / part).mkdir()
    (tmp_path / "defaults.yaml").write_text("timezone: America/New_York\n")
    for recipient in ("acme", "other"):
        (tmp_path / "recipients" / f"{recipient}.yaml").write_text(f"name: {recipient}\n")
    for name, text in {"plain": CALENDAR, "office": OFFICE, "closing": BLACKOUT}.items():
        (tmp_path / "calendars" / f"{name}.yaml").write_text(text)
    return tmp_path


def write(config: Path, name: str, schedule: str, *, recipient: str = "acme", more: str = "") -> None:
    text = BATCH.format(name=name, schedule=schedule, recipient=recipient, more=more)
    (config / "batches" / f"{name}.yaml").write_text(text)


def found(config: Path, *, days: int = 14) -> list[tuple[str, str, str]]:
    batches, errors = load_all(config)
    assert not errors
    told = conflicts(batches, start=MONDAY, span=timedelta(days=days))
    return [(", ".join(one.batches), one.where, one.problem) for one in told]


@pytest.mark.req("R055")
@pytest.mark.parametrize(
    ("calendar", "schedule", "problem"),
    [
        (
            "office",
            '{at: ["20:00"], on: [mon]}',
            (
                "departs Mon 2026-06-01 20:00 EDT (Tue 2026-06-02 00:00 UTC), when acme is closed until Tue 2026-06-02 09:00 EDT (13:00 UTC):"
                " Mon 20:00 is after 17:00, when business hours end"
            ),
        ),
        (
            "office",
            '{at: ["07:00"], on: [mon]}',
            (
                "departs Mon 2026-06-01 07:00 EDT (11:00 UTC), when acme is closed until Mon 2026-06-01 09:00 EDT (13:00 UTC):"
                " Mon 07:00 is outside business hours (09:00 to 17:00)"
            ),
        ),
        (
            "closing",
            '{at: ["09:00"], on: [thu]}',
            (
                "departs Thu 2026-06-04 09:00 EDT (13:00 UTC), when acme is closed until Thu 2026-06-04 20:00 EDT (Fri 2026-06-05 00:00 UTC):"
                " Thu 09:00 is in a blackout (year-end close)"
            ),
        ),
        (
            "office",
            '{at: ["15:00"], on: [thu]}',
            (
                "departs Thu 2026-06-11 15:00 EDT (19:00 UTC), when acme is closed until Fri 2026-06-12 09:00 EDT (13:00 UTC):"
                " Thu 15:00 is after 12:00, when business hours end"
            ),
        ),
        (
            "plain",
            '{at: ["15:00"], on: [thu]}',
            (
                "departs Thu 2026-06-11 15:00 EDT (19:00 UTC), when acme is closed until Fri 2026-06-12 00:00 EDT (04:00 UTC):"
                " Thu 2026-06-11 is a half day that ends at 12:00"
            ),
        ),
        (
            "plain",
            '{at: ["09:00"], on: [wed]}',
            (
                "departs Wed 2026-06-10 09:00 EDT (13:00 UTC), when acme is closed until Thu 2026-06-11 00:00 EDT (04:00 UTC):"
                " Wed 2026-06-10 is closed (Outing)"
            ),
        ),
        (
            "office",
            '{at: ["09:00"], on: [tue], timezone: Asia/Tokyo}',
            (
                "departs Mon 2026-06-01 20:00 EDT (Tue 2026-06-02 00:00 UTC), when acme is closed until Tue 2026-06-02 09:00 EDT (13:00 UTC):"
                " Mon 20:00 is after 17:00, when business hours end"
            ),
        ),
    ],
)
def test_a_batch_that_knows_no_calendar_is_told_when_its_recipient_is_closed(
    config, calendar, schedule, problem
):
    write(config, "blind", schedule)
    write(config, "known", f'{{at: ["10:00"], on: [tue], calendar: {calendar}}}')
    ((batch, where, told),) = found(config)
    assert (batch, where) == ("blind", f"calendar {calendar} of known")
    assert told.startswith(problem)


@pytest.mark.req("R055")
def test_a_departure_when_the_recipient_is_open_is_no_conflict(config):
    write(config, "blind", '{at: ["09:00", "12:00"], on: [tue, thu]}')
    write(config, "known", '{at: ["10:00"], on: [tue], calendar: office}')
    assert found(config) == []


@pytest.mark.req("R055")
def test_another_recipients_hours_do_not_count(config):
    write(config, "blind", '{at: ["20:00"]}')
    write(config, "known", '{at: ["10:00"], calendar: office}', recipient="other")
    assert found(config) == []


@pytest.mark.req("R055")
def test_a_recipient_whose_other_batch_delivers_on_closed_days_is_open_on_them(config):
    write(config, "blind", '{at: ["10:00"], on: [wed]}')
    write(config, "known", '{at: ["11:00"], on: [tue], calendar: office, on_closed_day: deliver}')
    assert found(config) == []


@pytest.mark.req("R055")
def test_hours_are_also_known_by_a_batch_that_departs_at_events(config):
    write(config, "blind", '{at: ["20:00"], on: [mon]}')
    write(config, "known", "{on_asset: warehouse, calendar: office}")
    ((batch, where, problem),) = found(config)
    assert (batch, where) == ("blind", "calendar office of known")
    assert problem.startswith("departs Mon 2026-06-01 20:00 EDT (Tue 2026-06-02 00:00 UTC)")


@pytest.mark.req("R055")
def test_each_batch_is_told_once_for_each_calendar(config):
    write(config, "blind", '{at: ["08:00", "20:00"]}')
    write(config, "known", '{at: ["10:00"], calendar: office}')
    write(config, "also_known", '{at: ["11:00"], on: [tue], calendar: office}')
    write(config, "closing", '{at: ["10:30"], calendar: closing}')
    told = found(config)
    assert [(batch, where) for batch, where, _ in told] == [
        ("blind", "calendar office of also_known"),
        ("blind", "calendar closing of closing"),
        ("known", "calendar closing of closing"),
        ("closing", "calendar office of also_known"),
    ]


@pytest.mark.req("R055")
def test_a_departure_on_a_day_that_its_own_calendar_closes_is_told(config):
    write(config, "brave", '{at: ["09:00"], on: [wed], calendar: office, on_closed_day: deliver}')
    assert found(config) == [
        ("brave", "calendar office", "departs although Wed 2026-06-10 is closed (Outing)")
    ]


@pytest.mark.req("R055")
def test_a_second_chance_that_would_wait_for_the_next_opening_is_told(config):
    again = 'retry: {attempts: 1, at: ["11:00", "21:00"]}'
    write(config, "daily", '{at: ["10:00"], on: [mon], calendar: office}', more=again)
    assert found(config) == [
        (
            "daily",
            "retry.at 21:00",
            (
                "a second chance Mon 2026-06-01 21:00 EDT (Tue 2026-06-02 01:00 UTC) is held until Tue 2026-06-02 09:00 EDT (13:00 UTC):"
                " Mon 21:00 is after 17:00, when business hours end"
            ),
        )
    ]


@pytest.mark.req("R055")
def test_file_names_are_made_only_for_the_first_meeting_of_each_pair_at_each_place(config, monkeypatch):
    for name in ("one", "two", "three"):
        write(config, name, "{every: 30 minutes}")
        file = config / "batches" / f"{name}.yaml"
        file.write_text(file.read_text().replace(f"out/{name}", "out").replace(f"{name}.csv", "leads.csv"))
    write(config, "late", '{at: ["23:00"]}')
    late = config / "batches" / "late.yaml"
    late.write_text(late.read_text().replace("out/late", "out"))
    made = []
    names = conflicts_module._names
    monkeypatch.setattr(conflicts_module, "_names", lambda *each: made.append(each) or names(*each))

    told = found(config)

    assert [(batches, problem) for batches, _, problem in told] == [
        ("one, three", "both write leads.csv"),
        ("one, two", "both write leads.csv"),
        ("three, two", "both write leads.csv"),
        ("late, one", "both deliver in the same minute"),
        ("late, three", "both deliver in the same minute"),
        ("late, two", "both deliver in the same minute"),
    ]
    assert len(made) == 2 * len(told)


@pytest.mark.req("R055")
def test_a_batch_that_is_switched_off_is_in_nobodys_way(config):
    write(config, "one", '{at: ["09:00"]}')
    write(config, "two", '{at: ["09:00"]}', more="enabled: false")
    text = (config / "batches" / "two.yaml").read_text()
    (config / "batches" / "two.yaml").write_text(text.replace("out/two", "out/one"))
    assert found(config) == []
    (config / "batches" / "two.yaml").write_text(text.replace("out/two", "out/one").replace("false", "true"))
    assert [one[0] for one in found(config)] == ["one, two"]
