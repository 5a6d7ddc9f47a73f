"""What people ask of the store: what waits, what went where, what became of this lead. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, literal, select, union
from sqlalchemy.dialects.postgresql import aggregate_order_by

from leadferry.errors import StoreError
from leadferry.states import Answer, DeliveryKind, DeliveryState, DispatchState
from leadferry.store.database import Database
from leadferry.store.ledger import Delivery, StoredFile
from leadferry.store.tables import (
    audit,
    batch,
    batch_config,
    delivery,
    delivery_lead,
    dispatch,
    file,
    lead,
    pending,
    request,
    response,
    withheld,
)

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What waits for one batch."""

    leads: int
    oldest_received_at: datetime | None
    newest_received_at: datetime | None


def queue_of(database: Database, batch_no: int) -> Queue:
    """Count what waits for a batch; route new leads first (`leadferry.store.routing.route_new_leads`)."""
    counts = select(
        func.count().label("leads"),
        func.min(pending.c.received_at).label("oldest_received_at"),
        func.max(pending.c.received_at).label("newest_received_at"),
    ).where(pending.c.batch_no == batch_no)
    with database.transaction() as connection:
        return Queue(**connection.execute(counts).mappings().one())


def batch_no(database: Database, batch_id: str) -> int | None:
    """Return the number under which the store knows a batch; None when it never had leads."""
    with database.transaction() as connection:
        return connection.scalar(select(batch.c.no).where(batch.c.id == batch_id))


_OPEN = [DeliveryState.CLAIMED, DeliveryState.RENDERED, DeliveryState.HELD]


def unsettled(database: Database, batch_id: str) -> Rows:
    """List a batch's deliveries that are under way or wait for a person."""
    query = (
        select(delivery.c.id, delivery.c.state)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(batch.c.id == batch_id, delivery.c.state.in_(_OPEN))
        .order_by(delivery.c.id)
    )
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def configs(database: Database, batch_id: str) -> Rows:
    """List the configurations with which a batch's deliveries ran, the oldest first: config, hash, since, how often."""
    query = (
        select(
            batch_config.c.config,
            batch_config.c.sha256,
            batch_config.c.first_used_at,
            func.count(delivery.c.id).label("deliveries"),
        )
        .join(batch, batch.c.no == batch_config.c.batch_no)
        .join(delivery, delivery.c.config_id == batch_config.c.id)
        .where(batch.c.id == batch_id)
        .group_by(batch_config.c.id)
        .order_by(batch_config.c.id)
    )
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def last_config(database: Database, batch_id: str) -> dict[str, Any] | None:
    """Return the configuration of a batch's last departure that did not fail; None before the first."""
    last = (
        select(batch_config.c.config)
        .join(delivery, delivery.c.config_id == batch_config.c.id)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(
            batch.c.id == batch_id,
            delivery.c.kind == DeliveryKind.DEPARTURE,
            delivery.c.state.not_in([DeliveryState.FAILED, DeliveryState.SKIPPED]),
        )
        .order_by(delivery.c.number.desc())
        .limit(1)
    )
    with database.transaction() as connection:
        return connection.scalar(last)


def has_audit(database: Database, *, action: str, subject: str, detail: Mapping[str, Any]) -> bool:
    """Tell whether somebody did this, with at least these details."""
    found = select(literal(1)).where(
        audit.c.action == action, audit.c.object == subject, audit.c.detail.contains(dict(detail))
    )
    with database.transaction() as connection:
        return connection.scalar(select(found.exists())) is True


def was_tested(database: Database, batch_id: str, config: Mapping[str, Any]) -> bool:
    """Tell whether a test delivery of exactly this configuration arrived; whether it was enabled and when it departs do not count."""
    besides = {"enabled": None, "schedule": None}
    asked = {**config, **besides}
    tested = (
        select(batch_config.c.config)
        .join(delivery, delivery.c.config_id == batch_config.c.id)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(
            batch.c.id == batch_id,
            delivery.c.kind == DeliveryKind.TEST,
            delivery.c.state == DeliveryState.DELIVERED,
        )
        .distinct()
    )
    with database.transaction() as connection:
        return any({**found, **besides} == asked for found in connection.scalars(tested))


