"""From what a batch and its recipient ask of a lead to the SQL that decides it.

The recipient's own rules and the consent come first: nothing that a person says when triggering a run turns them off.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    FromClause,
    String,
    Uuid,
    and_,
    any_,
    case,
    cast,
    func,
    literal,
    not_,
    or_,
)

from leadferry.batch import selection
from leadferry.batch.model import Batch
from leadferry.mapping.checks import international
from leadferry.mapping.comparable import Kind, Value
from leadferry.mapping.rule_sql import failed_rule, is_met
from leadferry.mapping.sources import CHANGE, source
from leadferry.store import caps, duplicates
from leadferry.store.selection import Gate

AREA = "area"
"""Why a lead is withheld that comes from somewhere else."""


def failing(batch: Batch, lead: FromClause) -> ColumnElement[Any] | None:
    """Return SQL for why a lead is withheld, NULL when it may go; None when nothing is asked of a lead.

    Args:
        batch: with its recipient.
        lead: the table `lead` or an alias of it.
    """
    return _first([*_always(batch, lead), *_own(batch, lead)])


def failing_always(batch: Batch, lead: FromClause) -> ColumnElement[Any] | None:
    """Return the same for what can never be turned off: the recipient's rules and consent."""
    return _first(list(_always(batch, lead)))


def _first(reasons: list[ColumnElement[Any]]) -> ColumnElement[Any] | None:
    if len(reasons) > 1:
        return func.coalesce(*reasons, type_=String)
    return reasons[0] if reasons else None


def _always(batch: Batch, lead: FromClause) -> Iterator[ColumnElement[Any]]:
    if batch.recipient.rules:
        yield failed_rule(batch.recipient.rules, lead, timezone=batch.timezone)
    if batch.select.consent is not None:
        yield batch.select.consent.reason(lead, timezone=batch.timezone)


def _own(batch: Batch, lead: FromClause) -> Iterator[ColumnElement[Any]]:
    chosen = batch.select
    if chosen.area is not None:
        inside = _is_inside(chosen.area, lead, timezone=batch.timezone)
        yield case((not_(inside), literal(AREA, String)))
    for check in chosen.checks:
        yield from check.reasons(lead, timezone=batch.timezone)
    if chosen.rules:
        yield failed_rule(chosen.rules, lead, timezone=batch.timezone)


def _is_inside(area: selection.Area, lead: FromClause, *, timezone: str) -> ColumnElement[bool]:
    ways: list[ColumnElement[bool]] = []
    if area.states:
        state = func.upper(Value(name=area.state_field, lead=lead, timezone=timezone).text, type_=String)
        ways.append(state == _any_of({one.strip().upper() for one in area.states}))
    by_length: dict[int, set[str]] = {}
    for prefix in area.prefixes:
        by_length.setdefault(len(prefix), set()).add(prefix.upper())
    zip_code = func.upper(Value(name=area.zip_field, lead=lead, timezone=timezone).text, type_=String)
    for length, prefixes in sorted(by_length.items()):
        ways.append(func.left(zip_code, length, type_=String) == _any_of(prefixes))
    return func.coalesce(or_(*ways), literal(False))  # noqa: FBT003  (no value is nowhere)


def _any_of(values: set[str]) -> ColumnElement[Any]:
    return any_(cast(literal(sorted(values), ARRAY(String)), ARRAY(String)))


def caps_of(batch: Batch) -> list[caps.Cap]:
    """Return the batch's caps as the claim counts them."""
    return [_cap(one, timezone=batch.timezone) for one in batch.select.caps]


def _cap(cap: selection.Cap, *, timezone: str) -> caps.Cap:
    amount = cap.revenue if cap.leads is None else cap.leads
    return caps.Cap(
        name=cap.told,
        counts="revenue" if cap.leads is None else "leads",
        amount=Decimal(amount or 0),
        overflow=cap.overflow,
        next_batch=cap.next_batch,
        near=Decimal(amount or 0) * Decimal(str(cap.notice_at)),
        period_at=partial(_period, cap, timezone=timezone),
    )


def _period(cap: selection.Cap, moment: datetime, *, timezone: str) -> caps.Period | None:
    return cap.period_at(moment, timezone=timezone)


def price_of(batch: Batch, lead: FromClause) -> ColumnElement[Any] | None:
    """Return SQL for what a lead is worth where a field says so; None otherwise."""
    _, field = batch.select.worth
    if field is None:
        return None
    return Value(name=field, lead=lead, timezone=batch.timezone).read_as(Kind.NUMBER)


def gates_of(batch: Batch, lead: FromClause) -> list[Gate]:
    """Return the batch's conditions on counts."""
    return [
        Gate(
            name=one.name,
            meets=is_met(one.leads, lead, timezone=batch.timezone),
            at_least=one.at_least,
            at_most=one.at_most,
        )
        for one in batch.conditions.only_if
    ]


def dedupe_of(batch: Batch, lead: FromClause) -> duplicates.Dedupe | None:
    """Return what makes leads duplicates; None when nothing does."""
    wanted = batch.select.dedupe
    if wanted is None:
        return None
    return duplicates.Dedupe(
        by=tuple(_same(batch, wanted, one, lead) for one in wanted.by),
        in_file=wanted.in_file,
        past=wanted.within is not None,
        within=wanted.within if isinstance(wanted.within, timedelta) else None,
        recipient=batch.recipient.id if wanted.scope == "recipient" else None,
    )


def _same(batch: Batch, wanted: selection.Dedupe, one: str | list[str], lead: FromClause) -> duplicates.Same:
    fields = [one] if isinstance(one, str) else one
    region = wanted.region or batch.recipient.locale.rpartition("_")[2]
    kinds = [f"{name}:phone {region}" if wanted.is_phone(name) else f"{name}:text" for name in fields]
    values = [_normalised(batch, wanted, name, lead, region=region) for name in fields]
    value = values[0]
    if len(values) > 1:
        joined = func.concat_ws("\x1e", *values, type_=String)
        value = case((and_(*(each.is_not(None) for each in values)), joined))
    return duplicates.Same(name=wanted.name(one), kind="+".join(kinds), value=value)


def _normalised(
    batch: Batch, wanted: selection.Dedupe, name: str, lead: FromClause, *, region: str
) -> ColumnElement[str]:
    value = Value(name=name, lead=lead, timezone=batch.timezone)
    if wanted.is_phone(name):
        return international(value, region=region)
    return func.lower(value.text, type_=String)


def version_of(batch: Batch, lead: FromClause) -> ColumnElement[Any] | None:
    """Return SQL for a UUID that changes with the lead's fields that the batch delivers; for the mode `changed`."""
    if batch.select.mode != "changed":
        return None
    names = dict.fromkeys(name for field in batch.fields for name in field.sources if name != CHANGE)
    values = [source(name, lead) for name in names]
    # A function of PostgreSQL takes at most 100 arguments.
    parts = [
        cast(func.jsonb_build_array(*values[start : start + 100]), String)
        for start in range(0, len(values), 100)
    ]
    return cast(func.md5(func.concat(*parts) if parts else literal("")), Uuid)
