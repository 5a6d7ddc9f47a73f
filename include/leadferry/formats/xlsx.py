"""Leads as xlsx."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from leadferry.formats.base import FileContext, FormatBase

if TYPE_CHECKING:
    import polars


class Xlsx(FormatBase):
    """Leads as xlsx."""

    extension: ClassVar[str] = "xlsx"
    media_type: ClassVar[str] = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

    type: Literal["xlsx"] = "xlsx"

    def write(self, frames: Iterable[polars.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        raise NotImplementedError
