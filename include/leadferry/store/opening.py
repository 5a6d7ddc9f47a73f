"""What every new delivery begins with, whoever asks for it: its frozen configuration, its number, its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.states import DeliveryState
from leadferry.store.tables import batch, batch_config, delivery


def live_delivery_of_run(connection: Connection, batch_no: int, *, run_id: str) -> Row[Any] | None:
    """Return the delivery that an Airflow run made already; one that failed or was skipped does not count."""
    ended = [DeliveryState.FAILED, DeliveryState.SKIPPED]
    return connection.execute(
        select(delivery).where(
            delivery.c.batch_no == batch_no, delivery.c.run_id == run_id, delivery.c.state.not_in(ended)
        )
    ).one_or_none()


def config_id(connection: Connection, batch_no: int, *, config: Mapping[str, Any], sha256: str) -> int:
    """Freeze a configuration and return its id; the same one is stored once."""
    values = {"batch_no": batch_no, "sha256": sha256, "config": dict(config)}
    connection.execute(upsert(batch_config).values(values).on_conflict_do_nothing())
    known = select(batch_config.c.id).where(
        batch_config.c.batch_no == batch_no, batch_config.c.sha256 == sha256
    )
    found: int = connection.scalars(known).one()
    return found


def next_number(connection: Connection, batch_no: int) -> int:
    """Count one more delivery of a batch."""
    counted = (
        update(batch)
        .where(batch.c.no == batch_no)
        .values(last_number=batch.c.last_number + 1)
        .returning(batch.c.last_number)
    )
    number: int = connection.scalars(counted).one()
    return number
