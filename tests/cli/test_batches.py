"""The life of batches from the command line, on real files and a real lead store."""

import json
import os
import zipfile

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from batches import add_leads
from leadferry.batch.load import load_batch
from leadferry.cli import app
from leadferry.delivery.extract import Trigger, extract
from leadferry.errors import BatchConfigError
from leadferry.lifecycle.scaffold import GROUPS, Answers, scenarios
from leadferry.store import history

BATCH = """\
# A comment of somebody.
name: {name}
description: x
recipient: acme
flows: [auto]
tags: [{tag}]
schedule: {{at: ["09:00"], on: weekdays, timezone: America/New_York}}
fields: [{{to: Email, from: email}}]
files: [{{name: "{{{{ batch.id }}}}_{{{{ delivery.id }}}}.csv", format: {{type: csv}}}}]
destinations: [{{id: share, type: folder, path: {path}}}]
enabled: {enabled}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    folder = tmp_path / "config"
    (folder / "batches").mkdir(parents=True)
    (folder / "recipients").mkdir()
    (folder / "recipients" / "acme.yaml").write_text("name: Acme\ncontacts: [{name: Robin}]\n")
    monkeypatch.setenv("LEADFERRY_CONFIG", str(folder))
    monkeypatch.setenv("LEADFERRY_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.delenv("AIRFLOW_CONN_LEADFERRY", raising=False)
    return folder


@pytest.fixture
def store(database, store_url, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    return database


def write(config, batch_id, *, tag="auto", enabled="false", name=None, more=""):  # noqa: PLR0913  (all by keyword)
    file = config / "batches" / f"{batch_id}.yaml"
    path = config.parent / "inbox"
    file.write_text(
        BATCH.format(name=name or f"Batch {batch_id}", tag=tag, enabled=enabled, path=path) + more
    )
    return file


def run(*arguments, answers=None):
    return CliRunner().invoke(app, list(arguments), input=answers, catch_exceptions=False)


def refusal(*arguments):
    """The text of the error that a command ends with."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 1
    return str(result.exception)


def load(config, batch_id):
    return load_batch(batch_id, config=config)


def actions(database):
    with database.transaction() as connection:
        rows = connection.execute(text("SELECT action, object FROM audit ORDER BY id"))
        return [tuple(row) for row in rows]


@pytest.mark.req("R010")
def test_the_list_shows_batches_by_tag(config):
    write(config, "a")
    write(config, "b", tag="home", enabled="true")
    rows = json.loads(run("batches", "--json", "--tag", "home").output)
    assert [(row["id"], row["enabled"], row["tags"]) for row in rows] == [("b", True, ["home"])]


@pytest.mark.req("R008")
def test_a_copy_is_valid_disabled_and_has_nothing_of_the_original(config, store):
    write(config, "a", enabled="true")
    add_leads(store, 3)
    extract(store, load(config, "a"), Trigger(run_id="r", departs_at=load_time()))
    run("batches", "copy", "a", "b")
    copied = load(config, "b")
    assert (copied.id, copied.name, copied.enabled) == ("b", "Batch a (copy)", False)
    assert "# A comment of somebody." in (config / "batches" / "b.yaml").read_text()
    assert history.deliveries(store, history.Asked(batch_id="b")) == []
    assert actions(store)[-1] == ("batch.copy", "batch b")


def load_time():
    from batches import DEPARTS_AT

    return DEPARTS_AT


def test_a_copy_never_replaces_a_batch(config):
    write(config, "a")
    before = write(config, "b").read_text()
    assert "There is a batch 'b' already" in refusal("batches", "copy", "a", "b")
    assert (config / "batches" / "b.yaml").read_text() == before


@pytest.mark.req("R013")
def test_all_batches_with_a_tag_are_switched_with_a_result_for_each(config, store):
    for batch_id, tag in (("a", "auto"), ("b", "auto"), ("c", "home")):
        write(config, batch_id, tag=tag)
    write(config, "d", enabled="true")
    rows = json.loads(run("batches", "enable", "--tag", "auto", "--json").output)
    assert [(row["batch"], row["changed"]) for row in rows] == [("a", True), ("b", True), ("d", False)]
    assert [load(config, one).enabled for one in "abcd"] == [True, True, False, True]
    assert actions(store) == [("batch.enable", "batch a"), ("batch.enable", "batch b")]
    run("batches", "disable", "a")
    assert not load(config, "a").enabled
    assert actions(store)[-1] == ("batch.disable", "batch a")


