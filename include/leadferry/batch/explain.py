"""From what pydantic found wrong in the merged configuration to the file, line and key that a person wrote.

A batch is put together from up to three files, so a fault is first traced to the file that its value came from.
Lines cost time to find, so all of this runs only when there is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import TypeAliasType

from leadferry.batch.files import ID_PATTERN
from leadferry.batch.problems import Path, Problem, did_you_mean
from leadferry.batch.secret_literals import is_secret_key, redact
from leadferry.batch.yaml_file import YamlFile, child
from leadferry.schedule.calendar_file import DATE_FILE_PATTERN
from leadferry.units import write_duration

_LONGEST_VALUE = 60

_TYPE_NAMES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "none_required": "empty",
}
"""What was expected, for the faults that say nothing but 'another type was expected'."""

_PATTERNS = {
    ID_PATTERN: "be lower case letters, digits and _, starting with a letter",
    DATE_FILE_PATTERN: "be the name of a file in config/calendars that ends in .ics or .csv",
}
"""Patterns that can be said in words."""

_LIMITS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than_equal": lambda limit: f"must be at least {_limit(limit['ge'])}",
    "greater_than": lambda limit: f"must be more than {_limit(limit['gt'])}",
    "less_than_equal": lambda limit: f"must be at most {_limit(limit['le'])}",
    "less_than": lambda limit: f"must be less than {_limit(limit['lt'])}",
    "too_short": lambda limit: f"needs at least {_count(limit['min_length'], 'item')}",
    "too_long": lambda limit: f"may have at most {_count(limit['max_length'], 'item')}",
    "string_too_short": lambda limit: f"needs at least {_count(limit['min_length'], 'character')}",
    "string_too_long": lambda limit: f"may have at most {_count(limit['max_length'], 'character')}",
    "string_pattern_mismatch": lambda limit: (
        f"must {_PATTERNS.get(limit['pattern'], 'match ' + limit['pattern'])}"
    ),
}


_SPAN = r"(\d+) (day|hour|minute|second)s?"
"""A part of a length of time as pydantic says it aloud: `1 day and 12 hours`."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One file's part of a batch's configuration."""

    file: YamlFile
    start: Path = ()
    """Where in the file the part begins."""
    at: Path = ()
    """Where in the merged configuration it lands."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a fault is, in the file whose value counts."""

    layer: Layer
    path: Path
    """In the merged configuration."""
    in_union: bool
    """Whether only one of several alternatives complained."""

    @property
    def written(self) -> Path:
        """The path in the file."""
        return (*self.layer.start, *self.path[len(self.layer.at) :])


def explain(
    error: ValidationError, layers: Sequence[Layer], model: type[BaseModel], *, complete: bool = True
) -> list[Problem]:
    """Tell each fault of a validation as a problem with file, line and key.

    Args:
        error: from validating the merged configuration.
        layers: the files it was merged from, the strongest first.
        model: what it was validated as; knows which keys are allowed where.
        complete: whether all files could be read; otherwise a key that is missing may stand in one of the others
            (unless it belongs into an item of a list: those are not merged), and is not told.
    """
    found: dict[_Place, list[ErrorDetails]] = {}
    for one in error.errors(include_url=False):
        if (
            not complete
            and one["type"] == "missing"
            and not any(isinstance(part, int) for part in one["loc"])
        ):
            continue
        found.setdefault(_place(one, layers), []).append(one)
    places = {place.path for place in found}
    return [
        problem
        for place, faults in found.items()
        if not (
            place.in_union
            and any(len(p) > len(place.path) and p[: len(place.path)] == place.path for p in places)
        )
        for problem in _tell(place, faults, model)
    ]


def locate(path: Path, layers: Sequence[Layer]) -> tuple[Layer, Path]:
    """Return the layer whose value counts at a path, and how much of the path exists in it."""
    place = _walk(path, layers, skip=False)
    return place.layer, place.path


def _place(fault: ErrorDetails, layers: Sequence[Layer]) -> _Place:
    location = fault["loc"]
    context = fault.get("ctx", {})
    if fault["type"] == "missing":
        return _walk(location[:-1], layers, skip=True)
    if fault["type"] == "union_tag_invalid":
        location = (*location, context["discriminator"].strip("'"))
    # A check of several keys together names the one to blame, see `leadferry.batch.model`.
    return _walk((*location, *context.get("at", ())), layers, skip=True)


