"""Deliver to an SFTP server.

The usual way: the bytes go under a temporary name, are verified there, and get their final name by one rename.
Plain `rename` is tried first, because by the protocol it fails when the name is taken;
`posix-rename`, which replaces, is the fallback for servers without it, after a look at the final name.
Servers that cannot be treated like that get the bytes under the final name at once, with or without a marker
that says when they are complete.

Here is what stands in YAML and the order in which things are done; `remote` does them, `login` connects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from leadferry.destinations.faults.ssh import ssh_faults
from leadferry.destinations.file_server import FileServer, FileServerSession
from leadferry.destinations.parcel import OutgoingFile, Parcel, Receipt
from leadferry.destinations.sftp.login import endpoint, logged_in
from leadferry.destinations.sftp.remote import Remote, Standing, joined
from leadferry.errors import (
    AccessDeniedError,
    ConnectTimeoutError,
    DeliveryError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    TransferInterruptedError,
    TransientDeliveryError,
)

if TYPE_CHECKING:
    import paramiko

_CUT = (TransferInterruptedError, ConnectTimeoutError)
"""After these the server may or may not have carried out what it was asked last."""

_REFUSALS = (TransientDeliveryError, PermanentDeliveryError, AccessDeniedError)
"""What servers that never rename say: SFTP has hardly any words for it."""

_NO_RENAME = (
    "If this server never lets files be renamed, set `publish: direct_with_marker` or `publish: direct`;"
    " a `temporary_directory` must lie on the same file system as the directory"
)


class Sftp(FileServer):
    """A directory on an SFTP server."""

    connection_kind: ClassVar[str] = "sftp"

    type: Literal["sftp"] = "sftp"
    connection: str = Field(min_length=1, description="Airflow connection of type sftp.")
    verify: Literal["size", "sha256", "answers"] = Field(
        default="size",
        description="How the upload is checked: its size; or by reading it back; or only by the server's answer to"
        " each block, for servers that change what they store.",
    )

    def endpoint(self) -> tuple[str, int] | None:
        """See `DestinationBase.endpoint`."""
        return endpoint(self.connection)

    @contextmanager
    def open(self) -> Iterator[SftpSession]:
        """Connect and log in by the Airflow connection; the server's host key must be known."""
        with logged_in(self.connection, timeout=self.timeout) as (client, place):
            yield SftpSession(self, client, place=place)


