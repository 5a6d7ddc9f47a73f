"""What object stores answer over HTTP, and what is behind a request that got no answer, whoever's library asked."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from http import HTTPStatus

from leadferry.destinations.faults import Fault
from leadferry.destinations.faults.system import of_errno, of_tls
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    DeliveryError,
    DestinationBusyError,
    DnsError,
    NameConflictError,
    NoSuchPathError,
    PermanentDeliveryError,
    QuotaError,
    TooLargeError,
    TransferInterruptedError,
)

_HTTP: dict[int, type[DeliveryError]] = {
    HTTPStatus.UNAUTHORIZED: AuthenticationError,
    HTTPStatus.FORBIDDEN: AccessDeniedError,
    HTTPStatus.NOT_FOUND: NoSuchPathError,
    HTTPStatus.REQUEST_TIMEOUT: TransferInterruptedError,
    HTTPStatus.CONFLICT: DestinationBusyError,
    HTTPStatus.PRECONDITION_FAILED: NameConflictError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLargeError,
    HTTPStatus.TOO_MANY_REQUESTS: DestinationBusyError,
    HTTPStatus.INSUFFICIENT_STORAGE: QuotaError,
}


def of_code(code: str, status: int, *, known: Mapping[str, type[DeliveryError]]) -> Fault:
    """Classify the answer of a service that names its errors; what is not named is decided by the HTTP status."""
    if code in known:
        return Fault(known[code], code)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _HTTP:
        return Fault(DestinationBusyError, f"HTTP {status}")
    # A code that is not in the table might be anything; the status is a number.
    return Fault(_HTTP.get(status, PermanentDeliveryError), f"HTTP {status}")


def of_connect(error: BaseException | None) -> Fault | None:
    """Look for what the system said behind the words of libraries that speak HTTP; None if it said nothing."""
    while error is not None:
        if type(error).__name__ == "NameResolutionError" or isinstance(error, socket.gaierror):
            return Fault(DnsError)
        if isinstance(error, ssl.SSLError):
            return of_tls(error)
        if isinstance(error, OSError) and error.errno is not None:
            return of_errno(error)
        error = _behind(error)
    return None


def _behind(error: BaseException) -> BaseException | None:
    """Return the reason for an error: urllib3 and requests keep it in an attribute or among the arguments."""
    kept = (getattr(error, "reason", None), error.__cause__, error.__context__, *error.args)
    return next((one for one in kept if isinstance(one, BaseException)), None)
