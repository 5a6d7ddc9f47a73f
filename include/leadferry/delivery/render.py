"""Second step: the claimed leads become files, in the archive, complete or not at all."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from leadferry.archive import Archive, HashingFile
from leadferry.batch.model import Batch, OutputFile
from leadferry.delivery.extract import lease
from leadferry.formats.base import FileContext
from leadferry.mapping.fields import LEAD_ID, Mapping
from leadferry.mapping.sources import source
from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store import ledger
from leadferry.store.database import Database
from leadferry.store.leads import read_leads
from leadferry.store.ledger import Delivery, PlannedDispatch, RenderedFile, StoredFile
from leadferry.store.tables import lead
from leadferry.templates import file_name, variables

if TYPE_CHECKING:
    import polars as pl

_log = logging.getLogger(__name__)

FRAMES_AHEAD = 2
"""Blocks read while one is being mapped: the database works while we do."""


def render(database: Database, archive: Archive, delivery_id: int) -> list[StoredFile]:
    """Write all files of a delivery and plan their dispatches; a second call returns what the first one stored.

    Raises:
        RenderError: a value cannot be mapped or written; nothing was stored.
        StoreError: the delivery was settled meanwhile, or the archive cannot be written.
    """
    delivery = ledger.get_delivery(database, delivery_id)
    if delivery.state is not DeliveryState.CLAIMED:
        return ledger.stored_files(database, delivery_id)
    batch = Batch.model_validate(delivery.config)
    ledger.extend_lease(database, delivery_id, lease(batch))
    mapping = Mapping(batch.fields, timezone=recipient_zone(batch), locale=batch.recipient.locale)
    if mapping.may_withhold:
        _withhold_what_cannot_be_mapped(database, mapping, delivery_id)
        delivery = ledger.get_delivery(database, delivery_id)
    renderer = _Renderer(database, archive, delivery, batch, mapping)
    with archive.workspace() as workspace:
        files = [renderer.render(file, workspace / file.id) for file in batch.files]
    return ledger.record_files(database, delivery_id, files, _plan(batch, delivery))


def recipient_zone(batch: Batch) -> str:
    """Return the zone in which dates are written: the recipient's, else the batch's."""
    return batch.recipient.timezone or batch.timezone


def file_variables(batch: Batch, delivery: Delivery, *, file_id: str = "", name: str = "") -> dict[str, Any]:
    """Return what templates may use about a delivery, and about one of its files."""
    return variables(
        batch_id=batch.id,
        batch_name=f"{_mark(delivery)}{batch.name}",
        batch_description=batch.description,
        recipient_id=batch.recipient.id,
        recipient_name=batch.recipient.name,
        timezone=recipient_zone(batch),
        locale=batch.recipient.locale,
        delivery_id=str(delivery.id),
        delivery_number=delivery.number or 0,
        departs_at=delivery.departs_at,
        window_from=delivery.window_from,
        window_to=delivery.window_to,
        lead_count=delivery.included,
        file_id=file_id,
        file_name=name,
    )


def _mark(delivery: Delivery) -> str:
    """Return what a test delivery's names begin with, so that nobody takes it for a real one."""
    return "TEST_" if delivery.kind is DeliveryKind.TEST else ""


def _withhold_what_cannot_be_mapped(database: Database, mapping: Mapping, delivery_id: int) -> None:
    """Find, before a byte is written, the leads that a field's policy keeps back: then the count is known."""
    reasons: dict[int, str] = {}
    for frame in _frames(database, mapping, delivery_id):
        reasons |= mapping.apply(frame).withheld
    if reasons:
        ledger.withhold(database, delivery_id, reasons)


