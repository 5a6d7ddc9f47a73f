"""One JSON document: what the batch is, and its leads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, Self

from pydantic import Field, model_validator

from leadferry.formats.base import (
    FileContext,
    FormatBase,
    json_lines,
    nested_problems,
    prepared,
    refuse_bad_columns,
)
from leadferry.templates import Template, render

if TYPE_CHECKING:
    import polars as pl

_WHOLE_NUMBER = re.compile(r"\s*\{\{\s*(lead\.count|delivery\.number|file\.parts?)\s*\}\}\s*")
"""Templates that are nothing but one of the variables that are whole numbers; these stay numbers."""


class Json(FormatBase):
    """One JSON object with the batch's facts under `batch_info` and an array `leads`; UTF-8, as RFC 8259 asks."""

    extension: ClassVar[str] = "json"
    media_type: ClassVar[str] = "application/json"

    type: Literal["json"] = "json"
    batch_info: dict[str, Template] = Field(
        default={
            "batch_id": "{{ batch.id }}",
            "batch_name": "{{ batch.name }}",
            "delivery_id": "{{ delivery.id }}",
            "delivery_date": "{{ delivery.date }}",
            "lead_count": "{{ lead.count }}",
        },
        description="Facts of the batch, by name; lead.count is the number of leads in this file. Empty: no batch_info.",
    )
    info_key: str = Field(
        default="batch_info", min_length=1, description="Name of the object with the facts."
    )
    leads_key: str = Field(default="leads", min_length=1, description="Name of the array with the leads.")
    nested: bool = Field(
        default=True, description="Make objects of dotted field names: contact.name, contact.phone."
    )
    null: Literal["keep", "omit"] = Field(
        default="keep", description="Where a lead has no value: write null, or leave the key out (slower)."
    )
    indent: int | None = Field(
        default=None,
        ge=1,
        le=8,
        description="Spaces per level, for readers; one lead per line when left out.",
    )

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        if self.info_key == self.leads_key:
            raise ValueError("info_key and leads_key must be different names")
        return self

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`."""
        return nested_problems(columns) if self.nested else []

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        refuse_bad_columns(self, context)
        out.write(self._opening(context).encode())
        between = b"\n"
        for frame in prepared(frames, context):
            if not frame.is_empty():
                out.write(between)
                out.writelines(self._leads(frame))
                between = b",\n"
        out.write(self._closing(empty=between == b"\n").encode())

    def _opening(self, context: FileContext) -> str:
        pad, space = self._layout()
        opening = "{"
        if self.batch_info:
            facts = json.dumps(
                self._facts(context), ensure_ascii=False, indent=self.indent, separators=(",", space)
            )
            inner = facts.replace("\n", f"\n{pad}")
            opening += f"{pad and chr(10)}{pad}{_text(self.info_key)}:{space.removeprefix(':')}{inner},"
        return f"{opening}{pad and chr(10)}{pad}{_text(self.leads_key)}:{space.removeprefix(':')}["

    def _closing(self, *, empty: bool) -> str:
        pad, _ = self._layout()
        end = f"]{pad and chr(10)}}}\n"
        return end if empty else f"\n{pad}{end}"

    def _layout(self) -> tuple[str, str]:
        return (" " * self.indent, ": ") if self.indent else ("", ":")

    def _facts(self, context: FileContext) -> dict[str, Any]:
        counted = {**context.variables.get("lead", {}), "count": context.rows}
        variables = {**context.variables, "lead": counted}
        facts = {name: (template, render(template, variables)) for name, template in self.batch_info.items()}
        return {
            name: int(text) if _WHOLE_NUMBER.fullmatch(template) else text
            for name, (template, text) in facts.items()
        }

    def _leads(self, frame: pl.DataFrame) -> Iterator[bytes]:
        lines = json_lines(frame, nested=self.nested, nulls=self.null == "keep").removesuffix(b"\n")
        if self.indent is None:
            # A line feed inside a value is escaped, so every raw one ends a lead.
            yield lines.replace(b"\n", b",\n")
            return
        pad = " " * (2 * self.indent)
        for number, line in enumerate(lines.split(b"\n")):
            lead = json.dumps(json.loads(line), ensure_ascii=False, indent=self.indent).replace(
                "\n", f"\n{pad}"
            )
            yield f"{',' + chr(10) if number else ''}{pad}{lead}".encode()


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
