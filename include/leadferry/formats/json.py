"""Leads as json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from leadferry.formats.base import FileContext, FormatBase

if TYPE_CHECKING:
    import polars


class Json(FormatBase):
    """Leads as json."""

    extension: ClassVar[str] = "json"
    media_type: ClassVar[str] = "application/json"

    type: Literal["json"] = "json"

    def write(self, frames: Iterable[polars.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        raise NotImplementedError
