"""How a file of leads is laid out: its type, encoding and columns, as said or as found."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from leadferry.errors import LeadImportError
from leadferry.zones import time_zone

DELIMITERS = ",;\t|"

FileType = Literal["csv", "ndjson", "xlsx"]

_TYPES: dict[str, FileType] = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".xlsx": "xlsx",
}  # fmt: skip


class Layout(BaseModel):
    """How leads stand in a file; all of it has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: FileType | None = Field(
        default=None, description="csv, ndjson or xlsx; by the file's ending when left out."
    )
    names: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default={},
        description="Column or key in the file: name of the lead's field. Others keep their names.",
    )
    external_id: str | None = Field(
        default=None, description="Column that tells leads apart; a known one is not loaded again."
    )
    received_at: str | None = Field(
        default=None, description="Column with the time of arrival; the time of the import when left out."
    )
    received_format: str | None = Field(
        default=None, description="Form of that time, such as %m/%d/%Y %H:%M; ISO 8601 when left out."
    )
    timezone: str = Field(default="UTC", description="Zone of times without an offset.")
    encoding: str | None = Field(
        default=None, description="Of a text file; UTF-8, or what its byte order mark says, when left out."
    )
    delimiter: str | None = Field(
        default=None, description="Between the columns of a CSV file; found out when left out."
    )
    sheet: str | None = Field(default=None, description="Of an XLSX file; the first when left out.")

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, value: str | None) -> str | None:
        try:
            codecs.lookup(value or "utf-8")
        except LookupError:
            raise ValueError(f"there is no encoding {value!r}; try utf-8, cp1252 or utf-16") from None
        return value

    @field_validator("delimiter")
    @classmethod
    def _delimiter_is_one_character(cls, value: str | None) -> str | None:
        value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
        if value is not None and (len(value) != 1 or value in '\r\n"'):
            raise ValueError("must be one character, or tab")
        return value

    @field_validator("timezone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:

        try:
            time_zone(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"there is no time zone {value!r}; write it as America/New_York") from None
        return value

    @model_validator(mode="after")
    def _format_needs_a_column(self) -> Self:
        if self.received_format and not self.received_at:
            raise ValueError("received_format needs received_at, the column that it is the form of")
        return self

    def type_of(self, path: Path) -> FileType:
        """Return the type of a file.

        Raises:
            LeadImportError: its ending says nothing, and no type was given.
        """
        found = self.type or _TYPES.get(path.suffix.lower())
        if found is None:
            raise LeadImportError(
                f"The ending of {path.name} is none of {', '.join(_TYPES)}", hint="Say what it is with --type"
            )
        return found
