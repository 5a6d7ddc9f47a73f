"""What file servers have in common, whichever protocol they speak: SFTP, FTP.

A file stands in a directory under a name, and grows while it is written. So it gets its final name when it is
complete, by a rename; or, where a server does not allow that, a marker beside it may say that it is.
A kind of server adds only how it is reached, and how each of these is said in its protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from leadferry.destinations.base import Connected, FileStore, FileStoreSession, rendered_path
from leadferry.destinations.parcel import OutgoingFile, Parcel, Receipt
from leadferry.errors import DeliveryError, NameConflictError, NoSuchPathError, OutcomeUnknownError
from leadferry.templates import Template

_MARKER = "{{ file.name }}.done"

_TEMPORARY = r"^[A-Za-z0-9._~#=@+-]*$"


class FileServer(FileStore, Connected):
    """What a directory on a server is asked for, whichever protocol it speaks."""

    directory: Template = Field(
        default=".",
        min_length=1,
        description="Directory on the server; a template. Without a leading slash, relative to where the login starts.",
    )
    create_directory: bool = Field(
        default=False,
        description="Make the directory (and the temporary one), and those above it, when missing.",
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
    collected: bool = Field(
        default=False,
        description="The recipient takes files away as soon as they appear: after a crash, a file that is not there"
        " is then no proof that it did not arrive, and a person is asked.",
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the server may stay silent.")

    @model_validator(mode="after")
    def _publishing_keys_fit(self) -> Self:
        if (self.publish == "temp_directory") != (self.temporary_directory is not None):
            raise ValueError("`publish: temp_directory` and `temporary_directory` are only used together")
        if self.marker != _MARKER and self.publish != "direct_with_marker":
            raise ValueError("`marker` is only used with `publish: direct_with_marker`")
        if "file.name" not in self.marker or self.marker.replace(" ", "") == "{{file.name}}":
            raise ValueError("`marker` must be made of `{{ file.name }}` and differ from it")
        return self

    @property
    def where(self) -> str:
        """The connection and the directory, as written."""
        return f"{self.via}, directory {self.directory}"

    @property
    def grows_in_sight(self) -> bool:
        """Whether the file stands under its final name before it is complete."""
        return self.publish in {"direct", "direct_with_marker"}


D = TypeVar("D", bound=FileServer)


class FileServerSession(FileStoreSession, Generic[D]):
    """An open, authenticated connection to a file server.

    Args:
        destination: what the batch says.
        place: scheme, host and port, such as `sftp://host:22`, for messages and the access log.
    """

    def __init__(self, destination: D, *, place: str) -> None:
        self._destination = destination
        self._place = place

    @property
    def _replaces(self) -> bool:
        return self._destination.on_name_taken == "overwrite"

    def _where(self, parcel: Parcel) -> str:
        """Say for a reader of an error: connection, server and directory."""
        return f"{self._destination.via} ({self._place}), directory {self._directory(parcel)}"

    def _directory(self, parcel: Parcel) -> str:
        return self._rendered(self._destination.directory, parcel)

    def _upload_directory(self, parcel: Parcel) -> str:
        """Where the bytes are until they are complete."""
        return self._rendered(self._destination.temporary_directory or self._destination.directory, parcel)

    def _rendered(self, template: str, parcel: Parcel) -> str:
        path = rendered_path(template, parcel, where=self._destination.where)
        return path.rstrip("/") or "/"

    def _temporary_name(self, parcel: Parcel) -> str:
        destination = self._destination
        return parcel.temporary(prefix=destination.temporary_prefix, suffix=destination.temporary_suffix)

    def _remains(self, names: Iterable[str], parcel: Parcel) -> list[str]:
        """Of the names in the upload directory, return those of temporaries of this parcel, from any try."""
        prefix, suffix = self._destination.temporary_prefix, self._destination.temporary_suffix
        return [name for name in names if parcel.owns(name, prefix=prefix, suffix=suffix)]

    def _marker(self, parcel: Parcel) -> str | None:
        """Return the name of the marker beside the file; None where the recipient waits for none.

        Raises:
            NoSuchPathError: filled in, the template is no name that a marker can have.
        """
        if self._destination.publish != "direct_with_marker":
            return None
        # The name under which it goes, which is not always the one under which it was rendered.
        file = {**parcel.variables.get("file", {}), "name": parcel.file.name}
        named = replace(parcel, variables={**parcel.variables, "file": file})
        name = rendered_path(self._destination.marker, named, where=self._destination.where)
        if "/" in name or name in {"", ".", parcel.file.name}:
            raise NoSuchPathError(
                f"{self._destination.where}: filled in, `marker` is no name beside the file"
            )
        return name

    def _conflict(self, url: str) -> NameConflictError:
        return NameConflictError(f"{url}: something else already stands under this name")

    def _perhaps_collected(self, parcel: Parcel) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{self._where(parcel)}: {parcel.file.name} is not there, and the recipient may have collected it"
        )

    def _look_again(self, parcel: Parcel, lost: DeliveryError) -> Receipt:
        """The last answer was lost: ask over a new connection what became of it, and raise `lost` if nothing did."""
        try:
            with self._destination.open() as fresh:
                receipt = fresh.find(parcel)
        except DeliveryError as error:
            raise OutcomeUnknownError(
                f"{self._place}: the connection was cut while {parcel.file.name} got its name,"
                f" and looking for it failed ({error.code})"
            ) from None
        if receipt is None:
            raise lost from None
        return receipt


def sha256_of_start(file: OutgoingFile, size: int) -> str:
    """Return the hash of a file's first bytes, in hex: what an upload of it that broke has there."""
    if size == file.size:
        return file.sha256
    hashed, left = hashlib.sha256(), size
    for block in file.blocks():
        hashed.update(block[:left])
        left -= min(left, len(block))
        if not left:
            break
    return hashed.hexdigest()
