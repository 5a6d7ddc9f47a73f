"""What botocore and the AWS hook raise, and what the error codes of S3 mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from leadferry.destinations.faults import Fault, kind_by_name, translated
from leadferry.destinations.faults.answers import of_code, of_connect
from leadferry.destinations.faults.system import of_files
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectionRefusedByHostError,
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
)


def aws_faults(where: str) -> AbstractContextManager[None]:
    """Turn what botocore and the AWS hook raise into `DeliveryError`s that name `where`."""
    return translated(where, of_aws)


_S3_CODES: dict[str, type[DeliveryError]] = {
    "NoSuchBucket": NoSuchBucketError,
    "NoSuchKey": NoSuchPathError,
    "NoSuchUpload": TransferInterruptedError,
    "InvalidBucketName": NoSuchBucketError,
    "PermanentRedirect": RegionError,
    "TemporaryRedirect": DestinationBusyError,
    "AuthorizationHeaderMalformed": AuthenticationError,
    "IllegalLocationConstraintException": RegionError,
    "AccessDenied": AccessDeniedError,
    "AllAccessDisabled": AccessDeniedError,
    "AccountProblem": AccessDeniedError,
    "MethodNotAllowed": AccessDeniedError,
    "AccessControlListNotSupported": PermanentDeliveryError,
    "InvalidStorageClass": PermanentDeliveryError,
    "InvalidTag": PermanentDeliveryError,
    "KMS.DisabledException": PermanentDeliveryError,
    "KMS.NotFoundException": PermanentDeliveryError,
    "KMS.KMSInvalidStateException": PermanentDeliveryError,
    "InvalidAccessKeyId": AuthenticationError,
    "SignatureDoesNotMatch": AuthenticationError,
    "ExpiredToken": ExpiredCredentialsError,
    "ExpiredTokenException": ExpiredCredentialsError,
    "TokenRefreshRequired": ExpiredCredentialsError,
    "RequestExpired": ExpiredCredentialsError,
    "InvalidToken": AuthenticationError,
    "InvalidClientTokenId": AuthenticationError,
    "AuthFailure": AuthenticationError,
    "RequestTimeTooSkewed": AuthenticationError,
    "EntityTooLarge": TooLargeError,
    "MaxMessageLengthExceeded": TooLargeError,
    "QuotaExceeded": QuotaError,
    "StorageQuotaExceeded": QuotaError,
    "XMinioAdminBucketQuotaExceeded": QuotaError,
    "XMinioStorageFull": QuotaError,
    "PreconditionFailed": NameConflictError,
    "ConditionalRequestConflict": DestinationBusyError,
    "OperationAborted": DestinationBusyError,
    "SlowDown": DestinationBusyError,
    "Throttling": DestinationBusyError,
    "ThrottlingException": DestinationBusyError,
    "RequestLimitExceeded": DestinationBusyError,
    "ServiceUnavailable": DestinationBusyError,
    "InternalError": DestinationBusyError,
    "RequestTimeout": TransferInterruptedError,
    "IncompleteBody": TransferInterruptedError,
    "BadDigest": TransferInterruptedError,
    "XAmzContentSHA256Mismatch": TransferInterruptedError,
}
"""Error codes of S3 and of stores that speak its protocol; others are decided by the HTTP status."""


def of_aws(error: Exception) -> Fault | None:
    """Classify what botocore and the AWS hook raise; None if it is something else."""
    from botocore import exceptions as boto

    match error:
        case boto.ClientError():
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = str(error.response.get("Error", {}).get("Code", ""))
            fault = of_code(code, status, known=_S3_CODES)
            return _with_region(fault, error.response)
        case boto.BotoCoreError():
            return _of_botocore(error)
        case _:
            return of_files(error)


def _with_region(fault: Fault, answer: Mapping[str, Any]) -> Fault:
    """Name the region that the store says it expects, if that is a region's name."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    expected = answer.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region") or ""
    if fault.detail not in _OF_REGIONS or not re.fullmatch(r"[a-z]{2,}(?:-[a-z]+)+-\d+", expected):
        return fault
    return Fault(RegionError, f"{fault.detail}, expected {expected}")


_OF_REGIONS = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
"""Codes that come with the bucket's region when only that is wrong."""

_BOTOCORE: dict[str, type[DeliveryError]] = {
    "ConnectTimeoutError": ConnectTimeoutError,
    "ReadTimeoutError": ConnectTimeoutError,
    "SSLError": HostKeyError,
    "HTTPClientError": TransferInterruptedError,
    "ConnectionError": TransferInterruptedError,
    "IncompleteReadError": TransferInterruptedError,
    "NoCredentialsError": AuthenticationError,
    "PartialCredentialsError": AuthenticationError,
    "CredentialRetrievalError": AuthenticationError,
    "TokenRetrievalError": AuthenticationError,
    "SSOError": AuthenticationError,
    "UnauthorizedSSOTokenError": ExpiredCredentialsError,
    "InvalidRegionError": RegionError,
    "CapacityNotAvailableError": DestinationBusyError,
    "BotoCoreError": PermanentDeliveryError,
}
"""Class names of botocore, by the nearest ancestor: what went wrong on this side of the wire."""


def _of_botocore(error: Exception) -> Fault:
    from botocore import exceptions as boto

    if isinstance(error, boto.EndpointConnectionError | boto.ProxyConnectionError):
        return _of_endpoint(error)
    return Fault(kind_by_name(error, _BOTOCORE), type(error).__name__)


def _of_endpoint(error: Exception) -> Fault:
    """Look behind botocore's one word for every failed connect: urllib3 kept the reason."""
    return of_connect(getattr(error, "kwargs", {}).get("error")) or Fault(ConnectionRefusedByHostError)
