"""What object stores have in common, whoever runs them: S3, Google Cloud Storage, Azure Blob.

An upload makes an object appear complete or not at all, and every one of them can be told to create and never
replace. So the way is the same everywhere: look, upload on the condition that the name is free, look again;
a kind of store adds only how each of these is said in its protocol.
"""

from __future__ import annotations

import abc
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import Field

from leadferry.destinations.base import Connected, FileStore, FileStoreSession, rendered_path
from leadferry.destinations.parcel import OutgoingFile, Parcel, Receipt
from leadferry.destinations.transfer import logged
from leadferry.errors import (
    AccessDeniedError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    NameConflictError,
    NoSuchPathError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    RegionError,
    TooLargeError,
    TransferInterruptedError,
)
from leadferry.templates import Template, render

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

MetadataKey = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", max_length=128)]
TagKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9 +\-=._:/@]+$", max_length=128)]


class ObjectStore(FileStore, Connected):
    """What a bucket or container is asked for, whoever runs it."""

    makes_links: ClassVar[bool] = True
    largest: ClassVar[int]
    """Bytes that the store keeps in one object."""

    prefix: Template = Field(
        default="", description="What stands before the file name in the key, as a folder; a template."
    )
    metadata: dict[MetadataKey, Template] = Field(
        default_factory=dict,
        description="Stored with the object, beside `sha256` and `leadferry`; the values are templates.",
    )
    allowed_regions: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Refuse to upload anything unless the bucket lies in one of these regions.",
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the store may stay silent.")

    def metadata_for(self, parcel: Parcel) -> dict[str, str]:
        """Return the object's metadata: what the batch asks for, and by what a file is known again. ASCII only."""
        from anyascii import anyascii

        asked = {name: anyascii(render(text, parcel.variables)) for name, text in self.metadata.items()}
        asked = {name: re.sub(r"[^ -~]", " ", value) for name, value in asked.items()}
        return {**asked, "sha256": parcel.file.sha256, "leadferry": parcel.mark}


def address(url: str) -> tuple[str, int]:
    """Return host name and port of a store's URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)


def rendered_tags(tags: Mapping[str, str], parcel: Parcel) -> dict[str, str]:
    """Fill in the templates of tags; characters that stores refuse in them become `_`."""
    return {
        name: re.sub(r"[^A-Za-z0-9 +\-=._:/@]", "_", render(text, parcel.variables))[:256]
        for name, text in tags.items()
    }


class Stream(io.RawIOBase):
    """A file's blocks as something that client libraries can read from, measure, and start anew.

    The last bytes are handed out only after the hash over all of them was found right:
    what was damaged in the archive breaks the upload before it is complete.

    Args:
        blocks: makes the blocks from the start, each time it is called.
        size: bytes in all of them.
    """

    def __init__(self, blocks: Callable[[], Iterator[bytes]], *, size: int) -> None:
        super().__init__()
        self._make = blocks
        self._size = size
        self._position = 0
        self._start()

    def _start(self) -> None:
        self._blocks = self._make()
        self._held = bytearray()
        self._at = 0
        self._dry = False

    def readable(self) -> bool:
        """Bytes can be read."""
        return True

    def seekable(self) -> bool:
        """Any position can be read from next; going back reads the file again from its start."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; costs nothing until the next read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, or all that are left; fewer only at the end."""
        if self._position < self._at:
            self._start()
        while self._at < self._position and (skipped := self._take(self._position - self._at)):
            self._at += len(skipped)
        out = self._take(self._size - self._at if size is None or size < 0 else size)
        self._at += len(out)
        self._position = self._at
        return out

    def _take(self, wanted: int) -> bytes:
        # One byte more than is handed out, so that the last one waits for the hash.
        while len(self._held) <= wanted and not self._dry:
            block = next(self._blocks, None)
            self._dry = block is None
            self._held += block or b""
        out = bytes(self._held[:wanted])
        del self._held[:wanted]
        return out