def test_one_batch_that_would_not_load_does_not_keep_the_others_from_being_switched(config):
    write(config, "a", more="nonsense: 1\n")
    write(config, "b")
    result = run("batches", "enable", "--all", "--json")
    assert result.exit_code == 1
    assert [(row["batch"], row["ok"]) for row in json.loads(result.output)] == [("a", False), ("b", True)]
    assert load(config, "b").enabled


@pytest.mark.parametrize("arguments", [["enable"], ["enable", "nobody"], ["disable", "--tag", "none"]])
def test_batches_must_be_named(config, arguments):
    write(config, "a")
    assert "atch" in refusal("batches", *arguments)


@pytest.mark.req("F34")
def test_a_batch_that_must_be_tested_is_enabled_only_after_its_test_arrived(config, store):
    write(config, "a", more="must_test: true\n")
    result = run("batches", "enable", "a", "--json")
    assert result.exit_code == 1
    assert "leadferry batches test a" in json.loads(result.output)[0]["result"]
    run("batches", "test", "a")
    assert run("batches", "enable", "a").exit_code == 0
    assert load(config, "a").enabled


@pytest.mark.req("F34")
def test_a_test_counts_only_for_the_config_that_was_tested(config, store):
    write(config, "a", more="must_test: true\n")
    run("batches", "test", "a")
    run("batches", "set", "retry.attempts=2", "--batch", "a")
    assert run("batches", "enable", "a").exit_code == 1


@pytest.mark.req("R012")
def test_a_test_delivers_two_marked_leads_to_the_folder_and_leaves_the_queue_alone(config, store, tmp_path):
    write(config, "a")
    add_leads(store, 3)
    result = run("batches", "test", "a", "--to", str(tmp_path / "here"))
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "here").iterdir()
    assert file.name.startswith("TEST_")
    assert len(file.read_text().splitlines()) == 3
    waiting = json.loads(run("leads", "pending", "a", "--json").output)
    assert waiting[0]["leads"] == 3


@pytest.mark.req("R009", "R176")
def test_delete_is_refused_while_leads_wait_and_history_outlives_a_forced_one(config, store):
    write(config, "a", enabled="true")
    add_leads(store, 2)
    claimed = extract(store, load(config, "a"), Trigger(run_id="r", departs_at=load_time()))
    add_leads(store, 4)
    run("leads", "pending", "a")
    told = refusal("batches", "delete", "a")
    assert "4 leads wait for it" in told
    assert f"delivery {claimed.delivery_id} is claimed" in told
    assert (config / "batches" / "a.yaml").exists()
    run("batches", "delete", "a", "--force")
    assert not (config / "batches" / "a.yaml").exists()
    assert [row["id"] for row in json.loads(run("deliveries", "a", "--json").output)] == [claimed.delivery_id]
    assert actions(store)[-1] == ("batch.delete", "batch a")


@pytest.mark.req("R009")
def test_leads_that_are_in_no_queue_yet_wait_as_well(config, store):
    write(config, "a", enabled="true")
    run("leads", "pending", "a")
    add_leads(store, 4)
    assert "4 leads wait for it" in refusal("batches", "delete", "a")


PASSES_ON = "select: {caps: [{leads: 5, per: day, overflow: next, next_batch: a}]}\n"


@pytest.mark.req("R009")
def test_a_batch_that_others_pass_leads_on_to_is_not_deleted(config):
    write(config, "a")
    write(config, "b", more=PASSES_ON)
    assert "batch 'b' passes leads on to it" in refusal("batches", "delete", "a")
    assert (config / "batches" / "a.yaml").exists()


@pytest.mark.req("F21")
def test_leads_are_passed_on_only_to_a_batch_that_there_is(config):
    write(config, "b", more=PASSES_ON)
    with pytest.raises(BatchConfigError, match="there is no batch 'a'"):
        load(config, "b")
    write(config, "a")
    assert load(config, "b").select.caps[0].next_batch == "a"


@pytest.mark.req("R009")
def test_a_batch_for_which_nothing_waits_is_deleted(config, store):
    write(config, "a")
    assert run("batches", "delete", "a").exit_code == 0
    assert not (config / "batches" / "a.yaml").exists()


