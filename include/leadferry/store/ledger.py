"""The ledger: what became of every delivery, file and dispatch, and the only way to move them on.

Every function is one transaction, may be called again after a crash, and refuses moves that are not in
`leadferry.states.MOVES` (so does the database).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB

from leadferry.errors import DestinationBusyError, LeadferryError, StoreError
from leadferry.states import DeliveryKind, DeliveryState, DispatchState, FileKind, RequestState
from leadferry.store import caps, overflow, responses
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.tables import (
    attempt,
    batch,
    batch_config,
    delivery,
    dispatch,
    file,
    lead,
    lot,
    queue_entry,
    redelivery,
    request,
    subscription,
)

REDELIVERED = "redelivered"
"""In the place of an error's code: a dispatch that is not sent any more, because a redelivery took leads of it."""


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


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """One file on its way to one destination."""

    id: int
    file_id: int
    destination: str
    addressee: str
    parcel_key: str
    remedy: str
    state: DispatchState
    attempts: int
    sent_as: str | None
    """The name that was chosen for it at a destination where its own may be taken; None before that, and elsewhere."""


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


def withhold(database: Database, delivery_id: int, reasons: Mapping[int, str]) -> None:
    """Keep leads back that the mapping could not handle.

    Args:
        database: the lead store.
        delivery_id: whose leads; must still be `claimed`.
        reasons: lead id → why.
    """
    with database.transaction() as connection:
        _lock(connection, delivery_id, {DeliveryState.CLAIMED})
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
        state = _lock(connection, delivery_id, {DeliveryState.CLAIMED, DeliveryState.RENDERED})
        if state is DeliveryState.CLAIMED:
            rows = [{"delivery_id": delivery_id, **asdict(one)} for one in files]
            connection.execute(insert(file), rows)
            ids = {(one.kind, one.key, one.part): one.id for one in _files(connection, delivery_id)}
            dispatches = [_dispatch_row(one, delivery_id, ids) for one in plan]
            connection.execute(insert(dispatch), dispatches)
            _move(connection, delivery_id, DeliveryState.RENDERED)
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


def dispatches_to(database: Database, delivery_id: int, destination: str | None = None) -> list[Dispatch]:
    """Return a delivery's dispatches, all or those to one destination."""
    columns = [dispatch.c[name] for name in Dispatch.__dataclass_fields__]
    query = select(*columns).where(dispatch.c.delivery_id == delivery_id).order_by(dispatch.c.id)
    if destination is not None:
        query = query.where(dispatch.c.destination == destination)
    with database.transaction() as connection:
        return [Dispatch(**row) for row in connection.execute(query).mappings()]


@contextmanager
def sole_sender(database: Database, parcel_key: str) -> Iterator[None]:
    """Hold the right to send this parcel for as long as this process lives and the block runs.

    PostgreSQL gives the lock back when the connection goes, so a killed sender blocks nobody,
    and a sender that is still alive, although Airflow gave up on it, keeps others out.

    Raises:
        DestinationBusyError: another process is sending this parcel now.
    """
    with database.session() as connection:
        key = func.hashtextextended(parcel_key, 0)
        if not connection.scalar(select(func.pg_try_advisory_lock(key))):
            raise DestinationBusyError(
                f"Parcel {parcel_key} is being sent by another process at this moment",
                hint="Nothing to do: the next try finds out what became of it",
            )
        yield


def begin_sending(database: Database, dispatches: Sequence[Dispatch], *, lease: timedelta) -> int:
    """Write the intent: these dispatches are `sending` from now on. Returns the number of this attempt.

    Raises:
        StoreError: the delivery was settled meanwhile (its leads may be in another one), or a dispatch is not
            `ready` or `failed`.
    """
    ids = [one.id for one in dispatches]
    # What the policy did not ask for may still be sent when the delivery counts as delivered.
    sendable = {DeliveryState.RENDERED, DeliveryState.PARTIAL, DeliveryState.DELIVERED}
    with database.transaction() as connection:
        owner = connection.scalars(
            select(dispatch.c.delivery_id).where(dispatch.c.id.in_(ids)).distinct()
        ).one()
        _lock(connection, owner, sendable)
        rows = connection.execute(
            update(dispatch)
            .where(dispatch.c.id.in_(ids), dispatch.c.state.in_([DispatchState.READY, DispatchState.FAILED]))
            .values(
                state=DispatchState.SENDING,
                attempts=dispatch.c.attempts + 1,
                error_code=None,
                error=None,
                updated_at=func.now(),
            )
            .returning(dispatch.c.id, dispatch.c.attempts)
        ).all()
        if len(rows) != len(ids):
            raise StoreError(f"Not every dispatch of parcel {dispatches[0].parcel_key} is ready to be sent")
        connection.execute(
            insert(attempt),
            [{"dispatch_id": row.id, "number": row.attempts, "worker": _worker()} for row in rows],
        )
        connection.execute(
            update(delivery).where(delivery.c.id == owner).values(lease_until=func.now() + lease)
        )
    number: int = max(row.attempts for row in rows)
    return number


