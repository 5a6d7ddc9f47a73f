"""What paramiko and the SSH hook raise."""

from __future__ import annotations

import ssl
from contextlib import AbstractContextManager

from leadferry.destinations.faults import Fault, kind_by_name, kind_by_words, timed_out, translated
from leadferry.destinations.faults.system import of_files
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectionRefusedByHostError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    DnsError,
    HostKeyError,
    NameConflictError,
    NoSuchPathError,
    PermanentDeliveryError,
    QuotaError,
    TooLargeError,
    TransferInterruptedError,
    TransientDeliveryError,
)


def ssh_faults(where: str) -> AbstractContextManager[None]:
    """Turn what paramiko and the SSH hook raise into `DeliveryError`s that name `where`."""
    return translated(where, of_ssh)


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

    if by_words := kind_by_words(str(error), _SSH_HOOK_TEXTS):
        return Fault(by_words, "the private key cannot be read with this passphrase")
    match error:
        case paramiko.ssh_exception.NoValidConnectionsError():
            return _of_attempts(list(error.errors.values()))
        case paramiko.SSHException():
            return _of_paramiko(error)
        case paramiko.SFTPError():
            return Fault(TransferInterruptedError, "SFTP answers out of order")
        case OSError(errno=None) if not isinstance(error, TimeoutError | ssl.SSLError):
            return Fault(kind_by_words(str(error), _SFTP_TEXTS) or TransientDeliveryError)
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
    by_words = kind_by_words(str(error), _SSH_TEXTS)
    return Fault(by_words or kind_by_name(error, _PARAMIKO), type(error).__name__)


_CHANNEL: dict[int, type[DeliveryError]] = {1: AccessDeniedError, 4: DestinationBusyError}
"""Reasons for which a server refuses a channel: RFC 4254, 5.1."""


def _of_banner(error: Exception) -> Fault:
    """Tell a server that stays silent from one that hangs up at once, as OpenSSH does above MaxStartups."""
    if timed_out(error):
        return Fault(ConnectTimeoutError, "no SSH greeting")
    return Fault(DestinationBusyError, "hung up before the SSH greeting")