@pytest.mark.req("R019")
def test_each_configuration_that_ran_is_listed_with_the_keys_that_changed(config, store):
    for number, more in enumerate(
        ["", "retry: {attempts: 2}\n", "retry: {attempts: 2}\n", "notes: see https://x:hunter22@host/\n"]
    ):
        write(config, "a", enabled="true", more=more if "hunter" not in more else "")
        batch = load(config, "a")
        if "hunter" in more:
            batch = batch.model_copy(update={"notes": more})
        extract(store, batch, Trigger(run_id=f"r{number}", departs_at=load_time()))
    write(config, "a").unlink()
    found = json.loads(run("batches", "versions", "a", "--json").output)
    assert [(one["version"], one["deliveries"]) for one in found] == [(1, 1), (2, 2), (3, 1)]
    assert found[1]["changes"] == ["retry.attempts: 5 → 2"]
    assert "hunter22" not in json.dumps(found)
    assert any(one.startswith("notes: ") for one in found[2]["changes"])


@pytest.mark.parametrize("fault", ["name: [\n", "notes: a\nnotes: b\n"], ids=["no YAML", "a key twice"])
@pytest.mark.parametrize("arguments", [["enable"], ["disable"], ["set", "notes=x", "--batch"]])
def test_a_file_that_is_no_yaml_is_told_with_its_line_and_stays(config, fault, arguments):
    file = write(config, "a", more=fault)
    before = file.read_text()
    result = run("batches", *arguments, "a", "--json")
    assert result.exit_code == 1
    assert "config/batches/a.yaml:" in json.loads(result.output)[0]["result"]
    assert file.read_text() == before


def test_why_something_was_done_stays_in_the_audit(config, store):
    write(config, "a")
    for arguments in (
        ["enable", "a"], ["set", "notes=x", "--batch", "a"], ["copy", "a", "b"], ["disable", "a"], ["delete", "b"],
    ):  # fmt: skip
        assert run("batches", *arguments, "--reason", "contract ends").exit_code == 0
    with store.transaction() as connection:
        reasons = list(
            connection.scalars(text("SELECT detail ->> 'reason' FROM audit WHERE action LIKE 'batch.%'"))
        )
    assert reasons == ["contract ends"] * 5


def test_without_a_connection_and_without_an_airflow_no_store_is_asked(config, tmp_path, monkeypatch):
    write(config, "a")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "nowhere"))
    for name in [one for one in os.environ if one.startswith("AIRFLOW__")]:
        monkeypatch.delenv(name)
    assert run("batches", "enable", "a").exit_code == 0
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.req("R014")
def test_a_dry_run_shows_what_would_change_and_writes_nothing(config):
    before = write(config, "a").read_text()
    shown = run("batches", "set", "retry.attempts=3", "--all", "--dry-run").output
    assert "+  attempts: 3" in shown
    assert (config / "batches" / "a.yaml").read_text() == before


@pytest.mark.req("R014")
def test_what_would_not_load_is_not_written(config):
    before = write(config, "a").read_text()
    write(config, "b", name="Another")
    result = run("batches", "set", "retry.attempts=99", "--all", "--json")
    assert result.exit_code == 1
    assert "attempts" in json.loads(result.output)[0]["result"]
    assert (config / "batches" / "a.yaml").read_text() == before


@pytest.mark.req("R014")
def test_one_change_of_the_defaults_changes_every_batch_that_inherits_and_nothing_else(config):
    write(config, "a")
    write(config, "b", more="retry: {attempts: 9}\n")
    before = {one: load(config, one).model_dump() for one in "ab"}
    (config / "defaults.yaml").write_text("retry: {attempts: 2}\n")
    after = {one: load(config, one).model_dump() for one in "ab"}
    before["a"]["retry"]["attempts"] = 2
    assert after == before


