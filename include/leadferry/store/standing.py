"""Single leads: which there are, where each stands in every batch, what was done with it. Reads only.

All of it goes from the lead outwards, along the keys that begin with its id: the price is that of the leads shown.
Only looking for leads by what is in them reads every lead, unless the field has an index of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Text,
    any_,
    case,
    cast,
    exists,
    func,
    literal,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.sql.selectable import LateralFromClause

from leadferry.errors import StoreError
from leadferry.states import Answer, DeliveryState, DispatchState, FileKind
from leadferry.store.database import Database
from leadferry.store.queue import held, stop_reason
from leadferry.store.tables import (
    audit,
    batch,
    delivery,
    delivery_lead,
    dispatch,
    file,
    lead,
    lead_stop,
    lot,
    queue_entry,
    request,
    response,
)

Rows = list[dict[str, Any]]


class Outcome(StrEnum):
    """Where a lead stands in a batch, or what became of it there."""

    PENDING = "pending"
    """It waits and may go."""
    HELD = "held"
    """It waits, and a person holds it."""
    CANCELLED = "cancelled"
    """It waits, and the next departure withholds it."""
    INCLUDED = "included"
    """It is in the files of a delivery that is not settled."""
    FAILED = "failed"
    """It went as a copy or for a test, and its delivery failed; leads of the queue went back there."""
    DELIVERED = "delivered"
    """A destination confirmed its delivery, or the buyer accepted it."""
    UNANSWERED = "unanswered"
    """Its delivery is settled, but nobody confirmed or accepted this lead."""
    WITHHELD = "withheld"
    """A delivery kept it back."""
    REJECTED = "rejected"
    """The buyer does not want it."""
    DUPLICATE = "duplicate"
    """The buyer had it before."""
    INCOMPLETE = "incomplete"
    """The buyer needs more data."""


def _standing() -> LateralFromClause:
    """Return, beside a row of the table `lead`, its places in all batches: one row for each delivery or queue."""
    return union_all(_past(), _present()).lateral("standing")


def _past() -> Select[Any]:
    settled = delivery.c.state.in_([DeliveryState.DELIVERED, DeliveryState.PARTIAL])
    included = delivery_lead.c.outcome == Outcome.INCLUDED.value
    sent = included & settled
    outcome = case(
        (sent & _somebody_has_it(), _word(Outcome.DELIVERED)),
        (sent, _word(Outcome.UNANSWERED)),
        (included & (delivery.c.state == DeliveryState.FAILED), _word(Outcome.FAILED)),
        else_=delivery_lead.c.outcome,
    )
    return (
        select(
            delivery_lead.c.lead_id,
            batch.c.id.label("batch"),
            delivery.c.id.label("delivery"),
            delivery.c.kind,
            delivery.c.state,
            outcome.label("outcome"),
            delivery_lead.c.reason,
            delivery.c.departs_at.label("at"),
        )
        .join(delivery, delivery.c.id == delivery_lead.c.delivery_id)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(delivery_lead.c.lead_id == lead.c.id)
        .correlate(lead)
    )


def _present() -> Select[Any]:
    outcome = case(
        (stop_reason(queue_entry.c.batch_no).is_not(None), _word(Outcome.CANCELLED)),
        (held(queue_entry.c.batch_no), _word(Outcome.HELD)),
        else_=_word(Outcome.PENDING),
    )
    return (
        select(
            queue_entry.c.lead_id,
            batch.c.id,
            null(),
            null(),
            null(),
            outcome,
            null(),
            queue_entry.c.received_at,
        )
        .join(lot, lot.c.id == queue_entry.c.lot_id)
        .join(batch, batch.c.no == queue_entry.c.batch_no)
        .where(lot.c.delivery_id.is_(None), queue_entry.c.lead_id == lead.c.id)
        .correlate(lead)
    )


def _word(outcome: Outcome) -> ColumnElement[str]:
    return literal(outcome.value, Text)


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


def standings(database: Database, lead_ids: Sequence[int]) -> dict[int, Rows]:
    """Return where leads went and where they wait, for each of them oldest first and what waits last."""
    place = _standing()
    query = (
        select(place)
        .select_from(lead)
        .join(place, true())
        .where(lead.c.id == _any(lead_ids))
        .order_by(place.c.lead_id, place.c.delivery.nulls_last(), place.c.batch)
    )
    found: dict[int, Rows] = {one: [] for one in lead_ids}
    with database.transaction() as connection:
        for row in connection.execute(query).mappings():
            found[row["lead_id"]].append({name: row[name] for name in row if name != "lead_id"})
    return found


def _any(ids: Sequence[int]) -> ColumnElement[Any]:
    return any_(cast(literal(list(ids), ARRAY(BigInteger)), ARRAY(BigInteger)))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which leads are looked for: those that meet all that is given."""

    fields: Mapping[str, str] = field(default_factory=dict)
    """Name of a field → its whole value, in any case; `external_id` is your own id."""
    flow: str | None = None
    since: datetime | None = None
    """Received from this moment on; aware."""
    until: datetime | None = None
    """Received before this moment; aware."""
    batch_id: str | None = None
    """Leads that wait for this batch or were in one of its deliveries."""
    outcome: Outcome | None = None
    """Leads that stand so in the batch, or in any."""


