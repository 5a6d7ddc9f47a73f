"""Where the lead store is: the Airflow connection `leadferry`, in a task or on the command line."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

from leadferry.errors import StoreError
from leadferry.store.database import Database

CONNECTION_ID = "leadferry"
_VARIABLE = "AIRFLOW_CONN_LEADFERRY"

_OWN = {"AIRFLOW__LOGGING__LOGGING_LEVEL"}
"""What the command line sets itself, which says nothing about an Airflow."""


def lead_store() -> Database:
    """Return the lead store that the Airflow connection `leadferry` points at.

    The environment variable is read here, as Airflow would read it, because importing Airflow takes two seconds
    that a command should not cost; a secrets backend or Airflow's own database is asked through Airflow.

    Raises:
        StoreError: there is no such connection.
    """
    value = os.environ.get(_VARIABLE)
    if value is None:
        return Database(_from_airflow())
    if value.lstrip().startswith("{"):
        return Database(_url(json.loads(value)))
    return Database(make_url(value).set(drivername="postgresql").render_as_string(hide_password=False))


def is_at_home() -> bool:
    """Tell whether there is anything to ask for the lead store: its variable, or an Airflow.

    A bare checkout is left alone: asking Airflow there would make it a home in the user's folder.
    """
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    inherited = set(os.environ) - _OWN
    return (
        _VARIABLE in os.environ
        or (home / "airflow.cfg").exists()
        or any(name.startswith("AIRFLOW__") for name in inherited)
    )


def _from_airflow() -> str:
    with redirect_stdout(
        sys.stderr
    ):  # on import Airflow takes standard output for its log, where a command's answer goes
        from airflow.sdk import Connection
        from airflow.sdk.exceptions import AirflowException

    try:
        found = Connection.get(CONNECTION_ID)
    except (AirflowException, ImportError):
        raise StoreError(
            "There is no Airflow connection 'leadferry', so the lead store cannot be found",
            hint=f"Set {_VARIABLE}=postgresql://user:password@host/database, or add the connection in Airflow",
        ) from None
    names = ("host", "port", "login", "password", "schema")
    return _url({**{name: getattr(found, name) for name in names}, "extra": found.extra_dejson})


def _url(connection: dict[str, Any]) -> str:
    extra = connection.get("extra") or {}
    query = dict(json.loads(extra) if isinstance(extra, str) else extra)
    host = connection.get("host")
    if host and host.startswith("/"):
        query["host"], host = host, None
    url = URL.create(
        "postgresql",
        username=connection.get("login"),
        password=connection.get("password"),
        host=host,
        port=connection.get("port"),
        database=connection.get("schema"),
        query={name: str(value) for name, value in query.items()},
    )
    return url.render_as_string(hide_password=False)
