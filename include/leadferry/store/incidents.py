"""Incidents: what went wrong with a batch, from when to when, and who was told; and since when batches are watched.

An incident is told once when it begins and once when it is over, however often somebody looks meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, RowMapping, case, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.store.database import Database
from leadferry.store.tables import incident, watched


class Kind(StrEnum):
    """What is wrong."""

    BROKEN = "broken"
    """The batch's file cannot be loaded, so nothing departs."""
    MISSING = "missing"
    """A departure was due, and there is no delivery."""
    LATE = "late"
    """A delivery was begun and is not settled in time."""
    DOUBT = "doubt"
    """Nobody works on a delivery any more, and what became of it could not be found out."""
    HELD = "held"
    """A delivery waits for a person."""
    DEPTH = "depth"
    """Too many leads wait."""
    AGE = "age"
    """A lead waits for too long."""
    OVER = "over"
    """Leads wait for a batch whose schedule is over."""
    KEY_EXPIRES = "key_expires"
    """A key will soon be of no use."""
    KEY_UNUSABLE = "key_unusable"
    """A key or password cannot be used; the next delivery will fail."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong at the moment."""

    batch: str
    """The batch's id."""
    kind: Kind
    since: datetime
    detail: str
    """What is wrong and what to do, in sentences; no lead's data."""


@dataclass(frozen=True, kw_only=True)
class Incident(Finding):
    """Something that was wrong when somebody looked, and still is unless it recovered."""

    id: int
    noticed_at: datetime
    told_at: datetime | None
    recovered_at: datetime | None
    recovery_told_at: datetime | None


@contextmanager
def sole_watcher(database: Database) -> Iterator[None]:
    """Look one at a time, so that nobody is told twice: waits until another look is over."""
    with database.session() as connection:
        key = func.hashtextextended("leadferry watch", 0)
        connection.execute(select(func.pg_advisory_lock(key)))
        yield


def record(database: Database, findings: Sequence[Finding], *, now: datetime) -> None:
    """Open an incident for each finding that has none, and end those that were not found any more.

    An incident that goes on keeps its beginning and its text. Of several findings of one batch and kind the first counts.
    """
    found: dict[tuple[str, str], Finding] = {}
    for one in findings:
        found.setdefault((one.batch, one.kind), one)
    with database.transaction() as connection:
        known = {(one.batch, one.kind): one for one in _open(connection)}
        if fresh := [one for key, one in found.items() if key not in known]:
            connection.execute(insert(incident), [_row(one, now) for one in fresh])
        if over := [one.id for key, one in known.items() if key not in found]:
            connection.execute(update(incident).where(incident.c.id.in_(over)).values(recovered_at=now))


def _row(finding: Finding, now: datetime) -> dict[str, Any]:
    return {
        "batch": finding.batch,
        "kind": finding.kind.value,
        "since": finding.since,
        "detail": finding.detail,
        "noticed_at": now,
    }


def _open(connection: Connection) -> list[Incident]:
    query = select(incident).where(incident.c.recovered_at.is_(None)).order_by(incident.c.id)
    return [_incident(row) for row in connection.execute(query).mappings()]


def _incident(row: RowMapping) -> Incident:
    values: dict[str, Any] = dict(row)
    return Incident(**{**values, "kind": Kind(values["kind"])})


def open_incidents(database: Database) -> list[Incident]:
    """Return what is wrong as far as it was noticed, the oldest first."""
    with database.transaction() as connection:
        return _open(connection)


def latest(database: Database, *, limit: int) -> list[Incident]:
    """Return the newest incidents, open or over, newest first."""
    with database.transaction() as connection:
        query = select(incident).order_by(incident.c.id.desc()).limit(limit)
        return [_incident(row) for row in connection.execute(query).mappings()]


def untold(database: Database) -> list[Incident]:
    """Return what nobody was told of yet: incidents that began, and ends of incidents that were told, oldest first.

    What was over before anybody could be told is left out.
    """
    begun = incident.c.told_at.is_(None) & incident.c.recovered_at.is_(None)
    ended = (
        incident.c.told_at.is_not(None)
        & incident.c.recovered_at.is_not(None)
        & incident.c.recovery_told_at.is_(None)
    )
    with database.transaction() as connection:
        query = select(incident).where(or_(begun, ended)).order_by(incident.c.id)
        return [_incident(row) for row in connection.execute(query).mappings()]


