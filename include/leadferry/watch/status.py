"""All batches in one table: what each is, when it goes next, how it went last, what waits, what is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from leadferry.batch.load import batch_ids, load_all
from leadferry.batch.model import Batch
from leadferry.schedule import departures
from leadferry.store import incidents, skips, suspensions
from leadferry.store.database import Database
from leadferry.store.waiting import queues
from leadferry.watch.queues import uncounted

COLUMNS = (
    "batch",
    "name",
    "recipient",
    "state",
    "schedule",
    "next_departure",
    "left_out",
    "last_departure",
    "last_state",
    "last_leads",
    "pending",
    "oldest",
    "incidents",
    "suspended",
)


def status(database: Database, config: Path, *, now: datetime) -> list[dict[str, Any]]:
    """Return a row with `COLUMNS` for every batch that has a file or ever departed, in the order of their ids.

    The state is `enabled`, `disabled`, `over` (its last departure was), `broken` (the file cannot be loaded) or `removed`
    (there is none any more). `left_out` is whether somebody asked that the next departure be left out. `pending` counts up to
    this moment; it is None while the store cannot say (`leadferry.watch.queues.uncounted`), or the batch is unknown there.
    Reads only, without a lock: whoever may read the store may ask, and no departure waits for it.

    Args:
        database: the lead store.
        config: see `leadferry.project.config_folder`.
        now: the present, aware.
    """
    found = {batch.id: batch for batch in load_all(config)[0]}
    departed = incidents.last_departures(database)
    waits = queues(database)
    skipped = skips.to_be_left_out(database, now)
    wrong = defaultdict(list)
    for one in incidents.open_incidents(database):
        wrong[one.batch].append(str(one.kind))
    stopped = _stopped(database)
    files = set(batch_ids(config))
    behind = set(uncounted(database, found.values()))
    unsure = behind | (files - set(found))
    rows = []
    for batch_id in sorted(files | set(departed) | set(waits) | set(wrong)):
        batch, last = found.get(batch_id), departed.get(batch_id, {})
        waiting = None if batch_id in behind else waits.get(batch_id)
        recipient = batch.recipient.id if batch else None
        row = {
            "batch": batch_id,
            **_of_the_file(batch, now, is_there=batch_id in files, skipped=skipped.get(batch_id, ())),
            "last_departure": last.get("departs_at"),
            "last_state": last.get("state"),
            "last_leads": last.get("included"),
            "pending": waiting.leads if waiting else None if batch_id in unsure else 0,
            "oldest": waiting.oldest if waiting else None,
            "incidents": wrong[batch_id],
            "suspended": [*stopped["batch", batch_id], *stopped["recipient", recipient]],
        }
        rows.append({name: row[name] for name in COLUMNS})
    return rows


def _of_the_file(
    batch: Batch | None, now: datetime, *, is_there: bool, skipped: Sequence[datetime]
) -> dict[str, Any]:
    if batch is None:
        state = "broken" if is_there else "removed"
        empty = dict.fromkeys(("name", "recipient", "schedule", "next_departure"))
        return {**empty, "left_out": False, "state": state}
    coming = departures(batch.schedule, timezone=batch.timezone, after=now, batch_id=batch.id)
    upcoming = next(coming, None) if batch.enabled else None
    return {
        "name": batch.name,
        "recipient": batch.recipient.id,
        "state": _state(batch, now),
        "schedule": str(batch.schedule),
        "next_departure": upcoming.local if upcoming else None,
        "left_out": upcoming is not None and any(instant <= upcoming.utc for instant in skipped),
    }


def _state(batch: Batch, now: datetime) -> str:
    if not batch.enabled:
        return "disabled"
    return "enabled" if batch.over(now=now) is None else "over"


def _stopped(database: Database) -> Mapping[tuple[str, str | None], list[str]]:
    """Return what is held or suspended now, by scope and name."""
    found: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for one in suspensions.active(database):
        found[one.scope, one.name].append(one.destination or f"the whole {one.scope}")
    return found
