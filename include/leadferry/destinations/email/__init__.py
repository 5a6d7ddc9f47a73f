"""Deliver by mail: one message per recipient, all files attached.

`settings` is what a batch file may say, `message` what a mail consists of, `session` how it is handed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from leadferry.destinations.email import session
from leadferry.destinations.email.settings import MailSettings


class Email(MailSettings):
    """One message per recipient, the files attached; recipients do not see each other."""

    def endpoint(self) -> tuple[str, int] | None:
        """Return the mail server's host name and port by the Airflow connection."""
        return session.endpoint(self)

    @contextmanager
    def open(self) -> Iterator[session.EmailSession]:
        """Connect, prove the server's certificate and log in by the Airflow connection."""
        with session.connected(self) as opened:
            yield opened
