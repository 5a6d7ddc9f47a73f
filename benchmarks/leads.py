"""Leads for the benchmarks: 15 fields of realistic lengths, made in the database from 500 sample people."""

from __future__ import annotations

import csv
import json
from typing import Any

from sqlalchemy import Connection, text

from benchmarks.measure import PROJECT
from leadferry.store.database import Database

FLOW = "auto_insurance"
_NOT_SERVED = ("AK", "HI")
_MAKES = (
    ("Ford", "F-150 SuperCrew"),
    ("Toyota", "Camry"),
    ("Chevrolet", "Silverado 1500"),
    ("Honda", "CR-V"),
)

WITHHELD = "id % 10 = 0"
"""SQL for the leads that fail a rule, by construction: every tenth, half of them by each rule."""


def samples() -> list[dict[str, Any]]:
    """Return 500 people as a car insurance form would send them; every tenth is not wanted by the benchmarks' batch."""
    with (PROJECT / "samples" / "us_500.csv").open(encoding="utf-8", newline="") as file:
        return [_sample(number, row) for number, row in enumerate(csv.DictReader(file))]


def _sample(number: int, row: dict[str, str]) -> dict[str, Any]:
    make, model = _MAKES[number % len(_MAKES)]
    state = _NOT_SERVED[number % 40 // 20] if number % 20 == 0 else row["state"]
    return {
        "first_name": f" {row['firstname'].upper()}",
        "last_name": row["lastname"],
        "email": row["email"],
        "phone_1": row["phone1"],
        "street": row["street"],
        "city": row["city"],
        "state": "CA" if number % 20 and state in _NOT_SERVED else state,
        "zip": row["zip"],
        "vehicle_year": 1996 + number % 8 if number % 20 == 10 else 2005 + number % 20,
        "vehicle_make": make,
        "vehicle_model": model,
        "currently_insured": "yes" if number % 3 else "no",
        "landing_page": "https://www.example.com/auto-insurance/quotes?src=search&campaign=autumn",
        "ip_address": f"203.0.113.{number % 256}",
        "consent": "I agree to be contacted by phone, text message and e-mail about my request.",
    }


def served_states() -> list[str]:
    """Return the states that the benchmarks' batch serves."""
    return sorted({str(one["state"]) for one in samples()} - set(_NOT_SERVED))


def add_leads(connection: Connection, count: int, *, first: int = 1, flow: str = FLOW) -> None:
    """Insert leads with ids from `first` on, a second apart, the last one an hour ago; each with an email of its own."""
    connection.execute(text("CREATE TEMPORARY TABLE sample (n int PRIMARY KEY, fields jsonb) ON COMMIT DROP"))
    connection.execute(
        text("INSERT INTO sample VALUES (:n, CAST(:fields AS jsonb))"),
        [{"n": n, "fields": json.dumps(one)} for n, one in enumerate(samples())],
    )
    connection.execute(text("ANALYZE sample"))
    connection.execute(
        text(
            "INSERT INTO lead (id, flow, received_at, fields) OVERRIDING SYSTEM VALUE"
            " SELECT id, :flow, now() - interval '1 hour' - (:last - id) * interval '1 second',"
            "        fields || jsonb_build_object('email', 'Lead' || id || '.' || (fields->>'email'))"
            " FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS id"
            " JOIN sample ON sample.n = id % 500 ORDER BY id"
        ),
        {"flow": flow, "first": first, "last": first + count - 1},
    )
    connection.execute(text("SELECT setval(pg_get_serial_sequence('lead', 'id'), max(id)) FROM lead"))


def fill(database: Database, count: int) -> None:
    """Make a store with this many new leads, in the state autovacuum would leave it in."""
    database.upgrade()
    with database.transaction() as connection:
        add_leads(connection, count)
    tidy(database)


def tidy(database: Database, *tables: str) -> None:
    """Do what autovacuum and the checkpointer do sooner or later, so that they do it in nobody's turn."""
    with database.session() as connection:
        connection.execute(text(f"VACUUM ANALYZE {', '.join(tables)}"))
        connection.execute(text("CHECKPOINT"))
