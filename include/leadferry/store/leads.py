"""Streaming the leads of a delivery out of the store, in their order, in constant memory.

PostgreSQL's COPY writes CSV, polars reads it in blocks of some megabytes: no Python object per lead.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from psycopg import Connection as PsycopgConnection
from sqlalchemy import ColumnElement, Connection, Select, exists, func, select, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from leadferry.store.database import Database
from leadferry.store.edits import as_delivered
from leadferry.store.routing import lots_of
from leadferry.store.tables import delivery, lead, pending, queue_entry, withheld

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 4 * 1024 * 1024
"""Large enough for the engine to be fast, small enough that a few of them do not matter."""


def read_leads(
    database: Database,
    delivery_id: int,
    columns: Mapping[str, ColumnElement[Any]],
    *,
    where: ColumnElement[bool] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Generator[pl.DataFrame]:
    """Stream the included leads of a delivery, in the delivery's order.

    Args:
        database: the lead store.
        delivery_id: whose leads.
        columns: name in the frame → SQL text expression on the table `lead`; must include no duplicate names.
        where: only these leads, a condition on the table `lead`.
        block_bytes: about how much one frame holds, as CSV.

    Yields:
        Frames whose columns are all text, null where the expression is NULL; none when there is no lead.

    Raises:
        StoreUnavailableError: the connection was cut; what was yielded until then is right, but not all.
    """
    with database.session() as connection:
        driver = cast("PsycopgConnection[Any]", connection.connection.driver_connection)
        order = connection.scalars(select(delivery.c.lead_order).where(delivery.c.id == delivery_id)).one()
        lots = lots_of(connection, delivery_id)
        query = _query(delivery_id, lots, columns, where=where)
        if order != "random" and _ids_follow_time(connection, lots):
            query = query.order_by(lead.c.id.desc() if order == "newest" else lead.c.id)
        else:
            query = _in_order(query, delivery_id, order)
        query = as_delivered(connection, delivery_id, query)
        for block in _copy(driver, _as_text(query), block_bytes=block_bytes):
            yield _frame(block, list(columns))


def count_by(database: Database, delivery_id: int, value: ColumnElement[str]) -> dict[str, int]:
    """Count a delivery's included leads by the value of an expression on the table `lead`; NULL is left out."""
    with database.transaction() as connection:
        query = _query(delivery_id, lots_of(connection, delivery_id), {"value": value})
        found = query.add_columns(func.count()).group_by(text("1"))
        edited = as_delivered(connection, delivery_id, found)
        return {row[0]: row[1] for row in connection.execute(edited) if row[0] is not None}


def most_frequent(
    database: Database, delivery_id: int, value: ColumnElement[str], *, limit: int, at_least: int
) -> list[tuple[str, int]]:
    """Count a delivery's included leads by an expression on the table `lead`, the most frequent values first.

    Args:
        database: the lead store.
        delivery_id: whose leads.
        value: text; NULL is left out.
        limit: most values.
        at_least: fewest leads of a value that counts.
    """
    with database.transaction() as connection:
        query = _query(delivery_id, lots_of(connection, delivery_id), {"value": value}).add_columns(
            func.count()
        )
        grouped = query.where(value.is_not(None)).group_by(text("1")).having(func.count() >= at_least)
        first = as_delivered(
            connection, delivery_id, grouped.order_by(func.count().desc(), text("1")).limit(limit)
        )
        found = connection.execute(first)
        return [(row[0], row[1]) for row in found]


def read_ids(database: Database, delivery_id: int, *, where: ColumnElement[bool]) -> list[int]:
    """Return the ids of a delivery's included leads that meet a condition on the table `lead`."""
    with database.transaction() as connection:
        query = _query(delivery_id, lots_of(connection, delivery_id), {"id": lead.c.id}, where=where)
        return list(connection.scalars(as_delivered(connection, delivery_id, query)))


