"""What can be said of departures ahead of their time: which leads they are for, and when their files are built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from leadferry.batch.model import Batch
from leadferry.batch.timing import Timing
from leadferry.batch.windows import Window
from leadferry.schedule import Departure, departures, latest_departure
from leadferry.zones import told_moment


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """A departure to come."""

    departure: Departure
    window: Window | None
    """When the leads were received that it is for; what came late to an earlier one goes too. None: all that wait, whenever."""
    built_at: datetime | None
    """When it takes leads and makes its files, in UTC; None where that is at the departure."""

    def __str__(self) -> str:
        """Say it in sentences, on the clock of the schedule and in UTC; empty when there is nothing to say."""
        zone = self.departure.local.tzinfo
        window, told = self.window, []
        if window is not None and window.ends is not None:
            begins = f"from {told_moment(window.begins.astimezone(zone))} and " if window.begins else ""
            told.append(f"Leads received {begins}before {told_moment(window.ends.astimezone(zone))}.")
        if self.built_at is not None:
            told.append(f"Its files are built at {told_moment(self.built_at.astimezone(zone))}.")
        return " ".join(told)


def outlooks(batch: Batch, *, after: datetime) -> Iterator[Outlook]:
    """Yield what is known of the departures of a batch after an aware moment; none without a timetable.

    Windows follow each other as those of deliveries do, if every departure takes leads from now on.
    """
    before = latest_departure(batch.schedule, timezone=batch.timezone, by=after, batch_id=batch.id)
    last = None if before is None else _covers(batch, before).ends
    for departure in departures(batch.schedule, timezone=batch.timezone, after=after, batch_id=batch.id):
        window = _follow(_covers(batch, departure), last)
        yield Outlook(
            departure=departure,
            window=None if window.ends is None else window,
            built_at=_built_at(batch, departure),
        )
        last = window.ends


def _follow(window: Window, last: datetime | None) -> Window:
    """Let a window begin where the last one ended at the earliest, as the claim does."""
    if window.ends is None:
        return window
    ends = max(filter(None, [window.ends, last]))
    begins = max(filter(None, [window.begins, last]), default=None)
    return Window(begins=min(begins, ends) if begins else None, ends=ends)


def _covers(batch: Batch, departure: Departure) -> Window:
    """Return the window of a departure by itself.

    What is built ahead can hold only what is there by then; what stands for its own moment holds nothing later.
    """
    window, built_at = Timing.of(batch).window_at(departure.utc), _built_at(batch, departure)
    if window.ends is not None and built_at is not None:
        return Window(begins=window.begins, ends=min(window.ends, built_at))
    if window.ends is None and built_at is None and batch.makes_up_for_each:
        return Window(begins=window.begins, ends=departure.utc)
    return window


def _built_at(batch: Batch, departure: Departure) -> datetime | None:
    return departure.utc - batch.built_ahead if batch.built_ahead else None
