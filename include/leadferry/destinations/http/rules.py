"""What a buyer's answer means: ordered rules from status and body to an outcome; the first that fits decides.

An answer that no rule knows is never a yes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from leadferry.destinations.http.json_path import MISSING, JsonPath, value_at
from leadferry.states import Answer

if TYPE_CHECKING:
    from lxml.etree import _Element

LONGEST_TEXT = 200
"""Characters of a message or id that are kept."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_xpath(expression: str) -> str:
    from lxml import etree

    try:
        etree.XPath(expression)
    except etree.XPathError:
        raise ValueError("is no XPath expression, such as //status or string(/reply/@code)") from None
    return expression


def _known_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern


XPathText = Annotated[str, AfterValidator(_known_xpath)]
Pattern = Annotated[str, AfterValidator(_known_pattern)]

Status = Annotated[int, Field(ge=100, le=599)] | Literal["2xx", "3xx", "4xx", "5xx"]
"""One status code, or all of a hundred."""


@dataclass(frozen=True)
class Body:
    """An answer's body, read as what a rule asks for; what cannot be read so has no values."""

    text: str
    document: Any = MISSING
    """A part of the JSON in place of the whole, for an answer to several leads."""

    @cached_property
    def json(self) -> Any:
        """The JSON; `MISSING` where the text is none."""
        if self.document is not MISSING:
            return self.document
        try:
            return json.loads(self.text)
        except ValueError:
            return MISSING

    @cached_property
    def xml(self) -> _Element | None:
        """The root of the XML, without DTD or network; None where the text is none."""
        from lxml import etree

        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            return etree.fromstring(self.text.encode(), parser)
        except (etree.XMLSyntaxError, ValueError):
            return None

    def at_json(self, path: str) -> list[str]:
        """Return the value at a JSON path as text; nothing for a missing one or null."""
        found = MISSING if self.json is MISSING else value_at(path, self.json)
        return [] if found is MISSING or found is None else [_as_text(found)]

    def at_xpath(self, expression: str) -> list[str]:
        """Return every text that an XPath expression finds."""
        if self.xml is None:
            return []
        found = self.xml.xpath(expression)
        several = found if isinstance(found, list) else [found]
        texts = ["".join(one.itertext()) if hasattr(one, "itertext") else _as_text(one) for one in several]
        return [text.strip() for text in texts]


