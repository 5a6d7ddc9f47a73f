"""One alert and one recovery for each incident: by mail to `notify.failure`, and in the log."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from leadferry.batch.model import Notify
from leadferry.delivery.notices import send_notice
from leadferry.store import incidents
from leadferry.store.database import Database
from leadferry.store.incidents import Incident
from leadferry.watch.look import Look, look
from leadferry.zones import told_moment

_log = logging.getLogger(__name__)

_NAMES_IN_SUBJECT = 3


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a look came to."""

    batches: int
    """How many batch files there are."""
    begun: list[Incident]
    """Incidents that were told now."""
    ended: list[Incident]
    """Recoveries that were told now."""
    open: list[Incident]
    """All that is wrong."""

    @property
    def counts(self) -> dict[str, int]:
        """The numbers alone."""
        return {
            "batches": self.batches,
            "begun": len(self.begun),
            "ended": len(self.ended),
            "open": len(self.open),
        }


def watch(database: Database, config: Path, *, now: datetime) -> Watched:
    """Look once, write down what began and what is over, and tell it.

    What cannot be told because the mail server fails is told with the next look.
    A process that dies between the mail and the note of it makes the next look send it again.

    Args:
        database: the lead store.
        config: see `leadferry.project.config_folder`.
        now: the present, aware.
    """
    with incidents.sole_watcher(database):
        seen = look(database, config, now=now)
        incidents.record(database, seen.findings(), now=now)
        news = incidents.untold(database)
        for one in news:
            if one.recovered_at is None:
                since = told_moment(one.since, zone=seen.zone(one.batch))
                _log.warning("%s since %s: %s", one.kind, since, one.detail)
            else:
                _log.info("Over: %s of batch %s", one.kind, one.batch)
        reached = _tell(seen, news)
        incidents.told(database, reached, now=now)
        return Watched(
            batches=len(seen.batches) + len(seen.broken),
            begun=[one for one in reached if one.recovered_at is None],
            ended=[one for one in reached if one.recovered_at is not None],
            open=incidents.open_incidents(database),
        )


def _tell(seen: Look, news: Sequence[Incident]) -> list[Incident]:
    """Send one mail to each person with all that concerns them; return what was told, or has nobody to be told to."""
    notify = {one.batch: seen.notify(one.batch) for one in news}
    silent = {one.id for one in news if not notify[one.batch].failure}
    failed: set[int] = set()
    for (connection, person), mine in _by_person(news, notify).items():
        key = hashlib.sha256(f"{person} {[(one.id, one.recovered_at) for one in mine]}".encode()).hexdigest()
        sent = send_notice(
            connection=connection,
            people=[person],
            key=f"watch.{key[:24]}",
            subject=_subject(mine),
            text=_text(mine, seen),
        )
        failed |= set() if sent else {one.id for one in mine}
    for one in news:
        if one.id in silent and one.recovered_at is None:
            _log.warning(
                "Nobody is told of %s of batch %s: `notify.failure` names nobody", one.kind, one.batch
            )
    return [one for one in news if one.id not in failed]


def _by_person(
    news: Sequence[Incident], notify: Mapping[str, Notify]
) -> dict[tuple[str, str], list[Incident]]:
    found: dict[tuple[str, str], list[Incident]] = defaultdict(list)
    for one in news:
        settings = notify[one.batch]
        for person in dict.fromkeys(settings.failure):
            found[settings.connection, person].append(one)
    return found


def _subject(mine: Sequence[Incident]) -> str:
    begun = [one for one in mine if one.recovered_at is None]
    names = list(dict.fromkeys(one.batch for one in begun or mine))
    told = ", ".join(names[:_NAMES_IN_SUBJECT]) + (", …" if len(names) > _NAMES_IN_SUBJECT else "")
    return f"Leadferry: {told}: {'needs attention' if begun else 'is well again'}"


def _text(mine: Sequence[Incident], seen: Look) -> str:
    begun = [f"* {one.detail}" for one in mine if one.recovered_at is None]
    ended = [
        f"* Batch {one.batch}: {one.kind}, since {told_moment(one.since, zone=seen.zone(one.batch))}, is over."
        for one in mine
        if one.recovered_at is not None
    ]
    parts = [("What is wrong:", begun), ("What is over:", ended)]
    return "\n\n".join("\n".join([head, *lines]) for head, lines in parts if lines)
