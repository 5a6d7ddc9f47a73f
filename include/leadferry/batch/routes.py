"""Which file goes to which destination, and in which parts: what a batch file says of it, and what cannot be meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from leadferry.batch.files import OutputFile, Split
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
        takers: dict[Split | None, list[str]] = {}
        for destination in _takers(file, destinations):
            takers.setdefault(_split(file, destination), []).append(destination.id)
        for split, ids in (takers or {file.split: []}).items():
            yield Rendition(
                key=file.id if split == file.split else f"{file.id}.{ids[0]}",
                file=file.model_copy(update={"split": split}),
                destinations=frozenset(ids),
            )


def _takers(file: OutputFile, destinations: Destinations) -> list[DestinationBase]:
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


def route_problems(files: Files, destinations: Destinations, labels: Sequence[str]) -> Iterator[Problem]:
    """Yield what cannot be meant, with the place to correct; `labels` are those of the batch's fields."""
    for index, destination in enumerate(destinations):
        at = ("destinations", index)
        coming = [file for file in files if destination in _takers(file, [destination])]
        yield from (((*at, key), text) for key, text in _limit_problems(destination, coming))
        yield from (((*at, "segments"), text) for text in _segment_problems(destination, coming))
    for index, file in enumerate(files):
        yield from ((("files", index, "segment"), text) for text in _homeless_segments(file, destinations))
        yield from ((("files", index, *key), text) for key, text in _label_problems(file, labels))


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
    takers = _takers(file, destinations)
    if file.segment is None or not takers or any(one.segments is None for one in takers):
        return
    taken = {name for one in takers for name in one.segments or ()}
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