def _as_text(value: Any) -> str:
    """Write a value as people compare it: `true`, `12`, `ok`; lists and objects as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


class When(_Model):
    """What an answer must be for a rule to fit; everything that is named must hold."""

    status: list[Status] | None = Field(
        default=None, min_length=1, description="Status codes, such as 201 or 2xx; any when left out."
    )
    json_: JsonPath | None = Field(
        default=None,
        alias="json",
        description="Look at the value at this path; the whole body when left out.",
    )
    xpath: XPathText | None = Field(default=None, description="Look at what this finds in an XML body.")
    equals: str | bool | int | float | None = Field(default=None, description="It is exactly this.")
    contains: str | None = Field(
        default=None, min_length=1, description="This stands in it; case does not matter."
    )
    word: str | None = Field(
        default=None,
        min_length=1,
        description="This stands in it as a word of its own: `valid` does not fit `invalid`. Case does not matter.",
    )
    matches: Pattern | None = Field(default=None, description="This regular expression fits a part of it.")
    exists: bool | None = Field(default=None, description="It is there (true) or not (false).")

    model_config = ConfigDict(
        extra="forbid", frozen=True, serialize_by_alias=True, validate_by_alias=True, validate_by_name=True
    )

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if self.json_ is not None and self.xpath is not None:
            raise ValueError("has both json and xpath; make it two rules")
        tests = [name for name in _TESTS if getattr(self, name) is not None]
        if len(tests) > 1:
            raise ValueError(f"has {' and '.join(tests)}; make it two rules")
        if (self.json_ or self.xpath) and not tests:
            raise ValueError(f"says where to look but not for what: add one of {', '.join(_TESTS)}")
        if self.status is None and not tests:
            raise ValueError(f"would fit every answer: add status, or one of {', '.join(_TESTS)}")
        return self

    def fits(self, status: int, body: Body) -> bool:
        """Tell whether an answer is what this asks for."""
        if self.status is not None and not {status, f"{status // 100}xx"} & set(self.status):
            return False
        found = self._looked_at(body)
        if self.exists is not None:
            return bool(found) is self.exists
        if all(getattr(self, name) is None for name in _TESTS):
            return True
        return any(self._holds(text) for text in found)

    def _looked_at(self, body: Body) -> list[str]:
        if self.json_ is not None:
            return body.at_json(self.json_)
        if self.xpath is not None:
            return body.at_xpath(self.xpath)
        whole = body.text if body.document is MISSING else _as_text(body.document)
        return [whole.strip()] if whole.strip() else []

    def _holds(self, text: str) -> bool:
        if self.equals is not None:
            return text == _as_text(self.equals)
        if self.contains is not None:
            return self.contains.casefold() in text.casefold()
        if self.word is not None:
            return re.search(rf"(?<!\w){re.escape(self.word)}(?!\w)", text, re.IGNORECASE) is not None
        return self.matches is not None and re.search(self.matches, text) is not None


_TESTS = ("equals", "contains", "word", "matches", "exists")


class AnswerRule(_Model):
    """One line of the table from answers to outcomes."""

    when: When
    then: Answer = Field(description="accepted, rejected, duplicate, incomplete, or retry: send it again.")


class Place(_Model):
    """Where something stands in an answer: one of the three."""

    json_: JsonPath | None = Field(default=None, alias="json", description="At this path in a JSON body.")
    xpath: XPathText | None = Field(default=None, description="What this finds in an XML body.")
    matches: Pattern | None = Field(
        default=None,
        description="What this regular expression finds in the body; its first group if it has one.",
    )

    model_config = ConfigDict(
        extra="forbid", frozen=True, serialize_by_alias=True, validate_by_alias=True, validate_by_name=True
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(one is not None for one in (self.json_, self.xpath, self.matches)) != 1:
            raise ValueError("needs exactly one of json, xpath, matches")
        return self

    def text(self, body: Body) -> str | None:
        """Return what stands there, shortened; None when nothing does."""
        if self.json_ is not None:
            found = body.at_json(self.json_)
        elif self.xpath is not None:
            found = body.at_xpath(self.xpath)
        else:
            whole = body.text if body.document is MISSING else _as_text(body.document)
            at = re.search(self.matches or "", whole)
            found = [at[1] if at.re.groups and at[1] is not None else at[0]] if at else []
        return found[0].strip()[:LONGEST_TEXT] or None if found else None


class Capture(_Model):
    """What is kept of an answer, lead by lead."""

    buyer_id: Place | None = Field(default=None, description="The buyer's own id for the lead.")
    price: Place | None = Field(default=None, description="What the buyer pays for the lead.")
    message: Place | None = Field(
        default=None,
        description="The buyer's words; the lead's own values in it are replaced by their labels.",
    )


class Items(_Model):
    """Where an answer to a chunk speaks of each lead."""

    at: JsonPath = Field(description="Path to the list of answers.")
    lead: JsonPath | None = Field(
        default=None,
        description="Path, within one of them, to the lead's id; when left out they are in the order of the leads.",
    )

    def of(self, body: Body, lead_ids: tuple[int, ...]) -> Mapping[int, Body]:
        """Return for each lead its part of the answer; leads that it does not speak of are missing."""
        items = value_at(self.at, body.json) if body.json is not MISSING else MISSING
        if not isinstance(items, list):
            return {}
        if self.lead is None:
            return dict(zip(lead_ids, map(_part, items), strict=True)) if len(items) == len(lead_ids) else {}
        return dict(self._by_echo(items, known=frozenset(lead_ids)))

    def _by_echo(self, items: list[Any], *, known: frozenset[int]) -> Iterator[tuple[int, Body]]:
        for item in items:
            echo = value_at(self.lead or "$", item)
            if isinstance(echo, str | int) and str(echo).isdigit() and int(echo) in known:
                yield int(echo), _part(item)


def _part(item: Any) -> Body:
    return Body("", document=item)


def price_of(text: str | None) -> Decimal | None:
    """Read a price such as `12.50`, `$12.50` or `1,250.00 USD`; None where there is no number."""
    found = re.search(r"-?\d[\d,]*(?:\.\d+)?", text or "")
    try:
        return Decimal(found[0].replace(",", "")) if found else None
    except InvalidOperation:
        return None
