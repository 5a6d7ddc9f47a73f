"""The ledger: every delivery, its files and what is to be sent of them where.

`sending` and `settling` go on from there. Every function of the three is one transaction, may be called again after a
crash, and refuses moves that are not in `leadferry.states.MOVES` (so does the database).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, text, update

from leadferry.errors import StoreError
from leadferry.states import DeliveryKind, DeliveryState, DispatchState, FileKind
from leadferry.store import caps
from leadferry.store.database import Database
from leadferry.store.tables import batch, batch_config, delivery, dispatch, file, redelivery

WAITS = "waits until "
"""How the reason of a delivery begins that is ready, but not to be sent yet."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery with the configuration that was frozen when it took its leads."""

    id: int
    batch_id: str
    number: int | None
    run_id: str
    kind: DeliveryKind
    state: DeliveryState
    reason: str | None
    on_hold: bool
    departs_at: datetime
    window_from: datetime | None
    window_to: datetime
    included: int
    withheld: int
    params: dict[str, Any]
    """What a person asked for."""
    config: dict[str, Any]
    mark: str = ""
    """Of a redelivery, what its names are marked with: `R1` for the first, and so on; else empty."""


@dataclass(frozen=True, kw_only=True)
class RenderedFile:
    """A complete file in the archive, before it is in the ledger."""

    kind: FileKind = FileKind.LEADS
    key: str
    part: int
    name: str
    sha256: str
    size: int
    rows: int
    media_type: str
    archive_key: str
    segment: str = ""
    """The value that its leads share; empty where the file is not divided by one."""
    members: Sequence[Mapping[str, Any]] = field(default=(), hash=False)
    """Of a bundle, the files inside: `name`, `key`, `part`, `rows`, `size`, `sha256` each."""


@dataclass(frozen=True, kw_only=True)
class StoredFile(RenderedFile):
    """A file of the ledger."""

    id: int
    delivery_id: int


@dataclass(frozen=True, kw_only=True)
class PlannedDispatch:
    """That a file is to go to a destination (and addressee)."""

    file_kind: FileKind = FileKind.LEADS
    file_key: str
    file_part: int = 1
    destination: str
    way: str | None = None
    """The destination that is tried first, where this one is a fallback; otherwise itself."""
    addressee: str
    parcel_key: str
    remedy: str = ""
    """What was done because the mail would have been too large: zip, split, link; empty where it is not."""


def get_delivery(database: Database, delivery_id: int) -> Delivery:
    """Return a delivery.

    Raises:
        StoreError: there is none with this id.
    """
    with database.transaction() as connection:
        row = (
            connection.execute(
                select(
                    delivery,
                    batch.c.id.label("batch_id"),
                    batch_config.c.config,
                    func.coalesce(redelivery.c.mark, "").label("mark"),
                )
                .join(batch, batch.c.no == delivery.c.batch_no)
                .join(batch_config, batch_config.c.id == delivery.c.config_id)
                .outerjoin(redelivery, redelivery.c.delivery_id == delivery.c.id)
                .where(delivery.c.id == delivery_id)
            )
            .mappings()
            .one_or_none()
        )
    if row is None:
        raise StoreError(
            f"There is no delivery {delivery_id}", hint="List them with `leadferry deliveries BATCH`"
        )
    return Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__})


def delivery_of_run(database: Database, *, batch_id: str, run_id: str) -> int:
    """Return the delivery that belongs to an Airflow run; the newest, should the run have been cleared.

    Raises:
        StoreError: the run claimed nothing.
    """
    with database.transaction() as connection:
        found = connection.scalar(
            select(delivery.c.id)
            .join(batch, batch.c.no == delivery.c.batch_no)
            .where(batch.c.id == batch_id, delivery.c.run_id == run_id)
            .order_by(delivery.c.id.desc())
            .limit(1)
        )
    if found is None:
        raise StoreError(
            f"Run {run_id} of batch {batch_id!r} has no delivery: its first task, extract, claimed nothing",
            hint="See the log of extract; no lead left the queue",
        )
    delivery_id: int = found
    return delivery_id


def extend_lease(database: Database, delivery_id: int, lease: timedelta) -> None:
    """Say that somebody works on this delivery, so that its leads are not given back meanwhile."""
    with database.transaction() as connection:
        connection.execute(
            update(delivery).where(delivery.c.id == delivery_id).values(lease_until=func.now() + lease)
        )


def longer_lease(lease: timedelta) -> ColumnElement[datetime]:
    """Return until when a delivery keeps its leads for one of its destinations: another one may need them longer."""
    return func.greatest(delivery.c.lease_until, func.now() + lease)


def note_wait(database: Database, delivery_id: int, lease: timedelta, *, reason: str) -> None:
    """Extend the lease of a delivery that waits although it could go on, and let people read why."""
    values = {"lease_until": longer_lease(lease), "reason": f"{WAITS}{reason}"}
    with database.transaction() as connection:
        connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(values))


