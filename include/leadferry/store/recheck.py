"""The last look before the files are written: what must not go any more since the claim is taken out, all at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from leadferry.states import DeliveryState
from leadferry.store import caps
from leadferry.store.database import Database
from leadferry.store.edits import as_delivered
from leadferry.store.queue import EVERY_BATCH, Stop, held, stop_reason
from leadferry.store.routing import close_lot, lots_of, new_lot
from leadferry.store.tables import delivery, lead, lead_stop, lot, queue_entry, withheld


@dataclass(frozen=True, kw_only=True)
class Rechecked:
    """What a second look at claimed leads found."""

    withheld: int
    put_back: int
    """Leads that were held since the claim: they wait again."""


def recheck(
    database: Database, delivery_id: int, *, failed_rule: ColumnElement[Any] | None = None
) -> Rechecked:
    """Take what must not go any more out of a claimed delivery, all at one moment and just before it is rendered.

    Args:
        database: the lead store.
        delivery_id: must still be `claimed`.
        failed_rule: SQL on the table `lead`, as in `Selection`: what may have changed since the claim.
    """
    with database.transaction() as connection:
        row = connection.execute(select(delivery).where(delivery.c.id == delivery_id).with_for_update()).one()
        if row.state is not DeliveryState.CLAIMED:
            return Rechecked(withheld=0, put_back=0)
        if failed_rule is None and not _any_stopped(connection, row.batch_no, delivery_id):
            return Rechecked(withheld=0, put_back=0)
        put_back = _put_back(connection, row.batch_no, delivery_id)
        kept_back = _withhold(connection, row.batch_no, delivery_id, failed_rule)
        if put_back or kept_back:
            _recount(connection, delivery_id)
    return Rechecked(withheld=kept_back, put_back=put_back)


def _any_stopped(connection: Connection, batch_no: int, delivery_id: int) -> bool:
    """Tell whether any of the leads is stopped, from the stops' side: a million leads need not be looked at for it."""
    stopped = exists().where(
        lead_stop.c.batch_no.in_([batch_no, EVERY_BATCH]),
        queue_entry.c.lead_id == lead_stop.c.lead_id,
        queue_entry.c.batch_no == batch_no,
        queue_entry.c.lot_id == lot.c.id,
        lot.c.delivery_id == delivery_id,
    )
    return connection.scalar(select(stopped)) is True


def _included(connection: Connection, delivery_id: int) -> list[ColumnElement[bool]]:
    kept_back = exists().where(
        withheld.c.delivery_id == delivery_id, withheld.c.lead_id == queue_entry.c.lead_id
    )
    return [queue_entry.c.lot_id.in_(lots_of(connection, delivery_id)), ~kept_back]


def _put_back(connection: Connection, batch_no: int, delivery_id: int) -> int:
    """Return leads that are held now to the queue; copies have no place there, and are withheld as the others."""
    which = [*_included(connection, delivery_id), queue_entry.c.copy == 0, held(batch_no)]
    ids = list(connection.scalars(select(queue_entry.c.lead_id).where(*which)))
    if not ids:
        return 0
    waiting = new_lot(connection, batch_no)
    mine = (
        queue_entry.c.batch_no == batch_no,
        queue_entry.c.copy == 0,
        queue_entry.c.lead_id == func.any(cast(literal(ids), ARRAY(BigInteger))),
    )
    connection.execute(update(queue_entry).where(*mine).values(lot_id=waiting))
    close_lot(connection, waiting)
    return len(ids)


def _withhold(
    connection: Connection, batch_no: int, delivery_id: int, failed_rule: ColumnElement[Any] | None
) -> int:
    # A copy that is held has no place in the queue to go back to.
    why = func.coalesce(stop_reason(batch_no), case((held(batch_no), literal(str(Stop.HELD)))))
    reason = why if failed_rule is None else func.coalesce(why, failed_rule)
    query = select(literal(delivery_id), queue_entry.c.lead_id, reason).where(
        *_included(connection, delivery_id), reason.is_not(None)
    )
    if failed_rule is not None:
        query = query.where(lead.c.id == queue_entry.c.lead_id)
    names = ["delivery_id", "lead_id", "reason"]
    query = as_delivered(connection, delivery_id, query)
    added = insert(withheld).from_select(names, query).returning(withheld.c.lead_id)
    return len(connection.scalars(added).all())


def _recount(connection: Connection, delivery_id: int) -> None:
    kept_back = (
        select(func.count()).where(withheld.c.delivery_id == delivery_id).correlate(None).scalar_subquery()
    )
    all_leads = (
        select(func.count())
        .select_from(queue_entry)
        .where(queue_entry.c.lot_id.in_(lots_of(connection, delivery_id)))
        .scalar_subquery()
    )
    counts = {"included": all_leads - kept_back, "withheld": kept_back}
    connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(counts))
    caps.reprice(connection, delivery_id)
