"""Which rendered file goes where: one dispatch for each file, destination and addressee."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from leadferry.batch.model import Batch
from leadferry.batch.routes import renditions, takers
from leadferry.delivery.records import RECORDS
from leadferry.destinations.base import DestinationBase
from leadferry.errors import RenderError
from leadferry.states import FileKind
from leadferry.store.ledger import Delivery, PlannedDispatch, RenderedFile

View = tuple[RenderedFile, ...]
"""The files with leads that one destination gets."""


def views(batch: Batch, files: Sequence[RenderedFile]) -> dict[str, View]:
    """Say for each destination that takes files which of those with leads it gets."""
    goes_to = {one.key: one.destinations for one in renditions(batch.loose_files, batch.destinations)}
    for bundle in batch.bundles:
        goes_to[bundle.id] = frozenset(one.id for one in takers(bundle, batch.destinations))
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


@dataclass(frozen=True, kw_only=True)
class Load:
    """What travels in one parcel."""

    files: tuple[RenderedFile, ...]
    remedy: str = ""
    """What was done because one mail would have been too large; empty where it is not."""
    part: int = 1
    parts: int = 1


Loads = Callable[[DestinationBase, str | None, Sequence[RenderedFile]], Sequence[Load]]
"""Says what of that which an addressee gets travels together."""


def plan(
    batch: Batch, delivery: Delivery, files: Sequence[RenderedFile], loads: Loads
) -> list[PlannedDispatch]:
    """Say which file goes where.

    Raises:
        RenderError: two files would meet under one name at a destination.
    """
    planned: list[PlannedDispatch] = []
    for destination in batch.destinations:
        if destination.id in batch.stores_for_links:
            continue
        going = list(_going(batch, destination, files))
        _refuse_equal_names(going)
        for addressee in destination.addressees():
            mine = _wanted(destination, addressee, going)
            for load in loads(destination, addressee, mine):
                key = _parcel_key(batch, delivery, destination, addressee, load)
                planned += _dispatches(
                    destination, addressee, load, way=batch.way_of(destination.id), parcel_key=key
                )
    return planned


def _dispatches(
    destination: DestinationBase, addressee: str | None, load: Load, *, way: str, parcel_key: str
) -> Iterator[PlannedDispatch]:
    for file in load.files:
        yield PlannedDispatch(
            file_kind=file.kind,
            file_key=file.key,
            file_part=file.part,
            destination=destination.id,
            way=way,
            addressee=addressee or "",
            parcel_key=parcel_key,
            remedy=load.remedy,
        )


def _wanted(
    destination: DestinationBase, addressee: str | None, going: Sequence[RenderedFile]
) -> list[RenderedFile]:
    """Return what one addressee gets of it: a manifest only where it tells of exactly that."""
    wanted = destination.files_for(addressee)
    if wanted == destination.files:
        return list(going)
    with_files = {FileKind.LEADS, FileKind.CHECKSUM}
    return [
        file
        for file in going
        if file.kind is FileKind.CHART
        or (file.kind in with_files and file.key.partition(".")[0] in (wanted or ()))
    ]


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
            case FileKind.CHART:
                goes = file.key == destination.id
            case FileKind.VARIANT:
                goes = False  # made for a mail that would be too large, after this
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
    batch: Batch, delivery: Delivery, destination: DestinationBase, addressee: str | None, load: Load
) -> str:
    """Name a parcel: the same for every try, never the same for two parcels, and without an address in it."""
    parts: list[Any] = [batch.id, delivery.id, destination.id]
    if not destination.sends_files_together:
        (file,) = load.files
        parts += [file.key, file.part] if file.kind is FileKind.LEADS else [file.kind, file.key, file.part]
    if load.parts > 1:
        parts.append(f"{load.part}of{load.parts}")
    if addressee is not None:
        parts.append(hashlib.sha256(addressee.encode()).hexdigest()[:12])
    return ".".join(map(str, parts))
