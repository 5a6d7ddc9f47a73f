"""Deliver to an SFTP server.

The bytes go under a hidden name into the same directory, are counted (and, if asked for, read back) there,
and get their final name by one rename.
Plain `rename` is tried first, because by the protocol it fails when the name is taken;
`posix-rename`, which replaces, is the fallback for servers without it, after a look at the final name.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadferry.destinations import faults
from leadferry.destinations.base import (
    DestinationBase,
    OutgoingFile,
    Parcel,
    Receipt,
    Session,
    digest,
    pool_name,
    rendered_path,
)
from leadferry.errors import (
    ConnectTimeoutError,
    DeliveryError,
    NameConflictError,
    OutcomeUnknownError,
    QuotaError,
    TransferInterruptedError,
)
from leadferry.templates import Template

if TYPE_CHECKING:
    import paramiko
    from airflow.providers.sftp.hooks.sftp import SFTPHook

_EXTENDED = 200
"""SSH_FXP_EXTENDED."""

_PROBE = 32768
"""Bytes of one block of SFTP, which is what full servers refuse even if a few bytes would still fit."""

_CUT = (TransferInterruptedError, ConnectTimeoutError)
"""After these the server may or may not have carried out what it was asked last."""


class Sftp(DestinationBase):
    """A directory on an SFTP server."""

    type: Literal["sftp"] = "sftp"
    connection: str = Field(min_length=1, description="Airflow connection of type sftp.")
    directory: Template = Field(
        default=".",
        min_length=1,
        description="Directory on the server; a template. Without a leading slash, relative to where the login starts.",
    )
    create_directory: bool = Field(
        default=False, description="Make the directory, and those above it, when missing."
    )
    publish: Literal["rename"] = Field(
        default="rename",
        description="Write a hidden temporary file beside the final name, verify it, rename it.",
    )
    verify: Literal["size", "sha256"] = Field(
        default="size",
        description="How the uploaded file is checked before it gets its name: its size, or by reading it back.",
    )
    collected: bool = Field(
        default=False,
        description="The recipient takes files away as soon as they appear: after a crash, a file that is not there"
        " is then no proof that it did not arrive, and a person is asked.",
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the server may stay silent.")

    @property
    def where(self) -> str:
        """The connection and the directory, as written."""
        return f"sftp connection '{self.connection}', directory {self.directory}"

    @property
    def pool(self) -> str:
        """One pool per connection."""
        return pool_name("sftp", self.connection)

    @contextmanager
    def open(self) -> Iterator[SftpSession]:
        """Connect and log in by the Airflow connection; the server's host key must be known."""
        with faults.ssh(f"sftp connection '{self.connection}'"):
            hook = self._hook()
        place = f"sftp://{hook.remote_host}:{hook.port}"
        try:
            with faults.ssh(f"sftp connection '{self.connection}' ({hook.remote_host}:{hook.port})"):
                client = _log_in(hook, timeout=self.timeout)
            yield SftpSession(self, client, place=place)
        finally:
            if hook.client is not None:
                # What was sent is settled by now: a cut while saying goodbye must not undo it.
                with suppress(Exception):
                    hook.client.close()

    def _hook(self) -> SFTPHook:
        from airflow.providers.sftp.hooks.sftp import SFTPHook

        # One attempt: the hook's own retries sleep 3 to 5 seconds each; ours are Airflow's.
        return SFTPHook(
            ssh_conn_id=self.connection,
            conn_timeout=self.timeout,
            banner_timeout=self.timeout,
            auth_timeout=self.timeout,
            conn_retry_attempts=1,
        )


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


