"""What was delivered in a span of days, added up over all batches; from the lead store alone, so of deleted batches too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

from leadferry.store.database import Database

if TYPE_CHECKING:
    import pandas as pd

Group = Literal["day", "recipient", "batch"]

TOTAL = "total"
"""Stands in the first column of the last row."""

MEASURES = (
    "departures",
    "delivered",
    "partial",
    "held",
    "failed",
    "skipped",
    "under_way",
    "leads",
    "withheld",
    "files",
    "bytes",
    "success_rate",
    "p95_seconds",
)

_STATES = ("delivered", "partial", "held", "failed", "skipped")

# The bounds on departs_at let the index narrow down what the batches' own days decide.
_DELIVERIES = text(
    """
    SELECT (d.departs_at AT TIME ZONE (config.config ->> 'timezone'))::date::text AS day,
           config.config -> 'recipient' ->> 'id' AS recipient, batch.id AS batch, d.state::text AS state,
           d.included AS leads, d.withheld,
           extract(epoch FROM d.settled_at - d.claimed_at)::float8 AS seconds,
           coalesce(made.files, 0)::bigint AS files, coalesce(made.bytes, 0)::bigint AS bytes
    FROM delivery AS d
    JOIN batch ON batch.no = d.batch_no
    JOIN batch_config AS config ON config.id = d.config_id
    LEFT JOIN LATERAL (SELECT count(*) AS files, sum(size) AS bytes FROM file WHERE delivery_id = d.id) AS made ON true
    WHERE d.kind <> 'test'
    AND d.departs_at >= CAST(:first AS date) - interval '2 days'
    AND d.departs_at < CAST(:last AS date) + interval '3 days'
    AND (d.departs_at AT TIME ZONE (config.config ->> 'timezone'))::date BETWEEN :first AND :last
    ORDER BY d.id
    """
)


def report(
    database: Database, *, first: date, last: date, by: Sequence[Group] = ("day", "recipient")
) -> list[dict[str, Any]]:
    """Return totals per group, and one row with the totals of all; tests are left out.

    `leads`, `files` and `bytes` are those of deliveries that are delivered or partial. `success_rate` is the share of
    delivered ones among those that are neither skipped nor under way; `p95_seconds` the time from the claim to
    the end that 95 of 100 of the delivered and partial ones stay below. Both are None where there is none.

    Args:
        database: the lead store.
        first: first day, in each batch's own time zone, by the time of departure.
        last: last day, included.
        by: what rows are made for, in this order; nothing for the total alone.
    """
    import pandas as pd

    with database.transaction() as connection:
        found = connection.execute(_DELIVERIES, {"first": first, "last": last})
        columns = list(found.keys())
        frame = pd.DataFrame([tuple(row) for row in found], columns=columns)
    keys = list(by)
    groups = list(frame.groupby(keys, sort=True)) if keys and len(frame) else []
    rows = [{**dict(zip(keys, values, strict=True)), **_measure(group)} for values, group in groups]
    return [*rows, {**dict.fromkeys(keys), **({keys[0]: TOTAL} if keys else {}), **_measure(frame)}]


def _measure(frame: pd.DataFrame) -> dict[str, Any]:
    counts = {state: int((frame["state"] == state).sum()) for state in _STATES}
    under_way = len(frame) - sum(counts.values())
    arrived = frame[frame["state"].isin(["delivered", "partial"])]
    ended = len(frame) - counts["skipped"] - under_way
    return {
        "departures": len(frame),
        **counts,
        "under_way": under_way,
        "leads": int(arrived["leads"].sum()),
        "withheld": int(frame["withheld"].sum()),
        "files": int(arrived["files"].sum()),
        "bytes": int(arrived["bytes"].sum()),
        "success_rate": round(counts["delivered"] / ended, 4) if ended else None,
        "p95_seconds": round(float(arrived["seconds"].quantile(0.95)), 1) if len(arrived) else None,
    }
