"""The departures of a schedule: every one after a moment, or the latest one before it.

From the schedule to an instant it is five steps, each of which keeps the order:
the days that the schedule names → what the calendar makes of closed days → times, moved by business hours,
half days and blackouts → instants, by the rule in `instants` → the batch's share of `spread`, which ends with the day's hours.

Both directions answer in microseconds once a day has been computed, because Airflow asks again and again,
and give up after `HORIZON` days without a departure, so that no schedule can keep a process busy for ever.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import takewhile
from operator import attrgetter
from zoneinfo import ZoneInfo

from leadferry.schedule.calendar import LONGEST_CLOSURE, Calendar
from leadferry.schedule.clock import write_clock
from leadferry.schedule.instants import Instant, resolve, second
from leadferry.schedule.model import Cron, Schedule, Timed
from leadferry.schedule.opening import closed, last_time, opening
from leadferry.zones import time_zone

HORIZON = 3000
"""Days without a departure after which a schedule counts as ended; a little over eight years, for 29 February."""

_FIRST = datetime(2, 1, 1, tzinfo=UTC)
_LAST = datetime(9998, 1, 1, tzinfo=UTC) - timedelta.resolution
"""What a calendar can be asked about, so that no arithmetic near its ends can overflow."""

_NOTES = 2
"""How many times that fall on one instant are each explained; of more, the first stands for all."""

_TOLD_SKIPS = 4
"""How many left-out days are each told; of more, the first and their number."""

_LOOKS_BACK = (2, 16, 128, 1024, HORIZON)
"""How many days are searched for the latest departure, until one is found."""

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
    return time_zone(schedule.timezone or timezone)


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
        # Blackouts count earlier by the share of `spread`, so that what is moved behind them is spread there too.
        # Where that leaves no time at all, `_let_go` alone keeps departures out of them.
        fits = self._offset and self._calendar.why_never(lead=self._offset) is None
        self._lead = self._offset if fits else timedelta()
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
            for instant in instants[bisect_right(instants, start, key=_utc) :]:
                notes = waiting.setdefault(instant.utc, [])
                notes += [*placed.notes, *([instant.note] if instant.note else [])]
        yield from self._leave(waiting, start=start, until=_LAST + _DAY, skipped=skipped)

    def latest(self, moment: datetime) -> Departure | None:
        """Return the latest departure at or before an aware moment."""
        end = _within_calendar(moment)
        today = self._local(end).date()
        for back in _LOOKS_BACK:
            found = self._latest_since(max(today - back * _DAY, date(1, 12, 1)), end=end)
            if found is not None:
                # `spread` may take a departure of a day before past this one.
                found = self._latest_since(self._origin(found), end=end) or found
                return next(self.after(found - timedelta.resolution)) if found > _FIRST else None
        return None

    def _latest_since(self, first: date, *, end: datetime) -> datetime | None:
        """Return the latest instant up to `end` of the departures of `first` and the days after it."""
        last = self._local(end).date() + _DAY
        days = takewhile(lambda one: one.day <= last, self._placed(self._open_before(first), since=last))
        instants = [self._instants_of(one.day) for one in days]
        due = [(of_day, bisect_right(of_day, end, key=_utc)) for of_day in instants]
        return max((of_day[count - 1].utc for of_day, count in due if count), default=None)

    def _origin(self, start: datetime) -> date:
        """Return a day such that no departure of an earlier day goes after `start`, however the calendar moves it."""
        day = self._local(start - self._offset).date()
        for _ in range(LONGEST_CLOSURE):
            opens, _reasons = opening(self._schedule, datetime.combine(day, time()), spread=self._lead)
            if self._let_go(resolve(opens, zone=self._zone).utc + self._offset)[0] <= start:
                break
            day -= _DAY
        return self._open_before(day - _DAY)

    def _open_before(self, day: date) -> date:
        """Return a day such that no departure of an earlier day is moved past `day` because it is closed."""
        if day <= date(2, 1, 1) or "next" not in self._policies:
            return day
        return self._calendar.nearest_open(day, step=-1) or day

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
        waiting: dict[date, _Day] = {}
        left_out: list[str] = []
        stale = following = first
        for named in self._named(first):
            left_out += self._passed_over(max(following, since), named)
            following = named + _DAY
            day, note = self._place(named)
            if ((day or named) - stale).days > HORIZON:
                break
            if day is None:
                left_out += [note] if named >= since else []
                continue
            if day not in waiting:
                waiting[day], stale, left_out = _Day(day=day, left_out=left_out), day, []
            waiting[day].notes += [note] if note else []
            settled = self._settled(named)
            for one in sorted(one for one in waiting if one < settled):
                yield waiting.pop(one)
        yield from (waiting[one] for one in sorted(waiting))

    def _passed_over(self, first: date, until: date) -> list[str]:
        """Tell the holidays between two business days: nobody wonders about a weekend."""
        if not self._schedule.names_open_days_only:
            return []
        days = (first + number * _DAY for number in range((until - first).days))
        closed = ((day, self._calendar.closed.get(day)) for day in days if not self._calendar.is_weekend(day))
        return [_left_out(day, reason) for day, reason in closed if reason]

    def _settled(self, named: date) -> date:
        """Return the first day on which a day that is named after this one may go."""
        following = named + _DAY
        if "previous" not in self._policies:
            return following
        return self._calendar.nearest_open(following, step=-1) or following

    def _place(self, named: date) -> tuple[date | None, str]:
        """Return the day on which the departures of a named day go, and why it is another one; None for no day."""
        reason = self._calendar.why_closed(named)
        if reason is None:
            return named, self._schedule.why_named(named)
        policy = self._schedule.policy_on(weekend=self._calendar.is_weekend(named))
        if policy == "deliver":
            return named, self._schedule.why_named(named)
        told = f"{named:%a} {named} is closed ({reason})"
        if policy == "skip":
            return None, _left_out(named, reason)
        moved = self._calendar.nearest_open(named, step=-1 if policy == "previous" else 1)
        if moved is None:
            return None, f"{told} and so is every day around it"
        return moved, f"{told}, so the {policy} open day"

    def _compute_instants(self, day: date) -> tuple[Instant, ...]:
        """Return the instants of a day's times, in order."""
        found: list[Instant] = []
        for at in self._schedule.times:
            wall, note = self._moved(day, at)
            if self._schedule.elapsed and not note:
                instants = self._elapsed(wall)
            else:
                instants = iter([resolve(wall, zone=self._zone)])
            ends = last_time(self._schedule, wall.date()) if self._offset else None
            found += [self._spread(one, note=note, day=wall.date(), ends=ends) for one in instants]
        return tuple(sorted(found, key=_utc))

    def _spread(self, instant: Instant, *, note: str, day: date, ends: time | None) -> Instant:
        """Add the batch's share of `spread`, as far as the recipient is open; a half day's end is a limit of the same kind."""
        notes = list(filter(None, [note, instant.note]))
        utc = instant.utc + self._offset
        limit = resolve(datetime.combine(day, ends), zone=self._zone).utc if ends else utc
        if utc > limit:
            notes.append(f"spread no further than {ends:%H:%M}, when the day ends")
            utc = max(limit, instant.utc)
        utc, held = self._let_go(utc)
        return Instant(utc=utc, note="; ".join([*notes, *held]))

    def _let_go(self, utc: datetime) -> tuple[datetime, list[str]]:
        """Return when what is spread to an instant goes, and why not then.

        In a night when clocks change, the share of `spread` takes it to another time than the blackouts were asked about;
        and they are asked about the time before it where `_lead` is none.
        """
        if not self._offset or not self._calendar.blackouts:
            return utc, []
        held = closed(self._schedule, utc, timezone=self._zone.key)
        return (held.until, [held.reason]) if held else (utc, [])

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
        if ends is not None and at > ends and last_time(self._schedule, day):
            notes.append(f"half day, {write_clock(at)} goes at {write_clock(ends)}")
            at = ends
        wall, reasons = opening(self._schedule, datetime.combine(day, at), spread=self._lead)
        return wall, "; ".join([*notes, *reasons])

    def _leave(
        self, waiting: dict[datetime, list[str]], *, start: datetime, until: datetime, skipped: list[str]
    ) -> Iterator[Departure]:
        """Yield, in order, what waits and goes before `until`: nothing that comes later can go before."""
        for utc in sorted(utc for utc in waiting if utc < until):
            notes = _shortened(list(dict.fromkeys(waiting.pop(utc))))
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


def _left_out(day: date, reason: str) -> str:
    return f"{day:%a} {day} left out ({reason})"


def _shortened(notes: list[str]) -> list[str]:
    if len(notes) > _NOTES:
        return [*notes[:1], f"the same for {len(notes) - 1} more times"]
    return notes


def _told(skipped: list[str]) -> list[str]:
    if len(skipped) > _TOLD_SKIPS:
        return [skipped[0], f"and {len(skipped) - 1} more days"]
    return list(skipped)
