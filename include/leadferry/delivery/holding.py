"""What may not be sent at present, and what that means for a batch: wait in the queue, or go another way."""

from __future__ import annotations

from leadferry.batch.model import Batch
from leadferry.errors import DestinationSuspendedError
from leadferry.states import DeliveryKind
from leadferry.store import suspensions
from leadferry.store.database import Database
from leadferry.store.suspensions import EVERYTHING, Suspension


def why_on_hold(database: Database, batch: Batch, kind: DeliveryKind) -> str | None:
    """Say why a batch may not take leads now, or None when it may.

    It waits when the batch or its recipient is on hold, and when a required way has no destination that may be used.
    A test goes to suspended destinations too: that is how one finds out whether they work again.
    """
    found, zone = _relevant(database, batch, kind), batch.schedule_zone
    whole = [one for one in found if one.destination == EVERYTHING]
    if whole:
        return whole[0].told(zone=zone)
    closed = {one.destination: one for one in found}
    ways = list(batch.ways().values())
    required = list(batch.required_ways().values())
    blocked = [way for way in required or ways if all(one in closed for one in way)]
    if blocked and (required or len(blocked) == len(ways)):
        return "; ".join(closed[one].told(zone=zone) for one in blocked[0])
    return None


def refuse_suspended(database: Database, batch: Batch, destination_id: str, kind: DeliveryKind) -> None:
    """Let a destination be used, unless it is left alone at present.

    Raises:
        DestinationSuspendedError: says since when and why.
    """
    for one in _relevant(database, batch, kind):
        if one.destination in {EVERYTHING, destination_id}:
            raise DestinationSuspendedError(f"Nothing was sent: {one.told(zone=batch.schedule_zone)}")


def _relevant(database: Database, batch: Batch, kind: DeliveryKind) -> list[Suspension]:
    found = suspensions.active(database, batch_id=batch.id, recipient_id=batch.recipient.id)
    return [one for one in found if one.cause == "hold" or kind is not DeliveryKind.TEST]
