"""Deliver leads as rows of a table in a PostgreSQL database: one lead one row, known by the lead's id.

All leads of a delivery arrive in one transaction or not at all, and arriving again changes nothing.

Here is what stands in YAML; `session` says what happens in the database, `login` connects, `refusals` says what its
errors mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from leadferry.destinations.base import AllowsPlaintext
from leadferry.destinations.table.login import address, logged_in
from leadferry.destinations.table.session import TableSession

LONGEST = 63
"""Bytes of a name in PostgreSQL; longer ones are cut without a word."""

ColumnType = Literal[
    "text", "integer", "bigint", "numeric", "double precision", "boolean", "date", "time", "timestamp", "timestamptz",
    "uuid", "jsonb",
]  # fmt: skip


class Table(AllowsPlaintext):
    """A table in a PostgreSQL database."""

    connection_kind: ClassVar[str] = "postgres"

    type: Literal["table"] = "table"
    connection: str = Field(min_length=1, description="Airflow connection of type postgres.")
    table: str = Field(
        pattern=r"^[^.\"\x00]+(\.[^.\"\x00]+)?$",
        description="The table, `name` or `schema.name`, as it is written there.",
    )
    key: str = Field(
        default="lead_id", min_length=1, description="Column with the lead's id; must be unique."
    )
    delivery_column: str = Field(
        default="delivery_id",
        min_length=1,
        description="Column with the id of the delivery that wrote the row last.",
    )
    mode: Literal["upsert", "insert_new"] = Field(
        default="upsert", description="Whether a lead that is there already is replaced or left as it is."
    )
    create: bool = Field(default=False, description="Make the table when it is missing.")
    types: dict[str, ColumnType] = Field(
        default={}, description="With `create`: the types of columns that are not to be `text`."
    )
    timeout: float = Field(
        default=60, gt=0, le=3600, description="Seconds to wait for a connection, and for another's lock."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.types and not self.create:
            raise ValueError("`types` is only used with `create: true`; a table that is there has its own")
        if self.key == self.delivery_column:
            raise ValueError("`key` and `delivery_column` must be two columns")
        return self

    @property
    def takes(self) -> Literal["files", "leads"]:
        """Leads: each one is a row."""
        return "leads"

    def problems(self, columns: Sequence[str]) -> list[str]:
        """Say which columns a table cannot have."""
        every = Counter([*columns, self.key, self.delivery_column])
        found = [f"column {name!r} stands twice in the table" for name, count in every.items() if count > 1]
        found += [
            f"column {name!r} is longer than the {LONGEST} bytes of a name in PostgreSQL"
            for name in every
            if len(name.encode()) > LONGEST
        ]
        found += [f"`types` names {name!r}, which is no column" for name in self.types if name not in columns]
        return found

    @property
    def where(self) -> str:
        """The connection and the table, as written."""
        return f"{self.via}, table {self.table}"

    def endpoint(self) -> tuple[str, int] | None:
        """Return host and port by the Airflow connection; None for a Unix socket."""
        return address(self.connection)

    @contextmanager
    def open(self) -> Iterator[TableSession]:
        """Connect, prove the server's certificate and log in by the Airflow connection."""
        with logged_in(self.connection, timeout=self.timeout, allow_plaintext=self.allow_plaintext) as (
            client,
            place,
        ):
            yield TableSession(self, client, place=place)
