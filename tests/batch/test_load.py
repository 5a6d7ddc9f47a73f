from __future__ import annotations

import json
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import yaml

import leadferry.batch.load as load_module
from leadferry.batch.check import check
from leadferry.batch.load import batch_ids, load_all, load_batch
from leadferry.batch.model import Batch
from leadferry.batch.problems import BatchFileError
from leadferry.project import config_folder

from .conftest import BATCH

PROJECT = Path(__file__).parents[2]


def test_a_batch_needs_only_the_required_keys(folder):
    folder.batch()

    batch = folder.load()

    assert (batch.id, batch.name, batch.recipient.id, batch.recipient.name) == (
        "acme",
        "Acme, daily",
        "acme",
        "Acme",
    )
    assert batch.files[0].id == "leads"


@pytest.mark.req("R001")
def test_two_files_are_two_batches_with_ids_from_their_names(folder):
    folder.batch("acme_auto")
    folder.batch("acme_home")

    assert batch_ids(folder.path) == ["acme_auto", "acme_home"]
    assert [folder.load(one).dag_id for one in batch_ids(folder.path)] == [
        "batch_acme_auto",
        "batch_acme_home",
    ]


def test_ids_come_from_file_names_without_reading_the_files(folder):
    for name in ("b.yaml", "a.yaml", ".c.yaml", "d.yaml~", "#e.yaml#", "f.txt", "g.yml"):
        folder.write(f"batches/{name}", "not: [yaml")
    folder.write("batches/sub/h.yaml", "")

    assert batch_ids(folder.path) == ["a", "b", "g"]


def test_no_folder_means_no_batches(tmp_path):
    assert batch_ids(tmp_path) == []


def test_the_batch_wins_over_the_recipient_and_the_recipient_over_the_defaults(folder):
    folder.write(
        "defaults.yaml",
        "retry: {attempts: 2, first_delay: 2m, factor: 3}\npriority: 2\ntags: [default]\nnotify: {failure: [a@example.com]}\n",
    )
    folder.write(
        "recipients/acme.yaml",
        "name: Acme\nbatch: {retry: {attempts: 3, first_delay: 3m}, tags: [theirs, too]}\n",
    )
    folder.batch(more="retry: {attempts: 4}\ntags: [own]\n")

    batch = folder.load()

    assert (batch.retry.attempts, batch.retry.first_delay.seconds, batch.retry.factor) == (4, 180, 3)
    assert batch.tags == ["own"]
    assert batch.priority == 2
    assert batch.notify.failure == ["a@example.com"]


def test_a_value_replaces_an_inherited_mapping(folder):
    folder.write("defaults.yaml", "schedule: {at: ['07:00'], on: weekends}\n")
    folder.batch(text=BATCH.replace('{at: ["09:00"], on: weekdays}', "manual"))

    assert folder.load().schedule == "manual"


def test_required_keys_may_be_inherited(folder):
    folder.write("defaults.yaml", "recipient: acme\nschedule: manual\n")
    folder.batch(
        text="\n".join(
            line for line in BATCH.splitlines() if line.split(":")[0] not in ("recipient", "schedule")
        )
    )

    assert folder.load().recipient.name == "Acme"


def test_loading_one_batch_leaves_no_trace_in_another(folder):
    folder.write("defaults.yaml", "retry: {attempts: 2}\n")
    folder.batch("one", more="retry: {factor: 9}\n")
    folder.batch("two")

    batches, errors = load_all(folder.path)

    assert errors == []
    assert [batch.retry.factor for batch in batches] == [9, 2]


