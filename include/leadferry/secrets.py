"""Passwords and keys that files are made with, read from Airflow connections and from nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from leadferry.errors import RenderError


@dataclass(frozen=True, kw_only=True)
class Secret:
    """What a connection holds; never shown."""

    password: str = field(repr=False)
    extra: dict[str, str] = field(repr=False)


class FromConnection(BaseModel):
    """A key that stands in an Airflow connection and not in the batch file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection: str = Field(min_length=1, description="Airflow connection that holds the key.")


def read(connection_id: str) -> Secret:
    """Read a connection.

    Raises:
        RenderError: Airflow does not know it, or it cannot be read; names the connection, nothing of its content.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = Connection.get(connection_id)
        extra = {name: str(value) for name, value in found.extra_dejson.items()}
        return Secret(password=found.password or "", extra=extra)
    except AirflowNotFoundException:
        what = "Airflow does not know this connection"
    except Exception as error:  # noqa: BLE001 - secrets backends raise many kinds, and a text may hold the secret
        what = f"it cannot be read ({type(error).__name__})"
    raise RenderError(
        f"connection '{connection_id}': {what}",
        hint="Add or correct the connection in Airflow, then clear the task; nothing was written or sent",
    )


def password(connection_id: str) -> str:
    """Read a connection's password.

    Raises:
        RenderError: there is no such connection, or it has no password.
    """
    found = read(connection_id).password
    if not found:
        raise RenderError(
            f"connection '{connection_id}': it has no password",
            hint="Set the connection's password in Airflow, then clear the task; nothing was written or sent",
        )
    return found