def deliveries(database: Database, batch_id: str, *, limit: int = 20) -> Rows:
    """List a batch's newest deliveries, newest first, each with its files and how many dispatches are confirmed."""
    columns = [
        delivery.c[name]
        for name in (
            "id",
            "number",
            "state",
            "included",
            "withheld",
            "departs_at",
            "settled_at",
            "reason",
            "run_id",
        )
    ]
    newest = (
        select(*columns, _files_of(delivery.c.id), _dispatches_of(delivery.c.id), _answers_to(delivery.c.id))
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(batch.c.id == batch_id)
        .order_by(delivery.c.id.desc())
        .limit(limit)
    )
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(newest).mappings()]


def _files_of(delivery_id: ColumnElement[int]) -> ColumnElement[Any]:
    names = select(func.string_agg(file.c.name, ", ")).where(file.c.delivery_id == delivery_id)
    return names.scalar_subquery().label("files")


def _dispatches_of(delivery_id: ColumnElement[int]) -> ColumnElement[Any]:
    confirmed = func.count().filter(dispatch.c.state == "confirmed")
    counts = select(func.concat(confirmed, " of ", func.count())).where(dispatch.c.delivery_id == delivery_id)
    return counts.scalar_subquery().label("confirmed")


def _answers_to(delivery_id: ColumnElement[int]) -> ColumnElement[Any]:
    """Count the buyers' final answers: `180 accepted, 20 rejected`; NULL where no buyer answers lead by lead."""
    counts = (
        select(func.concat(func.count(), " ", response.c.outcome).label("told"), response.c.outcome)
        .join(request, request.c.id == response.c.request_id)
        .join(dispatch, dispatch.c.id == request.c.dispatch_id)
        .where(dispatch.c.delivery_id == delivery_id, response.c.outcome != Answer.RETRY)
        .group_by(response.c.outcome)
        .correlate(delivery)
        .subquery()
        .lateral()
    )
    told = func.string_agg(counts.c.told, aggregate_order_by(literal(", "), counts.c.outcome))
    return select(told).scalar_subquery().label("answers")


def dispatches(database: Database, delivery_id: int) -> Rows:
    """List what was sent where by a delivery, with the evidence or the error."""
    query = (
        select(
            dispatch.c.id,
            dispatch.c.destination,
            dispatch.c.addressee,
            dispatch.c.state,
            dispatch.c.attempts,
            file.c.id.label("file_id"),
            file.c.name.label("file"),
            file.c.rows,
            file.c.size,
            file.c.sha256,
            dispatch.c.receipt["location"].astext.label("location"),
            dispatch.c.error_code,
            dispatch.c.error,
        )
        .join(file, file.c.id == dispatch.c.file_id)
        .where(dispatch.c.delivery_id == delivery_id)
        .order_by(dispatch.c.id)
    )
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def withheld_reasons(database: Database, delivery_id: int) -> Rows:
    """Count a delivery's withheld leads by reason, most frequent first."""
    query = (
        select(withheld.c.reason, func.count().label("leads"))
        .where(withheld.c.delivery_id == delivery_id)
        .group_by(withheld.c.reason)
        .order_by(func.count().desc(), withheld.c.reason)
    )
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def lead_history(database: Database, lead_id: int) -> Rows:
    """List where a lead went and where it waits, oldest first, a row per batch and delivery.

    Raises:
        StoreError: there is no such lead.
    """
    sent = (delivery_lead.c.outcome == "included") & delivery.c.state.in_(
        [DeliveryState.DELIVERED, DeliveryState.PARTIAL]
    )
    outcome = case(
        (sent & _somebody_has_it(), literal("delivered")),
        (sent, literal("unanswered")),
        else_=delivery_lead.c.outcome,
    )
    went = (
        select(
            batch.c.id.label("batch"),
            delivery.c.id.label("delivery"),
            outcome.label("outcome"),
            delivery_lead.c.reason,
            delivery.c.departs_at.label("at"),
        )
        .join(delivery, delivery.c.id == delivery_lead.c.delivery_id)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(delivery_lead.c.lead_id == lead_id)
        .order_by(delivery.c.id)
    )
    waits = (
        select(batch.c.id.label("batch"), pending.c.received_at.label("at"))
        .join(batch, batch.c.no == pending.c.batch_no)
        .where(pending.c.lead_id == lead_id)
        .order_by(batch.c.id)
    )
    with database.transaction() as connection:
        if connection.scalar(select(lead.c.id).where(lead.c.id == lead_id)) is None:
            raise StoreError(f"There is no lead {lead_id}")
        past = [dict(row) for row in connection.execute(went).mappings()]
        now = [
            {"batch": row.batch, "delivery": None, "outcome": "pending", "reason": None, "at": row.at}
            for row in connection.execute(waits)
        ]
    return [*past, *now]


