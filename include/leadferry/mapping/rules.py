"""Which leads may go to a recipient: the rules of a batch file, and how people read them.

`rule_sql` decides them where the leads are, inside the claim, for all leads at once.
`docs/reference/rules.md` is the page for people.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from leadferry.mapping.comparable import WHITE_SPACE, Kind, Scalar, operand

MAX_DEPTH = 8
MAX_PATTERN = 500
MAX_LIST = 50_000

GROUPS = ("all", "any", "not")

OPERATORS = (
    "equals", "not_equals", "in", "not_in", "contains", "matches",
    "at_least", "at_most", "between", "before", "after", "exists", *GROUPS,
)  # fmt: skip
"""Every operator, as written in YAML; `rule_sql` says what each means."""

_OTHER_WORDS = {
    "and": "all", "or": "any", "none": "not", "eq": "equals", "is": "equals", "ne": "not_equals", "one_of": "in",
    "gte": "at_least", "min": "at_least", "minimum": "at_least", "lte": "at_most", "max": "at_most",
    "maximum": "at_most", "gt": "at_least", "lt": "at_most", "regex": "matches", "like": "contains",
    "range": "between", "since": "after", "until": "before", "present": "exists", "filter": "field",
}  # fmt: skip
"""Words of other tools for our operators, where spelling alone would not lead there."""


def _plain(value: Any) -> Any:
    """Give a date or date-time that the YAML reader made back its text."""
    return value.isoformat() if isinstance(value, date) else value


def _comparable(value: Scalar) -> Scalar:
    if isinstance(value, str):
        if not value or value != value.strip(WHITE_SPACE):
            raise ValueError(
                "must not be empty nor start or end with white space, which is never compared;"
                " `exists: false` asks for leads without a value"
            )
        _storable(value)
    operand(value)
    return value


def _storable(text: str) -> str:
    if "\x00" in text or text != text.encode("utf-8", "ignore").decode("utf-8"):
        raise ValueError("holds a character that no lead can hold")
    return text


def _ordered(value: Scalar) -> Scalar:
    if isinstance(value, bool):
        raise ValueError("true and false have no order; use equals")  # noqa: TRY004  pydantic wants ValueError
    return value


def _in_time(value: str) -> str:
    if operand(value).kind not in {Kind.DAY, Kind.MOMENT}:
        raise ValueError("must be a day such as 2026-01-31 or a date-time such as 2026-01-31T09:00")
    return value


_Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Text = Annotated[StrictStr, Field(max_length=1000)]
_Any = Annotated[StrictBool | StrictInt | _Finite | _Text, BeforeValidator(_plain)]


class Condition(BaseModel):
    """One comparison of one field, or several conditions under `all`, `any` or `not`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(
        default=None, min_length=1, max_length=100, description="Said where a lead is withheld."
    )
    field: str | None = Field(
        default=None, min_length=1, description="Name of the lead's field that is compared."
    )
    equals: _Any | None = Field(default=None, description="The value is this one.")
    not_equals: _Any | None = Field(
        default=None, description="The opposite of equals; a lead without a value meets it."
    )
    in_: list[_Any] | None = Field(
        default=None, alias="in", min_length=1, max_length=MAX_LIST, description="The value is one of these."
    )
    not_in: list[_Any] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_LIST,
        description="The opposite of in; a lead without a value meets it.",
    )
    contains: _Text | None = Field(
        default=None, min_length=1, description="This text stands somewhere in the value."
    )
    matches: StrictStr | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PATTERN,
        description="A PostgreSQL regular expression fits somewhere in the value; ^ and $ tie it to the ends.",
    )
    at_least: _Any | None = Field(
        default=None, description="The value is this or more: a number, a day, a date-time, a text."
    )
    at_most: _Any | None = Field(default=None, description="The value is this or less.")
    between: list[_Any] | None = Field(
        default=None, min_length=2, max_length=2, description="From the first to the second, both included."
    )
    before: Annotated[_Text, BeforeValidator(_plain)] | None = Field(
        default=None, description="Earlier than this day or date-time."
    )
    after: Annotated[_Text, BeforeValidator(_plain)] | None = Field(
        default=None, description="Later than this day or date-time."
    )
    exists: StrictBool | None = Field(
        default=None, description="Whether the lead has a value: not missing, not null, not blank."
    )
    ignore_case: StrictBool = Field(default=False, description="Upper and lower case of texts are the same.")
    all_: list[Condition] | None = Field(
        default=None, alias="all", min_length=1, description="Every one of these is met."
    )
    any_: list[Condition] | None = Field(
        default=None, alias="any", min_length=1, description="At least one of these is met."
    )
    not_: list[Condition] | None = Field(
        default=None, alias="not", min_length=1, description="None of these is met."
    )

    @property
    def operator(self) -> str:
        """The one operator of this condition, as written in YAML."""
        return next(name for name, value in self._given() if value is not None)

    @property
    def argument(self) -> Any:
        """What stands behind the operator."""
        return next(value for _, value in self._given() if value is not None)

    def _given(self) -> Iterator[tuple[str, Any]]:
        for attribute, field in type(self).model_fields.items():
            if (name := field.alias or attribute) in OPERATORS:
                yield name, getattr(self, attribute)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in data:
            if key not in known:
                # `at` lets the batch file's checker point at the key instead of at the whole rule.
                raise PydanticCustomError("unknown_key", _unknown(str(key), known=known), {"at": (str(key),)})
        return data

    @field_validator("equals", "not_equals", "at_least", "at_most")
    @classmethod
    def _is_comparable(cls, value: Scalar | None) -> Scalar | None:
        return value if value is None else _comparable(value)

    @field_validator("in_", "not_in")
    @classmethod
    def _is_a_list_of_values(cls, values: list[Scalar] | None) -> list[Scalar] | None:
        kinds = {type(_comparable(value)) for value in values or ()}
        if {bool, str} <= kinds:
            raise ValueError(
                "true or false among texts; put quotes around it if 'yes', 'no', 'on' or 'off' is meant"
            )
        return values

    @field_validator("at_least", "at_most")
    @classmethod
    def _has_an_order(cls, value: Scalar | None) -> Scalar | None:
        return value if value is None else _ordered(value)

    @field_validator("between")
    @classmethod
    def _is_a_range(cls, ends: list[Scalar] | None) -> list[Scalar] | None:
        if ends is not None:
            low, high = (operand(_ordered(_comparable(end))) for end in ends)
            if low.kind is not high.kind:
                raise ValueError(f"the ends must be of one kind, not a {low.kind} and a {high.kind}")
            if low.value > high.value:  # type: ignore[operator]  # one kind, so one type
                raise ValueError("the first end must not be above the second")
        return ends

    @field_validator("before", "after")
    @classmethod
    def _is_in_time(cls, value: str | None) -> str | None:
        return value if value is None else _in_time(value)

    @field_validator("contains")
    @classmethod
    def _can_be_held(cls, value: str | None) -> str | None:
        return value if value is None else _storable(value)

    @field_validator("matches")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        return value if value is None else check_pattern(_storable(value))

    @model_validator(mode="after")
    def _one_operator(self) -> Self:
        given = [name for name, value in self._given() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one operator, found {found}; there is {', '.join(OPERATORS)}")
        if (self.field is None) is not (given[0] in GROUPS):
            word = "needs no" if self.field else "needs a"
            raise ValueError(f"{given[0]} {word} `field`")
        if _depth(self) > MAX_DEPTH:
            raise ValueError(f"conditions are nested deeper than {MAX_DEPTH} levels")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write only what was given, under the names of the YAML, wherever this is nested."""
        written: dict[str, Any] = handler(self)
        names = {name: field.alias or name for name, field in type(self).model_fields.items()}
        kept = {names.get(key, key): value for key, value in written.items() if value is not None}
        return {key: value for key, value in kept.items() if key != "ignore_case" or value}


class Rule(Condition):
    """A condition that a lead must meet to be delivered; a lead that fails is withheld with this name."""

    name: str = Field(
        min_length=1, max_length=100, description="Said where a lead is withheld; differs from rule to rule."
    )


def _unknown(key: str, *, known: Sequence[str]) -> str:
    near = _OTHER_WORDS.get(key) or next(iter(difflib.get_close_matches(key, known, n=1)), None)
    hint = f"; did you mean {near!r}?" if near else ""
    shown = key[:40].replace("{", "(").replace("}", ")")
    return f"{shown!r} is no operator or key of a rule; allowed: {', '.join(known)}{hint}"


def _depth(condition: Condition) -> int:
    inner = condition.argument if condition.operator in GROUPS else ()
    return 1 + max((_depth(one) for one in inner), default=0)


# --- patterns -------------------------------------------------------------------------------------------------

_NOT_IN_POSTGRESQL = {
    r"\(\?P|\(\?<[A-Za-z_]": "named groups",
    r"\(\?>|[*+?}]\+": "possessive matching",
    r"\(\?\(": "conditional groups",
    r"\\[pPhHRXKGN]": "this escape",
    r"^\*\*\*|\(\?[A-Za-z]": "options inside the pattern (there is `ignore_case: true`)",
    r"\\[1-9]": "back-references, which can take very long",
}
_ONLY_IN_POSTGRESQL = {r"\\[mMyY]": r"\\b", r"\[:[a-z]+:\]": "a-z"}


def check_pattern(pattern: str) -> str:
    """Return the pattern if PostgreSQL will most probably take it; only PostgreSQL itself is certain.

    Raises:
        ValueError: it is not a regular expression, or uses what PostgreSQL does not know.
    """
    for construct, what in _NOT_IN_POSTGRESQL.items():
        if re.search(rf"(?<!\\)(?:\\\\)*(?:{construct})", pattern):
            raise ValueError(f"PostgreSQL's regular expressions do not have {what}")
    if any(int(bound) > 255 for bound in re.findall(r"(?<!\\)\{(?:\d+,)?(\d+),?\}", pattern)):  # noqa: PLR2004
        raise ValueError("a repetition may not be more than 255")
    as_python = pattern
    for construct, replacement in _ONLY_IN_POSTGRESQL.items():
        as_python = re.sub(construct, replacement, as_python)
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(as_python)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return pattern


def patterns(rules: Sequence[Condition]) -> list[str]:
    """Return every pattern of these rules, for a check against the real PostgreSQL (`SELECT '' ~ :pattern`)."""
    found: list[str] = []
    for rule in rules:
        if rule.operator in GROUPS:
            found += patterns(rule.argument)
        elif rule.matches is not None:
            found.append(rule.matches)
    return found


# --- words ----------------------------------------------------------------------------------------------------

_WORDS = {
    "equals": "is {}", "not_equals": "is not {}", "in": "is one of {}", "not_in": "is none of {}",
    "contains": "contains {}", "matches": "matches {}", "at_least": "is at least {}", "at_most": "is at most {}",
    "between": "is between {}", "before": "is before {}", "after": "is after {}",
}  # fmt: skip


def describe_rule(rule: Condition) -> str:
    """Say a rule in words, without its name: `state is one of CA, TX`."""
    argument = rule.argument
    if rule.operator in GROUPS:
        joint = " and " if rule.operator == "all" else " or "
        inner = joint.join(
            f"({describe_rule(one)})" if one.operator in GROUPS else describe_rule(one) for one in argument
        )
        return f"not ({inner})" if rule.operator == "not" else inner
    if rule.operator == "exists":
        return f"{rule.field} has a value" if argument else f"{rule.field} has no value"
    joint = " and " if rule.operator == "between" else ", "
    said = joint.join(_said(one) for one in argument) if isinstance(argument, list) else _said(argument)
    words = f"{rule.field} {_WORDS[rule.operator].format(said)}"
    return f"{words} (in upper or lower case)" if rule.ignore_case else words


def _said(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
