"""The claimed leads as a stream of frames: read ahead in a thread, mapped and counted as they pass."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement

from leadferry.mapping.fields import LEAD_ID, Mapping
from leadferry.mapping.sources import CHANGE, source
from leadferry.store.again import change_in
from leadferry.store.database import Database
from leadferry.store.leads import read_leads
from leadferry.store.tables import lead

if TYPE_CHECKING:
    import polars as pl

_log = logging.getLogger(__name__)

FRAMES_AHEAD = 2
"""Blocks read while one is being mapped: the database works while we do."""


def lead_frames(
    database: Database, mapping: Mapping, delivery_id: int, *, where: ColumnElement[bool] | None = None
) -> Iterator[pl.DataFrame]:
    """Stream the delivery's leads; one empty frame when there is none, so that a header is written all the same.

    Args:
        database: the lead store.
        mapping: says which lead fields are read.
        delivery_id: whose leads.
        where: only these, a condition on the table `lead`.
    """
    import polars as pl

    columns = {LEAD_ID: lead.c.id, **{name: source(name, lead) for name in mapping.sources}}
    if CHANGE in columns:
        columns[CHANGE] = change_in(delivery_id)
    empty = True
    for frame in _ahead(read_leads(database, delivery_id, columns, where=where)):
        empty = False
        yield frame.with_columns(pl.col(LEAD_ID).cast(pl.Int64))
    if empty:
        yield pl.DataFrame(schema={name: pl.Int64 if name == LEAD_ID else pl.String for name in columns})


class MappedStream:
    """Mapped frames, to be taken a number of leads at a time: all parts of a file come from one stream.

    Args:
        mapping: how the leads become the file's columns.
        frames: the leads, as `lead_frames` yields them.
        with_ids: also yield the column `LEAD_ID`.
    """

    def __init__(self, mapping: Mapping, frames: Iterable[pl.DataFrame], *, with_ids: bool = False) -> None:
        self._mapping = mapping
        self._with_ids = with_ids
        self._frames = iter(frames)
        self._rest: list[pl.DataFrame] = []
        self._blanked: Counter[str] = Counter()

    def take(self, leads: int) -> Iterator[pl.DataFrame]:
        """Yield frames that hold the next `leads` leads together; at least one frame, if only an empty one."""
        first = True
        while leads > 0 or first:
            frame = self._next()
            if frame is None:
                return
            taken, rest = frame.head(leads), frame.slice(leads)
            if rest.height:
                self._rest.insert(0, rest)
            leads -= taken.height
            first = False
            yield taken

    def give_back(self, frames: Iterable[pl.DataFrame]) -> None:
        """Put leads that were taken, but did not fit, before the next ones."""
        # Not put together: a function of the user's may give a column another type in every block.
        self._rest[:0] = frames

    def report(self) -> None:
        """Say in the log how many values were left out because they could not be handled."""
        for label, count in sorted(self._blanked.items()):
            _log.warning("Column %r: %s values could not be handled and were left out", label, count)

    def _next(self) -> pl.DataFrame | None:
        if self._rest:
            return self._rest.pop(0)
        frame = next(self._frames, None)
        if frame is None:
            return None
        mapped = self._mapping.apply(frame)
        self._blanked.update(mapped.blanked)
        return mapped.frame.with_columns(mapped.lead_ids) if self._with_ids else mapped.frame


def _ahead(frames: Generator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Read ahead in a thread, so that the database and this process work at the same time."""
    waiting: queue.Queue[pl.DataFrame | BaseException | None] = queue.Queue(maxsize=FRAMES_AHEAD)
    stop = threading.Event()
    reader = threading.Thread(target=_read, args=(frames, waiting, stop), name="reading-leads", daemon=True)
    reader.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while not waiting.empty():
            waiting.get()
        reader.join()


def _read(
    frames: Generator[pl.DataFrame],
    waiting: queue.Queue[pl.DataFrame | BaseException | None],
    stop: threading.Event,
) -> None:
    end: BaseException | None = None
    try:
        with closing(frames):
            for frame in frames:
                waiting.put(frame)
                if stop.is_set():
                    return
    except BaseException as error:  # noqa: BLE001 it is raised again in the thread that asked for the frames
        end = error
    if not stop.is_set():
        waiting.put(end)
