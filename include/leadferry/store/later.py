"""Second chances: a destination whose last try failed is tried once more at a time of day that the batch names."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, insert, select

from leadferry.store.database import Database
from leadferry.store.tables import delivery, later_try


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
