"""How a delivery ends: by what became of its dispatches, or by a person's word; where nothing arrived, its leads go back.

Part of the ledger; see `leadferry.store.ledger` for what its functions promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, literal, select, text, update

from leadferry.errors import StoreError
from leadferry.states import DeliveryState, DispatchState, RequestState
from leadferry.store import overflow, responses
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.ledger import lock, move
from leadferry.store.routing import lock_subscriptions
from leadferry.store.tables import (
    batch_config,
    delivery,
    dispatch,
    lead,
    lot,
    queue_entry,
    request,
    subscription,
)

REDELIVERED = "redelivered"
"""In the place of an error's code: a dispatch that is not sent any more, because a redelivery took leads of it."""


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
    state = lock(connection, delivery_id, set(DeliveryState))
    _skip_unneeded(connection, delivery_id)
    target = _target_state(connection, delivery_id, state)
    returned = 0
    if target is state and state not in {DeliveryState.FAILED, DeliveryState.SKIPPED}:
        _tell_why(connection, delivery_id)
    if target is not state:
        reason = reason or _why(connection, delivery_id)
        if target is DeliveryState.FAILED:
            returned = _give_back(connection, delivery_id)
            reason = reason or "no file was rendered, see the log of the failed task"
        elif target is not DeliveryState.HELD:
            overflow.pass_on(connection, delivery_id)
        move(connection, delivery_id, target, reason=reason, ends=True)
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
    """Bring the reason of a settled delivery up to date: it may have waited since, or a destination have confirmed."""
    why = _why(connection, delivery_id)
    connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(reason=why))


def skip_unneeded(database: Database, delivery_id: int) -> None:
    """Mark what no longer needs to be sent, because another destination of the way has it, as `skipped`.

    Call it before a fallback is used, so that it brings only what did not arrive at the destination that it replaces.
    """
    with database.transaction() as connection:
        lock(connection, delivery_id, set(DeliveryState))
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
    lock_subscriptions(connection)  # a routing adds or removes flows, and looks only at leads that wait
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
        lock(connection, delivery_id, {DeliveryState.CLAIMED})
        overflow.pass_on(connection, delivery_id)
        move(connection, delivery_id, DeliveryState.SKIPPED, reason=reason, ends=True)


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
            move(connection, delivery_id, DeliveryState.FAILED, reason=reason, ends=True)
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
        if lock(connection, row.delivery_id, set(DeliveryState)) is DeliveryState.RENDERED:
            return _settlement(connection, row.delivery_id)
        return _settle(connection, row.delivery_id)
