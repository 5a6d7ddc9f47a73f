"""The departures of a schedule: every one after a moment, or the latest one before it.

From the schedule to an instant it is five steps, each of which keeps the order:
the days that the schedule names → what the calendar makes of closed days → times, moved by business hours,
half days and blackouts → instants, by the rule in `instants` → the batch's share of `spread`.

Both directions answer in microseconds once a day has been computed, because Airflow asks again and again,
and give up after `HORIZON` days without a departure, so that no schedule can keep a process busy for ever.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from operator import attrgetter
from zoneinfo import ZoneInfo

from leadferry.schedule.calendar import Calendar, told_hours
from leadferry.schedule.clock import write_clock
from leadferry.schedule.instants import Instant, resolve, second
from leadferry.schedule.model import Cron, Schedule, Timed

HORIZON = 3000
"""Days without a departure after which a schedule counts as ended; a little over eight years, for 29 February."""

_FIRST = datetime(2, 1, 1, tzinfo=UTC)
_LAST = datetime(9998, 1, 1, tzinfo=UTC) - timedelta.resolution
"""What a calendar can be asked about, so that no arithmetic near its ends can overflow."""

_NOTES = 2
"""How many times that fall on one instant are each explained; of more, the first stands for all."""

_TOLD_SKIPS = 4
"""How many left-out days are each told; of more, the first and their number."""

_CHUNK = 8
_LONGEST_CHUNK = 128
_KEPT_DAYS = 64
_DAY = timedelta(days=1)
_utc = attrgetter("utc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Departure:
    """One departure of a schedule."""

    utc: datetime
    """The instant, in UTC."""
    local: datetime
    """The same instant as the schedule's own zone shows it."""
    note: str = ""
    """Why it is not at the time that the schedule names; empty when it is."""


@dataclass(kw_only=True, slots=True)
class _Day:
    """A day on which departures go, and how it came to be one."""

    day: date
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Days since the one before on which nothing goes."""


def departures(
    schedule: Schedule, *, timezone: str, after: datetime, batch_id: str = ""
) -> Iterator[Departure]:
    """Yield the departures strictly after a moment, each later than the one before; none for `manual`.

    Times of the schedule that fall on one instant are one departure.

    Args:
        schedule: a checked schedule.
        timezone: the batch's zone, for a schedule that names none.
        after: any aware moment.
        batch_id: whose share of `spread` counts.

    Raises:
        ValueError: `after` has no time zone.
        zoneinfo.ZoneInfoNotFoundError: this machine does not know the zone.
    """
    if not isinstance(schedule, Timed | Cron):
        return
    yield from Plan(schedule, timezone=timezone, batch_id=batch_id).after(after)


def latest_departure(
    schedule: Schedule, *, timezone: str, by: datetime, batch_id: str = ""
) -> Departure | None:
    """Return the latest departure at or before a moment; None when there is none, as for `manual`.

    Args:
        schedule: a checked schedule.
        timezone: the batch's zone, for a schedule that names none.
        by: any aware moment.
        batch_id: whose share of `spread` counts.

    Raises:
        ValueError: `by` has no time zone.
        zoneinfo.ZoneInfoNotFoundError: this machine does not know the zone.
    """
    if not isinstance(schedule, Timed | Cron):
        return None
    return Plan(schedule, timezone=timezone, batch_id=batch_id).latest(by)


def zone_of(schedule: Timed | Cron, *, timezone: str) -> ZoneInfo:
    """Return the zone in which the schedule's times and days are meant."""
    return ZoneInfo(schedule.timezone or timezone)


