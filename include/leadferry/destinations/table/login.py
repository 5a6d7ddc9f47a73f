"""Connect to a PostgreSQL database by an Airflow connection: encrypted unless the batch says why not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from leadferry.destinations.table.refusals import refusals
from leadferry.destinations.transfer import logged
from leadferry.errors import HostKeyError, PermanentDeliveryError

if TYPE_CHECKING:
    import psycopg
    from airflow.sdk import Connection

_PORT = 5432

_ENCRYPTED = {"require", "verify-ca", "verify-full"}

_LIBPQ = {
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "channel_binding", "gssencmode",
    "hostaddr", "options", "target_session_attrs", "require_auth",
}  # fmt: skip
"""What of the connection's extra is handed on; the rest of it is for Airflow's hook."""


def address(connection: str) -> tuple[str, int] | None:
    """Return host and port of an Airflow connection; None for a Unix socket.

    Raises:
        PermanentDeliveryError: Airflow does not know the connection, or it has no host.
    """
    found = _look_up(connection)
    host = str(found.host or "")
    return None if host.startswith("/") else (host, found.port or _PORT)


@contextmanager
def logged_in(
    connection: str, *, timeout: float, allow_plaintext: bool
) -> Iterator[tuple[psycopg.Connection, str]]:
    """Open a connection without a transaction; yields it with its place, `postgresql://host:port/database`.

    Args:
        connection: id of the Airflow connection.
        timeout: seconds to wait for the server, and for locks of others.
        allow_plaintext: whether a connection without TLS is accepted.

    Raises:
        DeliveryError: by what went wrong: name, port, certificate, credentials, database.
    """
    import psycopg

    found = _look_up(connection)
    arguments = _arguments(found, allow_plaintext=allow_plaintext)
    place = f"postgresql://{found.host}:{found.port or _PORT}/{found.schema or ''}"
    where = f"postgres connection '{connection}' ({place})"
    client = None
    try:
        with refusals(where), logged("connect", place):
            client = psycopg.connect(
                **arguments,
                connect_timeout=max(2, math.ceil(timeout)),  # libpq takes less for 2
                application_name="leadferry",
                autocommit=True,
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
            )
            client.execute("SELECT set_config('lock_timeout', %s, false)", [str(int(timeout * 1000))])
        yield client, place
    finally:
        if client is not None:
            with suppress(Exception), logged("close", place):
                client.close()


def _look_up(connection: str) -> Connection:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = BaseHook.get_connection(connection)
    except AirflowNotFoundException:
        raise PermanentDeliveryError(
            f"postgres connection '{connection}': Airflow does not know this connection",
            hint="Add it in Airflow, of type postgres",
        ) from None
    if not found.host:
        raise PermanentDeliveryError(
            f"postgres connection '{connection}': has no host", hint="Fill it in in the Airflow connection"
        )
    return found


def _arguments(found: Connection, *, allow_plaintext: bool) -> dict[str, Any]:
    extra = {name: str(value) for name, value in found.extra_dejson.items() if name in _LIBPQ and value}
    if not str(found.host).startswith("/"):
        extra |= _tls(extra, allow_plaintext=allow_plaintext, connection=str(found.conn_id))
    return {
        **extra,
        "host": found.host,
        "port": found.port or _PORT,
        "user": found.login,
        "password": found.password or None,
        "dbname": found.schema or None,
    }


def _tls(extra: dict[str, str], *, allow_plaintext: bool, connection: str) -> dict[str, str]:
    """Decide how the server is to prove who it is; without a word in the connection, fully."""
    mode = extra.get("sslmode")
    if allow_plaintext:
        return {"sslmode": mode or "prefer"}
    if mode is None:
        # The authorities that this machine trusts, unless the connection names others.
        return {"sslmode": "verify-full", "sslrootcert": extra.get("sslrootcert", "system")}
    if mode not in _ENCRYPTED:
        raise HostKeyError(
            f"postgres connection '{connection}': sslmode {mode} may send without TLS",
            hint="Set sslmode to verify-full in its extra, or set allow_plaintext with plaintext_reason in the batch file",
        )
    return {"sslmode": mode}
