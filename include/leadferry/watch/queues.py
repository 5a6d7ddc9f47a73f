"""The queues of all batches: brought up to date with the batch files, and counted.

A batch's queue begins, and follows a change of the flows in its file, when somebody routes: a departure before it takes
leads, or a person who looks into the queue. A departure that does not get so far (what it waits for does not come) would
leave nobody knowing how many leads wait for it, so each look of the watchdog brings the queues up to date as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta

from leadferry.batch.model import Batch
from leadferry.batch.received import collects_from
from leadferry.errors import StoreError
from leadferry.store.database import Database
from leadferry.store.routing import Intake, out_of_date, route_new_leads

_log = logging.getLogger(__name__)

_TIME_AT_ONCE = timedelta(minutes=2)
"""After this a look goes on without the rest: what else is wrong must be told, also while routing is stuck."""


def uncounted(database: Database, batches: Iterable[Batch]) -> list[str]:
    """Return the batches, by id, of which the store cannot say what waits: new ones, and those with other flows. Reads only."""
    wanted = {one.id: Intake(flows=one.flows, received_from=collects_from(one)) for one in batches}
    return out_of_date(database, wanted)


def follow(database: Database, batches: Mapping[str, Batch], *, within: timedelta = _TIME_AT_ONCE) -> None:
    """Bring the queues up to date of those batches whose files ask for it; costs one query when there are none.

    Disabled batches are left alone, since nobody waits for their leads: their queue begins, or changes, when they depart
    or when somebody looks into it. What cannot be done in time, or because the store refuses, is left to the next look.

    Args:
        database: the lead store.
        batches: by id; those whose files load.
        within: how long all of it may take.
    """
    ends = time.monotonic() + within.total_seconds()
    for batch_id in uncounted(database, (one for one in batches.values() if one.enabled)):
        left = timedelta(seconds=ends - time.monotonic())
        if left <= within / 100:
            _log.warning("The time is over; other queues follow their batch files with the next look")
            return
        batch = batches[batch_id]
        try:
            route_new_leads(
                database,
                batch_id=batch_id,
                flows=batch.flows,
                received_from=collects_from(batch),
                within=left / 2,  # whose first fill takes too long each time leaves time for those after it
            )
        except StoreError as error:
            _log.warning(
                "The queue of batch %s does not follow its file yet. %s: %s", batch_id, error.code, error
            )
