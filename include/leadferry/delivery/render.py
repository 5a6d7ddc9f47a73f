"""Second step: the claimed leads become files, in the archive, complete or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from leadferry.archive import Archive
from leadferry.batch.eligibility import failing_always
from leadferry.batch.files import Bundle, OutputFile
from leadferry.batch.model import Batch
from leadferry.batch.routes import Rendition, renditions
from leadferry.delivery import charts, control
from leadferry.delivery.cuts import Pile, piles, withhold_unknown_segments
from leadferry.delivery.extract import lease
from leadferry.delivery.mailable import Loader
from leadferry.delivery.parts import UNLIMITED, Part, StoredPart, Work
from leadferry.delivery.plan import Load, plan
from leadferry.delivery.records import MEDIA_TYPE, RECORDS, records_name, write_records
from leadferry.delivery.stream import MappedStream, lead_frames
from leadferry.delivery.variables import file_variables, recipient_zone
from leadferry.destinations.base import DestinationBase
from leadferry.destinations.email import Email
from leadferry.errors import RenderError
from leadferry.file_names import marked_name
from leadferry.mapping.fields import Mapping
from leadferry.packing.container import ZipContainer
from leadferry.project import config_folder
from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store import ledger, settling
from leadferry.store.database import Database
from leadferry.store.ledger import Delivery, RenderedFile, StoredFile
from leadferry.store.recheck import recheck
from leadferry.store.redelivery import file_as_sent
from leadferry.store.tables import lead

_log = logging.getLogger(__name__)


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
    if (sent := file_as_sent(database, delivery_id)) is not None:
        return _again(database, archive, batch, delivery, sent)
    mapping = Mapping(batch.fields, timezone=recipient_zone(batch), locale=batch.recipient.locale)
    if _recheck(database, batch, delivery) | _withhold(database, batch, mapping, delivery):
        delivery = ledger.get_delivery(database, delivery_id)
        if not delivery.included and batch.empty != "header_only":
            settling.skip(database, delivery_id, reason="every lead was withheld")
            return []
    renderer = _Renderer(database, Work(archive=archive, delivery=delivery, batch=batch, mapping=mapping))
    files = list(renderer.render_all())
    loader = Loader(batch, delivery, archive, renderer.render)
    planned = plan(batch, delivery, files, loader.loads)
    return ledger.record_files(database, delivery_id, [*files, *loader.variants], planned)


def _recheck(database: Database, batch: Batch, delivery: Delivery) -> bool:
    """Take out what must not go any more since the claim; tell whether there was anything."""
    if delivery.kind is DeliveryKind.TEST:
        return False
    found = recheck(database, delivery.id, failed_rule=failing_always(batch, lead))
    if found.withheld or found.put_back:
        _log.warning(
            "Since the claim, %s leads were withheld and %s held; they are not in the files",
            found.withheld,
            found.put_back,
        )
    return bool(found.withheld or found.put_back)


def _again(
    database: Database, archive: Archive, batch: Batch, delivery: Delivery, sent: StoredFile
) -> list[StoredFile]:
    """Take a stored file as it is (I3); only what tells of it is written anew, since its name may be marked.

    Raises:
        RenderError: the destination does not get such a file.
    """
    if _recheck(database, batch, delivery):
        raise RenderError(
            f"leads of file {sent.id} may not go any more since the claim, and a stored file goes whole",
            hint="Redeliver its other leads with current settings",
        )
    facts = {name: getattr(sent, name) for name in RenderedFile.__dataclass_fields__}
    file = RenderedFile(**{**facts, "name": marked_name(sent.name, delivery.mark)})
    files = [file, *(control.store(archive, one) for one in control.companions(batch, delivery, [file]))]
    files += draw_charts(database, archive, batch, delivery)
    planned = plan(batch, delivery, files, _as_it_is)
    if not any(one.file_key == file.key and one.file_kind is file.kind for one in planned):
        known = ", ".join(one.id for one in batch.files_for(batch.destinations[0].id)) or "leads one by one"
        raise RenderError(
            f"destination {batch.destinations[0].id!r} does not get file {file.key!r}; it gets {known}",
            hint="Redeliver the leads of that file with current settings, or choose another destination",
        )
    return ledger.record_files(database, delivery.id, files, planned)


def _as_it_is(
    destination: DestinationBase, _addressee: str | None, files: Sequence[RenderedFile]
) -> list[Load]:
    """Put a stored file into no zip file and divide it among no mails."""
    if destination.sends_files_together:
        return [Load(files=tuple(files))] if files else []
    return [Load(files=(file,)) for file in files]


def _withhold(database: Database, batch: Batch, mapping: Mapping, delivery: Delivery) -> bool:
    """Find, before a byte is written, the leads that are kept back: then every count is known. Tells whether any are."""
    reasons: dict[int, str] = {}
    if mapping.may_withhold:
        for frame in lead_frames(database, mapping, delivery.id):
            reasons |= mapping.apply(frame).withheld
    if reasons:
        ledger.withhold(database, delivery.id, reasons)
    return withhold_unknown_segments(database, batch, delivery) or bool(reasons)


def draw_charts(
    database: Database, archive: Archive, batch: Batch, delivery: Delivery
) -> Iterator[RenderedFile]:
    """Yield the pictures that mails of a delivery show."""
    for destination in batch.destinations:
        if isinstance(destination, Email) and destination.chart is not None and delivery.included:
            yield control.store(archive, charts.draw(database, delivery, destination))


@dataclass(frozen=True)
class _Renderer:
    """Writes the files of one delivery; the leads of each pile come in one stream."""

    database: Database
    work: Work

    def render_all(self) -> Iterator[RenderedFile]:
        """Yield the files with leads, then those that tell of them."""
        files: list[RenderedFile] = []
        batch, archive = self.work.batch, self.work.archive
        for rendition in renditions(batch.loose_files, batch.destinations):
            files += self.render(rendition)
        files += [self._bundle(bundle) for bundle in batch.bundles]
        yield from files
        if any(one.takes == "leads" for one in batch.destinations):
            yield self._records()
        for companion in control.companions(batch, self.work.delivery, files):
            yield control.store(archive, companion)
        yield from draw_charts(self.database, archive, batch, self.work.delivery)

    def _bundle(self, bundle: Bundle) -> RenderedFile:
        """Write several files into one zip file, each straight from its leads; nothing waits on disk."""
        work = self.work
        name = work.name_of(bundle, file_variables(work.batch, work.delivery, file_id=bundle.id))
        with closing(work.archive.new_file()) as out:
            inside = bundle.packing.container(cast("BinaryIO", out), name=name, config=config_folder())
            with inside as box:
                files = {file.id: file for file in work.batch.files}
                members = [one for key in bundle.files for one in self._members(files[key], box)]
            return RenderedFile(
                key=bundle.id,
                part=1,
                name=name,
                rows=work.delivery.included,
                media_type=bundle.packing.media_type("application/zip"),
                members=members,
                **work.publish(out, f"{bundle.id}-1"),
            )

    def _members(self, file: OutputFile, box: ZipContainer) -> list[dict[str, Any]]:
        """Write all parts of a file into a zip file."""
        done: list[dict[str, Any]] = []
        for pile, stream in self._streams(file):
            left = pile.leads
            for number in range(1, pile.parts(file) + 1):
                part = Part(self.work, file, pile, number)
                rows = min(left, part.most)
                done.append({"key": file.id, "part": len(done) + 1, **part.into(box, stream, rows)})
                left -= rows
        return done

    def _streams(self, file: OutputFile) -> Iterator[tuple[Pile, MappedStream]]:
        """Yield the leads of each segment, or all of them."""
        work = self.work
        for pile in piles(self.database, work.delivery, file):
            frames = lead_frames(self.database, work.mapping, work.delivery.id, where=pile.where)
            stream = MappedStream(work.mapping, frames)
            yield pile, stream
            stream.report()

    def render(self, rendition: Rendition) -> list[RenderedFile]:
        """Write a file as some destinations get it, in as many parts as that takes."""
        done: list[RenderedFile] = []
        for pile, stream in self._streams(rendition.file):
            left, number = pile.leads, 0
            while left or not number:
                number += 1
                with closing(StoredPart(self.work, rendition, pile, number)) as part:
                    rows = part.write(stream, left)
                    left -= rows
                    done.append(part.publish(rows, number=len(done) + 1))
        return done

    def _records(self) -> RenderedFile:
        work = self.work
        frames = lead_frames(self.database, work.mapping, work.delivery.id)
        stream = MappedStream(work.mapping, frames, with_ids=True)
        with closing(work.archive.new_file()) as out:
            write_records(stream.take(UNLIMITED), cast("BinaryIO", out))
            return RenderedFile(
                key=RECORDS,
                part=1,
                name=records_name(work.batch, work.delivery),
                rows=work.delivery.included,
                media_type=MEDIA_TYPE,
                **work.publish(out, "records"),
            )