@pytest.mark.req("R011")
def test_five_groups_of_answers_make_a_batch_that_passes_the_check_as_it_is(config):
    (config / "recipients" / "beta.yaml").write_text("name: Beta\ntimezone: Europe/Paris\n")
    answers = [
        "Beta, daily",
        "beta",
        "auto",
        "08:00, 20:00",
        "mon, thu",
        "",
        "xlsx",
        "email, phone_1",
        "folder",
        "",
        "out",
        "5",
        "3",
    ]
    result = run("batches", "new", "beta_daily", answers="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    assert all(group in result.output for group in GROUPS)
    made = load(config, "beta_daily")
    assert (made.enabled, made.timezone, str(made.schedule)) == (
        False,
        "Europe/Paris",
        "mon and thu at 08:00 and 20:00",
    )
    assert [field.to for field in made.fields] == ["Email", "Phone 1"]
    assert run("check", "beta_daily").exit_code == 0


@pytest.mark.parametrize("kind", ["sftp", "folder", "email", "s3"])
def test_without_questions_the_defaults_make_a_valid_batch(config, kind):
    to = "leads@acme.example" if kind == "email" else "inbound"
    assert run("batches", "new", "x", "--yes", "--type", kind, "--to", to).exit_code == 0
    assert load(config, "x").destinations[0].type == kind


def test_answers_with_quotes_and_colons_stay_what_they_are(config):
    name = 'Acme: "the" {{best}} #1'
    assert run("batches", "new", "x", "--yes", "--name", name, "--type", "folder").exit_code == 0
    assert load(config, "x").name == name


def test_what_would_not_load_is_not_made(config):
    assert "nobody" in refusal("batches", "new", "x", "--yes", "--recipient", "nobody")


def test_a_new_batch_takes_its_name_from_its_id_and_the_only_recipient_there_is(config):
    assert run("batches", "new", "beta_daily", "--yes", "--type", "folder", "--to", "/mnt").exit_code == 0
    batch = load(config, "beta_daily")
    assert (batch.name, batch.recipient.id) == ("Beta daily", "acme")


def test_among_several_recipients_none_is_guessed(config):
    (config / "recipients" / "beta.yaml").write_text("name: Beta\n")
    result = run("batches", "new", "beta_daily", "--yes", "--type", "folder")
    assert result.exit_code == 2
    assert "--recipient: acme, beta" in result.output
    assert not list((config / "batches").iterdir())
    assert not (config / "batches" / "x.yaml").exists()


@pytest.mark.parametrize("scenario", scenarios())
def test_every_scenario_is_a_valid_batch(config, scenario):
    result = run("batches", "new", "x", "--from", scenario)
    assert result.exit_code == 0, result.output
    assert not load(config, "x").enabled


@pytest.mark.req("R020")
def test_an_export_imported_into_an_empty_folder_gives_the_same_effective_configs(
    config, tmp_path, monkeypatch
):
    write(config, "a")
    write(config, "b", tag="home")
    (config / "defaults.yaml").write_text("retry: {attempts: 2}\n")
    before = {one: load(config, one) for one in "ab"}
    run("batches", "export", str(tmp_path / "all.zip"))
    restored = tmp_path / "new" / "config"
    monkeypatch.setenv("LEADFERRY_CONFIG", str(restored))
    assert run("batches", "import", str(tmp_path / "all.zip")).exit_code == 0
    assert {one: load(restored, one) for one in "ab"} == before
    assert "not empty" in refusal("batches", "import", str(tmp_path / "all.zip"))


def test_the_same_files_make_the_same_export(config, tmp_path):
    write(config, "a")
    for name in ("1.zip", "2.zip"):
        run("batches", "export", str(tmp_path / name))
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


@pytest.mark.parametrize("fault", ["changed", "missing", "outside", "no sums", "no zip"])
def test_a_damaged_export_is_refused_as_a_whole(config, tmp_path, monkeypatch, fault):
    write(config, "a")
    run("batches", "export", str(tmp_path / "good.zip"))
    with zipfile.ZipFile(tmp_path / "good.zip") as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    if fault == "changed":
        files["batches/a.yaml"] += b"#"
    elif fault == "missing":
        del files["recipients/acme.yaml"]
    elif fault == "outside":
        files["../evil.yaml"] = b""
    elif fault == "no sums":
        del files["SHA256SUMS"]
    bad = tmp_path / "bad.zip"
    if fault == "no zip":
        bad.write_text("no zip")
    else:
        with zipfile.ZipFile(bad, "w") as out:
            for name, data in files.items():
                out.writestr(name, data)
    target = tmp_path / "new" / "config"
    monkeypatch.setenv("LEADFERRY_CONFIG", str(target))
    assert "bad.zip" in refusal("batches", "import", str(bad))
    assert not target.exists()
    assert not (tmp_path / "new" / "evil.yaml").exists()


def test_every_answer_has_a_question():
    from dataclasses import fields

    from leadferry.lifecycle.scaffold import QUESTIONS

    names = [one.name for one in fields(Answers)]
    assert names == [name for group in GROUPS.values() for name in group] == list(QUESTIONS)


def test_the_recipients_that_are_there_are_offered(config):
    (config / "recipients" / "acme.yaml").rename(config / "recipients" / "beta.yaml")

    result = run("batches", "new", "x", answers="\n" * 3 + "\n" * 5 + "folder\n\nout\n\n\n")

    assert result.exit_code == 0, result.output
    assert "Recipient: beta [beta]" in result.output
    assert load(config, "x").recipient.id == "beta"
