"""What every destination promises, so that the delivery protocol can be the same for all of them.

A destination is told to send a *parcel*: one or more stored files for one addressee.
It answers with a receipt only after it has verified that the bytes arrived,
and it can be asked whether a parcel is already there, which decides what happens after a crash.
"""

from __future__ import annotations

import abc
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leadferry.destinations.transfer import paced
from leadferry.errors import DeliveryError, NoSuchPathError, PermanentDeliveryError
from leadferry.exchange import Answers
from leadferry.templates import render
from leadferry.units import Clock, Duration, Size

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


class Session(abc.ABC):
    """An open, authenticated connection to a destination."""

    @abc.abstractmethod
    def find(self, parcel: Parcel) -> Receipt | None:
        """Look whether exactly this parcel is already there, completely.

        Returns:
            The receipt when it is, None when it certainly is not (partial remains of it are removed).

        Raises:
            OutcomeUnknownError: the destination cannot be asked (mail).
            NameConflictError: other bytes stand under the name.
            DeliveryError: the look-up itself failed.
        """

    @abc.abstractmethod
    def send(self, parcel: Parcel) -> Receipt:
        """Send the parcel, verify it, and return the evidence. A parcel that is already there is not sent again.

        Raises:
            TransientDeliveryError: nothing is visible under a final name; try again later.
            PermanentDeliveryError: the same, but a person must act first.
            OutcomeUnknownError: it may or may not have arrived, and the destination cannot be asked.
        """

    def probe(self, parcel: Parcel) -> str:  # noqa: ARG002  (destinations that can do more use it)
        """Prove, as far as nobody is bothered by it, that a parcel like this one could be delivered; leave nothing.

        Returns what was proven, as a phrase for `leadferry doctor`.

        Raises:
            DeliveryError: it could not.
        """
        return "logged in"


class FileStoreSession(Session):
    """A session with a place where files stand under names."""

    @abc.abstractmethod
    def remove(self, parcel: Parcel) -> None:
        """Remove the parcel's file if exactly its bytes stand under its name; anything else stays."""

    def probe(self, parcel: Parcel) -> str:
        """Send a small file for real and take it away again."""
        try:
            self.send(parcel)
        except DeliveryError:
            with suppress(DeliveryError):  # why it could not be sent is what counts
                self.remove(parcel)
            raise
        self.remove(parcel)
        return "a file was written, published and removed"


@runtime_checkable
class Shares(Protocol):
    """A session of a store whose objects anybody can fetch for a while who has the link."""

    def link(self, parcel: Parcel, *, expires: timedelta) -> str:
        """Return an HTTPS link to the parcel's file, which must have been sent, that works until `expires` from now.

        The link is a secret: whoever has it gets the file. It goes to the recipient and into no log.

        Raises:
            DeliveryError: the file is not there, or the credentials or the store cannot make a link that lasts so long.
        """


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def digest(stream: _Readable) -> str:
    """Return the SHA-256 of what is left in a stream, in hex; constant memory."""
    hashed = hashlib.sha256()
    while block := stream.read(BLOCK):
        hashed.update(block)
    return hashed.hexdigest()


def rendered_path(template: str, parcel: Parcel, *, where: str) -> str:
    """Fill in the template of a folder, directory or prefix; only the template's own slashes make folders.

    Raises:
        NoSuchPathError: the result has `..` in it or a character that no path may have.
    """
    path = render(template, with_texts(parcel.variables, _flat))
    if ".." in path.split("/") or not path.isprintable():
        raise NoSuchPathError(f"{where}: filled in, this path leads elsewhere or has unprintable characters")
    return path


def _flat(value: str) -> str:
    return re.sub(r"[/\\]", "_", value)


