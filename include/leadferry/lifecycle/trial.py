"""A test delivery from the command line: the steps of a run in one process, with made-up leads."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime
from pathlib import Path

from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.delivery.deliver import deliver
from leadferry.delivery.extract import Trigger, extract
from leadferry.delivery.params import DeliverNow
from leadferry.delivery.render import render
from leadferry.delivery.settle import settle
from leadferry.destinations.folder import Folder
from leadferry.errors import BatchConfigError, DeliveryError
from leadferry.store.database import Database
from leadferry.store.settling import Settlement

_log = logging.getLogger(__name__)


def trial(
    database: Database, archive: Archive, batch: Batch, *, folder: Path | None, actor: str
) -> Settlement:
    """Deliver two made-up leads, marked TEST; no lead of the queue changes its state.

    Args:
        database: the lead store.
        archive: where the files are kept.
        batch: as its file says now.
        folder: deliver there instead of to the batch's destinations.
        actor: who tests; recorded.

    Returns how it ended; a destination that failed is told by it and in the log.

    Raises:
        BatchConfigError: a folder was asked for, and the batch has no files.
    """
    if folder is not None:
        if not batch.files:
            raise BatchConfigError(
                f"Batch {batch.id!r} has no files that a folder could get",
                hint="Test it without a folder: made-up leads, marked as a test, go to its destinations",
            )
        target = Folder(id="test_target", path=str(folder.absolute()))
        batch = batch.model_copy(update={"destinations": [target]})
    trigger = Trigger(
        run_id=f"test__{uuid.uuid4()}",
        departs_at=datetime.now(UTC),
        params=DeliverNow(test=True),
        actor=actor,
    )
    claimed = extract(database, batch, trigger)
    render(database, archive, claimed.delivery_id)
    for destination_id in (one for way in batch.ways().values() for one in way):
        try:
            deliver(database, archive, claimed.delivery_id, destination_id)
        except DeliveryError as error:
            _log.warning("%s: %s", batch.destination(destination_id).where, error)
    return settle(database, archive, claimed.delivery_id)