def choose_name(database: Database, dispatches: Sequence[Dispatch], sent_as: str, *, number: int) -> None:
    """Write down under which name a parcel is about to be sent: after a crash it is looked for under this very name.

    Args:
        database: the lead store.
        dispatches: all of one parcel.
        sent_as: the name; free at the destination, as far as that could be seen.
        number: the attempt, as `begin_sending` returned it.

    Raises:
        StoreError: a dispatch is not `sending` by this attempt any more; nothing may be sent.
    """
    ids = [one.id for one in dispatches]
    mine = (
        dispatch.c.id.in_(ids),
        dispatch.c.attempts == number,
        dispatch.c.state == DispatchState.SENDING,
    )
    with database.transaction() as connection:
        chosen = connection.execute(update(dispatch).where(*mine).values(sent_as=sent_as))
        if chosen.rowcount != len(ids):
            raise _taken_over(dispatches[0].parcel_key, number)


def _taken_over(parcel_key: str, number: int) -> StoreError:
    return StoreError(
        f"Parcel {parcel_key} is not being sent by attempt {number} any more",
        hint="Nothing to do: another process took over and finds out what became of it",
    )


def end_sending(  # noqa: PLR0913  (all but two by keyword)
    database: Database,
    dispatches: Sequence[Dispatch],
    outcome: DispatchState,
    *,
    number: int,
    receipt: Mapping[str, Any] | None = None,
    error: LeadferryError | None = None,
) -> None:
    """Write down how sending ended: confirmed with its receipt, or failed, unknown, or ready again with the error.

    Only the attempt that is under way may say so. A sender that lost its connection to the store, and with it the
    right to send, may wake up when another one has taken over: what it says then counts for nothing.

    Args:
        database: the lead store.
        dispatches: all of one parcel.
        outcome: what became of them.
        number: the attempt, as `begin_sending` returned it.
        receipt: the evidence of a confirmation.
        error: why it was not confirmed.

    Raises:
        StoreError: a dispatch was not `sending` by this attempt, or a confirmation lacks its receipt.
    """
    ids = [one.id for one in dispatches]
    why = {"error_code": error.code if error else None, "error": str(error) if error else None}
    with database.transaction() as connection:
        ended = connection.execute(
            update(dispatch)
            .where(
                dispatch.c.id.in_(ids),
                dispatch.c.attempts == number,
                # The outcome itself: a second call, after a lost answer to the first one's commit.
                dispatch.c.state.in_([DispatchState.SENDING, outcome]),
            )
            .values(state=outcome, receipt=_first_receipt(receipt), updated_at=func.now(), **why)
        )
        if ended.rowcount != len(ids):
            raise _taken_over(dispatches[0].parcel_key, number)
        connection.execute(
            update(attempt)
            .where(attempt.c.dispatch_id.in_(ids), attempt.c.number == number, attempt.c.ended_at.is_(None))
            .values(ended_at=func.now(), outcome=outcome, **why)
        )


def note_unsent(database: Database, delivery_id: int, destination: str, error: LeadferryError) -> None:
    """Write down why nothing was even tried at a destination."""
    with database.transaction() as connection:
        connection.execute(
            update(dispatch)
            .where(dispatch.c.delivery_id == delivery_id, dispatch.c.destination == destination)
            .where(dispatch.c.state == DispatchState.READY)
            .values(error_code=error.code, error=str(error), updated_at=func.now())
        )


