"""Streaming the leads of a delivery out of the store, in their order, in constant memory.

PostgreSQL's COPY writes CSV, polars reads it in blocks of some megabytes: no Python object per lead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from psycopg import Connection as PsycopgConnection
from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from leadferry.states import LeadOutcome
from leadferry.store.database import Database
from leadferry.store.tables import delivery_lead, lead

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 8 * 1024 * 1024
"""Large enough for the engine to be fast, small enough that a few of them do not matter."""


def read_leads(
    database: Database,
    delivery_id: int,
    columns: Mapping[str, ColumnElement[Any]],
    *,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[pl.DataFrame]:
    """Stream the included leads of a delivery, in the order of their positions.

    Args:
        database: the lead store.
        delivery_id: whose leads.
        columns: name in the frame → SQL text expression on the table `lead`; must include no duplicate names.
        block_bytes: about how much one frame holds, as CSV.

    Yields:
        Frames whose columns are all text, null where the expression is NULL; none when there is no lead.

    Raises:
        StoreUnavailableError: the connection was cut; what was yielded until then is right, but not all.
    """
    with database.session() as connection:
        driver = cast("PsycopgConnection[Any]", connection.connection.driver_connection)
        query = _as_text(_query(delivery_id, columns))
        for block in _copy(driver, query, block_bytes=block_bytes):
            yield _frame(block, list(columns))


def _query(delivery_id: int, columns: Mapping[str, ColumnElement[Any]]) -> Select[Any]:
    expressions = [expression.label(name) for name, expression in columns.items()]
    return (
        select(*expressions)
        .join_from(delivery_lead, lead, lead.c.id == delivery_lead.c.lead_id)
        .where(
            delivery_lead.c.delivery_id == delivery_id,
            delivery_lead.c.outcome == LeadOutcome.INCLUDED,
        )
        .order_by(delivery_lead.c.position)
    )


def _as_text(query: Select[Any]) -> str:
    """Write the query with its values in it: COPY takes no parameters."""
    # "named" keeps SQLAlchemy from doubling every percent sign for a driver that will not undo it here.
    dialect = PGDialect_psycopg(paramstyle="named")  # type: ignore[no-untyped-call] # SQLAlchemy has no types here
    return str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _copy(driver: PsycopgConnection[Any], query: str, *, block_bytes: int) -> Iterator[bytes]:
    """Run COPY … TO STDOUT and yield blocks of whole rows (the server sends row by row)."""
    with driver.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, NULL '')") as copy:
        rows: list[bytes] = []
        size = 0
        for row in copy:
            rows.append(bytes(row))
            size += len(row)
            if size >= block_bytes:
                yield b"".join(rows)
                rows, size = [], 0
        if rows:
            yield b"".join(rows)


def _frame(block: bytes, names: list[str]) -> pl.DataFrame:
    import polars as pl

    return pl.read_csv(
        BytesIO(block),
        has_header=False,
        schema=dict.fromkeys(names, pl.String),
    )