def with_texts(variables: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return template variables with every text in them changed, for places where some characters have a meaning."""
    return {
        name: change(value)
        if isinstance(value, str)
        else with_texts(value, change)
        if isinstance(value, Mapping)
        else [with_texts(one, change) for one in value]
        if isinstance(value, list)
        else value
        for name, value in variables.items()
    }


def pool_name(kind: str, connection: str) -> str:
    """Name the Airflow pool of one connection, in letters, digits and underscores only."""
    return f"leadferry_{kind}_{re.sub(r'[^a-z0-9]+', '_', connection.lower()).strip('_')}"


class Retry(BaseModel):
    """How often and when a failed delivery is tried again; carried out by Airflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(default=5, ge=1, le=50, description="Tries in all, the first one included.")
    first_delay: Duration = timedelta(minutes=1)
    factor: float = Field(default=2, ge=1, le=10)
    max_delay: Duration = timedelta(hours=1)
    at: tuple[Clock, ...] = Field(
        default=(),
        max_length=5,
        description="Local times at which the same files are tried once more after the last try failed.",
    )


class OwnRetry(BaseModel):
    """What one destination does otherwise than its batch; a key that is left out is the batch's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int | None = Field(
        default=None, ge=1, le=50, description="Tries in all, the first one included."
    )
    first_delay: Duration | None = None
    factor: float | None = Field(default=None, ge=1, le=10)
    max_delay: Duration | None = None
    at: tuple[Clock, ...] | None = Field(
        default=None,
        max_length=5,
        description="Local times at which the same files are tried once more after the last try failed.",
    )

    def over(self, batch: Retry) -> Retry:
        """Return the batch's settings with these in their place."""
        return batch.model_copy(update={name: value for name, value in self if value is not None})


class DestinationBase(BaseModel, abc.ABC):
    """What every destination has in YAML; each kind adds its own keys in its own file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sends_files_together: ClassVar[bool] = False
    """Whether all files for one addressee travel in one parcel (a mail with attachments)."""
    makes_links: ClassVar[bool] = False
    """Whether its sessions are `Shares`."""

    id: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        max_length=60,
        description="Name of this destination in the batch; the task is `deliver.<id>`.",
    )
    files: list[str] | None = Field(
        default=None, min_length=1, description="Ids of the files that go here; all of them when left out."
    )
    primary: bool = Field(
        default=False,
        description="With `success: primary`, the destination that must have everything; the first one when none says so.",
    )
    fallback_for: str | None = Field(
        default=None,
        description="Id of the destination that this one replaces: used only after the last failed try there,"
        " and only for what did not arrive there.",
    )
    retry: OwnRetry | None = Field(
        default=None, description="Keys of the batch's `retry` that are different for this destination."
    )

    segments: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Of files divided by `segment`, only these segments go here; all when left out.",
    )
    max_rows: int | None = Field(
        default=None,
        ge=1,
        description="Most leads in a file that goes here; divided for this destination alone.",
    )
    max_bytes: Annotated[Size, Field(ge=1000)] | None = Field(
        default=None, description="Most bytes of a file that goes here, such as 10MB; divided like max_rows."
    )

    @property
    def takes(self) -> Literal["files", "leads"]:
        """Whether parcels hold the batch's files, or the records file with the mapped leads and their ids."""
        return "files"

    @property
    def can_be_asked(self) -> bool:
        """Whether `Session.find` can tell after a crash if a parcel arrived."""
        return True

    @property
    def lead_fields(self) -> list[str]:
        """The lead fields of which it tells the recipient besides the columns of the files."""
        return []

    @property
    def may_rename(self) -> bool:
        """Whether a file whose name is taken goes under the next free one; see `FileStore.on_name_taken`."""
        return False

    def problems(self, columns: Sequence[str]) -> list[str]:  # noqa: ARG002  (most destinations take any name)
        """Say which of the mapped columns' names this destination cannot have, a sentence each; asked by the check."""
        return []

    def addressees(self) -> list[str | None]:
        """Return who gets a parcel of their own; `[None]` where the destination is the addressee."""
        return [None]

    def files_for(self, addressee: str | None) -> list[str] | None:  # noqa: ARG002  (mail knows its recipients)
        """Return the ids of the files that one addressee gets; None for all."""
        return self.files

    def endpoint(self) -> tuple[str, int] | None:
        """Return host name and port by the Airflow connection, for a look at DNS and TCP; None where there is none."""
        return None

    @property
    @abc.abstractmethod
    def where(self) -> str:
        """Say for a reader where this delivers to, without asking Airflow: type, connection id, folder."""

    @property
    @abc.abstractmethod
    def pool(self) -> str:
        """Name what must not be opened too often at once (the connection, the folder): one Airflow pool each."""

    @abc.abstractmethod
    def open(self) -> AbstractContextManager[Session]:
        """Connect and log in; timeouts everywhere. Raises `DeliveryError` classified by what went wrong."""


class Connected(DestinationBase):
    """What destinations share that are reached by an Airflow connection."""

    connection_kind: ClassVar[str]
    """What messages call the connection: the server's protocol, or the provider."""

    type: str
    connection: str = Field(min_length=1, description="Airflow connection.")

    @property
    def via(self) -> str:
        """Name the connection for a reader."""
        return f"{self.connection_kind} connection '{self.connection}'"

    @property
    def pool(self) -> str:
        """One pool per connection."""
        return pool_name(self.type, self.connection)


class AllowsPlaintext(Connected):
    """What destinations share that go without TLS only if the batch says so and why."""

    allow_plaintext: bool = Field(default=False, description="Connect without TLS; needs `plaintext_reason`.")
    plaintext_reason: str | None = Field(
        default=None, description="Why a connection without TLS is acceptable here."
    )

    @model_validator(mode="after")
    def _plaintext_has_a_reason(self) -> Self:
        if self.allow_plaintext and not (self.plaintext_reason or "").strip():
            raise ValueError("allow_plaintext needs plaintext_reason: say why no TLS is acceptable here")
        return self


class FileStore(DestinationBase):
    """What destinations share where files stand under names: folders, servers, buckets."""

    on_name_taken: Literal["fail", "suffix", "overwrite"] = Field(
        default="fail",
        description="When other bytes stand under the name: fail, deliver as name_2, name_3 …, or replace them."
        " The same bytes under the name always count as delivered.",
    )
    max_bytes_per_second: Annotated[Size, Field(ge=1000)] | None = Field(
        default=None, description="Never send faster than this, such as 500KB."
    )

    @property
    def may_rename(self) -> bool:
        """See `DestinationBase.may_rename`."""
        return self.on_name_taken == "suffix"

    def blocks(self, file: OutgoingFile) -> Iterator[bytes]:
        """Yield the file's bytes at the pace that this destination may be used."""
        return paced(file.blocks(), bytes_per_second=self.max_bytes_per_second)
