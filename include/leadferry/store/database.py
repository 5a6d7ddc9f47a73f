"""Reaching the lead store: PostgreSQL, one schema, errors that never quote data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import psycopg
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from leadferry.errors import StoreConflictError, StoreError, StoreUnavailableError

SCHEMA = "leadferry"
OLDEST_SERVER = 15

_CONNECT_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "leadferry",
    "options": f"-c search_path={SCHEMA} -c timezone=UTC -c work_mem=64MB",
}

_OWN_MESSAGE = re.compile(r"leadferry: (.*)")
_UNAVAILABLE = ("08", "57P", "53")
"""SQLSTATE classes: connection exceptions, operator intervention (restart), insufficient resources."""
_TRY_AGAIN = {"40001", "40P01", "55P03"}
"""Serialization failure, deadlock, lock not available."""


class Database:
    """The lead store's database: gives transactions, keeps no connection open between them."""

    def __init__(self, url: str) -> None:
        """Remember where the database is.

        Args:
            url: as libpq or SQLAlchemy write it, `postgresql://user:password@host/database`;
                a folder as host (`?host=/run/postgresql`) means a Unix socket.
        """
        self._url = make_url(url).set(drivername="postgresql+psycopg")

    @cached_property
    def engine(self) -> Engine:
        """The engine; made on first use. Parameters never show in its errors."""
        return create_engine(
            self._url, connect_args=dict(_CONNECT_ARGUMENTS), hide_parameters=True, poolclass=NullPool
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run the block in one transaction: committed at its end, rolled back by any exception."""
        with store_errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Hold one connection without a transaction (each statement commits), for session-level locks and COPY."""
        with store_errors(), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def upgrade(self) -> None:
        """Create or migrate the schema; safe to run at any time and by several at once."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        with self.transaction() as connection:
            _require_server(connection)
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('leadferry upgrade'))"))
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _require_server(connection: Connection) -> None:
    version = int((connection.dialect.server_version_info or (0,))[0])
    if version < OLDEST_SERVER:
        raise StoreError(
            f"The lead store needs PostgreSQL {OLDEST_SERVER} or newer, this is {version}",
            hint="Point the connection 'leadferry' at a newer server",
        )


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn database errors into ours: by SQLSTATE, without the server's text, which may quote a lead."""
    try:
        yield
    except DBAPIError as error:
        raise _classify(error.orig, lost=error.connection_invalidated) from None
    except psycopg.Error as error:
        raise _classify(error) from None
    except SQLAlchemyError as error:
        raise StoreError(f"The lead store's client failed ({type(error).__name__})") from None


def _classify(error: BaseException | None, *, lost: bool = False) -> StoreError:
    state = getattr(error, "sqlstate", None) or ""
    lost = lost or (not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError))
    if state in _TRY_AGAIN:
        return StoreConflictError(f"Another transaction of the lead store was in the way (SQLSTATE {state})")
    if lost or state.startswith(_UNAVAILABLE):
        return StoreUnavailableError(
            f"The lead store did not answer (SQLSTATE {state or 'none: no connection'})"
        )
    if state.startswith("LF"):
        own = _OWN_MESSAGE.search(str(error))
        return StoreError(f"The lead store refused: {own[1] if own else state}")
    if state in {"3F000", "42P01", "42703"}:
        return StoreError(
            f"The lead store is not set up (SQLSTATE {state})", hint="Run `leadferry db upgrade`"
        )
    return StoreError(
        f"The lead store refused (SQLSTATE {state or 'none'}, {type(error).__name__})",
        hint="The PostgreSQL server's log has the details",
    )
