"""What Microsoft's libraries raise, and what the error codes of Azure Blob Storage mean."""

from __future__ import annotations

from contextlib import AbstractContextManager
from http import HTTPStatus

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
    NameConflictError,
    NoSuchBucketError,
    NoSuchPathError,
    PermanentDeliveryError,
    TooLargeError,
    TransferInterruptedError,
)


def azure_faults(where: str) -> AbstractContextManager[None]:
    """Turn what Microsoft's libraries raise into `DeliveryError`s that name `where`."""
    return translated(where, of_azure)


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
