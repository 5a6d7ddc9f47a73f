from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml

from leadferry.batch.describe import describe
from leadferry.batch.load import load_batch
from leadferry.batch.yaml_file import parse_yaml

from .conftest import BATCH


def section(text: str, title: str) -> str:
    return text.split(f"## {title}")[1].split("\n## ", maxsplit=1)[0]


@pytest.fixture
def page(folder) -> str:
    folder.write(
        "recipients/acme.yaml",
        """\
        name: Acme
        timezone: America/Chicago
        notes: Never on a bank holiday.
        contacts: [{name: Robin Vale, role: ops, email: robin@acme.example, phone: "+1 202 555 0171"}]
        """,
    )
    folder.batch(
        more="""\
        description: Auto leads for Acme
        notes: The buyer **pays** per lead.
        conditions: {min_leads: 10, max_wait: 3d}
        select:
          rules: [{name: served_states, field: state, in: [CA, TX]}]
          limit: 500
        retry: {attempts: 3, first_delay: 90s}
        """
    )
    return describe(folder.load())


@pytest.mark.req("R002")
def test_the_page_begins_with_name_and_description(page):
    assert page.startswith("# Acme, daily\n\nAuto leads for Acme\n")


@pytest.mark.req("R017")
def test_notes_and_contacts_are_on_the_page(page):
    recipient = section(page, "Recipient: Acme")

    assert "The buyer **pays** per lead." in page
    assert "Never on a bank holiday." in recipient
    assert "| Robin Vale | ops | robin@acme.example | +1 202 555 0171 |" in recipient


def test_when_it_departs_is_said_in_words(page):
    when = section(page, "When")

    assert "Departs weekdays at 09:00, America/Chicago time." in when
    assert "Takes at least 10 leads, unless the oldest has waited 3 days; fewer stay in the queue." in when
    assert (
        "tried 3 times in all: again after 1 minute 30 seconds, each further pause 2 times as long, at most 1 hour"
        in when
    )


def test_which_leads_what_and_where_is_said(page):
    assert "- Rule `served_states`: state is one of CA, TX." in section(page, "Which leads")
    assert "- At most 500 in one delivery" in section(page, "Which leads")
    assert "| Email | email |" in section(page, "What they get")
    assert "| share | folder out | leads |" in section(page, "Where")


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("window: since_previous", "What came until the departure was due, also when the run is late."),
        ("window: {period: day}", "What came until the end of the day of the departure, and not after"),
        (
            "window: {period: week, days: mon-fri, which: previous}",
            "What came until the end of the week before the departure's (mon to fri), and not after",
        ),
        (
            'quiet_hours: {from: "21:00", to: "08:00"}',
            "Not while it is between 21:00 and 08:00 where the lead is",
        ),
    ],
)
def test_which_time_of_arrival_and_of_day_counts_is_said(folder, select, said):
    folder.batch(more=f"select: {{{select}}}\n")
    assert f"- {said}" in section(describe(folder.load()), "Which leads")


@pytest.mark.parametrize(
    ("calendar", "schedule", "said"),
    [
        (
            "{name: Desk}",
            "",
            ["Calendar `desk`: closed on sat and sun; what falls on a closed day is left out."],
        ),
        (
            "{name: Desk, weekend: [fri], closed: [{dates: 12-24}], half_days: {12-31: '13:00'}}",
            ", on_closed_day: next, on_weekend: deliver",
            [
                (
                    "Calendar `desk`: closed on fri and holidays; what falls on a closed day goes on the open day after,"
                    " on a weekend goes all the same."
                ),
                "On half days departures go at 13:00 at the latest.",
            ],
        ),
        (
            """{name: Desk, weekend: [], hours: {opens: '09:00', closes: '17:00'}, half_days: {12-31: '13:00', 12-24: '12:00'},
            blackouts: [{starts: '21:00', ends: '23:45', on: [sat, sun], reason: <b>backup</b>},
            {starts: 2026-12-31T18:00, ends: 2027-01-01T08:00, reason: closing}]}""",
            ", on_closed_day: previous",
            [
                "Calendar `desk`: closed on no day; what falls on a closed day goes on the open day before.",
                "Business hours 09:00 to 17:00, on half days until 12:00 and 13:00; at other times nothing is sent, it waits.",
                (
                    "Nothing departs from 21:00 to 23:45 on sat and sun (&lt;b>backup&lt;/b>) and from 2026-12-31 18:00 to"
                    " 2027-01-01 08:00 (closing); it goes when that is over."
                ),
            ],
        ),
    ],
)  # fmt: skip
def test_when_the_recipient_is_closed_is_said(folder, calendar, schedule, said):
    folder.write("calendars/desk.yaml", calendar)
    folder.batch(text=BATCH.replace("on: weekdays", f"on: weekdays, calendar: desk{schedule}"))
    lines = section(describe(folder.load()), "When").strip().splitlines()

    assert [line.removeprefix("- ") for line in lines[1 : 1 + len(said)]] == said


def test_without_a_calendar_nothing_is_said_of_one(page):
    assert "alendar" not in section(page, "When")


def test_by_when_it_must_have_arrived_is_said(folder):
    folder.batch(more="deadline: 20m\n")
    told = "- What has not arrived 20 minutes after its time is told as an incident."
    assert told in section(describe(folder.load()), "When")
    folder.batch(more="deadline: null\n")
    assert "incident" not in section(describe(folder.load()), "When")


def test_the_operator_is_told_what_to_do(page):
    steps = section(page, "If a delivery failed")

    assert "`deliver.share`" in steps
    assert "`leadferry deliveries acme`" in steps
    for state in ("failed", "partial", "held", "claimed", "rendered"):
        assert f"**{state}**" in steps


