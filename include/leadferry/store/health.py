"""Whether the lead store is fit for use: its schema, its clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select

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
