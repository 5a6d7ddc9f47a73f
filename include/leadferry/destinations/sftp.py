"""Deliver to an SFTP server."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

from pydantic import Field

from leadferry.destinations.base import DestinationBase, Session, pool_name


class Sftp(DestinationBase):
    """A directory on an SFTP server."""

    type: Literal["sftp"] = "sftp"
    connection: str = Field(min_length=1, description="Airflow connection of type sftp.")
    directory: str = Field(default=".", min_length=1, description="Directory on the server; a template.")
    create_directory: bool = Field(default=False, description="Make the directory when it is missing.")
    publish: Literal["rename"] = Field(
        default="rename", description="Write a hidden temporary file, verify it, rename it."
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the server may stay silent.")

    @property
    def where(self) -> str:
        """The connection and the directory, as written."""
        return f"sftp connection '{self.connection}', directory {self.directory}"

    @property
    def pool(self) -> str:
        """One pool per connection."""
        return pool_name("sftp", self.connection)

    def open(self) -> AbstractContextManager[Session]:
        """Connect and log in."""
        raise NotImplementedError