def configuration(page):
    return section(page, "Configuration").split("```yaml\n")[1].split("\n```")[0]


def test_what_the_files_come_to_is_on_the_page_as_yaml_that_reads_back(folder, page):
    config = parse_yaml(configuration(page), shown="x").data

    assert config["timezone"] == config["schedule"]["timezone"] == "America/Chicago"
    assert config["schedule"]["at"] == ["09:00"]
    assert config["retry"] == {"attempts": 3, "first_delay": "90s"}
    assert config["files"][0]["format"] == {"type": "csv"}
    assert yaml.safe_load(configuration(page)).keys() == config.keys()


def test_a_calendar_is_named_there_without_its_holidays(folder):
    folder.write("calendars/desk.yaml", "name: Desk\nclosed: [{country: US}]\n")
    folder.batch(text=BATCH.replace("on: weekdays", "on: weekdays, calendar: desk"))
    page = describe(folder.load())

    assert parse_yaml(configuration(page), shown="x").data["schedule"]["calendar"] == "desk"
    assert "Labor Day" not in page


def test_a_manual_batch_says_so(folder):
    folder.batch(text=BATCH.replace('{at: ["09:00"], on: weekdays}', "manual"), more="retry: {attempts: 1}\n")

    when = section(describe(folder.load()), "When")

    assert "only when the DAG is triggered by hand" in when
    assert "not tried again" in when


def test_what_people_write_cannot_break_the_page(folder):
    folder.batch(
        text=BATCH.replace("to: Email", 'to: "a|b <i>"').replace("Acme, daily", '"x\\n# y"'),
        more='notes: "```\\n</details>"\n',
    )

    page = describe(folder.load())

    assert page.startswith("# x # y\n")
    assert "| a\\|b &lt;i> | email |" in page
    assert "````yaml" in page


def test_the_page_is_the_same_in_every_process(folder):
    folder.batch(more="tags: [b, a, c]\nselect: {rules: [{name: r, field: x, in: [c, a, b]}]}\n")
    code = (
        "import pathlib, sys; from leadferry.batch.load import load_batch; from leadferry.batch.describe import describe;"
        "sys.stdout.write(describe(load_batch('acme', config=pathlib.Path(sys.argv[1]))))"
    )

    pages = {
        subprocess.run(
            [sys.executable, "-c", code, str(folder.path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert pages == {describe(load_batch("acme", config=folder.path))}


WAYS = """\
name: Acme, three ways
recipient: acme
flows: [auto]
schedule: {at: ["09:00"], on: weekdays}
enabled: false
conditions: {max_leads: 900}
fields: [{to: Email, from: email}]
files: [{id: leads, name: "{{ delivery.date }}.csv", format: {type: csv}}]
destinations:
  - {id: server, type: sftp, connection: acme_sftp, directory: /in, retry: {attempts: 2, first_delay: 5s}}
  - {id: mail, type: email, connection: smtp, to: [kim@acme.example], subject: s, body: b, fallback_for: server}
  - id: api
    type: http
    connection: acme_api
    answers: [{when: {status: [2xx]}, then: accepted}]
notify: {failure: [ops@example.com, desk@example.com]}
"""


def test_each_destination_is_told_with_what_it_gets_and_how_often_it_is_tried(folder):
    folder.batch(text=WAYS)

    page = describe(folder.load())

    assert (
        "| mail, only when server failed | smtp connection 'smtp', 1 recipient at acme.example | leads |"
        in page
    )
    assert "| api | http connection 'acme_api', POST / | the leads themselves |" in page
    assert (
        "- For `server`: A delivery that fails for a passing reason is tried 2 times in all: again after 5 s"
        in page
    )
    assert "More than 900 leads are taken for a mistake" in section(page, "When")


def test_a_batch_without_files_has_no_empty_table(folder):
    lines = [line for line in WAYS.splitlines(keepends=True) if not line.startswith("files:")]
    kept = "".join(line for line in lines if "id: server" not in line and "id: mail" not in line)
    folder.batch(text=kept)

    where = section(describe(folder.load()), "Where")

    assert "| File |" not in where
    assert "the leads themselves" in where


def test_a_batch_that_is_switched_off_says_so_before_its_times(folder):
    folder.batch(text=WAYS)

    when = section(describe(folder.load()), "When")

    assert when.index("Switched off") < when.index("Departs weekdays")
    assert "`leadferry batches enable acme`" in when


def test_who_hears_of_a_failure_is_told(folder, page):
    folder.batch(text=WAYS)

    told = section(describe(folder.load()), "If a delivery failed")

    assert "`ops@example.com`, `desk@example.com` get a mail when a delivery fails." in told
    assert "Nobody gets a mail" in section(page, "If a delivery failed")


def test_the_operator_is_told_of_the_doctor_and_of_what_is_held(page):
    steps = section(page, "If a delivery failed")

    assert "`leadferry doctor acme`" in steps
    assert "`leadferry suspensions`" in steps
    assert "`leadferry dispatch list DELIVERY`" in steps


@pytest.mark.req("F09")
def test_a_bug_met_while_the_page_is_written_stops_no_batch_and_tells_nothing_of_its_data(
    folder, monkeypatch
):
    def broken(batch):
        raise KeyError(batch.recipient.name)

    folder.batch()
    monkeypatch.setattr("leadferry.batch.describe._when", broken)

    page = describe(folder.load())

    assert re.fullmatch(
        r"# \S.*\n\nThis page could not be written: a bug in Leadferry \(KeyError at test_describe\.py:\d+\)\."
        r" Please report this\.\n",
        page,
    )