def _first_receipt(receipt: Mapping[str, Any] | None) -> ColumnElement[Any] | None:
    """Keep the receipt that is stored: two senders that saw the same parcel arrive may word it differently."""
    return None if not receipt else func.coalesce(dispatch.c.receipt, literal(dict(receipt), JSONB))


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """How a delivery ended, in numbers."""

    delivery_id: int
    state: DeliveryState
    included: int
    withheld: int
    returned: int
    """Leads that went back to the queue."""
    reason: str | None


def settle(database: Database, delivery_id: int, *, reason: str | None = None) -> Settlement:
    """Close a delivery by what its dispatches say, all in one transaction.

    Leads of a delivery of which nothing was confirmed go back to the queue, in their old place.
    A second call changes nothing, unless a dispatch was confirmed since.

    Raises:
        StoreError: a dispatch is still `sending`: look it up first.
    """
    with database.transaction() as connection:
        return _settle(connection, delivery_id, reason=reason)


def _settle(connection: Connection, delivery_id: int, *, reason: str | None = None) -> Settlement:
    state = _lock(connection, delivery_id, set(DeliveryState))
    _skip_unneeded(connection, delivery_id)
    target = _target_state(connection, delivery_id, state)
    returned = 0
    if target is state is DeliveryState.DELIVERED:
        _tell_why(connection, delivery_id)
    if target is not state:
        reason = reason or _why(connection, delivery_id)
        if target is DeliveryState.FAILED:
            returned = _give_back(connection, delivery_id)
            reason = reason or "no file was rendered, see the log of the failed task"
        elif target is not DeliveryState.HELD:
            overflow.pass_on(connection, delivery_id)
        _move(connection, delivery_id, target, reason=reason, ends=True)
    return _settlement(connection, delivery_id, returned=returned)


def _settlement(connection: Connection, delivery_id: int, *, returned: int = 0) -> Settlement:
    row = connection.execute(select(delivery).where(delivery.c.id == delivery_id)).one()
    return Settlement(
        delivery_id=delivery_id,
        state=row.state,
        included=row.included,
        withheld=row.withheld,
        returned=returned,
        reason=row.reason,
    )


def _target_state(connection: Connection, delivery_id: int, state: DeliveryState) -> DeliveryState:
    if state in {DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.SKIPPED}:
        return state
    states = set(connection.scalars(select(dispatch.c.state).where(dispatch.c.delivery_id == delivery_id)))
    if DispatchState.SENDING in states:
        raise StoreError(
            f"Delivery {delivery_id} cannot be settled while a dispatch is 'sending'",
            hint="Clear the task deliver of that destination: it looks up what arrived",
        )
    if DispatchState.UNKNOWN in states:
        # Once partial, the leads count as delivered, whatever the answer will be.
        return DeliveryState.PARTIAL if state is DeliveryState.PARTIAL else DeliveryState.HELD
    if connection.scalar(select(func.policy_met(delivery_id))):
        return DeliveryState.DELIVERED
    # A buyer's API that answered for some leads has those: none of the delivery may travel again by another.
    somebody_has_some = DispatchState.CONFIRMED in states or responses.has_answers(connection, delivery_id)
    return DeliveryState.PARTIAL if somebody_has_some else DeliveryState.FAILED


def _why(connection: Connection, delivery_id: int) -> str | None:
    """Name the destinations that did not confirm, with their error class; not those that were not needed."""
    replaced = dispatch.c.state == DispatchState.SKIPPED
    rows = connection.execute(
        select(dispatch.c.destination, dispatch.c.error_code, replaced.label("replaced"))
        .where(dispatch.c.delivery_id == delivery_id, dispatch.c.state != DispatchState.CONFIRMED)
        .where(~replaced | dispatch.c.error_code.is_not(None))
        .distinct()
        .order_by(dispatch.c.destination)
    )
    return ", ".join(f"{row.destination}: {_what_happened(row)}" for row in rows) or None


def _what_happened(row: Row[Any]) -> str:
    if row.error_code == REDELIVERED:
        return "its leads were redelivered"
    return f"{row.error_code or 'not sent'}{', its fallback has it' if row.replaced else ''}"


def _tell_why(connection: Connection, delivery_id: int) -> None:
    """Bring the reason of a delivered delivery up to date: a destination that was not required may have confirmed."""
    why = _why(connection, delivery_id)
    connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(reason=why))


def skip_unneeded(database: Database, delivery_id: int) -> None:
    """Mark what no longer needs to be sent, because another destination of the way has it, as `skipped`.

    Call it before a fallback is used, so that it brings only what did not arrive at the destination that it replaces.
    """
    with database.transaction() as connection:
        _lock(connection, delivery_id, set(DeliveryState))
        _skip_unneeded(connection, delivery_id)


