"""Caps: the most leads, or revenue, that a batch may deliver in a period, counted from the ledger.

What a period has used is the sum over the batch's departures of that period, those under way included: a failed one
gives back what it had. The claim counts under the batch's lock, so that claims at the same moment count each other.
Only departures count: copies and tests do not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.tables import cap_level, delivery

Level = Literal["near", "reached"]

_EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Where the period of a cap in all began, for the record."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """The stretch of time that a cap counts over, `[begins, ends)`; aware, None where there is no end."""

    begins: datetime | None = None
    ends: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Cap:
    """One cap of a batch."""

    name: str
    """Said where it keeps leads back: `cap 5000 leads per day`."""
    counts: Literal["leads", "revenue"]
    amount: Decimal
    overflow: Literal["hold", "next", "drop"]
    """What becomes of leads beyond it: they stay in the queue, go to another batch, or are withheld."""
    next_batch: str | None = None
    near: Decimal
    """From here on the period is nearly used up."""
    period_at: Callable[[datetime], Period | None]
    """The period that a moment lies in; None where the cap does not count then."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much a cap has left when leads are claimed."""

    cap: Cap
    period: Period
    used: Decimal

    @property
    def left(self) -> Decimal:
        """What may still go; never negative, should the cap have been lowered meanwhile."""
        return max(self.cap.amount - self.used, Decimal())


@dataclass(frozen=True, kw_only=True)
class CapNotice:
    """That a cap is nearly or completely used up, said once in its period."""

    name: str
    level: Level
    used: Decimal
    amount: Decimal
    ends: datetime | None
    """When the period ends; aware."""


def rooms(connection: Connection, batch_no: int, caps: Sequence[Cap], *, at: datetime) -> list[Room]:
    """Count what each cap that counts now has left; hold the batch's lock."""
    found = []
    for cap in caps:
        period = cap.period_at(at)
        if period is not None:
            found.append(Room(cap=cap, period=period, used=_used(connection, batch_no, cap, period)))
    return found


def _used(connection: Connection, batch_no: int, cap: Cap, period: Period) -> Decimal:
    amount = delivery.c.included if cap.counts == "leads" else delivery.c.revenue
    counted = select(func.coalesce(func.sum(amount), 0)).where(
        delivery.c.batch_no == batch_no,
        delivery.c.kind == DeliveryKind.DEPARTURE,
        delivery.c.state.not_in([DeliveryState.FAILED, DeliveryState.SKIPPED]),
    )
    if period.begins is not None:
        counted = counted.where(delivery.c.window_to >= period.begins)
    if period.ends is not None:
        counted = counted.where(delivery.c.window_to < period.ends)
    return Decimal(connection.scalars(counted).one())


def note_levels(  # noqa: PLR0913  (all but three by keyword)
    connection: Connection,
    batch_no: int,
    before: Sequence[Room],
    *,
    leads: int,
    revenue: Decimal,
    full: Collection[str],
) -> tuple[CapNotice, ...]:
    """Write down which caps are nearly or completely used up now; return those that were not so before in the period.

    Args:
        connection: inside the claim's transaction.
        batch_no: whose caps.
        before: what they had left when the claim began.
        leads: how many go now.
        revenue: what those are worth.
        full: names of the caps that kept leads back.
    """
    told = []
    for room in before:
        used = room.used + (leads if room.cap.counts == "leads" else revenue)
        level = "reached" if room.cap.name in full else _level(room.cap, used)
        if level is None:
            continue
        begins = room.period.begins or _EVER
        key = {"batch_no": batch_no, "cap": room.cap.name, "period_from": begins, "level": level}
        added = upsert(cap_level).values(key).on_conflict_do_nothing().returning(cap_level.c.level)
        if connection.scalar(added) is not None:
            notice = CapNotice(
                name=room.cap.name, level=level, used=used, amount=room.cap.amount, ends=room.period.ends
            )
            told.append(notice)
    return tuple(told)


def _level(cap: Cap, used: Decimal) -> Level | None:
    if used >= cap.amount:
        return "reached"
    return "near" if used >= cap.near else None


def reprice(connection: Connection, delivery_id: int) -> None:
    """Bring a delivery's revenue up to date after leads were withheld; nothing to do without a cap on revenue."""
    connection.execute(
        text(
            """
            UPDATE delivery SET revenue = CASE WHEN unit_price IS NOT NULL THEN included * unit_price ELSE (
                SELECT coalesce(sum(price), 0) FROM lead_price p WHERE p.delivery_id = delivery.id
                AND NOT EXISTS (SELECT FROM withheld w WHERE w.delivery_id = delivery.id AND w.lead_id = p.lead_id)
            ) END
            WHERE id = :id AND revenue IS NOT NULL
            """
        ),
        {"id": delivery_id},
    )
