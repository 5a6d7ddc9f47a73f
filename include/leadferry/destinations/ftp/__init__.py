"""Deliver to an FTP server, over TLS unless the batch says why not.

The bytes go under a hidden name, are counted (and, if asked for, compared) there, and get their final name by one
rename; other ways to publish are there for servers that do not allow that.

Here is what stands in YAML and how to connect; `session` says what happens to files, `client` is the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leadferry.destinations.base import AllowsPlaintext
from leadferry.destinations.faults.ftp import ftp_faults
from leadferry.destinations.file_server import FileServer
from leadferry.destinations.ftp.client import Client, Security, tls_context
from leadferry.destinations.ftp.session import FtpSession
from leadferry.destinations.transfer import logged
from leadferry.errors import PermanentDeliveryError
from leadferry.project import config_folder

if TYPE_CHECKING:
    from airflow.sdk import Connection

_PORTS: dict[Security, int] = {"explicit_tls": 21, "implicit_tls": 990, "none": 21}

_CONFIG = "config"
"""Under this key of pydantic's validation context stands the config folder that the batch file was found in."""


class Ftp(FileServer, AllowsPlaintext):
    """A directory on an FTP server."""

    connection_kind: ClassVar[str] = "ftp"

    type: Literal["ftp"] = "ftp"
    connection: str = Field(min_length=1, description="Airflow connection of type ftp.")
    security: Security = Field(
        default="explicit_tls",
        description="TLS by AUTH TLS on the usual port, TLS from the first byte (port 990), or none at all, which `allow_plaintext` must allow.",
    )
    ca_file: str | None = Field(
        default=None,
        min_length=1,
        description="PEM file below the config folder with the authority that signed the server's certificate,"
        " such as certificates/acme.pem; the worker's own authorities when left out.",
    )
    passive: bool | None = Field(
        default=None,
        description="Whether this side opens the data connections; what the connection's extra says, else true.",
    )
    encoding: str | None = Field(
        default=None,
        description="How the server writes names; what the connection's extra says, else utf-8.",
    )
    verify: Literal["size", "sha256"] = Field(
        default="size",
        description="How the uploaded file is checked before it gets its name: its size, or its hash, which the server"
        " computes if it can, else by reading it back.",
    )

    @model_validator(mode="after")
    def _plaintext_is_meant(self) -> Self:
        if self.security == "none" and not self.allow_plaintext:
            raise ValueError(
                "security: none is unencrypted; take explicit_tls, or write allow_plaintext: true and plaintext_reason"
            )
        return self

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        try:
            "".encode(value or "utf-8")
        except LookupError:
            raise ValueError("is no encoding that Python knows, such as utf-8, cp1252 or latin-1") from None
        return value

    @field_validator("ca_file")
    @classmethod
    def _is_in_the_config_folder(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        path = PurePosixPath(value.removeprefix("config/"))
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("must be a file below the config folder, such as certificates/acme.pem")
        folder = (info.context or {}).get(_CONFIG)
        if folder is not None:
            _check_authority(Path(folder) / path, said=value)
        return str(path)

    def endpoint(self) -> tuple[str, int]:
        """Return host and port by the Airflow connection."""
        with ftp_faults(self.via):
            return self._address(self._connection())

    @contextmanager
    def open(self) -> Iterator[FtpSession]:
        """Connect, prove the server's certificate and log in by the Airflow connection."""
        with ftp_faults(self.via):
            connection = self._connection()
            host, port = self._address(connection)
            client = self._client(connection)
        place = f"{'ftp' if self.security == 'none' else 'ftps'}://{host}:{port}"
        try:
            with ftp_faults(f"{self.via} ({host}:{port})"), logged("connect", place):
                client.reach(host, port)
                client.enter(connection.login or "", connection.password or "")
            yield FtpSession(self, client, place=place)
        finally:
            with logged("close", place):
                client.leave()

    def _connection(self) -> Connection:
        from airflow.providers.ftp.hooks.ftp import FTPHook

        # Only to look it up: the hook connects without a timeout, changes the port of every ftplib.FTP_TLS in the
        # process, knows no implicit TLS, and does not resume TLS sessions.
        return FTPHook.get_connection(self.connection)

    def _address(self, connection: Connection) -> tuple[str, int]:
        if not connection.host:
            raise PermanentDeliveryError(
                f"{self.via}: has no host",
                hint="Fill it in in the Airflow connection",
            )
        return connection.host, connection.port or _PORTS[self.security]

    def _client(self, connection: Connection) -> Client:
        extra = connection.extra_dejson
        passive = extra.get("passive", True) if self.passive is None else self.passive
        return Client(
            security=self.security,
            context=tls_context(self._authority(extra)),
            timeout=self.timeout,
            encoding=self.encoding or str(extra.get("encoding") or "utf-8"),
            # Extras that come from a URI are text.
            passive=str(passive).strip().lower() not in {"false", "0", "no", "off"},
        )

    def _authority(self, extra: dict[str, Any]) -> Path | None:
        if self.ca_file is None and not extra.get("ca_file"):
            return None
        path = config_folder() / self.ca_file if self.ca_file else Path(str(extra["ca_file"]))
        try:
            _check_authority(path, said=path.name)
        except ValueError as error:
            raise PermanentDeliveryError(f"{self.via}: {error}", hint="Correct `ca_file`") from None
        return path


def _check_authority(path: Path, *, said: str) -> None:
    try:
        tls_context(path)
    except OSError:
        raise ValueError(f"{said!r} cannot be read, or is no PEM file with certificates") from None
