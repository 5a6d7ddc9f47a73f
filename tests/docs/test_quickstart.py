"""The quickstart, followed to the letter as far as it needs no Airflow; `airflow dags test` is tested with the DAGs."""

from __future__ import annotations

import csv
import json
import re

import pytest
from typer.testing import CliRunner

from batches import trigger
from docs.pages import PROJECT, blocks, text_of
from leadferry.archive import Archive
from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch
from leadferry.cli import app
from leadferry.delivery.deliver import deliver
from leadferry.delivery.extract import extract
from leadferry.delivery.render import render
from leadferry.delivery.settle import settle

PAGE = PROJECT / "docs" / "quickstart.md"
CONSOLE = {block.text.splitlines()[0]: block.text.splitlines()[1:] for block in blocks("console", PAGE)}
_NAMED = re.compile(r"# (config/\S+)\n(.*)", re.DOTALL)


@pytest.fixture
def project(tmp_path, monkeypatch, store_url):
    """A project folder with the files of the quickstart in it."""
    for block in blocks("yaml", PAGE):
        if named := _NAMED.match(block.text):
            path = tmp_path / named.group(1)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(named.group(2), encoding="utf-8")
    (leads,) = re.findall(r"cat > garage\.csv <<'END'\n(.*?)END\n", text_of("docs/quickstart.md"), re.DOTALL)
    (tmp_path / "garage.csv").write_text(leads, encoding="utf-8")
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _type(line):
    """Type a command and return what it prints on standard output."""
    done = CliRunner().invoke(app, line.split()[1:], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.splitlines()


@pytest.mark.parametrize("line", [line for line in CONSOLE if line.startswith("$ leadferry")])
def test_a_command_prints_what_the_page_shows(project, line):
    assert _type(line.removeprefix("$ ")) == CONSOLE[line]


def test_the_first_batch_delivers_the_file_that_the_page_shows(project, database):
    _type("leadferry leads import garage.csv --flow car_service")
    batch = load_batch("my_first", config=project / "config")
    archive = Archive(str(project / "archive"))
    claimed = extract(database, batch, trigger())
    render(database, archive, claimed.delivery_id)
    deliver(database, archive, claimed.delivery_id, "shelf")
    settle(database, archive, claimed.delivery_id)

    (arrived,) = (project / ".leadferry" / "inbox" / "garage").glob("*.csv")
    (told,) = json.loads("\n".join(_type("leadferry deliveries my_first --json")))
    assert arrived.read_text("utf-8").splitlines() == CONSOLE["$ cat .leadferry/inbox/garage/*.csv"]
    assert f'"included": {told["included"]}, "withheld": {told["withheld"]}' in text_of("docs/quickstart.md")
    assert _type("leadferry dispatch list 1")


def test_the_other_destinations_of_the_page_fit_the_same_batch(project):
    (end,) = [block.text for block in blocks("yaml", PAGE) if block.text.startswith("# the end of")]
    path = project / "config" / "batches" / "my_first.yaml"
    path.write_text(path.read_text("utf-8").split("files:\n")[0] + end, encoding="utf-8")

    changed = load_batch("my_first", config=project / "config")

    assert [one.type for one in changed.destinations] == ["sftp", "email"]
    assert isinstance(changed, Batch)


def test_the_counts_of_the_samples_are_those_of_the_files():
    with (PROJECT / "samples" / "education_leads.csv").open(encoding="utf-8", newline="") as file:
        leads = list(csv.DictReader(file))
    agreed = [one for one in leads if one["Do Not Email"] == one["Do Not Call"] == "No"]
    told = re.search(
        r"Of ([\d,]+) education leads, ([\d,]+) were included and ([\d,]+) withheld",
        text_of("docs/quickstart.md"),
    )

    assert [int(one.replace(",", "")) for one in told.groups()] == [
        len(leads), len(agreed), len(leads) - len(agreed),
    ]  # fmt: skip
