"""From when on a batch that is new to a flow collects its leads."""

from __future__ import annotations

from datetime import date, datetime, time

from leadferry.batch.model import Batch
from leadferry.schedule.instants import resolve
from leadferry.zones import time_zone


def collects_from(batch: Batch) -> datetime | None:
    """Return from when on a batch that is new to a flow collects its leads, in UTC; None for all there are."""
    day = batch.select.received_from
    if day is None:
        return None
    # In UTC: a midnight that clocks skip or show twice, in its own zone, equals no other datetime (PEP 495).
    return resolve(datetime.combine(date.fromisoformat(day), time()), zone=time_zone(batch.timezone)).utc
