"""I8: whatever a person does with the command leaves an audit row. Every command is either shown here or only looks."""

import json

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from batches import add_leads, folder, make_batch, rows, scalars
from ferry import Ferry
from leadferry.cli import app
from leadferry.errors import OutcomeUnknownError
from leadferry.states import DispatchState
from leadferry.store import sending

ONLY_LOOK = {
    "audit", "batches", "batches versions", "check", "config show", "deliveries", "delivery show", "dispatch list",
    "doctor", "files list", "incidents", "leads pending", "leads show", "pools", "queue", "report", "schedule", "schema",
    "status", "suspensions",
}  # fmt: skip
"""They show nothing that is in a lead, unmasked, and change nothing but what the next departure would change itself."""

BY_ITSELF = {"watch"}
"""Does what the DAG `leadferry_maintenance` does without anybody; what it removes is recorded as done by leadferry."""

BATCH = """\
name: Acme
recipient: acme
flows: [auto]
schedule: {{at: ["09:00"], timezone: America/New_York}}
fields: [{{to: Email, from: email}}]
files: [{{name: "{{{{ batch.id }}}}_{{{{ delivery.id }}}}.csv", format: {{type: csv}}}}]
destinations: [{{id: share, type: folder, path: {path}}}]
enabled: false
"""


