"""What every destination promises, so that the delivery protocol can be the same for all of them.

A destination is told to send a *parcel*: one or more stored files for one addressee.
It answers with a receipt only after it has verified that the bytes arrived,
and it can be asked whether a parcel is already there, which decides what happens after a crash.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leadferry.destinations.parcel import OutgoingFile, Parcel, Receipt
from leadferry.destinations.transfer import paced
from leadferry.errors import DeliveryError, NoSuchPathError
from leadferry.templates import render
from leadferry.units import Clock, Duration, Size


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
