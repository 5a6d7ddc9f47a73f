"""The two escape hatches into other people's languages: RRULE (RFC 5545) for days, cron for days and times."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from threading import Lock

_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_TIME_PARTS = ("BYHOUR", "BYMINUTE", "BYSECOND")
_FIELDS = 5
_DRAWN = re.compile(r"(?<![a-z])[hr](?![a-z])", re.IGNORECASE)
"""What croniter draws by lot, each time anew (`R`) or by a hash (`H`); in `mar` and `fri` the letters mean nothing."""


_DAYS_PER_STEP = {"DAILY": 1, "WEEKLY": 7, "MONTHLY": 28, "YEARLY": 365}
_LONGEST_GAP = 60 * 366
"""How many days without any that it names end a rule; 29 February falls on the same weekday after 40 years at the latest."""


@dataclass
class Occurrences:
    """The days of one rule, counted once and remembered: a rule can only be counted from its start.

    May be asked by several threads at once, as the API server does.
    """

    _more: Iterator[date]
    _known: list[date] = field(default_factory=list)
    _growing: Lock = field(default_factory=Lock, repr=False, compare=False)

    def between(self, first: date, last: date) -> list[date]:
        """Return the days from `first` to `last`, both included."""
        with self._growing:
            while not self._known or self._known[-1] <= last:
                following = next(self._more, None)
                if following is None:
                    break
                self._known.append(following)
            return self._known[bisect_left(self._known, first) : bisect_right(self._known, last)]


class _NothingFoundError(Exception):
    """A rule went on for longer than any has to without naming a day."""


class _Interval(int):
    """The INTERVAL of a rule that names days at all: dateutil would look for the next one until the year 9999.

    It reckons with this number each time it goes on to the next day, week, month or year, so here is counted how often.
    """

    left = 0
    """How many steps may follow."""

    def __radd__(self, other: int) -> int:
        self._step()
        return other + int(self)

    def __mul__(self, other: int) -> int:
        self._step()
        return int(self) * other

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _NothingFoundError


def days_of_rule(rule: str, starting: date) -> Iterator[date]:
    """Yield the days of an RRULE from its start on; none that comes after a gap of 60 years.

    Args:
        rule: with or without `RRULE:` in front.
        starting: its DTSTART.

    Raises:
        ValueError: it is no rule, or goes on by hours or less.
        TypeError: as above, from dateutil.
        KeyError: as above, from dateutil.
    """
    from dateutil.rrule import rrule, rrulestr

    parts = check_pace(rule)
    # dateutil wants the zone of UNTIL to be that of DTSTART, which is a plain day here: its day counts.
    plain = re.sub(r"(UNTIL=\d{8})T\d{6}Z?", r"\1", rule.upper())
    interval = _Interval(parts.get("INTERVAL", "1"))
    found = rrulestr(plain, dtstart=datetime.combine(starting, time()))
    if not isinstance(found, rrule):
        raise ValueError("rrule must be a single rule without spaces")  # noqa: TRY004  # a fault of the text
    return _days_of(
        found.replace(interval=interval), interval, per_step=_DAYS_PER_STEP[parts["FREQ"]] * interval.real
    )


def _days_of(rule: Iterable[datetime], interval: _Interval, *, per_step: int) -> Iterator[date]:
    most = _LONGEST_GAP // per_step + 2
    interval.left = most
    with suppress(_NothingFoundError):
        for moment in rule:
            interval.left = most
            yield moment.date()


def check_pace(rule: str) -> dict[str, str]:
    """Return the parts of a rule that goes on by at least a day at a time; another could be counted for ever.

    Args:
        rule: with or without `RRULE:` in front.

    Raises:
        ValueError: it stands still, or goes on by hours or less.
    """
    parts = dict(part.split("=", 1) for part in rule.upper().removeprefix("RRULE:").split(";") if "=" in part)
    if parts.get("FREQ") not in _FREQUENCIES:
        raise ValueError(f"rrule must begin with FREQ= and one of {', '.join(_FREQUENCIES)}")
    if not re.fullmatch(r"0*[1-9]\d*", parts.get("INTERVAL", "1")):
        raise ValueError("rrule's INTERVAL must be 1 or more")
    return parts


@lru_cache(maxsize=256)
def occurrences(rule: str, starting: date) -> Occurrences:
    """Return the days of an RRULE.

    Args:
        rule: with or without `RRULE:` in front.
        starting: its DTSTART.

    Raises:
        ValueError: it is no rule, or one that chooses times, which stand in `at`.
    """
    parts = check_pace(rule)
    named = [name for name in _TIME_PARTS if name in parts]
    if named:
        raise ValueError(f"rrule chooses days; leave {', '.join(named)} out and write the times under at")
    if rule != "".join(rule.split()):
        raise ValueError("rrule must be a single rule without spaces")
    try:
        return Occurrences(days_of_rule(rule, starting))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"rrule cannot be understood: {error}") from None


@dataclass(frozen=True, kw_only=True)
class CronFields:
    """A cron expression taken apart."""

    times: tuple[time, ...]
    days: str
    """The expression of the days, at midnight."""


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> CronFields:
    """Take a cron expression of five fields apart.

    Raises:
        ValueError: says which field is wrong.
    """
    from croniter import croniter
    from croniter.croniter import CroniterError

    parts = text.split()
    if len(parts) != _FIELDS:
        raise ValueError(f"cron needs five fields (minute hour day month weekday), has {len(parts)}")
    if any(letter in part.upper() for part in parts[:2] for letter in "HRL"):
        raise ValueError("cron's minute and hour must be numbers, lists, ranges or steps")
    if any(_DRAWN.search(part) for part in parts[2:]):
        raise ValueError(
            "cron's H and R draw a day by lot, another one in each process; write the day that is meant"
        )
    try:
        (minutes, hours, *_), _ = croniter.expand(text)
        croniter(f"0 0 {' '.join(parts[2:])}", datetime(2026, 1, 1)).get_next(datetime)  # noqa: DTZ001  # cron reads a wall clock
    except (CroniterError, ValueError, KeyError) as error:
        raise ValueError(f"cron cannot be understood: {error}") from None
    every_minute, every_hour = range(60), range(24)
    return CronFields(
        times=tuple(
            time(hour, minute)
            for hour in _numbers(hours, every_hour)
            for minute in _numbers(minutes, every_minute)
        ),
        days=f"0 0 {' '.join(parts[2:])}",
    )


def _numbers(expanded: list[int | str], everything: range) -> list[int]:
    if "*" in expanded:
        return list(everything)
    return sorted({number for number in expanded if isinstance(number, int)})


def cron_days(days: str, first: date, last: date) -> Iterator[date]:
    """Yield the days of a cron expression's day fields from `first` to `last`, both included."""
    if days == "0 0 * * *":
        for number in range((last - first).days + 1):
            yield first + timedelta(days=number)
        return
    month = first.replace(day=1)
    while month <= last:
        found, following = _cron_days_of(days, month)
        yield from (day for day in found if first <= day <= last)
        month = following.replace(day=1)


@lru_cache(maxsize=8192)
def _cron_days_of(days: str, month: date) -> tuple[tuple[date, ...], date]:
    """Return the days of a month, and the first one after it; whole, to be remembered wherever the next question begins."""
    from croniter import CroniterBadDateError, croniter

    cron = croniter(days, datetime.combine(month, time()) - timedelta(seconds=1))
    found: list[date] = []
    try:
        while (day := cron.get_next(datetime).date()).replace(day=1) == month:
            found.append(day)
    except CroniterBadDateError:  # no such day in the next 50 years
        day = date.max
    return tuple(found), day
