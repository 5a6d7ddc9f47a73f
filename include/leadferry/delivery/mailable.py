"""What travels in one mail, decided when the files are rendered: sizes are known then, and every try sends the same.

A mail that would be too large is made smaller by the remedies of its destination, in their order. What they make,
a zip or the parts of a file, is stored like every file of the delivery (I3).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from leadferry.archive import Archive
from leadferry.batch.files import Split
from leadferry.batch.model import Batch
from leadferry.batch.routes import Rendition, renditions
from leadferry.delivery import control
from leadferry.delivery.plan import Load
from leadferry.delivery.variables import file_variables, test_mark
from leadferry.destinations.base import DestinationBase
from leadferry.destinations.email import Email
from leadferry.destinations.email.message import encoded, estimate, payload
from leadferry.destinations.parcel import BLOCK, Link, OutgoingFile, Parcel
from leadferry.errors import RenderError
from leadferry.file_names import with_part
from leadferry.packing.container import ZipContainer
from leadferry.packing.zip import Zip
from leadferry.states import FileKind
from leadferry.store.ledger import Delivery, RenderedFile

_SMALLEST_PART = 1000
"""Bytes; below that, a part is no file that anybody wants."""
_SLACK = 1024
"""Bytes of a message that a part leaves free, because its final name is longer than the name of the whole file."""
_LONGEST_LINK = "x" * 2048


@dataclass(frozen=True)
class Loader:
    """Divides the files of one delivery among mails."""

    batch: Batch
    delivery: Delivery
    archive: Archive
    rerender: Callable[[Rendition], list[RenderedFile]]
    """Renders one file of the batch anew, with another split."""
    variants: list[RenderedFile] = field(default_factory=list)
    """What was made besides the delivery's files."""
    _made: dict[tuple[str, ...], list[RenderedFile]] = field(default_factory=dict)

    def loads(
        self, destination: DestinationBase, addressee: str | None, files: Sequence[RenderedFile]
    ) -> list[Load]:
        """Return what travels together to one addressee."""
        if not destination.sends_files_together:
            return [Load(files=(file,)) for file in files]
        if not files or not isinstance(destination, Email):
            return [Load(files=tuple(files))] if files else []
        return self._mails(destination, addressee or "", files)

    def _mails(self, mail: Email, addressee: str, files: Sequence[RenderedFile]) -> list[Load]:
        """Divide among mails; where no remedy helps, one that is too large is left, and not sent."""
        if mail.max_message is None or self._fits(mail, addressee, files):
            return [Load(files=tuple(files))]
        remedies = {"zip": self._zip, "split": self._split, "link": self._link}
        for name in mail.when_too_large:
            if name in remedies and (loads := remedies[name](mail, addressee, files)):
                return loads
        return [Load(files=tuple(files))]

    def _size(
        self, mail: Email, addressee: str, files: Sequence[RenderedFile], *, linked: bool = False
    ) -> int:
        expires = datetime(2000, 1, 1, tzinfo=UTC)
        links = tuple(
            Link(name=file.name, url=_LONGEST_LINK, expires=expires, via="", location="")
            for file in files
            if linked and file.kind is FileKind.LEADS
        )
        names = ", ".join(file.name for file in files if file.kind is not FileKind.CHART)
        return estimate(
            mail,
            Parcel(
                key="",
                attempt=1,
                files=tuple(_as_outgoing(file) for file in files),
                addressee=addressee,
                variables=file_variables(self.batch, self.delivery, file_name=names),
                links=links,
                part=99,
                parts=99,
            ),
        )

    def _fits(self, mail: Email, addressee: str, files: Sequence[RenderedFile]) -> bool:
        return self._size(mail, addressee, files) <= (mail.max_message or 0)

    def _zip(self, mail: Email, addressee: str, files: Sequence[RenderedFile]) -> list[Load]:
        packed = [file for file in files if file.kind is not FileKind.CHART]
        kept = [file for file in files if file.kind is FileKind.CHART]
        key = (mail.id, "zip", *(f"{file.kind}.{file.key}.{file.part}" for file in packed))
        if key not in self._made:
            self._made[key] = [self._zipped(mail, packed)]
        load = (*self._made[key], *kept)
        if not self._fits(mail, addressee, load):
            return []
        self._keep(self._made[key])
        return [Load(files=load, remedy="zip")]

    def _zipped(self, mail: Email, files: Sequence[RenderedFile]) -> RenderedFile:
        stem = (
            files[0].name
            if len(files) == 1
            else f"{test_mark(self.delivery)}{self.batch.id}_{self.delivery.id}"
        )
        with self.archive.new_file() as out:
            with Zip().container(cast("BinaryIO", out)) as box:
                for file in files:
                    self._put(file, box)
            out.finish()
            key = f"{self.batch.id}/{self.delivery.id}/{mail.id}-zip-{out.sha256[:16]}"
            self.archive.publish(out, key)
            return RenderedFile(
                kind=FileKind.VARIANT,
                key=f"{mail.id}.zip.{out.sha256[:8]}",
                part=1,
                name=f"{stem}.zip",
                sha256=out.sha256,
                size=out.size,
                rows=sum(file.rows for file in files),
                media_type="application/zip",
                archive_key=key,
            )

    def _put(self, file: RenderedFile, box: ZipContainer) -> None:
        with (
            box.open(file.name) as member,
            self.archive.local_copy(file.archive_key, sha256=file.sha256) as path,
            path.open("rb") as stored,
        ):
            while block := stored.read(BLOCK):
                member.write(block)

    def _split(self, mail: Email, addressee: str, files: Sequence[RenderedFile]) -> list[Load]:
        charts = [file for file in files if file.kind is FileKind.CHART]
        divided = self._divided(mail, addressee, files, charts)
        groups = list(self._grouped(mail, addressee, divided, charts))
        if not all(self._fits(mail, addressee, group) for group in groups):
            return []
        self._keep([file for file in divided if file.kind is FileKind.VARIANT])
        return [
            Load(files=tuple(group), remedy="split", part=number, parts=len(groups))
            for number, group in enumerate(groups, 1)
        ]

    def _grouped(
        self,
        mail: Email,
        addressee: str,
        files: Sequence[RenderedFile],
        charts: Sequence[RenderedFile],
    ) -> Iterator[list[RenderedFile]]:
        """Yield as many files at a time as one message carries, in their order; the chart is in every message."""
        group: list[RenderedFile] = []
        for file in files:
            if group and not self._fits(mail, addressee, [*group, file, *charts]):
                yield [*group, *charts]
                group = []
            group.append(file)
        yield [*group, *charts]

    def _divided(
        self,
        mail: Email,
        addressee: str,
        files: Sequence[RenderedFile],
        charts: Sequence[RenderedFile],
    ) -> list[RenderedFile]:
        """Return the files, those that no message can carry in parts; what tells of them is written anew then."""
        leads = [file for file in files if file.kind is FileKind.LEADS]
        large = {file.key for file in leads if not self._fits(mail, addressee, [file, *charts])}
        if not large:
            return [file for file in files if file.kind is not FileKind.CHART]
        parts: list[RenderedFile] = []
        for key in dict.fromkeys(file.key for file in leads):
            whole = [file for file in leads if file.key == key]
            parts += self._parts(mail, addressee, whole, charts) if key in large else whole
        told = [control.store(self.archive, one) for one in control.told_of(self.batch, self.delivery, parts)]
        return [
            *(file if file.key not in large else _variant(mail, file) for file in parts),
            *(_variant(mail, one) for one in told),
        ]

    def _parts(
        self,
        mail: Email,
        addressee: str,
        whole: Sequence[RenderedFile],
        charts: Sequence[RenderedFile],
    ) -> list[RenderedFile]:
        known = renditions(self.batch.loose_files, self.batch.destinations)
        rendition = next((one for one in known if one.key == whole[0].key), None)
        if rendition is None:
            return list(whole)  # a bundle goes whole
        overhead = max(self._size(mail, addressee, [one, *charts]) - encoded(one.size) for one in whole)
        most = payload((mail.max_message or 0) - overhead - _SLACK)
        if most < _SMALLEST_PART:
            return list(whole)
        key = (mail.id, "parts", rendition.key, str(most))
        if key not in self._made:
            self._made[key] = self._rendered(rendition, most) or list(whole)
        return self._made[key]

    def _rendered(self, rendition: Rendition, most: int) -> list[RenderedFile]:
        file = rendition.file
        if "file.parts" in file.texts and (file.split or file.control):
            return []  # it would tell a number of parts that is not known yet
        rows = file.split.rows if file.split else None
        limit = min(most, file.split.bytes or most) if file.split else most
        smaller = file.model_copy(
            update={"split": Split(rows=rows, bytes=limit), "name": with_part(file.name)}
        )
        try:
            return self.rerender(replace(rendition, file=smaller))
        except RenderError:
            return []  # a part with a single lead would still be too large

    def _link(self, mail: Email, addressee: str, files: Sequence[RenderedFile]) -> list[Load]:
        if self._size(mail, addressee, files, linked=True) > (mail.max_message or 0):
            return []
        return [Load(files=tuple(files), remedy="link")]

    def _keep(self, files: Sequence[RenderedFile]) -> None:
        """Bring variants into the ledger, each once, however many recipients get it."""
        known = {(one.key, one.part) for one in self.variants}
        self.variants.extend(one for one in files if (one.key, one.part) not in known)


def _variant(mail: Email, file: RenderedFile) -> RenderedFile:
    """Return a file as one that only this destination gets."""
    key = f"{mail.id}.{file.kind}.{file.key}.{file.sha256[:8]}"  # recipients with longer texts may get smaller parts
    return replace(file, kind=FileKind.VARIANT, key=key)


def _as_outgoing(file: RenderedFile) -> OutgoingFile:
    """Return a file as a message lists it; it is not read."""
    return OutgoingFile(
        name=file.name,
        path=Path(os.devnull),
        size=file.size,
        sha256=file.sha256,
        rows=file.rows,
        media_type=file.media_type,
        inline=file.kind is FileKind.CHART,
    )