class SftpSession(FileServerSession[Sftp]):
    """An open, authenticated SFTP channel."""

    def __init__(self, destination: Sftp, client: paramiko.SFTPClient, *, place: str) -> None:
        super().__init__(destination, place=place)
        self._remote = Remote(client, place=place)

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look for the file by name, size and SHA-256; what earlier tries left behind is removed.

        Raises:
            OutcomeUnknownError: the file may not be read, or the recipient collects files and it may be gone.
        """
        final = self._final(parcel)
        with ssh_faults(self._where(parcel)):
            standing = self._standing(final, parcel)
            if standing is Standing.OURS and self._is_marked(parcel):
                self._sweep(parcel)
                return self._receipt(final, parcel.file, verified="found there and read back")
            unpublished = self._sweep(parcel)
            if standing is Standing.PART or (standing is Standing.OURS and not self._is_marked(parcel)):
                # Without its marker the recipient takes it for a part, too.
                unpublished += self._remote.try_to_remove(final)
        if self._destination.collected and not unpublished and standing is Standing.NOTHING:
            raise self._perhaps_collected(parcel)
        return None

    def send(self, parcel: Parcel) -> Receipt:
        """Upload, verify, publish; a file that is already there is only verified."""
        with ssh_faults(self._where(parcel)):
            if self._destination.create_directory:
                self._make(parcel)
            self._sweep(parcel)
            standing = self._standing(self._final(parcel), parcel)
            if standing is Standing.OURS:
                return self._complete(parcel, verified="found there and read back")
            if self._destination.grows_in_sight:
                return self._deliver_in_sight(parcel)
            return self._deliver(parcel)

    def remove(self, parcel: Parcel) -> None:
        """See `FileStoreSession.remove`; directories that this session made go with it when they are empty."""
        final = self._final(parcel)
        with ssh_faults(self._where(parcel)):
            self._sweep(parcel)
            if self._standing(final, parcel, conflict=False) is Standing.OURS:
                if marker := self._marker_path(parcel):
                    self._remote.remove(marker)
                self._remote.remove(final)
        self._remote.remove_made()

    # --- what stands there ---------------------------------------------------------------------------------------

    def _standing(self, final: str, parcel: Parcel, *, conflict: bool = True) -> Standing:
        """Look at what stands under the final name.

        Raises:
            NameConflictError: something that may not be replaced; only if `conflict` is asked for.
        """
        found = self._remote.standing(final, parcel.file, parts=self._destination.grows_in_sight)
        may_be_replaced = self._replaces and found is Standing.OTHER
        if conflict and found in {Standing.OTHER, Standing.NO_FILE} and not may_be_replaced:
            raise self._conflict(self._remote.url(final))
        return found

    def _is_marked(self, parcel: Parcel) -> bool:
        """Tell whether the recipient was told that the file is complete; true where nobody is told."""
        marker = self._marker_path(parcel)
        return marker is None or self._remote.size(marker) == 0

    def _sweep(self, parcel: Parcel) -> int:
        """Remove what earlier tries of this parcel left behind; return how much that was."""
        directory = self._upload_directory(parcel)
        mine = self._remains(self._remote.names(directory), parcel)
        # Some recipients let us write but neither list nor remove; then remains of a killed try stay.
        return sum(self._remote.try_to_remove(joined(directory, name)) for name in mine)

    # --- paths ---------------------------------------------------------------------------------------------------

    def _final(self, parcel: Parcel) -> str:
        return joined(self._directory(parcel), parcel.file.name)

    def _temporary(self, parcel: Parcel) -> str:
        return joined(self._upload_directory(parcel), self._temporary_name(parcel))

    def _marker_path(self, parcel: Parcel) -> str | None:
        marker = self._marker(parcel)
        return None if marker is None else joined(self._directory(parcel), marker)

    def _make(self, parcel: Parcel) -> None:
        self._remote.make(self._directory(parcel))
        self._remote.make(self._upload_directory(parcel))

    # --- upload --------------------------------------------------------------------------------------------------

    def _upload(self, path: str, file: OutgoingFile) -> None:
        """Write the bytes and verify them; they are removed again if they are not right."""
        self._remote.put(
            path, self._destination.blocks(file), size=file.size, each_answer=self._counts_answers()
        )
        try:
            self._verify(path, file)
        except Exception:
            self._remote.try_to_remove(path)
            raise

    def _counts_answers(self) -> bool:
        """Whether the answers to the writes are the evidence: where the file may be gone or changed afterwards."""
        may_be_gone = self._destination.publish == "direct" and self._destination.collected
        return self._destination.verify == "answers" or may_be_gone

    def _verify(self, path: str, file: OutgoingFile) -> None:
        if self._destination.verify == "answers":
            return
        size = self._remote.size(path)
        if size is None and self._destination.publish == "direct":
            self._gone(path)
            return
        if size != file.size:
            self._remote.explain_missing_bytes(path)
            raise TransferInterruptedError(f"{self._remote.url(path)}: {size} of {file.size} bytes arrived")
        if self._destination.verify == "sha256" and self._remote.sha256(path, size=size) != file.sha256:
            raise TransferInterruptedError(f"{self._remote.url(path)}: what arrived reads back differently")

    def _gone(self, path: str) -> None:
        """The file was taken away before it could be verified: the answers to the writes must do."""
        if not self._destination.collected:
            raise OutcomeUnknownError(
                f"{self._remote.url(path)}: was taken away before it could be verified;"
                " `collected: true` would have made the server's answers to the writes the evidence"
            )

    # --- under the final name at once ----------------------------------------------------------------------------

    def _deliver_in_sight(self, parcel: Parcel) -> Receipt:
        """Write under the final name, verify, and put the marker, where there is one."""
        final = self._final(parcel)
        self._withdraw_marker(parcel)
        try:
            with ssh_faults(self._where(parcel)):
                self._upload(final, parcel.file)
        except _CUT as lost:
            return self._look_again(parcel, lost)
        return self._complete(parcel, verified=self._how_verified("under its final name"))

    def _withdraw_marker(self, parcel: Parcel) -> None:
        """A marker without its file is left from another day; it would tell of a file that is still growing."""
        marker = self._marker_path(parcel)
        if marker is None or (size := self._remote.size(marker)) is None:
            return
        if size:
            raise self._conflict(self._remote.url(marker))
        self._remote.remove(marker)

    def _complete(self, parcel: Parcel, *, verified: str) -> Receipt:
        """Put the marker beside a file that is there, where the recipient waits for one."""
        final, marker = self._final(parcel), self._marker_path(parcel)
        if marker is None:
            return self._receipt(final, parcel.file, verified=verified)
        try:
            with ssh_faults(self._where(parcel)):
                if not self._is_marked(parcel):
                    self._put_marker(marker)
        except _CUT as lost:
            return self._look_again(parcel, lost)
        return self._receipt(final, parcel.file, verified=verified, marker=self._remote.url(marker))

    def _put_marker(self, marker: str) -> None:
        if self._remote.size(marker) is not None:
            raise self._conflict(self._remote.url(marker))
        self._remote.put(marker, (), size=0, each_answer=True)

    # --- by a rename ---------------------------------------------------------------------------------------------

    def _deliver(self, parcel: Parcel) -> Receipt:
        """Write under a temporary name, verify, rename."""
        temporary, final = self._temporary(parcel), self._final(parcel)
        self._upload(temporary, parcel.file)
        try:
            with ssh_faults(self._where(parcel)):
                how = self._rename(temporary, final, parcel)
                return self._published(final, parcel.file, how=how)
        except _CUT as lost:
            return self._look_again(parcel, lost)
        except Exception:
            # Best effort: the next try sweeps as well.
            self._remote.try_to_remove(temporary)
            raise

    def _ways(self) -> tuple[tuple[str, Callable[[str, str], None]], ...]:
        """Return how a file may get its name, best first."""
        if self._replaces:
            return (
                ("posix-rename", self._remote.posix_rename),
                ("rename after removing what stood there", self._remote.remove_and_rename),
            )
        return ("rename", self._remote.rename), ("posix-rename", self._remote.posix_rename)

    def _rename(self, temporary: str, final: str, parcel: Parcel) -> str:
        """Rename in the first way that the server accepts; return which.

        Raises:
            DeliveryError: what the server answered to the first way, when it accepts none.
        """
        refusals: list[DeliveryError] = []
        for how, rename in self._ways():
            try:
                with ssh_faults(self._where(parcel)):
                    rename(temporary, final)
            except _CUT:
                raise
            except DeliveryError as refused:
                refusals.append(refused)
                if arrived := self._in_spite_of_refusal(temporary, final, parcel):
                    return arrived
            else:
                return how
        raise _with_remedy(refusals[0])

    def _in_spite_of_refusal(self, temporary: str, final: str, parcel: Parcel) -> str | None:
        """Look what is behind an error: the name is taken, or the server did it and answers with an error."""
        standing = self._standing(final, parcel)
        if standing is Standing.OURS:
            self._remote.try_to_remove(temporary)
            return "found there after the rename was refused"
        if self._remote.size(temporary) is None:
            return "rename, answered with an error"
        return None

    def _published(self, final: str, file: OutgoingFile, *, how: str) -> Receipt:
        """Say what is known after the rename; the temporary file was already verified."""
        size = self._remote.size(final)
        if self._destination.verify != "answers" and size not in {None, file.size}:
            raise OutcomeUnknownError(
                f"{self._remote.url(final)}: has {size} bytes after it was published with {file.size}"
            )
        verified = self._how_verified("before it was published")
        return self._receipt(final, file, verified=verified, published=how, collected=size is None)

    def _how_verified(self, when: str) -> str:
        if self._counts_answers():
            return f"the server's answer to each block {when}"
        return f"read back {when}" if self._destination.verify == "sha256" else f"size {when}"

    def _receipt(self, final: str, file: OutgoingFile, *, verified: str, **more: object) -> Receipt:
        read_back = "read back" in verified
        return Receipt(
            location=self._remote.url(final),
            size=file.size,
            sha256=file.sha256 if read_back else None,
            details={"verified": verified, **more},
        )


def _with_remedy(refused: DeliveryError) -> DeliveryError:
    """Say what helps where a server refuses every rename without a word about the path."""
    if type(refused) not in _REFUSALS:
        return refused
    return type(refused)(refused.what, hint=_NO_RENAME)
