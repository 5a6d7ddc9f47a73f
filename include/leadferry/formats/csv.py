"""Delimited text: what nearly every buyer's system takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from leadferry.formats.base import FileContext, FormatBase

if TYPE_CHECKING:
    import polars


class Csv(FormatBase):
    """Delimited text, by default as RFC 4180 says."""

    extension: ClassVar[str] = "csv"
    media_type: ClassVar[str] = "text/csv"

    type: Literal["csv"] = "csv"
    delimiter: str = ","
    header: bool = True
    encoding: str = "utf-8"

    def write(self, frames: Iterable[polars.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        for number, frame in enumerate(frames):
            frame.select(context.columns).write_csv(
                out, separator=self.delimiter, include_header=self.header and number == 0, line_terminator="\r\n"
            )