@dataclass(frozen=True, kw_only=True)
class Standing:
    """An object as its store describes it."""

    size: int
    """Bytes."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Evidence for the receipt, JSON-able: ETag, version, generation."""
    answer: Any = None
    """What the store said, in the words of its library."""


D = TypeVar("D", bound=ObjectStore)
P = TypeVar("P")


class ObjectSession(FileStoreSession, Generic[D, P]):
    """A client for one bucket or container."""

    longest_link: timedelta = timedelta(days=7)
    """How long a link may work at most."""

    def __init__(self, destination: D) -> None:
        self._destination = destination
        self._region_seen = False
        self._known: dict[str, P] = {}

    # What each kind of store adds.

    @abc.abstractmethod
    def _translated(self, where: str) -> AbstractContextManager[None]:
        """Turn what the library raises into `DeliveryError`s."""

    @abc.abstractmethod
    def _url(self, key: str) -> str:
        """Return the object's address for a reader."""

    @abc.abstractmethod
    def _region(self) -> str:
        """Return the region of the bucket, in lower case."""

    @abc.abstractmethod
    def _look(self, key: str) -> Standing | None:
        """Return what stands under the key; None if nothing does."""

    @abc.abstractmethod
    def _same(self, key: str, file: OutgoingFile, standing: Standing) -> str | None:
        """Compare an object of the right size with the file; say how it was proven to be the same, None if it is not."""

    @abc.abstractmethod
    def _computed(self, file: OutgoingFile) -> P:
        """Read the file in full and compute what the store may say about its bytes."""

    @abc.abstractmethod
    def _put(self, key: str, parcel: Parcel) -> Mapping[str, Any]:
        """Upload, on the condition that the key is free unless it may be replaced; return evidence from the answer."""

    @abc.abstractmethod
    def _delete(self, key: str, standing: Standing) -> None:
        """Delete the object that was seen."""

    @abc.abstractmethod
    def _sign(self, key: str, *, expires: timedelta) -> str:
        """Return an address that works for anybody for so long."""

    # What they share.

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look for the object by key, size and hash."""
        key = self._key(parcel)
        with self._translated(self._where(key)):
            return self._standing(key, parcel.file)

    def send(self, parcel: Parcel) -> Receipt:
        """Upload, verify; an object that is already there is only verified."""
        key = self._key(parcel)
        with self._translated(self._where(key)):
            self._check_region(key)
            return self._before(key, parcel.file) or self._deliver(key, parcel)

    def remove(self, parcel: Parcel) -> None:
        """See `FileStoreSession.remove`."""
        key, file = self._key(parcel), parcel.file
        with self._translated(self._where(key)):
            standing = self._look(key)
            if standing is None or standing.size != file.size or not self._same(key, file, standing):
                return
            with logged("remove", self._url(key)):
                self._delete(key, standing)

    def link(self, parcel: Parcel, *, expires: timedelta) -> str:
        """See `leadferry.destinations.base.Shares`; the access log says that a link was made, not which."""
        key = self._key(parcel)
        if not timedelta() < expires <= self.longest_link:
            raise PermanentDeliveryError(
                f"{self._where(key)}: a link can work for at most {self.longest_link.days} days",
                hint="Shorten the time that the link should work",
            )
        with self._translated(self._where(key)):
            if self._look(key) is None:
                raise NoSuchPathError(f"{self._where(key)}: there is no object to make a link to")
            with logged("link", self._url(key)):
                return self._safe(key, self._sign(key, expires=expires))

    def _safe(self, key: str, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "https" or parts.hostname in _LOOPBACK:
            return url
        raise PermanentDeliveryError(
            f"{self._where(key)}: a link to this store would send leads unencrypted",
            hint="Give the store's endpoint in the Airflow connection as https://",
        )

    def _key(self, parcel: Parcel) -> str:
        prefix = rendered_path(self._destination.prefix, parcel, where=self._destination.where).strip("/")
        return f"{prefix}/{parcel.file.name}" if prefix else parcel.file.name

    def _where(self, key: str) -> str:
        """Say for a reader of an error: connection and address."""
        return f"{self._destination.via}, {self._url(key)}"

    def _prints(self, file: OutgoingFile) -> P:
        """Return what the store may say about the file's bytes; computed once."""
        if file.sha256 not in self._known:
            self._known[file.sha256] = self._computed(file)
        return self._known[file.sha256]

    def _prepare(self, file: OutgoingFile) -> None:
        """Read the file once in full, so that bytes that are not the rendered ones are never sent."""
        largest = self._destination.largest
        if file.size > largest:
            raise TooLargeError(
                f"{self._destination.where}: {file.size} bytes are more than the {largest} of one object"
            )
        self._known[file.sha256] = self._computed(file)

    @property
    def _replaces(self) -> bool:
        return self._destination.on_name_taken == "overwrite"

    def _check_region(self, key: str) -> None:
        allowed = self._destination.allowed_regions
        if allowed is None or self._region_seen:
            return
        region = self._region()
        if region.lower() not in {one.lower() for one in allowed}:
            raise RegionError(
                f"{self._where(key)}: the bucket lies in {region}, expected {' or '.join(allowed)};"
                " nothing was uploaded",
                hint="Deliver to a bucket in an allowed region, or correct `allowed_regions` in the batch file",
            )
        self._region_seen = True

    def _before(self, key: str, file: OutgoingFile) -> Receipt | None:
        """Look before the upload, for stores that ignore its condition; who may not look relies on that condition."""
        try:
            with self._translated(self._where(key)):
                return self._standing(key, file)
        except AccessDeniedError:
            return None

    def _deliver(self, key: str, parcel: Parcel) -> Receipt:
        self._prepare(parcel.file)
        try:
            with (
                self._translated(self._where(key)),
                logged("put", self._url(key), size=parcel.file.size),
            ):
                answer = self._put(key, parcel)
        except NameConflictError:
            if receipt := self._standing(key, parcel.file):
                return receipt
            raise
        except (TransferInterruptedError, ConnectTimeoutError, DestinationBusyError) as cut:
            return self._after_cut(key, parcel.file, cut)
        return self._uploaded(key, parcel.file, answer)

    def _after_cut(self, key: str, file: OutgoingFile, cut: DeliveryError) -> Receipt:
        """The answer to the upload was lost: look whether the object is there."""
        try:
            with self._translated(self._where(key)):
                receipt = self._standing(key, file)
        except DeliveryError as error:
            if isinstance(error, NameConflictError):
                raise
            raise OutcomeUnknownError(
                f"{self._where(key)}: the connection was cut during the upload, and looking for the object failed"
                f" ({error.code})"
            ) from None
        if receipt is None:
            raise cut
        return receipt

    def _uploaded(self, key: str, file: OutgoingFile, answer: Mapping[str, Any]) -> Receipt:
        """Compare what the store has with what was sent; not every store checks hashes by itself."""
        try:
            with self._translated(self._where(key)):
                receipt = self._standing(key, file)
        except AccessDeniedError:
            # May write but not look.
            details = {**answer, "verified": "answer to the upload"}
            return Receipt(location=self._url(key), details=details)
        except NameConflictError:
            receipt = None
        if receipt is None:
            raise TransferInterruptedError(
                f"{self._where(key)}: the store has other bytes than were sent, or none"
            )
        return receipt

    def _standing(self, key: str, file: OutgoingFile) -> Receipt | None:
        """Look at what stands under the key: nothing, this file, what may be replaced, or something else."""
        standing = self._look(key)
        if standing is None:
            return None
        verified = self._same(key, file, standing) if standing.size == file.size else None
        if verified is not None:
            details = {**standing.details, "verified": verified}
            return Receipt(location=self._url(key), size=file.size, sha256=file.sha256, details=details)
        if self._replaces:
            return None
        raise NameConflictError(f"{self._where(key)}: something else already stands under this key")
