"""What is left alone at present: recipients and batches that a person holds, destinations that fail again and again.

A suspension is a row with a beginning and, later, an end; rows are never deleted.
It counts from its first moment until somebody resumes it, or until the time at which it ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, text, tuple_, update

from leadferry.errors import StoreError
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.tables import batch, delivery, suspension
from leadferry.zones import told_moment

Scope = Literal["batch", "recipient"]

EVERYTHING = ""
"""In place of a destination: all of them."""

_TIME_IS_OVER = "retry_after"
"""Who resumed what ended by itself."""


@dataclass(frozen=True, kw_only=True)
class Suspension:
    """Why nothing is sent to whom, since when, by whom."""

    id: int
    scope: Scope
    name: str
    """The batch's or the recipient's id."""
    destination: str
    """The destination's id; empty for all of them."""
    cause: Literal["hold", "auth", "failures"]
    reason: str
    error_code: str | None
    delivery_id: int | None
    """The delivery that caused it."""
    since: datetime
    actor: str | None
    """Who holds it; None for what Leadferry suspended by itself."""
    until: datetime | None
    """When it ends by itself; None when a person must resume it."""

    def told(self, *, zone: str) -> str:
        """Say it as the end of a sentence that names the batch, whose zone it is."""
        what = f"destination {self.destination!r}" if self.destination else f"{self.scope} {self.name!r}"
        how = f"on hold by {self.actor}" if self.cause == "hold" else "suspended"
        end = f", until {told_moment(self.until, zone=zone)}" if self.until else ""
        return f"{what} is {how} since {told_moment(self.since, zone=zone)}{end}: {self.reason}"


def active(
    database: Database, *, batch_id: str | None = None, recipient_id: str | None = None
) -> list[Suspension]:
    """Return what counts now, the oldest first: everything, or what concerns a batch and its recipient."""
    chosen = [_counts()]
    if batch_id is not None:
        mine = [("batch", batch_id), *([("recipient", recipient_id)] if recipient_id else [])]
        chosen.append(tuple_(suspension.c.scope, suspension.c.name).in_(mine))
    return _read(database, *chosen)


def caused_by(database: Database, delivery_id: int) -> list[Suspension]:
    """Return what is suspended because of a delivery."""
    return _read(database, suspension.c.delivery_id == delivery_id, _counts())


def _read(database: Database, *conditions: ColumnElement[bool]) -> list[Suspension]:
    columns = [suspension.c[name] for name in Suspension.__dataclass_fields__]
    with database.transaction() as connection:
        found = connection.execute(select(*columns).where(*conditions).order_by(suspension.c.id))
        return [Suspension(**row) for row in found.mappings()]


def _counts() -> ColumnElement[bool]:
    not_over = or_(suspension.c.until.is_(None), suspension.c.until > func.now())
    return and_(suspension.c.resumed_at.is_(None), not_over)


def hold(  # noqa: PLR0913  (all but one by keyword)
    database: Database, *, scope: Scope, name: str, destination: str = EVERYTHING, reason: str, actor: str
) -> None:
    """Send nothing there until a person resumes it; takes the place of an automatic suspension. Leaves an audit row.

    Raises:
        StoreError: it is on hold already.
    """
    with database.transaction() as connection:
        _one_at_a_time(connection)
        place = _at(scope, name, destination)
        if connection.scalar(select(suspension.c.id).where(*place, suspension.c.cause == "hold")):
            raise StoreError(
                f"{_place_name(scope, name, destination)} is on hold already",
                hint="`leadferry suspensions` says since when, by whom and why",
            )
        _end(connection, place, by=actor)
        row = {"scope": scope, "name": name, "destination": destination, "reason": reason, "actor": actor}
        connection.execute(insert(suspension).values(cause="hold", **row))
        subject = _place_name(scope, name, destination)
        record(connection, actor=actor, action="hold", subject=subject, detail={"reason": reason})


def resume(  # noqa: PLR0913  (all but one by keyword)
    database: Database, *, scope: Scope, name: str, destination: str | None = None, reason: str, actor: str
) -> int:
    """End the suspensions of a batch or recipient, all or those of one destination; return how many. Audited.

    Failures before it are forgiven: they no longer count for the next suspension.

    Raises:
        StoreError: nothing of it is suspended.
    """
    with database.transaction() as connection:
        _one_at_a_time(connection)
        ended = _end(connection, _at(scope, name, destination), by=actor)
        subject = _place_name(scope, name, destination or EVERYTHING)
        if not ended:
            raise StoreError(f"{subject} is not suspended", hint="`leadferry suspensions` lists what is")
        record(connection, actor=actor, action="resume", subject=subject, detail={"reason": reason})
    return ended


