"""The recipient's XML Schema: read with the batch file, kept with the frozen config, and held against every document.

The schema travels as text, so that a delivery is checked against what stood in the config folder when it was claimed,
wherever it is rendered. The document is checked while it is written, piece by piece, in a parser that keeps nothing.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from leadferry.errors import RenderError
from leadferry.project import config_folder

if TYPE_CHECKING:
    from lxml import etree

_XS = "{http://www.w3.org/2001/XMLSchema}"
_BASE = "leadferry:///"
"""Stands before names inside the config folder while a schema is compiled, so that nothing else can be meant."""

FOLDER = "config"
"""Under this key of pydantic's validation context stands the config folder that the batch file was found in."""


class XmlSchema(BaseModel):
    """A schema with everything that it includes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1, description="The schema's own file, below the config folder.")
    files: dict[str, str] = Field(min_length=1, description="The text of it and of all that it includes.")

    def compile(self) -> etree.XMLSchema:
        """Return the schema, ready to check documents.

        Raises:
            ValueError: it is no XML Schema.
        """
        from lxml import etree

        parser = _parser()
        parser.resolvers.add(_resolver(self.files))
        try:
            document = etree.fromstring(self.files[self.path].encode(), parser, base_url=_BASE + self.path)
            return etree.XMLSchema(document)
        except (etree.XMLSyntaxError, etree.XMLSchemaParseError) as error:
            raise ValueError(f"{self.path} is no XML Schema: {str(error).replace(_BASE, '')}") from None


def _read(value: Any, info: ValidationInfo) -> Any:
    """Make the schema of the path in a batch file; what is frozen is complete already."""
    if not isinstance(value, str):
        return value
    folder = (info.context or {}).get(FOLDER) or config_folder()
    path = _inside(value.removeprefix("config/"), said=value)
    schema = XmlSchema(path=path, files=_with_includes(Path(folder), path))
    schema.compile()
    return schema


Schema = Annotated[XmlSchema, BeforeValidator(_read, json_schema_input_type=str)]
"""Written in a batch file as the path of an .xsd file in the config folder."""


def _inside(path: str, *, said: str) -> str:
    plain = posixpath.normpath(path)
    if PurePosixPath(plain).is_absolute() or plain.startswith("..") or "\\" in plain or ":" in plain:
        raise ValueError(f"{said!r} is not in the config folder; put a copy of the schema there")
    return plain


def _parser() -> etree.XMLParser:
    from lxml import etree

    return etree.XMLParser(no_network=True, resolve_entities=False, load_dtd=False)


def _with_includes(folder: Path, path: str) -> dict[str, str]:
    """Return the text of a schema and of all that it includes or imports, by their paths in the config folder."""
    from lxml import etree

    texts: dict[str, str] = {}
    waiting = [path]
    while waiting:
        name = waiting.pop()
        if name in texts:
            continue
        try:
            document = etree.fromstring((folder / name).read_bytes(), _parser(), base_url=name)
        except OSError:
            raise ValueError(f"there is no file {name} in the config folder {folder.name}/") from None
        except etree.XMLSyntaxError as error:
            raise ValueError(f"{name} is no XML: {error}") from None
        texts[name] = etree.tostring(document, encoding="unicode")
        waiting += _named_in(document, name)
    return dict(sorted(texts.items()))


def _named_in(document: etree._Element, name: str) -> list[str]:
    places = [
        place
        for kind in ("include", "import", "redefine", "override")
        for one in document.iter(f"{_XS}{kind}")
        if (place := one.get("schemaLocation"))
    ]
    return [_inside(posixpath.join(posixpath.dirname(name), place), said=place) for place in places]


def _resolver(files: dict[str, str]) -> etree.Resolver:
    from lxml import etree

    class FromTexts(etree.Resolver):  # type: ignore[misc] # lxml comes without types
        def resolve(self, system_url: str, public_id: str, context: Any) -> Any:  # noqa: ARG002 - lxml's names
            text = files.get(system_url.removeprefix(_BASE))
            # An empty document, never the file system or the network.
            return self.resolve_string(text or "", context, base_url=system_url)

    return FromTexts()


class SchemaCheck:
    """Holds a document against a schema while it is written.

    Args:
        schema: the schema.
        opening: the document from its first byte to before its first record.
        closing: the rest of the document after its last record.
    """

    def __init__(self, schema: XmlSchema, *, opening: bytes, closing: bytes) -> None:
        from lxml import etree

        class Nothing:
            """Keeps nothing of what the parser reads."""

            def close(self) -> None:
                pass

        self._path, self._compiled = schema.path, schema.compile()
        self._opening, self._closing = opening, closing
        # huge_tree: a text may be longer than 10 MB; the document is our own.
        self._parser = etree.XMLParser(
            target=Nothing(), schema=self._compiled, no_network=True, huge_tree=True
        )
        self._before_records = opening.count(b"\n")
        self._lines = 0
        self._feed(opening, records=b"", lines_before=0)

    def records(self, piece: bytes) -> None:
        """Check the next complete records.

        Raises:
            RenderError: they break a rule of the schema; names line and rule, never the value.
        """
        self._feed(piece, records=piece, lines_before=self._lines - self._before_records)

    def close(self) -> None:
        """Check the end of the document; see `records`."""
        self._feed(self._closing)
        self._parser.close()

    def _feed(self, piece: bytes, *, records: bytes | None = None, lines_before: int = 0) -> None:
        first = self._lines + 1
        self._parser.feed(piece)
        self._lines += piece.count(b"\n")
        if not len(self._parser.feed_error_log):
            return
        error = self._parser.feed_error_log[0]
        line = None if records is None else self._line_of(error, records)
        if line is not None:
            self._fail(f"line {lines_before + line}", error)
        last = max(first, self._lines)
        self._fail(f"line {first}" if first == last else f"between lines {first} and {last}", error)

    def _line_of(self, error: etree._LogEntry, records: bytes) -> int | None:
        """Find an error again in a document of these records alone, as a tree: the streaming parser knows no lines.

        What only the whole document breaks, such as a value that must not come twice, is not found.
        """
        from lxml import etree

        parser = etree.XMLParser(no_network=True, huge_tree=True)
        self._compiled.validate(etree.fromstring(self._opening + records + self._closing, parser))
        same = [one.line for one in self._compiled.error_log if one.message == error.message]
        return same[0] if same else None

    def _fail(self, where: str, error: etree._LogEntry) -> NoReturn:
        raise RenderError(
            f"the document does not fit the schema {self._path}: {where}, {_rule(error)}",
            hint="Correct the leads, the fields or the schema; nothing was sent, and the leads are back in the queue",
        )


_SPEAKING = frozenset({"ELEMENT_CONTENT", "CVC_ELT_1", "CVC_COMPLEX_TYPE_3_2_1", "CVC_COMPLEX_TYPE_4"})
"""Rules whose messages hold only names, which come from the batch file and the schema."""

_AFTER_THE_VALUE = {
    "CVC_PATTERN_VALID": "is not accepted by the pattern ",
    "CVC_ENUMERATION_VALID": "is not an element of the set ",
    "CVC_MININCLUSIVE_VALID": "is less than the minimum value allowed ",
    "CVC_MAXINCLUSIVE_VALID": "is greater than the maximum value allowed ",
    "CVC_DATATYPE_VALID_1_2_1": "is not a valid value of ",
    "CVC_DATATYPE_VALID_1_2_2": "is not a valid value of ",
    "CVC_DATATYPE_VALID_1_2_3": "is not a valid value of ",
    "CVC_LENGTH_VALID": "this differs from the allowed length of ",
    "CVC_MINLENGTH_VALID": "this underruns the allowed minimum length of ",
    "CVC_MAXLENGTH_VALID": "this exceeds the allowed maximum length of ",
}
"""For other rules, the words between the value and what the schema asks for; a value may hold the same words, so the last count."""


def _rule(error: etree._LogEntry) -> str:
    """Say which rule was broken, by which element or attribute; never a value."""
    kind = error.type_name.removeprefix("SCHEMAV_")
    message = error.message
    place = re.match(r"Element '([^']*)'(?:, attribute '([^']*)')?: ", message)
    element = f"element {place[1]!r}" if place else "an element"
    who = f"attribute {place[2]!r} of {element}" if place and place[2] else element
    rule = f"{who} breaks the rule {kind.lower().replace('_', '-')}"
    rest = message[place.end() :] if place else ""
    if kind in _SPEAKING and rest:
        return f"{rule}: {rest.rstrip('.')}"
    words = _AFTER_THE_VALUE.get(kind)
    asked = rest.rpartition(words)[2] if words and words in rest else ""
    return f"{rule}: {words}{asked.rstrip('.')}" if asked else rule
