"""What ftplib and the FTP hook raise, and what an FTP server's replies mean."""

from __future__ import annotations

import ftplib
import ssl
from contextlib import AbstractContextManager

from leadferry.destinations.faults import PERMANENT_FROM, Fault, kind_by_words, translated
from leadferry.destinations.faults.system import of_files
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    DeliveryError,
    DestinationBusyError,
    HostKeyError,
    NameConflictError,
    NoSuchPathError,
    PermanentDeliveryError,
    QuotaError,
    TooLargeError,
    TransferInterruptedError,
    TransientDeliveryError,
)


def ftp_faults(
    where: str, *, unexplained: type[DeliveryError] = AccessDeniedError
) -> AbstractContextManager[None]:
    """Turn what ftplib and the FTP hook raise into `DeliveryError`s that name `where`.

    Args:
        where: for the reader of the message.
        unexplained: what a refusal means here when the server gives no reason, as many do.
    """
    return translated(where, lambda error: of_ftp(error, unexplained=unexplained))


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
        passing = TransientDeliveryError if code < PERMANENT_FROM else PermanentDeliveryError
        return Fault(_FTP_CODES.get(code, passing), detail, hint=hint)
    if code >= PERMANENT_FROM and _says(words, _FTP_WANTS_TLS):
        return Fault(PermanentDeliveryError, detail, hint=_NEEDS_TLS_HINT)
    by_words = kind_by_words(words, _FTP_TEXTS)
    if code < PERMANENT_FROM and by_words not in {None, QuotaError, TooLargeError}:
        by_words = None  # a 4xx passes by itself, whatever it is about
    vague = TransientDeliveryError if code < PERMANENT_FROM else unexplained
    return Fault(by_words or _FTP_CODES.get(code, vague), detail, hint=hint if by_words is None else None)


def _says(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text.lower() for word in words)
