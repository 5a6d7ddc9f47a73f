"""Since when an Airflow connection has held the same credentials: Airflow itself keeps no date.

What is kept is a slow, salted hash. It shows whether something changed, and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from leadferry.store.database import Database
from leadferry.store.tables import credential

_SALT_BYTES = 16


def in_use_since(database: Database, connection_id: str, secret: bytes, *, now: datetime) -> datetime:
    """Return when these credentials were first seen in a connection; now, if they are new.

    Args:
        database: the lead store.
        connection_id: of the Airflow connection.
        secret: the credentials; only their fingerprint is stored.
        now: aware.
    """
    with database.transaction() as connection:
        known = connection.execute(
            select(credential).where(credential.c.connection == connection_id).with_for_update()
        ).one_or_none()
        if known and hmac.compare_digest(known.fingerprint, _fingerprint(secret, salt=known.salt)):
            since: datetime = known.first_seen_at
            return since
        salt = secrets.token_bytes(_SALT_BYTES)
        seen = {"fingerprint": _fingerprint(secret, salt=salt), "salt": salt, "first_seen_at": now}
        added = insert(credential).values(connection=connection_id, **seen)
        connection.execute(added.on_conflict_do_update(index_elements=["connection"], set_=seen))
    return now


def _fingerprint(secret: bytes, *, salt: bytes) -> bytes:
    # Slow on purpose: who reads the table must not be able to try passwords.
    return hashlib.scrypt(secret, salt=salt, n=2**14, r=8, p=1)
