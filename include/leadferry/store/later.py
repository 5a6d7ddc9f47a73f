"""Second chances: a destination whose last try failed is tried once more at a time of day that the batch names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select

from leadferry.store.database import Database
from leadferry.store.tables import delivery, later_try


@dataclass(frozen=True, kw_only=True)
class LaterTry:
    """A second chance."""

    destination: str
    until: datetime
    """Aware."""
    error_code: str
    """Of the try that failed."""


def next_try(
    database: Database, delivery_id: int, *, after: datetime, but_for: str | None = None
) -> LaterTry | None:
    """Return the next second chance of a delivery after a moment, those of one destination left out; None when there is none."""
    chances = (
        select(later_try.c.destination, later_try.c.until, later_try.c.error_code)
        .where(later_try.c.delivery_id == delivery_id, later_try.c.until > after)
        .order_by(later_try.c.until, later_try.c.destination)
        .limit(1)
    )
    if but_for is not None:
        chances = chances.where(later_try.c.destination != but_for)
    with database.transaction() as connection:
        found = connection.execute(chances).mappings().one_or_none()
    return None if found is None else LaterTry(**found)


def order_later_try(  # noqa: PLR0913  # what the row consists of
    database: Database, delivery_id: int, destination: str, *, until: datetime, error_code: str, most: int
) -> bool:
    """Write down that a destination is tried again at a moment; False when it had all of its `most` chances.

    Raises:
        StoreUnavailableError: nothing happened; call it again.
    """
    mine = (later_try.c.delivery_id == delivery_id) & (later_try.c.destination == destination)
    with database.transaction() as connection:
        connection.execute(select(delivery.c.id).where(delivery.c.id == delivery_id).with_for_update())
        used: int = connection.scalars(select(func.count()).select_from(later_try).where(mine)).one()
        if used >= most:
            return False
        values = {
            "delivery_id": delivery_id,
            "destination": destination,
            "number": used + 1,
            "until": until,
            "error_code": error_code,
        }
        connection.execute(insert(later_try).values(values))
    return True
