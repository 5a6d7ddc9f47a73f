"""What happens to files on an FTP server, in order: look, upload, verify, publish, look again when in doubt.

FTP's rename replaces what stands under the name on nearly every server, and none can be told not to.
So this looks at the name right before; what somebody puts there between look and rename is replaced.
"""

from __future__ import annotations

import ftplib
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from leadferry.destinations.faults.ftp import ftp_faults
from leadferry.destinations.file_server import FileServerSession, sha256_of_start
from leadferry.destinations.ftp.client import Client
from leadferry.destinations.parcel import OutgoingFile, Parcel, Receipt
from leadferry.destinations.transfer import logged
from leadferry.errors import (
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    NoSuchPathError,
    OutcomeUnknownError,
    TransferInterruptedError,
)

if TYPE_CHECKING:
    from leadferry.destinations.ftp import Ftp

_CUT = (TransferInterruptedError, ConnectTimeoutError, DestinationBusyError)
"""After these the server may or may not have carried out what it was asked last."""


class FtpSession(FileServerSession["Ftp"]):
    """An open, authenticated FTP connection."""

    def __init__(self, destination: Ftp, client: Client, *, place: str) -> None:
        super().__init__(destination, place=place)
        self._client = client
        self._home: str | None = None
        self._made: list[str] = []

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look for the file by name, size and SHA-256; temporary files of earlier tries are removed.

        Raises:
            OutcomeUnknownError: the file may not be read, or the recipient collects files and it may be gone.
        """
        with ftp_faults(self._where(parcel)):
            receipt, begun = None, False
            if here := self._entered(parcel):
                receipt = self._standing(here, parcel)
                begun = (
                    self._destination.grows_in_sight and self._client.size_of(parcel.file.name) is not None
                )
            begun = bool(self._sweep(parcel)) or begun
        if receipt is None and self._destination.collected and not begun:
            raise self._perhaps_collected(parcel)
        return receipt

    def send(self, parcel: Parcel) -> Receipt:
        """Upload, verify, publish; a file that is already there is only verified."""
        with ftp_faults(self._where(parcel)):
            if self._destination.create_directory:
                for directory in self._directories(parcel):
                    self._make(directory)
            self._sweep(parcel)
            here = self._enter(self._directory(parcel))
            return self._standing(here, parcel) or self._deliver(here, parcel)

    def remove(self, parcel: Parcel) -> None:
        """See `FileStoreSession.remove`; directories that this session made go with it when they are empty."""
        name = parcel.file.name
        with ftp_faults(self._where(parcel)):
            self._sweep(parcel)
            here = self._entered(parcel)
            if here is not None and self._holds(name, parcel.file):
                if marker := self._marker(parcel):
                    self._discard(here, marker)
                with logged("remove", self._url(here, name)):
                    self._client.delete(name)
            while self._made:
                with suppress(ftplib.error_perm):
                    self._client.rmd(self._made.pop())

    # --- places

    def _directories(self, parcel: Parcel) -> list[str]:
        """Return the directory, and the one for temporaries where it is another."""
        return list(dict.fromkeys([self._directory(parcel), self._upload_directory(parcel)]))

    def _url(self, directory: str, name: str) -> str:
        return f"{self._place}{_join(directory, name)}"

    def _enter(self, directory: str) -> str:
        """Make it the server's current directory, and return its absolute path."""
        if self._home is None:
            self._home = self._client.pwd()
        with ftp_faults(f"{self._place}, directory {directory}", unexplained=NoSuchPathError):
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

    def _deliver(self, here: str, parcel: Parcel) -> Receipt:
        if self._destination.grows_in_sight:
            return self._deliver_in_sight(here, parcel)
        elsewhere = self._enter(self._upload_directory(parcel))
        name = self._temporary_name(parcel)
        temporary = _join(elsewhere, name)
        try:
            self._upload(elsewhere, name, parcel.file)
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
            with ftp_faults(self._where(parcel)), logged("rename", self._url(here, name)):
                self._client.rename(temporary, name)
        except _CUT as lost:
            return self._look_again(parcel, lost)
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

    def _deliver_in_sight(self, here: str, parcel: Parcel) -> Receipt:
        """Write under the final name; a marker says when it is complete, where the recipient waits for one."""
        file, marker = parcel.file, self._marker(parcel)
        if marker:
            self._withdraw_marker(here, marker)
        if not self._holds(file.name, file):
            self._write_in_sight(here, file)
        if marker:
            with logged("put", self._url(here, marker), size=0):
                self._client.upload(marker, ())
        return self._published(here, file, how=self._destination.publish.replace("_", " "))

    def _withdraw_marker(self, here: str, marker: str) -> None:
        """A marker without its file is left from another day; it would tell of a file that is still growing."""
        if self._client.size_of(marker):
            raise self._conflict(self._url(here, marker))
        self._discard(here, marker)

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
            if (marker := self._marker(parcel)) and self._client.size_of(marker) != 0:
                return None  # complete, but nobody was told
            details = {"verified": "found there and compared by sha256"}
            return Receipt(
                location=self._url(here, file.name), size=size, sha256=file.sha256, details=details
            )
        if size >= 0 and (
            self._replaces or (self._destination.grows_in_sight and self._is_begun(file.name, file))
        ):
            return None
        raise self._conflict(self._url(here, file.name))

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
        return size == 0 or self._digest(name, size) == sha256_of_start(file, size)

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
        mine = self._remains(self._client.names(), parcel)
        for name in mine:
            with suppress(ftplib.error_perm), logged("remove", self._url(here, name)):
                self._client.delete(name)
        return len(mine)


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"