def go_on(database: Database, delivery_id: int) -> None:
    """Say that a delivery does not wait any more; nothing changes when it did not."""
    waits = (delivery.c.id == delivery_id) & delivery.c.reason.startswith(WAITS, autoescape=True)
    with database.transaction() as connection:
        connection.execute(update(delivery).where(waits).values(reason=None))


def withhold(database: Database, delivery_id: int, reasons: Mapping[int, str]) -> None:
    """Keep leads back that the mapping could not handle.

    Args:
        database: the lead store.
        delivery_id: whose leads; must still be `claimed`.
        reasons: lead id → why.
    """
    with database.transaction() as connection:
        lock(connection, delivery_id, {DeliveryState.CLAIMED})
        kept_back = connection.execute(
            text(
                "INSERT INTO withheld (delivery_id, lead_id, reason)"
                " SELECT :delivery, why.lead_id, why.reason"
                " FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[])) AS why (lead_id, reason)"
                " JOIN delivery_lead mine ON mine.delivery_id = :delivery AND mine.lead_id = why.lead_id"
                " ON CONFLICT DO NOTHING"
            ),
            {"ids": list(reasons), "reasons": list(reasons.values()), "delivery": delivery_id},
        ).rowcount
        connection.execute(
            update(delivery)
            .where(delivery.c.id == delivery_id)
            .values(included=delivery.c.included - kept_back, withheld=delivery.c.withheld + kept_back)
        )
        caps.reprice(connection, delivery_id)


def record_files(
    database: Database, delivery_id: int, files: Sequence[RenderedFile], plan: Sequence[PlannedDispatch]
) -> list[StoredFile]:
    """Write down that all files are complete, and what is to be sent where; the delivery is now `rendered`.

    A second call, after a crash between the commit and its answer, changes nothing and returns the stored files.
    """
    with database.transaction() as connection:
        state = lock(connection, delivery_id, {DeliveryState.CLAIMED, DeliveryState.RENDERED})
        if state is DeliveryState.CLAIMED:
            rows = [{"delivery_id": delivery_id, **asdict(one)} for one in files]
            connection.execute(insert(file), rows)
            ids = {(one.kind, one.key, one.part): one.id for one in _files(connection, delivery_id)}
            dispatches = [_dispatch_row(one, delivery_id, ids) for one in plan]
            connection.execute(insert(dispatch), dispatches)
            move(connection, delivery_id, DeliveryState.RENDERED)
        return _files(connection, delivery_id)


def _dispatch_row(
    plan: PlannedDispatch, delivery_id: int, ids: Mapping[tuple[FileKind, str, int], int]
) -> dict[str, Any]:
    return {
        "delivery_id": delivery_id,
        "file_id": ids[plan.file_kind, plan.file_key, plan.file_part],
        "destination": plan.destination,
        "way": plan.way or plan.destination,
        "addressee": plan.addressee,
        "parcel_key": plan.parcel_key,
        "remedy": plan.remedy,
        "state": DispatchState.READY,
    }


def stored_files(database: Database, delivery_id: int) -> list[StoredFile]:
    """Return the files of a delivery, in the order in which they were recorded."""
    with database.transaction() as connection:
        return _files(connection, delivery_id)


def _files(connection: Connection, delivery_id: int) -> list[StoredFile]:
    columns = [file.c[name] for name in StoredFile.__dataclass_fields__]
    query = select(*columns).where(file.c.delivery_id == delivery_id).order_by(file.c.id)
    return [StoredFile(**row) for row in connection.execute(query).mappings()]


def lock(connection: Connection, delivery_id: int, allowed: set[DeliveryState]) -> DeliveryState:
    """Lock a delivery until the transaction ends and return its state, which must be one of `allowed`."""
    row: Row[Any] | None = connection.execute(
        select(delivery.c.state).where(delivery.c.id == delivery_id).with_for_update()
    ).one_or_none()
    if row is None:
        raise StoreError(f"There is no delivery {delivery_id}")
    state: DeliveryState = row.state
    if state not in allowed:
        raise gone_too_far(delivery_id, state)
    return state


def gone_too_far(delivery_id: int, state: DeliveryState) -> StoreError:
    """Return the error for a step that comes too late for a delivery in this state."""
    hint = {
        DeliveryState.HELD: "Say whether it arrived: `leadferry dispatch confirm|fail ID --reason TEXT`",
        DeliveryState.FAILED: "Its leads are back in the queue; trigger the DAG, or clear the whole run, extract included",
    }.get(state, "Nothing to do: `leadferry deliveries BATCH` shows what became of it")
    return StoreError(f"Delivery {delivery_id} is {state} and can go no further", hint=hint)


def move(
    connection: Connection,
    delivery_id: int,
    target: DeliveryState,
    *,
    reason: str | None = None,
    ends: bool = False,
) -> None:
    """Write down that a locked delivery is in another state from now on, and with `ends` that it is settled."""
    values: dict[str, Any] = {"state": target}
    if ends:
        values |= {"reason": reason, "settled_at": func.now()}
    connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(values))
