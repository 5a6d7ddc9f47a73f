"""Where a fault is told: file, line, key, value, what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple
from datetime import timedelta
from typing import Annotated, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType

from leadferry.batch.explain import Layer, explain
from leadferry.batch.model import Batch
from leadferry.batch.problems import Problem
from leadferry.batch.yaml_file import read_yaml
from leadferry.units import write_duration

HEAD = """\
name: Acme, daily
recipient: acme
flows: [auto]
schedule: {at: ["09:00"], on: weekdays}
"""
FIELDS = "fields: [{to: Email, from: email}]\n"
FILES = 'files: [{name: "{{ delivery.number }}.csv", format: {type: csv}}]\n'
DESTINATIONS = "destinations: [{id: share, type: folder, path: out}]\n"
REST = FIELDS + FILES + DESTINATIONS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            HEAD + FIELDS + FILES + "destinations:\n  - {id: a, type: stfp, connection: x}\n",
            (
                "config/batches/acme.yaml:8: destinations[0].type: 'stfp' is not known;"
                " allowed: folder, sftp, ftp, email, s3, gcs, azure, http, table; did you mean 'sftp'?"
            ),
        ),
        (
            HEAD + FIELDS + FILES + "destinations:\n  - id: a\n    connection: x\n",
            "config/batches/acme.yaml:8: destinations[0].type: the required key 'type' is missing; allowed: folder, sftp, ftp, email, s3",
        ),
        (
            HEAD + FIELDS + FILES + "destinations:\n  - id: a\n    type: folder\n    pth: x\n",
            "config/batches/acme.yaml:10: destinations[0].pth: this key is not known here; allowed: create, fallback_for, files, ",
        ),
        (
            HEAD
            + FIELDS
            + DESTINATIONS
            + "files:\n  - name: '{{ delivery.number }}.csv'\n    format:\n      type: cvs\n",
            "config/batches/acme.yaml:10: files[0].format.type: 'cvs' is not known; allowed: csv, fixed_width, json, name_value, ndjson, parquet, xlsx, xml; did you mean 'csv'?",
        ),
        (
            HEAD + REST + "descripton: x\n",
            "config/batches/acme.yaml:8: descripton: this key is not known here; allowed:",
        ),
        (HEAD + REST + "limit: 5\n", "did you mean select.limit?"),
        (HEAD + REST + "min_leads: 5\n", "did you mean conditions.min_leads?"),
        (
            HEAD + REST + "retry:\n  attempts: 0\n",
            "config/batches/acme.yaml:9: retry.attempts: must be at least 1, is 0",
        ),
        (
            HEAD + REST + "retry:\n  attempts: many\n",
            "config/batches/acme.yaml:9: retry.attempts: must be a whole number, is 'many'",
        ),
        (
            HEAD + REST + "retry:\n  - 5\n",
            "config/batches/acme.yaml:8: retry: must be a mapping (key: value), is a list",
        ),
        (
            HEAD + REST + "tags: [2024]\n",
            "config/batches/acme.yaml:8: tags[0]: must be text, is 2024; put it in quotes",
        ),
        (HEAD + REST + "tags: auto\n", "config/batches/acme.yaml:8: tags: must be a list, is 'auto'"),
        (
            HEAD + REST + "notes:\n",
            "config/batches/acme.yaml:8: notes: must be text; nothing stands behind the colon",
        ),
        (
            HEAD + REST + "empty: skp\n",
            "empty: 'skp' is not known; allowed: skip, header_only, notice, fail; did you mean 'skip'?",
        ),
        (HEAD + REST + "enabled: maybe\n", "enabled: must be true or false, is 'maybe'"),
        (
            HEAD
            + REST
            + "select: {rules: [{name: a, field: x, equals: 1}, {name: a, field: y, equals: 1}]}\n",
            "config/batches/acme.yaml:8: select.rules[1].name: two rules have the name 'a'",
        ),
        (
            HEAD + REST + "select:\n  rules:\n    - name: a\n      any:\n        - {field: x, inn: [1]}\n",
            "config/batches/acme.yaml:12: select.rules[0].any[0].inn: ",
        ),
        (
            HEAD + REST + "select: {rules: [{name: a, field: x, equals: [1]}]}\n",
            "select.rules[0].equals: must be true or false, a number or text, is a list",
        ),
        (
            HEAD
            + FIELDS
            + FILES
            + "destinations:\n  - {id: a, type: folder, path: x}\n  - {id: a, type: folder, path: y}\n",
            "config/batches/acme.yaml:9: destinations[1].id: 'a' stands twice in destinations",
        ),
        (
            HEAD
            + FIELDS
            + FILES
            + "destinations:\n  - id: a\n    type: folder\n    path: x\n    files: [leads, leeds]\n",
            "config/batches/acme.yaml:11: destinations[0].files[1]: there is no file 'leeds'; known: leads",
        ),
        (
            HEAD + FILES + DESTINATIONS + "fields:\n  - {to: A, from: a}\n  - {to: A, from: b}\n",
            "config/batches/acme.yaml:9: fields[1].to: 'A' stands twice in fields",
        ),
        (
            HEAD + FILES + DESTINATIONS + "fields:\n  - {to: A, form: a}\n",
            "config/batches/acme.yaml:8: fields[0].form: this key is not known here; allowed: concat, default, from,",
        ),
        (
            HEAD
            + FIELDS
            + DESTINATIONS
            + "files:\n  - name: '{{ delivry.date }}.csv'\n    format: {type: csv}\n",
            "config/batches/acme.yaml:8: files[0].name: template line 1: unknown variable 'delivry'",
        ),
        (
            HEAD
            + FIELDS
            + DESTINATIONS
            + "files:\n  - name: a.csv\n    id: Leads\n    format: {type: csv}\n",
            "config/batches/acme.yaml:9: files[0].id: must be lower case letters, digits and _, starting with a letter, is 'Leads'",
        ),
        (
            HEAD + REST + "timezone: America/New_Yrok\n",
            "timezone: 'America/New_Yrok' is no time zone; did you mean 'America/New_York'?",
        ),
        (
            HEAD + REST + "claim_lease: 5\n",
            "claim_lease: must be a number with s, m, h or d behind it, such as 90s, 15m, 2h or 3d, is 5",
        ),
        (HEAD.replace("name: Acme, daily", "name: ''") + REST, "name: needs at least 1 character, is ''"),
        (HEAD.replace("[auto]", "[]") + REST, "flows: needs at least 1 item"),
    ],
)
def test_a_fault_is_told_with_file_line_key_value_and_what_is_allowed(folder, text, told):
    folder.batch(text=text)

    (line,) = folder.complaints()

    assert line.startswith("config/batches/acme.yaml:")
    assert told in line


def test_all_faults_are_told_in_the_order_of_their_lines(folder):
    folder.batch(text=HEAD.replace("Acme, daily", "5") + REST + "priority: 0\nretry: {factor: 0}\ntags: x\n")

    told = folder.complaints()

    assert [line.split(": ")[0] for line in told] == [f"config/batches/acme.yaml:{n}" for n in (1, 8, 9, 10)]


def test_a_fault_is_told_in_the_file_that_it_came_from(folder):
    folder.write("defaults.yaml", "tags: [a]\nretry:\n  factor: 99\n")
    folder.write(
        "recipients/acme.yaml",
        "name: Acme\ncontacts:\n  - {nam: Robin}\nbatch:\n  priority: 0\n  retry: {attempts: 99}\n",
    )
    folder.batch(text=HEAD + REST + "retry: {first_delay: soon}\n")

    told = [line.split(": ")[:2] for line in folder.complaints()]

    assert told == [
        ["config/batches/acme.yaml:8", "retry.first_delay"],
        ["config/defaults.yaml:3", "retry.factor"],
        ["config/recipients/acme.yaml:3", "contacts[0].name"],
        ["config/recipients/acme.yaml:3", "contacts[0].nam"],
        ["config/recipients/acme.yaml:5", "batch.priority"],
        ["config/recipients/acme.yaml:6", "batch.retry.attempts"],
    ]


def test_what_a_batch_overrides_is_not_blamed_on_the_defaults(folder):
    folder.write(
        "defaults.yaml",
        "destinations:\n  - {id: a, type: folder, path: x, create: maybe}\n  - {id: b, type: nope}\n",
    )
    folder.batch(text=HEAD + REST.replace("path: out", "create: perhaps, path: out"))

    (line,) = folder.complaints()

    assert line.startswith("config/batches/acme.yaml:7: destinations[0].create: must be true or false")


def test_a_zone_that_is_wrong_is_told_once_and_where_it_stands(folder):
    folder.write("recipients/acme.yaml", "name: Acme\ntimezone: EST5EDT4\n")
    folder.batch(text=HEAD + REST)

    (line,) = folder.complaints()

    assert line.startswith("config/recipients/acme.yaml:2: timezone: 'EST5EDT4' is no time zone")


def test_a_value_from_an_anchor_is_told_where_it_is_written(folder):
    folder.batch(
        text=HEAD
        + FIELDS
        + FILES
        + "destinations:\n  - &a\n    id: a\n    type: folder\n    path: 5\n  - {<<: *a, id: b}\n"
    )

    assert [line.split(":")[1] for line in folder.complaints()] == ["11", "11"]


def test_a_fault_never_repeats_a_secret(folder):
    folder.batch(text=HEAD + REST + "priority: https://robin:hunter2hunter2@example.com/\n")

    told = folder.complaints()

    assert all("hunter2" not in line for line in told)
    assert "this looks like an address with a password in it" in told[0]


def test_long_values_are_cut(folder):
    folder.batch(text=HEAD + REST + f"empty: {'x' * 500}\n")

    (line,) = folder.complaints()

    assert len(line) < 250


@pytest.mark.req("R003")
def test_a_field_that_the_recipient_may_not_get_is_refused(folder):
    folder.write("recipients/acme.yaml", "name: Acme\nallowed_fields: [email]\n")
    folder.batch(
        text=HEAD
        + FILES
        + DESTINATIONS
        + "fields:\n  - {to: Email, from: email}\n  - {to: Phone, from: phone}\n"
    )

    assert folder.complaints() == [
        "config/batches/acme.yaml:9: fields[1]: 'phone' is not among the allowed_fields of recipient 'acme'"
    ]


@pytest.mark.req("R004")
@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("{id: a, type: folder, path: x}", "Folder"),
        ("{id: a, type: sftp, connection: x}", "Sftp"),
        ("{id: a, type: email, to: [a@example.com], subject: x, body: y}", "Email"),
        ("{id: a, type: s3, bucket: leads}", "S3"),
    ],
)
def test_the_type_of_a_destination_decides_how_it_is_delivered(folder, destination, kind):
    folder.batch(text=HEAD + FIELDS + FILES + f"destinations: [{destination}]\n")

    assert type(folder.load().destinations[0]).__name__ == kind


# --- lengths of time, and the limits of numbers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            'schedule: {at: ["09:00"], generate_before: 13h}',
            "schedule.generate_before: must be at most 12h, is '13h'",
        ),
        (
            'schedule: {at: ["09:00"], generate_before: 0m}',
            "schedule.generate_before: must be more than 0s, is '0m'",
        ),
        ('schedule: {at: ["09:00"], spread: 13h}', "schedule.spread: must be at most 12h, is '13h'"),
        (
            "conditions: {ready: {file: {path: b}, timeout: 8d}}",
            "conditions.ready.timeout: must be at most 7d, is",
        ),
        (
            "conditions: {ready: {file: {path: b}, every: 0s}}",
            "conditions.ready.every: must be at least 1s, is",
        ),
        (
            "conditions: {depart_early: {leads: 5, every: 2h}}",
            "conditions.depart_early.every: must be at most 1h, is",
        ),
        ("conditions: {max_wait: 99999999999d}", "must be at most 36500d, is '99999999999d'"),
        ("conditions: {max_wait: 36501d}", "must be at most 36500d, is '36501d'"),
        (f"conditions: {{max_wait: {'9' * 5000}d}}", "must be a number with s, m, h or d behind it"),
        ("conditions: {max_wait: ²d}", "must be a number with s, m, h or d behind it"),
    ],
)
def test_a_length_of_time_over_its_limit_is_told_as_it_would_be_written(folder, keys, told):
    head = HEAD if not keys.startswith("schedule") else HEAD.replace(HEAD.splitlines()[3] + "\n", "")
    folder.batch(text=f"{head}{REST}{keys}\n")

    (line,) = folder.complaints()

    number = len(f"{head}{REST}".splitlines()) + 1
    assert line.startswith(f"config/batches/acme.yaml:{number}: ")
    assert told in line


def limited_fields() -> list[object]:
    """Every field of every model a batch is made of that has limits, and a value beyond each of them."""
    return [
        pytest.param(model, name, limit, id=f"{model.__name__}.{name}-{type(limit).__name__}")
        for model in sorted(models_below(Batch), key=lambda one: (one.__module__, one.__qualname__))
        for name, field in model.model_fields.items()
        for limit in limits_in(field.annotation, field.metadata)
    ]


def models_below(kind: object) -> set[type[BaseModel]]:
    """Walk from a model through everything its fields may hold."""
    found: set[type[BaseModel]] = set()
    waiting = [kind]
    while waiting:
        one = waiting.pop()
        if isinstance(one, TypeAliasType):
            waiting.append(one.__value__)
        elif isinstance(one, type) and issubclass(one, BaseModel) and one not in found:
            found.add(one)
            waiting += [field.annotation for field in one.model_fields.values()]
        else:
            waiting += get_args(one)
    return found


def limits_in(kind: object, metadata: Iterable[object]) -> Iterator[object]:
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from limits_in(None, one.metadata)
        elif isinstance(one, (Ge, Gt, Le, Lt)):
            yield one
    if isinstance(kind, TypeAliasType):
        yield from limits_in(kind.__value__, ())
    elif get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        yield from limits_in(inner, more)
    elif kind is not None:
        for inner in get_args(kind):
            yield from limits_in(inner, ())


def beyond(limit: object) -> object:
    """Return what is just beyond a limit."""
    match limit:
        case Ge(ge=timedelta() as least):
            return least - timedelta(seconds=1)
        case Le(le=timedelta() as most):
            return most + timedelta(seconds=1)
        case Gt(gt=bound) | Lt(lt=bound):
            return bound
        case Ge(ge=bound):
            return bound - 1
        case Le(le=bound):
            return bound + 1
    raise AssertionError(limit)


def test_the_walk_finds_limits_of_lengths_of_time_and_of_numbers():
    found = {param.id for param in limited_fields()}

    assert {"Timed.generate_before-Le", "Timed.spread-Gt", "Ready.timeout-Le", "Retry.attempts-Ge"} <= found


@pytest.mark.parametrize(("model", "name", "limit"), limited_fields())
def test_every_limit_of_every_model_is_told_as_a_batch_file_would_have_it(model, name, limit, tmp_path):
    value = as_written(beyond(limit))
    only = create_model("Only", x=(model.model_fields[name].rebuild_annotation(), ...))

    told = [
        problem.text
        for shape in (value, [value], [value, value], {"a": value})
        for problem in faults_of(only, shape, tmp_path)
    ]

    (bound,) = astuple(limit)
    how = {Ge: "at least", Gt: "more than", Le: "at most", Lt: "less than"}[type(limit)]
    assert any(one.startswith(f"must be {how} {as_written(bound)}, is ") for one in told), told


def as_written(value: object) -> object:
    return write_duration(value) if isinstance(value, timedelta) else value


def faults_of(model, value, folder) -> list[Problem]:
    file = folder / "x.yaml"
    file.write_text(yaml.safe_dump({"x": value}))
    read = read_yaml(file, shown="x.yaml")
    try:
        model.model_validate(read.data)
    except ValidationError as refused:
        return explain(refused, [Layer(file=read)], model)
    return []
