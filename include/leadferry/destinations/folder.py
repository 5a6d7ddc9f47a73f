"""Deliver into a folder that this machine can reach: a mounted share, a folder that another program watches."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

from pydantic import Field

from leadferry.destinations.base import DestinationBase, Session


class Folder(DestinationBase):
    """A folder that the workers can reach, such as a mounted share."""

    type: Literal["folder"] = "folder"
    path: str = Field(min_length=1, description="The folder; a template. Relative to the project's folder.")
    create: bool = Field(default=True, description="Make the folder when it is missing.")

    @property
    def where(self) -> str:
        """The folder, as written."""
        return f"folder {self.path}"

    @property
    def pool(self) -> str:
        """One pool for all folders."""
        return "leadferry_folder"

    def open(self) -> AbstractContextManager[Session]:
        """Nothing to connect to."""
        raise NotImplementedError
