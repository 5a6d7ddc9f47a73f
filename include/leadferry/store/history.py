"""What people ask of the store: what waits, what went where, what became of this lead. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Double, Select, case, cast, exists, func, literal, select, union
from sqlalchemy.dialects.postgresql import aggregate_order_by

from leadferry.errors import StoreError
from leadferry.states import Answer, DeliveryKind, DeliveryState, DispatchState
from leadferry.store.database import Database
from leadferry.store.ledger import Delivery, StoredFile
from leadferry.store.tables import (
    attempt,
    audit,
    batch,
    batch_config,
    delivery,
    dispatch,
    file,
    request,
    response,
    withheld,
)

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which deliveries are asked for: those that meet all that is given."""

    batch_id: str | None = None
    recipient_id: str | None = None
    """As it was when they departed."""
    state: DeliveryState | None = None
    since: datetime | None = None
    """That departed at this moment or later; aware."""


def deliveries(database: Database, asked: Asked, *, limit: int = 20) -> Rows:
    """List the newest deliveries, newest first, each with its files and how many dispatches are confirmed."""
    names = (
        "id", "number", "kind", "state", "included", "withheld", "departs_at", "settled_at", "reason", "run_id",
    )  # fmt: skip
    conditions = _asked(asked)
    if asked.recipient_id is not None:
        conditions.append(delivery.c.config_id.in_(_configs_for(database, asked.recipient_id)))
    query = (
        select(
            batch.c.id.label("batch"),
            *(delivery.c[name] for name in names),
            _files_of(delivery.c.id),
            _dispatches_of(delivery.c.id),
            _answers_to(delivery.c.id),
        )
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(*conditions)
        .order_by(*_newest_first(asked.batch_id))
        .limit(limit)
    )
    return _read(database, query)


def _asked(asked: Asked) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if asked.batch_id is not None:
        found.append(_of_batch(asked.batch_id))
    if asked.state is not None:
        found.append(delivery.c.state == asked.state)
    if asked.since is not None:
        found.append(delivery.c.departs_at >= asked.since)
    return found


def _configs_for(database: Database, recipient_id: str) -> list[int]:
    """Return the configurations with this recipient: as values they tell the planner how many deliveries to expect."""
    recipient = batch_config.c.config["recipient"]["id"].astext
    with database.transaction() as connection:
        return list(connection.scalars(select(batch_config.c.id).where(recipient == recipient_id)))


def _of_batch(batch_id: str) -> ColumnElement[bool]:
    """Narrow deliveries down to a batch, to be sorted by `_newest_first`.

    Written as a range, so that PostgreSQL does not leave the number out of the order: it walks along the index on
    (batch_no, id) then, where it might have walked through the deliveries of all batches.
    """
    number = select(batch.c.no).where(batch.c.id == batch_id).scalar_subquery()
    return delivery.c.batch_no.between(number, number)


def _newest_first(batch_id: str | None) -> list[ColumnElement[int]]:
    newest = delivery.c.id.desc()
    return [newest] if batch_id is None else [delivery.c.batch_no.desc(), newest]


def _read(database: Database, query: Select[Any]) -> Rows:
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def delivery_row(database: Database, delivery_id: int) -> dict[str, Any]:
    """Return one delivery with the configuration that it used: `config`, its SHA-256 and its `version` in the batch.

    Raises:
        StoreError: there is no such delivery.
    """
    names = (
        "id", "number", "kind", "state", "reason", "on_hold", "run_id", "departs_at", "window_from", "window_to",
        "claimed_at", "settled_at", "included", "withheld", "left_waiting", "left_reason", "lead_order", "params",
    )  # fmt: skip
    older = batch_config.alias("older")
    version = select(func.count()).where(
        older.c.batch_no == batch_config.c.batch_no, older.c.id <= batch_config.c.id
    )
    query = (
        select(
            batch.c.id.label("batch"),
            *(delivery.c[name] for name in names),
            _seconds(delivery.c.claimed_at, delivery.c.settled_at),
            batch_config.c.config,
            batch_config.c.sha256.label("config_sha256"),
            version.correlate(batch_config).scalar_subquery().label("config_version"),
        )
        .join(batch, batch.c.no == delivery.c.batch_no)
        .join(batch_config, batch_config.c.id == delivery.c.config_id)
        .where(delivery.c.id == delivery_id)
    )
    found = _read(database, query)
    if not found:
        raise StoreError(f"There is no delivery {delivery_id}", hint="List them with `leadferry deliveries`")
    return found[0]


def _seconds(since: ColumnElement[Any], until: ColumnElement[Any]) -> ColumnElement[Any]:
    seconds = func.round(func.extract("epoch", until - since), 1)
    return cast(seconds, Double).label("seconds")


