"""Whether the lead store is fit for use: its schema, its clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ARRAY, DateTime, String, bindparam, func, select, text

from leadferry.store.database import SCHEMA, Database

_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, kw_only=True)
class SchemaState:
    """Which version the tables have."""

    server: str
    """Version of PostgreSQL."""
    current: str | None
    """The newest migration that was run; None where there are no tables."""
    wanted: str | None
    """The newest migration of this version of Leadferry."""


def schema(database: Database) -> SchemaState:
    """Compare the store's tables with what this version needs.

    Raises:
        StoreError: the store refused, or cannot be reached.
    """
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
        current = context.get_current_revision()
    wanted = ScriptDirectory.from_config(config).get_current_head()
    return SchemaState(server=version, current=current, wanted=wanted)


def clock(database: Database) -> datetime:
    """Return the store's time, aware.

    Raises:
        StoreError: the store cannot be reached.
    """
    with database.transaction() as connection:
        told: datetime = connection.scalars(select(func.clock_timestamp())).one()
        return told


def offsets(
    database: Database, zones: Iterable[str], moments: Iterable[datetime]
) -> Mapping[tuple[str, datetime], timedelta]:
    """Return how far each zone is from UTC at each moment, as PostgreSQL knows it; nothing for a zone that it does not know.

    Raises:
        StoreError: the store cannot be reached.
    """
    query = text(
        "SELECT zone.name, moment.at, timezone(zone.name, moment.at) - timezone('UTC', moment.at)"
        " FROM pg_timezone_names AS zone, unnest(:moments) AS moment (at) WHERE zone.name = ANY (:zones)"
    ).bindparams(
        bindparam("zones", type_=ARRAY(String)), bindparam("moments", type_=ARRAY(DateTime(timezone=True)))
    )
    with database.transaction() as connection:
        rows = connection.execute(query, {"zones": list(zones), "moments": list(moments)})
        return {(zone, moment): offset for zone, moment, offset in rows}