def _somebody_has_it() -> ColumnElement[bool]:
    """Tell a lead of a delivery that a destination confirmed, or a buyer accepted, from one that still waits in it."""
    confirmed = select(literal(1)).where(
        dispatch.c.delivery_id == delivery.c.id, dispatch.c.state == DispatchState.CONFIRMED
    )
    accepted = select(literal(1)).where(
        response.c.delivery_id == delivery.c.id,
        response.c.lead_id == delivery_lead.c.lead_id,
        response.c.outcome == Answer.ACCEPTED,
    )
    return confirmed.exists() | accepted.exists()


def answers_to_lead(database: Database, lead_id: int) -> Rows:
    """List what buyers' APIs said to a lead, oldest first; an outcome `retry` was followed by another sending."""
    query = (
        select(
            response.c.at,
            batch.c.id.label("batch"),
            response.c.delivery_id.label("delivery"),
            dispatch.c.destination,
            response.c.outcome,
            response.c.status_code.label("status"),
            response.c.buyer_id,
            response.c.price,
            response.c.message,
        )
        .join(request, request.c.id == response.c.request_id)
        .join(dispatch, dispatch.c.id == request.c.dispatch_id)
        .join(delivery, delivery.c.id == response.c.delivery_id)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(response.c.lead_id == lead_id)
        .order_by(response.c.id)
    )
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def state_before(database: Database, delivery_: Delivery) -> DeliveryState | None:
    """Return how the batch's numbered delivery before this one ended; None when this one is the first, or is a test."""
    if delivery_.number is None:
        return None
    before = (
        select(delivery.c.state)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(batch.c.id == delivery_.batch_id, delivery.c.number < delivery_.number)
        .order_by(delivery.c.number.desc())
        .limit(1)
    )
    with database.transaction() as connection:
        found: DeliveryState | None = connection.scalar(before)
    return found


def needs_attention(database: Database, batch_id: str | None = None, *, limit: int = 100) -> Rows:
    """List the deliveries that a person must look at, the oldest first.

    Those that are held or partial; those that nobody works on any more, their lease being over; and any with a dispatch
    whose outcome is open although its run has ended or waits for a person.
    """
    open_ = [DeliveryState.CLAIMED, DeliveryState.RENDERED]
    overdue = delivery.c.state.in_(open_) & (delivery.c.lease_until < func.now())
    waits = delivery.c.state.in_([DeliveryState.HELD, DeliveryState.PARTIAL])
    unknown, lost = _has(DispatchState.UNKNOWN), _has(DispatchState.SENDING)
    ended = delivery.c.state.not_in(open_)
    # Both along an index of what is open, so that the price does not grow with history.
    in_doubt = [DispatchState.SENDING, DispatchState.UNKNOWN]
    candidates = union(
        select(delivery.c.id).where(
            delivery.c.state.in_([*open_, DeliveryState.HELD, DeliveryState.PARTIAL])
        ),
        select(dispatch.c.delivery_id).where(dispatch.c.state.in_(in_doubt)),
    )
    query = (
        select(
            delivery.c.id,
            batch.c.id.label("batch"),
            delivery.c.state,
            delivery.c.included,
            delivery.c.departs_at,
            delivery.c.lease_until,
            case(
                (unknown, literal("nobody can tell whether it arrived")),
                (lost, literal("it may be under way, or its sender died")),
                (overdue, literal("nobody works on it any more")),
                else_=delivery.c.reason,
            ).label("why"),
            _dispatches_of(delivery.c.id),
        )
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(delivery.c.id.in_(candidates), overdue | waits | unknown | (lost & ended))
        .order_by(delivery.c.id)
        .limit(limit)
    )
    if batch_id is not None:
        query = query.where(batch.c.id == batch_id)
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _has(state: DispatchState) -> ColumnElement[bool]:
    return exists().where(dispatch.c.delivery_id == delivery.c.id, dispatch.c.state == state)


def get_file(database: Database, file_id: int) -> StoredFile:
    """Return a file of the ledger.

    Raises:
        StoreError: there is no such file.
    """
    columns = [file.c[name] for name in StoredFile.__dataclass_fields__]
    with database.transaction() as connection:
        row = connection.execute(select(*columns).where(file.c.id == file_id)).mappings().one_or_none()
    if row is None:
        raise StoreError(
            f"There is no file {file_id}", hint="`leadferry deliveries BATCH` names the deliveries"
        )
    return StoredFile(**row)
