"""What is beyond a cap with `overflow: next` goes into the queue of another batch, once it is certain not to go here.

Certain is it when the delivery that left it behind is settled, or when nothing departed at all. Should that delivery fail,
its leads come back to their own queue, and are nobody else's.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Table, delete, insert, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.store.routing import close_lot, new_lot
from leadferry.store.tables import batch, lead, passed_on, queue_entry


def plan_to_pass_on(
    connection: Connection, candidate: Table, delivery_id: int, targets: Mapping[str, str]
) -> None:
    """Note which withheld leads of a delivery are for which other batch.

    Args:
        connection: inside the claim's transaction.
        candidate: the judged leads.
        delivery_id: whose leads.
        targets: cap's name → batch id.
    """
    for name, batch_id in targets.items():
        connection.execute(upsert(batch).values(id=batch_id).on_conflict_do_nothing())
        number = connection.scalars(select(batch.c.no).where(batch.c.id == batch_id)).one()
        beyond = select(literal(delivery_id), candidate.c.lead_id, literal(number)).where(
            candidate.c.reason == name
        )
        names = ["delivery_id", "lead_id", "batch_no"]
        connection.execute(insert(passed_on).from_select(names, beyond))


def pass_on(connection: Connection, delivery_id: int) -> int:
    """Put those leads into the other queues, those aside that are or were there; return how many.

    A second call does nothing.
    """
    mine = passed_on.c.delivery_id == delivery_id
    found = 0
    for number in connection.scalars(select(passed_on.c.batch_no).where(mine).distinct()).all():
        waiting = new_lot(connection, number)
        entries = (
            select(passed_on.c.batch_no, lead.c.id, literal(waiting), lead.c.received_at)
            .join_from(passed_on, lead, lead.c.id == passed_on.c.lead_id)
            .where(mine, passed_on.c.batch_no == number)
        )
        names = ["batch_no", "lead_id", "lot_id", "received_at"]
        connection.execute(upsert(queue_entry).from_select(names, entries).on_conflict_do_nothing())
        found += close_lot(connection, waiting)
    return found


def forget(connection: Connection, delivery_id: int) -> None:
    """Leave to the failed delivery's batch what would have been passed on."""
    connection.execute(delete(passed_on).where(passed_on.c.delivery_id == delivery_id))
