"""XML with the buyer's own element names, nesting, attributes and namespace.

Names are checked when the batch file is read; the text between them is escaped column by column in polars, which is
several times faster than an element tree per lead and leaves nothing in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, BinaryIO, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from leadferry.errors import RenderError
from leadferry.formats.base import (
    ControlCharacters,
    FileContext,
    FormatBase,
    Tree,
    prepared,
    refuse_bad_columns,
    tree,
    without_control_characters,
)
from leadferry.formats.xml_schema import Schema, SchemaCheck
from leadferry.templates import Template, render

if TYPE_CHECKING:
    import polars as pl

_START = (
    "A-Z_a-z\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u02ff\\u0370-\\u037d\\u037f-\\u1fff\\u200c-\\u200d"
    "\\u2070-\\u218f\\u2c00-\\u2fef\\u3001-\\ud7ff\\uf900-\\ufdcf\\ufdf0-\\ufffd\\U00010000-\\U000effff"
)
_NAME = re.compile(f"[{_START}][{_START}0-9.\\-\\u00b7\\u0300-\\u036f\\u203f-\\u2040]*")
"""An NCName: https://www.w3.org/TR/xml-names/#NT-NCName."""

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_CHECKED_AT_ONCE = 500
"""Leads between two looks at what the schema says of them."""
_TEXT_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_ATTRIBUTE_ESCAPES = _TEXT_ESCAPES | {'"': "&quot;", "\t": "&#9;", "\n": "&#10;"}


def _is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None


def _xml_name(value: str) -> str:
    if not _is_name(value):
        raise ValueError(
            f"{value!r} is no XML name: it must begin with a letter or _ and go on with letters, digits, - . _"
        )
    return value


def _prefix(value: str) -> str:
    if _xml_name(value).lower().startswith("xml"):
        raise ValueError("prefixes that begin with xml are reserved")
    return value


def _uri(value: str) -> str:
    if not value or any(sign in value for sign in ' \t\r\n<>"{}|\\^`'):
        raise ValueError("must be a URI, such as https://example.com/leads/1")
    if value in {_XSI, "http://www.w3.org/XML/1998/namespace", "http://www.w3.org/2000/xmlns/"}:
        raise ValueError("this namespace belongs to XML itself")
    return value


XmlName = Annotated[str, AfterValidator(_xml_name)]


