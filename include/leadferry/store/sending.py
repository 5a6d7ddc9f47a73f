"""Dispatches on their way: the intent before a parcel is sent, the name that it gets, and the receipt or the error.

Part of the ledger; see `leadferry.store.ledger` for what its functions promise.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB

from leadferry.errors import DestinationBusyError, LeadferryError, StoreError
from leadferry.states import DeliveryState, DispatchState
from leadferry.store.database import Database
from leadferry.store.ledger import lock, longer_lease
from leadferry.store.tables import attempt, delivery, dispatch


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
        lock(connection, owner, sendable)
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
            update(delivery).where(delivery.c.id == owner).values(lease_until=longer_lease(lease))
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


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
