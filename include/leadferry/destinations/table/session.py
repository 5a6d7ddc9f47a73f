"""What happens in the database: leads into a temporary table, from there into the table, all in one transaction."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from leadferry.destinations.base import Session
from leadferry.destinations.parcel import Parcel, Receipt
from leadferry.destinations.table.refusals import refusals
from leadferry.destinations.transfer import logged
from leadferry.errors import AccessDeniedError, NoSuchPathError, PermanentDeliveryError

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

    from leadferry.destinations.table import Table

_PARCEL = "leadferry_parcel"
"""The temporary table."""


class TableSession(Session):
    """An open connection to a database."""

    def __init__(self, destination: Table, client: psycopg.Connection, *, place: str) -> None:
        self._destination = destination
        self._client = client
        self._place = place

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look whether every lead of the parcel is there, written by this delivery.

        With `insert_new` it does not matter who wrote it.
        """
        with self._transaction():
            if not self._columns_there() or not parcel.file.rows:
                return None
            self._execute("CREATE TEMP TABLE {parcel} ({key} bigint PRIMARY KEY) ON COMMIT DROP")
            self._copy(((lead_id,) for lead_id, _ in parcel.file.records()), [self._destination.key])
            found = self._count(parcel)
        if found != parcel.file.rows:
            return None
        return self._receipt(parcel, {"verified": "every lead is there"})

    def send(self, parcel: Parcel) -> Receipt:
        """Write every lead, or none; a lead that is there already stays one row."""
        with logged("put", self._url, size=parcel.file.size), self._transaction():
            labels, rows = self._read(parcel)
            if not labels:
                return self._receipt(parcel, {"inserted": 0})
            self._prepare(labels)
            self._fill(parcel, labels, rows)
            there = self._scalar("SELECT count(*) FROM {table} JOIN {parcel} USING ({key})")
            self._merge(labels)
        new = parcel.file.rows - there
        kept = "updated" if self._destination.mode == "upsert" else "left_alone"
        return self._receipt(parcel, {"inserted": new, kept: there, "verified": "committed"})

    def probe(self, parcel: Parcel) -> str:
        """Do everything but write: the table, its columns and the rights on it are looked at, and nothing is kept."""
        with self._transaction(), self._given_up():
            labels, _ = self._read(parcel)
            self._prepare(labels)
            for right in ("SELECT", "INSERT", *(["UPDATE"] if self._destination.mode == "upsert" else [])):
                self._require(right)
            # With no row in it, so that it is planned and nothing happens: is there a unique key?
            self._merge(labels)
        return "the table, its columns and the rights on it are there; no lead was written"

    # --- the transaction

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run in one transaction: what is not whole at its end was never there, whoever is killed."""
        with refusals(self._where), self._client.transaction():
            yield

    @contextmanager
    def _given_up(self) -> Iterator[None]:
        """Undo what is done in here."""
        import psycopg

        with self._client.transaction():
            yield
            raise psycopg.Rollback

    def _prepare(self, labels: Sequence[str]) -> None:
        """See that the table has the columns, or make it, and make the temporary table with their types."""
        there = self._columns_there()
        if not there and self._destination.create:
            there = self._create(labels)
        if not there:
            raise NoSuchPathError(
                f"{self._where}: there is no such table", hint="Correct `table`, or set `create: true`"
            )
        if missing := [name for name in self._every(labels) if name not in there]:
            raise PermanentDeliveryError(
                f"{self._where}: the table has no column {', '.join(map(repr, missing))}",
                hint="Add the columns to the table, or change `to` in the batch's fields; names are case-sensitive",
            )
        self._execute(
            "CREATE TEMP TABLE {parcel} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA",
            labels=labels,
        )

    def _create(self, labels: Sequence[str]) -> list[str]:
        from psycopg import sql

        # Two that create at once would collide in PostgreSQL's catalogue.
        self._client.execute("SELECT pg_advisory_xact_lock(hashtext('leadferry table'))")
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(self._destination.types.get(name, "text")))
            for name in labels
        ]
        head = [
            sql.SQL("{} bigint PRIMARY KEY").format(sql.Identifier(self._destination.key)),
            sql.SQL("{} text NOT NULL").format(sql.Identifier(self._destination.delivery_column)),
        ]
        statement = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})")
        self._client.execute(statement.format(self._table, sql.SQL(", ").join([*head, *columns])))
        return self._columns_there()

    def _fill(
        self, parcel: Parcel, labels: Sequence[str], rows: Iterable[tuple[int, dict[str, Any]]]
    ) -> None:
        import psycopg

        mark = _delivery(parcel)
        texts = ((lead_id, mark, *(_text(fields[name]) for name in labels)) for lead_id, fields in rows)
        try:
            self._copy(texts, self._every(labels))
        except psycopg.DataError as refused:
            raise self._unfit(refused, parcel, labels) from None

    def _merge(self, labels: Sequence[str]) -> None:
        """Take the rows over; in the order of their ids, so that two that do it at once wait and do not block each other."""
        from psycopg import sql

        mine = [name for name in self._every(labels) if name != self._destination.key]
        pairs = [sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in mine]
        update = sql.SQL("UPDATE SET {}").format(sql.SQL(", ").join(pairs))
        action = update if self._destination.mode == "upsert" else sql.SQL("NOTHING")
        self._execute(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {parcel} ORDER BY {key}"
            " ON CONFLICT ({key}) DO {action}",
            labels=labels,
            action=action,
        )

    # --- small things

    def _read(self, parcel: Parcel) -> tuple[list[str], Iterator[tuple[int, dict[str, Any]]]]:
        """Return the labels of the mapped fields, and all leads; no labels without a lead."""
        records = parcel.file.records()
        first = list(islice(records, 1))
        return (list(first[0][1]) if first else []), chain(first, records)

    def _copy(self, rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> None:
        statement = self._sql("COPY {parcel} ({names}) FROM STDIN", names=_names(columns))
        with self._client.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def _count(self, parcel: Parcel) -> int:
        statement = "SELECT count(*) FROM {table} JOIN {parcel} USING ({key})"
        if self._destination.mode == "insert_new":
            return self._scalar(statement)
        return self._scalar(statement + " WHERE {delivery}::text = %s", _delivery(parcel))

    def _columns_there(self) -> list[str]:
        """Return the table's columns; none where there is no table."""
        found = self._client.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [self._table.as_string(self._client)],
        )
        return [str(name) for (name,) in found]

    def _require(self, right: str) -> None:
        table = self._table.as_string(self._client)
        (granted,) = self._client.execute(
            "SELECT has_table_privilege(%s, %s)", [table, right]
        ).fetchone() or [False]
        if not granted:
            raise AccessDeniedError(
                f"{self._where}: no permission to {right}",
                hint=f"Grant {right} on the table to the connection's user",
            )

    def _every(self, labels: Sequence[str]) -> list[str]:
        return [self._destination.key, self._destination.delivery_column, *labels]

    def _unfit(self, refused: psycopg.Error, parcel: Parcel, labels: Sequence[str]) -> PermanentDeliveryError:
        """Name the column and the lead of a value that the table cannot have; the value itself stays unsaid."""
        context = re.match(r"COPY \w+, line (\d+), column ([^:]+)(?::|$)", refused.diag.context or "")
        column = context[2] if context and context[2] in labels else None
        if context is None or column is None:
            what = f"a value does not fit its column (SQLSTATE {refused.sqlstate})"
        else:
            lead_id, _ = next(islice(parcel.file.records(), int(context[1]) - 1, None))
            what = f"lead {lead_id} has a value in {column!r} that does not fit the column's type"
        return PermanentDeliveryError(
            f"{self._where}: {what}",
            hint="Change the column's type, or give the field a transform that makes such a value; no lead was written",
        )

    def _receipt(self, parcel: Parcel, details: dict[str, Any]) -> Receipt:
        return Receipt(location=self._url, details={"leads": parcel.file.rows, **details})

    @property
    def _url(self) -> str:
        return f"{self._place}#{self._destination.table}"

    @property
    def _where(self) -> str:
        return f"{self._destination.via} ({self._place}), table {self._destination.table}"

    @property
    def _table(self) -> Any:
        from psycopg import sql

        return sql.Identifier(*self._destination.table.split("."))

    def _sql(self, statement: str, *, labels: Sequence[str] = (), **more: Any) -> Composed:
        from psycopg import sql

        parts = {
            "table": self._table,
            "parcel": sql.Identifier(_PARCEL),
            "key": sql.Identifier(self._destination.key),
            "delivery": sql.Identifier(self._destination.delivery_column),
            "columns": _names(self._every(labels)),
            **more,
        }
        return sql.SQL(statement).format(**parts)

    def _execute(self, statement: str, *, labels: Sequence[str] = (), **more: Any) -> None:
        self._client.execute(self._sql(statement, labels=labels, **more))

    def _scalar(self, statement: str, *values: Any) -> int:
        (found,) = self._client.execute(self._sql(statement), values or None).fetchone() or [0]
        return int(found)


def _names(columns: Sequence[str]) -> Composed:
    from psycopg import sql

    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _text(value: Any) -> str | None:
    """Write a value as PostgreSQL reads it, whatever the column's type."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _delivery(parcel: Parcel) -> str:
    return str(parcel.variables["delivery"]["id"])
