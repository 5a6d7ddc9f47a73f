"""What foreign exceptions mean: one table per protocol family, one context manager around each use.

The class decides whether a failure is tried again, so it is decided here and nowhere else.
Foreign texts are read to classify, never quoted: a server may repeat what it was sent.
What is quoted are names and numbers that hold no data: an errno, an SMTP code, an S3 error code.
"""

from __future__ import annotations

import errno
import ftplib
import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

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

_BY_CLASS: dict[type[DeliveryError], tuple[int, ...]] = {
    ConnectTimeoutError: (
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
    ),
    ConnectionRefusedByHostError: (errno.ECONNREFUSED,),
    TransferInterruptedError: (
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ENETRESET,
        errno.EIO,
        errno.ESTALE,
        errno.EINTR,
        errno.EBADF,
    ),
    DestinationBusyError: (
        errno.EBUSY,
        errno.EAGAIN,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.ETXTBSY,
        errno.EADDRNOTAVAIL,
    ),
    AccessDeniedError: (errno.EACCES, errno.EPERM, errno.EROFS),
    NoSuchPathError: (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.ENODEV,
        errno.ENXIO,
    ),
    QuotaError: (errno.ENOSPC, errno.EDQUOT),
    NameConflictError: (errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY),
    TooLargeError: (errno.EFBIG,),
    PermanentDeliveryError: (
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EXDEV,
    ),
}

ERRNOS: dict[int, type[DeliveryError]] = {
    number: kind for kind, numbers in _BY_CLASS.items() for number in numbers
}
"""What an operating system's error number means at a destination; a number that is missing is tried again."""


def files(where: str) -> AbstractContextManager[None]:
    """Turn what a folder raises into `DeliveryError`s that name `where`."""
    return translated(where, of_files)


def ssh(where: str) -> AbstractContextManager[None]:
    """Turn what paramiko and the SSH hook raise into `DeliveryError`s that name `where`."""
    return translated(where, of_ssh)


def smtp(where: str) -> AbstractContextManager[None]:
    """Turn what smtplib and the SMTP hook raise into `DeliveryError`s that name `where`."""
    return translated(where, of_smtp)


def ftp(where: str, *, unexplained: type[DeliveryError] = AccessDeniedError) -> AbstractContextManager[None]:
    """Turn what ftplib and the FTP hook raise into `DeliveryError`s that name `where`.

    Args:
        where: for the reader of the message.
        unexplained: what a refusal means here when the server gives no reason, as many do.
    """
    return translated(where, lambda error: of_ftp(error, unexplained=unexplained))


def aws(where: str) -> AbstractContextManager[None]:
    """Turn what botocore and the AWS hook raise into `DeliveryError`s that name `where`."""
    return translated(where, of_aws)


def http(where: str) -> AbstractContextManager[None]:
    """Turn what httpx raises into `DeliveryError`s that name `where`."""
    return translated(where, of_http)


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


def of_files(error: Exception) -> Fault | None:
    """Classify what the operating system says about files and sockets; None if it is something else."""
    match error:
        case socket.gaierror():
            return Fault(DnsError)
        case ssl.SSLError():
            return _of_tls(error)
        case TimeoutError():
            return Fault(ConnectTimeoutError)
        case EOFError():
            return Fault(TransferInterruptedError)
        case OSError():
            return _of_errno(error)
        case _:
            return _of_airflow(error)


def _of_errno(error: OSError) -> Fault:
    if error.errno is None:
        return Fault(TransientDeliveryError)
    kind = ERRNOS.get(error.errno, TransientDeliveryError)
    return Fault(kind, errno.errorcode.get(error.errno, str(error.errno)))


def _of_tls(error: ssl.SSLError) -> Fault:
    match error:
        case ssl.SSLCertVerificationError():
            return Fault(HostKeyError, "certificate")
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            return Fault(TransferInterruptedError, "TLS")
        case _:
            # Mostly TLS spoken to a port that does not, or no common version.
            return Fault(PermanentDeliveryError, getattr(error, "reason", None) or "TLS")


