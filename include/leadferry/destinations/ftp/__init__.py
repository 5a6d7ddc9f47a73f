"""Deliver to an FTP server, over TLS unless the batch says why not.

The bytes go under a hidden name, are counted (and, if asked for, compared) there, and get their final name by one
rename; other ways to publish are there for servers that do not allow that.
FTP's rename replaces what stands under the name on nearly every server, and none can be told not to.
So this looks at the name right before; what somebody puts there between look and rename is replaced.

`client` is the connection; here is what stands in YAML, and what happens to files.
"""

from __future__ import annotations

import ftplib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leadferry.destinations import faults
from leadferry.destinations.base import (
    FileStore,
    FileStoreSession,
    OutgoingFile,
    Parcel,
    Receipt,
    pool_name,
    rendered_path,
)
from leadferry.destinations.ftp.client import Client, Security, tls_context
from leadferry.destinations.transfer import logged
from leadferry.errors import (
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    NameConflictError,
    NoSuchPathError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    TransferInterruptedError,
)
from leadferry.project import config_folder
from leadferry.templates import Template

if TYPE_CHECKING:
    from airflow.sdk import Connection

_CUT = (TransferInterruptedError, ConnectTimeoutError, DestinationBusyError)
"""After these the server may or may not have carried out what it was asked last."""

_PORTS: dict[Security, int] = {"explicit_tls": 21, "implicit_tls": 990, "none": 21}

_MARKER = "{{ file.name }}.done"

_TEMPORARY = r"^[A-Za-z0-9._~#=@+-]*$"

_CONFIG = "config"
"""Under this key of pydantic's validation context stands the config folder that the batch file was found in."""


