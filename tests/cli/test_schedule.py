"""`leadferry schedule`: the preview, from the files to what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from icalendar import Calendar
from sqlalchemy import text
from typer.testing import CliRunner

from leadferry.cli import app
from leadferry.store.database import Database

BATCH = """
name: Acme, daily
recipient: {recipient}
flows: [auto]
schedule: {schedule}
fields: [{{to: Email, from: email}}]
files: [{{name: leads.csv, format: {{type: csv}}}}]
destinations: [{{id: share, type: folder, path: out}}]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    for part in ("batches", "recipients"):
        (folder / part).mkdir(parents=True)
    (folder / "defaults.yaml").write_text("timezone: America/New_York\n")
    (folder / "recipients" / "acme.yaml").write_text("name: Acme\n")
    (folder / "recipients" / "tokyo.yaml").write_text("name: Tokyo\ntimezone: Asia/Tokyo\n")
    (folder / "recipients" / "paris.yaml").write_text("name: Paris\ntimezone: Europe/Paris\n")
    monkeypatch.setenv("LEADFERRY_CONFIG", str(folder))
    return folder


def write(config: Path, batch: str, schedule: str, *, recipient: str = "acme") -> None:
    (config / "batches" / f"{batch}.yaml").write_text(BATCH.format(schedule=schedule, recipient=recipient))


