"""Free-form text read as what a rule compares it with: number, day, moment, truth or text.

A lead's fields are whatever a form sent, so a number may be `2005`, `"2005 "` or `n/a`.
Here a value written in a batch file decides the *kind* of a comparison (`Operand`),
and the lead's value is read as that kind by SQL that never raises (`Value`):
what cannot be read as that kind is SQL NULL.
A shape is checked by a regular expression before PostgreSQL may cast, including the days of each month,
because a failing cast would end the whole claim (`pg_input_is_valid` exists from PostgreSQL 16 on only).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Date,
    DateTime,
    FromClause,
    Integer,
    Numeric,
    String,
    and_,
    case,
    cast,
    func,
    literal,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

from leadferry.mapping.sources import source
from leadferry.zones import time_zone

Scalar = bool | int | float | str
"""What may stand behind an operator in a batch file."""

WHITE_SPACE = " \t\n\r\f\v\u00a0"
"""What is cut from both ends of a lead's value before it is compared; U+00A0 is pasted into many a form."""

MAX_NUMBER_LENGTH = 1000
"""Longer text is no number: PostgreSQL refuses numbers beyond 131,072 digits, and nobody means them."""

DIGITS = "^[0-9]+$"

NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$"

_DAY = (
    r"([1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    r"|([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)-02-29)"
)
_TIME = r"[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
_OFFSET = r"([Zz]|[-+](0[0-9]|1[0-4])(:?[0-5][0-9])?)"

LOCAL = rf"^{_DAY}({_TIME})?$"
"""A day, or a day and a time of day, in the batch's zone; the years 1000 to 9999."""

ABSOLUTE = rf"^{_DAY}{_TIME}{_OFFSET}$"
"""A day and a time of day with `Z` or an offset."""

_DAY_ONLY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LIKE_A_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{1,2}:.*")


class Kind(StrEnum):
    """As what two values are compared."""

    NUMBER = "number"
    DAY = "day"
    MOMENT = "moment"
    TRUTH = "truth"
    TEXT = "text"


_TYPES: dict[Kind, TypeEngine[Any]] = {
    Kind.NUMBER: Numeric(),
    Kind.DAY: Date(),
    Kind.MOMENT: DateTime(timezone=True),
    Kind.TRUTH: String(),
    Kind.TEXT: String(),
}


@dataclass(frozen=True)
class Operand:
    """A value from a batch file, with the kind of comparison that it asks for."""

    kind: Kind
    value: Decimal | date | datetime | str

    @property
    def type(self) -> TypeEngine[Any]:
        """The SQL type of this operand."""
        return _TYPES[self.kind]

    @property
    def bound(self) -> ColumnElement[Any]:
        """This operand as a bound parameter."""
        return literal(self.value, self.type)


def operand(value: Scalar, *, timezone: str = "UTC") -> Operand:
    """Read a value from a batch file as what it looks like.

    Numbers and true/false are what YAML says they are; text is a day (`2026-01-31`), a moment
    (`2026-01-31T09:00`, seconds and offset optional) or, in every other shape, text.

    Args:
        value: as written.
        timezone: the zone of moments without an offset, an IANA name.

    Raises:
        ValueError: it looks like a day or a moment, but there is no such day or time.
    """
    if isinstance(value, bool):
        return Operand(Kind.TRUTH, "true" if value else "false")
    if isinstance(value, int | float):
        return Operand(Kind.NUMBER, Decimal(str(value)))
    if _DAY_ONLY.fullmatch(value):
        return Operand(Kind.DAY, _parsed(value).date())
    if _LIKE_A_MOMENT.fullmatch(value):
        return Operand(Kind.MOMENT, _in_utc(_parsed(value), timezone=timezone))
    return Operand(Kind.TEXT, value)


def _parsed(text: str) -> datetime:
    if not (re.match(LOCAL, text) or re.match(ABSOLUTE, text)):
        raise ValueError(f"{text!r} looks like a date, but there is no such day or time")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(
            f"{text!r} is not a date-time that can be compared; write 2026-01-31T09:00:00"
        ) from None


def _in_utc(moment: datetime, *, timezone: str) -> datetime:
    """Return the instant; an hour that the clock shows twice is the later one, as in PostgreSQL."""
    if moment.tzinfo is None:
        first, second = (moment.replace(tzinfo=time_zone(timezone), fold=fold) for fold in (0, 1))
        before, after = first.utcoffset(), second.utcoffset()
        moment = second if before is not None and after is not None and before > after else first
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()!r} is out of range") from None


@dataclass(frozen=True, kw_only=True)
class Value:
    """What a name means in a lead, as SQL of each kind; NULL when missing or not of that kind."""

    name: str
    lead: FromClause
    timezone: str

    @property
    def raw(self) -> ColumnElement[str]:
        """The value as it came."""
        return type_coerce(source(self.name, self.lead), String)

    @property
    def text(self) -> ColumnElement[str]:
        """The value without white space at its ends; NULL when nothing is left."""
        return func.nullif(func.btrim(self.raw, WHITE_SPACE, type_=String), "", type_=String)

    def read_as(self, kind: Kind) -> ColumnElement[Any]:
        """Return the expression for this value as `kind`."""
        readers: dict[Kind, Callable[[], ColumnElement[Any]]] = {
            Kind.NUMBER: self._number,
            Kind.DAY: self._day,
            Kind.MOMENT: self._moment,
            Kind.TRUTH: lambda: func.lower(self.text, type_=String),
            Kind.TEXT: lambda: self.text,
        }
        return readers[kind]()

    def _number(self) -> ColumnElement[Decimal]:
        """Try plain digits first: nearly all numbers are, and the small expression takes half the time."""
        readings = ((self.raw, DIGITS), (self.text, NUMBER))
        return case(
            *(
                (
                    and_(
                        text.regexp_match(shape), func.octet_length(text, type_=Integer) <= MAX_NUMBER_LENGTH
                    ),
                    cast(text, Numeric),
                )
                for text, shape in readings
            )
        )

    def _day(self) -> ColumnElement[date]:
        if self.name == "received_at":
            return cast(func.timezone(self.timezone, self.lead.c.received_at), Date)
        text = self.text
        absolute = func.timezone(self.timezone, cast(text, DateTime(timezone=True)))
        return case(
            (text.regexp_match(LOCAL), cast(cast(text, DateTime), Date)),
            (text.regexp_match(ABSOLUTE), cast(absolute, Date)),
        )

    def _moment(self) -> ColumnElement[datetime]:
        if self.name == "received_at":
            return self.lead.c.received_at
        text = self.text
        moment = DateTime(timezone=True)
        return case(
            (text.regexp_match(LOCAL), func.timezone(self.timezone, cast(text, DateTime), type_=moment)),
            (text.regexp_match(ABSOLUTE), cast(text, moment)),
        )
