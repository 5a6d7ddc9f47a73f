"""From when on a batch that is new to a flow collects its leads."""

from __future__ import annotations

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from leadferry.batch.model import Batch


def collects_from(batch: Batch) -> datetime | None:
    """Return from when on a batch that is new to a flow collects its leads; None for all there are."""
    day = batch.select.received_from
    if day is None:
        return None
    return datetime.combine(date.fromisoformat(day), time(), tzinfo=ZoneInfo(batch.timezone))
