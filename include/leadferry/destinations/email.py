"""Deliver by mail, one message with all files per recipient."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Literal

from pydantic import Field

from leadferry.destinations.base import DestinationBase, Session, pool_name


class Email(DestinationBase):
    """One message per recipient, the files attached."""

    can_be_asked: ClassVar[bool] = False
    sends_files_together: ClassVar[bool] = True

    type: Literal["email"] = "email"
    connection: str = Field(default="smtp", min_length=1, description="Airflow connection of type smtp.")
    to: list[str] = Field(min_length=1, description="Addresses; each gets a message of its own.")
    subject: str = Field(min_length=1, description="Subject; a template.")
    body: str = Field(description="Plain text; a template.")
    html: str | None = Field(
        default=None, description="The same as HTML, for mail programs that show it; a template."
    )
    sender: str | None = Field(
        default=None, description="Address in From; the connection's from_email when left out."
    )
    reply_to: str | None = Field(default=None, description="Where answers go.")
    allow_plaintext: bool = Field(default=False, description="Send without TLS; needs plaintext_reason.")
    plaintext_reason: str | None = Field(default=None, description="Why no TLS is acceptable here.")
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the server may stay silent.")

    def addressees(self) -> list[str | None]:
        """One parcel per recipient."""
        return list(self.to)

    @property
    def where(self) -> str:
        """The connection and the number of recipients."""
        return f"smtp connection '{self.connection}'"

    @property
    def pool(self) -> str:
        """One pool per connection."""
        return pool_name("email", self.connection)

    def open(self) -> AbstractContextManager[Session]:
        """Connect and log in."""
        raise NotImplementedError
