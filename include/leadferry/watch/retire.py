"""Files that were kept long enough leave the archive; so does what killed processes left behind.

What stands about a file in the lead store stays: name, hash, size, receipt, and that its bytes were moved or removed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from leadferry.archive import Archive
from leadferry.batch.load import batch_ids, load_all
from leadferry.batch.model import Move, Retention
from leadferry.errors import StoreError
from leadferry.store import retirements
from leadferry.store.database import Database
from leadferry.store.retirements import Due

_log = logging.getLogger(__name__)

MOST_AT_ONCE = 1000
"""Files that one run decides about."""

_TIME_AT_ONCE = timedelta(minutes=4)
"""After this a run leaves the rest to the next one."""

_LEFT_OVER_AFTER = timedelta(days=1)
"""No rendering and no sending takes as long, so what is older belongs to a process that was killed."""


def retire(database: Database, archive: Archive, config: Path, *, now: datetime) -> dict[str, int]:
    """Carry out the `retention` of all batches; returns counts.

    Args:
        database: the lead store.
        archive: where files are; others are named by `retention`.
        config: see `leadferry.project.config_folder`.
        now: the present, aware.

    Raises:
        StoreError: an archive cannot be written; what was decided is carried out the next time.
    """
    due = [
        one
        for batch, retention in _retentions(database, config).items()
        for one in _due(batch, retention, now)
    ]
    decided = retirements.decide(database, due, now=now, most=MOST_AT_ONCE) if due else 0
    moved, removed, failed = _carry_out(database, archive)
    swept = archive.sweep(older_than=now - _LEFT_OVER_AFTER)
    if failed:
        raise StoreError(
            f"{failed} files could not be moved or removed",
            hint="The log names the archive; it is tried again",
        )
    return {"decided": decided, "moved": moved, "removed": removed, "left_over": swept}


def _retentions(database: Database, config: Path) -> Mapping[str, Retention]:
    """Return the retention of every batch: of its file, or, where that is gone, of its last configuration.

    Nothing is removed for a batch whose file cannot be loaded at the moment: nobody knows what it asks for.
    """
    found = {batch.id: batch.retention for batch in load_all(config)[0]}
    gone = retirements.frozen_retentions(database, besides=batch_ids(config))
    for batch, frozen in gone.items():
        try:
            found[batch] = Retention.model_validate(frozen)
        except ValueError:
            _log.warning(
                "Nothing of batch %s is retired: this version cannot read its last `retention`", batch
            )
    return found


def _due(batch: str, retention: Retention, now: datetime) -> Iterator[Due]:
    if retention.files is None:
        return
    kept_until = now - retention.files
    if not isinstance(retention.then, Move):
        yield Due(batch=batch, action="removed", before=kept_until)
        return
    place = retention.then.move
    if retention.then.keep is not None:
        yield Due(batch=batch, action="removed", before=kept_until - retention.then.keep, place=place)
    yield Due(batch=batch, action="moved", before=kept_until, place=place)


def _carry_out(database: Database, archive: Archive) -> tuple[int, int, int]:
    moved = removed = failed = 0
    ends = time.monotonic() + _TIME_AT_ONCE.total_seconds()
    for order in retirements.orders(database):
        if time.monotonic() > ends:
            break
        try:
            if order.action == "moved":
                archive.move(order.archive_key, order.place, sha256=order.sha256)
                moved += 1
            else:
                archive.remove(order.archive_key)
                removed += 1
        except StoreError as error:
            failed += 1
            _log.warning("%s", error)
            continue
        retirements.done(database, order)
    return moved, removed, failed
