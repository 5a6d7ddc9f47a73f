"""What foreign exceptions mean: one table per protocol family, one context manager around each use.

The class decides whether a failure is tried again, so it is decided here and nowhere else: `system` for files and
sockets, then one module per protocol or library. Foreign texts are read to classify, never quoted: a server may repeat
what it was sent. What is quoted are names and numbers that hold no data: an errno, an SMTP code, an S3 error code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectionRefusedByHostError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    DnsError,
    ExpiredCredentialsError,
    HostKeyError,
    LeadferryError,
    MessageRefusedError,
    NameConflictError,
    NoSuchBucketError,
    NoSuchPathError,
    PermanentDeliveryError,
    QuotaError,
    RegionError,
    RejectedPolicyError,
    TooLargeError,
    TransferInterruptedError,
    TransientDeliveryError,
)


@dataclass(frozen=True)
class Fault:
    """What a foreign exception means."""

    kind: type[DeliveryError]
    detail: str = ""
    """A name or number from the foreign exception that cannot hold data."""
    hint: str | None = None
    """What to do next, where the class alone cannot know it."""


Classifier = Callable[[Exception], Fault | None]

SENTENCES: dict[type[DeliveryError], str] = {
    DnsError: "the host name could not be resolved",
    ConnectTimeoutError: "no answer within the timeout",
    ConnectionRefusedByHostError: "the host refuses connections on this port",
    TransferInterruptedError: "the connection was cut",
    DestinationBusyError: "the server asks to come back later",
    HostKeyError: "the server could not prove who it is",
    AuthenticationError: "the server refused the credentials",
    ExpiredCredentialsError: "the credentials have expired",
    AccessDeniedError: "no permission",
    NoSuchPathError: "the directory or bucket does not exist",
    NoSuchBucketError: "the bucket or container does not exist",
    QuotaError: "no room left",
    RegionError: "the bucket is in another region",
    NameConflictError: "something else stands under this name",
    MessageRefusedError: "the mail server refused the message",
    RejectedPolicyError: "the mail server refused the message by its policy",
    TooLargeError: "too large for this destination",
    TransientDeliveryError: "the server answered with a failure that it did not explain",
    PermanentDeliveryError: "this cannot work as it is set up",
}
"""What happened, for every class that a foreign exception can become."""

PERMANENT_FROM = 500
"""Replies of SMTP and FTP from this number on say that the same would be refused again."""


@contextmanager
def translated(where: str, classify: Classifier) -> Iterator[None]:
    """Turn what `classify` knows into `DeliveryError`s that name `where`."""
    try:
        yield
    except LeadferryError:
        raise
    except Exception as error:
        fault = classify(error)
        if fault is None:
            raise
        raise raised(fault, where=where) from None


def raised(fault: Fault, *, where: str) -> DeliveryError:
    """Write the exception for a fault: where, what, the number behind it, what to do next."""
    detail = f" ({fault.detail})" if fault.detail else ""
    return fault.kind(f"{where}: {SENTENCES[fault.kind]}{detail}", hint=fault.hint)


def timed_out(error: BaseException | None) -> bool:
    """Tell whether a wait that was too long is behind an exception; libraries often reword it."""
    while error is not None:
        if isinstance(error, TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


def kind_by_name(error: Exception, table: dict[str, type[DeliveryError]]) -> type[DeliveryError]:
    """Return what the table says of the exception's class, or of its nearest ancestor that is in the table."""
    return next(table[ancestor.__name__] for ancestor in type(error).__mro__ if ancestor.__name__ in table)


def kind_by_words(
    text: str, table: tuple[tuple[str, type[DeliveryError]], ...]
) -> type[DeliveryError] | None:
    """Return what the first entry says whose words, lower case, are in the text; None if there is none."""
    lower = text.lower()
    return next((kind for words, kind in table if words in lower), None)
