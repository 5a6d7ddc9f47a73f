"""Deliver to Amazon S3 or a store that speaks its protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

from pydantic import Field

from leadferry.destinations.base import DestinationBase, Session, pool_name


class S3(DestinationBase):
    """A prefix in a bucket of Amazon S3 or a store that speaks its protocol."""

    type: Literal["s3"] = "s3"
    connection: str = Field(
        default="aws_default", min_length=1, description="Airflow connection of type aws."
    )
    bucket: str = Field(min_length=3, max_length=63, description="The bucket; must exist.")
    prefix: str = Field(default="", description="What stands before the file name in the key; a template.")
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the store may stay silent.")

    @property
    def where(self) -> str:
        """The connection, the bucket and the prefix, as written."""
        return f"aws connection '{self.connection}', s3://{self.bucket}/{self.prefix}"

    @property
    def pool(self) -> str:
        """One pool per connection."""
        return pool_name("s3", self.connection)

    def open(self) -> AbstractContextManager[Session]:
        """Make the client."""
        raise NotImplementedError
