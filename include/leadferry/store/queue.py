"""Single leads that must not go, and what the claim asks about them.

A *held* lead stays in the queue, out of every delivery and in its place, until a person releases it.
A *cancelled* lead is withheld for good: the next departure takes it and keeps it back, and so does every later one.
Both count for one batch or for all of them, from the moment at which the command returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    ScalarSelect,
    Text,
    any_,
    cast,
    delete,
    exists,
    func,
    literal,
    null,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.elements import CollectionAggregate

from leadferry.errors import StoreError
from leadferry.states import DeliveryState
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.routing import waiting_lots
from leadferry.store.tables import batch, delivery, lead, lead_stop, lot, queue_entry

EVERY_BATCH = 0
"""In place of a batch's number: the stop counts for all of them, also for those that come later."""


class Stop(StrEnum):
    """Why a single lead does not go."""

    HELD = "held"
    """Stays in the queue, in its place, until it is released."""
    CANCELLED = "cancelled"
    """Is withheld for good."""


_ACTIONS = {Stop.HELD: "lead.hold", Stop.CANCELLED: "lead.cancel"}


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What became of an order to stop leads."""

    new: tuple[int, ...]
    """Leads that were not stopped in this way before."""
    under_way: tuple[int, ...]
    """Leads that a delivery has taken: they leave it when it is rendered; after that, the stop counts should it fail."""


def stop(  # noqa: PLR0913  (all but three by keyword)
    database: Database,
    lead_ids: Iterable[int],
    kind: Stop,
    *,
    batch_id: str | None,
    actor: str,
    reason: str,
) -> Stopped:
    """Hold or cancel leads, all of them or none; each leaves an audit row. A second call changes nothing.

    Args:
        database: the lead store.
        lead_ids: which leads.
        kind: hold or cancel.
        batch_id: for which batch; None for all of them.
        actor: who does it.
        reason: why; stored.

    Raises:
        StoreError: the batch or a lead is not known, or a lead does not wait for the batch; nothing was stopped.
    """
    ids = sorted(set(lead_ids))
    with database.transaction() as connection:
        batch_no = _lock(connection, batch_id, ids)
        _require_known(connection, ids)
        under_way = _require_waiting(connection, ids, batch_no=batch_no, batch_id=batch_id)
        rows = [
            {"lead_id": one, "batch_no": batch_no, "kind": kind, "actor": actor, "reason": reason}
            for one in ids
        ]
        stopped = upsert(lead_stop).on_conflict_do_nothing().returning(lead_stop.c.lead_id)
        new = sorted(connection.scalars(stopped, rows))
        _audit(connection, new, _ACTIONS[kind], batch_id=batch_id, actor=actor, reason=reason)
    return Stopped(new=tuple(new), under_way=tuple(under_way))


def release(
    database: Database, lead_ids: Iterable[int], *, batch_id: str | None, actor: str, reason: str
) -> None:
    """Let held leads go again, from their old place, all of them or none; each leaves an audit row.

    Raises:
        StoreError: the batch is not known, or a lead is not held for just this; nothing was released.
    """
    ids = sorted(set(lead_ids))
    with database.transaction() as connection:
        batch_no = _lock(connection, batch_id, ids)
        mine = _among(ids) & (lead_stop.c.batch_no == batch_no) & (lead_stop.c.kind == Stop.HELD)
        released = set(connection.scalars(delete(lead_stop).where(mine).returning(lead_stop.c.lead_id)))
        if others := sorted(set(ids) - released):
            where = f"for batch {batch_id!r}" if batch_id else "for all batches"
            raise StoreError(
                f"Lead {others[0]} is not held {where}",
                hint=f"`leadferry leads show {others[0]}` says where it is held; what was cancelled stays so",
            )
        _audit(connection, ids, "lead.release", batch_id=batch_id, actor=actor, reason=reason)


def _lock(connection: Connection, batch_id: str | None, ids: Sequence[int]) -> int:
    """Lock the batches concerned against claims, so that none of them overlooks the stop; return the number to store."""
    if batch_id is None:
        has_one = exists().where(queue_entry.c.batch_no == batch.c.no, queue_entry.c.lead_id == _any(ids))
        connection.execute(select(batch.c.no).where(has_one).order_by(batch.c.no).with_for_update())
        return EVERY_BATCH
    batch_no = connection.scalar(select(batch.c.no).where(batch.c.id == batch_id).with_for_update())
    if batch_no is None:
        raise StoreError(f"No lead ever came to a batch {batch_id!r}", hint="`leadferry batches` lists them")
    return int(batch_no)


def _require_known(connection: Connection, ids: Sequence[int]) -> None:
    known = set(connection.scalars(select(lead.c.id).where(lead.c.id == _any(ids))))
    if missing := sorted(set(ids) - known):
        raise StoreError(f"There is no lead {missing[0]}", hint="Nothing was changed")


def _require_waiting(
    connection: Connection, ids: Sequence[int], *, batch_no: int, batch_id: str | None
) -> list[int]:
    """Refuse leads that a batch no longer can, or never could, deliver; return those that are in an open delivery."""
    standing = (
        select(queue_entry.c.lead_id, delivery.c.state)
        .join(lot, lot.c.id == queue_entry.c.lot_id)
        .outerjoin(delivery, delivery.c.id == lot.c.delivery_id)
        .where(queue_entry.c.lead_id == _any(ids), queue_entry.c.copy == 0)
    )
    if batch_id is not None:
        standing = standing.where(queue_entry.c.batch_no == batch_no)
    open_ = {None, DeliveryState.CLAIMED, DeliveryState.RENDERED, DeliveryState.HELD}
    found = [row for row in connection.execute(standing) if row.state in open_]
    gone = sorted(set(ids) - {row.lead_id for row in found})
    if gone and batch_id is not None:
        raise StoreError(
            f"Lead {gone[0]} does not wait for batch {batch_id!r}",
            hint=f"Nothing was changed; `leadferry leads show {gone[0]}` says where it waits and where it went",
        )
    return sorted({row.lead_id for row in found if row.state is not None})


def _audit(  # noqa: PLR0913  (all but three by keyword)
    connection: Connection,
    ids: Sequence[int],
    action: str,
    *,
    batch_id: str | None,
    actor: str,
    reason: str,
) -> None:
    for one in ids:
        detail = {"batch": batch_id, "reason": reason}
        record(connection, actor=actor, action=action, subject=f"lead {one}", detail=detail)


def _any(ids: Sequence[int]) -> CollectionAggregate[Any]:
    """Return the ids as one value: a list of many parameters is parsed anew for every length."""
    return any_(cast(literal(list(ids), ARRAY(BigInteger)), ARRAY(BigInteger)))


def _among(ids: Sequence[int]) -> ColumnElement[bool]:
    return lead_stop.c.lead_id == _any(ids)


def _concerns(batch_no: int | ColumnElement[int]) -> ColumnElement[bool]:
    """Say which stops count for the entry of the queue that the query is about."""
    mine = (lead_stop.c.batch_no == batch_no) | (lead_stop.c.batch_no == EVERY_BATCH)
    return (lead_stop.c.lead_id == queue_entry.c.lead_id) & mine


def any_waiting(connection: Connection, batch_no: int) -> bool:
    """Tell whether a lead that waits for a batch is stopped; the price grows with the number of stops."""
    stopped = exists().where(
        _concerns(batch_no),
        queue_entry.c.batch_no == batch_no,
        queue_entry.c.lot_id == lot.c.id,
        waiting_lots(batch_no),
    )
    return connection.scalar(select(stopped)) is True


def held(batch_no: int | ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition on `queue_entry` for leads that are held."""
    found = select(true()).where(_concerns(batch_no), lead_stop.c.kind == Stop.HELD)
    return found.correlate(queue_entry).exists()


def stop_reason(batch_no: int | ColumnElement[int]) -> ScalarSelect[str]:
    """Return why a lead of `queue_entry` is withheld whatever the rules say; NULL when it is not."""
    kinds = select(func.min(lead_stop.c.kind)).where(_concerns(batch_no), lead_stop.c.kind != Stop.HELD)
    return kinds.correlate(queue_entry).scalar_subquery()


def with_stops(failed_rule: ColumnElement[str] | None, batch_no: int) -> ColumnElement[str]:
    """Return why a lead is withheld: because it is stopped for good, or by the first rule that it does not meet."""
    rule = cast(null(), Text) if failed_rule is None else cast(failed_rule, Text)
    return func.coalesce(stop_reason(batch_no), rule)
