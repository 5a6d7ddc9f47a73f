"""What smtplib and the SMTP hook raise, and what a mail server's replies mean."""

from __future__ import annotations

import re
import smtplib
from contextlib import AbstractContextManager

from leadferry.destinations.faults import PERMANENT_FROM, Fault, kind_by_words, timed_out, translated
from leadferry.destinations.faults.system import of_files
from leadferry.errors import (
    AuthenticationError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    HostKeyError,
    MessageRefusedError,
    QuotaError,
    RejectedPolicyError,
    TooLargeError,
    TransferInterruptedError,
    TransientDeliveryError,
)


def smtp_faults(where: str) -> AbstractContextManager[None]:
    """Turn what smtplib and the SMTP hook raise into `DeliveryError`s that name `where`."""
    return translated(where, of_smtp)


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
        return Fault(ConnectTimeoutError if timed_out(error) else TransferInterruptedError)
    return Fault(kind_by_words(str(error), _SMTP_TEXTS) or TransientDeliveryError, type(error).__name__)


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
    if status is not None and code >= PERMANENT_FROM and kind is not AuthenticationError:
        # 552 is said for full mailboxes and forbidden attachments as well; the enhanced code is more precise.
        by_subject = RejectedPolicyError if status[0] == _POLICY else MessageRefusedError
        return Fault(_SMTP_STATUS.get(status, by_subject), detail)
    # 450, 451, 452 and their kin: greylisting, a full queue, too many recipients at once.
    passing = DestinationBusyError if code < PERMANENT_FROM else MessageRefusedError
    return Fault(kind or passing, detail)


def _enhanced(text: bytes | str) -> tuple[int, int] | None:
    """Return subject and detail of the enhanced status code that a reply's text begins with."""
    told = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    found = re.match(r"\s*[245]\.(\d{1,3})\.(\d{1,3})\b", told)
    return (int(found[1]), int(found[2])) if found else None
