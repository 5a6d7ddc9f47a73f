"""What Google's libraries raise, and what the answers of Google Cloud Storage mean."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from typing import Any

from leadferry.destinations.faults import Fault, translated
from leadferry.destinations.faults.answers import of_code, of_connect
from leadferry.destinations.faults.system import of_files
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    ExpiredCredentialsError,
    HostKeyError,
    NameConflictError,
    NoSuchBucketError,
    PermanentDeliveryError,
    QuotaError,
    RegionError,
    TooLargeError,
    TransferInterruptedError,
    TransientDeliveryError,
)


def google_faults(where: str) -> AbstractContextManager[None]:
    """Turn what Google's libraries raise into `DeliveryError`s that name `where`."""
    return translated(where, of_google)


GCS_REASONS: dict[str, type[DeliveryError]] = {
    "notFound": NoSuchBucketError,
    "authError": AuthenticationError,
    "required": AuthenticationError,
    "expired": ExpiredCredentialsError,
    "forbidden": AccessDeniedError,
    "insufficientPermissions": AccessDeniedError,
    "accountDisabled": AccessDeniedError,
    "userProjectAccountProblem": AccessDeniedError,
    "userProjectMissing": AccessDeniedError,
    "accessNotConfigured": PermanentDeliveryError,
    "conditionNotMet": NameConflictError,
    "retentionPolicyNotMet": NameConflictError,
    "objectUnderActiveHold": NameConflictError,
    "quotaExceeded": QuotaError,
    "dailyLimitExceeded": QuotaError,
    "rateLimitExceeded": DestinationBusyError,
    "userRateLimitExceeded": DestinationBusyError,
    "backendError": DestinationBusyError,
    "internalError": DestinationBusyError,
    "uploadTooLarge": TooLargeError,
    "uploadBrokenConnection": TransferInterruptedError,
    "badGateway": DestinationBusyError,
}
"""Reasons in the answers of Google Cloud Storage; others are decided by the HTTP status."""


def of_google(error: Exception) -> Fault | None:
    """Classify what google-cloud-storage, google-auth and requests raise; None if it is something else."""
    import requests
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    match error:
        case GoogleAPICallError():
            return _of_gcs(error)
        case InvalidResponse():
            return of_code("", int(error.response.status_code), known=GCS_REASONS)
        case DataCorruption():
            return Fault(TransferInterruptedError, "CRC32C")
        case GoogleAuthError():
            return _of_google_auth(error)
        case requests.RequestException():
            return _of_requests(error)
        case _:
            return of_files(error)


def _of_gcs(error: Exception) -> Fault:
    status, text = int(getattr(error, "code", None) or 0), str(error)
    if status == HTTPStatus.BAD_REQUEST and "doesn't match calculated" in text:
        return Fault(TransferInterruptedError, "CRC32C")
    if "constraints/gcp.resourceLocations" in text:
        return Fault(RegionError, "gcp.resourceLocations")
    # Only an upload has nothing but the bucket to miss; look-ups take a missing object for an answer.
    fallback = "notFound" if status == HTTPStatus.NOT_FOUND else ""
    return of_code(_reason(error) or fallback, status, known=GCS_REASONS)


def _reason(error: Any) -> str:
    """Return Google's word for what went wrong; the library reads it out of the answer only where nothing is uploaded."""
    told = [*(getattr(error, "errors", None) or ())]
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        told += error.response.json()["error"]["errors"]
    return next((str(one["reason"]) for one in told if isinstance(one, dict) and "reason" in one), "")


def _of_google_auth(error: Exception) -> Fault:
    from google.auth import exceptions as auth

    if isinstance(error, auth.TransportError | auth.TimeoutError):
        cause = error.__cause__ or error.__context__ or next(iter(error.args), None)
        return (of_google(cause) if isinstance(cause, Exception) and cause is not error else None) or Fault(
            ConnectTimeoutError
        )
    if isinstance(error, auth.RefreshError):
        if getattr(error, "retryable", False):
            return Fault(DestinationBusyError, "token")
        expired = any(word in str(error).lower() for word in ("expired", "revoked", "reauth"))
        return Fault(ExpiredCredentialsError if expired else AuthenticationError, "token")
    return Fault(AuthenticationError, type(error).__name__)


def _of_requests(error: Exception) -> Fault:
    import requests

    match error:
        case requests.Timeout():
            return Fault(ConnectTimeoutError)
        case requests.exceptions.SSLError():
            return of_connect(error) or Fault(HostKeyError, "certificate")
        case requests.ConnectionError() | requests.exceptions.ChunkedEncodingError():
            return of_connect(error) or Fault(TransferInterruptedError)
        case requests.exceptions.InvalidURL() | requests.exceptions.InvalidSchema():
            return Fault(PermanentDeliveryError, type(error).__name__)
        case _:
            return Fault(TransientDeliveryError, type(error).__name__)
