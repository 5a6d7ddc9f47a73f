"""Rules as PostgreSQL decides them, inside the claim and for all leads at once.

Every comparison is either true or false, never NULL: a missing or unreadable value meets no positive
comparison, and a negated one is its exact opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    FromClause,
    String,
    and_,
    any_,
    case,
    cast,
    collate,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
)

from leadferry.mapping.comparable import Kind, Operand, Scalar, Value, operand
from leadferry.mapping.rules import GROUPS, Condition, Rule


def failed_rule(rules: Sequence[Rule], lead: FromClause, *, timezone: str) -> ColumnElement[str | None]:
    """Return the SQL expression for the name of the first rule that a lead does not meet; NULL when it meets all.

    Args:
        rules: in the order in which they are tried.
        lead: the table `lead` or an alias of it.
        timezone: the batch's zone, an IANA name: days begin there, and moments without an offset are meant there.
    """
    if not rules:
        return cast(null(), String)
    checks = ((not_(is_met(rule, lead, timezone=timezone)), literal(rule.name, String)) for rule in rules)
    return case(*checks)


def is_met(condition: Condition, lead: FromClause, *, timezone: str) -> ColumnElement[bool]:
    """Return the SQL expression, true or false and never NULL, for whether a lead meets the condition."""
    if condition.operator in GROUPS:
        inner = [is_met(one, lead, timezone=timezone) for one in condition.argument]
        return _GROUPS[condition.operator](*inner)
    value = Value(name=str(condition.field), lead=lead, timezone=timezone)
    return _COMPARISONS[condition.operator](value, condition)


def _equals(value: Value, condition: Condition) -> ColumnElement[bool]:
    return _one_of(value, [condition.argument], ignore_case=condition.ignore_case)


def _in(value: Value, condition: Condition) -> ColumnElement[bool]:
    return _one_of(value, condition.argument, ignore_case=condition.ignore_case)


def _one_of(value: Value, wanted: Sequence[Scalar], *, ignore_case: bool) -> ColumnElement[bool]:
    operands = [operand(one, timezone=value.timezone) for one in wanted]
    checks = []
    for kind in dict.fromkeys(one.kind for one in operands):
        same = [one for one in operands if one.kind is kind]
        checks.append(_among(value.read_as(kind), same, ignore_case=ignore_case and kind is Kind.TEXT))
    return or_(*checks)


def _among(
    left: ColumnElement[Any], operands: Sequence[Operand], *, ignore_case: bool
) -> ColumnElement[bool]:
    first = operands[0]
    if len(operands) == 1:
        right = first.bound
        return (func.lower(left) == func.lower(right) if ignore_case else left == right).is_(true())
    values = cast(literal([one.value for one in operands], ARRAY(first.type)), ARRAY(first.type))
    if not ignore_case:
        return (left == any_(values)).is_(true())
    # The list is folded by the database as well, once: Python and PostgreSQL differ in what a lower case letter is.
    item = func.unnest(values).column_valued()
    return func.lower(left).in_(select(func.lower(item))).is_(true())


def _contains(value: Value, condition: Condition) -> ColumnElement[bool]:
    texts: list[ColumnElement[str]] = [value.text, literal(condition.argument, String)]
    if condition.ignore_case:
        texts = [func.lower(text, type_=String) for text in texts]
    return (func.strpos(*texts) > 0).is_(true())


def _matches(value: Value, condition: Condition) -> ColumnElement[bool]:
    flags = "i" if condition.ignore_case else None
    return value.text.regexp_match(condition.argument, flags=flags).is_(true())


def _ranged(value: Value, condition: Condition) -> ColumnElement[bool]:
    ends = condition.argument if condition.operator == "between" else [condition.argument]
    operands = [operand(end, timezone=value.timezone) for end in ends]
    sides = [value.read_as(operands[0].kind), *(one.bound for one in operands)]
    if operands[0].kind is Kind.TEXT:
        if condition.ignore_case:
            sides = [func.lower(text, type_=String) for text in sides]
        # Text has the same order on every server, whatever collation its database has.
        sides[0] = collate(sides[0], "C")
    return _ORDERS[condition.operator](*sides).is_(true())


def _exists(value: Value, condition: Condition) -> ColumnElement[bool]:
    return value.text.is_not(None) if condition.argument else value.text.is_(None)


_Comparison = Callable[[Value, Condition], ColumnElement[bool]]

_GROUPS: dict[str, Callable[..., ColumnElement[bool]]] = {
    "all": and_,
    "any": or_,
    "not": lambda *inner: not_(or_(*inner)),
}

_ORDERS: dict[str, Callable[..., ColumnElement[bool]]] = {
    "at_least": lambda left, low: left >= low,
    "at_most": lambda left, high: left <= high,
    "between": lambda left, low, high: left.between(low, high),
    "before": lambda left, high: left < high,
    "after": lambda left, low: left > low,
}

_COMPARISONS: dict[str, _Comparison] = {
    "equals": _equals,
    "not_equals": lambda value, condition: not_(_equals(value, condition)),
    "in": _in,
    "not_in": lambda value, condition: not_(_in(value, condition)),
    "contains": _contains,
    "matches": _matches,
    **dict.fromkeys(_ORDERS, _ranged),
    "exists": _exists,
}