class Namespace(BaseModel):
    """The namespace of all elements."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: Annotated[str, AfterValidator(_uri)] = Field(
        description="The name that the recipient's schema gives."
    )
    prefix: Annotated[str, AfterValidator(_prefix)] | None = Field(
        default=None, description="Stands before every element's name; the default namespace when left out."
    )


class Xml(FormatBase):
    """A root element, in it an element per lead, in that an element (or attribute) per field."""

    extension: ClassVar[str] = "xml"
    media_type: ClassVar[str] = "application/xml"

    # Pydantic has a method `schema`, so the field has another name than its key.
    model_config = ConfigDict(serialize_by_alias=True, validate_by_alias=True, validate_by_name=True)

    type: Literal["xml"] = "xml"
    root: XmlName = Field(default="leads", description="Name of the outermost element.")
    record: XmlName = Field(default="lead", description="Name of the element of one lead.")
    names: dict[str, str] = Field(
        default={},
        description="Element for a field whose name is no XML name, {First Name: name.first}; @id makes an attribute.",
    )
    nested: bool = Field(
        default=True, description="Nest elements by the dots in field names: contact.name.first."
    )
    namespace: Namespace | None = None
    root_attributes: dict[XmlName, Template] = Field(
        default={},
        description="Attributes of the outermost element; lead.count is the number of leads in this file.",
    )
    null: Literal["omit", "empty", "nil"] = Field(
        default="omit",
        description="Where a lead has no value: no element, an empty element, or one with xsi:nil. Never an attribute.",
    )
    control_characters: ControlCharacters = Field(
        default="remove",
        description="For characters that XML forbids: remove, replace by U+FFFD (both reported), or fail.",
    )
    indent: int | None = Field(
        default=None,
        ge=1,
        le=8,
        description="Spaces per level, for readers; one lead per line when left out.",
    )
    encoding: Literal["utf-8", "ascii", "iso-8859-1", "windows-1252"] = Field(
        default="utf-8", description="Characters that it lacks become character references: nothing is lost."
    )

    schema_: Schema | None = Field(
        default=None,
        alias="schema",
        description="XML Schema in the config folder, such as schemas/acme.xsd; a file that does not fit is not sent.",
    )

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        for path in self.names.values():
            self._parts(path)
        return self

    def _parts(self, path: str) -> list[str]:
        """Split a path into names.

        Raises:
            ValueError: a part is no XML name, or an attribute is not the last.
        """
        parts = path.split(".") if self.nested else [path]
        for part in [*parts[:-1], parts[-1].removeprefix("@")]:
            _xml_name(part)
        return parts

    def _tree(self, columns: Sequence[str]) -> Tree:
        for name in self.names:
            if name not in columns:
                raise ValueError(f"names has {name!r}, which is no field; there is {', '.join(columns)}")
        paths = {name: self.names.get(name, name) for name in columns}
        for name, path in paths.items():
            try:
                self._parts(path)
            except ValueError as error:
                raise ValueError(f"field {name!r}: {error}; give it one under names") from None
        return tree(paths) if self.nested else _flat(paths)

    def problems(self, columns: Sequence[str]) -> list[str]:
        """See `FormatBase.problems`: every field needs an element of its own."""
        try:
            self._tree(columns)
        except ValueError as error:
            return [str(error)]
        return []

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        refuse_bad_columns(self, context)
        places = self._tree(context.columns)
        opening = self._encoded(self._opening(context))
        closing = self._encoded(f"</{self._qualified(self.root)}>\n")
        check = SchemaCheck(self.schema_, opening=opening, closing=closing) if self.schema_ else None
        out.write(opening)
        for frame in prepared(frames, context, without_control_characters(self.control_characters)):
            if not frame.is_empty():
                out.writelines(self._checked(self._records(frame, places), check))
        if check:
            check.close()
        out.write(closing)

    def _checked(self, records: list[str], check: SchemaCheck | None) -> Iterator[bytes]:
        """Yield the records as bytes, in pieces that are small enough to look for a broken rule once more."""
        at_once = _CHECKED_AT_ONCE if check else len(records)
        for start in range(0, len(records), at_once):
            piece = self._encoded("".join(records[start : start + at_once]))
            if check:
                check.records(piece)
            yield piece

    def _encoded(self, text: str) -> bytes:
        return text.encode(self.encoding, errors="xmlcharrefreplace")

    def _qualified(self, name: str) -> str:
        prefix = self.namespace.prefix if self.namespace else None
        return f"{prefix}:{name}" if prefix else name

    def _opening(self, context: FileContext) -> str:
        attributes: dict[str, str] = {}
        if self.namespace:
            prefix = self.namespace.prefix
            attributes[f"xmlns:{prefix}" if prefix else "xmlns"] = self.namespace.uri
        if self.null == "nil":
            attributes["xmlns:xsi"] = _XSI
        attributes |= self._root_attributes(context)
        told = "".join(f' {name}="{_escaped(value)}"' for name, value in attributes.items())
        return f'<?xml version="1.0" encoding="{self.encoding.upper()}"?>\n<{self._qualified(self.root)}{told}>\n'

    def _root_attributes(self, context: FileContext) -> dict[str, str]:
        counted = {**context.variables.get("lead", {}), "count": context.rows}
        variables = {**context.variables, "lead": counted}
        attributes = {name: render(text, variables) for name, text in self.root_attributes.items()}
        for name, value in attributes.items():
            if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", value):
                raise RenderError(f"root attribute {name!r} holds control characters, which XML cannot have")
        return attributes

    def _records(self, frame: pl.DataFrame, places: Tree) -> list[str]:
        import polars as pl

        record = self._branch(self.record, places, level=1)
        return frame.select(pl.all().cast(pl.String)).select(record.alias("record"))["record"].to_list()

    def _branch(self, name: str, places: Tree, *, level: int) -> pl.Expr:
        """Return the element with what is in it; null where nothing is, except for the record itself."""
        import polars as pl

        pad, end = self._line(level)
        tag, record = self._qualified(name), level == 1
        attributes = [_attribute(one[1:], column) for one, column in places.items() if one.startswith("@")]
        children = [
            self._element(one, below, level=level + 1)
            for one, below in places.items()
            if not one.startswith("@")
        ]
        inside = pl.concat_str([pl.lit(""), *children], ignore_nulls=True)
        opening = pl.concat_str([pl.lit(f"{pad}<{tag}"), *attributes], ignore_nulls=True)
        whole = pl.concat_str([opening, pl.lit(f">{end}"), inside, pl.lit(f"{pad}</{tag}>{end}")])
        bare = pl.concat_str([opening, pl.lit(f"/>{end}")])
        element = pl.when(inside == "").then(bare).otherwise(whole)
        if record:
            return element if end else element + "\n"
        return pl.when((inside != "") | (opening != f"{pad}<{tag}")).then(element)

    def _element(self, name: str, below: str | Tree, *, level: int) -> pl.Expr:
        """Return the element of a field, or of the fields below this name; null where it is left out."""
        import polars as pl

        if not isinstance(below, str):
            return self._branch(name, below, level=level)
        pad, end = self._line(level)
        tag = self._qualified(name)
        text = pl.col(below).str.replace_many(_TEXT_ESCAPES)
        element = pl.concat_str([pl.lit(f"{pad}<{tag}>"), text, pl.lit(f"</{tag}>{end}")])
        nothing = {"omit": None, "empty": f"{pad}<{tag}/>{end}", "nil": f'{pad}<{tag} xsi:nil="true"/>{end}'}
        return element.fill_null(pl.lit(nothing[self.null], dtype=pl.String))

    def _line(self, level: int) -> tuple[str, str]:
        return (" " * self.indent * level, "\n") if self.indent else ("", "")


def _flat(paths: Mapping[str, str]) -> Tree:
    places: Tree = {path: name for name, path in paths.items()}
    if len(places) < len(paths):
        raise ValueError("two fields have the same name")
    return places


def _attribute(name: str, column: str | Tree) -> pl.Expr:
    import polars as pl

    value = pl.col(str(column)).str.replace_many(_ATTRIBUTE_ESCAPES)
    return pl.concat_str([pl.lit(f' {name}="'), value, pl.lit('"')])


def _escaped(value: str) -> str:
    """Escape the value of an attribute that comes from the batch file."""
    return "".join(_ATTRIBUTE_ESCAPES.get(one, one) for one in value)