def _walk(location: Path, layers: Sequence[Layer], *, skip: bool) -> _Place:
    """Follow a location through the layers at once, as the merge did.

    Pydantic's locations also hold the tags of unions, which stand in no file: with `skip`, what is not there is
    passed over.
    """
    base, nodes = _roots(location, layers)
    path: Path = base
    in_union = False
    for part in location[len(base) :]:
        steps = [(layer, step[1]) for layer, node in nodes if (step := child(node, part)) is not None]
        if steps:
            nodes, path, in_union = _covering(steps), (*path, part), False
        elif skip:
            in_union = True
        else:
            break
    return _Place(layer=nodes[0][0], path=path, in_union=in_union)


def _roots(location: Path, layers: Sequence[Layer]) -> tuple[Path, list[tuple[Layer, yaml.Node | None]]]:
    for layer in layers:
        if layer.at and location[: len(layer.at)] == layer.at:
            return layer.at, [(layer, _start(layer))]
    return (), [(layer, _start(layer)) for layer in layers if not layer.at]


def _start(layer: Layer) -> yaml.Node | None:
    steps = layer.file.steps(layer.start)
    return steps[-1][1] if len(steps) == len(layer.start) + 1 else None


def _covering(steps: list[tuple[Layer, yaml.Node]]) -> list[tuple[Layer, yaml.Node | None]]:
    """Keep what the strongest layer leaves visible: under anything but a mapping, nothing of the others."""
    if not isinstance(steps[0][1], yaml.MappingNode):
        return [steps[0]]
    return [step for step in steps if isinstance(step[1], yaml.MappingNode)]


def _tell(place: _Place, faults: list[ErrorDetails], model: type[BaseModel]) -> Iterator[Problem]:
    real = [one for one in faults if one["type"] not in _TYPE_NAMES]
    if not real:
        names = list(dict.fromkeys(_TYPE_NAMES[one["type"]] for one in faults))
        yield _problem(place, f"must be {_joined(names)}{_type_hint(names, faults[0]['input'])}")
        return
    for one in real:
        if one["type"] in ("missing", "union_tag_not_found"):
            key = one["loc"][-1] if one["type"] == "missing" else one["ctx"]["discriminator"].strip("'")
            yield _problem(place, _missing_text(one, key, model), missing=str(key))
        elif one["type"] == "extra_forbidden":
            yield _problem(place, _unknown_key_text(one, model), at_key=True)
        else:
            yield _problem(place, _text(one))


def _problem(place: _Place, text: str, *, missing: str | None = None, at_key: bool = False) -> Problem:
    file, path = place.layer.file, place.written
    line = file.key_line(path) if at_key else file.line(path)
    return Problem(file=file.shown, line=line, path=(*path, missing) if missing else path, text=text)


def _text(fault: ErrorDetails) -> str:
    context = fault.get("ctx", {})
    if fault["type"] == "union_tag_invalid":
        return _not_known(context["tag"], re.findall(r"'([^']*)'", context["expected_tags"]))
    if fault["type"] in ("literal_error", "enum"):
        return _not_known(fault["input"], re.findall(r"'([^']*)'", context["expected"]))
    if fault["type"] in _LIMITS:
        return _LIMITS[fault["type"]](context) + _is(fault)
    text = str(context["error"]) if fault["type"] == "value_error" else fault["msg"]
    return text[:1].lower() + text[1:] + (_is(fault) if text.startswith("must ") else "")


