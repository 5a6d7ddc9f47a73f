"""Leads as an operator may see them: enough to tell them apart, not enough to know who they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from leadferry.mapping.privacy import Mask
from leadferry.mapping.step import Context

_TEXT = Mask(show="first1")
_EMAIL = Mask(show="email")


def masked(leads: Sequence[Mapping[str, Any]]) -> list[dict[str, str | None]]:
    """Return the fields of leads with every value masked as the transform `mask` does; names of fields stay.

    Of an address the first letter and the domain are left, of everything else the first character.
    """
    places = [(number, name) for number, fields in enumerate(leads) for name in fields]
    values = _masked([_as_text(leads[number][name]) for number, name in places])
    shown: list[dict[str, str | None]] = [{} for _ in leads]
    for (number, name), value in zip(places, values, strict=True):
        shown[number][name] = value
    return shown


def masked_text(value: str | None) -> str | None:
    """Return one value masked."""
    return _masked([value])[0]


def _as_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _masked(values: Sequence[str | None]) -> list[str | None]:
    import polars as pl

    column = pl.Series(values, dtype=pl.String)
    context = Context(timezone="UTC", locale="en_US", sources=pl.DataFrame())
    addresses = _EMAIL.apply(column, context)  # null where there is none
    found: list[str | None] = (
        pl.select(pl.coalesce(addresses, _TEXT.apply(column, context))).to_series().to_list()
    )
    return found
