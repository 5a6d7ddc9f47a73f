"""Departures that get in each other's way, or that reach a recipient who is closed, found before they happen.

A recipient has no hours of its own: what is known of them stands in the calendars that its batches depart by. So a batch
is also compared with the calendars of the recipient's other batches, which its own timetable knows nothing of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import combinations, takewhile

from leadferry.batch.model import Batch
from leadferry.destinations import Destination
from leadferry.file_names import file_name
from leadferry.schedule import Calendar, Departure, departures
from leadferry.schedule.clock import write_clock
from leadferry.schedule.instants import resolve
from leadferry.schedule.model import Scheduled
from leadferry.schedule.opening import GRACE, closed
from leadferry.templates import variables
from leadferry.zones import time_zone, told_moment

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Two batches at one place in one minute, or one departure at a time at which its recipient is closed."""

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
    known = _opening_times(batches)
    for batch in batches:
        if not batch.enabled:
            continue  # its calendar tells of the recipient all the same
        for departure in _until(batch, start=start, end=start + span):
            found += _while_closed(batch, departure, known[batch.recipient.id])
            minute = departure.utc.replace(second=0, microsecond=0)
            for destination in batch.destinations:
                meetings[minute, batch.recipient.id, destination.where].append((batch, destination))
    found += _first_meetings(meetings)
    first: dict[tuple[tuple[str, ...], str], Conflict] = {}
    for conflict in sorted(found, key=lambda one: one.utc):
        first.setdefault((conflict.batches, conflict.where), conflict)
    return list(first.values())


def _until(batch: Batch, *, start: datetime, end: datetime) -> Iterator[Departure]:
    found = departures(batch.schedule, timezone=batch.timezone, after=start, batch_id=batch.id)
    return takewhile(lambda one: one.utc <= end, found)


@dataclass(frozen=True, kw_only=True)
class _OpeningTimes:
    """What one batch's schedule says about the hours of its recipient."""

    batch_id: str
    schedule: Scheduled
    calendar: Calendar
    zone: str

    def __str__(self) -> str:
        return f"calendar {self.calendar} of {self.batch_id}"

    @property
    def named(self) -> tuple[str, str]:
        """Two batches with the same calendar in the same zone say the same."""
        return self.calendar.id, self.zone

    def why_closed(self, moment: datetime) -> str | None:
        """Say until when and why nothing is welcome at an aware moment; None when it is."""
        held = closed(self.schedule, moment, timezone=self.zone)
        if held is not None:
            return f"until {told_moment(held.until, zone=self.zone)}: {held.reason}"
        wall = moment.astimezone(time_zone(self.zone)).replace(tzinfo=None)
        reason = self._why_closed_without_hours(wall)
        return None if reason is None else f"{self._until_the_next_day(wall.date())}: {reason}"

    def _why_closed_without_hours(self, wall: datetime) -> str | None:
        """Ask for what moves a timetable, but holds nothing that a person wants to send: days without work, half days."""
        day = wall.date()
        why, ends = self.calendar.why_closed(day), self.calendar.closes_at(day)
        if why and self.schedule.policy_on(weekend=self.calendar.is_weekend(day)) != "deliver":
            return f"{day:%a %Y-%m-%d} is closed ({why})"
        if ends and wall > datetime.combine(day, ends) + GRACE:
            return f"{day:%a %Y-%m-%d} is a half day that ends at {write_clock(ends)}"
        return None

    def _until_the_next_day(self, day: date) -> str:
        following = self.calendar.nearest_open(day + _DAY, step=1)
        if following is None:
            return "for good"
        opens = self.calendar.hours.opens if self.calendar.hours else time()
        wall = datetime.combine(following, opens)
        return f"until {told_moment(resolve(wall, zone=time_zone(self.zone)).utc, zone=self.zone)}"


def _opening_times(batches: Sequence[Batch]) -> Mapping[str, list[_OpeningTimes]]:
    """Return what is known of the hours of each recipient, by its id: every calendar of its batches once."""
    found: dict[str, list[_OpeningTimes]] = defaultdict(list)
    for batch in batches:
        times = _of(batch)
        if times is not None and times.named not in {one.named for one in found[batch.recipient.id]}:
            found[batch.recipient.id].append(times)
    return found


def _of(batch: Batch) -> _OpeningTimes | None:
    if batch.schedule == "manual" or batch.schedule.calendar is None:
        return None
    return _OpeningTimes(
        batch_id=batch.id,
        schedule=batch.schedule,
        calendar=batch.schedule.calendar,
        zone=batch.schedule_zone,
    )


def _while_closed(batch: Batch, departure: Departure, known: Sequence[_OpeningTimes]) -> Iterator[Conflict]:
    """Tell of a departure at which a calendar of its recipient is closed, its own and those of other batches."""
    own = _of(batch)
    if own is not None:
        yield from _against_its_own(batch, departure, own)
    for times in known:
        why = None if own is not None and own.named == times.named else times.why_closed(departure.utc)
        if why:
            told = f"departs {told_moment(departure.utc, zone=times.zone)}, when {batch.recipient.id} is closed {why}"
            yield Conflict(utc=departure.utc, batches=(batch.id,), where=str(times), problem=told)


def _against_its_own(batch: Batch, departure: Departure, own: _OpeningTimes) -> Iterator[Conflict]:
    """Tell of a departure that its own schedule does not move, and of second chances that would have to wait."""
    reason = own.calendar.why_closed(departure.local.date())
    if reason:
        told = f"departs although {departure.local:%a %Y-%m-%d} is closed ({reason})"
        yield Conflict(utc=departure.utc, batches=(batch.id,), where=f"calendar {own.calendar}", problem=told)
    again = {at for destination in batch.destinations for at in batch.retry_of(destination.id).at}
    for at in sorted(again):
        utc = resolve(datetime.combine(departure.local.date(), at), zone=time_zone(own.zone)).utc
        held = closed(own.schedule, utc, timezone=own.zone)
        if held and utc > departure.utc:
            told = f"a second chance {told_moment(utc, zone=own.zone)} is held until {told_moment(held.until, zone=own.zone)}: {held.reason}"
            where = f"retry.at {write_clock(at)}"
            yield Conflict(utc=utc, batches=(batch.id,), where=where, problem=told)


def _first_meetings(
    meetings: Mapping[tuple[datetime, str, str], list[tuple[Batch, Destination]]],
) -> Iterator[Conflict]:
    """Tell of the first meeting of each pair at each place: batches that meet every minute would take minutes to name."""
    groups: set[tuple[str, tuple[str, ...]]] = set()
    pairs: set[tuple[str, str, str]] = set()
    for (minute, _, where), guests in sorted(meetings.items(), key=lambda one: one[0]):
        group = where, tuple(batch.id for batch, _ in guests)
        if group in groups:
            continue
        groups.add(group)
        for (one, to_one), (other, to_other) in combinations(guests, 2):
            if one.id != other.id and (one.id, other.id, where) not in pairs:
                pairs.add((one.id, other.id, where))
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
