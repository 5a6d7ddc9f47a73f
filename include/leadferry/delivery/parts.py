"""One part of a file: its name, its bytes, and where they go: into the archive, or into a zip file with others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from leadferry.archive import Archive, NewFile
from leadferry.batch.files import Bundle, OutputFile
from leadferry.batch.model import Batch
from leadferry.batch.routes import Rendition
from leadferry.delivery.control_records import ControlRecords
from leadferry.delivery.cuts import Pile
from leadferry.delivery.stream import MappedStream
from leadferry.delivery.variables import file_variables, marked
from leadferry.errors import RenderError
from leadferry.file_names import file_name
from leadferry.mapping.fields import Mapping
from leadferry.packing.base import PackingWriter
from leadferry.packing.container import ZipContainer
from leadferry.project import config_folder
from leadferry.store.ledger import Delivery, RenderedFile

if TYPE_CHECKING:
    import polars as pl

UNLIMITED = 2**62
"""More leads than there are."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The delivery that is being rendered."""

    archive: Archive
    delivery: Delivery
    batch: Batch
    mapping: Mapping

    def name_of(self, file: OutputFile | Bundle, variables: dict[str, Any]) -> str:
        """Return what a file is called, with the endings of its packings."""
        return file.packing.file_name(marked(self.delivery, file_name(file.name, variables)))

    def publish(self, out: NewFile, name: str) -> dict[str, Any]:
        """Put complete bytes into the archive and return what the ledger says of them."""
        out.finish()
        # The hash in the key keeps a second, crashed or concurrent render from ever touching other bytes.
        key = f"{self.batch.id}/{self.delivery.id}/{name}-{out.sha256[:16]}"
        self.archive.publish(out, key)
        return {"sha256": out.sha256, "size": out.size, "archive_key": key}


class Part:
    """One part of a file, wherever its bytes go."""

    def __init__(self, work: Work, file: OutputFile, pile: Pile, number: int) -> None:
        self._work = work
        self.file = file
        values = file_variables(
            work.batch,
            work.delivery,
            file_id=file.id,
            file_part=number,
            file_parts=pile.parts(file),
            file_segment=pile.segment,
        )
        self.name = work.name_of(file, values)
        values["file"]["name"] = self.name
        self._values = values

    @property
    def most(self) -> int:
        """How many leads it may have."""
        split = self.file.split
        return (split.rows if split else None) or UNLIMITED

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, *, rows: int) -> None:
        """Write the part: rendered, compressed and encrypted; `out` stays open."""
        records = ControlRecords(self.file, rows=rows, variables=self._values)
        context = records.context(columns=self.file.columns(self._work.mapping.columns), rows=rows)
        form, packing = self.file.format, self.file.packing
        with packing.open(out, name=self.name, extension=form.extension, config=config_folder()) as packer:
            form.write(records.added_up(frames), cast("BinaryIO", packer), context)

    def into(self, box: ZipContainer, stream: MappedStream, rows: int) -> dict[str, Any]:
        """Write the part into a zip file and return what the ledger says of it.

        Raises:
            RenderError: a file of this name is in it already.
        """
        try:
            member = box.open(self.name)
        except ValueError:
            raise RenderError(
                f"two files in one bundle would be called {self.name}",
                hint="Change the names in the batch file; the leads are back in the queue",
            ) from None
        with member:
            counted = _Counted(member)
            self.write(stream.take(rows), cast("BinaryIO", counted), rows=rows)
        return {"name": self.name, "rows": rows, "size": counted.size, "sha256": counted.sha256}


class _Counted:
    """Counts and hashes what passes."""

    def __init__(self, out: PackingWriter) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:
        block = bytes(data)
        self._hash.update(block)
        self.size += len(block)
        return self._out.write(block)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class StoredPart:
    """A part with a place of its own in the archive; smaller than asked for when it would have too many bytes."""

    def __init__(self, work: Work, rendition: Rendition, pile: Pile, number: int) -> None:
        self._work = work
        self._key = rendition.key
        self._segment = pile.segment
        self._part = Part(work, rendition.file, pile, number)
        self._out = work.archive.new_file()

    def close(self) -> None:
        """Let go of the file, published or not."""
        self._out.close()

    def write(self, stream: MappedStream, left: int) -> int:
        """Write at most `left` leads and return how many were written."""
        rows = min(left, self._part.most)
        split = self._part.file.split
        if split is None or split.bytes is None:
            self._write(stream.take(rows), rows)
            return rows
        return self._write_within(stream, rows, split.bytes)

    def _write_within(self, stream: MappedStream, rows: int, most: int) -> int:
        """Write as many leads as `most` bytes hold; the rest goes back into the stream."""
        sample = min(rows, 1000)
        while True:
            frames = list(stream.take(min(rows, sample)))
            height = sum(frame.height for frame in frames)
            self._write(frames, height)
            size = self._out.size
            if size <= most and (height == rows or sample >= rows):
                return height
            fitting = max(1, int(height * most / size * 0.95))
            if size <= most and fitting <= height * 1.1:
                return height
            if size > most and height <= 1:
                return self._too_large(size, most, leads=height)
            stream.give_back(frames)
            sample = min(fitting, height - 1) if size > most else fitting

    def _too_large(self, size: int, most: int, *, leads: int) -> int:
        raise RenderError(
            f"file {self._part.file.id!r}: a part with {'one lead' if leads else 'no leads'} has {size} bytes, the limit is {most}",
            hint="Raise split.bytes, or max_bytes of the destination; the leads are back in the queue",
        )

    def _write(self, frames: Iterable[pl.DataFrame], rows: int) -> None:
        if self._out.size:
            self._out.close()
            self._out = self._work.archive.new_file()
        self._part.write(frames, cast("BinaryIO", self._out), rows=rows)

    def publish(self, rows: int, *, number: int) -> RenderedFile:
        """Put the part into the archive and return what the ledger says of it; `number` counts over all segments."""
        file = self._part.file
        return RenderedFile(
            key=self._key,
            part=number,
            segment=self._segment,
            name=self._part.name,
            rows=rows,
            media_type=file.packing.media_type(file.format.media_type),
            **self._work.publish(self._out, f"{self._key}-{number}"),
        )
