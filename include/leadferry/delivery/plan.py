"""Which rendered file goes where: one dispatch for each file, destination and addressee."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from leadferry.batch.model import Batch
from leadferry.batch.routes import renditions
from leadferry.delivery.records import RECORDS
from leadferry.destinations.base import DestinationBase
from leadferry.errors import RenderError
from leadferry.states import FileKind
from leadferry.store.ledger import Delivery, PlannedDispatch, RenderedFile

View = tuple[RenderedFile, ...]
"""The files with leads that one destination gets."""


def views(batch: Batch, files: Sequence[RenderedFile]) -> dict[str, View]:
    """Say for each destination that takes files which of those with leads it gets."""
    goes_to = {one.key: one.destinations for one in renditions(batch.files, batch.destinations)}
    return {
        destination.id: tuple(
            file
            for file in files
            if file.kind is FileKind.LEADS
            and destination.id in goes_to.get(file.key, ())
            # Without any lead there is one file, which belongs to no segment.
            and (destination.segments is None or file.segment in {"", *destination.segments})
        )
        for destination in batch.destinations
        if destination.takes == "files"
    }


def manifests(batch: Batch, files: Sequence[RenderedFile]) -> dict[View, str]:
    """Return the key of the manifest for each different set of files: a manifest tells of nothing that does not come."""
    keys: dict[View, str] = {}
    for destination, view in views(batch, files).items():
        if view and view not in keys:
            keys[view] = f"manifest.{destination}" if keys else "manifest"
    return keys


def plan(batch: Batch, delivery: Delivery, files: Sequence[RenderedFile]) -> list[PlannedDispatch]:
    """Say which file goes where.

    Raises:
        RenderError: two files would meet under one name at a destination.
    """
    planned: list[PlannedDispatch] = []
    for destination in batch.destinations:
        going = list(_going(batch, destination, files))
        _refuse_equal_names(going)
        planned += [
            PlannedDispatch(
                file_kind=file.kind,
                file_key=file.key,
                file_part=file.part,
                destination=destination.id,
                addressee=addressee or "",
                parcel_key=_parcel_key(
                    batch,
                    delivery,
                    destination.id,
                    addressee,
                    None if destination.sends_files_together else file,
                ),
            )
            for addressee in destination.addressees()
            for file in going
        ]
    return planned


def _going(
    batch: Batch, destination: DestinationBase, files: Sequence[RenderedFile]
) -> Iterator[RenderedFile]:
    """Yield what goes to a destination: its files with leads, and what tells of them."""
    if destination.takes == "leads":
        yield from (file for file in files if file.key == RECORDS)
        return
    view = views(batch, files)[destination.id]
    with_leads = {(file.key, file.part) for file in view}
    manifest = manifests(batch, files).get(view)
    for file in files:
        match file.kind:
            case FileKind.LEADS | FileKind.CHECKSUM:
                goes = (file.key, file.part) in with_leads
            case FileKind.MANIFEST:
                goes = file.key == manifest
            case FileKind.DONE:
                # In a message everything is there at once.
                goes = bool(view) and not destination.sends_files_together
        if goes:
            yield file


def _refuse_equal_names(files: Sequence[RenderedFile]) -> None:
    """Refuse files that would meet under one name at a destination, also where case does not count."""
    seen: dict[str, RenderedFile] = {}
    for file in files:
        twin = seen.setdefault(file.name.casefold(), file)
        if twin is not file:
            raise RenderError(
                f"part {twin.part} of file {twin.key!r} and part {file.part} of file {file.key!r} would have the same name",
                hint="Change the names in the batch file; the leads are back in the queue",
            )


def _parcel_key(
    batch: Batch, delivery: Delivery, destination_id: str, addressee: str | None, file: RenderedFile | None
) -> str:
    """Name a parcel: the same for every try, never the same for two parcels, and without an address in it."""
    parts: list[Any] = [batch.id, delivery.id, destination_id]
    if file is not None:
        parts += [file.key, file.part] if file.kind is FileKind.LEADS else [file.kind, file.key, file.part]
    if addressee is not None:
        parts.append(hashlib.sha256(addressee.encode()).hexdigest()[:12])
    return ".".join(map(str, parts))
