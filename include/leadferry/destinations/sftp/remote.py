"""The files on an SFTP server: looked at, written, moved, removed; every change stands in the access log."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

from leadferry.destinations.file_server import sha256_of_start
from leadferry.destinations.parcel import OutgoingFile, digest
from leadferry.destinations.transfer import logged
from leadferry.errors import OutcomeUnknownError, QuotaError

if TYPE_CHECKING:
    import paramiko

_EXTENDED = 200
"""SSH_FXP_EXTENDED."""

_PROBE = 32768
"""Bytes of one block of SFTP, which is what full servers refuse even if a few bytes would still fit."""

_READS_AHEAD = 64
"""Blocks of 32 KiB that are asked for before the first has come: fast on a long wire, and 2 MiB at most."""

_NO_FILE = -1
"""In the place of a size: something stands there that is no file."""


class Standing(Enum):
    """What stands under a name, seen from one file that is to be delivered there."""

    NOTHING = auto()
    OURS = auto()
    """Exactly the file's bytes."""
    PART = auto()
    """The file's first bytes and no more."""
    OTHER = auto()
    NO_FILE = auto()
    """A directory, or another thing that cannot be replaced by a file."""


class Remote:
    """A server's files.

    Args:
        client: an open channel.
        place: `sftp://host:port`, for messages and the access log.
    """

    def __init__(self, client: paramiko.SFTPClient, *, place: str) -> None:
        self._client = client
        self._place = place
        self._made: list[str] = []

    def url(self, path: str) -> str:
        """Write a path for a reader: what is relative to the login's directory stands behind `/./`."""
        return (
            f"{self._place}{path}" if path.startswith("/") else f"{self._place}/./{path.removeprefix('./')}"
        )

    def size(self, path: str) -> int | None:
        """Return the size of a file, None if there is nothing; -1 stands for something that is no file."""
        try:
            found = self._client.stat(path)
        except FileNotFoundError:
            return None
        if found.st_mode is not None and stat.S_IFMT(found.st_mode) not in (0, stat.S_IFREG):
            return _NO_FILE
        return found.st_size

    def standing(self, path: str, file: OutgoingFile, *, parts: bool) -> Standing:
        """Compare what stands under a name with a file.

        Args:
            path: the name.
            file: what is to be delivered there.
            parts: whether a part of the file may stand there; otherwise a shorter file is not even read.

        Raises:
            OutcomeUnknownError: it may not be read, so that it cannot be told from the file.
        """
        size = self.size(path)
        if size is None:
            return Standing.NOTHING
        if size == _NO_FILE:
            return Standing.NO_FILE
        if size > file.size or (size < file.size and not parts):
            return Standing.OTHER
        if self._sha256_to_compare(path, size) != sha256_of_start(file, size):
            return Standing.OTHER
        return Standing.OURS if size == file.size else Standing.PART

    def sha256(self, path: str, *, size: int) -> str:
        """Read a file back and return its hash; constant memory."""
        with self._client.open(path, "rb") as stored:
            stored.prefetch(size, max_concurrent_requests=_READS_AHEAD)
            return digest(stored)

    def names(self, directory: str) -> list[str]:
        """List a directory; nothing where there is none, or where the login may write but not list."""
        try:
            return self._client.listdir(directory)
        except (FileNotFoundError, PermissionError):
            return []

    def put(self, path: str, blocks: Iterable[bytes], *, size: int, each_answer: bool) -> None:
        """Write a file; what cannot be written to its end is removed again, as far as the connection still allows.

        Args:
            path: where; a file that stands there is replaced from its first byte on.
            blocks: the bytes.
            size: how many they are, for the access log.
            each_answer: wait for the server's answer to each block of 32 KiB and hear what is wrong at once,
                instead of sending on and looking at the size afterwards, which is much faster on a long wire.
        """
        with logged("put", self.url(path), size=size):
            out = self._client.open(path, "wb")
            try:
                with out:
                    out.set_pipelined(pipelined=not each_answer)
                    for block in blocks:
                        out.write(block)
            except Exception:
                self.try_to_remove(path)
                raise

    def explain_missing_bytes(self, path: str) -> None:
        """Find out why bytes are missing: paramiko drops the answers to writes that it did not wait for.

        Raises:
            QuotaError: the file system is full, told by OpenSSH's extension `statvfs`.
            OSError: what the server answers to one more block.
        """
        with suppress(OSError):
            # No public way to an extension. RFC draft: reply of eleven numbers, the fifth is what we may still use.
            request = self._client._request  # type: ignore[attr-defined]  # noqa: SLF001  (private, so not in its types)
            _, reply = request(_EXTENDED, "statvfs@openssh.com", path)
            if [reply.get_int64() for _ in range(5)][-1] == 0:
                raise QuotaError(f"{self.url(path)}: no room left on the server's disk")
        with self._client.open(path, "ab") as out:
            out.write(bytes(_PROBE))

    def rename(self, old: str, new: str) -> None:
        """Rename as the protocol's first versions say: fails if the new name is taken."""
        with logged("rename", self.url(new)):
            self._client.rename(old, new)

    def posix_rename(self, old: str, new: str) -> None:
        """Rename by OpenSSH's extension: replaces what has the new name, in one step."""
        with logged("rename", self.url(new)):
            self._client.posix_rename(old, new)

    def remove_and_rename(self, old: str, new: str) -> None:
        """Replace in two steps, for servers without the extension: between them nothing has the new name."""
        if self.size(new) is not None:
            self.remove(new)
        self.rename(old, new)

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is no error."""
        with suppress(FileNotFoundError), logged("remove", self.url(path)):
            self._client.remove(path)

    def try_to_remove(self, path: str) -> bool:
        """Remove a file if that can be done, and say whether it is gone: a cut connection cannot remove anything."""
        try:
            self.remove(path)
        except Exception:  # noqa: BLE001  (why it stays is not what its caller has to tell)
            return False
        return True

    def make(self, directory: str) -> None:
        """Make a directory and those above it; directories that are there are not touched."""
        if self.size(directory) is not None:
            return
        path = "/" if directory.startswith("/") else ""
        for part in filter(None, directory.split("/")):
            path = joined(path, part) if path else part
            if self.size(path) is None:
                self._make_one(path)

    def _make_one(self, path: str) -> None:
        try:
            with logged("mkdir", self.url(path)):
                self._client.mkdir(path)
        except OSError:
            # Another task may have been faster.
            if self.size(path) is None:
                raise
        else:
            self._made.append(path)

    def remove_made(self) -> None:
        """Remove the directories that this session made, as far as they are empty."""
        with suppress(OSError):
            while self._made:
                self._client.rmdir(self._made.pop())

    def _sha256_to_compare(self, path: str, size: int) -> str:
        try:
            return self.sha256(path, size=size)
        except PermissionError:
            raise OutcomeUnknownError(
                f"{self.url(path)}: stands there but may not be read, so it cannot be compared"
            ) from None


def joined(directory: str, name: str) -> str:
    """Write the path of a name in a directory."""
    return f"{directory.rstrip('/')}/{name}"
