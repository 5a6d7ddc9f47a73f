"""NDJSON, also called JSON Lines: one lead, one line; what data platforms load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from pydantic import Field

from leadferry.formats.base import (
    FileContext,
    FormatBase,
    json_lines,
    nested_problems,
    prepared,
    refuse_bad_columns,
)

if TYPE_CHECKING:
    import polars as pl


class Ndjson(FormatBase):
    """One JSON object per line, UTF-8, LF; no leads make an empty file."""

    extension: ClassVar[str] = "ndjson"
    media_type: ClassVar[str] = "application/x-ndjson"

    type: Literal["ndjson"] = "ndjson"
    nested: bool = Field(
        default=True, description="Make objects of dotted field names: contact.name, contact.phone."
    )
    null: Literal["keep", "omit"] = Field(
        default="keep", description="Where a lead has no value: write null, or leave the key out (slower)."
    )

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`."""
        return nested_problems(columns) if self.nested else []

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        refuse_bad_columns(self, context)
        nulls = self.null == "keep"
        out.writelines(
            json_lines(frame, nested=self.nested, nulls=nulls) for frame in prepared(frames, context)
        )
