"""The commands about all batches: what they print, and the exit code that a monitor asks for."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from typer.testing import CliRunner

from batches import add_leads
from leadferry.cli import app

BATCH = """
name: Acme, daily
recipient: acme
flows: [auto]
schedule: {at: ["09:00"]}
fields: [{to: Email, from: email}]
files: [{name: "{{ delivery.number }}.csv", format: {type: csv}}]
destinations: [{id: share, type: folder, path: out}]
"""


@pytest.fixture
def config(tmp_path, monkeypatch, store_url):
    for part in ("batches", "recipients"):
        (tmp_path / "config" / part).mkdir(parents=True)
    (tmp_path / "config" / "recipients" / "acme.yaml").write_text("name: Acme\n")
    (tmp_path / "config" / "batches" / "acme.yaml").write_text(BATCH)
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    return tmp_path / "config"


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_a_look_without_findings_is_well_and_one_with_findings_is_not(config, database):
    well = run("watch", "--json")
    (config / "batches" / "torn.yaml").write_text("name: [\n")
    torn = run("watch", "--json")

    assert (well.exit_code, json.loads(well.stdout)) == (0, [])
    assert torn.exit_code == 1
    assert [(one["batch"], one["kind"], one["recovered_at"]) for one in json.loads(torn.stdout)] == [
        ("torn", "broken", None)
    ]


@pytest.mark.req("R010")
def test_the_status_says_when_nobody_looked(config, database):
    before = run("status", "--json")
    run("watch")
    run("queue", "acme")
    after = run("status", "--json")

    assert (before.exit_code, after.exit_code) == (0, 0)
    assert "is the DAG leadferry_maintenance running?" in before.stderr
    assert after.stderr == ""
    assert [(row["batch"], row["state"], row["pending"]) for row in json.loads(after.stdout)] == [
        ("acme", "enabled", 0)
    ]


def test_the_status_is_not_well_with_a_broken_file_or_an_incident_which_stays_in_the_list(config, database):
    torn = config / "batches" / "torn.yaml"
    torn.write_text("name: [\n")
    unwatched = run("status")
    run("watch")
    torn.unlink()
    run("watch")

    assert unwatched.exit_code == 1
    assert run("status").exit_code == 0
    (over,) = json.loads(run("incidents", "--json").stdout)
    assert (over["batch"], over["kind"]) == ("torn", "broken")
    assert over["recovered_at"] is not None


@pytest.mark.parametrize("look", [("queue", "acme"), ("watch",)], ids=["a person", "the watchdog"])
def test_a_new_batch_and_one_with_other_flows_are_said_to_be_uncounted_until_somebody_looks(
    config, database, look
):
    add_leads(database, 3)
    add_leads(database, 1, flow="home")
    file = config / "batches" / "acme.yaml"
    (config / "batches" / "off.yaml").write_text(f"{BATCH}enabled: false\n")
    for flows, leads in (("auto", 3), ("auto, home", 4)):
        file.write_text(BATCH.replace("flows: [auto]", f"flows: [{flows}]"))
        before, queues = run("status", "--json"), run("queue", "--json")
        run(*look)
        after, queues_after = run("status", "--json"), run("queue", "--json")

        assert [row["pending"] for row in json.loads(before.stdout)] == [None, None]
        assert json.loads(queues.stdout) == []
        for told in (before.stderr, queues.stderr):
            assert "Not counted yet, they are new or have other flows now: acme. The next look" in told
        assert [row["pending"] for row in json.loads(after.stdout)] == [leads, None]
        assert [(row["batch"], row["leads"]) for row in json.loads(queues_after.stdout)] == [("acme", leads)]
        assert "Not counted" not in after.stderr + queues_after.stderr


@pytest.mark.req("R050")
def test_the_status_shows_that_the_next_departure_will_be_left_out_until_that_is_taken_back(
    config, database, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    told = []
    for option in ("--skip-next", "--keep-next"):
        run("schedule", "acme", option, "--reason", "their importer is down")
        (row,) = json.loads(run("status", "--json").stdout)
        told.append((row["left_out"], "UTC, left out" in run("status").stdout))

    assert told == [(True, True), (False, False)]


def test_the_status_of_a_batch_of_another_zone_has_all_its_times_in_utc(config, database, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (config / "batches" / "acme.yaml").write_text(f"{BATCH}timezone: Asia/Kolkata\n")

    assert re.search(r"│ \d{4}-\d\d-\d\d 03:30 UTC +│", run("status").stdout)
    (row,) = json.loads(run("status", "--json").stdout)
    assert row["next_departure"].endswith("T09:00:00+05:30")


def test_the_table_has_no_column_that_no_batch_needs_and_no_seconds(config, database, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    out = run("status").stdout

    assert "suspended" not in out
    assert re.search(r"│ \d{4}-\d\d-\d\d 09:00 UTC +│", out)


@pytest.mark.req("R016")
def test_the_report_is_a_table_json_and_csv_with_the_same_columns(config, database):
    span = ("report", "--from", "2026-01-01", "--to", "2026-01-31", "--by", "batch")

    as_json = json.loads(run(*span, "--json").stdout)
    as_csv = list(csv.DictReader(io.StringIO(run(*span, "--csv").stdout)))

    assert [row["batch"] for row in as_json] == [row["batch"] for row in as_csv] == ["total"]
    assert list(as_json[0]) == list(as_csv[0])
    assert "total" in run(*span).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "2026-02-01", "--to", "2026-01-31"),
        ("--from", "2026-02-01", "--to", "2026-02-01", "--by", "week"),
    ],
)
def test_a_report_that_cannot_be_meant_is_wrong_usage(config, database, arguments):
    assert run("report", *arguments).exit_code == 2


def test_a_file_that_retention_removed_cannot_be_got_and_says_so(config, database, tmp_path, monkeypatch):
    from batches import execute

    monkeypatch.setenv("LEADFERRY_ARCHIVE", str(tmp_path / "archive"))
    assert run("batches", "test", "acme", "--to", str(tmp_path / "out")).exit_code == 0
    execute(database, "INSERT INTO retirement SELECT archive_key, 'removed', '', '2026-01-31Z' FROM file")

    got = run("files", "get", "1", "-o", str(tmp_path / "copy"))

    assert "File 1 was removed on 2026-01-31" in str(got.exception)
