"""The steps that a value takes on its way into the file: `transform: [trim, title, {cut: 40}]`.

A step is a bare word or a mapping with one key. `Transform` is the list of all there are: its fields are the keys
that a batch file may use, their classes stand in the modules beside this one.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_serializer, model_validator

from leadferry.mapping.dates import Date
from leadferry.mapping.numbers import Number
from leadferry.mapping.phone import Phone
from leadferry.mapping.privacy import Hash, Mask, Pseudonym
from leadferry.mapping.python_function import PythonFunction
from leadferry.mapping.step import Context, Options
from leadferry.mapping.text import WORDS, Boolean, Cut, Lookup, Pad, Regex, Replace
from leadferry.mapping.typed import Typed

if TYPE_CHECKING:
    import polars as pl
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


def _short(key: str, kind: type, options: type[Options]) -> BeforeValidator:
    """Let the one option that matters stand alone: `{cut: 40}` for `{cut: {length: 40}}`."""

    def spell_out(value: Any) -> Any:
        return {key: value} if isinstance(value, kind) and not isinstance(value, bool) else value

    return BeforeValidator(spell_out, json_schema_input_type=kind | options)


def _parts(value: Any) -> Any:
    return {"parts": value} if isinstance(value, dict) and not isinstance(value.get("parts"), dict) else value


class Transform(BaseModel):
    """One step: exactly one of the fields is set, which is how it is written in the batch file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    word: str | None = None
    regex: Regex | None = Field(
        default=None, description="Replace what a pattern matches, or take a part out."
    )
    replace: (
        Annotated[Replace, BeforeValidator(_parts, json_schema_input_type=dict[str, str | int])] | None
    ) = Field(default=None, description="Replace parts of the value by others, literally.")
    lookup: Lookup | None = Field(default=None, description="Replace whole values by what a table says.")
    number: Number | None = Field(
        default=None, description="Round a number and write it with the recipient's marks."
    )
    date: Annotated[Date, _short("format", str, Date)] | None = Field(
        default=None, description="Write a date; a format such as %m/%d/%Y, or options."
    )
    phone: Phone | None = Field(default=None, description="Check a phone number and write it in one form.")
    cut: Annotated[Cut, _short("length", int, Cut)] | None = Field(
        default=None, description="Keep the first characters."
    )
    pad: Pad | None = Field(default=None, description="Fill up to a width.")
    boolean: Boolean | None = Field(default=None, description="Write a truth value in the recipient's words.")
    mask: Annotated[Mask, _short("show", str, Mask)] | None = Field(
        default=None, description="Hide all but a part; last4, first2, email, nothing."
    )
    hash: Annotated[Hash, _short("algorithm", str, Hash)] | None = Field(
        default=None, description="Write the value's hash; sha256 or md5, or options."
    )
    pseudonym: Annotated[Pseudonym, _short("key", str, Pseudonym)] | None = Field(
        default=None, description="Write a token that is stable per key; the key's connection, or options."
    )
    type: Annotated[Typed, _short("to", str, Typed)] | None = Field(
        default=None, description="Make the text a number, date or truth value for formats that know them."
    )
    python: Annotated[PythonFunction, _short("function", str, PythonFunction)] | None = Field(
        default=None,
        description="Call a Python function with a pandas DataFrame; its dotted name, or options.",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_one_known_step(cls, step: Any) -> Any:
        if isinstance(step, str):
            return {"word": _known_word(step)}
        if isinstance(step, dict):
            if len(step) != 1:
                raise ValueError(
                    "a transform is a bare word or a mapping with one key; write two transforms as two list items"
                )
            name = str(next(iter(step)))
            if name in WORDS:
                raise ValueError(f"transform {name!r} has no options: write the bare word {name}")
            return {_known_name(name): next(iter(step.values()))}
        if isinstance(step, cls):
            return step
        raise ValueError(f"a transform is a bare word or a mapping with one key; {_allowed()}")

    @model_serializer(mode="plain")
    def _as_written(self) -> str | dict[str, Any]:
        if self.word is not None:
            return self.word
        return {self.name: self.options.model_dump(mode="json", by_alias=True)}

    @property
    def name(self) -> str:
        """The word or key in the batch file."""
        return self.word or next(name for name in _WITH_OPTIONS if getattr(self, name) is not None)

    @property
    def options(self) -> Options:
        """The options; only for a transform that is not a bare word."""
        return cast("Options", getattr(self, self.name))

    @property
    def reads(self) -> list[str]:
        """Names of lead fields that it needs besides the field's own."""
        return self.python.reads if self.python else []

    def apply(self, values: pl.Series, context: Context) -> pl.Series:
        """Return the column after this step; a value that it cannot handle becomes null. See `Options.apply`."""
        if self.word is not None:
            return WORDS[self.word](values)
        return self.options.apply(values, context)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe what may be written: one of the words, or an object with exactly one key."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        keys = {name: _not_null(one) for name, one in schema.get("properties", {}).items() if name != "word"}
        as_object = {
            "type": "object",
            "properties": keys,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        words = {"type": "string", "enum": list(WORDS)}
        title, description = (
            schema.get("title", "Transform"),
            "One step: a bare word, or one key with its options.",
        )
        schema.clear()
        schema.update({"title": title, "description": description, "anyOf": [words, as_object]})
        return reference


_WITH_OPTIONS = tuple(name for name in Transform.model_fields if name != "word")


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default", "title"}}
    return rest | ({"anyOf": kinds} if len(kinds) > 1 else kinds[0] if kinds else {})


def _allowed() -> str:
    return f"allowed are {', '.join(WORDS)} as bare words, and with options {', '.join(_WITH_OPTIONS)}"


def _unknown(name: str) -> ValueError:
    near = difflib.get_close_matches(name, [*WORDS, *_WITH_OPTIONS], n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown transform {name!r}: {suggestion}{_allowed()}")


def _known_word(name: str) -> str:
    if name in _WITH_OPTIONS:
        raise ValueError(f"transform {name!r} needs options: write {{{name}: …}}")
    if name not in WORDS:
        raise _unknown(name)
    return name


def _known_name(name: str) -> str:
    if name not in _WITH_OPTIONS:
        raise _unknown(name)
    return name
