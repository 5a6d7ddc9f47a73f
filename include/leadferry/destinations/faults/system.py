"""What the operating system says about files and sockets, and Airflow's hooks about their connections."""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import AbstractContextManager

from leadferry.destinations.faults import Fault, timed_out, translated
from leadferry.errors import (
    AccessDeniedError,
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


def file_faults(where: str) -> AbstractContextManager[None]:
    """Turn what a folder raises into `DeliveryError`s that name `where`."""
    return translated(where, of_files)


def of_files(error: Exception) -> Fault | None:
    """Classify what the operating system says about files and sockets; None if it is something else."""
    match error:
        case socket.gaierror():
            return Fault(DnsError)
        case ssl.SSLError():
            return of_tls(error)
        case TimeoutError():
            return Fault(ConnectTimeoutError)
        case EOFError():
            return Fault(TransferInterruptedError)
        case OSError():
            return of_errno(error)
        case _:
            return _of_airflow(error)


def of_errno(error: OSError) -> Fault:
    """Classify an error of the operating system by its number."""
    if error.errno is None:
        return Fault(TransientDeliveryError)
    kind = ERRNOS.get(error.errno, TransientDeliveryError)
    return Fault(kind, errno.errorcode.get(error.errno, str(error.errno)))


def of_tls(error: ssl.SSLError) -> Fault:
    """Classify a failed handshake, or a TLS connection that ended."""
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
            silent = timed_out(error)
            return Fault(ConnectTimeoutError if silent else DestinationBusyError, "no greeting")
        case AirflowException() | ValueError():
            return Fault(PermanentDeliveryError, "the Airflow connection's fields cannot be used")
        case _:
            return None
