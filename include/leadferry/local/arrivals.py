"""What came of the sample batches, read from the ledger and held against the files in the receivers' inboxes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, or_, select

from leadferry.states import DeliveryState, DispatchState
from leadferry.store.database import Database
from leadferry.store.tables import batch, delivery, dispatch, file, pending


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One file at one destination, or a departure that had nothing to deliver."""

    batch_id: str
    state: str
    """State of the delivery; see `leadferry.states.DeliveryState`."""
    leads: int
    """Leads in the delivery's files."""
    file_name: str = ""
    sha256: str = ""
    """Hex digest of the file, as the ledger has it."""
    location: str = ""
    """Where the destination says the file is; empty when it did not confirm."""
    note: str = ""

    @property
    def well(self) -> bool:
        """Whether all arrived that had to, which may be nothing."""
        return self.state in {DeliveryState.DELIVERED, DeliveryState.SKIPPED}


def clock(database: Database) -> datetime:
    """Return the database's time, which the ledger's moments are written in."""
    with database.transaction() as connection:
        return connection.execute(select(func.now())).scalar_one()


def in_flight(database: Database, batch_ids: Sequence[str]) -> bool:
    """Whether a delivery of these batches is still on its way, whoever started it."""
    live = (DeliveryState.CLAIMED, DeliveryState.RENDERED)
    count = (
        select(func.count())
        .select_from(delivery.join(batch, batch.c.no == delivery.c.batch_no))
        .where(batch.c.id.in_(batch_ids), delivery.c.state.in_(live))
    )
    with database.transaction() as connection:
        return bool(connection.execute(count).scalar_one())


def arrivals(database: Database, runs: Mapping[str, str], *, since: datetime) -> list[Arrival]:
    """Return what the batches delivered since then, and one row for each that delivered nothing.

    A scheduled departure may have been quicker than the one that was asked for, or one that was interrupted earlier
    came to its end; what they delivered counts the same.

    Args:
        database: the lead store.
        runs: for each batch id the state in which its DAG run ended.
        since: what was settled earlier is left out.
    """
    found = _delivered(database, list(runs), since=since)
    waiting = _waiting(database)
    for batch_id, run_state in runs.items():
        if not any(row.batch_id == batch_id for row in found):
            found.append(_nothing(batch_id, run_state=run_state, waiting=waiting.get(batch_id, 0)))
    return sorted(found, key=lambda row: (row.batch_id, row.file_name, row.location))


def _nothing(batch_id: str, *, run_state: str, waiting: int) -> Arrival:
    if run_state != "success":
        note = f"the DAG run ended as {run_state}; its task's log says why"
        return Arrival(batch_id=batch_id, state=DeliveryState.FAILED, leads=0, note=note)
    note = (
        f"{waiting} leads wait for the next departure"
        if waiting
        else "nothing waits: all was delivered before"
    )
    return Arrival(batch_id=batch_id, state=DeliveryState.SKIPPED, leads=0, note=note)


def _delivered(database: Database, batch_ids: Sequence[str], *, since: datetime) -> list[Arrival]:
    tried = dispatch.c.state.not_in([DispatchState.READY, DispatchState.SKIPPED])
    query = (
        select(
            batch.c.id,
            delivery.c.state,
            delivery.c.included,
            delivery.c.reason,
            file.c.name,
            file.c.sha256,
            dispatch.c.receipt["location"].astext.label("location"),
            dispatch.c.error,
        )
        .select_from(
            delivery.join(batch, batch.c.no == delivery.c.batch_no)
            .outerjoin(file, file.c.delivery_id == delivery.c.id)
            .outerjoin(dispatch, (dispatch.c.file_id == file.c.id) & tried)
        )
        .where(batch.c.id.in_(batch_ids))
        .where(or_(delivery.c.claimed_at >= since, delivery.c.settled_at >= since))
        .where(delivery.c.state != DeliveryState.SKIPPED)
    )
    with database.transaction() as connection:
        rows = connection.execute(query).all()
    return [
        Arrival(
            batch_id=row.id,
            state=row.state,
            leads=row.included,
            file_name=row.name or "",
            sha256=row.sha256 or "",
            location=row.location or "",
            note=row.error or row.reason or "",
        )
        for row in rows
    ]


def _waiting(database: Database) -> dict[str, int]:
    query = (
        select(batch.c.id, func.count())
        .select_from(pending.join(batch, batch.c.no == pending.c.batch_no))
        .group_by(batch.c.id)
    )
    with database.transaction() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def in_inbox(inboxes: Path, arrival: Arrival) -> Path | None:
    """Return the file in a receiver's inbox that has this arrival's name and bytes, if there is one."""
    for path in sorted(inboxes.rglob("*")):
        if path.name == arrival.file_name and path.is_file() and _sha256(path) == arrival.sha256:
            return path
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file_object:
        return hashlib.file_digest(file_object, "sha256").hexdigest()
