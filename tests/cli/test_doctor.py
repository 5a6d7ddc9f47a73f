from __future__ import annotations

import json

import pytest

from batches import rows
from leadferry.cli import main

BATCH = """\
name: Acme
recipient: acme
flows: [auto]
schedule: manual
fields: [{{to: Email, from: email}}]
files: [{{name: "{{{{ delivery.number }}}}.csv", format: {{type: csv}}}}]
destinations:
  - {{id: share, type: folder, path: {path}, create: false}}
  - {{id: other, type: folder, path: {path}/made}}
"""


@pytest.fixture
def share(tmp_path, monkeypatch):
    """The folder that the batch `acme` delivers into; it is there."""
    config = tmp_path / "config"
    (config / "batches").mkdir(parents=True)
    (config / "recipients").mkdir()
    (config / "recipients" / "acme.yaml").write_text("name: Acme\n")
    folder = tmp_path / "share"
    folder.mkdir()
    (config / "batches" / "acme.yaml").write_text(BATCH.format(path=folder))
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    monkeypatch.setenv("LEADFERRY_ARCHIVE", str(tmp_path / "archive"))
    return folder


@pytest.fixture
def run(store_url, monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["leadferry", "doctor", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.mark.req("F43")
def test_a_batch_whose_destinations_are_well_exits_0(run, share):
    code, out, _ = run("acme")

    assert code == 0
    assert out.startswith(f"acme → share: folder {share}\n")
    assert "  ok              write       a file was written, published and removed\n" in out
    assert "not applicable" not in out
    assert list(share.iterdir()) == []


@pytest.mark.req("F43")
def test_a_stage_that_fails_is_told_with_its_remedy_and_exits_1(run, share):
    share.rmdir()

    code, out, _ = run("acme", "--destination", "share")

    assert code == 1
    assert "  FAILED          path " in out
    assert "→ Correct the path in the batch file" in out
    assert "acme → other" not in out


@pytest.mark.req("F43")
def test_json_says_the_same_for_programs(run, share):
    share.rmdir()

    code, out, _ = run("acme", "--json")

    told = json.loads(out)
    assert (code, told["ok"]) == (1, False)
    assert [(one["destination"], one["ok"]) for one in told["examined"]] == [
        ("share", False),
        ("other", True),
    ]
    (failed,) = [one for one in told["examined"][0]["findings"] if one["verdict"] == "failed"]
    assert failed["stage"] == "path"
    assert failed["remedy"]


def test_a_test_that_is_sent_is_recorded(run, share, database):
    code, _, _ = run("acme", "--destination", "share", "--send-test")

    assert code == 0
    assert [path.name.startswith("TEST_") for path in share.iterdir()] == [True]
    assert rows(database, "SELECT action, object, detail FROM audit") == [
        ("doctor.send_test", "batch acme", {"destination": "share"})
    ]


def test_without_a_batch_the_store_the_archive_and_airflow_are_examined_too(run, share):
    code, out, _ = run("--json")

    told = json.loads(out)
    assert [one["subject"] for one in told["examined"]] == ["here", "acme → share", "acme → other"]
    stages = {one["stage"]: one["verdict"] for one in told["examined"][0]["findings"]}
    assert list(stages) == ["store", "clock", "zones", "archive", "pools", "plugin"]
    assert (stages["store"], stages["archive"]) == ("ok", "ok")
    # The tests' Airflow has no plugins folder, and that is what it is for.
    assert (code, stages["plugin"]) == (1, "failed")


def test_a_broken_file_is_told_and_the_other_batches_are_examined(run, share):
    (share.parent / "config" / "batches" / "bad.yaml").write_text("name: Bad\n")

    code, out, _ = run("--json")

    told = json.loads(out)["examined"]
    assert code == 1
    assert [one["subject"] for one in told] == ["here", "config", "acme → share", "acme → other"]
    assert "bad.yaml" in told[1]["findings"][0]["what"]


@pytest.mark.parametrize("typed", [["acme", "--destination", "shrae"], ["--destination", "share"]])
def test_a_destination_that_is_not_there_is_wrong_usage(run, share, typed):
    code, _, err = run(*typed)

    assert code == 2
    assert "destination" in err
