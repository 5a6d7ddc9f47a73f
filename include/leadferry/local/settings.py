"""The environment variables under which every process of the try-out runs; nothing is written into Airflow's files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leadferry.local.workspace import PROJECT, Workspace

_FOREIGN = ("AIRFLOW", "LEADFERRY", "_AIRFLOW")
"""Variables of another Airflow on the same machine begin so; they must not reach this one."""

_LONGEST_TEMPORARY_PATH = 60
"""A Unix socket's path ends at 107 characters, and Python's process pools make sockets in the temporary folder."""

USER = "admin"


def environment(
    workspace: Workspace,
    *,
    port: int,
    postgres_socket: str,
    connections: Mapping[str, Mapping[str, Any]],
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """Return the whole environment: what was inherited, without another Airflow's settings, and ours.

    Args:
        workspace: where everything is written.
        port: of the api-server, on 127.0.0.1.
        postgres_socket: folder of the embedded PostgreSQL's socket.
        connections: Airflow connections by id, in the JSON form of Airflow.
        inherited: the caller's environment, such as `os.environ`.
    """
    store = {"conn_type": "postgres", "host": postgres_socket, "login": "postgres", "schema": "leadferry"}
    return {
        **plain_environment(workspace, inherited=inherited),
        **_airflow(workspace, port=port, postgres_socket=postgres_socket),
        **_connections({"leadferry": store, **connections}),
    }


def plain_environment(workspace: Workspace, *, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that has nothing to do with Airflow: what was inherited, and our folders."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_FOREIGN)}
    settings = {
        "LEADFERRY_CONFIG": str(PROJECT / "config"),
        "LEADFERRY_ARCHIVE": str(workspace.archive),
        "PYTHONUNBUFFERED": "1",
        # Airflow starts children by name, so the environment's commands come first.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
    }
    if len(str(workspace.temporary)) <= _LONGEST_TEMPORARY_PATH:
        settings["TMPDIR"] = str(workspace.temporary)
    return {**kept, **settings}


def _airflow(workspace: Workspace, *, port: int, postgres_socket: str) -> dict[str, str]:
    secrets = workspace.secrets()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        # Each worker spends seconds of CPU on its first task, so more of them than CPUs make the start slower.
        "CORE__PARALLELISM": str(min(6, max(2, os.cpu_count() or 2))),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__FERNET_KEY": secrets.fernet_key,
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file(workspace)),
        # The tasks' API is served by the same server: its address must follow the port, or every task fails.
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # A task's supervisor sleeps this many seconds when the task closes its sockets a moment before it ends (seen
        # for two of three tasks), and keeps one of the few slots meanwhile; the default of 5 costs minutes.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # After a stop in the middle of a delivery the next start takes its tasks up again after this many seconds.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": url,
        "API__SECRET_KEY": secrets.session_secret,
        "API_AUTH__JWT_SECRET": secrets.jwt_secret,
        "DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://postgres@/airflow?host={postgres_socket}",
        "LOGGING__BASE_LOG_FOLDER": str(workspace.logs / "airflow"),
    }
    named = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    return {"AIRFLOW_HOME": str(workspace.airflow_home), **named}


def _connections(connections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in connections.items()
    }


def passwords_file(workspace: Workspace) -> Path:
    """Return the file from which Airflow's simple auth manager reads its users' passwords."""
    return workspace.airflow_home / "passwords.json"


def write_passwords(workspace: Workspace) -> None:
    """Write that file, so that the password stays the same and Airflow prints none into a log."""
    path = passwords_file(workspace)
    path.touch(mode=0o600)
    path.write_text(json.dumps({USER: workspace.secrets().admin_password}), "utf-8")