class Plan:
    """The departures of one batch; remembers the days it has computed.

    Args:
        schedule: times and days.
        timezone: where they are meant, unless the schedule itself names a zone.
        batch_id: whose share of `spread` counts.

    Raises:
        zoneinfo.ZoneInfoNotFoundError: this machine does not know the zone.
    """

    def __init__(self, schedule: Timed | Cron, *, timezone: str, batch_id: str = "") -> None:
        self._schedule = schedule
        self._zone = zone_of(schedule, timezone=timezone)
        self._calendar: Calendar = schedule.calendar_or_plain
        self._offset = schedule.offset(batch_id)
        self._instants_of = lru_cache(maxsize=_KEPT_DAYS)(self._compute_instants)

    def after(self, moment: datetime) -> Iterator[Departure]:
        """Yield the departures strictly after an aware moment."""
        start = _within_calendar(moment)
        today = self._local(start - self._offset).date()
        waiting: dict[datetime, list[str]] = {}
        skipped: list[str] = []
        for placed in self._placed(self._origin(start), since=today):
            begins = self._first_moment(placed.day)
            yield from self._leave(waiting, start=start, until=begins, skipped=skipped)
            skipped += placed.left_out
            instants = self._instants_of(placed.day)
            for instant in instants[bisect_right(instants, start - self._offset, key=_utc) :]:
                notes = waiting.setdefault(instant.utc, [])
                notes += [*placed.notes, *([instant.note] if instant.note else [])]
        yield from self._leave(waiting, start=start, until=_LAST + _DAY, skipped=skipped)

    def latest(self, moment: datetime) -> Departure | None:
        """Return the latest departure at or before an aware moment."""
        end = _within_calendar(moment)
        last = self._local(end - self._offset).date()
        back, far = 2, last
        while back <= 2 * HORIZON and far.year > 1:
            first = max(last - back * _DAY, date(1, 12, 1))
            found = self._latest_between(first, last, end=end)
            if found is not None:
                return next(self.after(found - timedelta.resolution)) if found > _FIRST else None
            back, far = back * 8, first
        return None

    def _latest_between(self, first: date, last: date, *, end: datetime) -> datetime | None:
        """Return the latest instant up to `end`; days beside the span may have been moved into it."""
        days = []
        for placed in self._placed(self._open_before(first), since=last):
            days.append(placed.day)
            if placed.day > last + 2 * _DAY:
                break
        latest: datetime | None = None
        for day in reversed(days):
            instants = self._instants_of(day)
            due = bisect_right(instants, end - self._offset, key=_utc)
            latest_of_day = instants[due - 1].utc + self._offset if due else None
            if latest is not None:
                # Where clocks went back over midnight, the day before has the later instants; further back none has.
                return max(latest, latest_of_day or latest)
            latest = latest_of_day
        return latest

    def _origin(self, start: datetime) -> date:
        """Return the first day whose departures may go after `start`, moved by a closed day or a blackout."""
        wall = self._local(start - self._offset)
        begin = self._calendar.begin_of_blackout(wall, lead=self._offset)
        return self._open_before(begin.date() - _DAY)

    def _open_before(self, day: date) -> date:
        """Return a day such that no departure of an earlier day is moved to `day` or later by the calendar."""
        if day <= date(2, 1, 1) or ("next" not in self._policies and self._calendar.hours is None):
            return day
        found = self._calendar.nearest_open(day, step=-1)
        if found is None or self._calendar.hours is None:
            return found or day
        return self._calendar.nearest_open(found - _DAY, step=-1) or found

    @property
    def _policies(self) -> tuple[str, str]:
        return self._schedule.policy_on(weekend=True), self._schedule.policy_on(weekend=False)

    def _named(self, first: date) -> Iterator[date]:
        """Yield the days that the schedule names, in growing strides."""
        size = _CHUNK
        while first <= _LAST.date() + _DAY:
            last = min(first + size * _DAY, _LAST.date() + _DAY)
            found = False
            for day in self._schedule.days_between(first, last):
                found = True
                yield day
            if not found and size >= HORIZON:
                return
            size = min(size * 2, _LONGEST_CHUNK) if found else size * 2
            first = last + _DAY

    def _placed(self, first: date, *, since: date) -> Iterator[_Day]:
        """Yield the days on which departures go, after the calendar had its say.

        Args:
            first: the first day that the schedule is asked for.
            since: days left out before this one are not told.
        """
        current: _Day | None = None
        left_out: list[str] = []
        stale = first
        for named in self._named(first):
            day, note = self._place(named)
            if ((day or named) - stale).days > HORIZON:
                break
            if day is None:
                left_out += [note] if named >= since else []
                continue
            if current is not None and current.day == day:
                current.notes += [note] if note else []
                continue
            if current is not None:
                yield current
            current, stale = _Day(day=day, notes=[note] if note else [], left_out=left_out), day
            left_out = []
        if current is not None:
            yield current

    def _place(self, named: date) -> tuple[date | None, str]:
        """Return the day on which the departures of a named day go, and why it is another one; None for no day."""
        reason = self._calendar.why_closed(named)
        if reason is None:
            return named, ""
        policy = self._schedule.policy_on(weekend=self._calendar.is_weekend(named))
        if policy == "deliver":
            return named, ""
        told = f"{named:%a} {named} is closed ({reason})"
        if policy == "skip":
            return None, f"{named:%a} {named} left out ({reason})"
        moved = self._calendar.nearest_open(named, step=-1 if policy == "previous" else 1)
        if moved is None:
            return None, f"{told} and so is every day around it"
        return moved, f"{told}, so the {policy} open day"

    def _compute_instants(self, day: date) -> tuple[Instant, ...]:
        """Return the instants of a day's times, in order, before `spread`."""
        found: list[Instant] = []
        for at in self._schedule.times:
            wall, note = self._moved(day, at)
            if self._schedule.elapsed and not note:
                found += self._elapsed(wall)
                continue
            instant = resolve(wall, zone=self._zone)
            found.append(Instant(utc=instant.utc, note="; ".join(filter(None, [note, instant.note]))))
        return tuple(sorted(found, key=lambda one: one.utc))

    def _elapsed(self, wall: datetime) -> Iterator[Instant]:
        """Yield every instant at which the clock shows a time: none in a gap, two in a fold."""
        first = resolve(wall, zone=self._zone)
        if first.utc.astimezone(self._zone).replace(tzinfo=None) == wall:
            again = second(wall, zone=self._zone)
            yield Instant(utc=first.utc, note="")
            if again:
                yield again

    def _moved(self, day: date, at: time) -> tuple[datetime, str]:
        """Apply half day, business hours and blackouts to a time; the note says what moved it."""
        notes: list[str] = []
        ends = self._calendar.closes_at(day)
        if ends is not None and at > ends:
            notes.append(f"half day, {write_clock(at)} goes at {write_clock(ends)}")
            at = ends
        wall = datetime.combine(day, at)
        if self._calendar.hours is not None:
            wall = self._into_hours(wall, notes=notes)
        postponed = self._calendar.postponed(wall, lead=self._offset)
        if postponed:
            notes.append(f"{wall:%Y-%m-%d %H:%M} is in a blackout ({postponed[1]}), postponed to its end")
            wall = postponed[0]
        return wall, "; ".join(notes)

    def _into_hours(self, wall: datetime, *, notes: list[str]) -> datetime:
        hours = self._calendar.hours
        if hours is None or hours.opens <= wall.time() <= hours.closes:
            return wall
        day: date | None = wall.date()
        if wall.time() > hours.closes:
            day = self._calendar.nearest_open(wall.date() + _DAY, step=1)
        if day is None:
            return wall
        notes.append(f"{wall:%a %H:%M} is outside business hours ({told_hours(hours)})")
        return datetime.combine(day, hours.opens)

    def _leave(
        self, waiting: dict[datetime, list[str]], *, start: datetime, until: datetime, skipped: list[str]
    ) -> Iterator[Departure]:
        """Yield, in order, what waits and goes before `until`: nothing that comes later can go before."""
        for instant in sorted(utc for utc in waiting if utc < until):
            notes = _shortened(list(dict.fromkeys(waiting.pop(instant))))
            utc = instant + self._offset
            if start < utc <= _LAST:
                if skipped:
                    notes = [*_told(skipped), *notes]
                    skipped.clear()
                yield Departure(utc=utc, local=self._zoned(utc), note="; ".join(notes))

    def _first_moment(self, day: date) -> datetime:
        return resolve(datetime.combine(day, time()), zone=self._zone).utc

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(self._zone).replace(tzinfo=None)

    def _zoned(self, utc: datetime) -> datetime:
        return utc.astimezone(self._zone)


def _within_calendar(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone means nothing; give an aware datetime")
    if not _FIRST <= moment.replace(tzinfo=UTC) < _LAST:
        return _FIRST if moment.replace(tzinfo=UTC) < _FIRST else _LAST
    utc = moment.astimezone(UTC)
    # a plain datetime, whatever came in: Airflow hands over pendulum's, whose own arithmetic is slow
    return datetime.combine(date(utc.year, utc.month, utc.day), utc.time(), tzinfo=UTC)


def _shortened(notes: list[str]) -> list[str]:
    if len(notes) > _NOTES:
        return [*notes[:1], f"the same for {len(notes) - 1} more times"]
    return notes


def _told(skipped: list[str]) -> list[str]:
    if len(skipped) > _TOLD_SKIPS:
        return [skipped[0], f"and {len(skipped) - 1} more days"]
    return list(skipped)
