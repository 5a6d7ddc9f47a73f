"""Which destination replaces which, and what cannot be meant: a way is a destination with its fallbacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from leadferry.batch.files import Bundle, OutputFile
from leadferry.batch.routes import Destinations, Files, Problem, renditions, takers
from leadferry.destinations.base import DestinationBase
from leadferry.destinations.email import Email


def ways(destinations: Destinations) -> dict[str, list[str]]:
    """Return the destinations of each way in the order in which they are tried, by the one that is tried first."""
    replaced_by = {one.fallback_for: one.id for one in destinations if one.fallback_for}
    found = {}
    for first in (one.id for one in destinations if one.fallback_for is None):
        found[first] = [first]
        while (following := replaced_by.get(found[first][-1])) is not None:
            found[first].append(following)
    return found


def primary(destinations: Destinations, *, stores: Collection[str]) -> str:
    """Return the destination that `success: primary` asks for: the marked one, or the first that gets files.

    Args:
        destinations: those of the batch.
        stores: ids of destinations that only hold what mails link to.
    """
    first = [one for one in destinations if one.fallback_for is None and one.id not in stores]
    return next((one.id for one in first if one.primary), first[0].id)


def way_problems(
    files: Files,
    bundles: Sequence[Bundle],
    destinations: Destinations,
    *,
    success: str,
    stores: Collection[str],
) -> Iterator[Problem]:
    """Yield what cannot be meant, with the place to correct.

    Args:
        files: those that are sent by themselves.
        bundles: what is sent of the others.
        destinations: those of the batch.
        success: the batch's policy.
        stores: ids of destinations that only hold what mails link to.
    """
    for index, one in enumerate(destinations):
        told = _cannot_replace(one, destinations, seen=[other.fallback_for for other in destinations[:index]])
        if told is not None:
            yield ("destinations", index, "fallback_for"), told
            return  # nothing more can be said before this is right
    reached = {one for way in ways(destinations).values() for one in way}
    for index, one in enumerate(destinations):
        if one.id not in reached:
            told = f"{one.id!r} and {one.fallback_for!r} replace each other, so neither is ever tried"
            yield ("destinations", index, "fallback_for"), told
            return
    yield from _different(files, bundles, destinations, stores=stores)
    yield from _would_come_twice(files, bundles, destinations)
    yield from _unfit_for_the_policy(destinations, success=success, stores=stores)


def _cannot_replace(
    one: DestinationBase, destinations: Destinations, *, seen: Collection[str | None]
) -> str | None:
    """Say why a destination cannot be the fallback that it wants to be; None when it can, or is none."""
    if one.fallback_for is None:
        return None
    others = {other.id: other for other in destinations if other.id != one.id}
    if one.fallback_for not in others:
        return f"there is no other destination {one.fallback_for!r}; known: {', '.join(others) or 'none'}"
    if one.fallback_for in seen:
        return f"{one.fallback_for!r} has a fallback already; a fallback may have one of its own"
    if "leads" in {one.takes, others[one.fallback_for].takes}:
        return (
            "a destination that takes leads one by one cannot be replaced as a whole: some may have arrived"
        )
    return None


def _different(
    files: Files, bundles: Sequence[Bundle], destinations: Destinations, *, stores: Collection[str]
) -> Iterator[Problem]:
    """Yield fallbacks that get other files than what they replace: they could not stand for it."""
    by_id = {one.id: one for one in destinations}
    made = list(renditions(files, destinations))
    all_files: list[OutputFile | Bundle] = [*files, *bundles]
    for index, one in enumerate(destinations):
        if one.fallback_for is None:
            continue
        replaced = by_id[one.fallback_for]
        lacks = [file.id for file in all_files if takers(file, [replaced]) and not takers(file, [one])]
        gets = [file for file in made if replaced.id in file.destinations]
        if lacks:
            told = f"{replaced.id!r}, which it replaces, also gets {', '.join(lacks)}"
            yield ("destinations", index, "files"), told
        elif one.segments != replaced.segments or any(one.id not in file.destinations for file in gets):
            told = f"its files must be those of {replaced.id!r}: the same limits and segments for both"
            yield ("destinations", index, "fallback_for"), told
        elif {one.id, replaced.id} & set(stores):
            told = "what only holds the files that a mail links to neither has a fallback nor is one"
            yield ("destinations", index, "fallback_for"), told


def _would_come_twice(
    files: Files, bundles: Sequence[Bundle], destinations: Destinations
) -> Iterator[Problem]:
    """Yield mails that take files apart or together: which of them arrived elsewhere could not be told apart."""
    replaced = {one.fallback_for: one.id for one in destinations if one.fallback_for}
    for index, mail in enumerate(destinations):
        if not isinstance(mail, Email) or mail.max_message is None:
            continue
        if "split" in mail.when_too_large and mail.id in replaced:
            told = f"leave `split` out: after some of the messages, the fallback {replaced[mail.id]!r} would bring their leads again"
            yield ("destinations", index, "when_too_large"), told
        changed = [one for one in ("zip", "split") if one in mail.when_too_large]
        if changed and mail.fallback_for and _several(files, bundles, mail):
            told = f"leave {' and '.join(f'`{one}`' for one in changed)} out: a file that arrived at {mail.fallback_for!r} would come again with the others"
            yield ("destinations", index, "when_too_large"), told


def _several(files: Files, bundles: Sequence[Bundle], destination: DestinationBase) -> bool:
    """Whether a destination may get more than one file with leads in a delivery."""
    mine = [one.file for one in renditions(files, [destination]) if one.destinations]
    divided = any(file.split is not None or file.segment is not None for file in mine)
    return divided or len(mine) + sum(bool(takers(one, [destination])) for one in bundles) > 1


def _unfit_for_the_policy(
    destinations: Destinations, *, success: str, stores: Collection[str]
) -> Iterator[Problem]:
    """Yield destinations that cannot be what the policy makes of them."""
    marked = [index for index, one in enumerate(destinations) if one.primary]
    for index in marked:
        if destinations[index].fallback_for is not None:
            told = "a fallback counts for the destination that it replaces; mark that one"
            yield ("destinations", index, "primary"), told
        elif destinations[index].id in stores:
            yield ("destinations", index, "primary"), "it only holds the files that a mail links to"
    if len(marked) > 1:
        yield ("destinations", marked[1], "primary"), "only one destination can be the primary one"
    counts = {"any": {one.id for one in destinations}, "primary": {primary(destinations, stores=stores)}}
    for one in destinations:
        if one.id in counts.get(success, ()) and one.segments is not None:
            told = f"with success: {success}, {one.id!r} must get all leads; it gets only some segments"
            yield ("success",), told