class Ftp(FileStore):
    """A directory on an FTP server."""

    type: Literal["ftp"] = "ftp"
    connection: str = Field(min_length=1, description="Airflow connection of type ftp.")
    directory: Template = Field(
        default=".",
        min_length=1,
        description="Directory on the server; a template. Without a leading slash, relative to where the login starts.",
    )
    create_directory: bool = Field(
        default=False, description="Make the directory, and those above it, when missing."
    )
    security: Security = Field(
        default="explicit_tls",
        description="TLS by AUTH TLS on the usual port, TLS from the first byte (port 990), or none at all.",
    )
    ca_file: str | None = Field(
        default=None,
        min_length=1,
        description="PEM file below the config folder with the authority that signed the server's certificate,"
        " such as certificates/acme.pem; the worker's own authorities when left out.",
    )
    allow_plaintext: bool = Field(
        default=False, description="Needed for `security: none`, together with `plaintext_reason`."
    )
    plaintext_reason: str | None = Field(
        default=None, description="Why an unencrypted transfer is acceptable here."
    )
    passive: bool | None = Field(
        default=None,
        description="Whether this side opens the data connections; what the connection's extra says, else true.",
    )
    encoding: str | None = Field(
        default=None,
        description="How the server writes names; what the connection's extra says, else utf-8.",
    )
    publish: Literal["rename", "temp_directory", "direct", "direct_with_marker"] = Field(
        default="rename",
        description="How the file gets its name: by a rename from a temporary name beside it, or from another directory;"
        " or it is written under its name, where it can be seen while it grows, and a marker may say when it is complete.",
    )
    temporary_directory: Template | None = Field(
        default=None,
        min_length=1,
        description="For `publish: temp_directory`: where the file is until it is complete; on the same file system.",
    )
    temporary_prefix: str = Field(
        default=".",
        pattern=_TEMPORARY,
        max_length=20,
        description="How temporary names begin, for servers that forbid hidden names.",
    )
    temporary_suffix: str = Field(
        default=".part", pattern=_TEMPORARY, max_length=20, description="How temporary names end."
    )
    marker: Template = Field(
        default=_MARKER,
        description="For `publish: direct_with_marker`: name of the empty file that appears when the file is complete;"
        " a template with `file.name` in it.",
    )
    verify: Literal["size", "sha256"] = Field(
        default="size",
        description="How the uploaded file is checked before it gets its name: its size, or its hash, which the server"
        " computes if it can, else by reading it back.",
    )
    collected: bool = Field(
        default=False,
        description="The recipient takes files away as soon as they appear: after a crash, a file that is not there"
        " is then no proof that it did not arrive, and a person is asked.",
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the server may stay silent.")

    @model_validator(mode="after")
    def _plaintext_is_meant(self) -> Self:
        if self.security == "none" and not self.allow_plaintext:
            raise ValueError(
                "security: none is unencrypted; take explicit_tls, or write allow_plaintext: true and plaintext_reason"
            )
        if self.allow_plaintext and not (self.plaintext_reason or "").strip():
            raise ValueError("allow_plaintext needs plaintext_reason: say why no TLS is acceptable here")
        return self

    @model_validator(mode="after")
    def _publishing_keys_fit(self) -> Self:
        if (self.publish == "temp_directory") != (self.temporary_directory is not None):
            raise ValueError("`publish: temp_directory` and `temporary_directory` are only used together")
        if self.marker != _MARKER and self.publish != "direct_with_marker":
            raise ValueError("`marker` is only used with `publish: direct_with_marker`")
        if "file.name" not in self.marker or self.marker.replace(" ", "") == "{{file.name}}":
            raise ValueError("`marker` must be made of `{{ file.name }}` and differ from it")
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

    @property
    def where(self) -> str:
        """The connection and the directory, as written."""
        return f"ftp connection '{self.connection}', directory {self.directory}"

    @property
    def pool(self) -> str:
        """One pool per connection."""
        return pool_name("ftp", self.connection)

    def endpoint(self) -> tuple[str, int]:
        """Return host and port by the Airflow connection."""
        with faults.ftp(f"ftp connection '{self.connection}'"):
            return self._address(self._connection())

    @contextmanager
    def open(self) -> Iterator[FtpSession]:
        """Connect, prove the server's certificate and log in by the Airflow connection."""
        where = f"ftp connection '{self.connection}'"
        with faults.ftp(where):
            connection = self._connection()
            host, port = self._address(connection)
            client = self._client(connection)
        place = f"{'ftp' if self.security == 'none' else 'ftps'}://{host}:{port}"
        try:
            with faults.ftp(f"{where} ({host}:{port})"), logged("connect", place):
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
                f"ftp connection '{self.connection}': has no host",
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
            raise PermanentDeliveryError(
                f"ftp connection '{self.connection}': {error}", hint="Correct `ca_file`"
            ) from None
        return path


def _check_authority(path: Path, *, said: str) -> None:
    try:
        tls_context(path)
    except OSError:
        raise ValueError(f"{said!r} cannot be read, or is no PEM file with certificates") from None


class FtpSession(FileStoreSession):
    """An open, authenticated FTP connection."""

    def __init__(self, destination: Ftp, client: Client, *, place: str) -> None:
        self._destination = destination
        self._client = client
        self._place = place
        self._home: str | None = None
        self._made: list[str] = []

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look for the file by name, size and SHA-256; temporary files of earlier tries are removed.

        Raises:
            OutcomeUnknownError: the file may not be read, or the recipient collects files and it may be gone.
        """
        with faults.ftp(self._where(parcel)):
            receipt, begun = None, False
            if here := self._entered(parcel):
                receipt = self._standing(here, parcel)
                begun = self._grows_in_sight and self._client.size_of(parcel.file.name) is not None
            begun = bool(self._sweep(parcel)) or begun
        if receipt is None and self._destination.collected and not begun:
            raise OutcomeUnknownError(
                f"{self._where(parcel)}: {parcel.file.name} is not there, and the recipient may have collected it"
            )
        return receipt

    def send(self, parcel: Parcel) -> Receipt:
        """Upload, verify, publish; a file that is already there is only verified."""
        with faults.ftp(self._where(parcel)):
            if self._destination.create_directory:
                for directory in self._directories(parcel):
                    self._make(directory)
            self._sweep(parcel)
            here = self._enter(self._directory(parcel))
            return self._standing(here, parcel) or self._deliver(here, parcel)

    def remove(self, parcel: Parcel) -> None:
        """See `FileStoreSession.remove`; directories that this session made go with it when they are empty."""
        name = parcel.file.name
        with faults.ftp(self._where(parcel)):
            self._sweep(parcel)
            here = self._entered(parcel)
            if here is not None and self._holds(name, parcel.file):
                if self._marks:
                    self._discard(here, self._marker(parcel))
                with logged("remove", self._url(here, name)):
                    self._client.delete(name)
            while self._made:
                with suppress(ftplib.error_perm):
                    self._client.rmd(self._made.pop())

    # --- places

    def _directory(self, parcel: Parcel) -> str:
        return rendered_path(self._destination.directory, parcel, where=self._destination.where)

    def _directories(self, parcel: Parcel) -> list[str]:
        """Return the directory, and the one for temporaries where it is another."""
        written = [self._destination.directory, self._destination.temporary_directory]
        return [rendered_path(one, parcel, where=self._destination.where) for one in written if one]

    def _where(self, parcel: Parcel) -> str:
        directory = self._directory(parcel)
        return f"ftp connection '{self._destination.connection}' ({self._place}), directory {directory}"

    def _url(self, directory: str, name: str) -> str:
        return f"{self._place}{_join(directory, name)}"

    def _enter(self, directory: str) -> str:
        """Make it the server's current directory, and return its absolute path."""
        if self._home is None:
            self._home = self._client.pwd()
        with faults.ftp(f"{self._place}, directory {directory}", unexplained=NoSuchPathError):
            if not directory.startswith("/"):
                self._client.cwd(self._home)
            if directory != ".":
                self._client.cwd(directory)
        return self._client.pwd()

    def _entered(self, parcel: Parcel) -> str | None:
        """Enter the parcel's directory; None where there is no such directory yet."""
        try:
            return self._enter(self._directory(parcel))
        except NoSuchPathError:
            return None

    def _make(self, directory: str) -> None:
        """Make the directory and those above it."""
        self._enter("/" if directory.startswith("/") else ".")
        for part in filter(None, directory.split("/")):
            try:
                self._client.cwd(part)
            except ftplib.error_perm:
                self._make_one(part)

    def _make_one(self, part: str) -> None:
        """Make a directory in the current one and enter it."""
        try:
            self._client.mkd(part)
        except ftplib.error_perm as refused:
            try:
                self._client.cwd(part)  # another task may have been faster
            except ftplib.error_perm:
                raise refused from None
        else:
            self._client.cwd(part)
            self._made.append(self._client.pwd())

    # --- sending

    @property
    def _replaces(self) -> bool:
        return self._destination.on_name_taken == "overwrite"

    @property
    def _marks(self) -> bool:
        return self._destination.publish == "direct_with_marker"

    @property
    def _grows_in_sight(self) -> bool:
        return self._destination.publish in {"direct", "direct_with_marker"}

    def _marker(self, parcel: Parcel) -> str:
        """Return the marker's name; made of the name under which the file is sent."""
        variables = {**parcel.variables, "file": {"name": parcel.file.name}}
        marker = rendered_path(
            self._destination.marker, replace(parcel, variables=variables), where=self._destination.where
        )
        if "/" in marker or marker in {"", ".", parcel.file.name}:
            raise NoSuchPathError(
                f"{self._destination.where}: filled in, `marker` is no name beside the file"
            )
        return marker

    def _temporary(self, parcel: Parcel) -> str:
        return parcel.temporary(
            prefix=self._destination.temporary_prefix, suffix=self._destination.temporary_suffix
        )

    def _deliver(self, here: str, parcel: Parcel) -> Receipt:
        if self._grows_in_sight:
            return self._deliver_in_sight(here, parcel)
        elsewhere = self._enter(self._directories(parcel)[-1])
        temporary = _join(elsewhere, self._temporary(parcel))
        try:
            self._upload(elsewhere, self._temporary(parcel), parcel.file)
            self._client.cwd(here)
            how = self._publish(temporary, here, parcel)
        except Exception:
            # Best effort: the next try sweeps as well. A cut connection cannot remove anything.
            with suppress(Exception):
                self._client.delete(temporary)
            raise
        return how if isinstance(how, Receipt) else self._published(here, parcel.file, how=how)

    def _upload(self, here: str, name: str, file: OutgoingFile) -> None:
        """Store the file under a name in the current directory, and verify what arrived."""
        url = self._url(here, name)
        with logged("put", url, size=file.size):
            self._client.upload(name, self._destination.blocks(file))
            size = self._client.size_of(name)
            if size != file.size:
                raise TransferInterruptedError(f"{url}: {size or 0} of {file.size} bytes arrived")
            if self._destination.verify == "sha256" and self._digest(name, size) != file.sha256:
                raise TransferInterruptedError(f"{url}: what arrived is not what was sent")

    def _publish(self, temporary: str, here: str, parcel: Parcel) -> str | Receipt:
        """Rename; return how, or the receipt of an identical file that took the name meanwhile."""
        name = parcel.file.name
        if receipt := self._standing(here, parcel):
            self._client.delete(temporary)
            return receipt
        try:
            with faults.ftp(self._where(parcel)), logged("rename", self._url(here, name)):
                self._client.rename(temporary, name)
        except _CUT:
            return self._look_again(parcel)
        except DeliveryError as refused:
            if receipt := self._standing(here, parcel):
                with suppress(ftplib.error_perm):
                    self._client.delete(temporary)
                return receipt
            if self._destination.collected and self._client.size_of(temporary) is None:
                return "rename, answered with an error"
            return self._replace(temporary, here, name, refused)
        return "rename"

    def _replace(self, temporary: str, here: str, name: str, refused: DeliveryError) -> str:
        """Rename on a server that does not replace, where the batch wants that what stands there is replaced."""
        if not self._replaces or self._client.size_of(name) is None:
            raise refused
        self._discard(here, name)
        with logged("rename", self._url(here, name)):
            self._client.rename(temporary, name)
        return "remove, then rename"

    def _look_again(self, parcel: Parcel) -> Receipt:
        """The answer to the rename was lost: ask over a new connection what became of it."""
        try:
            with self._destination.open() as fresh:
                receipt = fresh.find(parcel)
        except DeliveryError as error:
            raise OutcomeUnknownError(
                f"{self._place}: the connection was cut while {parcel.file.name} got its name,"
                f" and looking for it failed ({error.code})"
            ) from None
        if receipt is None:
            raise TransferInterruptedError(
                f"{self._place}: the connection was cut before {parcel.file.name} got its name"
            )
        return receipt

    def _deliver_in_sight(self, here: str, parcel: Parcel) -> Receipt:
        """Write under the final name; a marker says when it is complete, where the recipient waits for one."""
        file = parcel.file
        if self._marks:
            self._discard(here, self._marker(parcel))
        if not self._holds(file.name, file):
            self._write_in_sight(here, file)
        if self._marks:
            marker = self._marker(parcel)
            with logged("put", self._url(here, marker), size=0):
                self._client.upload(marker, ())
        return self._published(here, file, how=self._destination.publish.replace("_", " "))

    def _write_in_sight(self, here: str, file: OutgoingFile) -> None:
        was_free = self._client.size_of(file.name) is None
        try:
            self._upload(here, file.name, file)
        except Exception:
            # What stood there before a refused upload stays.
            with suppress(Exception):
                if was_free or self._is_begun(file.name, file):
                    self._client.delete(file.name)
            raise

    def _published(self, here: str, file: OutgoingFile, *, how: str) -> Receipt:
        """Say what is known at the end; the file was verified before."""
        size = self._client.size_of(file.name)
        if size not in {None, file.size}:
            raise OutcomeUnknownError(
                f"{self._url(here, file.name)}: has {size} bytes after it was published with {file.size}"
            )
        hashed = self._destination.verify == "sha256"
        details = {
            "verified": f"{'sha256' if hashed else 'size'} of what arrived",
            "published": how,
            "collected": size is None,
        }
        return Receipt(
            location=self._url(here, file.name),
            size=file.size,
            sha256=file.sha256 if hashed else None,
            details=details,
        )

    # --- looking

    def _standing(self, here: str, parcel: Parcel) -> Receipt | None:
        """Look at what stands under the final name: nothing, this file, what may be replaced, or something else."""
        file = parcel.file
        size = self._client.size_of(file.name)
        if size is None:
            return None
        if size == file.size and self._compare(here, file):
            if self._marks and self._client.size_of(self._marker(parcel)) is None:
                return None  # complete, but nobody was told
            details = {"verified": "found there and compared by sha256"}
            return Receipt(
                location=self._url(here, file.name), size=size, sha256=file.sha256, details=details
            )
        if size >= 0 and (self._replaces or (self._grows_in_sight and self._is_begun(file.name, file))):
            return None
        raise NameConflictError(
            f"{self._url(here, file.name)}: something else already stands under this name"
        )

    def _compare(self, here: str, file: OutgoingFile) -> bool:
        try:
            return self._digest(file.name, file.size) == file.sha256
        except ftplib.error_perm:
            raise OutcomeUnknownError(
                f"{self._url(here, file.name)}: has the right size but may not be read, so it cannot be compared"
            ) from None

    def _holds(self, name: str, file: OutgoingFile) -> bool:
        """Tell whether exactly this file stands under a name."""
        return self._client.size_of(name) == file.size and self._digest(name, file.size) == file.sha256

    def _is_begun(self, name: str, file: OutgoingFile) -> bool:
        """Tell whether what stands under a name is the beginning of this file: an upload that broke."""
        size = self._client.size_of(name)
        if size is None or not 0 <= size <= file.size:
            return False
        if size == 0:
            return True
        with file.path.open("rb") as stored:
            ours, left = hashlib.sha256(), size
            while left and (block := stored.read(min(left, 1 << 20))):
                ours.update(block)
                left -= len(block)
        return self._digest(name, size) == ours.hexdigest()

    def _digest(self, name: str, size: int) -> str:
        """Return the SHA-256 of a file there: the server's own word where it gives one, else by reading it back."""
        if told := self._client.sha256_of(name):
            return told
        hashed, count = hashlib.sha256(), 0

        def add(piece: bytes) -> None:
            nonlocal count
            hashed.update(piece)
            count += len(piece)

        self._client.download(f"RETR {name}", add)
        if count != size:
            # TLS or not, FTP marks the end of a file by hanging up, and a cut looks the same.
            raise TransferInterruptedError(
                f"{self._place}: {count} of {size} bytes of {name} could be read back"
            )
        return hashed.hexdigest()

    # --- tidying

    def _discard(self, here: str, name: str) -> None:
        """Remove a file if it is there."""
        if self._client.size_of(name) is not None:
            with logged("remove", self._url(here, name)):
                self._client.delete(name)

    def _sweep(self, parcel: Parcel) -> int:
        """Remove what earlier tries of this parcel left behind; return how much that was."""
        found = 0
        for directory in self._directories(parcel):
            with suppress(NoSuchPathError):
                found += self._sweep_here(self._enter(directory), parcel)
        return found

    def _sweep_here(self, here: str, parcel: Parcel) -> int:
        # Some recipients let us write but not list; then remains of a killed try stay.
        names = self._client.names()
        prefix, suffix = self._destination.temporary_prefix, self._destination.temporary_suffix
        mine = [name for name in names if parcel.owns(name, prefix=prefix, suffix=suffix)]
        for name in mine:
            with suppress(ftplib.error_perm), logged("remove", self._url(here, name)):
                self._client.delete(name)
        return len(mine)


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"
