"""Control records: a first and a last line in a text file that say whose it is and how much is in it."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from leadferry.errors import BatchConfigError
from leadferry.templates import compile_template

COUNTS: dict[str, type] = {"leads": int, "rows": int, "all_rows": int}
"""What `control.*` may say in the templates of control records."""


class Control(BaseModel):
    """The control records of one file; they stand in its encoding and with its line ending."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sums: list[str] = Field(
        default=[],
        description="Labels of fields whose numbers are added up for `sum.<label>` in the trailer.",
    )
    decimal_mark: Literal[".", ","] = Field(
        default=".", description="The decimal mark in fields that are summed and are text."
    )
    header: str | None = Field(
        default=None,
        min_length=1,
        description="Template of the first line; knows `control.*` besides the rest.",
    )
    trailer: str | None = Field(
        default=None,
        min_length=1,
        description="Template of the last line; knows `control.*` and `sum.*` besides the rest.",
    )

    @field_validator("header", "trailer")
    @classmethod
    def _is_a_template(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None:
            return None
        groups = {"control": COUNTS}
        if info.field_name == "trailer" and info.data.get("sums"):
            groups["sum"] = dict.fromkeys(info.data["sums"], Decimal)
        try:
            compile_template(text, also=groups)
        except BatchConfigError as error:
            raise ValueError(f"{error.what}{_advice(text, info)}") from None
        if "\n" in text or "\r" in text:
            raise ValueError("must be one line; for several lines in YAML, fold them with >-")
        return text

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.header is None and self.trailer is None:
            raise ValueError("say header, trailer or both")
        return self


def _advice(text: str, info: ValidationInfo) -> str:
    if "sum" not in text:
        return ""
    if info.field_name == "header":
        return "; sums are known only in the trailer, because the header is written before the leads"
    return "; sum.<label> needs the label in sums"