@pytest.fixture
def project(tmp_path, database, store_url, monkeypatch):
    """A project with one batch, whose leads wait, and a delivery of another one that nobody can tell the end of."""
    config = tmp_path / "config"
    for name in ("batches", "recipients"):
        (config / name).mkdir(parents=True)
    (config / "recipients" / "acme.yaml").write_text("name: Acme\ncontacts: [{name: Robin}]\n")
    (config / "batches" / "daily.yaml").write_text(BATCH.format(path=tmp_path / "inbox"))
    (tmp_path / "leads.csv").write_text("email\nann@example.com\n")
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    monkeypatch.setenv("LEADFERRY_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    monkeypatch.setenv("LOGNAME", "kim")
    # `doctor` lets Airflow ask its own database; the tests after it must not.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "INFO")
    add_leads(database, 3)
    claimed = Ferry(database, tmp_path / "archive").rendered(
        make_batch(destinations=[folder(tmp_path / "a")])
    )
    (dispatch,) = sending.dispatches_to(database, claimed.delivery_id)
    number = sending.begin_sending(database, [dispatch], lease=make_batch().claim_lease)
    error = OutcomeUnknownError("The answer was lost")
    sending.end_sending(database, [dispatch], DispatchState.UNKNOWN, number=number, error=error)
    run("leads", "pending", "daily")
    return tmp_path


def run(*arguments, codes=(0,)):
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code in codes, done.output
    return done


DEEDS = {
    "batches acknowledge": [["daily"], ("fields.acknowledge", "batch daily")],
    "batches copy": [["daily", "b"], ("batch.copy", "batch b")],
    "batches delete": [["daily", "--force"], ("batch.delete", "batch daily")],
    "batches disable": [["on"], ("batch.disable", "batch on")],
    "batches enable": [["daily"], ("batch.enable", "batch daily")],
    "batches export": [["{here}/all.zip"], ("config.export", "config")],
    "batches import": [["{here}/given.zip"], ("config.import", "config")],
    "batches new": [
        [
            "c",
            "--yes",
            "--name",
            "C",
            "--recipient",
            "acme",
            "--flows",
            "auto",
            "--type",
            "folder",
            "--to",
            "/x",
        ],
        ("batch.create", "batch c"),
    ],
    "batches set": [["--batch", "daily", "retry.attempts=2"], ("batch.change", "batch daily")],
    "batches test": [["daily", "--to", "{here}/test"], ("delivery.trigger", "batch daily")],
    "db upgrade": [[], ("store.upgrade", "lead store")],
    "dispatch confirm": [["1", "--reason", "Robin has it"], ("dispatch.confirmed", "dispatch 1")],
    "dispatch fail": [["1", "--reason", "Robin has it not"], ("dispatch.failed", "dispatch 1")],
    "doctor --send-test": [["daily"], ("doctor.send_test", "batch daily")],
    "files get": [["1", "-o", "{here}/copy.csv"], ("file.get", "file 1")],
    "hold": [["daily", "--reason", "unpaid"], ("hold", "batch daily")],
    "leads cancel": [["2", "--batch", "daily", "--reason", "asked us"], ("lead.cancel", "lead 2")],
    "leads edit": [["1", "--set", "n=7", "--reason", "misread"], ("lead.edit", "lead 1")],
    "leads hold": [["2", "--all", "--reason", "asked us"], ("lead.hold", "lead 2")],
    "leads import": [["{here}/leads.csv", "--flow", "auto"], ("leads.import", "flow auto")],
    "leads release": [["1", "--batch", "daily", "--reason", "paid"], ("lead.release", "lead 1")],
    "leads search": [["--where", "email=lead1@example.com"], ("lead.search", "leads")],
    "preview": [["daily", "-o", "{here}/preview"], ("batch.preview", "batch daily")],
    "redeliver": [["on", "--to", "share", "--lead", "1"], ("delivery.redeliver", "batch on")],
    "resume": [["on", "--reason", "paid"], ("resume", "batch on")],
    "schedule --skip-next": [["on", "--reason", "closed"], ("schedule.skip_next", "batch on")],
    "schedule --keep-next": [["on", "--reason", "open"], ("schedule.keep_next", "batch on")],
}
"""Command → how it is typed, and the audit row that it leaves."""


@pytest.fixture
def prepared(project, monkeypatch):
    """What some deeds need: something that is held, enabled, left out, exported."""

    def prepare(command):
        config = project / "config"
        if command in {
            "batches disable",
            "redeliver",
            "resume",
            "schedule --keep-next",
            "schedule --skip-next",
        }:
            text = BATCH.format(path=project / "inbox").replace("enabled: false", "enabled: true")
            (config / "batches" / "on.yaml").write_text(text)
        if command == "resume":
            run("hold", "on", "--reason", "unpaid")
        if command == "schedule --keep-next":
            run("schedule", "on", "--skip-next", "--reason", "closed")
        if command == "leads release":
            run("leads", "hold", "1", "--batch", "daily", "--reason", "unpaid")
        if command == "batches import":
            run("batches", "export", project / "given.zip")
            monkeypatch.setenv("LEADFERRY_CONFIG", str(project / "empty"))

    return prepare


@pytest.mark.parametrize("command", DEEDS)
def test_what_a_person_does_leaves_a_row_with_the_name(command, project, prepared, database):
    prepared(command)
    before = scalars(database, "SELECT coalesce(max(id), 0) FROM audit")[0]
    typed, left = DEEDS[command]
    run(*command.split(), *(one.format(here=project) for one in typed))
    assert rows(
        database, "SELECT actor, action, object FROM audit WHERE id > :before ORDER BY id", before=before
    ) == [("kim", *left)]


def _commands(command, path=""):
    if not hasattr(command, "commands"):
        return {path}
    own = {path} if command.invoke_without_command else set()
    return own.union(*(_commands(one, f"{path} {name}".strip()) for name, one in command.commands.items()))


def test_every_command_either_leaves_a_row_or_only_looks():
    """A new command belongs into one of the two lists."""
    deeds = {command.split(" --")[0] for command in DEEDS}
    assert deeds | ONLY_LOOK | BY_ITSELF == _commands(get_command(app))
    assert deeds & ONLY_LOOK == {"schedule", "doctor"}


LOOKS = {
    "audit": [], "batches": [], "batches versions": ["acme"], "check": [], "config show": ["1"], "deliveries": [],
    "delivery show": ["1"], "dispatch list": ["1"], "doctor": ["daily"], "files list": [], "incidents": [], "status": [],
    "report": ["--from", "2026-01-01", "--to", "2026-01-31"], "leads pending": ["daily"], "leads show": ["1"],
    "pools": [], "queue": ["daily"], "schedule": ["daily"], "schema": [], "suspensions": [],
}  # fmt: skip


def test_looking_changes_nothing_and_shows_nobody(project, database):
    tables = ("delivery", "dispatch", "lead", "lead_stop", "audit", "suspension", "queue_entry")
    count = " UNION ALL ".join(f"SELECT '{one}', count(*) FROM {one}" for one in tables)
    before = rows(database, count)
    assert set(LOOKS) == ONLY_LOOK
    shown = [run(*command.split(), *typed, codes=(0, 1)).output for command, typed in LOOKS.items()]
    assert rows(database, count) == before
    assert "lead1@" not in "".join(shown)


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_trail_is_listed_and_narrowed_down(project, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    run("leads", "hold", "1", "2", "--batch", "daily", "--reason", "asked us")
    run("leads", "cancel", "3", "--all", "--reason", "asked us")
    told = json.loads(run("audit", "--object", "lead 2", "--json").output)
    assert [(one["actor"], one["action"], one["detail"]) for one in told] == [
        ("kim", "lead.hold", {"batch": "daily", "reason": "asked us"})
    ]
    assert (
        len(json.loads(run("audit", "--action", "lead", "--actor", "kim", "--since", "1h", "--json").output))
        == 3
    )
    assert json.loads(run("audit", "--since", "2999-01-01", "--json").output) == []
    out = run("audit").output
    assert "reason: asked us" in out
    assert max(map(len, out.splitlines())) <= int(width)


def test_a_moment_that_is_none_is_wrong_usage(project):
    done = CliRunner().invoke(app, ["audit", "--since", "yesterday"])
    assert done.exit_code == 2
