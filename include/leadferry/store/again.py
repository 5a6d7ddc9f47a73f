"""Leads that go again: a batch that delivers more than what is new, such as the whole stock or what changed in it.

Leads that went before keep their place in the delivery that took them first; they go again as copies, which never come
back into the queue. What the recipient knows of a lead is the hash of the last version that was sent (`lead_version`),
so the cost of these modes grows with what the batch ever delivered.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on

from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.routing import close_lot, new_lot
from leadferry.store.selection import Selection
from leadferry.store.tables import delivery, lead, lead_version, lot, queue_entry, withheld

_ADDED, _CHANGED, _REMOVED = "added", "changed", "removed"


def went_before(batch_no: int, selection: Selection) -> Select[Any]:
    """Return the entries of leads that may go again, joined with their leads."""
    known = (
        select(queue_entry.c.lead_id, queue_entry.c.received_at)
        .join_from(delivery, lot, lot.c.delivery_id == delivery.c.id)
        .join(queue_entry, queue_entry.c.lot_id == lot.c.id)
        .join(lead, lead.c.id == queue_entry.c.lead_id)
        .where(
            delivery.c.batch_no == batch_no,
            delivery.c.kind != DeliveryKind.TEST,
            delivery.c.state != DeliveryState.FAILED,
            queue_entry.c.copy == 0,
        )
    )
    if selection.mode != "cumulative":
        return known
    out = exists().where(withheld.c.delivery_id == delivery.c.id, withheld.c.lead_id == queue_entry.c.lead_id)
    return known.where(~out)


def keep_what_is_due(connection: Connection, candidate: Table, batch_no: int, selection: Selection) -> None:
    """Drop judged leads that do not go again: they fail a rule now, or nothing about them changed.

    Leads that wait and are withheld stay, to be recorded.
    """
    if selection.mode == "changed":
        _compare(connection, candidate, batch_no, selection)
    connection.execute(delete(candidate).where(candidate.c.again, candidate.c.reason.is_not(None)))


def _compare(connection: Connection, candidate: Table, batch_no: int, selection: Selection) -> None:
    """Say of each judged lead what is new about it."""
    version = cast(null(), Uuid) if selection.version_of is None else selection.version_of
    connection.execute(update(candidate).where(candidate.c.lead_id == lead.c.id).values(version=version))
    sent = _sent(candidate, batch_no)
    had = and_(sent.c.lead_id.is_not(None), sent.c.change != _REMOVED)
    passes = candidate.c.reason.is_(None)
    change = case(
        (and_(passes, func.coalesce(~had, literal(True))), _ADDED),  # noqa: FBT003
        (and_(passes, sent.c.version.is_distinct_from(candidate.c.version)), _CHANGED),
        (and_(~passes, had), _REMOVED),
    )
    found = (
        select(candidate.c.lead_id, change.label("change"))
        .outerjoin_from(candidate, sent, sent.c.lead_id == candidate.c.lead_id)
        .subquery()
    )
    connection.execute(
        update(candidate)
        .where(candidate.c.lead_id == found.c.lead_id)
        .values(
            change=found.c.change,
            # The recipient must hear of it, whatever the lead fails.
            reason=case(
                (and_(candidate.c.again, found.c.change == _REMOVED), cast(null(), Text)),
                else_=candidate.c.reason,
            ),
        )
    )
    unchanged = and_(candidate.c.again, candidate.c.change.is_(None))
    connection.execute(delete(candidate).where(unchanged))


def _sent(candidate: Table, batch_no: int) -> CTE:
    """Return the version of each lead that the recipient has, or had before it was told to remove it."""
    return (
        select(lead_version.c.lead_id, lead_version.c.version, lead_version.c.change)
        .ext(distinct_on(lead_version.c.lead_id))
        .join(delivery, delivery.c.id == lead_version.c.delivery_id)
        .join(candidate, candidate.c.lead_id == lead_version.c.lead_id)
        .where(
            lead_version.c.batch_no == batch_no,
            delivery.c.state.not_in([DeliveryState.FAILED, DeliveryState.SKIPPED]),
            ~exists().where(
                withheld.c.delivery_id == lead_version.c.delivery_id,
                withheld.c.lead_id == lead_version.c.lead_id,
            ),
        )
        .order_by(lead_version.c.lead_id, lead_version.c.delivery_id.desc())
        .cte("sent")
    )


def send_again(
    connection: Connection, candidate: Table, batch_no: int, delivery_id: int, *, mode: str
) -> None:
    """Put copies of the leads that go again into a delivery, and note which version of each lead goes."""
    going = select(candidate.c.lead_id).where(candidate.c.again, candidate.c.reason.is_(None))
    if connection.scalar(select(going.exists())):
        _copy(connection, candidate, batch_no, delivery_id)
    if mode == "changed":
        versions = select(
            literal(delivery_id),
            candidate.c.lead_id,
            literal(batch_no),
            candidate.c.change,
            candidate.c.version,
        ).where(candidate.c.reason.is_(None))
        names = ["delivery_id", "lead_id", "batch_no", "change", "version"]
        connection.execute(insert(lead_version).from_select(names, versions))


def _copy(connection: Connection, candidate: Table, batch_no: int, delivery_id: int) -> None:
    copies = new_lot(connection, batch_no, delivery_id=delivery_id)
    connection.execute(update(lot).where(lot.c.id == copies).values(returns=False))
    last = (
        select(func.max(queue_entry.c.copy) + 1)
        .where(queue_entry.c.lead_id == candidate.c.lead_id, queue_entry.c.batch_no == batch_no)
        .correlate(candidate)
        .scalar_subquery()
    )
    entries = select(
        literal(batch_no), candidate.c.lead_id, last, literal(copies), candidate.c.received_at
    ).where(candidate.c.again, candidate.c.reason.is_(None))
    names = ["batch_no", "lead_id", "copy", "lot_id", "received_at"]
    connection.execute(insert(queue_entry).from_select(names, entries))
    close_lot(connection, copies)


def change_in(delivery_id: int) -> ColumnElement[str]:
    """Return SQL on the table `lead` for what a delivery says of it: added, changed or removed."""
    told = (
        select(lead_version.c.change)
        .where(lead_version.c.delivery_id == delivery_id, lead_version.c.lead_id == lead.c.id)
        .correlate(lead)
        .scalar_subquery()
    )
    return func.coalesce(told, _ADDED)