class SftpSession(Session):
    """An open, authenticated SFTP channel."""

    def __init__(self, destination: Sftp, client: paramiko.SFTPClient, *, place: str) -> None:
        self._destination = destination
        self._client = client
        self._place = place

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look for the file by name, size and SHA-256; temporary files of earlier tries are removed.

        Raises:
            OutcomeUnknownError: the file may not be read, or the recipient collects files and it may be gone.
        """
        directory = self._directory(parcel)
        with faults.ssh(self._where(directory)):
            receipt = self._standing(directory, parcel.file)
            unpublished = self._sweep(directory, parcel)
        if receipt is None and self._destination.collected and not unpublished:
            raise OutcomeUnknownError(
                f"{self._where(directory)}: {parcel.file.name} is not there, and the recipient may have collected it"
            )
        return receipt

    def send(self, parcel: Parcel) -> Receipt:
        """Upload, verify, rename; a file that is already there is only verified."""
        directory = self._directory(parcel)
        with faults.ssh(self._where(directory)):
            if self._destination.create_directory:
                self._make(directory)
            self._sweep(directory, parcel)
            return self._standing(directory, parcel.file) or self._deliver(directory, parcel)

    def _directory(self, parcel: Parcel) -> str:
        path = rendered_path(self._destination.directory, parcel, where=self._destination.where)
        return path.rstrip("/") or "/"

    def _where(self, directory: str) -> str:
        return f"sftp connection '{self._destination.connection}' ({self._place}), directory {directory}"

    def _deliver(self, directory: str, parcel: Parcel) -> Receipt:
        temporary, final = _join(directory, parcel.temporary_name), _join(directory, parcel.file.name)
        try:
            self._upload(temporary, parcel.file)
            how = self._publish(temporary, final, parcel)
        except Exception:
            # Best effort: the next try sweeps as well. A cut connection cannot remove anything.
            with suppress(Exception):
                self._client.remove(temporary)
            raise
        return how if isinstance(how, Receipt) else self._published(final, parcel.file, how=how)

    def _upload(self, temporary: str, file: OutgoingFile) -> None:
        with self._client.open(temporary, "wb") as out:
            out.set_pipelined(pipelined=True)
            for block in file.blocks():
                out.write(block)
        size = self._client.stat(temporary).st_size
        if size != file.size:
            self._explain(temporary)
            raise TransferInterruptedError(f"{self._place}{temporary}: {size} of {file.size} bytes arrived")
        if self._destination.verify == "sha256" and self._read_back(temporary, file) != file.sha256:
            raise TransferInterruptedError(f"{self._place}{temporary}: what arrived reads back differently")

    def _explain(self, temporary: str) -> None:
        """Find out why bytes are missing: paramiko drops the answers to pipelined writes.

        Raises:
            QuotaError: the file system is full, told by OpenSSH's extension `statvfs`.
            OSError: what the server answers to one more block.
        """
        with suppress(OSError):
            # No public way to an extension. RFC draft: reply of eleven numbers, the fifth is what we may still use.
            request = self._client._request  # type: ignore[attr-defined]  # noqa: SLF001  (private, so not in its types)
            _, reply = request(_EXTENDED, "statvfs@openssh.com", temporary)
            if [reply.get_int64() for _ in range(5)][-1] == 0:
                raise QuotaError(f"{self._place}{_absolute(temporary)}: no room left on the server's disk")
        with self._client.open(temporary, "ab") as out:
            out.write(bytes(_PROBE))

    def _publish(self, temporary: str, final: str, parcel: Parcel) -> str | Receipt:
        """Rename; return how, or the receipt of an identical file that took the name meanwhile."""
        directory = self._directory(parcel)
        try:
            with faults.ssh(self._where(directory)):
                self._client.rename(temporary, final)
        except _CUT:
            return self._look_again(parcel)
        except DeliveryError as refused:
            if receipt := self._standing(directory, parcel.file):
                with suppress(FileNotFoundError):
                    self._client.remove(temporary)
                return receipt
            if self._size(temporary) is None:
                return "rename, answered with an error"
            return self._posix_rename(temporary, final, refused)
        return "rename"

    def _posix_rename(self, temporary: str, final: str, refused: DeliveryError) -> str:
        try:
            self._client.posix_rename(temporary, final)
        except OSError:
            raise refused from None
        return "posix-rename"

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

    def _published(self, final: str, file: OutgoingFile, *, how: str) -> Receipt:
        """Say what is known after the rename; the temporary file was already verified."""
        size = self._size(final)
        if size not in (None, file.size):
            raise OutcomeUnknownError(
                f"{self._place}{final}: has {size} bytes after it was published with {file.size}"
            )
        read_back = self._destination.verify == "sha256"
        details = {
            "verified": "read back before it was published" if read_back else "size before it was published",
            "published": how,
            "collected": size is None,
        }
        return Receipt(
            location=f"{self._place}{_absolute(final)}",
            size=file.size,
            sha256=file.sha256 if read_back else None,
            details=details,
        )

    def _standing(self, directory: str, file: OutgoingFile) -> Receipt | None:
        """Look at what stands under the final name: nothing, this file, or something else."""
        final = _join(directory, file.name)
        size = self._size(final)
        if size is None:
            return None
        if size != file.size or self._digest(final, file) != file.sha256:
            raise NameConflictError(
                f"{self._place}{_absolute(final)}: something else already stands under this name"
            )
        details = {"verified": "found there and read back"}
        return Receipt(
            location=f"{self._place}{_absolute(final)}", size=size, sha256=file.sha256, details=details
        )

    def _size(self, path: str) -> int | None:
        """Return the size of a file, None if there is nothing; -1 stands for something that is no file."""
        try:
            found = self._client.stat(path)
        except FileNotFoundError:
            return None
        if found.st_mode is not None and stat.S_IFMT(found.st_mode) not in (0, stat.S_IFREG):
            return -1
        return found.st_size

    def _digest(self, final: str, file: OutgoingFile) -> str:
        try:
            return self._read_back(final, file)
        except PermissionError:
            raise OutcomeUnknownError(
                f"{self._place}{_absolute(final)}: has the right size but may not be read, so it cannot be compared"
            ) from None

    def _read_back(self, path: str, file: OutgoingFile) -> str:
        with self._client.open(path, "rb") as stored:
            stored.prefetch(file.size)
            return digest(stored)

    def _sweep(self, directory: str, parcel: Parcel) -> int:
        """Remove what earlier tries of this parcel left behind; return how much that was."""
        try:
            names = self._client.listdir(directory)
        except (FileNotFoundError, PermissionError):
            # Some recipients let us write but not list; then remains of a killed try stay.
            return 0
        mine = [name for name in names if parcel.owns(name)]
        for name in mine:
            with suppress(FileNotFoundError):
                self._client.remove(_join(directory, name))
        return len(mine)

    def _make(self, directory: str) -> None:
        path = "/" if directory.startswith("/") else ""
        for part in filter(None, directory.split("/")):
            path = _join(path, part) if path else part
            if self._size(path) is None:
                try:
                    self._client.mkdir(path)
                except OSError:
                    # Another task may have been faster.
                    if self._size(path) is None:
                        raise


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def _absolute(path: str) -> str:
    """Write a path behind `sftp://host:port`: relative to the login's directory is `/./`."""
    return path if path.startswith("/") else f"/./{path.removeprefix('./')}"
