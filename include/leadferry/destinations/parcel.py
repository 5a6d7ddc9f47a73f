"""What is sent in one go, and the evidence that it arrived: files, parcels, links and receipts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from leadferry.errors import PermanentDeliveryError
from leadferry.exchange import Answers

BLOCK = 1 << 20
"""Bytes that are read, hashed and sent at a time."""


@dataclass(frozen=True, kw_only=True)
class OutgoingFile:
    """Stored bytes as a destination sees them; they never change between tries."""

    name: str
    """Name for the recipient, safe characters only, without a folder."""
    path: Path
    """A complete local copy; read-only."""
    size: int
    """Bytes."""
    sha256: str
    """Hex digest of the bytes."""
    rows: int
    """Leads in the file."""
    media_type: str
    """MIME type of the bytes as they are, for example after compression."""
    inline: bool = False
    """Shown in the text of a mail instead of attached."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the stored bytes, and raise at the end if they are not the ones that were rendered.

        Whoever sends them publishes only after the last block, so damaged bytes never get a final name.

        Raises:
            PermanentDeliveryError: the stored copy is gone, cannot be read, or has changed.
        """
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as stored:
                while block := stored.read(BLOCK):
                    digest.update(block)
                    yield block
        except OSError:
            raise _damaged(self.name) from None
        if digest.hexdigest() != self.sha256:
            raise _damaged(self.name)

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the leads of a records file, id and fields, one at a time; checked at the end like `blocks`."""
        rest = b""
        for block in self.blocks():
            *lines, rest = (rest + block).split(b"\n")
            for line in filter(None, lines):
                one = json.loads(line)
                yield one["lead_id"], one["fields"]
        if rest:
            one = json.loads(rest)
            yield one["lead_id"], one["fields"]


def _damaged(name: str) -> PermanentDeliveryError:
    return PermanentDeliveryError(
        f"The stored copy of {name} is missing or is not what was rendered",
        hint="Restore the file in the archive from a backup; nothing was delivered",
    )


@dataclass(frozen=True, kw_only=True)
class Link:
    """A file that the addressee fetches from a store instead of finding it in the mail."""

    name: str
    """The file's name."""
    url: str = field(repr=False)
    """Whoever has it gets the file: it stands in the mail and nowhere else."""
    expires: datetime
    """When it stops working; aware."""
    via: str
    """Id of the destination that holds the file."""
    location: str
    """Where the file is, as that destination's receipt says."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What is sent in one go: succeeds or fails as a whole."""

    key: str
    """Idempotency key: the same for every try of this parcel, different for every other parcel."""
    attempt: int
    """Counts the tries from 1; makes temporary names unique, never final ones."""
    files: tuple[OutgoingFile, ...]
    addressee: str | None = None
    """The mail recipient, where the destination has several."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """What templates of subjects, bodies and folders may use; see `leadferry.templates`."""
    part: int = 1
    """Counts the parcels from 1 into which what the addressee gets was divided."""
    parts: int = 1
    """How many parcels those are."""
    remedy: str = ""
    """What was done because one mail would have been too large: zip, split, link; empty where it is not."""
    links: tuple[Link, ...] = ()
    """The files among `files` that are linked and not attached."""
    is_test: bool = False
    """Whether the leads are made up; a receiver that sees no file name must be told in another way."""
    redelivery: str = ""
    """Of leads or a file that a person sends again, the mark: `R1` for the first time, and so on."""
    answers: Answers | None = None
    """Remembers requests and their answers, for destinations that send a parcel in several requests."""

    @property
    def file(self) -> OutgoingFile:
        """The only file, for destinations that get each file in a parcel of its own."""
        (only,) = self.files
        return only

    def named(self, name: str) -> Parcel:
        """Return the same parcel with another name for its only file."""
        return replace(self, files=(replace(self.file, name=name),))

    @property
    def mark(self) -> str:
        """The key as 16 hex digits, fit for names of files and messages."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]

    @property
    def temporary_name(self) -> str:
        """Hidden name beside the final one for the time of the transfer; differs from try to try."""
        return self.temporary()

    def temporary(self, *, prefix: str = ".", suffix: str = ".part") -> str:
        """Make a temporary name for a store that wants such names to begin or end in a way of its own."""
        # File systems stop at 255 bytes; the mark alone already makes the name unique.
        start = self.file.name.encode()[:180].decode(errors="ignore")
        return f"{prefix}{start}.{self.mark}.{self.attempt}{suffix}"

    def owns(self, name: str, *, prefix: str = ".", suffix: str = ".part") -> bool:
        """Tell whether a name in the destination's folder is a temporary of this parcel, from any try."""
        pattern = rf"{re.escape(prefix)}.*\.{self.mark}\.\d+{re.escape(suffix)}"
        return re.fullmatch(pattern, name, re.DOTALL) is not None


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Evidence that a parcel arrived; stored with the dispatch, shown to people. No secrets, no lead data."""

    location: str
    """Where it is, for a reader: `sftp://host:22/inbound/leads.csv`, `s3://bucket/key`, a Message-ID."""
    size: int | None = None
    """Bytes that the destination says it has; None where it does not say."""
    sha256: str | None = None
    """Hash of the bytes as read back or as the destination computed it; None where neither can be done."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More evidence, JSON-able: ETag, SMTP reply, how it was verified."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def digest(stream: _Readable) -> str:
    """Return the SHA-256 of what is left in a stream, in hex; constant memory."""
    hashed = hashlib.sha256()
    while block := stream.read(BLOCK):
        hashed.update(block)
    return hashed.hexdigest()
