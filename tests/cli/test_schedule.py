"""`leadferry schedule`: the preview, from the files to what is printed."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from icalendar import Calendar
from typer.testing import CliRunner

from batches import add_leads, rows
from leadferry.archive import Archive
from leadferry.batch.load import load_batch
from leadferry.cli import app
from leadferry.delivery.extract import Trigger, extract
from leadferry.delivery.render import render
from leadferry.store.claim import Claim
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


@pytest.mark.req("R034")
@pytest.mark.parametrize("by_hand_at", [None, "2026-01-31T16:00:00+00:00"])
def test_the_dates_in_file_names_are_those_of_each_recipient(config, store, tmp_path, by_hand_at):
    """At nine o'clock of its own, or at one instant: four in the afternoon in Greenwich is the first of February in Tokyo."""
    named = {}
    for recipient in ("tokyo", "paris"):
        write(config, "daily", '{at: ["09:00"]}', recipient=recipient)
        batch_file = config / "batches" / "daily.yaml"
        name = "{{ recipient.name }} {{ delivery.date }} {{ delivery.time }}.csv"
        batch_file.write_text(batch_file.read_text().replace("name: leads.csv", f'name: "{name}"'))
        add_leads(store)
        utc = by_hand_at or preview("daily", "-n", "1", "--from", "2026-02-01")[0]["utc"]
        claimed = depart(store, config, utc, run_id=recipient)
        named[recipient] = [file.name for file in render(store, Archive(str(tmp_path)), claimed.delivery_id)]
    at_nine = {"tokyo": ["Tokyo 2026-02-01 0900.csv"], "paris": ["Paris 2026-02-01 0900.csv"]}
    at_once = {"tokyo": ["Tokyo 2026-02-01 0100.csv"], "paris": ["Paris 2026-01-31 1700.csv"]}
    assert named == (at_once if by_hand_at else at_nine)


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


def test_a_preview_from_a_time_that_does_not_exist_begins_after_the_gap(config):
    write(config, "daily", '{at: ["02:30"]}')
    assert preview("daily", "-n", "1", "--from", "2026-03-08T02:30")[0]["utc"] == "2026-03-08T07:00:00+00:00"


