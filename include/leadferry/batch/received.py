"""From when on a batch that is new to a flow collects its leads."""

from __future__ import annotations

from datetime import date, datetime, time

from leadferry.batch.model import Batch
from leadferry.zones import time_zone


def collects_from(batch: Batch) -> datetime | None:
    """Return from when on a batch that is new to a flow collects its leads; None for all there are."""
    day = batch.select.received_from
    if day is None:
        return None
    return datetime.combine(date.fromisoformat(day), time(), tzinfo=time_zone(batch.timezone))