@pytest.mark.parametrize(
    ("defaults", "recipient", "batch", "schedule", "expected"),
    [
        ("", "", "", "", ("UTC", "UTC")),
        ("timezone: Asia/Tokyo", "", "", "", ("Asia/Tokyo", "Asia/Tokyo")),
        ("timezone: Asia/Tokyo", "timezone: Asia/Kolkata", "", "", ("Asia/Kolkata", "Asia/Kolkata")),
        ("", "timezone: Asia/Kolkata\nbatch: {timezone: Asia/Dubai}", "", "", ("Asia/Dubai", "Asia/Dubai")),
        ("", "timezone: Asia/Kolkata", "timezone: Europe/Paris", "", ("Europe/Paris", "Europe/Paris")),
        ("", "timezone: Asia/Kolkata", "", "Europe/Rome", ("Europe/Rome", "Europe/Rome")),
        ("", "", "timezone: Europe/Paris", "Europe/Rome", ("Europe/Paris", "Europe/Rome")),
        (
            "schedule: {timezone: Asia/Tokyo}",
            "timezone: Asia/Kolkata",
            "",
            "",
            ("Asia/Kolkata", "Asia/Kolkata"),
        ),
        (
            "schedule: {timezone: Asia/Tokyo}",
            "",
            "timezone: Europe/Paris",
            "",
            ("Europe/Paris", "Europe/Paris"),
        ),
    ],
)
def test_the_strongest_file_that_names_a_zone_decides(  # noqa: PLR0913, PLR0917  one row of the table
    folder, defaults, recipient, batch, schedule, expected
):
    folder.write("defaults.yaml", defaults or "tags: []")
    folder.write("recipients/acme.yaml", f"name: Acme\n{recipient}\n")
    zone = f", timezone: {schedule}" if schedule else ""
    folder.batch(text=BATCH.replace("on: weekdays}", f"on: weekdays{zone}}}") + batch)

    loaded = folder.load()

    assert (loaded.timezone, loaded.schedule.timezone) == expected


def test_a_batch_survives_being_frozen_as_json(folder):
    folder.batch(
        more="conditions: {min_leads: 2, max_wait: 36h}\nselect: {rules: [{name: a, field: zip, in: [02138, 7]}]}\n"
    )
    batch = folder.load()

    frozen = json.dumps(batch.model_dump(mode="json"))

    assert Batch.model_validate(json.loads(frozen)) == batch
    assert batch.select.rules[0].in_ == ["02138", 7]


@pytest.mark.req("R003")
def test_an_unknown_recipient_is_told_with_file_key_and_name(folder):
    folder.batch(text=BATCH.replace("recipient: acme", "recipient: acmee"))

    assert folder.complaints() == [
        (
            "config/batches/acme.yaml:2: recipient: 'acmee' is not known: there is no config/recipients/acmee.yaml;"
            " known: acme; did you mean 'acme'?"
        )
    ]


@pytest.mark.req("R003")
def test_a_recipient_brings_contacts(folder):
    folder.write(
        "recipients/acme.yaml",
        "name: Acme\ncontacts: [{name: Robin, email: robin@acme.example, role: ops}]\n",
    )
    folder.batch()

    assert folder.load().recipient.contacts[0].email == "robin@acme.example"


def test_with_an_unknown_recipient_everything_else_is_told_too(folder):
    folder.batch(
        text=BATCH.replace("recipient: acme", "recipient: nobody").replace("type: folder", "type: foldr")
    )

    told = folder.complaints()

    assert len(told) == 2
    assert "'nobody' is not known" in told[0]
    assert "destinations[0].type: 'foldr' is not known" in told[1]


@pytest.mark.parametrize("value", ["{name: Acme}", "[acme]", "../../etc/passwd", "Acme", "5"])
def test_a_recipient_is_the_name_of_a_file(folder, value):
    folder.batch(text=BATCH.replace("recipient: acme", f"recipient: {value}"))

    told = folder.complaints()

    assert told == [
        "config/batches/acme.yaml:2: recipient: must be the name of a file in recipients/, such as acme"
    ]


@pytest.mark.req("R002")
@pytest.mark.parametrize("key", ["name", "recipient", "flows", "schedule", "fields", "destinations"])
def test_a_missing_required_key_is_named(folder, key):
    folder.write("batches/acme.yaml", _without(key))

    assert folder.complaints() == [f"config/batches/acme.yaml:2: {key}: the required key '{key}' is missing"]


@pytest.mark.req("R002")
@pytest.mark.parametrize("day", ["2026-02-31", "0001-01-01", "9999-12-31"])
def test_a_first_day_of_collecting_that_is_none_is_refused(folder, day):
    folder.batch(text=f"{BATCH}select: {{received_from: {day}}}\n")

    (told,) = folder.complaints()

    assert told.endswith(f"select.received_from: '{day}' is no day such as 2026-01-31")


@pytest.mark.req("R002")
def test_files_are_required_by_destinations_that_take_files(folder):
    folder.write("batches/acme.yaml", _without("files"))

    assert folder.complaints() == [
        "config/batches/acme.yaml:2: destination 'share' takes files, but the batch has none; add the key 'files'"
    ]


