"""What a batch did so far, where its next step depends on it: a departure, a change of its file, a look at its fields. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, literal, select

from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.claim import TOO_MANY
from leadferry.store.database import Database
from leadferry.store.opening import live_delivery_of_run
from leadferry.store.tables import audit, batch, batch_config, delivery

Rows = list[dict[str, Any]]


def previous_departure(
    database: Database, batch_id: str, *, run_id: str, not_ready: str, makes_up: bool = False
) -> datetime | None:
    """Return when a batch's departure before a run took its leads, or found none to take; None before the first.

    When a run is cleared, neither what it did before counts nor what departed since.

    Args:
        database: the lead store.
        batch_id: the batch.
        run_id: the run that is about to depart.
        not_ready: how the reason of runs begins that waited in vain; they are no departures.
        makes_up: whether the run stands for those before it that failed or were refused; they do not count then.
    """
    own = select(func.min(delivery.c.id)).where(
        delivery.c.run_id == run_id, delivery.c.batch_no == batch.c.no
    )
    reason = func.coalesce(delivery.c.reason, "")
    departed = [~reason.startswith(not_ready)]
    if makes_up:
        departed += [delivery.c.state != DeliveryState.FAILED, ~reason.startswith(TOO_MANY)]
    last = (
        select(delivery.c.claimed_at)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(
            batch.c.id == batch_id,
            delivery.c.kind == DeliveryKind.DEPARTURE,
            delivery.c.run_id != run_id,
            delivery.c.id < func.coalesce(own.correlate(batch).scalar_subquery(), delivery.c.id + 1),
            *departed,
        )
        .order_by(delivery.c.id.desc())
        .limit(1)
    )
    with database.transaction() as connection:
        return connection.scalar(last)


def is_under_way(database: Database, batch_id: str, *, run_id: str) -> bool:
    """Tell whether an Airflow run has a delivery that took leads, or has ended well: one that would be found again."""
    with database.transaction() as connection:
        number = connection.scalar(select(batch.c.no).where(batch.c.id == batch_id))
        return number is not None and live_delivery_of_run(connection, number, run_id=run_id) is not None


def batch_no(database: Database, batch_id: str) -> int | None:
    """Return the number under which the store knows a batch; None when it never had leads."""
    with database.transaction() as connection:
        return connection.scalar(select(batch.c.no).where(batch.c.id == batch_id))


_OPEN = [DeliveryState.CLAIMED, DeliveryState.RENDERED, DeliveryState.HELD]


def unsettled(database: Database, batch_id: str) -> Rows:
    """List a batch's deliveries that are under way or wait for a person."""
    query = (
        select(delivery.c.id, delivery.c.state)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(batch.c.id == batch_id, delivery.c.state.in_(_OPEN))
        .order_by(delivery.c.id)
    )
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def configs(database: Database, batch_id: str) -> Rows:
    """List the configurations with which a batch's deliveries ran, the oldest first: config, hash, since, how often."""
    query = (
        select(
            batch_config.c.config,
            batch_config.c.sha256,
            batch_config.c.first_used_at,
            func.count(delivery.c.id).label("deliveries"),
        )
        .join(batch, batch.c.no == batch_config.c.batch_no)
        .join(delivery, delivery.c.config_id == batch_config.c.id)
        .where(batch.c.id == batch_id)
        .group_by(batch_config.c.id)
        .order_by(batch_config.c.id)
    )
    with database.transaction() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def last_config(database: Database, batch_id: str) -> dict[str, Any] | None:
    """Return the configuration of a batch's last departure that did not fail; None before the first."""
    last = (
        select(batch_config.c.config)
        .join(delivery, delivery.c.config_id == batch_config.c.id)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(
            batch.c.id == batch_id,
            delivery.c.kind == DeliveryKind.DEPARTURE,
            delivery.c.state.not_in([DeliveryState.FAILED, DeliveryState.SKIPPED]),
        )
        .order_by(delivery.c.number.desc())
        .limit(1)
    )
    with database.transaction() as connection:
        return connection.scalar(last)


def has_audit(database: Database, *, action: str, subject: str, detail: Mapping[str, Any]) -> bool:
    """Tell whether somebody did this, with at least these details."""
    found = select(literal(1)).where(
        audit.c.action == action, audit.c.object == subject, audit.c.detail.contains(dict(detail))
    )
    with database.transaction() as connection:
        return connection.scalar(select(found.exists())) is True


def was_tested(database: Database, batch_id: str, config: Mapping[str, Any]) -> bool:
    """Tell whether a test delivery of exactly this configuration arrived; whether it was enabled and when it departs do not count."""
    besides = {"enabled": None, "schedule": None}
    asked = {**config, **besides}
    tested = (
        select(batch_config.c.config)
        .join(delivery, delivery.c.config_id == batch_config.c.id)
        .join(batch, batch.c.no == delivery.c.batch_no)
        .where(
            batch.c.id == batch_id,
            delivery.c.kind == DeliveryKind.TEST,
            delivery.c.state == DeliveryState.DELIVERED,
        )
        .distinct()
    )
    with database.transaction() as connection:
        return any({**found, **besides} == asked for found in connection.scalars(tested))