def _limit(value: Any) -> str:
    """Write a limit as the file would have it; pydantic gives that of a length of time as a text, in one of two forms."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    if text.startswith("datetime.timedelta("):
        parts = {unit: int(number) for unit, number in re.findall(r"(\w+)=(\d+)", text)}
    elif re.fullmatch(rf"{_SPAN}( and {_SPAN})*", text):
        parts = {f"{unit}s": int(number) for number, unit in re.findall(_SPAN, text)}
    else:
        return text
    return write_duration(timedelta(**parts))


def _joined(names: list[str]) -> str:
    if "a number" in names and "a whole number" in names:
        names = [name for name in names if name != "a whole number"]
    return ", ".join(names[:-1]) + " or " + names[-1] if len(names) > 1 else names[0]


def _not_known(value: Any, allowed: Sequence[str]) -> str:
    return f"{_shown(value)} is not known; allowed: {', '.join(allowed)}{did_you_mean(value, allowed)}"


def _is(fault: ErrorDetails) -> str:
    value = fault["input"]
    secret = any(isinstance(part, str) and is_secret_key(part) for part in fault["loc"])
    return "" if secret or not isinstance(value, (str, int, float, timedelta)) else f", is {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        value = write_duration(value)
    text = redact(repr(value)) if isinstance(value, (str, int, float)) else "this"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _type_hint(names: list[str], value: Any) -> str:
    if value is None:
        return "; nothing stands behind the colon"
    if isinstance(value, dict) and any(key.startswith("{") for key in map(str, value)):
        return "; put a value with {{ … }} in quotes"
    if isinstance(value, (dict, list)):
        return f", is a {'mapping' if isinstance(value, dict) else 'list'}"
    quotes = "; put it in quotes" if "text" in names and not isinstance(value, str) else ""
    return f", is {_shown(value)}{quotes}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _missing_text(fault: ErrorDetails, key: str | int, model: type[BaseModel]) -> str:
    allowed = _tags(model, fault["loc"]) if fault["type"] == "union_tag_not_found" else []
    return f"the required key {key!r} is missing" + (f"; allowed: {', '.join(allowed)}" if allowed else "")


def _unknown_key_text(fault: ErrorDetails, model: type[BaseModel]) -> str:
    location, key = fault["loc"][:-1], str(fault["loc"][-1])
    unwritten = {"id"} if location in ((), ("recipient",)) else set()  # their id is the file's name
    allowed = sorted({name for found in _models(model, location) for name in _keys(found)} - unwritten)
    near = _elsewhere(model, key, location) or did_you_mean(key, allowed)
    return f"this key is not known here; allowed: {', '.join(allowed)}{near}"


def _elsewhere(model: type[BaseModel], key: str, location: Path) -> str:
    """Point to the part of a batch in which a key stands that was written at the top."""
    if location:
        return ""
    homes = [
        name for name in model.model_fields for found in _models(model, (name,)) if key in found.model_fields
    ]
    return f"; did you mean {homes[0]}.{key}?" if homes else ""


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(model: type[BaseModel], location: Path) -> list[type[BaseModel]]:
    """Return the models that may stand at one of pydantic's locations."""
    kinds: list[Any] = [model]
    for part in location:
        kinds = [leaf for kind in kinds for leaf in _leaves(kind)]
        below = [step for kind in kinds for step in _below(kind, part)]
        kinds = below or [kind for kind in kinds if part in _names(kind)] or kinds
    leaves = [_bare(leaf) for kind in kinds for leaf in _leaves(kind)]
    return [leaf for leaf in leaves if isinstance(leaf, type) and issubclass(leaf, BaseModel)]


def _tags(model: type[BaseModel], location: Path) -> list[str]:
    """Return the words that tell the alternatives at a location apart."""
    kinds = [found.model_fields["type"] for found in _models(model, location) if "type" in found.model_fields]
    return [str(word) for kind in kinds for word in get_args(kind.annotation)]


def _leaves(kind: Any) -> Iterator[Any]:
    """Take unions and aliases apart; `Annotated` stays where it carries a tag."""
    if isinstance(kind, TypeAliasType):
        yield from _leaves(kind.__value__)
    elif get_origin(kind) is Annotated and not any(isinstance(one, Tag) for one in get_args(kind)[1:]):
        yield from _leaves(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _leaves(one)
    else:
        yield kind


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _below(kind: Any, part: str | int) -> Iterator[Any]:
    bare = _bare(kind)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        for name, field in bare.model_fields.items():
            if part in (name, field.alias):
                yield field.annotation
    elif isinstance(part, int) and get_origin(bare) in (list, tuple, Sequence):
        yield get_args(bare)[0]
    elif isinstance(part, str) and get_origin(bare) in (dict, Mapping):
        yield get_args(bare)[1]


def _names(kind: Any) -> set[str]:
    """Return what pydantic may call an alternative in a location: its tag, its `type`, its class."""
    names = (
        {one.tag for one in get_args(kind)[1:] if isinstance(one, Tag)}
        if get_origin(kind) is Annotated
        else set()
    )
    bare = _bare(kind)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        names.add(bare.__name__)
        field = bare.model_fields.get("type")
        if field is not None and get_origin(field.annotation) is Literal:
            names.update(get_args(field.annotation))
    return names
