"""Which files were kept long enough, and what became of their bytes; the files' rows stay as they are.

A retirement is written down before the bytes are touched and marked as done afterwards, so that one that was
interrupted is carried out to its end.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select, text, update

from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.tables import retirement

Action = Literal["moved", "removed"]

ACTOR = "leadferry_maintenance"
"""Who stands in the audit: the retention that a person wrote, carried out by the DAG."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """What is to be done with the files of one batch."""

    batch: str
    """The batch's id."""
    action: Action
    before: datetime
    """Files made before this are due; aware."""
    place: str = ""
    """Where they are moved to, or were."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Bytes that are to be moved or removed."""

    archive_key: str
    action: Action
    place: str
    sha256: str


_DECIDE = text(
    """
    WITH due AS (
        SELECT * FROM jsonb_to_recordset(CAST(:due AS jsonb))
                      AS due (batch text, action text, before timestamptz, place text)
    ), old AS (
        SELECT file.archive_key, due.action, due.place, due.batch, min(file.id) AS id
        FROM due JOIN batch ON batch.id = due.batch
        JOIN delivery ON delivery.batch_no = batch.no
        JOIN file ON file.delivery_id = delivery.id AND file.created_at < due.before
        WHERE NOT EXISTS (SELECT FROM retirement r WHERE r.archive_key = file.archive_key
                          AND r.action IN (due.action, 'removed'))
        -- Nothing that a delivery may still send, and nothing that a younger file shares its bytes with.
        AND NOT EXISTS (SELECT FROM file AS other JOIN delivery AS owner ON owner.id = other.delivery_id
                        WHERE other.archive_key = file.archive_key
                        AND (owner.state IN ('claimed', 'rendered', 'held') OR other.created_at >= due.before))
        GROUP BY file.archive_key, due.action, due.place, due.batch
        ORDER BY min(file.id) LIMIT :most
    ), decided AS (
        INSERT INTO retirement (archive_key, action, place, decided_at)
        SELECT archive_key, action, place, :now FROM old ON CONFLICT DO NOTHING RETURNING archive_key, action
    )
    SELECT old.batch, decided.action, old.place, old.id FROM decided JOIN old USING (archive_key, action) ORDER BY old.id
    """
)


def decide(database: Database, due: Sequence[Due], *, now: datetime, most: int) -> int:
    """Write down which files are to be moved or removed, with an audit row for each batch; return how many.

    Files of deliveries that are under way or wait for a person are left alone.

    Args:
        database: the lead store.
        due: what each batch asks for.
        now: the present, aware.
        most: no more files than this; the rest is due the next time.
    """
    wanted = json.dumps([{**vars(one), "before": one.before.isoformat()} for one in due])
    with database.transaction() as connection:
        decided = connection.execute(_DECIDE, {"due": wanted, "now": now, "most": most}).all()
        groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for row in decided:
            groups[row.batch, row.action, row.place].append(row.id)
        for (batch, action, place), files in groups.items():
            detail: dict[str, Any] = {"files": files, **({"place": place} if place else {})}
            record(connection, actor=ACTOR, action=f"files.{action}", subject=f"batch {batch}", detail=detail)
    return len(decided)


def orders(database: Database) -> list[Order]:
    """Return what was decided and is not done, the oldest first."""
    query = text(
        """
        SELECT r.archive_key, r.action, r.place, (SELECT sha256 FROM file WHERE file.archive_key = r.archive_key LIMIT 1)
               AS sha256
        FROM retirement r WHERE done_at IS NULL ORDER BY decided_at, archive_key, action
        """
    )
    with database.transaction() as connection:
        return [Order(**row) for row in connection.execute(query).mappings()]


def done(database: Database, order: Order) -> None:
    """Write down that the bytes are where they are meant to be, or nowhere."""
    mine = (retirement.c.archive_key == order.archive_key) & (retirement.c.action == order.action)
    with database.transaction() as connection:
        connection.execute(update(retirement).where(mine).values(done_at=func.now()))


def removed_at(database: Database, archive_key: str) -> datetime | None:
    """Return when the bytes of a file were given up; None when they are kept, here or elsewhere."""
    gone = (retirement.c.archive_key == archive_key) & (retirement.c.action == "removed")
    with database.transaction() as connection:
        decided_at: datetime | None = connection.scalar(select(retirement.c.decided_at).where(gone))
        return decided_at


def frozen_retentions(database: Database, *, besides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the retention that each batch's last configuration names, of the batches that are not listed."""
    query = text(
        """
        SELECT batch.id, last.retention FROM batch CROSS JOIN LATERAL (
            SELECT config -> 'retention' AS retention FROM batch_config
            WHERE batch_no = batch.no ORDER BY batch_config.id DESC LIMIT 1) AS last
        WHERE batch.id <> ALL (:besides) AND last.retention IS NOT NULL
        """
    )
    with database.transaction() as connection:
        return {row.id: row.retention for row in connection.execute(query, {"besides": list(besides)})}