def _without(key: str) -> str:
    data = yaml.safe_load(BATCH.replace("on:", "'on':"))
    del data[key]
    return "# a comment\n" + yaml.safe_dump(data, sort_keys=False)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Acme", "such as acme.yaml"),
        ("acme-auto", "such as acme_auto.yaml"),
        ("1st", "such as batch_1st.yaml"),
        ("acme auto", "such as acme_auto.yaml"),
    ],
)
def test_a_file_name_that_is_no_id_is_told_with_a_better_one(folder, name, told):
    folder.batch(name)

    assert batch_ids(folder.path) == [name]
    assert folder.complaints(name) == [
        (
            f"config/batches/{name}.yaml:1: the file's name is the batch's id: lower case letters, digits and _,"
            f" starting with a letter, {told}"
        )
    ]


@pytest.mark.req("R018")
def test_file_names_that_differ_only_in_case_name_each_other(folder):
    folder.batch("acme")
    folder.batch("ACME")
    if len(list((folder.path / "batches").iterdir())) == 1:
        pytest.skip("This file system does not tell upper and lower case apart; run it on one that does")

    batches, errors = load_all(folder.path)

    assert [batch.id for batch in batches] == ["acme"]
    assert "config/batches/ACME.yaml:1:" in str(errors[0])
    assert "differs from acme.yaml only in case" in str(errors[0])


@pytest.mark.req("R018")
def test_yml_beside_yaml_is_refused_with_both_names(folder):
    folder.batch("acme")
    folder.write("batches/acme.yml", BATCH)

    assert folder.complaints() == [
        (
            "config/batches/acme.yml:1: both config/batches/acme.yaml and config/batches/acme.yml are there;"
            " keep one, named acme.yaml"
        )
    ]


def test_yml_alone_asks_to_be_renamed(folder):
    folder.write("batches/acme.yml", BATCH)

    assert folder.complaints() == ["config/batches/acme.yml:1: rename this file to acme.yaml"]


def test_a_batch_that_is_not_there_suggests_one_that_is(folder):
    folder.batch("acme")

    assert folder.complaints("acne") == [
        "config/batches/acne.yaml:1: there is no such file; did you mean 'acme'?"
    ]


def test_a_batch_that_is_like_none_says_where_to_look(folder):
    folder.batch("acme")

    assert folder.complaints("zzz") == [
        "config/batches/zzz.yaml:1: there is no such file; `leadferry batches` lists those that are there"
    ]


@pytest.mark.parametrize("batch_id", ["../recipients/acme", "/etc/passwd", "a/b", ""])
def test_an_id_never_leads_out_of_the_folder(folder, batch_id):
    with pytest.raises(BatchFileError, match="the file's name is the batch's id"):
        folder.load(batch_id)


@pytest.mark.req("F09", "R001")
def test_one_broken_file_breaks_one_batch(folder):
    for batch_id in ("a", "b", "c", "d"):
        folder.batch(batch_id)
    folder.write("batches/broken.yaml", "name: [")

    batches, errors = load_all(folder.path)

    assert [batch.id for batch in batches] == ["a", "b", "c", "d"]
    assert len(errors) == 1
    assert str(errors[0]).startswith("config/batches/broken.yaml:2:1:")


def test_a_broken_recipient_breaks_only_its_own_batches(folder):
    folder.write("recipients/other.yaml", "name: Other\nname: Twice\n")
    folder.batch("fine")
    folder.batch("theirs", text=BATCH.replace("recipient: acme", "recipient: other"))

    batches, errors = load_all(folder.path)

    assert [batch.id for batch in batches] == ["fine"]
    assert (
        str(errors[0]) == "config/recipients/other.yaml:2: name: this key stands twice here, first on line 1"
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just words\n"])
def test_a_file_that_holds_no_mapping_is_told_as_such(folder, text):
    folder.write("batches/acme.yaml", text)

    (told,) = folder.complaints()

    assert told.startswith("config/batches/acme.yaml:1: ")
    assert "empty" in told or "must be a mapping" in told


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("batches/acme.yaml", BATCH + "id: acme\n", "config/batches/acme.yaml:11: id: leave this out"),
        (
            "recipients/acme.yaml",
            "name: Acme\nid: acme\n",
            "config/recipients/acme.yaml:2: id: leave this out",
        ),
        ("defaults.yaml", "id: acme\n", "config/defaults.yaml:1: id: leave this out"),
        (
            "recipients/acme.yaml",
            "name: Acme\nbatch: {name: x}\n",
            "config/recipients/acme.yaml:2: batch.name: every batch",
        ),
        (
            "recipients/acme.yaml",
            "name: Acme\nbatch: [1]\n",
            "config/recipients/acme.yaml:2: batch: must be a mapping",
        ),
    ],
)
def test_keys_that_do_not_belong_into_a_file_are_refused_there(folder, file, text, told):
    folder.batch()
    folder.write(file, text)

    assert [line for line in folder.complaints() if line.startswith(told)]


