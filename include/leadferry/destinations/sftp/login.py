"""Connect to an SFTP server and log in, with an end to every wait and the server's host key always checked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import TYPE_CHECKING, Any

from leadferry.destinations.faults.ssh import ssh_faults
from leadferry.destinations.transfer import logged

if TYPE_CHECKING:
    import paramiko
    from airflow.providers.sftp.hooks.sftp import SFTPHook

_SSH_PORT = 22


class _AsWritten(str):
    """A password whose spaces at the edges survive: the SSH hook strips what it is given."""

    __slots__ = ()

    def strip(self, *_: Any) -> str:
        """Return the password itself."""
        return self


def endpoint(connection: str) -> tuple[str, int]:
    """Return host and port of an Airflow connection.

    Raises:
        PermanentDeliveryError: Airflow does not know the connection.
    """
    from airflow.sdk import BaseHook

    with ssh_faults(f"sftp connection '{connection}'"):
        found = BaseHook.get_connection(connection)
        return found.host or "", found.port or _SSH_PORT


@contextmanager
def logged_in(connection: str, *, timeout: float) -> Iterator[tuple[paramiko.SFTPClient, str]]:
    """Open an SFTP channel by an Airflow connection; yields it with the server's address, `sftp://host:port`.

    Args:
        connection: id of the Airflow connection.
        timeout: seconds that the server may stay silent, at every step of the login and afterwards.

    Raises:
        DeliveryError: by what went wrong: name, port, host key, credentials.
    """
    with ssh_faults(f"sftp connection '{connection}'"):
        hook = _hook(connection, timeout=timeout)
    place = f"sftp://{hook.remote_host}:{hook.port}"
    wire = None
    try:
        with (
            ssh_faults(f"sftp connection '{connection}' ({hook.remote_host}:{hook.port})"),
            logged("connect", place),
        ):
            wire = _wire(hook, timeout=timeout)
            client = _log_in(hook, timeout=timeout)
        yield client, place
    finally:
        # What was sent is settled by now: a cut while saying goodbye must not undo it.
        with suppress(Exception):
            _hang_up(hook, wire, place=place)


def _hang_up(hook: SFTPHook, wire: socket.socket | None, *, place: str) -> None:
    if hook.client is not None:
        with logged("close", place):
            hook.client.close()
    elif wire is not None:
        wire.close()  # the login failed, and nobody else has the socket


def _hook(connection: str, *, timeout: float) -> SFTPHook:
    from airflow.providers.sftp.hooks.sftp import SFTPHook

    # One attempt: the hook's own retries sleep 3 to 5 seconds each; ours are Airflow's.
    hook = SFTPHook(
        ssh_conn_id=connection,
        conn_timeout=timeout,
        banner_timeout=timeout,
        auth_timeout=timeout,
        conn_retry_attempts=1,
    )
    if hook.password:
        # A line end is never meant: it comes from a file or a secrets backend.
        hook.password = _AsWritten(hook.password.strip("\r\n"))
    return hook


def _wire(hook: SFTPHook, *, timeout: float) -> socket.socket | None:
    """Connect to the server's port, unless the worker's SSH settings name a proxy that does it.

    The protocol is many small questions. A socket as paramiko opens it keeps each back until the one before is
    acknowledged, which costs 40 ms again and again.
    """
    if hook.host_proxy is not None:
        return None
    wire = socket.create_connection((hook.remote_host, hook.port or _SSH_PORT), timeout=timeout)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    vars(hook)["host_proxy"] = wire
    return wire


def _log_in(hook: SFTPHook, *, timeout: float) -> paramiko.SFTPClient:
    """Open an SFTP channel on which every wait ends after `timeout` seconds."""
    import paramiko
    from airflow.providers.ssh.hooks.ssh import SSHHook

    # SFTPHook.get_conn opens the channel without any timeout (paramiko waits an hour), hence its parent's.
    transport = SSHHook.get_conn(hook).get_transport()
    if transport is None:
        raise EOFError
    # Some waits of the handshake take no timeout; closing the connection under them ends them.
    watchdog = Timer(timeout, transport.close)
    watchdog.daemon = True
    watchdog.start()
    try:
        channel = transport.open_session(timeout=timeout)
        channel.settimeout(timeout)
        channel.invoke_subsystem("sftp")
        return paramiko.SFTPClient(channel)
    finally:
        watchdog.cancel()