def _of_airflow(error: Exception) -> Fault | None:
    """Classify what the hooks raise before anything is sent: the connection is missing or makes no sense."""
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException

    match error:
        case AirflowNotFoundException():
            return Fault(PermanentDeliveryError, "Airflow does not know this connection")
        case AirflowException() if str(error) == "SMTP connection is not found.":
            return Fault(PermanentDeliveryError, "Airflow does not know this connection")
        case AirflowException() if str(error) == "Unable to connect to smtp server":
            silent = _timed_out(error)
            return Fault(ConnectTimeoutError if silent else DestinationBusyError, "no greeting")
        case AirflowException() | ValueError():
            return Fault(PermanentDeliveryError, "the Airflow connection's fields cannot be used")
        case _:
            return None


def _timed_out(error: BaseException | None) -> bool:
    """Tell whether a wait that was too long is behind an exception; libraries often reword it."""
    while error is not None:
        if isinstance(error, TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


# --- SSH and SFTP --------------------------------------------------------------------------------------------------

_SSH_TEXTS: tuple[tuple[str, type[DeliveryError]], ...] = (
    ("not found in known_hosts", HostKeyError),
    ("authentication timeout", ConnectTimeoutError),
    ("authentication failed: transport shut down", TransferInterruptedError),
    ("timeout opening channel", ConnectTimeoutError),
    ("no existing session", ConnectTimeoutError),
    ("no authentication methods available", AuthenticationError),
    ("private key", AuthenticationError),
    ("passphrase", AuthenticationError),
)
"""What paramiko says only in words, lower case; the words are paramiko's own, not the server's."""

_SSH_HOOK_TEXTS: tuple[tuple[str, type[DeliveryError]], ...] = (
    ("private key provided cannot be read by paramiko", AuthenticationError),
    ("key must have begin and end header", AuthenticationError),
)
"""What the SSH hook says about the connection's `private_key`."""

_SFTP_TEXTS: tuple[tuple[str, type[DeliveryError]], ...] = (
    ("socket is closed", TransferInterruptedError),
    ("no space", QuotaError),
    ("disk full", QuotaError),
    ("quota", QuotaError),
    ("permission denied", AccessDeniedError),
    ("no such file", NoSuchPathError),
    ("no such path", NoSuchPathError),
    ("already exists", NameConflictError),
    ("too large", TooLargeError),
    ("unsupported", PermanentDeliveryError),
    ("read-only", AccessDeniedError),
)
"""SFTP version 3, which nearly all servers speak, has one number for all of these: the words decide."""


def of_ssh(error: Exception) -> Fault | None:
    """Classify what paramiko and the SSH hook raise; None if it is something else."""
    import paramiko

    if by_words := _by_words(str(error), _SSH_HOOK_TEXTS):
        return Fault(by_words, "the private key cannot be read with this passphrase")
    match error:
        case paramiko.ssh_exception.NoValidConnectionsError():
            return _of_attempts(list(error.errors.values()))
        case paramiko.SSHException():
            return _of_paramiko(error)
        case paramiko.SFTPError():
            return Fault(TransferInterruptedError, "SFTP answers out of order")
        case OSError(errno=None) if not isinstance(error, TimeoutError | ssl.SSLError):
            return Fault(_by_words(str(error), _SFTP_TEXTS) or TransientDeliveryError)
        case _:
            return of_files(error)


def _of_attempts(errors: list[Exception]) -> Fault:
    """Classify a host with several addresses, none of which answered: a refusal says most."""
    faults = [fault for one in errors if (fault := of_files(one)) is not None]
    refused = [fault for fault in faults if fault.kind is ConnectionRefusedByHostError]
    return (refused or faults or [Fault(ConnectTimeoutError)])[0]


_PARAMIKO: dict[str, type[DeliveryError]] = {
    "BadHostKeyException": HostKeyError,
    "MessageOrderError": HostKeyError,
    "IncompatiblePeer": PermanentDeliveryError,
    "ConfigParseError": PermanentDeliveryError,
    "ProxyCommandFailure": PermanentDeliveryError,
    "CouldNotCanonicalize": DnsError,
    "AuthenticationException": AuthenticationError,
    "SSHException": TransferInterruptedError,
}
"""Class names of paramiko, by the nearest ancestor; words are looked at first."""


def _of_paramiko(error: Exception) -> Fault:
    import paramiko

    if isinstance(error, paramiko.ChannelException):
        return Fault(_CHANNEL.get(error.code, PermanentDeliveryError), f"channel refused, code {error.code}")
    if "protocol banner" in str(error):
        return _of_banner(error)
    by_words = _by_words(str(error), _SSH_TEXTS)
    return Fault(by_words or _by_name(error, _PARAMIKO), type(error).__name__)


def _by_name(error: Exception, table: dict[str, type[DeliveryError]]) -> type[DeliveryError]:
    return next(table[ancestor.__name__] for ancestor in type(error).__mro__ if ancestor.__name__ in table)


_CHANNEL: dict[int, type[DeliveryError]] = {1: AccessDeniedError, 4: DestinationBusyError}
"""Reasons for which a server refuses a channel: RFC 4254, 5.1."""


def _of_banner(error: Exception) -> Fault:
    """Tell a server that stays silent from one that hangs up at once, as OpenSSH does above MaxStartups."""
    if _timed_out(error):
        return Fault(ConnectTimeoutError, "no SSH greeting")
    return Fault(DestinationBusyError, "hung up before the SSH greeting")


def _by_words(text: str, table: tuple[tuple[str, type[DeliveryError]], ...]) -> type[DeliveryError] | None:
    lower = text.lower()
    return next((kind for words, kind in table if words in lower), None)


# --- SMTP ----------------------------------------------------------------------------------------------------------

_SMTP_CODES: dict[int, type[DeliveryError]] = {
    421: DestinationBusyError,
    432: AuthenticationError,
    454: DestinationBusyError,
    530: AuthenticationError,
    534: AuthenticationError,
    535: AuthenticationError,
    538: AuthenticationError,
    552: TooLargeError,
    523: TooLargeError,
}
"""Replies that mean more than their first digit: RFC 5321 4.2.3, RFC 4954 6, RFC 1870."""

_PERMANENT_FROM = 500


def of_smtp(error: Exception) -> Fault | None:
    """Classify what smtplib and the SMTP hook raise; None if it is something else."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            return of_reply(*min(error.recipients.values(), key=lambda reply: reply[0]))
        case smtplib.SMTPResponseException():
            return of_reply(error.smtp_code, getattr(error, "smtp_error", b""))
        case smtplib.SMTPException():
            return _of_smtplib(error)
        case _:
            return of_files(error)


_SMTP_TEXTS: tuple[tuple[str, type[DeliveryError]], ...] = (
    ("starttls", HostKeyError),
    ("auth", AuthenticationError),
    ("smtputf8", MessageRefusedError),
)
"""What smtplib says only in words: what the server does not offer, or that there is no common way to log in."""


def _of_smtplib(error: smtplib.SMTPException) -> Fault:
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return Fault(ConnectTimeoutError if _timed_out(error) else TransferInterruptedError)
    return Fault(_by_words(str(error), _SMTP_TEXTS) or TransientDeliveryError, type(error).__name__)


_SMTP_STATUS: dict[tuple[int, int], type[DeliveryError]] = {
    (2, 2): QuotaError,  # mailbox full
    (2, 3): TooLargeError,
    (3, 1): QuotaError,  # mail system full
    (3, 4): TooLargeError,
    (7, 8): AuthenticationError,
    (7, 9): AuthenticationError,
    (7, 11): AuthenticationError,
    (7, 13): AuthenticationError,
    (7, 14): AuthenticationError,
}
"""Subject and detail of enhanced status codes (RFC 3463, IANA's registry) that are more than a refused message."""

_POLICY = 7
"""The subject of all that is refused for security or policy."""


def of_reply(code: int, text: bytes | str = b"") -> Fault:
    """Classify an SMTP reply of 400 or more by its code and, where it has one, its enhanced status code."""
    status = _enhanced(text)
    if code <= 0:
        return Fault(TransferInterruptedError)  # no reply at all
    detail = f"SMTP {code}" + (f" {code // 100}.{status[0]}.{status[1]}" if status else "")
    kind = _SMTP_CODES.get(code)
    if status is not None and code >= _PERMANENT_FROM and kind is not AuthenticationError:
        # 552 is said for full mailboxes and forbidden attachments as well; the enhanced code is more precise.
        by_subject = RejectedPolicyError if status[0] == _POLICY else MessageRefusedError
        return Fault(_SMTP_STATUS.get(status, by_subject), detail)
    # 450, 451, 452 and their kin: greylisting, a full queue, too many recipients at once.
    passing = DestinationBusyError if code < _PERMANENT_FROM else MessageRefusedError
    return Fault(kind or passing, detail)


def _enhanced(text: bytes | str) -> tuple[int, int] | None:
    """Return subject and detail of the enhanced status code that a reply's text begins with."""
    told = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    found = re.match(r"\s*[245]\.(\d{1,3})\.(\d{1,3})\b", told)
    return (int(found[1]), int(found[2])) if found else None


# --- FTP -----------------------------------------------------------------------------------------------------------

_FTP_CODES: dict[int, type[DeliveryError]] = {
    332: AuthenticationError,
    421: DestinationBusyError,
    425: TransferInterruptedError,
    426: TransferInterruptedError,
    430: AuthenticationError,
    434: DestinationBusyError,
    450: DestinationBusyError,
    452: QuotaError,
    530: AuthenticationError,
    532: AccessDeniedError,
    552: QuotaError,
}
"""Replies that mean the same whatever words follow: RFC 959 4.2, RFC 2228."""

_FTP_HINTS: dict[int, str] = {
    451: "The server could not store it, often because its disk is full; ask the recipient if this repeats",
    425: "The data connection failed: let a firewall pass the server's range of passive ports, or set `passive: false`",
    522: "The server does not accept this protection of the data connection; ask the recipient which TLS it wants",
    534: "The server does not accept this protection; ask the recipient whether `security` must be another",
}
_FTP_HINTS[521] = _FTP_HINTS[533] = _FTP_HINTS[536] = _FTP_HINTS[534]

_FTP_TEXTS: tuple[tuple[str, type[DeliveryError]], ...] = (
    ("too many", DestinationBusyError),
    ("maximum", DestinationBusyError),
    ("quota", QuotaError),
    ("no space", QuotaError),
    ("disk full", QuotaError),
    ("not enough space", QuotaError),
    ("insufficient", QuotaError),
    ("too large", TooLargeError),
    ("already exist", NameConflictError),
    ("file exists", NameConflictError),
    ("is a directory", NameConflictError),
    ("permission", AccessDeniedError),
    ("denied", AccessDeniedError),
    ("privilege", AccessDeniedError),
    ("not allowed", AccessDeniedError),
    ("forbidden", AccessDeniedError),
    ("read-only", AccessDeniedError),
    ("no such", NoSuchPathError),
    ("not found", NoSuchPathError),
    ("cannot find", NoSuchPathError),
    ("does not exist", NoSuchPathError),
    ("doesn't exist", NoSuchPathError),
    ("not a directory", NoSuchPathError),
)
"""Words of servers, lower case: 450, 451, 530, 550 and 553 stand for nearly anything."""

_FTP_VAGUE = {450, 451, 530, 550, 551, 553}
"""Replies of which the words say more than the number."""

_FTP_WANTS_TLS = (
    "use encryption",
    "encryption required",
    "encryption is required",
    "ssl/tls",
    "tls required",
    "tls is required",
    "requires tls",
    "requires ssl",
    "secure connection",
)
"""Phrases, because a word may stand in the file name that the server repeats."""

_NEEDS_TLS_HINT = "The server wants TLS: set `security: explicit_tls`"
_CERTIFICATE_HINT = (
    "Ask the recipient which authority signed it and name its file with `ca_file`; never skip the check"
)


def of_ftp(error: Exception, *, unexplained: type[DeliveryError] = AccessDeniedError) -> Fault | None:
    """Classify what ftplib and the FTP hook raise; None if it is something else."""
    match error:
        case ftplib.Error():
            return of_ftp_reply(str(error), unexplained=unexplained)
        case ssl.SSLCertVerificationError():
            return Fault(HostKeyError, "certificate", hint=_CERTIFICATE_HINT)
        case UnicodeError():
            return Fault(PermanentDeliveryError, "a name cannot be written in the connection's encoding")
        case _:
            return of_files(error)


def of_ftp_reply(reply: str, *, unexplained: type[DeliveryError] = AccessDeniedError) -> Fault:
    """Classify a reply: by its number, and where that says little by its words."""
    if not reply[:3].isdigit():
        return Fault(PermanentDeliveryError, "what answers there does not speak FTP")
    code, words = int(reply[:3]), reply[3:]
    detail, hint = f"FTP {code}", _FTP_HINTS.get(code)
    if code not in _FTP_VAGUE:
        passing = TransientDeliveryError if code < _PERMANENT_FROM else PermanentDeliveryError
        return Fault(_FTP_CODES.get(code, passing), detail, hint=hint)
    if code >= _PERMANENT_FROM and _says(words, _FTP_WANTS_TLS):
        return Fault(PermanentDeliveryError, detail, hint=_NEEDS_TLS_HINT)
    by_words = _by_words(words, _FTP_TEXTS)
    if code < _PERMANENT_FROM and by_words not in {None, QuotaError, TooLargeError}:
        by_words = None  # a 4xx passes by itself, whatever it is about
    vague = TransientDeliveryError if code < _PERMANENT_FROM else unexplained
    return Fault(by_words or _FTP_CODES.get(code, vague), detail, hint=hint if by_words is None else None)


def _says(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text.lower() for word in words)


# --- S3 ------------------------------------------------------------------------------------------------------------

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


def of_code(code: str, status: int, *, known: Mapping[str, type[DeliveryError]]) -> Fault:
    """Classify the answer of a service that names its errors; what is not named is decided by the HTTP status."""
    if code in known:
        return Fault(known[code], code)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _HTTP:
        return Fault(DestinationBusyError, f"HTTP {status}")
    # A code that is not in the table might be anything; the status is a number.
    return Fault(_HTTP.get(status, PermanentDeliveryError), f"HTTP {status}")


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
    return Fault(_by_name(error, _BOTOCORE), type(error).__name__)


def _of_endpoint(error: Exception) -> Fault:
    """Look behind botocore's one word for every failed connect: urllib3 kept the reason."""
    return of_connect(getattr(error, "kwargs", {}).get("error")) or Fault(ConnectionRefusedByHostError)


def of_connect(error: BaseException | None) -> Fault | None:
    """Look for what the system said behind the words of libraries that speak HTTP; None if it said nothing."""
    while error is not None:
        if type(error).__name__ == "NameResolutionError" or isinstance(error, socket.gaierror):
            return Fault(DnsError)
        if isinstance(error, ssl.SSLError):
            return _of_tls(error)
        if isinstance(error, OSError) and error.errno is not None:
            return _of_errno(error)
        error = _behind(error)
    return None


def _behind(error: BaseException) -> BaseException | None:
    """Return the reason for an error: urllib3 and requests keep it in an attribute or among the arguments."""
    kept = (getattr(error, "reason", None), error.__cause__, error.__context__, *error.args)
    return next((one for one in kept if isinstance(one, BaseException)), None)


# --- HTTP ----------------------------------------------------------------------------------------------------------

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
        return Fault(_by_name(error, _HTTPX), type(error).__name__)
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
