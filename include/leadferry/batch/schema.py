"""The JSON Schema of the files under `config/`, for editors: completion, descriptions, red lines while typing.

It describes what a person writes in a file, which is less than what a batch is: keys that may be inherited are
not required, the recipient is the name of a file, and the id is not written at all.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

from leadferry.batch.files import ID_PATTERN
from leadferry.batch.load import Maintenance
from leadferry.batch.model import Batch, Recipient

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Kind = Literal["batch", "recipient", "defaults"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FIELDS = {
    "recipient": {
        "type": "string",
        "pattern": ID_PATTERN,
        "description": "Name of the recipient's file in config/recipients, without .yaml.",
    },
    "naming": {
        "type": "string",
        "format": "regex",
        "description": "Pattern that names of batches should fit; checked by `leadferry check`, not inherited.",
    },
    "mail_domains": {
        "type": "array",
        "items": {"type": "string"},
        "description": "The only domains that leads may be mailed to, such as acme.example or '*.acme.example'; not inherited.",
    },
    "maintenance": Maintenance.model_json_schema(),
}


def file_schema(kind: Kind = "batch") -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one kind of file, without references to anything outside of it."""
    schema = _batch_schema()
    if kind == "batch":
        return _document(schema, title="Leadferry batch", required=["name"])
    if kind == "defaults":
        for key in ("naming", "mail_domains", "maintenance"):
            schema["properties"][key] = _FIELDS[key]
        return _document(schema, title="Leadferry defaults", required=[])
    return _recipient_schema(schema)


def _batch_schema() -> dict[str, Any]:
    schema = Batch.model_json_schema()
    del schema["properties"]["id"]
    schema["properties"]["recipient"] = _FIELDS["recipient"]
    _let_inherit(schema, schema["$defs"], seen={})
    return schema


def _document(schema: dict[str, Any], *, title: str, required: list[str]) -> dict[str, Any]:
    schema = {**schema, "$schema": DIALECT, "title": title, "required": required}
    return _without_unused({key: value for key, value in schema.items() if key != "required" or value})


def _recipient_schema(batch: dict[str, Any]) -> dict[str, Any]:
    schema = Recipient.model_json_schema()
    del schema["properties"]["id"]
    definitions = {**batch.pop("$defs"), **schema.get("$defs", {})}
    part = {**batch, "description": "Keys of a batch that every batch for this recipient inherits."}
    part["properties"] = {
        key: value for key, value in part["properties"].items() if key not in ("name", "recipient")
    }
    schema["$defs"] = {**definitions, "BatchPart": {**part, "title": "BatchPart"}}
    schema["properties"]["batch"] = {"$ref": "#/$defs/BatchPart"}
    return _document(schema, title="Leadferry recipient", required=["name"])


def _let_inherit(schema: dict[str, Any], definitions: dict[str, Any], *, seen: dict[str, str]) -> None:
    """Require nothing in the mappings that are merged key by key; items of lists are never merged.

    A definition that is used in both ways gets a second, lenient version.
    """
    schema.pop("required", None)
    for key, value in schema.get("properties", {}).items():
        schema["properties"][key] = _lenient(value, definitions, seen)


def _lenient(value: dict[str, Any], definitions: dict[str, Any], seen: dict[str, str]) -> dict[str, Any]:
    value = {key: one for key, one in value.items() if key != "discriminator"}
    for union in ("anyOf", "oneOf", "allOf"):
        if union in value:
            value[union] = [_lenient(one, definitions, seen) for one in value[union]]
    name = value.get("$ref", "").removeprefix("#/$defs/")
    if name and "properties" in definitions[name]:
        if name not in seen:
            seen[name] = f"{name}Part"
            definitions[seen[name]] = part = copy.deepcopy(definitions[name])
            _let_inherit(part, definitions, seen=seen)
        value["$ref"] = f"#/$defs/{seen[name]}"
    return value


def _without_unused(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop definitions that nothing refers to any more."""
    used: set[str] = set()
    waiting: list[Any] = [{key: value for key, value in schema.items() if key != "$defs"}]
    while waiting:
        for name in _references(waiting.pop()):
            if name not in used:
                used.add(name)
                waiting.append(schema["$defs"][name])
    return {**schema, "$defs": {name: schema["$defs"][name] for name in sorted(used)}}


def _references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"].removeprefix("#/$defs/")} if isinstance(schema.get("$ref"), str) else set()
        return own.union(*map(_references, schema.values()))
    return set().union(*map(_references, schema)) if isinstance(schema, list) else set()
