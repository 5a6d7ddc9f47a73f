from __future__ import annotations

import json

import jsonschema
import pytest
from typer.testing import CliRunner

from leadferry.cli import app

BATCH = """\
name: {name}
description: x
recipient: acme
flows: [auto]
schedule: {{at: ["09:00"], on: weekdays, timezone: America/New_York}}
select: {{rules: [{{name: a, field: email, exists: true}}]}}
fields: [{{to: Email, from: email}}]
files: [{{name: "{{{{ delivery.number }}}}.csv", format: {{type: csv}}}}]
destinations: [{{id: share, type: {kind}, path: out}}]
enabled: false
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    folder = tmp_path / "config"
    (folder / "batches").mkdir(parents=True)
    (folder / "recipients").mkdir()
    (folder / "recipients" / "acme.yaml").write_text("name: Acme\ncontacts: [{name: Robin}]\n")
    monkeypatch.setenv("LEADFERRY_CONFIG", str(folder))
    return folder


def write(config, batch_id: str, *, kind: str = "folder") -> None:
    (config / "batches" / f"{batch_id}.yaml").write_text(BATCH.format(name=f"Batch {batch_id}", kind=kind))


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.req("F09")
def test_check_tells_the_broken_one_of_five_and_exits_1(config):
    for batch_id in ("a", "b", "c", "d"):
        write(config, batch_id)
    write(config, "e", kind="foldr")

    result = run("check")

    assert result.exit_code == 1
    assert result.output.splitlines() == [
        (
            "config/batches/e.yaml:9: destinations[0].type: 'foldr' is not known; allowed: folder, sftp, ftp, email, s3, gcs, azure, http, table;"
            " did you mean 'folder'?"
        ),
        "5 checked, 4 fine, 1 broken; 1 problem, 0 hints",
    ]


def test_check_exits_0_when_all_is_well(config):
    write(config, "a")

    result = run("check")

    assert (result.exit_code, result.output) == (0, "1 checked, 1 fine, 0 broken; 0 problems, 0 hints\n")


def test_check_of_one_batch_does_not_mind_the_others(config):
    write(config, "a")
    write(config, "b", kind="foldr")

    assert run("check", "a").exit_code == 0
    assert run("check", "b").exit_code == 1
    assert run("check", "c").exit_code == 1


def test_hints_fail_only_when_asked_to(config):
    write(config, "a")
    (config / "recipients" / "acme.yaml").write_text("name: Acme\n")

    plain, strict = run("check"), run("check", "--strict")

    assert (plain.exit_code, strict.exit_code) == (0, 1)
    assert "hint: config/recipients/acme.yaml:1: contacts: nobody to call" in plain.output


def test_check_as_json_holds_every_problem_as_data(config):
    write(config, "a")
    write(config, "b", kind="foldr")

    result = run("check", "--json")
    data = json.loads(result.output)

    assert result.exit_code == 1
    assert (data["ok"], data["checked"], data["broken"], data["hints"]) == (False, ["a", "b"], ["b"], [])
    assert data["problems"][0]["file"] == "config/batches/b.yaml"
    assert data["problems"][0]["line"] == 9
    assert data["problems"][0]["key"] == "destinations[0].type"


@pytest.mark.req("R219")
def test_check_never_prints_a_secret(config):
    write(config, "a")
    with (config / "batches" / "a.yaml").open("a") as file:
        file.write("password: hunter2hunter2\nnotes: https://robin:hunter2hunter2@example.com\n")

    for arguments in (("check",), ("check", "--json"), ("batches",)):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "hunter2" not in result.output
        assert "a.yaml" in result.output


@pytest.mark.parametrize("kind", [[], ["batch"], ["recipient"], ["defaults"]])
def test_schema_prints_a_json_schema(kind):
    result = run("schema", *kind)

    jsonschema.Draft202012Validator.check_schema(json.loads(result.output))
    assert result.exit_code == 0


def test_schema_of_something_else_is_wrong_usage():
    assert run("schema", "calendar").exit_code == 2


def test_batches_lists_what_the_files_say(config):
    write(config, "b")
    write(config, "a")

    result = run("batches", "--json")

    assert result.exit_code == 0
    assert json.loads(result.output)[0] == {
        "id": "a",
        "name": "Batch a",
        "recipient": "acme",
        "flows": ["auto"],
        "schedule": "weekdays at 09:00",
        "timezone": "America/New_York",
        "enabled": False,
        "tags": [],
        "destinations": ["folder out"],
    }
    assert [row["id"] for row in json.loads(result.output)] == ["a", "b"]


def test_batches_shows_a_table_and_tells_what_is_broken(config):
    write(config, "a")
    write(config, "b", kind="foldr")

    result = run("batches")

    assert result.exit_code == 1
    assert "weekdays" in result.stdout
    assert "config/batches/b.yaml:9:" in result.stderr
