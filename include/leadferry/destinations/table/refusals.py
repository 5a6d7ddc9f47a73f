"""What PostgreSQL's errors mean: by SQLSTATE, and before there is one, by libpq's words. Never the server's text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from leadferry.destinations.faults import SENTENCES
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectionRefusedByHostError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    DnsError,
    HostKeyError,
    NoSuchPathError,
    PermanentDeliveryError,
    QuotaError,
    TransferInterruptedError,
    TransientDeliveryError,
)

if TYPE_CHECKING:
    import psycopg

_KEY_HINT = "Make the column `key` the primary key of the table, or give it a unique index"
_TYPE_HINT = (
    "Change the column's type, or give the field a transform that makes such a value; no lead was written"
)
_RULE_HINT = "Change the table, or what the batch sends; no lead was written"

STATES: dict[str, tuple[type[DeliveryError], str | None]] = {
    "28": (AuthenticationError, None),
    "3D000": (NoSuchPathError, "Correct the database in the Airflow connection"),
    "3F000": (NoSuchPathError, "Correct the schema in `table`"),
    "42P01": (NoSuchPathError, "Correct `table`, or set `create: true`"),
    "42501": (AccessDeniedError, "Grant SELECT, INSERT and UPDATE on the table, and USAGE on its schema"),
    "25006": (AccessDeniedError, "This is a read-only copy: point the connection at the primary server"),
    "42P10": (PermanentDeliveryError, _KEY_HINT),
    "22": (PermanentDeliveryError, _TYPE_HINT),
    "42804": (PermanentDeliveryError, _TYPE_HINT),
    "23": (PermanentDeliveryError, _RULE_HINT),
    "44": (PermanentDeliveryError, _RULE_HINT),
    "P0": (PermanentDeliveryError, "A trigger of the table refuses the leads; no lead was written"),
    "42": (PermanentDeliveryError, "Correct the table or the batch file; no lead was written"),
    "0A": (PermanentDeliveryError, "Choose a plain table"),
    "53100": (QuotaError, None),
    "53": (DestinationBusyError, None),
    "40": (DestinationBusyError, None),
    "55": (DestinationBusyError, None),
    "57014": (DestinationBusyError, None),
    "57": (TransferInterruptedError, None),
    "08": (TransferInterruptedError, None),
    "25": (TransferInterruptedError, None),
}
"""What an SQLSTATE, or its class, means, and what to do; a state that is missing is tried again."""

_WORDS: tuple[tuple[str, type[DeliveryError]], ...] = (
    (r"failed to resolve host|could not translate host name|name or service not known", DnsError),
    (r"connection refused|no such file or directory", ConnectionRefusedByHostError),
    (r"timeout|timed out|unreachable|no route", ConnectTimeoutError),
    (
        r"password|pg_hba\.conf|role .* does not exist|peer authentication|sasl|not permitted to log in",
        AuthenticationError,
    ),
    (r"database .* does not exist", NoSuchPathError),
    (r"certificate|ssl|tls", HostKeyError),
    (r"too many|slots|starting up|shutting down|recovery", DestinationBusyError),
)
"""What libpq says only in words before a session begins."""

_TLS_HINT = (
    "Name the authority in the connection's extra (sslrootcert), and ask for a server with TLS and the right name in its"
    " certificate; or set allow_plaintext with plaintext_reason"
)


@contextmanager
def refusals(where: str) -> Iterator[None]:
    """Turn what psycopg raises into `DeliveryError`s that name `where`, without a value of any lead."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise classify(error, where=where) from None
    except UnicodeError:
        raise PermanentDeliveryError(
            f"{where}: the database's encoding lacks a character",
            hint="Deliver into a database with the encoding UTF8, or replace the characters by a transform",
        ) from None


def classify(error: psycopg.Error, *, where: str) -> DeliveryError:
    """Write the exception for what the database said."""
    state = error.sqlstate
    if state is None:
        kind = _by_words(error)
        return kind(f"{where}: {SENTENCES[kind]}", hint=_TLS_HINT if kind is HostKeyError else None)
    kind, hint = STATES.get(state) or STATES.get(state[:2]) or (TransientDeliveryError, None)
    named = _named(error)
    about = f", {named}" if named else ""
    return kind(f"{where}: {SENTENCES[kind]} (SQLSTATE {state}, {type(error).__name__}{about})", hint=hint)


def _by_words(error: psycopg.Error) -> type[DeliveryError]:
    import psycopg

    if isinstance(error, psycopg.DataError):
        return PermanentDeliveryError
    said = str(error).lower()
    return next((kind for words, kind in _WORDS if re.search(words, said)), TransferInterruptedError)


def _named(error: psycopg.Error) -> str:
    """Return the column or the constraint that it is about: names of the table's design, never values."""
    about = error.diag
    if about.constraint_name:
        return f"constraint {about.constraint_name}"
    return f"column {about.column_name}" if about.column_name else ""
