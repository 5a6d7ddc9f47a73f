"""NDJSON, also called JSON Lines: one lead, one line; what data platforms load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from pydantic import Field

from leadferry.errors import RenderError
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
    takes_control_records: ClassVar[bool] = True

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
        out.write(_control_record(context.first_line))
        out.writelines(
            json_lines(frame, nested=self.nested, nulls=nulls) for frame in prepared(frames, context)
        )
        out.write(_control_record(context.last_line()))


def _control_record(text: str | None) -> bytes:
    """Return a control record as a line of its own; every line of the file must be a JSON object."""
    import json

    if text is None:
        return b""
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise RenderError(
            "a control record is no JSON object, as every line of the file must be",
            hint='Write it like {"type": "trailer", "leads": {{ control.leads }}}, texts as {{ batch.name | tojson }}',
        )
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
