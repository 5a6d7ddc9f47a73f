"""Operators' commands about the queue and the past, on a real store, also when the batch's file is gone."""

import json

import pytest
from typer.testing import CliRunner

from batches import add_leads, rows
from ferry import Ferry
from leadferry.batch.load import load_batch
from leadferry.cli import app
from leadferry.lifecycle.details import hint_of
from leadferry.states import DeliveryState

BATCH = """\
name: Acme
recipient: acme
flows: [auto]
schedule: manual
select: {{rules: [{{name: served, field: state, in: [CA]}}]}}
fields: [{{to: Email, from: email}}]
files: [{{name: "{{{{ batch.id }}}}_{{{{ delivery.number }}}}.csv", format: {{type: csv}}}}]
destinations:
  - {{id: share, type: folder, path: {path}}}
  - {{id: lost, type: folder, path: {path}/missing/folder, create: false}}
retry: {{attempts: {attempts}}}
"""


@pytest.fixture
def config(tmp_path, store_url, monkeypatch):
    folder = tmp_path / "config"
    for name in ("batches", "recipients"):
        (folder / name).mkdir(parents=True)
    (folder / "recipients" / "acme.yaml").write_text("name: Acme\ncontacts: [{name: Robin}]\n")
    monkeypatch.setenv("LEADFERRY_CONFIG", str(folder))
    monkeypatch.setenv("LEADFERRY_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    monkeypatch.setenv("LOGNAME", "kim")
    write(folder)
    return folder


def write(config, attempts=5):
    text = BATCH.format(path=config.parent / "inbox", attempts=attempts)
    (config / "batches" / "daily.yaml").write_text(text)


@pytest.fixture
def delivered(config, database, tmp_path):
    """A delivery that arrived at one of two destinations, with one lead withheld; triggered by hand."""
    add_leads(database, 2, fields={"state": "CA", "name": "Jim"})
    add_leads(database, 1, fields={"state": "NY"})
    ferry = Ferry(database, tmp_path / "archive")
    claimed = ferry.extract(load_batch("daily", config=config), actor="lee")
    ferry.render(claimed)
    for destination in ("share", "lost"):
        ferry.try_to_deliver(claimed, destination)
    assert ferry.settle(claimed).state is DeliveryState.PARTIAL
    return claimed.delivery_id


def run(*arguments, code=0):
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def asked(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


@pytest.mark.req("R061")
def test_the_queue_shows_who_waits_without_saying_who_it_is(config, database):
    leads = add_leads(database, 4, fields={"phone": "504-555-0100"})
    found = asked("queue", "daily", "-n", "2")
    assert (found["leads"], found["flows"], found["ages"]["1 to 6 hours"]) == (4, {"auto": 4}, 4)
    assert [one["id"] for one in found["samples"]] == leads[:2]
    assert found["samples"][0]["fields"] == {"email": "l***@example.com", "n": "*", "phone": "5***********"}
    (row,) = asked("leads", "pending", "daily")
    assert (row["leads"], row["ids"], row["oldest_age_seconds"] >= 3600) == (4, leads, True)
    assert [one["leads"] for one in asked("queue")] == [4]
    add_leads(database, 1)
    assert [one["leads"] for one in asked("queue")] == [5]


@pytest.mark.parametrize("width", ["80", "160"])
def test_everything_can_be_read_in_a_narrow_terminal(delivered, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    commands = [
        ["queue", "daily"], ["queue"], ["leads", "pending", "daily"], ["leads", "show", "1"], ["leads", "search"],
        ["deliveries"], ["delivery", "show", str(delivered)], ["files", "list"], ["audit"],
    ]  # fmt: skip
    for command in commands:
        out = run(*command).stdout
        assert out.strip(), command
        assert max(map(len, out.splitlines())) <= int(width), command


def test_single_leads_are_held_released_and_cancelled(config, database):
    one, two, three = add_leads(database, 3, fields={"state": "CA"})
    run("leads", "hold", one, two, "--batch", "daily", "--reason", "asked us")
    assert asked("queue", "daily")["held"] == 2
    assert (
        "1 leads are held for batch daily; 1 were so already"
        in run("leads", "hold", one, three, "--batch", "daily", "--reason", "again").stdout
    )
    run("leads", "release", two, three, "--batch", "daily", "--reason", "all right")
    run("leads", "cancel", three, "--all", "--reason", "asked us")
    found = asked("queue", "daily")
    assert (found["leads"], found["held"], found["cancelled"]) == (2, 1, 1)
    story = asked("leads", "show", three)
    assert [(stop["kind"], stop["batch"], stop["actor"]) for stop in story["stops"]] == [
        ("cancelled", None, "kim")
    ]
    assert [one["action"] for one in story["audit"]] == ["lead.hold", "lead.release", "lead.cancel"]


def test_one_in_a_delivery_is_told(delivered, config, database, tmp_path):
    lead = add_leads(database, 1, fields={"state": "CA"})[0]
    Ferry(database, tmp_path / "archive").extract(load_batch("daily", config=config), "run-2")
    told = run("leads", "hold", lead, "--batch", "daily", "--reason", "asked us").stderr
    assert f"they go with it: {lead}" in told


@pytest.mark.parametrize("options", [[], ["--batch", "daily", "--all"]])
def test_a_stop_names_a_batch_or_all(config, database, options):
    run("leads", "hold", "1", "--reason", "x", *options, code=2)


def test_a_search_masks_values_unless_they_are_asked_for_and_is_written_down(delivered, database):
    (found,) = asked("leads", "search", "--where", "email=lead2@example.com", "--status", "delivered")
    assert found["fields"]["name"] == "J**"
    assert found["standing"][0]["delivery"] == delivered
    shown = run("leads", "search", "--where", "name=jim", "--batch", "daily", "--show").stdout
    assert "lead1@example.com" in shown
    assert rows(database, "SELECT detail FROM audit WHERE action = 'lead.search' ORDER BY id") == [
        ({"fields": ["email"], "flow": None, "batch": None, "shown": False, "leads": [found["id"]]},),
        ({"fields": ["name"], "flow": None, "batch": "daily", "shown": True, "leads": [2, 1]},),
    ]
    run("leads", "search", "--where", "email", code=2)
    run("leads", "search", "--status", "lost", code=2)


@pytest.mark.req("R171", "R174")
def test_a_delivery_is_told_with_files_dispatches_tries_and_what_to_do(delivered, tmp_path):
    found = asked("delivery", "show", delivered)
    assert (found["batch"], found["recipient"], found["state"], found["included"]) == (
        "daily",
        "acme",
        "partial",
        2,
    )
    assert found["withheld_reasons"] == [{"reason": "served", "leads": 1}]
    (file,) = found["files"]
    stored = (tmp_path / "inbox" / file["name"]).read_bytes()
    assert (file["rows"], file["size"], len(file["sha256"])) == (2, len(stored), 64)
    share, lost = found["dispatches"]
    assert (share["state"], share["receipt"]["location"], share["hint"]) == (
        "confirmed",
        str(tmp_path / "inbox" / file["name"]),
        None,
    )
    assert (lost["state"], lost["error_code"], lost["hint"]) == (
        "failed",
        "no_such_path",
        hint_of("no_such_path"),
    )
    assert [(one["number"], one["outcome"], one["error_code"]) for one in lost["tries"]] == [
        (1, "failed", "no_such_path")
    ]
    assert lost["tries"][0]["seconds"] >= 0
    assert [(one["actor"], one["action"]) for one in found["done_by"]] == [("lee", "delivery.trigger")]


def test_the_configuration_that_was_used_is_shown_with_what_changed_since(delivered, config):
    assert asked("delivery", "show", delivered)["config_changes"] == []
    assert run("config", "show", delivered, "--diff").stdout == "nothing has changed\n"
    write(config, attempts=9)
    found = asked("delivery", "show", delivered)
    assert (found["config_version"], found["config_changes"]) == (1, ["retry.attempts: 5 → 9"])
    assert run("config", "show", delivered, "--diff").stdout == "retry.attempts: 5 → 9\n"
    assert json.loads(run("config", "show", delivered).stdout)["retry"]["attempts"] == 5


@pytest.mark.req("R176")
def test_history_outlives_the_batchs_file(delivered, config, tmp_path):
    for file in config.rglob("*.yaml"):
        file.unlink()
    assert [one["id"] for one in asked("deliveries", "daily")] == [delivered]
    assert [one["id"] for one in asked("deliveries", "--recipient", "acme")] == [delivered]
    found = asked("delivery", "show", delivered)
    assert (found["state"], found["config_changes"]) == ("partial", None)
    assert json.loads(run("config", "show", delivered).stdout)["name"] == "Acme"
    run("config", "show", delivered, "--diff", code=1)
    assert asked("leads", "show", 1)["history"][0]["outcome"] == "delivered"
    assert asked("queue", "daily")["leads"] == 0
    (file,) = asked("files", "list", delivered)
    run("files", "get", file["id"], "-o", tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == (tmp_path / "inbox" / file["name"]).read_bytes()


@pytest.mark.req("R172")
def test_a_file_is_found_and_comes_as_it_was_sent_for_its_owner_only(delivered, tmp_path, database):
    (file,) = asked("files", "list", "--name", "daily_1.csv", "--batch", "daily")
    out = tmp_path / "copy.csv"
    assert file["sha256"] in run("files", "get", file["id"], "-o", out).stdout
    assert out.read_bytes() == (tmp_path / "inbox" / "daily_1.csv").read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600
    detail = {"delivery": delivered, "name": "daily_1.csv", "sha256": file["sha256"]}
    assert rows(database, "SELECT actor, object, detail FROM audit WHERE action = 'file.get'") == [
        ("kim", f"file {file['id']}", detail)
    ]
    run("files", "get", file["id"], "-o", out, code=2)
    assert asked("delivery", "show", delivered)["done_by"][-1]["action"] == "file.get"


def test_a_file_that_was_changed_in_the_archive_is_not_handed_out(delivered, tmp_path, database):
    (stored,) = (path for path in (tmp_path / "archive").rglob("*") if path.is_file())
    stored.chmod(0o600)
    stored.write_bytes(b"other")
    done = CliRunner().invoke(app, ["files", "get", "1", "-o", str(tmp_path / "copy.csv")])
    assert "has changed since it was rendered" in str(done.exception)
    assert not (tmp_path / "copy.csv").exists()
    assert rows(database, "SELECT action FROM audit WHERE action = 'file.get'") == []


def test_deliveries_are_narrowed_down(delivered):
    assert [one["state"] for one in asked("deliveries", "--state", "partial", "--since", "2026-01-01")] == [
        "partial"
    ]
    assert asked("deliveries", "daily", "--state", "delivered") == []
    assert asked("deliveries", "--recipient", "nobody") == []
    run("deliveries", "--state", "lost", code=2)
