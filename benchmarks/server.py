"""A PostgreSQL of the benchmarks' own, in a temporary folder that is removed afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leadferry.local.postgres import EmbeddedPostgres


@contextmanager
def postgres() -> Iterator[tuple[EmbeddedPostgres, Path]]:
    """Give a running server and a folder for files; set TMPDIR to have them on another disk."""
    with tempfile.TemporaryDirectory(prefix="leadferry-benchmarks-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            yield server, Path(folder)
        finally:
            server.stop(crash=True)


def database_url(server: EmbeddedPostgres, name: str) -> str:
    """Make a database and return its URL."""
    server.ensure_database(name)
    return server.url(name, driver="postgresql")
