"""What the Airflow connections hold, as far as it may be told: that they are there, their sender, their age."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from leadferry.destinations.faults.smtp import smtp_faults
from leadferry.doctor.finding import Finding, Stage, Verdict
from leadferry.errors import LeadferryError, PermanentDeliveryError
from leadferry.store import credentials
from leadferry.store.database import Database

if TYPE_CHECKING:
    from airflow.sdk import Connection

MAX_AGE = timedelta(days=90)
"""How long the same credentials are used before it is told."""

_SECRET = re.compile(
    r"passw|passphrase|secret|token|private_key|api_?key|credential|keyfile|sas|account_key", re.IGNORECASE
)
"""Names of extras that hold a credential."""

_FILES = ("key_file", "private_key_file", "key_path", "keyfile_path")
"""Extras that name a file with a credential; the file's content counts."""


@dataclass(frozen=True, kw_only=True)
class MailSettings:
    """What a connection of type smtp says about TLS and the sender."""

    use_ssl: bool
    starttls: bool
    sender: str | None


def read(connection_id: str, *, kind: str) -> Connection:
    """Read an Airflow connection.

    Raises:
        PermanentDeliveryError: Airflow does not know it, or it cannot be read.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found: Connection = Connection.get(connection_id)
    except AirflowNotFoundException:
        what = "Airflow does not know this connection"
        conn_type = {"email": "smtp", "s3": "aws", "gcs": "google_cloud_platform", "azure": "wasb"}.get(
            kind, kind
        )
        hint = (
            f"Add it: `airflow connections add {connection_id} --conn-type {conn_type} …`, in Airflow under Admin,"
            f" Connections, or as AIRFLOW_CONN_{connection_id.upper()}; check the spelling in the batch file"
        )
    except Exception as error:  # noqa: BLE001  (secrets backends raise many kinds, and a text may hold the secret)
        what, hint = f"it cannot be read ({type(error).__name__})", "Correct the connection in Airflow"
    else:
        return found
    raise PermanentDeliveryError(f"{kind} connection '{connection_id}': {what}", hint=hint)


def mail_settings(connection_id: str) -> MailSettings:
    """Return how a mail server is spoken to, as the hook reads the connection."""
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    with smtp_faults(f"smtp connection '{connection_id}'"):
        hook = SmtpHook(smtp_conn_id=connection_id)
        hook.smtp_connection = hook.get_connection(connection_id)
        return MailSettings(
            use_ssl=hook.use_ssl,
            starttls=hook.smtp_starttls and not hook.use_ssl,
            sender=hook.from_email or hook.smtp_user,
        )


def age(
    database: Database, connection_id: str, *, kind: str, now: datetime, max_age: timedelta = MAX_AGE
) -> Finding:
    """Tell since when a connection has held the same credentials, as far as the doctor has seen it.

    A changed password starts anew; nothing in the batch file changes for that.

    Raises:
        LeadferryError: the connection or the store cannot be read.
    """
    secret = _secret(read(connection_id, kind=kind))
    if secret is None:
        what = "it holds no password or key"
        return Finding(stage=Stage.CREDENTIAL, verdict=Verdict.NOT_APPLICABLE, what=what)
    since = credentials.in_use_since(database, connection_id, secret, now=now)
    days = (now - since).days
    what = f"the same credentials since {since:%Y-%m-%d} ({days} days), seen by the doctor"
    if now - since <= max_age:
        return Finding(stage=Stage.CREDENTIAL, verdict=Verdict.OK, what=what)
    return Finding(
        stage=Stage.CREDENTIAL,
        verdict=Verdict.WARNING,
        what=f"{what}; that is more than {max_age.days} days",
        remedy=f"Agree on a new password or key with the recipient and put it into the connection '{connection_id}'",
    )


def try_age(
    database: Database, connection_id: str, *, kind: str, now: datetime, max_age: timedelta
) -> Finding:
    """Do the same, and tell in a finding what cannot be read."""
    try:
        return age(database, connection_id, kind=kind, now=now, max_age=max_age)
    except LeadferryError as error:
        what = f"its age is not known: {error.what}"
        return Finding(stage=Stage.CREDENTIAL, verdict=Verdict.NOT_APPLICABLE, what=what)


def _secret(found: Connection) -> bytes | None:
    """Return what of a connection is a credential, as bytes to be hashed; None where there is nothing."""
    extra = found.extra_dejson
    held = {str(name): value for name, value in extra.items() if _SECRET.search(str(name)) and value}
    held |= {name: _content(str(extra[name])) for name in _FILES if extra.get(name)}
    if not held and not found.password:
        return None
    return json.dumps([found.login, found.password, held], sort_keys=True, default=str).encode()


def _content(path: str) -> str:
    try:
        return Path(path).expanduser().read_bytes().hex()
    except OSError:
        return path
