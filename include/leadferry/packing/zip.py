"""Compress as zip: what people open with a double click on any system."""

from __future__ import annotations

import zipfile
from typing import Any, BinaryIO, Literal

from pydantic import Field

from leadferry.packing.base import CompressionBase, PackingWriter
from leadferry.packing.container import SMALL, ZipContainer


class Zip(CompressionBase):
    """A .zip file with the file inside, under its own name, dated 1 January 1980."""

    type: Literal["zip"] = "zip"
    level: int = Field(default=6, ge=1, le=9, description="1 is fastest, 9 smallest.")

    @property
    def ending(self) -> str:
        """See `PackingBase.ending`."""
        return "zip"

    @property
    def media_type(self) -> str:
        """See `PackingBase.media_type`."""
        return "application/zip"

    def open(self, out: BinaryIO, *, name: str) -> PackingWriter:
        """See `CompressionBase.open`."""
        return self.container(out).only(name)

    def container(self, out: BinaryIO, *, small: int = SMALL) -> ZipContainer:
        """Begin a zip file for several files: `with container as box: with box.open("a.csv") as file: …`.

        Args:
            out: written from start to end; stays open.
            small: bytes up to which a member is written without ZIP64.
        """
        return ZipContainer(out, self._make, info=zipfile.ZipInfo, small=small)

    def _make(self, out: Any) -> zipfile.ZipFile:
        return zipfile.ZipFile(out, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=self.level)
