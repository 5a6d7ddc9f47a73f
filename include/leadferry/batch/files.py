"""The files of a batch: name, format, how the leads are divided among them, and what accompanies them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leadferry.batch.control import Control
from leadferry.formats import Format
from leadferry.packing import Compression, Encryption
from leadferry.packing.pipeline import Packing
from leadferry.packing.zip import Zip
from leadferry.templates import FileNameTemplate, Template
from leadferry.units import Size

ID_PATTERN = r"^[a-z][a-z0-9_]*$"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(_Model):
    """Where a part of the file ends and the next one begins."""

    rows: int | None = Field(default=None, ge=1, description="Most leads in one part.")
    bytes: Annotated[Size, Field(ge=1000)] | None = Field(
        default=None,
        description="Most bytes of one part as it is sent, after compression and encryption, such as 10MB.",
    )

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.rows is None and self.bytes is None:
            raise ValueError("say rows, bytes or both")
        return self


class Segment(_Model):
    """One file for each value of a lead field."""

    by: str = Field(min_length=1, description="The lead field whose values divide the leads.")
    values: list[str] = Field(
        min_length=1,
        description="The values that get files of their own; named here, because they stand in file names.",
    )
    unknown: Literal["default", "withhold"] = Field(
        default="default",
        description="Leads without a value, or with one that is not listed: into the default file, or withheld.",
    )
    default: str = Field(default="other", min_length=1, description="`file.segment` of the default file.")

    @model_validator(mode="after")
    def _values_can_be_met(self) -> Self:
        for index, value in enumerate(self.values):
            if value != value.strip() or not value:
                raise ValueError(
                    f"no lead is ever in segment {value!r}: white space at the ends of values does not count"
                )
            if value in self.values[:index]:
                raise ValueError(f"{value!r} stands twice in values")
        return self

    @property
    def names(self) -> list[str]:
        """Every segment that a lead may be in."""
        return self.values if self.unknown == "withhold" else [*self.values, self.default]


class OutputFile(_Model):
    """One file that is rendered from the claimed leads; or several, when it is divided."""

    id: str = Field(default="leads", pattern=ID_PATTERN)
    name: FileNameTemplate = Field(
        description="Template of the file name, for example {{ batch.id }}_{{ delivery.date }}.csv"
    )
    format: Format
    fields: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Labels of the fields in this file, in this order; all fields of the batch when left out.",
    )
    compress: Compression | None = Field(
        default=None, description="gzip, zip or zstd; the ending is added to the name."
    )
    encrypt: Encryption | None = Field(
        default=None, description="Encrypt after compressing: zip_aes, pgp, age or xlsx_password."
    )
    split: Split | None = Field(default=None, description="Divide into parts by number of leads or bytes.")
    segment: Segment | None = Field(default=None, description="Divide into files by the value of a field.")
    control: Control | None = Field(
        default=None, description="A first and a last line with counts and sums, in text formats."
    )
    checksum: Literal["sha256"] | None = Field(
        default=None,
        description="Also send a file with the checksum, named like the file with .sha256 behind it.",
    )

    @property
    def packing(self) -> Packing:
        """What happens to the rendered bytes."""
        return Packing(compress=self.compress, encrypt=self.encrypt)

    @property
    def texts(self) -> str:
        """All templates in which the number of parts may be told."""
        control = self.control
        return " ".join([self.name, *((control.header or "", control.trailer or "") if control else ())])

    def columns(self, labels: Sequence[str]) -> list[str]:
        """Return the labels in this file, of all the batch's."""
        return list(labels) if self.fields is None else self.fields

    @model_validator(mode="after")
    def _can_be_packed(self) -> Self:
        for problem in self.packing.problems(format_type=self.format.type):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _has_room_for_control_records(self) -> Self:
        if self.control is None:
            return self
        if not self.format.takes_control_records:
            raise ValueError(
                f"control: a file of type {self.format.type} has no room for control records; text formats have"
            )
        return self

    @model_validator(mode="after")
    def _parts_have_different_names(self) -> Self:
        for divided, variable in ((self.split, "file.part"), (self.segment, "file.segment")):
            if divided is not None and not re.search(rf"\b{re.escape(variable)}\b", self.name):
                raise ValueError(
                    f"the name must contain {{{{ {variable} }}}}, so that the parts have different names"
                )
        if self.split is not None and self.split.bytes is not None and "file.parts" in self.texts:
            raise ValueError(
                "the number of parts is not known beforehand with split.bytes; leave {{ file.parts }} out"
            )
        return self


class Bundle(_Model):
    """One zip file that holds several files, or all parts of one, and goes in their place."""

    id: str = Field(pattern=ID_PATTERN, description="Destinations name it under `files`, like a file.")
    name: FileNameTemplate = Field(
        description="Template of the zip file's name; .zip is added when it is not there."
    )
    files: list[str] = Field(
        min_length=1, description="Ids of the files inside, in this order; they are not sent by themselves."
    )
    level: int = Field(default=6, ge=1, le=9, description="Of compression: 1 is fastest, 9 smallest.")
    encrypt: Encryption | None = Field(
        default=None, description="zip_aes, or pgp or age around the whole zip file."
    )
    checksum: Literal["sha256"] | None = Field(
        default=None, description="Also send a file with the checksum of the zip file."
    )

    @property
    def packing(self) -> Packing:
        """What happens to the files inside."""
        zipped = None if self.encrypt is not None and self.encrypt.compresses else Zip(level=self.level)
        return Packing(compress=zipped, encrypt=self.encrypt)

    @model_validator(mode="after")
    def _can_be_packed(self) -> Self:
        for problem in self.packing.problems(format_type="zip"):
            raise ValueError(problem)
        return self


class Manifest(_Model):
    """A list of the delivery's files, sent after them."""

    name: Template = Field(
        default="{{ batch.id }}_{{ delivery.date }}_{{ delivery.number }}.manifest.json", min_length=1
    )
    format: Literal["json", "csv"] = "json"


class DoneMarker(_Model):
    """An empty file that says that everything else is there; sent last of all."""

    name: Template = Field(
        default="{{ batch.id }}_{{ delivery.date }}_{{ delivery.number }}.done", min_length=1
    )
