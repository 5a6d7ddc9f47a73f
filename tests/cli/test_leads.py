from __future__ import annotations

import json

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from leadferry.cli import app, main
from leadferry.store.tables import lead


@pytest.fixture
def run(store_url, monkeypatch, capsys):
    """Run the command as the shell would: exit code, standard output, standard error."""
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["leadferry", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def leads(tmp_path):
    path = tmp_path / "leads.csv"
    path.write_text("First Name;id;at\nAnn;1;01/31/2026\nBob;2;02/01/2026\n")
    return path


def test_importing_says_what_was_loaded(run, leads, database):
    code, out, err = run("leads", "import", leads, "--flow", "education")

    assert (code, out, err) == (0, "2 leads loaded into flow education, 0 rejected\n", "")


def test_importing_twice_loads_nothing_and_is_no_failure(run, leads, database):
    run("leads", "import", leads, "--flow", "education")

    code, out, _ = run("leads", "import", leads, "--flow", "education")

    assert code == 0
    assert out.startswith("0 leads loaded: leads.csv was imported into flow education on ")
    with database.transaction() as connection:
        assert len(connection.scalars(select(lead.c.id)).all()) == 2


def test_all_options_together(run, leads, database):
    code, out, _ = run(
        "leads", "import", leads, "--flow", "e", "--map", "First Name=first_name", "--id-column", "id",
        "--received-column", "at", "--received-format", "%m/%d/%Y", "--timezone", "America/New_York",
        "--type", "csv", "--encoding", "utf-8", "--delimiter", ";", "--json",
    )  # fmt: skip

    assert code == 0
    assert json.loads(out) == {
        "file": "leads.csv",
        "flow": "e",
        "loaded": 2,
        "rejected": 0,
        "duplicates": 0,
        "already_imported_at": None,
        "rejects_file": None,
        "dry_run": False,
    }
    with database.transaction() as connection:
        row = connection.execute(select(lead).order_by(lead.c.id)).first()
    assert row is not None
    assert (row.external_id, row.fields["first_name"], row.received_at.isoformat()) == (
        "1",
        "Ann",
        "2026-01-31T05:00:00+00:00",
    )


def test_rejected_lines_are_exit_code_1_and_their_file_is_named(run, leads, tmp_path):
    leads.write_text("a,b\n1,2\n3\n")

    code, out, err = run("leads", "import", leads, "--flow", "e", "--rejects", tmp_path / "bad.csv")

    assert (code, out) == (1, "1 leads loaded into flow e, 1 rejected\n")
    assert "bad.csv" in err.replace("\n", "")
    assert (tmp_path / "bad.csv").exists()


def test_a_file_that_cannot_be_read_is_one_sentence_and_exit_code_1(run, leads):
    leads.write_bytes(b"a\n\xff\n")

    code, out, err = run("leads", "import", leads, "--flow", "e")

    assert (code, out) == (1, "")
    assert err.startswith("import: leads.csv is not utf-8: line 2")


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-file.csv", "--flow", "e"),
        ("{file}",),
        ("{file}", "--flow", "e", "--map", "x"),
        ("{file}", "--flow", "e", "--map", "=x"),
        ("{file}", "--flow", "e", "--timezone", "Mars"),
        ("{file}", "--flow", "e", "--type", "xls"),
        ("{file}", "--flow", "e", "--delimiter", "ab"),
        ("{file}", "--flow", "e", "--received-format", "%Y"),
    ],
)
def test_wrong_usage_is_exit_code_2(run, leads, arguments):
    code, _, err = run("leads", "import", *(one.format(file=leads) for one in arguments))

    assert code == 2
    assert err


def test_a_dry_run_loads_nothing(run, leads, database):
    code, out, _ = run("leads", "import", leads, "--flow", "e", "--dry-run")

    assert (code, out) == (0, "2 leads would be loaded into flow e, 0 rejected\n")
    with database.transaction() as connection:
        assert connection.scalars(select(lead.c.id)).all() == []


def test_the_help_names_every_option():
    out = (
        CliRunner().invoke(app, ["leads", "import", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    )

    for option in ("--flow", "--map", "--id-column", "--received-column", "--dry-run", "--rejects", "--json"):
        assert option in out
