"""The settings of a workbook that have an inside of their own, and what their values may be."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from leadferry.formats.xlsx.names import FORBIDDEN, LONGEST_TITLE, units
from leadferry.templates import Template

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_LONGEST_LIST = 255
_LONGEST_NUMBER_FORMAT = 255


def _title(text: str) -> str:
    literal = _JINJA.sub("", text)
    if bad := re.search(FORBIDDEN, literal):
        raise ValueError(f"a sheet's name cannot hold {bad[0]!r}; Excel forbids [ ] : * ? / \\")
    if units(literal) > LONGEST_TITLE:
        raise ValueError(f"a sheet's name has at most {LONGEST_TITLE} characters")
    return text


SheetTitle = Annotated[Template, AfterValidator(_title)]
"""A template for the name of a sheet; what stands in it literally must be allowed by Excel."""


def _color(text: str) -> str:
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
        raise ValueError(f"{text!r} is no colour; write it as '#1F4E78', in quotes")
    return text.upper()


Color = Annotated[str, AfterValidator(_color)]


def _number_format(text: str) -> str:
    bare = re.sub(r'"[^"]*"|\\.|_.|\*.', "", text)
    if (
        not text.strip()
        or len(text) > _LONGEST_NUMBER_FORMAT
        or re.search(r'["\x00-\x1f]', bare)
        or bare.count("[") != bare.count("]")
        or bare.count(";") > 3  # noqa: PLR2004 - positive; negative; zero; text
    ):
        raise ValueError(f"{text!r} is no number format of Excel; examples: '#,##0.00', 'dd/mm/yyyy', '0%'")
    return text


NumberFormat = Annotated[str, AfterValidator(_number_format)]


def _choices(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not value.strip() or re.search(r"[,\x00-\x1f]", value):
            raise ValueError(f"{value!r} cannot be a choice: Excel takes no comma, line break or empty text")
    if units(",".join(value.replace('"', '""') for value in values)) > _LONGEST_LIST:
        raise ValueError(f"the choices have more than the {_LONGEST_LIST} characters that Excel takes in all")
    return values


Choices = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_choices)]

Width = Annotated[float, Field(gt=0, le=255)]
Aggregate = Literal["sum", "average", "count", "min", "max"]


def _printable(text: str) -> str:
    if re.search(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]", text):
        raise ValueError("there is a control character in it, which Excel forbids")
    return text


Note = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_printable)]
Label = Annotated[str, Field(max_length=100), AfterValidator(_printable)]


class Chart(BaseModel):
    """A sheet of its own that counts the leads by a field and shows the counts as a chart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str = Field(description="The field whose values are counted.")
    kind: Literal["bar", "column", "line", "pie"] = "bar"
    title: Template | None = Field(
        default=None, description="Above the chart; `Leads by <field>` without it."
    )
    sheet: SheetTitle = Field(
        default="Summary", description="Name of the sheet with the counts and the chart."
    )
    most: int = Field(
        default=20,
        ge=2,
        le=255,
        description="The values with most leads, so many; the rest is one row `Other`. A line has all values.",
    )


class TemplateBook(BaseModel):
    """The user's own workbook, with logo and styles, into which the leads are written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(
        min_length=1,
        description="An .xlsx file, relative to the folder that holds config/: config/templates/acme.xlsx.",
    )
    at: str = Field(
        default="A2",
        min_length=1,
        description="The first lead's first cell: a name defined in the workbook, or Sheet!A6, or A6 of the first sheet.",
    )
