"""A buyer's SFTP server for the try-out and the tests: `python -m leadferry.local.sftp --root DIR --state DIR`."""

from __future__ import annotations

import hmac
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncssh

from leadferry.local.background import AsyncReceiver, private_folder, serve_logins

HOST = "127.0.0.1"


class Files(asyncssh.SFTPServer):
    """The files that a login sees: one folder, whatever path it asks for."""

    root: Path
    """Set for each receiver by `SftpReceiver`."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(channel, chroot=str(self.root).encode())


class _Door(asyncssh.SSHServer):
    """Who may log in."""

    def __init__(self, receiver: SftpReceiver) -> None:
        self._receiver = receiver

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._receiver.connections.add(conn)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002  (asyncssh calls it so)
        return True

    def password_auth_supported(self) -> bool:
        return bool(self._receiver.passwords)

    def validate_password(self, username: str, password: str) -> bool:
        expected = self._receiver.passwords.get(username)
        return expected is not None and hmac.compare_digest(expected.encode(), password.encode())

    def public_key_auth_supported(self) -> bool:
        return bool(self._receiver.keys)

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        expected = self._receiver.keys.get(username)
        return expected is not None and asyncssh.import_public_key(expected) == key


class SftpReceiver(AsyncReceiver):
    """An SFTP server on 127.0.0.1 with a host key of its own.

    Args:
        root: the folder that every login sees as `/`.
        state: where the host key stays, so that it is the same after a restart.
        passwords: password by user name.
        keys: public key in OpenSSH form by user name.
        port: 0 takes a free one.
        files: what a login sees; tests hand in servers that misbehave.
    """

    def __init__(  # noqa: PLR0913  (all by keyword, most with a default)
        self,
        *,
        root: Path,
        state: Path,
        passwords: Mapping[str, str] | None = None,
        keys: Mapping[str, str] | None = None,
        port: int = 0,
        files: type[Files] = Files,
    ) -> None:
        self.root = root
        self.passwords = dict(passwords or {})
        self.keys = dict(keys or {})
        self.port = port
        self.connections: weakref.WeakSet[asyncssh.SSHServerConnection] = weakref.WeakSet()
        self._host_key = _host_key(private_folder(state))
        self._files = type("FilesHere", (files,), {"root": root.resolve()})

    @property
    def host_key(self) -> str:
        """The public host key, as it goes into the extra `host_key` of an Airflow connection."""
        return " ".join(self._host_key.export_public_key().decode().split()[:2])

    async def listen(self) -> None:
        """Start the server."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._server = await asyncssh.listen(
            HOST,
            self.port,
            server_factory=lambda: _Door(self),
            server_host_keys=[self._host_key],
            sftp_factory=self._files,
            allow_pty=False,
        )
        self.port = self._server.get_port()

    async def close(self) -> None:
        """Stop listening and hang up."""
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
            await connection.wait_closed()
        await self._server.wait_closed()

    def announcement(self) -> dict[str, Any]:
        """Say the port, the host key, and the Airflow connection of the first user."""
        user, password = next(iter(self.passwords.items()), (None, None))
        extra = {"host_key": self.host_key, "look_for_keys": False}
        connection = {
            "conn_type": "sftp",
            "host": HOST,
            "port": self.port,
            "login": user,
            "password": password,
            "extra": extra,
        }
        return {"port": self.port, "host_key": self.host_key, "connection": connection}


def _host_key(state: Path) -> asyncssh.SSHKey:
    """Read the host key, or make one the first time."""
    path = state / "sftp_host_ed25519_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    return asyncssh.read_private_key(path)


if __name__ == "__main__":
    serve_logins(SftpReceiver, description=__doc__)
