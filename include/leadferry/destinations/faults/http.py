"""What httpx raises, and what the statuses of a buyer's API mean."""

from __future__ import annotations

import ssl
from contextlib import AbstractContextManager
from http import HTTPStatus

from leadferry.destinations.faults import Fault, kind_by_name, translated
from leadferry.destinations.faults.system import of_files
from leadferry.errors import (
    AuthenticationError,
    ConnectionRefusedByHostError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    NoSuchPathError,
    PermanentDeliveryError,
    QuotaError,
    TooLargeError,
    TransferInterruptedError,
)


def http_faults(where: str) -> AbstractContextManager[None]:
    """Turn what httpx raises into `DeliveryError`s that name `where`."""
    return translated(where, of_http)


_HTTPX: dict[str, type[DeliveryError]] = {
    "ConnectTimeout": ConnectTimeoutError,
    "ReadTimeout": ConnectTimeoutError,
    "WriteTimeout": ConnectTimeoutError,
    "PoolTimeout": DestinationBusyError,
    "ProxyError": ConnectionRefusedByHostError,
    "UnsupportedProtocol": PermanentDeliveryError,
    "LocalProtocolError": PermanentDeliveryError,
    "InvalidURL": PermanentDeliveryError,
    "TooManyRedirects": PermanentDeliveryError,
    "TransportError": TransferInterruptedError,
    "RequestError": TransferInterruptedError,
}
"""Class names of httpx, by the nearest ancestor; what the operating system said behind them is looked at first."""


def of_http(error: Exception) -> Fault | None:
    """Classify what httpx raises when no answer comes; None if it is something else."""
    import httpx

    if isinstance(error, httpx.RequestError | httpx.InvalidURL):
        behind = None if isinstance(error, httpx.TimeoutException) else _system_error(error)
        if behind is not None and (fault := of_files(behind)) is not None:
            return fault
        return Fault(kind_by_name(error, _HTTPX), type(error).__name__)
    return of_files(error)


def _system_error(error: BaseException | None) -> OSError | None:
    """Return what the operating system or TLS said; httpx and httpcore wrap it twice."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno is not None or isinstance(error, ssl.SSLError)):
            return error
        error = error.__cause__ or error.__context__
    return None


HTTP_STATUS: dict[int, type[DeliveryError]] = {
    HTTPStatus.UNAUTHORIZED: AuthenticationError,
    HTTPStatus.FORBIDDEN: AuthenticationError,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: AuthenticationError,
    HTTPStatus.NOT_FOUND: NoSuchPathError,
    HTTPStatus.GONE: NoSuchPathError,
    HTTPStatus.METHOD_NOT_ALLOWED: PermanentDeliveryError,
    HTTPStatus.NOT_ACCEPTABLE: PermanentDeliveryError,
    HTTPStatus.LENGTH_REQUIRED: PermanentDeliveryError,
    HTTPStatus.PRECONDITION_FAILED: PermanentDeliveryError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLargeError,
    HTTPStatus.REQUEST_URI_TOO_LONG: TooLargeError,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: TooLargeError,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: PermanentDeliveryError,
    HTTPStatus.EXPECTATION_FAILED: PermanentDeliveryError,
    HTTPStatus.MISDIRECTED_REQUEST: PermanentDeliveryError,
    HTTPStatus.UPGRADE_REQUIRED: PermanentDeliveryError,
    HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS: PermanentDeliveryError,
    HTTPStatus.NOT_IMPLEMENTED: PermanentDeliveryError,
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: PermanentDeliveryError,
    HTTPStatus.INSUFFICIENT_STORAGE: QuotaError,
    HTTPStatus.REQUEST_TIMEOUT: DestinationBusyError,
    HTTPStatus.TOO_EARLY: DestinationBusyError,
    HTTPStatus.TOO_MANY_REQUESTS: DestinationBusyError,
    HTTPStatus.SERVICE_UNAVAILABLE: DestinationBusyError,
}
"""Statuses by which an API says that it did not take a request, whatever stands in its body."""