def told(database: Database, incidents: Sequence[Incident], *, now: datetime) -> None:
    """Write down that people were told of these: of their beginning or, where they are over, of their end."""
    begun = [one.id for one in incidents if one.recovered_at is None]
    ended = [one.id for one in incidents if one.recovered_at is not None]
    with database.transaction() as connection:
        connection.execute(update(incident).where(incident.c.id.in_(begun)).values(told_at=now))
        connection.execute(update(incident).where(incident.c.id.in_(ended)).values(recovery_told_at=now))


def watch_schedules(
    database: Database, schedules: Mapping[str, str], *, now: datetime
) -> dict[str, datetime]:
    """Note the schedules of all batches; return since when each is as it is, as far as somebody looked.

    Args:
        database: the lead store.
        schedules: batch id → hash of all that decides when it departs.
        now: what counts for a batch that is new, or whose schedule has changed; aware.
    """
    if not schedules:
        return {}
    rows = [
        {"batch": one, "schedule_sha256": sha256, "since": now, "seen_at": now}
        for one, sha256 in sorted(schedules.items())
    ]
    statement = upsert(watched).values(rows)
    fresh = statement.excluded
    same = watched.c.schedule_sha256 == fresh.schedule_sha256
    statement = statement.on_conflict_do_update(
        index_elements=[watched.c.batch],
        set_={
            "since": case((same, watched.c.since), else_=fresh.since),
            "schedule_sha256": fresh.schedule_sha256,
            "seen_at": fresh.seen_at,
        },
    )
    with database.transaction() as connection:
        done = connection.execute(statement.returning(watched.c.batch, watched.c.since))
        return {row.batch: row.since for row in done}


def last_look(database: Database) -> datetime | None:
    """Return when somebody looked last; None before the first time."""
    with database.transaction() as connection:
        seen_at: datetime | None = connection.scalar(select(func.max(watched.c.seen_at)))
        return seen_at


def last_departures(database: Database) -> dict[str, Mapping[str, Any]]:
    """Return of every batch the delivery that departed last (no tests, no early copies), by the batch's id."""
    query = text(
        """
        SELECT batch.id AS batch, last.id, last.number, last.state::text AS state, last.reason, last.departs_at,
               last.settled_at, last.included
        FROM batch CROSS JOIN LATERAL (
            SELECT * FROM delivery WHERE batch_no = batch.no AND kind = 'departure'
            ORDER BY departs_at DESC, delivery.id DESC LIMIT 1) AS last
        """
    )
    with database.transaction() as connection:
        return {row["batch"]: dict(row) for row in connection.execute(query).mappings()}


@dataclass(frozen=True, kw_only=True)
class Unsettled:
    """A delivery that is under way, abandoned, or waits for a person."""

    id: int
    batch: str
    run_id: str
    state: str
    departs_at: datetime
    lease_until: datetime
    settled_at: datetime | None
    """When it began to wait for a person; None for what is under way."""
    reason: str | None
    """Until when it waits and why; None when it does not."""
    sending: list[str]
    """Destinations to which something may be under way."""
    unknown: list[int]
    """Dispatches of which nobody can tell whether they arrived."""
    config: dict[str, Any]
    """What was frozen when it took its leads."""


def unsettled(database: Database) -> list[Unsettled]:
    """Return all deliveries that are not settled, tests left out, the oldest first."""
    query = text(
        """
        SELECT d.id, batch.id AS batch, d.run_id, d.state::text AS state, d.departs_at, d.lease_until, d.settled_at,
               d.reason, ARRAY(SELECT DISTINCT destination FROM dispatch WHERE delivery_id = d.id AND state = 'sending'
                     ORDER BY destination) AS sending,
               ARRAY(SELECT id FROM dispatch WHERE delivery_id = d.id AND state = 'unknown' ORDER BY id) AS unknown,
               batch_config.config
        FROM (SELECT * FROM delivery WHERE state IN ('claimed', 'rendered')
              UNION ALL SELECT * FROM delivery WHERE state = 'held') AS d
        JOIN batch ON batch.no = d.batch_no JOIN batch_config ON batch_config.id = d.config_id
        WHERE d.kind <> 'test' ORDER BY d.id
        """
    )
    with database.transaction() as connection:
        return [Unsettled(**row) for row in connection.execute(query).mappings()]


def abandoned(database: Database) -> list[int]:
    """Return the deliveries whose lease is over although they are under way, the oldest first."""
    query = text(
        "SELECT id FROM delivery WHERE state IN ('claimed', 'rendered') AND lease_until < now() ORDER BY id"
    )
    with database.transaction() as connection:
        return list(connection.scalars(query))
