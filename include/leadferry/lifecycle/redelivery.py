"""A redelivery from the command line: the steps of a run of `redeliver_leads` in one process."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime

from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.delivery.deliver import deliver
from leadferry.delivery.redelivery import ByHand, claim_redelivery
from leadferry.delivery.redelivery_params import Redeliver
from leadferry.delivery.render import render
from leadferry.delivery.settle import settle
from leadferry.errors import DeliveryError, DepartureRefusedError, LeadferryError
from leadferry.schedule.opening import closed
from leadferry.store.database import Database
from leadferry.store.redelivery import Chosen
from leadferry.store.settling import Settlement

_log = logging.getLogger(__name__)


def redeliver_now(
    database: Database, archive: Archive, batch: Batch, params: Redeliver, *, actor: str
) -> tuple[Chosen, Settlement | None]:
    """Deliver chosen leads to one destination; a dry run only chooses.

    Args:
        database: the lead store.
        archive: where the files are kept.
        batch: as its file says now.
        params: what is asked for.
        actor: who asks; recorded.

    Returns what was chosen, and how it ended; a destination that failed is told by it and in the log. Nothing is tried
    a second time: a failed redelivery gives its waiting leads back to the queue, and can be asked for again.

    Raises:
        LeadferryError: nothing was claimed, or the files could not be written; says why.
    """
    if not params.dry_run:
        _refuse_closed(batch, params)
    by = ByHand(run_id=f"redeliver__{uuid.uuid4()}", at=datetime.now(UTC), actor=actor)
    chosen = claim_redelivery(database, batch, params, by)
    if params.dry_run or chosen.delivery_id is None:
        return chosen, None
    try:
        render(database, archive, chosen.delivery_id)
        deliver(database, archive, chosen.delivery_id, params.destination)
    except DeliveryError as error:
        _log.warning("%s: %s", params.destination, error)
    except LeadferryError:
        settle(database, archive, chosen.delivery_id)
        raise
    return chosen, settle(database, archive, chosen.delivery_id)


def _refuse_closed(batch: Batch, params: Redeliver) -> None:
    """Refuse what a run of the DAG would wait for: a command ends at once."""
    if batch.schedule == "manual" or params.override_window:
        return
    found = closed(batch.schedule, datetime.now(UTC), timezone=batch.timezone)
    if found is not None:
        raise DepartureRefusedError(
            f"Nothing is sent to {params.destination!r} now: {found.reason}",
            hint="Say --override-window, or trigger the DAG redeliver_leads, which waits until it may",
        )