def find_leads(database: Database, wanted: Wanted, *, limit: int) -> Rows:
    """Return the newest leads that are wanted, each with its fields (mask them) and its `standing`."""
    query = select(lead.c.id, lead.c.flow, lead.c.external_id, lead.c.received_at, lead.c.fields)
    query = query.where(*_conditions(wanted)).order_by(lead.c.id.desc()).limit(limit)
    with database.transaction() as connection:
        found = [dict(row) for row in connection.execute(query).mappings()]
    places = standings(database, [row["id"] for row in found])
    return [{**row, "standing": places[row["id"]]} for row in found]


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    found = [_has_value(name, value) for name, value in wanted.fields.items()]
    if wanted.flow is not None:
        found.append(lead.c.flow == wanted.flow)
    if wanted.since is not None:
        found.append(lead.c.received_at >= wanted.since)
    if wanted.until is not None:
        found.append(lead.c.received_at < wanted.until)
    if wanted.batch_id is not None:
        in_batch = exists().where(
            queue_entry.c.lead_id == lead.c.id,
            queue_entry.c.batch_no == batch.c.no,
            batch.c.id == wanted.batch_id,
        )
        found.append(in_batch)
    if wanted.outcome is not None:
        place = _standing()
        stands = select(literal(1)).select_from(place).where(place.c.outcome == wanted.outcome.value)
        if wanted.batch_id is not None:
            stands = stands.where(place.c.batch == wanted.batch_id)
        found.append(stands.correlate(lead).exists())
    return found


def _has_value(name: str, value: str) -> ColumnElement[bool]:
    if name == "external_id":
        return lead.c.external_id == value
    # Written as in the docs' CREATE INDEX, so that such an index is used.
    return func.lower(lead.c.fields[name].astext) == value.lower()


def _require(database: Database, lead_id: int) -> dict[str, Any]:
    query = select(lead.c.id, lead.c.flow, lead.c.received_at).where(lead.c.id == lead_id)
    with database.transaction() as connection:
        row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise StoreError(f"There is no lead {lead_id}", hint="`leadferry leads search` finds leads")
    return dict(row)


def story_of(database: Database, lead_id: int) -> dict[str, Any]:
    """Tell all that became of a lead, without what is in it.

    `history` has a row per batch and delivery, each with the `files` that the lead is in (or in one part of), the
    `dispatches` of those files with their receipt or error, and the buyers' `answers`. Beside it stand the `stops`
    that count for the lead, and the `audit` rows about it.

    Raises:
        StoreError: there is no such lead.
    """
    about = _require(database, lead_id)
    history = standings(database, [lead_id])[lead_id]
    carried = [one["delivery"] for one in history if one["outcome"] != Outcome.WITHHELD and one["delivery"]]
    files, sent = _files(database, carried), _dispatches(database, carried)
    answers = answers_to_lead(database, lead_id)
    for one in history:
        for name, rows in (("files", files), ("dispatches", sent), ("answers", answers)):
            one[name] = [row for row in rows if row["delivery"] == one["delivery"]]
    return {
        **about,
        "stops": _stops(database, lead_id),
        "history": history,
        "audit": _done(database, lead_id),
    }


def _files(database: Database, deliveries: Sequence[int]) -> Rows:
    columns = [file.c[name] for name in ("id", "name", "part", "segment", "rows", "size", "sha256")]
    query = select(file.c.delivery_id.label("delivery"), *columns).where(
        file.c.delivery_id == _any(deliveries), file.c.kind == FileKind.LEADS
    )
    return _read(database, query.order_by(file.c.id))


def _dispatches(database: Database, deliveries: Sequence[int]) -> Rows:
    query = (
        select(
            dispatch.c.delivery_id.label("delivery"),
            dispatch.c.id,
            dispatch.c.file_id,
            dispatch.c.destination,
            dispatch.c.addressee,
            dispatch.c.state,
            dispatch.c.attempts,
            dispatch.c.receipt,
            dispatch.c.error_code,
            dispatch.c.error,
            dispatch.c.updated_at,
        )
        .join(file, file.c.id == dispatch.c.file_id)
        .where(dispatch.c.delivery_id == _any(deliveries), file.c.kind == FileKind.LEADS)
    )
    return _read(database, query.order_by(dispatch.c.id))


def _stops(database: Database, lead_id: int) -> Rows:
    columns = [lead_stop.c[name] for name in ("kind", "reason", "actor", "at")]
    query = select(batch.c.id.label("batch"), *columns).select_from(lead_stop)
    query = query.outerjoin(batch, batch.c.no == lead_stop.c.batch_no).where(lead_stop.c.lead_id == lead_id)
    return _read(database, query.order_by(lead_stop.c.at, lead_stop.c.batch_no))


def _done(database: Database, lead_id: int) -> Rows:
    columns = [audit.c[name] for name in ("at", "actor", "action", "detail")]
    query = select(*columns).where(audit.c.object == f"lead {lead_id}").order_by(audit.c.id)
    return _read(database, query)


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
    return _read(database, query)


def _read(database: Database, query: Select[Any]) -> Rows:
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