def peek(  # noqa: PLR0913  (one query's clauses)
    database: Database,
    batch_no: int,
    columns: Mapping[str, ColumnElement[Any]],
    *,
    where: ColumnElement[bool] | None,
    order: str,
    limit: int,
) -> pl.DataFrame:
    """Return the first leads that wait for a batch, without touching them; all columns text but a numeric first one."""
    import polars as pl

    expressions = [expression.label(name) for name, expression in columns.items()]
    waiting = (
        select(*expressions)
        .join_from(pending, lead, lead.c.id == pending.c.lead_id)
        .where(pending.c.batch_no == batch_no)
        .limit(limit)
    )
    place = (pending.c.received_at, pending.c.lead_id)
    descending = order == "newest"
    waiting = waiting.order_by(*(column.desc() if descending else column.asc() for column in place))
    with database.transaction() as connection:
        rows = connection.execute(waiting if where is None else waiting.where(where)).all()
    first, *others = columns
    schema = {first: pl.Int64, **dict.fromkeys(others, pl.String)}
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")


def _query(
    delivery_id: int,
    lots: Sequence[int],
    columns: Mapping[str, ColumnElement[Any]],
    *,
    where: ColumnElement[bool] | None = None,
) -> Select[Any]:
    expressions = [expression.label(name) for name, expression in columns.items()]
    kept_back = exists().where(withheld.c.delivery_id == delivery_id, withheld.c.lead_id == lead.c.id)
    query = (
        select(*expressions)
        .join_from(queue_entry, lead, lead.c.id == queue_entry.c.lead_id)
        .where(queue_entry.c.lot_id.in_(lots), ~kept_back)
    )
    return query if where is None else query.where(where)


def _ids_follow_time(connection: Connection, lots: Sequence[int]) -> bool:
    """Say whether the leads have ids in the order in which they were received, as they nearly always do.

    Then the order of the ids, in which the tables and their indexes lie, is the delivery's order. Nothing needs to be
    sorted, so the first lead comes at once, and the server reads on while this process works.
    """
    before = func.lag(queue_entry.c.received_at).over(order_by=queue_entry.c.lead_id)
    later = select((queue_entry.c.received_at >= before).label("later")).where(queue_entry.c.lot_id.in_(lots))
    return connection.scalar(select(func.bool_and(later.subquery().c.later))) is not False


def _in_order(query: Select[Any], delivery_id: int, order: str) -> Select[Any]:
    """Sort by the delivery's order; also the random one is the same each time, so that the bytes are."""
    place = (queue_entry.c.received_at, queue_entry.c.lead_id)
    match order:
        case "newest":
            return query.order_by(*(column.desc() for column in place))
        case "random":
            return query.order_by(
                func.hashint8extended(queue_entry.c.lead_id, delivery_id), queue_entry.c.lead_id
            )
        case _:
            return query.order_by(*place)


def _as_text(query: Select[Any]) -> str:
    """Write the query with its values in it: COPY takes no parameters."""
    # "named" keeps SQLAlchemy from doubling every percent sign for a driver that will not undo it here.
    dialect = PGDialect_psycopg(paramstyle="named")  # type: ignore[no-untyped-call] # SQLAlchemy has no types here
    return str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _copy(driver: PsycopgConnection[Any], query: str, *, block_bytes: int) -> Iterator[bytes]:
    """Run COPY … TO STDOUT and yield blocks of whole rows (the server sends row by row)."""
    with driver.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, NULL '')") as copy:
        block = bytearray()
        for row in copy:
            block += row
            if len(block) >= block_bytes:
                yield bytes(block)
                block.clear()
        if block:
            yield bytes(block)


def _frame(block: bytes, names: list[str]) -> pl.DataFrame:
    import polars as pl

    return pl.read_csv(
        BytesIO(block),
        has_header=False,
        schema=dict.fromkeys(names, pl.String),
    )
