from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest

from leadferry.batch.schema import DIALECT, KINDS, file_schema
from leadferry.batch.yaml_file import parse_yaml, read_yaml

from .conftest import BATCH, RECIPIENT

PROJECT = Path(__file__).parents[2]
FOLDERS = (PROJECT / "config", PROJECT / "docs" / "examples" / "config")


def faults(kind, data) -> list[str]:
    validator = jsonschema.Draft202012Validator(file_schema(kind))
    return [error.message for error in validator.iter_errors(data)]


def files(pattern: str) -> list[Path]:
    return [file for folder in FOLDERS for file in sorted(folder.glob(pattern))]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_schema_of_the_named_dialect_and_needs_nothing_else(kind):
    schema = file_schema(kind)

    assert schema["$schema"] == DIALECT
    jsonschema.Draft202012Validator.check_schema(schema)
    assert all(target.startswith("#/") for target in re.findall(r"'\$ref': '([^']*)'", str(schema)))


@pytest.mark.parametrize("file", files("batches/*.yaml"), ids=lambda file: file.stem)
def test_it_accepts_every_batch_of_the_project(file):
    assert faults("batch", read_yaml(file, shown=file.name).data) == []


@pytest.mark.parametrize("file", files("recipients/*.yaml"), ids=lambda file: file.stem)
def test_it_accepts_every_recipient_of_the_project(file):
    assert faults("recipient", read_yaml(file, shown=file.name).data) == []


@pytest.mark.parametrize("file", files("defaults.yaml"), ids=lambda file: file.parent.parent.name)
def test_it_accepts_the_defaults_of_the_project(file):
    assert faults("defaults", read_yaml(file, shown=file.name).data) == []


@pytest.mark.parametrize(
    "text",
    [
        BATCH,
        BATCH + "retry: {attempts: 3}\n",
        BATCH + "conditions: {max_wait: 3d}\nselect: {limit: 5, order: newest}\n",
        BATCH.replace('{at: ["09:00"], on: weekdays}', "manual"),
        BATCH.replace('{at: ["09:00"], on: weekdays}', "{on: [mon, thu]}"),
        "name: Everything else is inherited\n",
    ],
)
def test_it_accepts_what_a_person_may_write(text):
    assert faults("batch", parse_yaml(text, shown="x").data) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: Acme, daily", "nam: Acme, daily"),
        ("name: Acme, daily", "name: 5"),
        ("name: Acme, daily", "name: Acme\nid: acme"),
        ("recipient: acme", "recipient: {name: Acme}"),
        ("recipient: acme", "recipient: Acme Auto"),
        ("flows: [auto]", "flows: auto"),
        ("on: weekdays", "on: weekdas"),
        ("on: weekdays", "onn: weekdays"),
        ('"09:00"', '"9:61"'),
        ("to: Email, from: email", "to: Email, form: email"),
        ("from: email", "from: email, transform: [trm]"),
        ("type: csv", "type: cvs"),
        ("{type: csv}", "{type: csv, delimeter: ';'}"),
        ("type: folder", "type: foldr"),
        ("path: out", "pth: out"),
        (", path: out", ""),
        ("name: Acme, daily", "name: Acme\nretry: {attempts: 0}"),
        ("name: Acme, daily", "name: Acme\nselect: {order: newst}"),
        ("name: Acme, daily", "name: Acme\nempty: skp"),
        ("name: Acme, daily", "name: Acme\npassword: x"),
    ],
)
def test_it_rejects_what_the_loader_rejects(folder, old, new):
    text = BATCH.replace(old, new)
    assert text != BATCH
    folder.batch(text=text)

    assert faults("batch", parse_yaml(text, shown="x").data)
    assert folder.complaints()


def test_a_recipient_is_described_with_the_keys_that_its_batches_inherit():
    assert (
        faults(
            "recipient", parse_yaml(RECIPIENT + "batch: {retry: {attempts: 3}, tags: [a]}\n", shown="x").data
        )
        == []
    )
    assert faults("recipient", parse_yaml(RECIPIENT + "batch: {retri: {}}\n", shown="x").data)
    assert faults("recipient", parse_yaml(RECIPIENT + "batch: {name: x}\n", shown="x").data)
    assert faults("recipient", {"contacts": []})


def test_the_defaults_may_say_any_key_and_the_naming_pattern():
    assert faults("defaults", {"naming": "^[A-Z]", "retry": {"attempts": 2}}) == []
    assert faults("defaults", {}) == []
    assert faults("batch", {"name": "x", "naming": "^[A-Z]"})


def test_every_key_of_a_batch_explains_itself_in_the_editor():
    silent = {
        "name",
        "notify",
        "retry",
        "select",
        "conditions",
        "schedule",
        "fields",
        "files",
        "destinations",
        "tags",
    }

    properties = file_schema()["properties"]

    assert {name for name, one in properties.items() if "description" not in one} <= silent | {
        "description",
        "timezone",
    }


def test_it_is_the_same_every_time():
    assert file_schema() == file_schema()
    assert list(file_schema()["$defs"]) == sorted(file_schema()["$defs"])
