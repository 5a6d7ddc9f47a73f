"""The batch that the benchmarks deliver: 13 columns, 2 rules, 3 transforms; and the same in plain SQL."""

from __future__ import annotations

from typing import Any

from benchmarks.leads import FLOW, WITHHELD, served_states
from leadferry.batch.model import Batch

SOURCES = {
    "First Name": "first_name",
    "Last Name": "last_name",
    "Email": "email",
    "Phone": "phone_1",
    "Street": "street",
    "City": "city",
    "State": "state",
    "ZIP": "zip",
    "Year": "vehicle_year",
    "Make": "vehicle_make",
    "Model": "vehicle_model",
    "Insured": "currently_insured",
    "Submitted": "received_at",
}
"""Column → where its value comes from."""

_TRANSFORMS: dict[str, list[Any]] = {
    "First Name": ["trim", "title"],
    "Email": ["lower"],
    "Submitted": [{"date": "%m/%d/%Y"}],
}
_PHONE: dict[str, list[Any]] = {"Phone": [{"phone": {"region": "US", "format": "e164"}}]}


def make_batch(*, phone: bool = False, dedupe: bool = False) -> Batch:
    """Return the batch; with `phone` also with the most costly transform there is, with `dedupe` without duplicates."""
    transforms = {**_TRANSFORMS, **(_PHONE if phone else {})}
    return Batch.model_validate(
        {
            "id": "benchmark",
            "name": "Benchmark",
            "recipient": {"id": "buyer", "name": "Buyer", "timezone": "UTC"},
            "timezone": "UTC",
            "flows": [FLOW],
            "schedule": "manual",
            "select": {
                "rules": [
                    {"name": "served_states", "field": "state", "in": served_states()},
                    {"name": "car_not_too_old", "field": "vehicle_year", "at_least": 2005},
                ],
                "dedupe": {"by": ["email"], "within": "forever"} if dedupe else None,
            },
            "fields": [
                {"to": label, "from": name, "transform": transforms.get(label, [])}
                for label, name in SOURCES.items()
            ],
            "files": [{"name": "leads.csv", "format": {"type": "csv"}}],
            "destinations": [{"id": "drop", "type": "folder", "path": "/nowhere"}],
        }
    )


def columns_sql(**replaced: str) -> str:
    """Return the 13 columns as SQL, some of them replaced by other expressions; keys are lead fields."""
    plain = {name: f"fields->>'{name}'" for name in SOURCES.values()} | {"received_at": "received_at"}
    return ", ".join(f'{(plain | replaced)[name]} AS "{label}"' for label, name in SOURCES.items())


def copy_sql() -> str:
    """Return the query of the yardstick: the same columns of the same leads, nothing else.

    The leads are told by their ids, which costs next to nothing; judging the rules is our price alone.
    """
    return f"SELECT {columns_sql()} FROM lead WHERE NOT {WITHHELD}"


def rules_sql() -> str:
    """Return the two rules as somebody would write them by hand."""
    states = ", ".join(f"'{state}'" for state in served_states())
    return f"fields->>'state' IN ({states}) AND CAST(fields->>'vehicle_year' AS int) >= 2005"