def preview(*arguments: str) -> list[dict[str, str]]:
    done = CliRunner().invoke(app, ["schedule", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.req("R023", "R033", "R054")
def test_a_batch_without_zone_departs_in_the_default_zone(config):
    write(config, "daily", '{at: ["09:00"]}')
    assert preview("daily", "-n", "3", "--from", "2026-03-07") == [
        {"utc": "2026-03-07T14:00:00+00:00", "local": "2026-03-07T09:00:00-05:00", "note": ""},
        {"utc": "2026-03-08T13:00:00+00:00", "local": "2026-03-08T09:00:00-04:00", "note": ""},
        {"utc": "2026-03-09T13:00:00+00:00", "local": "2026-03-09T09:00:00-04:00", "note": ""},
    ]


@pytest.mark.req("R034")
def test_nine_is_another_instant_for_each_recipient(config):
    write(config, "to_tokyo", '{at: ["09:00"]}', recipient="tokyo")
    write(config, "to_paris", '{at: ["09:00"]}', recipient="paris")
    instants = [
        preview(batch, "-n", "1", "--from", "2026-02-01")[0]["utc"] for batch in ("to_tokyo", "to_paris")
    ]
    assert instants == ["2026-02-01T00:00:00+00:00", "2026-02-01T08:00:00+00:00"]


@pytest.mark.req("R035", "R054")
def test_the_preview_says_why_a_departure_is_shifted(config):
    write(config, "nightly", '{at: ["02:30"]}')
    shifted = preview("nightly", "-n", "1", "--from", "2026-03-08")[0]
    assert shifted == {
        "utc": "2026-03-08T07:00:00+00:00",
        "local": "2026-03-08T03:00:00-04:00",
        "note": "2026-03-08 02:30 does not exist, clocks go from 02:00 to 03:00",
    }


def test_ten_departures_from_now_on_are_shown_when_nothing_else_is_asked_for(config):
    write(config, "daily", '{at: ["09:00"]}')
    before = datetime.now(tz=UTC)
    found = [datetime.fromisoformat(row["utc"]) for row in preview("daily")]
    assert len(found) == 10
    assert before < found[0] <= before + timedelta(days=1, hours=2)


def test_a_departure_at_the_first_moment_of_the_preview_is_shown(config):
    write(config, "daily", '{at: ["09:00"]}')
    assert preview("daily", "-n", "1", "--from", "2026-07-01T09:00")[0]["utc"] == "2026-07-01T13:00:00+00:00"
    assert preview("daily", "-n", "1", "--from", "2026-07-01T13:00Z")[0]["utc"] == "2026-07-01T13:00:00+00:00"


def test_people_get_a_table_with_weekday_and_zone(config, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    write(config, "daily", '{at: ["09:00"], on: weekdays}')
    done = CliRunner().invoke(app, ["schedule", "daily", "-n", "1", "--from", "2026-07-04"])
    assert "daily: weekdays at 09:00 America/New_York" in done.stdout
    assert "2026-07-06 13:00" in done.stdout
    assert "Mon 2026-07-06 09:00 EDT" in done.stdout


def test_a_manual_batch_has_an_empty_preview_and_says_so(config):
    write(config, "by_hand", "manual")
    assert preview("by_hand") == []
    assert "only when it is triggered by hand" in CliRunner().invoke(app, ["schedule", "by_hand"]).stdout


@pytest.mark.parametrize("arguments", [["--from", "tomorrow"], ["-n", "0"], ["--from", "0001-01-01T00:00Z"]])
def test_wrong_usage_exits_with_two(config, arguments):
    write(config, "daily", '{at: ["09:00"]}')
    assert CliRunner().invoke(app, ["schedule", "daily", *arguments]).exit_code == 2


@pytest.mark.req("R033", "R054")
@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ('{at: ["09:00"], timezone: America/New_Yorck}', "did you mean 'America/New_York'"),
        ('{at: ["9 am"]}', 'such as "09:00"'),
        ('{at: ["09:00"], on: weekdys}', "did you mean 'weekdays'"),
        ("someday", "manual"),
    ],
)
def test_an_invalid_schedule_exits_with_one_and_names_file_and_line(config, schedule, said):
    write(config, "broken", schedule)
    command = [sys.executable, "-c", "from leadferry.cli import main; main()", "schedule", "broken"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "config/batches/broken.yaml:5" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.req("R054")
def test_the_preview_says_why_days_are_left_out_and_where_the_calendar_ends(config):
    (config / "calendars").mkdir()
    (config / "calendars" / "us.yaml").write_text("closed: [{file: us.csv}]")
    (config / "calendars" / "us.csv").write_text("date,name\n2026-06-19,Juneteenth\n")
    write(config, "daily", '{at: ["09:00"], calendar: us}')
    done = CliRunner().invoke(app, ["schedule", "daily", "-n", "2", "--from", "2026-06-18", "--json"])
    assert [row["note"] for row in json.loads(done.stdout)] == [
        "",
        "Fri 2026-06-19 left out (Juneteenth); Sat 2026-06-20 left out (weekend); Sun 2026-06-21 left out (weekend)",
    ]
    assert "knows holidays until 2026-06-19" in done.stderr


@pytest.mark.req("R054")
def test_the_preview_as_a_calendar_file_holds_the_same_instants(config):
    write(config, "daily", '{at: ["09:00"]}')
    done = CliRunner().invoke(app, ["schedule", "daily", "-n", "3", "--from", "2026-03-07", "--ics"])
    events = Calendar.from_ical(done.stdout).walk("VEVENT")
    starts = [event.decoded("DTSTART").isoformat() for event in events]
    assert starts == [row["utc"] for row in preview("daily", "-n", "3", "--from", "2026-03-07")]


def conflicts(*arguments: str) -> tuple[int, list[dict[str, str]]]:
    done = CliRunner().invoke(app, ["schedule", "--all", "--from", "2026-06-01", "--json", *arguments])
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.req("R055")
def test_two_batches_at_one_place_in_one_minute_are_a_conflict(config):
    write(config, "one", '{at: ["09:00"]}')
    write(config, "two", '{at: ["06:30", "09:00"], on: [wed]}')
    write(config, "later", '{at: ["09:01"]}')
    write(config, "for_another", '{at: ["09:00"]}', recipient="tokyo")
    assert conflicts() == (
        1,
        [
            {
                "utc": "2026-06-03T13:00:00+00:00",
                "batches": "one, two",
                "where": "folder out",
                "problem": "both write leads.csv",
            }
        ],
    )


@pytest.mark.req("R055")
def test_batches_that_do_not_meet_are_no_conflict(config):
    write(config, "one", '{at: ["09:00"]}')
    write(config, "two", '{at: ["09:00"], spread: 1h}')
    assert conflicts() == (0, [])
    write(config, "two", '{at: ["09:00"], on: {month: 20}}')
    assert conflicts() == (0, [])
    assert conflicts("--days", "30")[0] == 1


def test_a_departure_on_a_closed_day_is_told(config):
    (config / "calendars").mkdir()
    (config / "calendars" / "us.yaml").write_text("closed: [{dates: 2026-06-10, name: Outing}]")
    write(config, "one", '{at: ["09:00"], on: [wed], calendar: us, on_closed_day: deliver}')
    code, (found,) = conflicts()
    assert (code, found["problem"]) == (1, "departs although Wed 2026-06-10 is closed (Outing)")


@pytest.mark.req("R050")
def test_the_next_departure_is_left_out_and_kept_again_on_request(config, store_url, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    write(config, "daily", '{at: ["09:00"]}')
    ask = ["schedule", "daily", "--reason", "their importer is down"]
    told = [
        CliRunner().invoke(app, [*ask, option]).output
        for option in ("--skip-next", "--skip-next", "--keep-next", "--keep-next")
    ]
    assert "daily: leaves its next departure out" in told[0]
    assert "daily: already leaves its next departure out" in told[1]
    assert "daily: departs as planned" in told[2]
    assert "nothing was to be left out" in told[3]
    database = Database(store_url)
    with database.transaction() as open_store:
        actions = open_store.execute(text("SELECT action, object FROM leadferry.audit ORDER BY id")).all()
    assert [tuple(one) for one in actions] == [
        ("schedule.skip_next", "batch daily"),
        ("schedule.keep_next", "batch daily"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [["daily", "--skip-next"], ["by_hand", "--skip-next", "--reason", "x"], [], ["daily", "--all"]],
)
def test_an_order_without_reason_or_timetable_or_batch_is_wrong_usage(config, arguments):
    write(config, "daily", '{at: ["09:00"]}')
    write(config, "by_hand", "manual")
    assert CliRunner().invoke(app, ["schedule", *arguments]).exit_code == 2
