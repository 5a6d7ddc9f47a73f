"""Leads as ndjson."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from leadferry.formats.base import FileContext, FormatBase

if TYPE_CHECKING:
    import polars


class Ndjson(FormatBase):
    """Leads as ndjson."""

    extension: ClassVar[str] = "ndjson"
    media_type: ClassVar[str] = "application/x-ndjson"

    type: Literal["ndjson"] = "ndjson"

    def write(self, frames: Iterable[polars.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        raise NotImplementedError
