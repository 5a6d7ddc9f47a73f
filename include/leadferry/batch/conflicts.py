"""Departures of different batches that get in each other's way, found before they happen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations, takewhile

from leadferry.batch.model import Batch
from leadferry.destinations import Destination
from leadferry.schedule import Departure, departures
from leadferry.templates import file_name, variables


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Two batches at one place in one minute, or one departure on a closed day."""

    utc: datetime
    batches: tuple[str, ...]
    where: str
    problem: str


def conflicts(batches: Sequence[Batch], *, start: datetime, span: timedelta) -> list[Conflict]:
    """Return what is in conflict between two moments, in order of time; each pair and place is told once.

    Args:
        batches: those that load.
        start: aware.
        span: how far to look ahead.
    """
    meetings: dict[tuple[datetime, str, str], list[tuple[Batch, Destination]]] = defaultdict(list)
    found: list[Conflict] = []
    for batch in batches:
        for departure in _until(batch, start=start, end=start + span):
            found += _on_closed_day(batch, departure)
            minute = departure.utc.replace(second=0, microsecond=0)
            for destination in batch.destinations:
                meetings[minute, batch.recipient.id, destination.where].append((batch, destination))
    for (minute, _, where), guests in sorted(meetings.items(), key=lambda one: one[0]):
        found += _meeting(minute, where, guests)
    first: dict[tuple[tuple[str, ...], str], Conflict] = {}
    for conflict in sorted(found, key=lambda one: one.utc):
        first.setdefault((conflict.batches, conflict.where), conflict)
    return list(first.values())


def _until(batch: Batch, *, start: datetime, end: datetime) -> Iterator[Departure]:
    found = departures(batch.schedule, timezone=batch.timezone, after=start, batch_id=batch.id)
    return takewhile(lambda one: one.utc <= end, found)


def _on_closed_day(batch: Batch, departure: Departure) -> Iterator[Conflict]:
    """Tell of departures on days that the batch's own calendar closes."""
    calendar = None if batch.schedule == "manual" else batch.schedule.calendar
    reason = calendar.why_closed(departure.local.date()) if calendar else None
    if reason:
        told = f"departs although {departure.local:%a %Y-%m-%d} is closed ({reason})"
        yield Conflict(utc=departure.utc, batches=(batch.id,), where=f"calendar {calendar}", problem=told)


def _meeting(minute: datetime, where: str, guests: list[tuple[Batch, Destination]]) -> Iterator[Conflict]:
    for (one, to_one), (other, to_other) in combinations(guests, 2):
        if one.id == other.id:
            continue
        same = sorted(_names(one, to_one, minute) & _names(other, to_other, minute))
        told = f"both write {', '.join(same)}" if same else "both deliver in the same minute"
        yield Conflict(utc=minute, batches=(one.id, other.id), where=where, problem=told)


def _names(batch: Batch, destination: Destination, at: datetime) -> set[str]:
    """Return the names that the files of this departure will have, as if it were the batch's first."""
    known = variables(
        batch_id=batch.id,
        batch_name=batch.name,
        batch_description=batch.description,
        recipient_id=batch.recipient.id,
        recipient_name=batch.recipient.name,
        timezone=batch.recipient.timezone or batch.timezone,
        locale=batch.recipient.locale,
        delivery_id="1",
        delivery_number=1,
        departs_at=at,
        window_from=None,
        window_to=at,
        lead_count=1,
    )
    return {file_name(file.name, known) for file in batch.files_for(destination.id)}
