"""What is in a request: the mapped leads as JSON, form, XML or by a template; or the bytes of a file.

The labels of the mapped fields are the names the buyer sees; dots in them make a tree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadferry.destinations.parcel import OutgoingFile
from leadferry.errors import PermanentDeliveryError, RenderError
from leadferry.templates import render

if TYPE_CHECKING:
    from lxml.etree import _Element


@dataclass(frozen=True)
class Record:
    """One mapped lead, as the records file has it."""

    lead_id: int
    fields: Mapping[str, Any]
    """Label → value: text, number, true or false, or None for a missing one."""


@dataclass(frozen=True)
class Payload:
    """The body of one request; may be read several times, the same each time."""

    media_type: str
    size: int
    """Bytes."""
    blocks: Callable[[], Iterable[bytes]]


def of_bytes(media_type: str, content: bytes) -> Payload:
    """Return a payload that is in memory."""
    return Payload(media_type, len(content), lambda: [content])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def problems(self, columns: Sequence[str]) -> list[str]:  # noqa: ARG002  (forms and templates take any name)
        """Say which labels this body cannot have, a sentence each."""
        return []


class _Tree(_Body):
    nest: bool = Field(
        default=True, description="Make objects of dotted labels: `address.city` → address → city."
    )
    omit_empty: bool = Field(
        default=False, description="Leave out what has no value, instead of writing null."
    )
    lead_id_as: str | None = Field(
        default=None,
        min_length=1,
        description="Also give the lead's id, under this name, for the buyer to echo.",
    )

    def problems(self, columns: Sequence[str]) -> list[str]:
        """A label cannot be a value and an object at once, and no two may be the same."""
        names = [*columns, *([self.lead_id_as] if self.lead_id_as else [])]
        found = [f"label {one!r} stands twice in the body" for one in {*names} if names.count(one) > 1]
        if not self.nest:
            return found
        below = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
        return found + [
            f"label {one!r} is a value and has others below it; set nest: false"
            for one in names
            if one in below
        ]

    def tree(self, record: Record) -> dict[str, Any]:
        """Return one lead as nested objects."""
        fields = {**({self.lead_id_as: record.lead_id} if self.lead_id_as else {}), **record.fields}
        found: dict[str, Any] = {}
        for label, value in fields.items():
            if value is None and self.omit_empty:
                continue
            *path, name = label.split(".") if self.nest else [label]
            inner = found
            for step in path:
                inner = inner.setdefault(step, {})
            inner[name] = value
        return found


class JsonBody(_Tree):
    """An object for a lead, a list of them for a chunk."""

    type: Literal["json"] = "json"
    list_under: str | None = Field(
        default=None, min_length=1, description="Put the list of a chunk into an object, under this name."
    )

    def build(self, records: Sequence[Record], variables: Mapping[str, Any], *, chunk: bool) -> Payload:  # noqa: ARG002
        """Write the leads; compact, UTF-8."""
        trees: Any = [self.tree(one) for one in records]
        if not chunk:
            (trees,) = trees
        elif self.list_under:
            trees = {self.list_under: trees}
        content = json.dumps(trees, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return of_bytes("application/json", content.encode())


class FormBody(_Body):
    """The fields as a web form sends them; one lead in a request."""

    type: Literal["form"] = "form"

    def build(self, records: Sequence[Record], variables: Mapping[str, Any], *, chunk: bool) -> Payload:  # noqa: ARG002
        """Write the fields that have a value."""
        from urllib.parse import urlencode

        pairs = [(label, _text(value)) for label, value in records[0].fields.items() if value is not None]
        return of_bytes("application/x-www-form-urlencoded", urlencode(pairs).encode())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_XML_NAME = re.compile(r"[^\W\d][\w-]*")


class XmlBody(_Tree):
    """An element for a lead, a list of them for a chunk."""

    type: Literal["xml"] = "xml"
    element: Annotated[str, Field(pattern=r"^[A-Za-z_][\w-]*$")] = Field(
        default="lead", description="Name of a lead's element."
    )
    root: Annotated[str, Field(pattern=r"^[A-Za-z_][\w-]*$")] = Field(
        default="leads", description="Name of the element around the leads of a chunk."
    )

    def problems(self, columns: Sequence[str]) -> list[str]:
        """Labels become names of elements."""
        names = [*columns, *([self.lead_id_as] if self.lead_id_as else [])]
        bad = [
            f"label {name!r} cannot be the name of an XML element"
            for name in names
            if not all(_XML_NAME.fullmatch(part) for part in (name.split(".") if self.nest else [name]))
        ]
        return bad + super().problems(columns)

    def build(self, records: Sequence[Record], variables: Mapping[str, Any], *, chunk: bool) -> Payload:  # noqa: ARG002
        """Write the leads as UTF-8 with a declaration; characters that XML cannot have are left out."""
        from lxml import etree

        leads = [_element(self.element, self.tree(one)) for one in records]
        if chunk:
            whole = etree.Element(self.root)
            whole.extend(leads)
        else:
            (whole,) = leads
        return of_bytes("application/xml", etree.tostring(whole, xml_declaration=True, encoding="UTF-8"))


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _element(name: str, value: Any) -> _Element:
    from lxml import etree

    made = etree.Element(name)
    if isinstance(value, dict):
        made.extend(_element(inner, one) for inner, one in value.items())
    elif value is not None:
        made.text = _NOT_XML.sub("", _text(value))
    return made


class TemplateBody(_Body):
    """Any text, with `fields` (one lead) or `leads` (a chunk) filled in."""

    type: Literal["template"] = "template"
    text: str = Field(
        min_length=1,
        description="The body. `{{ fields['Email'] | tojson }}` in JSON, `{{ fields['Email'] | e }}` in XML;"
        " in a chunk `{% for lead in leads %}` with lead.lead_id and lead.fields.",
    )
    media_type: str = Field(default="application/json", pattern=r"^[\w.+-]+/[\w.+-]+(; ?charset=utf-8)?$")

    def build(self, records: Sequence[Record], variables: Mapping[str, Any], *, chunk: bool) -> Payload:
        """Fill the template in and see that the result is what it says to be.

        Raises:
            PermanentDeliveryError: a field that does not exist, or a value that is not escaped.
        """
        try:
            text = render(self.text, {**variables, **template_variables(records, chunk=chunk)})
        except RenderError:
            # Its text may hold what was asked for, which may be a value.
            raise _unusable("cannot be filled in: it asks for something that does not exist") from None
        if not _is_well_formed(text, self.media_type):
            raise _unusable(f"is no {self.media_type} once filled in: escape values with | tojson or | e")
        return of_bytes(self.media_type, text.encode())


def template_variables(records: Sequence[Record], *, chunk: bool) -> dict[str, Any]:
    """Return what templates of a request may use beside the usual variables."""
    if chunk:
        return {"leads": [{"lead_id": one.lead_id, "fields": dict(one.fields)} for one in records]}
    return {"lead_id": records[0].lead_id, "fields": dict(records[0].fields)}


def _unusable(what: str) -> PermanentDeliveryError:
    return PermanentDeliveryError(
        f"The body template {what}", hint="Correct body.text in the batch file; this request was not sent"
    )


def _is_well_formed(text: str, media_type: str) -> bool:
    if "json" in media_type:
        try:
            json.loads(text)
        except ValueError:
            return False
    elif "xml" in media_type:
        from lxml import etree

        try:
            etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        except (etree.XMLSyntaxError, ValueError):
            return False
    return True


LeadsBody = Annotated[JsonBody | FormBody | XmlBody | TemplateBody, Field(discriminator="type")]


class RawBody(_Body):
    """The bytes of the file, as they are."""

    type: Literal["raw"] = "raw"

    def of_file(self, file: OutgoingFile, *, boundary: str) -> Payload:  # noqa: ARG002
        """Return the file, streamed from the disk."""
        return Payload(file.media_type, file.size, file.blocks)


class MultipartBody(_Body):
    """The file as a web page uploads it, `multipart/form-data`."""

    type: Literal["multipart"] = "multipart"
    field: str = Field(default="file", pattern=r"^[\w.\[\]-]+$", description="Name of the form's file field.")
    values: dict[Annotated[str, Field(pattern=r"^[\w.\[\]-]+$")], str] = Field(
        default={}, description="The form's other fields."
    )

    def of_file(self, file: OutgoingFile, *, boundary: str) -> Payload:
        """Return the form around the file, streamed from the disk; the boundary is the same for every try."""
        from urllib.parse import quote

        plain = re.sub(r'[^ -~]|["\\]', "_", file.name)
        name = f'filename="{plain}"' + (
            "" if plain == file.name else f"; filename*=UTF-8''{quote(file.name)}"
        )
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{one}"\r\n\r\n{value}\r\n'
            for one, value in self.values.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{self.field}"; {name}\r\n'
            f"Content-Type: {file.media_type}\r\n\r\n"
        )
        before, after = "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()

        def blocks() -> Iterable[bytes]:
            yield before
            yield from file.blocks()
            yield after

        return Payload(
            f"multipart/form-data; boundary={boundary}", len(before) + file.size + len(after), blocks
        )


FileBody = Annotated[RawBody | MultipartBody, Field(discriminator="type")]
