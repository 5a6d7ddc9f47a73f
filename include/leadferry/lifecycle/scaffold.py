"""A new batch file: from five groups of answers, or from a ready scenario."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files as package_files
from typing import Any

from leadferry.batch.problems import did_you_mean
from leadferry.errors import BatchConfigError

_SCENARIOS = package_files("leadferry.lifecycle") / "scenarios"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a person is asked, with what is taken when they say nothing."""

    # Basic
    name: str
    recipient: str
    flows: str = "leads"
    # Schedule
    at: str = "09:00"
    on: str = "weekdays"
    timezone: str = ""
    # File
    format: str = "csv"
    fields: str = "first_name, last_name, email, phone"
    # Delivery
    type: str = "sftp"
    connection: str = "buyer_sftp"
    to: str = "/inbound"
    # Advanced
    min_leads: int = 1
    attempts: int = 5


GROUPS: dict[str, list[str]] = {
    "Basic": ["name", "recipient", "flows"],
    "Schedule": ["at", "on", "timezone"],
    "File": ["format", "fields"],
    "Delivery": ["type", "connection", "to"],
    "Advanced": ["min_leads", "attempts"],
}
"""The questions, group by group."""

QUESTIONS: dict[str, str] = {
    "name": "Name of the batch, as people read it",
    "recipient": "Recipient: the name of a file in config/recipients/",
    "flows": "Flows whose leads it delivers, with commas between them",
    "at": "Times of departure, with commas between them",
    "on": "Days: days, weekdays, weekends, or mon, thu …",
    "timezone": "Time zone (empty: the recipient's)",
    "format": "Format of the file: csv, xlsx, json, ndjson, xml, parquet",
    "fields": "Lead fields to deliver, with commas between them",
    "type": "Destination: sftp, ftp, folder, email, s3",
    "connection": "Airflow connection of the destination (not for a folder)",
    "to": "Directory, folder or bucket; addresses for email",
    "min_leads": "Fewest leads worth a departure",
    "attempts": "How often a failed delivery is tried",
}

_PLACES: dict[str, str] = {"sftp": "directory", "ftp": "directory", "s3": "bucket", "folder": "path"}


def batch_text(answers: Answers) -> str:
    """Return a batch file, with comments, that says what was answered; disabled, so that it is tested first."""
    listed = {one: _listed(getattr(answers, one)) for one in ("flows", "at", "fields")}
    on = _listed(answers.on)
    days = on[0] if on[0] in {"days", "weekdays", "weekends"} else _flow(on)
    zone = f"\n  timezone: {answers.timezone}  # of the times above" if answers.timezone else ""
    columns = "\n".join(f"  - {{to: {_text(_label(one))}, from: {_text(one)}}}" for one in listed["fields"])
    return f"""\
# Every key: docs/reference/batch-file.md. Check with `leadferry check`, look at it with `leadferry preview`.
name: {_text(answers.name)}
recipient: {answers.recipient}
flows: {_flow(listed["flows"])}
# Nothing departs until you say `leadferry batches enable`; leads are collected from now on.
enabled: false

schedule:
  at: {_flow(listed["at"])}  # local wall-clock times
  on: {days}{zone}
conditions: {{min_leads: {answers.min_leads}}}

fields:  # the columns of the file, in this order
{columns}

files:
  - id: leads
    name: "{{{{ batch.id }}}}_{{{{ delivery.date }}}}_{{{{ delivery.number }}}}.{answers.format}"
    format: {{type: {answers.format}}}

destinations:
  - {_flow_mapping(_destination(answers))}

retry: {{attempts: {answers.attempts}}}
"""


def _destination(answers: Answers) -> dict[str, Any]:
    found: dict[str, Any] = {"id": f"{answers.recipient}_{answers.type}", "type": answers.type}
    if answers.type != "folder":
        found["connection"] = answers.connection
    if answers.type == "email":
        subject = "{{ batch.name }}, {{ delivery.date }}"
        return {**found, "to": _listed(answers.to), "subject": subject, "body": "{{ lead.count }} leads."}
    if answers.type not in _PLACES:
        near = did_you_mean(answers.type, list(_PLACES))
        raise BatchConfigError(
            f"Destination {answers.type!r} cannot be asked for here{near}",
            hint=f"Choose {', '.join(_PLACES)} or email, and change the file afterwards",
        )
    return {**found, _PLACES[answers.type]: answers.to}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] or [""]


def _label(source: str) -> str:
    return source.replace("_", " ").title()


def _text(value: str) -> str:
    """Return a scalar as it may stand in a flow mapping: JSON's strings are YAML's."""
    return json.dumps(value, ensure_ascii=False)


def _flow(values: list[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _flow_mapping(values: Mapping[str, Any]) -> str:
    told = (f"{key}: {_flow(one) if isinstance(one, list) else _text(one)}" for key, one in values.items())
    return f"{{{', '.join(told)}}}"


def answers_from(given: Mapping[str, Any], *, batch_id: str) -> Answers:
    """Return the answers with what was given instead of what is taken otherwise; the name is made of the id."""
    known = {one.name for one in fields(Answers)}
    values = {name: value for name, value in given.items() if name in known and value is not None}
    return Answers(**{"name": batch_id.replace("_", " ").capitalize(), **values})


def scenarios() -> dict[str, str]:
    """Return the ready scenarios: name → what it is for, its file's first line."""
    found = {}
    for file in sorted(_SCENARIOS.iterdir(), key=lambda one: one.name):
        if file.name.endswith(".yaml"):
            first = file.read_text(encoding="utf-8").splitlines()[0]
            found[file.name.removesuffix(".yaml")] = first.removeprefix("# ")
    return found


def scenario_text(name: str) -> str:
    """Return a scenario's batch file.

    Raises:
        BatchConfigError: there is none of this name.
    """
    known = scenarios()
    if name not in known:
        near = did_you_mean(name, list(known))
        raise BatchConfigError(f"There is no scenario {name!r}{near}", hint=f"There are {', '.join(known)}")
    return (_SCENARIOS / f"{name}.yaml").read_text(encoding="utf-8")