def _skip_unneeded(connection: Connection, delivery_id: int) -> None:
    connection.execute(_UNNEEDED, {"delivery": delivery_id})


_UNNEEDED = text(
    """
    WITH one AS (
        SELECT dispatch.*, file.kind, file.key, file.part
        FROM dispatch JOIN file ON file.id = file_id WHERE dispatch.delivery_id = :delivery
    ), arrived AS (
        SELECT way, destination, file_id, key, part FROM one WHERE kind = 'leads'
        GROUP BY way, destination, file_id, key, part HAVING bool_and(state = 'confirmed')
    ), elsewhere AS (  -- each destination with the files of leads that another one of its way has
        SELECT DISTINCT one.way, one.destination, arrived.file_id, arrived.key, arrived.part
        FROM one JOIN arrived USING (way) WHERE arrived.destination <> one.destination
    ), with_leads AS (
        SELECT DISTINCT way, file_id FROM one WHERE kind = 'leads'
    ), still_to_bring AS (
        SELECT DISTINCT one.way, one.destination FROM one JOIN with_leads USING (way) WHERE NOT EXISTS (
            SELECT FROM elsewhere WHERE (elsewhere.way, elsewhere.destination, elsewhere.file_id)
                = (one.way, one.destination, with_leads.file_id))
    )
    UPDATE dispatch SET state = 'skipped', updated_at = now() FROM one
    WHERE dispatch.id = one.id AND one.state IN ('ready', 'failed') AND (
        one.way IN (SELECT * FROM served_ways(:delivery))
        OR EXISTS (  -- the file of leads itself, and the checksum of such a file
            SELECT FROM elsewhere WHERE (elsewhere.way, elsewhere.destination) = (one.way, one.destination)
            AND (one.kind = 'leads' AND elsewhere.file_id = one.file_id
                 OR one.kind = 'checksum' AND (elsewhere.key, elsewhere.part) = (one.key, one.part)))
        OR one.kind NOT IN ('leads', 'checksum')  -- what only accompanies the leads
            AND (one.way, one.destination) NOT IN (SELECT way, destination FROM still_to_bring))
    """
)


def _give_back(connection: Connection, delivery_id: int) -> int:
    """Return the leads to the queue, the withheld ones too: the next departure decides anew.

    Copies and made-up leads are not given back: they never were in the queue.
    """
    overflow.forget(connection, delivery_id)
    _drop_unwanted(connection, delivery_id)
    connection.execute(
        update(lot)
        .where(lot.c.delivery_id == delivery_id, lot.c.returns)
        .values(delivery_id=None, returned_from=delivery_id)
    )
    row = connection.execute(
        select(delivery.c.included, delivery.c.withheld, delivery.c.kind).where(delivery.c.id == delivery_id)
    ).one()
    # Leads that went again never were in the queue: their copies stay with the delivery that failed.
    copies = select(func.count()).select_from(queue_entry).join(lot, lot.c.id == queue_entry.c.lot_id)
    stay: int = connection.scalars(copies.where(lot.c.delivery_id == delivery_id, ~lot.c.returns)).one()
    returned: int = row.included + row.withheld - stay
    return returned


def _drop_unwanted(connection: Connection, delivery_id: int) -> None:
    """Take leads of flows that the batch no longer listens to out of the delivery; they come back with their flow."""
    listened = select(subscription.c.flow).where(subscription.c.batch_no == delivery.c.batch_no)
    flows = func.jsonb_array_elements_text(batch_config.c.config["flows"]).table_valued("value")
    gone = (
        select(flows.c.value)
        .select_from(delivery)
        .join(batch_config, batch_config.c.id == delivery.c.config_id)
        .join(flows, literal(True))  # noqa: FBT003  (ON true: a lateral join)
        .where(delivery.c.id == delivery_id, flows.c.value.not_in(listened.correlate(delivery)))
    )
    if removed := list(connection.scalars(gone)):
        mine = select(lot.c.id).where(lot.c.delivery_id == delivery_id, lot.c.returns)
        connection.execute(
            delete(queue_entry).where(
                queue_entry.c.lot_id.in_(mine), lead.c.id == queue_entry.c.lead_id, lead.c.flow.in_(removed)
            )
        )


