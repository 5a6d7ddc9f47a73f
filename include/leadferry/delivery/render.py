"""Second step: the claimed leads become files, in the archive, complete or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.batch.routes import Rendition, renditions
from leadferry.delivery import charts, control
from leadferry.delivery.control_records import ControlRecords
from leadferry.delivery.cuts import Pile, piles, withhold_unknown_segments
from leadferry.delivery.extract import lease
from leadferry.delivery.mailable import Loader
from leadferry.delivery.plan import plan
from leadferry.delivery.records import MEDIA_TYPE, RECORDS, records_name, write_records
from leadferry.delivery.stream import MappedStream, lead_frames
from leadferry.delivery.variables import file_variables, recipient_zone, test_mark
from leadferry.destinations.email import Email
from leadferry.errors import RenderError
from leadferry.mapping.fields import Mapping
from leadferry.project import config_folder
from leadferry.states import DeliveryState, FileKind
from leadferry.store import ledger
from leadferry.store.database import Database
from leadferry.store.ledger import Delivery, RenderedFile, StoredFile
from leadferry.templates import file_name

if TYPE_CHECKING:
    import polars as pl

_UNLIMITED = 2**62


def render(database: Database, archive: Archive, delivery_id: int) -> list[StoredFile]:
    """Write all files of a delivery and plan their dispatches; a second call returns what the first one stored.

    When the mapping withholds every lead, the delivery is skipped and there is no file.

    Raises:
        RenderError: a value cannot be mapped or written; nothing was stored.
        StoreError: the delivery was settled meanwhile, or the archive cannot be written.
    """
    delivery = ledger.get_delivery(database, delivery_id)
    if delivery.state in {DeliveryState.FAILED, DeliveryState.SKIPPED}:
        raise ledger.gone_too_far(delivery_id, delivery.state)
    if delivery.state is not DeliveryState.CLAIMED:
        return ledger.stored_files(database, delivery_id)
    batch = Batch.model_validate(delivery.config)
    ledger.extend_lease(database, delivery_id, lease(batch))
    mapping = Mapping(batch.fields, timezone=recipient_zone(batch), locale=batch.recipient.locale)
    if _withhold(database, batch, mapping, delivery):
        delivery = ledger.get_delivery(database, delivery_id)
        if not delivery.included and batch.empty != "header_only":
            ledger.skip(database, delivery_id, reason="every lead was withheld")
            return []
    renderer = _Renderer(database, archive, delivery, batch, mapping)
    files = list(renderer.render_all())
    loader = Loader(batch, delivery, archive, renderer.render)
    planned = plan(batch, delivery, files, loader.loads)
    return ledger.record_files(database, delivery_id, [*files, *loader.variants], planned)


def _withhold(database: Database, batch: Batch, mapping: Mapping, delivery: Delivery) -> bool:
    """Find, before a byte is written, the leads that are kept back: then every count is known. Tells whether any are."""
    reasons: dict[int, str] = {}
    if mapping.may_withhold:
        for frame in lead_frames(database, mapping, delivery.id):
            reasons |= mapping.apply(frame).withheld
    if reasons:
        ledger.withhold(database, delivery.id, reasons)
    return withhold_unknown_segments(database, batch, delivery) or bool(reasons)


@dataclass(frozen=True)
class _Renderer:
    """Writes the files of one delivery; the leads of each pile come in one stream."""

    database: Database
    archive: Archive
    delivery: Delivery
    batch: Batch
    mapping: Mapping

    def render_all(self) -> Iterator[RenderedFile]:
        """Yield the files with leads, then those that tell of them."""
        files: list[RenderedFile] = []
        for rendition in renditions(self.batch.files, self.batch.destinations):
            files += self.render(rendition)
        yield from files
        if any(one.takes == "leads" for one in self.batch.destinations):
            yield self._records()
        for companion in control.companions(self.batch, self.delivery, files):
            yield control.store(self.archive, companion)
        yield from self._charts()

    def _charts(self) -> Iterator[RenderedFile]:
        for destination in self.batch.destinations:
            if isinstance(destination, Email) and destination.chart is not None and self.delivery.included:
                chart = charts.draw(self.database, self.delivery, destination)
                yield control.store(self.archive, chart)

    def render(self, rendition: Rendition) -> list[RenderedFile]:
        """Write a file as some destinations get it, in as many parts as that takes."""
        done: list[RenderedFile] = []
        for pile in piles(self.database, self.delivery, rendition.file):
            frames = lead_frames(self.database, self.mapping, self.delivery.id, where=pile.where)
            stream = MappedStream(self.mapping, frames)
            done += self._parts(rendition, pile, stream, first=len(done) + 1)
            stream.report()
        return done

    def _records(self) -> RenderedFile:
        frames = lead_frames(self.database, self.mapping, self.delivery.id)
        stream = MappedStream(self.mapping, frames, with_ids=True)
        with closing(self.archive.new_file()) as out:
            write_records(stream.take(_UNLIMITED), cast("BinaryIO", out))
            out.finish()
            key = f"{self.batch.id}/{self.delivery.id}/records-{out.sha256[:16]}"
            self.archive.publish(out, key)
            return RenderedFile(
                kind=FileKind.LEADS,
                key=RECORDS,
                part=1,
                name=records_name(self.batch, self.delivery),
                sha256=out.sha256,
                size=out.size,
                rows=self.delivery.included,
                media_type=MEDIA_TYPE,
                archive_key=key,
            )

    def _parts(
        self, rendition: Rendition, pile: Pile, stream: MappedStream, *, first: int
    ) -> Iterator[RenderedFile]:
        """Cut a pile into parts, each a complete file, until no lead is left."""
        left, part = pile.leads, 0
        while left or not part:
            part += 1
            with closing(_PartWriter(self, rendition, pile, part)) as writer:
                rows = writer.write(stream, left)
                left -= rows
                yield writer.publish(rows, number=first + part - 1)


class _PartWriter:
    """Writes one part; smaller than asked for when it would have more bytes than the file may have."""

    def __init__(self, renderer: _Renderer, rendition: Rendition, pile: Pile, part: int) -> None:
        self._renderer = renderer
        self._key = rendition.key
        self._segment = pile.segment
        self._file = file = rendition.file
        values = file_variables(
            renderer.batch,
            renderer.delivery,
            file_id=file.id,
            file_part=part,
            file_parts=pile.parts(file),
            file_segment=pile.segment,
        )
        plain = f"{test_mark(renderer.delivery)}{file_name(file.name, values)}"
        self._name = file.packing.file_name(plain)
        values["file"]["name"] = self._name
        self._values = values
        self._out = renderer.archive.new_file()

    def close(self) -> None:
        """Let go of the file, published or not."""
        self._out.close()

    def write(self, stream: MappedStream, left: int) -> int:
        """Write at most `left` leads and return how many were written."""
        split = self._file.split
        rows = min(left, split.rows or _UNLIMITED) if split else left
        if split is None or split.bytes is None:
            self._write(stream.take(rows), rows)
            return rows
        return self._write_within(stream, rows, split.bytes)

    def _write_within(self, stream: MappedStream, rows: int, most: int) -> int:
        """Write as many leads as `most` bytes hold; the rest goes back into the stream."""
        import polars as pl

        sample = min(rows, 1000)
        while True:
            frame = pl.concat(stream.take(min(rows, sample)))
            self._write([frame], frame.height)
            size = self._out.size
            if size <= most and (frame.height == rows or sample >= rows):
                return frame.height
            fitting = max(1, int(frame.height * most / size * 0.95))
            if size <= most and fitting <= frame.height * 1.1:
                return frame.height
            if size > most and frame.height == 1:
                return self._too_large(size, most)
            stream.give_back(frame)
            sample = min(fitting, frame.height - 1) if size > most else fitting

    def _too_large(self, size: int, most: int) -> int:
        raise RenderError(
            f"file {self._file.id!r}: a part with one lead has {size} bytes, the limit is {most}",
            hint="Raise split.bytes, or max_bytes of the destination; the leads are back in the queue",
        )

    def _write(self, frames: Iterable[pl.DataFrame], rows: int) -> None:
        if self._out.size:
            self._out.close()
            self._out = self._renderer.archive.new_file()
        records = ControlRecords(self._file, rows=rows, variables=self._values)
        columns = self._file.columns(self._renderer.mapping.columns)
        context = records.context(columns=columns, rows=rows)
        form, packing = self._file.format, self._file.packing
        with packing.open(
            cast("BinaryIO", self._out), name=self._name, extension=form.extension, config=config_folder()
        ) as packer:
            form.write(records.added_up(frames), cast("BinaryIO", packer), context)

    def publish(self, rows: int, *, number: int) -> RenderedFile:
        """Put the part into the archive and return what the ledger says of it; `number` counts over all segments."""
        out = self._out
        out.finish()
        delivery, batch = self._renderer.delivery, self._renderer.batch
        # The hash in the key keeps a second, crashed or concurrent render from ever touching other bytes.
        key = f"{batch.id}/{delivery.id}/{self._key}-{number}-{out.sha256[:16]}"
        self._renderer.archive.publish(out, key)
        return RenderedFile(
            kind=FileKind.LEADS,
            key=self._key,
            part=number,
            segment=self._segment,
            name=self._name,
            sha256=out.sha256,
            size=out.size,
            rows=rows,
            media_type=self._file.packing.media_type(self._file.format.media_type),
            archive_key=key,
        )