def suspend_after_refused_login(
    database: Database, *, batch_id: str, destination: str, delivery_id: int
) -> None:
    """Leave a destination alone until a person resumes it: more tries with the same credentials lock accounts."""
    with database.transaction() as connection:
        reason = f"the destination refused the credentials in delivery {delivery_id}"
        _suspend(
            connection,
            batch_id=batch_id,
            destination=destination,
            cause="auth",
            reason=reason,
            error_code="auth",
            delivery_id=delivery_id,
        )


def suspend_after_failures(
    database: Database, *, delivery_id: int, failures: int, retry_after: timedelta | None
) -> None:
    """Leave each destination alone that failed in this delivery and in the `failures - 1` before it.

    Args:
        database: the lead store.
        delivery_id: a settled delivery.
        failures: how many in a row are too many.
        retry_after: when it may be tried again by itself; None for never. One more failure then suspends it anew.
    """
    with database.transaction() as connection:
        owner = connection.execute(
            select(batch.c.no, batch.c.id)
            .join(delivery, delivery.c.batch_no == batch.c.no)
            .where(delivery.c.id == delivery_id)
        ).one()
        for failed in connection.execute(_FAILED_HERE, {"delivery": delivery_id}).all():
            values = {
                "batch": owner.no,
                "batch_id": owner.id,
                "destination": failed.destination,
                "most": failures,
            }
            if connection.scalar(_FAILURES_IN_A_ROW, values) != failures:
                continue
            _suspend(
                connection,
                batch_id=owner.id,
                destination=failed.destination,
                cause="failures",
                reason=f"{failures} failed deliveries in a row, the last one {delivery_id} ({failed.error_code})",
                error_code=failed.error_code,
                delivery_id=delivery_id,
                until=None if retry_after is None else func.now() + retry_after,
            )


_FAILED_HERE = text(
    "SELECT destination, max(error_code) AS error_code FROM dispatch"
    " WHERE delivery_id = :delivery AND attempts > 0 AND state IN ('failed', 'skipped')"
    " GROUP BY destination ORDER BY destination"
)

# The newest deliveries that tried the destination, along the index on their numbers.
_FAILURES_IN_A_ROW = text(
    """
    SELECT count(*) FILTER (WHERE failed) FROM (
        SELECT EXISTS (SELECT FROM dispatch WHERE delivery_id = delivery.id AND destination = :destination
                       AND attempts > 0 AND state IN ('failed', 'skipped')) AS failed
        FROM delivery
        WHERE batch_no = :batch AND number IS NOT NULL
        AND claimed_at > coalesce((SELECT max(resumed_at) FROM suspension
                                   WHERE resumed_by <> 'retry_after' AND (
                                       (scope, name) = ('batch', :batch_id) AND destination IN ('', :destination))),
                                  '-infinity')
        AND EXISTS (SELECT FROM dispatch WHERE delivery_id = delivery.id AND destination = :destination
                    AND attempts > 0)
        ORDER BY number DESC LIMIT :most
    ) AS newest
    """
)


def _suspend(connection: Connection, *, batch_id: str, destination: str, **values: Any) -> None:
    _one_at_a_time(connection)
    place = _at("batch", batch_id, destination)
    over = [*place, suspension.c.until <= func.now()]
    _end(connection, over, by=_TIME_IS_OVER)
    if connection.scalar(select(suspension.c.id).where(*place)) is None:
        row = {"scope": "batch", "name": batch_id, "destination": destination, **values}
        connection.execute(insert(suspension).values(**row))


def _at(scope: Scope, name: str, destination: str | None) -> list[ColumnElement[bool]]:
    place = [suspension.c.scope == scope, suspension.c.name == name, suspension.c.resumed_at.is_(None)]
    return place if destination is None else [*place, suspension.c.destination == destination]


def _end(connection: Connection, which: Sequence[ColumnElement[bool]], *, by: str) -> int:
    ended: int = connection.execute(
        update(suspension).where(*which).values(resumed_at=func.now(), resumed_by=by)
    ).rowcount
    return ended


def _one_at_a_time(connection: Connection) -> None:
    connection.execute(text("LOCK TABLE suspension IN SHARE ROW EXCLUSIVE MODE"))


def _place_name(scope: Scope, name: str, destination: str) -> str:
    return f"{scope} {name}, destination {destination}" if destination else f"{scope} {name}"
