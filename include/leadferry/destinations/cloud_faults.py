"""What the exceptions of Google's and Microsoft's libraries mean; see `leadferry.destinations.faults`."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from typing import Any

from leadferry.destinations.faults import Fault, of_code, of_connect, of_files, translated
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
    NoSuchPathError,
    PermanentDeliveryError,
    QuotaError,
    RegionError,
    TooLargeError,
    TransferInterruptedError,
    TransientDeliveryError,
)


def google(where: str) -> AbstractContextManager[None]:
    """Turn what Google's libraries raise into `DeliveryError`s that name `where`."""
    return translated(where, of_google)


def azure(where: str) -> AbstractContextManager[None]:
    """Turn what Microsoft's libraries raise into `DeliveryError`s that name `where`."""
    return translated(where, of_azure)


# --- Google Cloud Storage ------------------------------------------------------------------------------------------

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


# --- Azure Blob Storage --------------------------------------------------------------------------------------------

AZURE_CODES: dict[str, type[DeliveryError]] = {
    "AuthenticationFailed": AuthenticationError,
    "InvalidAuthenticationInfo": AuthenticationError,
    "NoAuthenticationInformation": AuthenticationError,
    "AuthorizationFailure": AccessDeniedError,
    "AuthorizationPermissionMismatch": AccessDeniedError,
    "AuthorizationProtocolMismatch": AccessDeniedError,
    "AuthorizationResourceTypeMismatch": AccessDeniedError,
    "AuthorizationServiceMismatch": AccessDeniedError,
    "AuthorizationSourceIPMismatch": AccessDeniedError,
    "InsufficientAccountPermissions": AccessDeniedError,
    "UnauthorizedBlobOverwrite": AccessDeniedError,
    "AccountIsDisabled": AccessDeniedError,
    "KeyBasedAuthenticationNotPermitted": AccessDeniedError,
    "PublicAccessNotPermitted": AccessDeniedError,
    "ContainerNotFound": NoSuchBucketError,
    "ContainerDisabled": NoSuchBucketError,
    "InvalidResourceName": NoSuchBucketError,
    "InvalidUri": NoSuchPathError,
    "ContainerBeingDeleted": DestinationBusyError,
    "BlobAlreadyExists": NameConflictError,
    "ConditionNotMet": NameConflictError,
    "TargetConditionNotMet": NameConflictError,
    "InvalidBlobType": NameConflictError,
    "BlobImmutableDueToPolicy": NameConflictError,
    "BlobImmutableDueToLegalHold": NameConflictError,
    "LeaseIdMissing": DestinationBusyError,
    "BlobBeingRehydrated": DestinationBusyError,
    "ServerBusy": DestinationBusyError,
    "InternalError": DestinationBusyError,
    "OperationTimedOut": TransferInterruptedError,
    "Md5Mismatch": TransferInterruptedError,
    "Crc64Mismatch": TransferInterruptedError,
    "InvalidBlockList": TransferInterruptedError,
    "RequestBodyTooLarge": TooLargeError,
    "BlockCountExceedsLimit": TooLargeError,
    "ContentLengthLargerThanTierLimit": TooLargeError,
    "MetadataTooLarge": PermanentDeliveryError,
    "FeatureVersionMismatch": PermanentDeliveryError,
    "BlobArchived": PermanentDeliveryError,
}
"""Error codes of Azure Blob Storage; others are decided by the HTTP status."""

_LOGIN_EXPIRED = ("aadsts7000222", "aadsts700082", "aadsts50173", "expired")
"""What Entra ID says, in lower case, when a client secret or a token was good once."""


def of_azure(error: Exception) -> Fault | None:
    """Classify what azure-storage-blob and azure-identity raise; None if it is something else."""
    from azure.core import exceptions as azure

    match error:
        case azure.IncompleteReadError():
            return Fault(TransferInterruptedError)
        case azure.HttpResponseError():
            return _of_azure_answer(error)
        case azure.ServiceRequestTimeoutError() | azure.ServiceResponseTimeoutError():
            return Fault(ConnectTimeoutError)
        case azure.ServiceRequestError() | azure.ServiceResponseError():
            # The library hands on what requests or the system said as `inner_exception`.
            return of_connect(error.inner_exception) or Fault(TransferInterruptedError)
        case azure.AzureError():
            return Fault(PermanentDeliveryError, type(error).__name__)
        case _:
            return of_files(error)


def _of_azure_answer(error: Exception) -> Fault:
    from azure.core.exceptions import ClientAuthenticationError

    code, status = getattr(error, "error_code", None), getattr(error, "status_code", None)
    code = str(getattr(code, "value", code) or "")
    text = str(error).lower()
    if code == "AuthenticationFailed" and "not valid in the specified time frame" in text:
        return Fault(ExpiredCredentialsError, code)
    if code == "AuthorizationFailure" and "failed to authenticate" in text:
        # Azurite's word for a wrong key, and older versions' of Azure.
        return Fault(AuthenticationError, code)
    if status == HTTPStatus.BAD_REQUEST and "contentmd5" in text:
        # Azurite's way to say Md5Mismatch.
        return Fault(TransferInterruptedError, "MD5")
    if status is None and isinstance(error, ClientAuthenticationError):
        expired = any(word in text for word in _LOGIN_EXPIRED)
        return Fault(ExpiredCredentialsError if expired else AuthenticationError, "login")
    return of_code(code, int(status or 0), known=AZURE_CODES)
