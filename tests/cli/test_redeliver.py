"""`leadferry redeliver` and `leadferry leads edit`: the same model as the DAG's form, the steps in one process."""

import csv
import json

import pytest
import yaml
from typer.testing import CliRunner

from batches import add_leads, rows, scalars, waiting
from leadferry.cli import app
from leadferry.errors import BatchConfigError


@pytest.fixture
def inbox(tmp_path):
    return tmp_path / "inbox"


@pytest.fixture
def run(monkeypatch, store_url, tmp_path, inbox):
    """Run a command in a project with one batch."""
    config = tmp_path / "config"
    (config / "batches").mkdir(parents=True)
    (config / "recipients").mkdir()
    (config / "recipients" / "acme.yaml").write_text("name: Acme\n")
    batch = {
        "name": "Acme",
        "recipient": "acme",
        "flows": ["auto"],
        "schedule": "manual",
        "select": {"rules": [{"name": "small", "field": "n", "at_most": 2}]},
        "fields": [{"to": "Lead", "from": "id"}, {"to": "N", "from": "n"}],
        "files": [{"name": "{{ delivery.number }}.csv", "format": {"type": "csv"}}],
        "destinations": [{"id": "drop", "type": "folder", "path": str(inbox)}],
    }
    (config / "batches" / "acme.yaml").write_text(yaml.safe_dump(batch))
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    monkeypatch.setenv("LEADFERRY_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)

    def run(*arguments, code=0):
        done = CliRunner().invoke(app, [str(one) for one in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output if code else done.stdout

    return run


def test_a_dry_run_prints_a_table_and_leaves_everything(run, database, inbox):
    leads = add_leads(database, 3)
    told = run("redeliver", "acme", "--to", "drop", "--all", "--dry-run")
    assert "withheld: small" in told
    assert "2 of 3 leads would go (1 withheld by small)." in " ".join(told.split())
    assert waiting(database) == leads
    assert not inbox.exists()


@pytest.mark.req("R177")
def test_chosen_leads_are_edited_and_delivered(run, database, inbox):
    leads = add_leads(database, 4)
    options = ["--lead", leads[0], "--lead", leads[3], "--set", "n=1", "--reason", "counted wrong"]
    told = run("redeliver", "acme", "--to", "drop", *options)
    assert "2 of 2 leads go" in told
    assert "is delivered" in told
    lines = list(csv.DictReader((inbox / "1.csv").read_text().splitlines()))
    assert [(int(one["Lead"]), one["N"]) for one in lines] == [(leads[0], "1"), (leads[3], "1")]
    assert scalars(database, "SELECT count(*) FROM audit WHERE action = 'delivery.redeliver'") == [1]


def test_the_result_as_json(run, database):
    add_leads(database, 4)
    told = json.loads(run("redeliver", "acme", "--to", "drop", "--all", "--count", 1, "--json"))
    assert (told["state"], told["included"], told["left_out"]) == ("delivered", 1, {"beyond the count": 3})


def test_what_did_not_arrive_is_exit_code_1(run, database, inbox):
    leads = add_leads(database, 2)
    inbox.write_text("in the way")
    assert "is failed" in run("redeliver", "acme", "--to", "drop", "--all", code=1)
    assert waiting(database) == leads


def test_what_cannot_be_meant_names_the_field(run, database):
    with pytest.raises(BatchConfigError, match="nothing says which leads"):
        run("redeliver", "acme", "--to", "drop")


@pytest.mark.req("R182")
def test_leads_are_edited_for_good(run, database):
    (lead,) = add_leads(database)
    told = run("leads", "edit", lead, "--set", "n=7", "--set", "make=Ford", "--reason", "misread")
    assert told.startswith("1 leads changed")
    assert rows(database, "SELECT fields ->> 'n', fields ->> 'make' FROM lead") == [("7", "Ford")]
    assert rows(database, "SELECT before, reason FROM lead_edit") == [({"n": 1}, "misread")]