def test_people_get_a_table_with_weekday_and_zone(config, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    write(config, "daily", '{at: ["09:00"], on: weekdays}')
    done = CliRunner().invoke(app, ["schedule", "daily", "-n", "1", "--from", "2026-07-04"])
    assert "daily: weekdays at 09:00 (America/New_York)" in done.stdout
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


@pytest.mark.req("R044", "R054")
def test_the_preview_has_the_window_of_each_departure_and_when_its_files_are_built(config):
    write(config, "daily", '{at: ["09:00"], generate_before: 30m}\nselect: {window: since_previous}')
    options = ("daily", "-n", "2", "--from", "2026-03-08")
    first, second = preview(*options)
    assert list(first) == ["utc", "local", "window_from", "window_to", "built_at", "note"]
    assert first["window_from"] == "2026-03-07T13:30:00+00:00"
    assert first["window_to"] == first["built_at"] == second["window_from"] == "2026-03-08T12:30:00+00:00"
    shown = CliRunner().invoke(app, ["schedule", *options], env={"COLUMNS": "200"}).stdout
    assert "window from" in shown
    assert "Sat 2026-03-07 08:30 EST │ Sun 2026-03-08 08:30 EDT │ Sun 2026-03-08 08:30 EDT" in shown
    events = Calendar.from_ical(CliRunner().invoke(app, ["schedule", *options, "--ics"]).stdout).walk(
        "VEVENT"
    )
    assert events[0]["DESCRIPTION"] == (
        "Leads received from Sat 2026-03-07 08:30 EST (13:30 UTC) and before Sun 2026-03-08 08:30 EDT (12:30 UTC)."
        " Its files are built at Sun 2026-03-08 08:30 EDT (12:30 UTC)."
    )


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


@pytest.fixture
def store(database: Database, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The lead store, as the commands find it."""
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    return database


def order(batch: str, option: str, *, reason: str = "their importer is down") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["schedule", batch, option, "--reason", reason])
    return done.exit_code, done.output or str(done.exception)


def in_two_hours() -> str:
    return f"{datetime.now(tz=UTC) + timedelta(hours=2):%H:%M}"


def depart(store: Database, config: Path, utc: str, run_id: str = "") -> Claim:
    """The claim of the run that the timetable starts for an instant."""
    trigger = Trigger(run_id=run_id or f"scheduled__{utc}", departs_at=datetime.fromisoformat(utc))
    return extract(store, load_batch("daily", config=config), trigger)


@pytest.mark.req("R050")
def test_the_departure_that_is_named_is_left_out_on_request_and_stored_with_the_user(config, store):
    write(config, "daily", f'{{at: ["{in_two_hours()}"], timezone: UTC}}')
    add_leads(store, 3)
    following, after = preview("daily", "-n", "2")
    name = f"{datetime.fromisoformat(following['utc']):%a %Y-%m-%d %H:%M UTC}"
    assert order("daily", "--skip-next") == (
        0,
        f"daily: leaves out its departure of {name}; its leads wait\n",
    )
    skipped = depart(store, config, following["utc"])
    assert skipped.on_request
    assert name.removeprefix(name[:4]) in skipped.reason
    assert depart(store, config, after["utc"]).included == 3
    asked = {"reason": "their importer is down", "departs_at": following["utc"]}
    assert rows(store, "SELECT actor, action, object, detail FROM audit") == [
        (getpass.getuser(), "schedule.skip_next", "batch daily", asked)
    ]


@pytest.mark.req("R050")
def test_an_order_is_given_once_and_taken_back_once(config, store):
    write(config, "daily", f'{{at: ["{in_two_hours()}"], timezone: UTC}}')
    departure = datetime.fromisoformat(preview("daily", "-n", "1")[0]["utc"])
    name = f"{departure:%a %Y-%m-%d %H:%M UTC}"
    options = ("--skip-next", "--skip-next", "--keep-next", "--keep-next")
    assert [order("daily", option) for option in options] == [
        (0, f"daily: leaves out its departure of {name}; its leads wait\n"),
        (0, f"daily: already leaves out its departure of {name}; its leads wait\n"),
        (0, f"daily: departs as planned: {name}\n"),
        (0, f"daily: nothing was to be left out; the next departure: {name}\n"),
    ]
    stored = rows(store, "SELECT actor, action, object, detail->>'departs_at' FROM audit ORDER BY id")
    assert stored == [
        (getpass.getuser(), action, "batch daily", departure.isoformat())
        for action in ("schedule.skip_next", "schedule.keep_next")
    ]


@pytest.mark.req("R050", "R044")
def test_a_departure_that_is_built_already_is_not_left_out_and_neither_is_the_one_after_it(config, store):
    write(config, "daily", f'{{at: ["{in_two_hours()}"], timezone: UTC, generate_before: 12h}}')
    add_leads(store, 3)
    following, after = preview("daily", "-n", "2")
    assert depart(store, config, following["utc"]).included == 3
    code, told = order("daily", "--skip-next")
    assert code == 1
    assert "cannot be left out any more: its run has taken its leads" in told
    assert "`leadferry hold daily --reason TEXT`" in told
    add_leads(store)
    assert depart(store, config, after["utc"]).included == 1


@pytest.mark.req("R050", "R044")
def test_a_departure_that_was_left_out_ahead_of_its_time_cannot_be_kept(config, store):
    write(config, "daily", f'{{at: ["{in_two_hours()}"], timezone: UTC, generate_before: 12h}}')
    following, after = (datetime.fromisoformat(one["utc"]) for one in preview("daily", "-n", "2"))
    order("daily", "--skip-next")
    depart(store, config, following.isoformat())
    late = f"daily: its departure of {following:%a %Y-%m-%d %H:%M} UTC was left out already"
    goes = f"a run by hand takes the leads; the next one goes: {after:%a %Y-%m-%d %H:%M UTC}\n"
    assert order("daily", "--keep-next") == (0, f"{late}, {goes}")


@pytest.mark.req("R050")
@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("manual", "departs only when it is triggered by hand"),
        ("{on_asset: prices}", "departs when the asset prices is updated"),
        (
            '{at: ["09:00"], on: {dates: [2026-01-05]}}',
            "the schedule is over since Mon 2026-01-05 09:00 EST (14:00 UTC)",
        ),
    ],
)
def test_where_nothing_departs_by_a_timetable_an_order_is_refused(config, store, schedule, told):
    write(config, "daily", schedule)
    code, output = order("daily", "--skip-next")
    assert (code, told in " ".join(output.replace("│", " ").split())) == (2, True), output
    assert rows(store, "SELECT count(*) FROM skip_order") == [(0,)]


ONE_ORDER = ["--skip-next", "--reason", "closed"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["daily", "--skip-next"],
        [],
        ["daily", "--all"],
        ["--all", *ONE_ORDER],
        ["--all", "--ics"],
        ["daily", "--keep-next", *ONE_ORDER],
    ],
)
def test_an_order_without_reason_or_batch_or_beside_another_is_wrong_usage(config, store, arguments):
    write(config, "daily", '{at: ["09:00"]}')
    assert CliRunner().invoke(app, ["schedule", *arguments]).exit_code == 2


@pytest.mark.parametrize(("enabled", "said"), [("true", False), ("false", True)])
def test_the_preview_of_a_disabled_batch_says_that_nothing_departs(config, enabled, said):
    write(config, "daily", '{at: ["09:00"]}')
    with (config / "batches" / "daily.yaml").open("a") as file:
        file.write(f"enabled: {enabled}\n")

    done = CliRunner().invoke(app, ["schedule", "daily"])

    assert done.exit_code == 0
    assert "daily: every day at 09:00 (America/New_York)" in done.stdout
    assert ("is disabled: nothing departs until `leadferry batches enable daily`" in done.stderr) is said
