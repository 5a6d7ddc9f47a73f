"""Which file goes to which destination, and in which parts: what a batch file says of it, and what cannot be meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from leadferry.batch.files import Bundle, OutputFile, Split
from leadferry.destinations.base import DestinationBase

Files = Sequence[OutputFile]
Destinations = Sequence[DestinationBase]
Problem = tuple[tuple[str | int, ...], str]
"""Where in the batch file, and what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Rendition:
    """A file as some destinations get it: divided as they can take it."""

    key: str
    """What the ledger calls it: the file's id, with the first of the destinations behind it where those have limits."""
    file: OutputFile
    """With the limits of these destinations in its `split`."""
    destinations: frozenset[str]


def renditions(files: Files, destinations: Destinations) -> Iterator[Rendition]:
    """Yield how each file is rendered: once for all destinations, and once more for those with smaller limits."""
    for file in files:
        groups: dict[Split | None, list[str]] = {}
        for destination in takers(file, destinations):
            groups.setdefault(_split(file, destination), []).append(destination.id)
        for split, ids in (groups or {file.split: []}).items():
            yield Rendition(
                key=file.id if split == file.split else f"{file.id}.{ids[0]}",
                file=file.model_copy(update={"split": split}),
                destinations=frozenset(ids),
            )


def takers(file: OutputFile | Bundle, destinations: Destinations) -> list[DestinationBase]:
    """Return the destinations that get a file or bundle."""
    return [
        one for one in destinations if one.takes == "files" and (one.files is None or file.id in one.files)
    ]


def _split(file: OutputFile, destination: DestinationBase) -> Split | None:
    """Return the stricter of the file's own limits and the destination's."""
    own = (file.split.rows, file.split.bytes) if file.split else (None, None)
    rows = [one for one in (own[0], destination.max_rows) if one is not None]
    sizes = [one for one in (own[1], destination.max_bytes) if one is not None]
    if not rows and not sizes:
        return None
    return Split(rows=min(rows, default=None), bytes=min(sizes, default=None))


def route_problems(
    files: Files, bundles: Sequence[Bundle], destinations: Destinations, labels: Sequence[str]
) -> Iterator[Problem]:
    """Yield what cannot be meant, with the place to correct; `labels` are those of the batch's fields."""
    loose = [file for file in files if not any(file.id in bundle.files for bundle in bundles)]
    yield from _bundle_problems(files, bundles)
    for index, destination in enumerate(destinations):
        at = ("destinations", index)
        coming = [file for file in loose if takers(file, [destination])]
        zipped = [bundle for bundle in bundles if takers(bundle, [destination])]
        yield from (((*at, key), text) for key, text in _bundle_limits(destination, zipped))
        yield from (((*at, "files"), text) for text in _bundled_alone(destination, bundles))
        yield from (((*at, key), text) for key, text in _limit_problems(destination, coming))
        yield from (((*at, "segments"), text) for text in _segment_problems(destination, coming))
    for index, file in enumerate(files):
        if file in loose:
            homeless = _homeless_segments(file, destinations)
            yield from ((("files", index, "segment"), text) for text in homeless)
        yield from ((("files", index, *key), text) for key, text in _label_problems(file, labels))


def _bundle_problems(files: Files, bundles: Sequence[Bundle]) -> Iterator[Problem]:
    known = {file.id: file for file in files}
    bundled: dict[str, str] = {}
    for index, bundle in enumerate(bundles):
        if bundle.id in known:
            yield (
                ("bundles", index, "id"),
                f"there is a file {bundle.id!r} already; give the bundle another id",
            )
        for position, wanted in enumerate(bundle.files):
            text = _unbundled(wanted, known, bundled.setdefault(wanted, bundle.id), bundle)
            if text or wanted in bundle.files[:position]:
                yield ("bundles", index, "files", position), text or f"{wanted!r} stands twice"


def _unbundled(wanted: str, known: Mapping[str, OutputFile], owner: str, bundle: Bundle) -> str | None:
    """Say why a file cannot be in a bundle; None when it can."""
    if wanted not in known:
        return f"there is no file {wanted!r}; known: {', '.join(sorted(known))}"
    if owner != bundle.id:
        return f"file {wanted!r} is in bundle {owner!r} already"
    file = known[wanted]
    if file.split is not None and file.split.bytes is not None:
        return (
            f"file {wanted!r} is divided by bytes, which cannot be done inside a zip file; divide it by rows"
        )
    if file.checksum:
        return f"file {wanted!r} has a checksum of its own; leave it out, and give the bundle one"
    return None


def _bundle_limits(destination: DestinationBase, zipped: Sequence[Bundle]) -> Iterator[tuple[str, str]]:
    for key in ("max_rows", "max_bytes", "segments"):
        if getattr(destination, key) is not None:
            for bundle in zipped:
                yield key, f"bundle {bundle.id!r} goes whole and cannot be divided; leave one of the two out"


def _bundled_alone(destination: DestinationBase, bundles: Sequence[Bundle]) -> Iterator[str]:
    owners = {file: bundle.id for bundle in bundles for file in bundle.files}
    for wanted in destination.files or []:
        if wanted in owners:
            yield f"file {wanted!r} is sent in bundle {owners[wanted]!r}; name that"


def _limit_problems(destination: DestinationBase, coming: Files) -> Iterator[tuple[str, str]]:
    limits = {"max_rows": destination.max_rows, "max_bytes": destination.max_bytes}
    for key, limit in limits.items():
        if limit is None:
            continue
        if destination.takes == "leads":
            yield key, "this destination takes leads, not files; leave it out"
        for file in coming:
            if not re.search(r"\bfile\.part\b", file.name):
                yield key, f"file {file.id!r} may be divided, so its name must contain {{{{ file.part }}}}"
            if key == "max_bytes" and "file.parts" in file.texts:
                yield (
                    key,
                    f"file {file.id!r} tells {{{{ file.parts }}}}, which is not known beforehand with a limit in bytes",
                )


def _segment_problems(destination: DestinationBase, coming: Files) -> Iterator[str]:
    if destination.segments is None:
        return
    if destination.takes == "leads":
        yield "this destination takes leads, not files, and would get all of them; leave it out, and choose by rules"
    for file in coming:
        if file.segment is None:
            yield f"file {file.id!r} has no segments and would come whole; give it segment, or name the others in files"
            continue
        for name in destination.segments:
            if name not in file.segment.names:
                known = ", ".join(file.segment.names)
                yield f"file {file.id!r} has no segment {name!r}; there is {known}"


def _homeless_segments(file: OutputFile, destinations: Destinations) -> Iterator[str]:
    """Every lead must go somewhere: a segment that no destination takes would vanish in a delivery that succeeds."""
    served = takers(file, destinations)
    if file.segment is None or not served or any(one.segments is None for one in served):
        return
    taken = {name for one in served for name in one.segments or ()}
    for name in file.segment.names:
        if name not in taken:
            yield f"no destination takes segment {name!r}; add it to the segments of one, or withhold those leads"


def _label_problems(file: OutputFile, labels: Sequence[str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    known = ", ".join(labels)
    lists: dict[tuple[str, ...], list[str]] = {
        ("fields",): file.fields or [],
        ("control", "sums"): file.control.sums if file.control else [],
    }
    for key, named in lists.items():
        for position, label in enumerate(named):
            if label not in labels:
                yield (*key, position), f"there is no field {label!r}; there is {known}"
            if label in named[:position]:
                yield (*key, position), f"{label!r} stands twice"
    if set(file.fields or []) <= set(labels):
        yield from ((("format",), told) for told in file.format.problems(file.columns(labels)))
