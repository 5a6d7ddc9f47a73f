"""Holding and resuming on the command line, and the list of what waits for a person."""

import getpass
import json
import shlex

import pytest

from batches import add_leads, claim, execute, scalars
from leadferry.cli import main


@pytest.fixture
def run(store_url, monkeypatch, capsys, tmp_path):
    """Run the command on a config with the batch `acme_daily` of the recipient `acme`, and a recipient and batch `both`."""
    for name, text in {
        "recipients/acme.yaml": "name: Acme\n",
        "recipients/both.yaml": "name: Both\n",
        **{
            f"batches/{name}.yaml": (
                "name: Daily\nrecipient: acme\nflows: [auto]\nschedule: manual\n"
                "fields: [{to: Email, from: email}]\nfiles: [{name: leads.csv, format: {type: csv}}]\n"
                "destinations: [{id: drop, type: folder, path: /nowhere}]\n"
            )
            for name in ("acme_daily", "both")
        },
    }.items():
        path = tmp_path / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "config"))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["leadferry", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def listed(run):
    return [
        (one["scope"], one["name"], one["destination"]) for one in json.loads(run("suspensions", "--json")[1])
    ]


@pytest.mark.req("F36")
@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["acme"], ("recipient", "acme", "")),
        (["acme_daily"], ("batch", "acme_daily", "")),
        (["acme_daily", "--destination", "drop"], ("batch", "acme_daily", "drop")),
        (["both", "--as", "recipient"], ("recipient", "both", "")),
        (["both", "--destination", "drop"], ("batch", "both", "drop")),
    ],
)
def test_what_is_held_is_listed_until_it_is_resumed(run, database, arguments, place):
    assert run("hold", *arguments, "--reason", "under review")[0] == 0
    assert listed(run) == [place]
    assert run("resume", *arguments, "--reason", "signed")[0] == 0
    assert listed(run) == []
    assert scalars(database, "SELECT actor FROM audit") == [getpass.getuser()] * 2


@pytest.mark.req("F36")
@pytest.mark.parametrize(
    "arguments", [["acme"], ["both", "--as", "batch"], ["both", "--destination", "drop"]], ids=" ".join
)
def test_what_hold_answers_ends_this_hold_and_no_other(run, arguments):
    run("hold", "acme_daily", "--reason", "moving")
    run("hold", "both", "--as", "recipient", "--reason", "moving")
    before = listed(run)

    told = run("hold", *arguments, "--reason", "under review")[1]
    _, *command = shlex.split(told.split("`")[1])

    assert run(*command)[0] == 0
    assert listed(run) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nobody"], "there is no recipient or batch 'nobody'"),
        (["both"], "say --as recipient or --as batch"),
        (["acme", "--as", "batch"], "there is no batch 'acme'"),
        (["acme", "--destination", "drop"], "a destination belongs to a batch"),
        (["acme_daily", "--destination", "dorp"], "no destination 'dorp'; known: drop"),
    ],
)
def test_a_name_that_would_hold_nothing_is_refused(run, arguments, told):
    code, _, err = run("hold", *arguments, "--reason", "x")
    assert code == 2
    assert told in " ".join(err.replace("│", " ").split())


def test_resuming_what_is_not_held_is_not_well(run):
    code, _, err = run("resume", "acme", "--reason", "x")
    assert code == 1
    assert "recipient acme is not suspended" in err


def test_deliveries_that_need_attention_make_the_exit_code_1(run, database):
    assert run("deliveries", "--needs-attention", "--json")[:2] == (0, "[]\n")
    add_leads(database)
    claim(database)
    execute(database, "UPDATE delivery SET lease_until = now() - interval '1 s'")
    code, out, _ = run("deliveries", "--needs-attention", "--json")
    (one,) = json.loads(out)
    assert (code, one["batch"], one["why"]) == (1, "acme", "nobody works on it any more")
    assert run("deliveries", "--needs-attention", "--json", "another")[:2] == (0, "[]\n")


def test_without_a_batch_the_deliveries_of_all_are_listed(run):
    assert run("deliveries", "--json")[:2] == (0, "[]\n")