def test_the_error_keeps_its_problems_in_another_process(folder):
    folder.batch(text=BATCH.replace("name: Acme, daily", "name: 5"))
    with pytest.raises(BatchFileError) as caught:
        folder.load()

    again = pickle.loads(pickle.dumps(caught.value))

    assert str(again) == str(caught.value)
    assert again.problems == caught.value.problems
    assert again.problems[0].line == 1


def test_the_folder_is_the_one_that_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "elsewhere"))

    assert config_folder(project=PROJECT) == tmp_path / "elsewhere"


def test_without_the_environment_it_is_the_projects(monkeypatch, tmp_path):
    monkeypatch.delenv("LEADFERRY_CONFIG", raising=False)
    (tmp_path / "config").mkdir()

    assert config_folder() == PROJECT / "config"
    assert config_folder(project=tmp_path) == tmp_path / "config"
    assert config_folder(project=tmp_path / "without") == PROJECT / "config"


def test_an_installed_package_finds_the_folder_beside_airflows_dags(monkeypatch, tmp_path):
    monkeypatch.delenv("LEADFERRY_CONFIG", raising=False)
    monkeypatch.setattr(
        "leadferry.__file__", str(tmp_path / "lib" / "site-packages" / "leadferry" / "__init__.py")
    )
    monkeypatch.chdir(tmp_path)
    assert config_folder() == tmp_path / "config"

    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "project" / "dags"))
    (tmp_path / "project" / "config").mkdir(parents=True)
    assert config_folder() == tmp_path / "project" / "config"


def test_parsing_a_dag_file_loads_nothing_heavy(folder):
    folder.batch()
    heavy = "polars pandas phonenumbers airflow boto3 botocore paramiko lxml openpyxl rustpy_xlsxwriter psycopg moto"
    code = f"""
import sys, pathlib
from leadferry.batch.load import load_batch
from leadferry.batch.describe import describe
describe(load_batch("acme", config=pathlib.Path({str(folder.path)!r})))
print(*sorted(set({heavy!r}.split()) & set(sys.modules)))
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


def test_loading_one_batch_reads_three_files(folder, monkeypatch):
    folder.write("defaults.yaml", "priority: 2\n")
    folder.write("recipients/other.yaml", "name: Other\n")
    folder.batch("acme")
    folder.batch("other")
    opened: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self.name) or real(self, *a, **k))

    load_batch("acme", config=folder.path)

    assert sorted(opened) == ["acme.yaml", "acme.yaml", "defaults.yaml"]


# --- bugs of our own -----------------------------------------------------------------------------------------------


@pytest.mark.req("F09")
def test_a_bug_met_while_one_batch_is_loaded_is_told_of_that_batch_and_stops_no_other(folder, monkeypatch):
    folder.batch("good")
    folder.batch("unlucky")
    fine = load_module.why_unusable

    def fails(*args, batch_id, **more):
        if batch_id == "unlucky":
            raise ZeroDivisionError("hunter2")
        return fine(*args, batch_id=batch_id, **more)

    monkeypatch.setattr(load_module, "why_unusable", fails)

    batches, (error,) = load_all(folder.path)

    assert [batch.id for batch in batches] == ["good"]
    assert str(error).startswith(
        "config/batches/unlucky.yaml:1: a bug in Leadferry (ZeroDivisionError at test_load.py:"
    )
    assert str(error).endswith("please report this")
    assert "hunter2" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [
        ("recipients/other.yaml", "name: 5", "leadferry.batch.check.Recipient.model_validate"),
        ("calendars/acme.yaml", "{}", "leadferry.batch.calendars.CalendarFile.model_validate"),
        ("lists/acme.yaml", "{}", "leadferry.batch.load.read_list"),
    ],
)
def test_a_bug_met_in_a_file_that_no_batch_names_is_told_by_the_check(folder, monkeypatch, file, text, kind):
    folder.batch()
    folder.write(file, text)

    def fails(*_args, **_more):
        raise KeyError("x")

    monkeypatch.setattr(kind, fails)

    report = check(folder.path)

    assert [batch.id for batch in report.batches] == ["acme"]
    (problem,) = [one for one in report.problems if one.file == f"config/{file}"]
    assert problem.text.startswith("a bug in Leadferry (KeyError at test_load.py:")
