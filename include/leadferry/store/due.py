"""Which of the waiting leads a departure looks at: received within its window, not held, not in their quiet hours.

The claim takes these and leaves the others where they are; whoever asks beforehand how many may go asks the same.
What is withheld (by a rule, as a duplicate, because it was cancelled) is looked at: it leaves the queue with the departure.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select

from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.queue import held
from leadferry.store.routing import waiting_lots
from leadferry.store.tables import delivery, lead, lot, queue_entry


def due(
    batch_no: int, *, window_to: datetime, must_wait: ColumnElement[bool] | None, has_stops: bool
) -> list[ColumnElement[bool]]:
    """Return the conditions on `queue_entry`, joined with the lots, and with the leads where these are asked about.

    Args:
        batch_no: whose queue.
        window_to: leads received from here on stay; aware.
        must_wait: SQL on the table `lead`, never NULL, true for a lead that stays for another reason.
        has_stops: whether a lead that waits is held or cancelled (`leadferry.store.queue.any_waiting`).
    """
    conditions = [
        waiting_lots(batch_no),
        queue_entry.c.lot_id == lot.c.id,
        queue_entry.c.received_at < window_to,
    ]
    if must_wait is not None:
        conditions += [queue_entry.c.lead_id == lead.c.id, ~must_wait]
    return [*conditions, ~held(batch_no)] if has_stops else conditions


def window(
    connection: Connection, batch_no: int, *, begins: datetime | None, ends: datetime | None
) -> tuple[datetime | None, datetime]:
    """Return where a window begins and ends: never before the last one's end (a clock may be set back).

    Args:
        connection: the transaction.
        batch_no: whose.
        begins: where it is to begin; at the last one's end when left out.
        ends: where it is to end; now when left out.
    """
    last = _end_of_the_last_window(connection, batch_no)
    # Not now(): that is when this transaction began to wait for the batch's claim before it.
    now: datetime = connection.scalars(select(func.clock_timestamp())).one()
    end = max(filter(None, [ends or now, last]))
    begin = max(filter(None, [begins, last]), default=None)
    return (None if begin is None else min(begin, end)), end


def _end_of_the_last_window(connection: Connection, batch_no: int) -> datetime | None:
    """Return where this window begins: the windows of a batch meet, without gap or overlap."""
    last = (
        select(delivery.c.window_to)
        .where(
            delivery.c.batch_no == batch_no,
            delivery.c.number.is_not(None),
            delivery.c.state != DeliveryState.FAILED,
            delivery.c.kind == DeliveryKind.DEPARTURE,
        )
        .order_by(delivery.c.number.desc())
        .limit(1)
    )
    return connection.scalar(last)