def attempts(database: Database, delivery_id: int) -> Rows:
    """List every try of a delivery's dispatches, in the order in which they began; without an end, its process died."""
    names = ("number", "worker", "started_at", "ended_at", "outcome", "error_code", "error")
    query = (
        select(
            attempt.c.dispatch_id.label("dispatch"),
            dispatch.c.destination,
            *(attempt.c[name] for name in names),
            _seconds(attempt.c.started_at, attempt.c.ended_at),
        )
        .join(dispatch, dispatch.c.id == attempt.c.dispatch_id)
        .where(dispatch.c.delivery_id == delivery_id)
        .order_by(attempt.c.id)
    )
    return _read(database, query)


def done_to(database: Database, delivery_id: int) -> Rows:
    """List what people did about a delivery: who triggered it, settled its dispatches, took copies of its files."""
    dispatches_ = select(func.concat("dispatch ", dispatch.c.id)).where(dispatch.c.delivery_id == delivery_id)
    files_ = select(func.concat("file ", file.c.id)).where(file.c.delivery_id == delivery_id)
    # The row about a trigger was written in the claim's transaction, so it has the claim's time.
    triggered = (
        (audit.c.at == select(delivery.c.claimed_at).where(delivery.c.id == delivery_id).scalar_subquery())
        & audit.c.action.in_(["delivery.trigger", "delivery.redeliver"])
        & (audit.c.detail["delivery"].as_integer() == delivery_id)
    )
    columns = [audit.c[name] for name in ("id", "at", "actor", "action", "object", "detail")]
    about = union(
        select(audit.c.id).where(audit.c.object.in_(dispatches_)),
        select(audit.c.id).where(audit.c.object.in_(files_)),
        select(audit.c.id).where(triggered),
    )
    return _read(database, select(*columns).where(audit.c.id.in_(about)).order_by(audit.c.id))


def answers_by_outcome(database: Database, delivery_id: int) -> Rows:
    """Count the buyers' final answers to a delivery's leads by destination and outcome, and add up what they pay."""
    query = (
        select(
            dispatch.c.destination,
            response.c.outcome,
            func.count().label("leads"),
            func.sum(response.c.price).label("price"),
        )
        .join(request, request.c.id == response.c.request_id)
        .join(dispatch, dispatch.c.id == request.c.dispatch_id)
        .where(dispatch.c.delivery_id == delivery_id, response.c.outcome != Answer.RETRY)
        .group_by(dispatch.c.destination, response.c.outcome)
        .order_by(dispatch.c.destination, response.c.outcome)
    )
    return _read(database, query)


def files(
    database: Database,
    *,
    delivery_id: int | None = None,
    batch_id: str | None = None,
    name: str | None = None,
    limit: int = 100,
) -> Rows:
    """List rendered files, the newest first; each argument that is given narrows it down.

    Args:
        database: the lead store.
        delivery_id: of this delivery.
        batch_id: of this batch.
        name: with exactly this name.
        limit: most rows.
    """
    names = ("id", "kind", "name", "part", "segment", "rows", "size", "sha256", "media_type", "created_at")
    query = (
        select(
            batch.c.id.label("batch"), file.c.delivery_id.label("delivery"), *(file.c[one] for one in names)
        )
        .join(delivery, delivery.c.id == file.c.delivery_id)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .order_by(file.c.id.desc())
        .limit(limit)
    )
    if delivery_id is not None:
        query = query.where(file.c.delivery_id == delivery_id)
    if batch_id is not None:
        # As many of its newest deliveries as could be needed; without this all files would be read and sorted.
        has_files = exists().where(file.c.delivery_id == delivery.c.id)
        newest = select(delivery.c.id).where(_of_batch(batch_id), has_files)
        newest = newest.order_by(*_newest_first(batch_id)).limit(limit)
        query = query.where(file.c.delivery_id.in_(newest))
    if name is not None:
        query = query.where(file.c.name == name)
    return _read(database, query)


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
            dispatch.c.receipt,
            dispatch.c.remedy,
            dispatch.c.error_code,
            dispatch.c.error,
            dispatch.c.updated_at,
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


def state_before(database: Database, delivery_: Delivery) -> DeliveryState | None:
    """Return how the batch's numbered delivery before this one ended; None when this one is the first, a test or a redelivery."""
    if delivery_.number is None or delivery_.kind is DeliveryKind.REDELIVERY:
        return None
    before = (
        select(delivery.c.state)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(batch.c.id == delivery_.batch_id, delivery.c.number < delivery_.number)
        .where(delivery.c.kind != DeliveryKind.REDELIVERY)
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
