"""Last step, whatever happened before: look up what is in doubt, then close the delivery in one transaction."""

from __future__ import annotations

from leadferry.archive import Archive
from leadferry.batch.conditions import NOT_READY
from leadferry.batch.model import Batch
from leadferry.delivery.deliver import look_up
from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store import ledger, settling, suspensions
from leadferry.store.claim import TOO_MANY
from leadferry.store.database import Database
from leadferry.store.settling import Settlement

SUCCESSES = frozenset({DeliveryState.DELIVERED, DeliveryState.SKIPPED})
"""States after which nobody needs to look."""


def settle(database: Database, archive: Archive, delivery_id: int) -> Settlement:
    """Close a delivery: delivered, partial, held or failed; leads of a failed one are back in the queue.

    Destinations that failed too often in a row are left alone from now on, as the batch's `suspend` says.

    Raises:
        DeliveryError: a destination could not be asked what became of a parcel; try again.
    """
    look_up(database, archive, delivery_id)
    settlement = settling.settle(database, delivery_id)
    delivery = ledger.get_delivery(database, delivery_id)
    limits = Batch.model_validate(delivery.config).suspend
    if limits.after_failures is not None and delivery.kind is not DeliveryKind.TEST:
        suspensions.suspend_after_failures(
            database, delivery_id=delivery_id, failures=limits.after_failures, retry_after=limits.retry_after
        )
    return settlement


def explain(settlement: Settlement) -> str:
    """Say in a sentence how a delivery ended and what an operator does next."""
    counts = f"{settlement.included} included, {settlement.withheld} withheld"
    start = f"Delivery {settlement.delivery_id} is {settlement.state} ({counts})"
    match settlement.state:
        case DeliveryState.SKIPPED:
            known = (settlement.reason or "").startswith((NOT_READY, TOO_MANY))
            next_step = (
                "The leads stay in the queue" if known else "Check that leads come in by the batch's flows"
            )
            return f"{start}: {settlement.reason}. {next_step}."
        case DeliveryState.FAILED:
            return f"{start}: {settlement.reason}. {settlement.returned} leads are back in the queue. Mend the cause, then trigger the DAG, or leave them to the next departure."
        case DeliveryState.PARTIAL:
            return f"{start}: {settlement.reason}. Mend the cause, then clear the failed deliver task: only it is sent again."
        case DeliveryState.HELD:
            return (
                f"{start}: {settlement.reason}. Ask the recipient, then"
                " `leadferry dispatch confirm|fail ID --reason TEXT`."
            )
        case _ if settlement.reason:
            return f"{start}, but not everywhere: {settlement.reason}."
        case _:
            return f"{start}."
