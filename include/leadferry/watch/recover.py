"""Deliveries that nobody works on any more are brought to an end: their leads must not stay in nobody's hands."""

from __future__ import annotations

import logging
from dataclasses import replace

from leadferry.archive import Archive
from leadferry.delivery.notices import tell_outcome
from leadferry.delivery.settle import settle
from leadferry.errors import LeadferryError
from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store import incidents, ledger, settling
from leadferry.store.database import Database
from leadferry.store.settling import Settlement

_log = logging.getLogger(__name__)


def recover(database: Database, archive: Archive) -> list[Settlement]:
    """End the deliveries whose lease is over, and tell `notify.failure` of those that did not end well.

    Where nothing may be at a destination, leads go back to the queue. Where something may be, the destination is asked,
    exactly as a retried task would; a delivery that cannot be cleared up now stays as it is, and is told by the watchdog.
    A sender that is still alive holds the right to send, so it is never overtaken.
    """
    settled = [settling.settle(database, one) for one in settling.recover_stale(database)]
    for delivery_id in incidents.abandoned(database):
        try:
            settled.append(settle(database, archive, delivery_id))
        except LeadferryError as error:
            _log.warning("Delivery %s stays in doubt. %s: %s", delivery_id, error.code, error)
        except ValueError:
            _log.warning(
                "Delivery %s stays in doubt: this version cannot read its configuration", delivery_id
            )
    told = [_with_returned(database, one) for one in settled]
    for one in told:
        _log.info("Delivery %s was abandoned and is %s now", one.delivery_id, one.state)
        _tell(database, one)
    return told


def _tell(database: Database, settlement: Settlement) -> None:
    """Tell what became of a delivery; one whose configuration is of another version hinders no other."""
    try:
        tell_outcome(database, ledger.get_delivery(database, settlement.delivery_id), settlement)
    except ValueError:
        _log.warning("Nobody was told: this version cannot read delivery %s", settlement.delivery_id)


def _with_returned(database: Database, settlement: Settlement) -> Settlement:
    """Say how many leads went back; a second settling does not know it any more."""
    delivery = ledger.get_delivery(database, settlement.delivery_id)
    gave_back = settlement.state is DeliveryState.FAILED and delivery.kind is DeliveryKind.DEPARTURE
    return replace(settlement, returned=delivery.included + delivery.withheld if gave_back else 0)