@dataclass(frozen=True)
class _Renderer:
    """Writes the files of one delivery, each from a stream of its own."""

    database: Database
    archive: Archive
    delivery: Delivery
    batch: Batch
    mapping: Mapping

    def render(self, file: OutputFile, path: Path) -> RenderedFile:
        """Write one file at `path` and move it into the archive."""
        values = file_variables(self.batch, self.delivery, file_id=file.id)
        name = f"{_mark(self.delivery)}{file_name(file.name, values)}"
        values["file"]["name"] = name
        context = FileContext(columns=self.mapping.columns, rows=self.delivery.included, variables=values)
        frames = _Counted(self.mapping, _frames(self.database, self.mapping, self.delivery.id))
        with HashingFile(path) as out:
            file.format.write(frames, cast("BinaryIO", out), context)
        frames.report()
        # The hash in the key keeps a second, crashed or concurrent render from ever touching other bytes.
        key = f"{self.batch.id}/{self.delivery.id}/{file.id}-1-{out.sha256[:16]}"
        self.archive.publish(path, key)
        return RenderedFile(
            key=file.id,
            part=1,
            name=name,
            sha256=out.sha256,
            size=out.size,
            rows=frames.rows,
            media_type=file.format.media_type,
            archive_key=key,
        )


class _Counted:
    """The mapped frames of one file, counted as they pass: what the ledger says of rows is what was written."""

    def __init__(self, mapping: Mapping, frames: Iterable[pl.DataFrame]) -> None:
        self.rows = 0
        self._blanked: Counter[str] = Counter()
        self._mapping = mapping
        self._frames = frames

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for frame in self._frames:
            mapped = self._mapping.apply(frame)
            self.rows += mapped.frame.height
            self._blanked.update(mapped.blanked)
            yield mapped.frame

    def report(self) -> None:
        for label, count in sorted(self._blanked.items()):
            _log.warning("Column %r: %s values could not be handled and were left out", label, count)


def _frames(database: Database, mapping: Mapping, delivery_id: int) -> Iterator[pl.DataFrame]:
    """Stream the delivery's leads; one empty frame when there is none, so that a header is written all the same."""
    import polars as pl

    columns = {LEAD_ID: lead.c.id, **{name: source(name, lead) for name in mapping.sources}}
    empty = True
    for frame in _ahead(read_leads(database, delivery_id, columns)):
        empty = False
        yield frame.with_columns(pl.col(LEAD_ID).cast(pl.Int64))
    if empty:
        yield pl.DataFrame(schema={name: pl.Int64 if name == LEAD_ID else pl.String for name in columns})


def _ahead(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
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
    frames: Iterator[pl.DataFrame],
    waiting: queue.Queue[pl.DataFrame | BaseException | None],
    stop: threading.Event,
) -> None:
    end: BaseException | None = None
    try:
        with closing(frames):  # type: ignore[type-var] # it is a generator
            for frame in frames:
                waiting.put(frame)
                if stop.is_set():
                    return
    except BaseException as error:  # noqa: BLE001 it is raised again in the thread that asked for the frames
        end = error
    if not stop.is_set():
        waiting.put(end)


def _plan(batch: Batch, delivery: Delivery) -> list[PlannedDispatch]:
    """Say which file goes where: one dispatch per file, destination and addressee."""
    plan = []
    for destination in batch.destinations:
        for addressee in destination.addressees():
            for file in batch.files_for(destination.id):
                alone = None if destination.sends_files_together else file.id
                plan.append(
                    PlannedDispatch(
                        file_key=file.id,
                        destination=destination.id,
                        addressee=addressee or "",
                        parcel_key=_parcel_key(batch, delivery, destination.id, addressee, alone),
                    )
                )
    return plan


def _parcel_key(
    batch: Batch, delivery: Delivery, destination_id: str, addressee: str | None, file_id: str | None
) -> str:
    """Name a parcel: the same for every try, never the same for two parcels, and without an address in it."""
    parts = [batch.id, str(delivery.id), destination_id]
    if file_id is not None:
        parts.append(file_id)
    if addressee is not None:
        parts.append(hashlib.sha256(addressee.encode()).hexdigest()[:12])
    return ".".join(parts)
