"""The destinations that a batch may name: one file each, one line here each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leadferry.destinations.azure import Azure
from leadferry.destinations.email import Email
from leadferry.destinations.folder import Folder
from leadferry.destinations.ftp import Ftp
from leadferry.destinations.gcs import Gcs
from leadferry.destinations.http import Http
from leadferry.destinations.s3 import S3
from leadferry.destinations.sftp import Sftp
from leadferry.destinations.table import Table

Destination = Annotated[
    Folder | Sftp | Ftp | Email | S3 | Gcs | Azure | Http | Table, Field(discriminator="type")
]
