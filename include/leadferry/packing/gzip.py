"""Compress as gzip: what every Unix and most data platforms unpack by themselves."""

from __future__ import annotations

import gzip
from typing import BinaryIO, Literal, cast

from pydantic import Field

from leadferry.packing.base import CompressionBase, PackingWriter, Valve


class Gzip(CompressionBase):
    """A .gz file without a name and a time inside, so that the same leads give the same bytes."""

    type: Literal["gzip"] = "gzip"
    level: int = Field(default=6, ge=1, le=9, description="1 is fastest, 9 smallest.")

    @property
    def ending(self) -> str:
        """See `PackingBase.ending`."""
        return "gz"

    @property
    def media_type(self) -> str:
        """See `PackingBase.media_type`; RFC 6713."""
        return "application/gzip"

    def open(self, out: BinaryIO, *, name: str) -> PackingWriter:  # noqa: ARG002 - gunzip takes the name from the file's
        """See `CompressionBase.open`."""
        valve = Valve(out)
        inner = gzip.GzipFile(
            filename="",
            mode="wb",
            compresslevel=self.level,
            fileobj=cast("BinaryIO", valve),
            mtime=0,
        )
        return PackingWriter(inner, valve)
