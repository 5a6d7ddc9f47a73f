"""Leads as xml."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from leadferry.formats.base import FileContext, FormatBase

if TYPE_CHECKING:
    import polars


class Xml(FormatBase):
    """Leads as xml."""

    extension: ClassVar[str] = "xml"
    media_type: ClassVar[str] = "application/xml"

    type: Literal["xml"] = "xml"

    def write(self, frames: Iterable[polars.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        raise NotImplementedError
