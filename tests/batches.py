"""Batches, leads and departures for tests, in one line each. All people are invented."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import null, text

from leadferry.batch.model import Batch
from leadferry.delivery.extract import Trigger, selection_of
from leadferry.delivery.params import DeliverNow
from leadferry.mapping.rule_sql import failed_rule
from leadferry.mapping.sources import source
from leadferry.store import claim as claiming
from leadferry.store.claim import Departure, Selection
from leadferry.store.leads import read_leads
from leadferry.store.tables import lead

DEPARTS_AT = datetime(2026, 1, 30, 14, 0, tzinfo=UTC)
"""When deliveries depart, unless a test says otherwise."""

EMAIL_FIELD = {"to": "Email", "from": "email"}


def make_batch(**keys):
    """A valid batch that writes one CSV into the folder `/nowhere`; every key of a batch file may be changed."""
    return Batch.model_validate(
        {
            "id": "acme",
            "name": "Acme, daily",
            "recipient": {"id": "buyer", "name": "Acme"},
            "flows": ["auto"],
            "schedule": "manual",
            "fields": [{"to": "Lead", "from": "id"}, EMAIL_FIELD],
            "files": [{"name": "{{ batch.id }}_{{ delivery.number }}.csv", "format": {"type": "csv"}}],
            "destinations": [folder("/nowhere")],
            **keys,
        }
    )


def folder(path, *, id="drop", **keys):  # noqa: A002 the key in the batch file
    return {"id": id, "type": "folder", "path": str(path), **keys}


def trigger(run_id="run-1", **keys):
    return Trigger(run_id=run_id, departs_at=DEPARTS_AT, **keys)


def add_leads(database, count=1, *, flow="auto", received_at=None, fields=None):
    """Insert leads one minute apart, the last one at `received_at` (by default an hour before the database's now)."""
    statement = text(
        "INSERT INTO lead (flow, received_at, fields)"
        " SELECT :flow, coalesce(CAST(:at AS timestamptz), now() - interval '1 hour')"
        "        - (:count - n) * interval '1 minute',"
        "        jsonb_build_object('email', 'lead' || n || '@example.com', 'n', n) || CAST(:fields AS jsonb)"
        " FROM generate_series(1, :count) AS n RETURNING id"
    )
    values = {"flow": flow, "at": received_at, "count": count, "fields": json.dumps(fields or {})}
    with database.transaction() as connection:
        return list(connection.scalars(statement, values))


def departure(run_id="run-1", **keys):
    config = keys.pop("config", {"columns": ["Email"]})
    sha256 = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    values = {"batch_id": "acme", "departs_at": DEPARTS_AT, "flows": ["auto"], **keys}
    return Departure(run_id=run_id, config=config, config_sha256=sha256, **values)


def selection(*, rules=(), **keys):
    """Which leads go; rules as they are written in a batch file."""
    if not rules:
        return Selection(failed_rule=null(), **keys)
    parsed = make_batch(select={"rules": list(rules)}).select.rules
    return Selection(failed_rule=failed_rule(parsed, lead, timezone="UTC"), **keys)


def claim(database, run_id="run-1", **keys):
    """Claim for a run; the keywords are those of the departure and of the selection."""
    going = {name: keys.pop(name) for name in Departure.__dataclass_fields__ if name in keys}
    return claiming.claim(database, departure(run_id, **going), selection(**keys))


def depart(database, batch, run_id="run-1", *, at=None, **params):
    """Claim for a batch as its DAG would, at the moment that the store's clock is said to show."""
    chosen = replace(selection_of(batch, DeliverNow(**params)), window_to=at)
    config = batch.model_dump(mode="json")
    going = {"batch_id": batch.id, "flows": batch.flows, "config": config}
    return claiming.claim(database, departure(run_id, **going), chosen)


def scalars(database, statement, **values):
    with database.transaction() as connection:
        return list(connection.scalars(text(statement), values))


def rows(database, statement, **values):
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def execute(database, statement, **values):
    with database.transaction() as connection:
        return connection.execute(text(statement), values).rowcount


def waiting(database, batch_id="acme"):
    """The ids of the leads in a batch's queue, in their order."""
    return scalars(
        database,
        "SELECT lead_id FROM pending JOIN batch ON no = batch_no WHERE batch.id = :batch ORDER BY received_at, lead_id",
        batch=batch_id,
    )


def carried(database, delivery_id):
    """The ids of the leads that go into a delivery's files, in the order of the files."""
    frames = read_leads(database, delivery_id, {"id": source("id", lead)})
    return [int(one) for frame in frames for one in frame["id"]]


def kept_back(database, delivery_id):
    """The leads that a delivery withheld, with the reason."""
    return dict(
        rows(database, "SELECT lead_id, reason FROM withheld WHERE delivery_id = :id", id=delivery_id)
    )


def until_someone_waits(database, *, number=1, unless=None):
    """Return as soon as so many transactions wait for locks that others hold, or a task of a pool is done that should."""
    with database.session() as connection:
        waiting_backends = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while connection.scalar(waiting_backends) < number and not (unless and unless.done()):
            pass
