"""Fixtures that every test may ask for: a real lead store, fresh for each test."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from leadferry.local.postgres import EmbeddedPostgres
from leadferry.store.database import Database

PROJECT = Path(__file__).parents[1]

# Airflow makes its folder when it is imported; the tests' Airflow is nobody's own.
AIRFLOW_HOME = tempfile.mkdtemp(prefix="leadferry-airflow-")
os.environ["AIRFLOW_HOME"] = AIRFLOW_HOME
# What tests reckon themselves with `ZoneInfo` goes by the same rules as the product, not by this machine's old or new ones.
zoneinfo.reset_tzpath(())
zoneinfo.ZoneInfo.clear_cache()
# How long an example takes is the machine's business, and which examples are tried is the same wherever the tests run.
# `--hypothesis-profile=search` looks for new ones.
SLOW_MACHINES = [HealthCheck.too_slow]
settings.register_profile("search", deadline=None, derandomize=False, suppress_health_check=SLOW_MACHINES)
settings.register_profile("same", parent=settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("same")
_numbers = itertools.count()


def pytest_unconfigure() -> None:
    """Remove the tests' Airflow folder."""
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _commands_leave_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a command sets for Airflow, so that the tests after it find Airflow as it was."""
    for name in ("_AIRFLOW_PROCESS_CONTEXT", "AIRFLOW__LOGGING__LOGGING_LEVEL"):
        before = os.environ.get(name)
        monkeypatch.setenv(name, before or "")
        if before is None:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server for this test process."""
    folder = Path(tempfile.mkdtemp(prefix="leadferry-pg-"))
    server = EmbeddedPostgres(folder / "db", durable=False)
    server.ensure_database("template_leadferry")
    database = Database(server.url("template_leadferry"))
    database.upgrade()
    yield server
    server.stop(crash=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a fresh, migrated lead store."""
    name = f"store_{os.getpid()}_{next(_numbers)}"
    postgres.ensure_database(name, template="template_leadferry")
    yield postgres.url(name, driver="postgresql")
    postgres.drop_database(name)


@pytest.fixture
def database(store_url: str) -> Database:
    """A fresh, migrated lead store."""
    return Database(store_url)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Announce an Airflow connection."""

    def announce(name: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": "generic", **fields}))

    return announce


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Define an Airflow connection by the environment, from a server's announcement with some parts changed."""

    def define(
        connection_id: str,
        announcement: Mapping[str, Any],
        *,
        extra: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        connection = {**announcement["connection"], **changes}
        connection["extra"] = {**connection.get("extra", {}), **(extra or {})}
        monkeypatch.setenv(f"AIRFLOW_CONN_{connection_id.upper()}", json.dumps(connection))
        return connection_id

    return define