def skip(database: Database, delivery_id: int, *, reason: str) -> None:
    """Close a claimed delivery of which no lead is left to go: all were withheld, and stay so."""
    with database.transaction() as connection:
        _lock(connection, delivery_id, {DeliveryState.CLAIMED})
        overflow.pass_on(connection, delivery_id)
        _move(connection, delivery_id, DeliveryState.SKIPPED, reason=reason, ends=True)


def recover_stale(database: Database) -> list[int]:
    """Give back the leads of deliveries that nobody works on any more; return the deliveries' ids.

    A delivery is stale when its lease is over. It is left alone while one of its dispatches is `sending`,
    `unknown` or `confirmed`, or a buyer answered some of its requests: those must be looked up or settled first,
    lest a lead travels twice.
    """
    in_doubt = [DispatchState.SENDING, DispatchState.UNKNOWN, DispatchState.CONFIRMED]
    doubtful = select(literal(1)).where(
        dispatch.c.delivery_id == delivery.c.id, dispatch.c.state.in_(in_doubt)
    )
    answered = (
        select(literal(1))
        .join(dispatch, dispatch.c.id == request.c.dispatch_id)
        .where(dispatch.c.delivery_id == delivery.c.id, request.c.state == RequestState.ANSWERED)
    )
    stale = (
        select(delivery.c.id)
        .where(
            delivery.c.state.in_([DeliveryState.CLAIMED, DeliveryState.RENDERED]),
            delivery.c.lease_until < func.now(),
            ~doubtful.exists(),
            ~answered.exists(),
        )
        .with_for_update(skip_locked=True)
    )
    with database.transaction() as connection:
        ids = list(connection.scalars(stale))
        for delivery_id in ids:
            _give_back(connection, delivery_id)
            reason = "nobody worked on it any more; its lease was over"
            _move(connection, delivery_id, DeliveryState.FAILED, reason=reason, ends=True)
    return ids


def resolve(
    database: Database, dispatch_id: int, outcome: DispatchState, *, actor: str, reason: str
) -> Settlement:
    """Say for an `unknown` dispatch whether it arrived, and settle its delivery if it was held for that.

    All in one transaction: an answer is never half given. A delivery whose tasks still run is left to them.

    Args:
        database: the lead store.
        dispatch_id: the dispatch that waits for a person.
        outcome: CONFIRMED or FAILED.
        actor: who says so.
        reason: how they know; stored.

    Raises:
        StoreError: there is no such dispatch, or it is not `unknown`.
    """
    receipt = {"location": "confirmed by a person", "details": {"actor": actor, "reason": reason}}
    with database.transaction() as connection:
        row = connection.execute(
            select(dispatch)
            .where(dispatch.c.id == dispatch_id, dispatch.c.state == DispatchState.UNKNOWN)
            .with_for_update()
        ).one_or_none()
        if row is None:
            raise StoreError(f"Dispatch {dispatch_id} is not waiting for a decision")
        parcel = [
            dispatch.c.delivery_id == row.delivery_id,
            dispatch.c.parcel_key == row.parcel_key,
            dispatch.c.state == DispatchState.UNKNOWN,
        ]
        ids = connection.scalars(select(dispatch.c.id).where(*parcel)).all()
        state = responses.resolve(connection, ids, outcome, reason=reason)
        connection.execute(
            update(dispatch)
            .where(*parcel)
            .values(
                state=state,
                receipt=receipt if state is DispatchState.CONFIRMED else None,
                updated_at=func.now(),
            )
        )
        record(
            connection,
            actor=actor,
            action=f"dispatch.{outcome}",
            subject=f"dispatch {dispatch_id}",
            detail={"reason": reason, "parcel_key": row.parcel_key},
        )
        if _lock(connection, row.delivery_id, set(DeliveryState)) is DeliveryState.RENDERED:
            return _settlement(connection, row.delivery_id)
        return _settle(connection, row.delivery_id)


def _lock(connection: Connection, delivery_id: int, allowed: set[DeliveryState]) -> DeliveryState:
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


def _move(
    connection: Connection,
    delivery_id: int,
    target: DeliveryState,
    *,
    reason: str | None = None,
    ends: bool = False,
) -> None:
    values: dict[str, Any] = {"state": target}
    if ends:
        values |= {"reason": reason, "settled_at": func.now()}
    connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(values))


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
