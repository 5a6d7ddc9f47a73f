"""What is wrong with a lead: a required value is missing, an address or a number cannot exist, consent is not there.

Like rules, checks are SQL on all claimed leads at once; each gives the reason with which a lead is withheld, NULL when
nothing is wrong. A value that is missing is only `required`'s business: the other checks pass it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Integer,
    Interval,
    String,
    and_,
    case,
    cast,
    func,
    literal,
    not_,
    or_,
)

from leadferry.errors import BatchConfigError
from leadferry.mapping.comparable import Kind, Value
from leadferry.mapping.phone import NationalNumbers, national_numbers
from leadferry.mapping.rule_sql import failed_rule
from leadferry.mapping.rules import Rule
from leadferry.units import Duration

NO_CONSENT = "no_consent"

_ADDRESS = (
    r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}$"
)
"""A mailbox that RFC 5321 allows without quotes, at a domain with a letters-only end."""
_LONGEST_ADDRESS = 254
_EXTENSION = r"\s*(x|ext\.?|extension)\s*[0-9]+$"
_DAY_ONLY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_REGION = r"^[A-Z]{2}$"
_SHORTEST_NUMBER, _LONGEST_NUMBER = 8, 15


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Required(_Model):
    """Fields that every lead must have."""

    required: list[str] = Field(
        min_length=1, description="A lead without a value in one of these is withheld."
    )

    def reasons(self, lead: FromClause, *, timezone: str) -> Iterator[ColumnElement[str]]:
        """Yield for each field why a lead is withheld."""
        for name in self.required:
            missing = Value(name=name, lead=lead, timezone=timezone).text.is_(None)
            yield _when(missing, f"missing {name}")


class ValidEmail(_Model):
    """A field that holds a mail address."""

    email: str = Field(min_length=1, description="A lead whose value here is no mail address is withheld.")

    def reasons(self, lead: FromClause, *, timezone: str) -> Iterator[ColumnElement[str]]:
        """Yield why a lead is withheld."""
        text = Value(name=self.email, lead=lead, timezone=timezone).text
        right = and_(func.octet_length(text, type_=Integer) <= _LONGEST_ADDRESS, text.regexp_match(_ADDRESS))
        yield _when(and_(text.is_not(None), not_(right)), f"invalid {self.email}")


class ValidPhone(_Model):
    """A field that holds a phone number."""

    phone: str = Field(
        min_length=1, description="A lead whose value here cannot be a phone number is withheld."
    )
    region: str = Field(
        default="US", pattern=_REGION, description="ISO country code of numbers written without one."
    )

    def reasons(self, lead: FromClause, *, timezone: str) -> Iterator[ColumnElement[str]]:
        """Yield why a lead is withheld.

        Numbers of the region are held against its numbering plan, those of other countries only against their length.
        """
        value = Value(name=self.phone, lead=lead, timezone=timezone)
        plan = _numbers(self.region)
        whole = international(value, region=self.region)
        own = func.substr(whole, len(plan.code) + 1, type_=String)
        right = case(
            (
                func.starts_with(whole, plan.code),
                or_(
                    own.regexp_match(plan.valid),
                    and_(own.regexp_match(plan.elsewhere), own.regexp_match(plan.possible)),
                ),
            ),
            else_=func.length(whole, type_=Integer).between(_SHORTEST_NUMBER, _LONGEST_NUMBER),
        )
        yield _when(and_(value.text.is_not(None), or_(whole.is_(None), not_(right))), f"invalid {self.phone}")


class _Custom(Rule):
    """A rule among the checks."""

    def reasons(self, lead: FromClause, *, timezone: str) -> Iterator[ColumnElement[str | None]]:
        """Yield why a lead is withheld: the rule's name."""
        yield failed_rule([self], lead, timezone=timezone)


def _which(data: Any) -> str:
    keys = data if isinstance(data, Mapping) else vars(data)
    return next((key for key in ("required", "email", "phone") if key in keys), "rule")


Check = Annotated[
    Annotated[Required, Tag("required")]
    | Annotated[ValidEmail, Tag("email")]
    | Annotated[ValidPhone, Tag("phone")]
    | Annotated[_Custom, Tag("rule")],
    Discriminator(_which),
]
"""One line under `validate`: told apart by their first key, everything else is a rule with a name."""


class Consent(_Model):
    """What shows that the person agreed, and still does; without it a lead is withheld as `no_consent`."""

    field: str | None = Field(default=None, description="Holds whether the person agreed.")
    values: list[str] = Field(
        default=["true", "yes", "y", "1", "on"],
        min_length=1,
        description="What counts as yes, in upper or lower case.",
    )
    given_at: str | None = Field(default=None, description="Holds when the person agreed; with valid_for.")
    valid_for: Duration | None = Field(default=None, description="For how long that counts.")
    until: str | None = Field(
        default=None, description="Holds the day, counted in, or the moment up to which the person agreed."
    )
    opt_out: list[str] = Field(
        default=[], description="Fields in which a yes means that the person does not agree: do_not_sell."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if (self.given_at is None) is not (self.valid_for is None):
            raise ValueError("given_at and valid_for go together")
        if not (self.field or self.given_at or self.until or self.opt_out):
            raise ValueError("name a field: field, given_at, until or opt_out")
        return self

    def reason(self, lead: FromClause, *, timezone: str) -> ColumnElement[str]:
        """Return why a lead is withheld; the moment that counts is the database's now."""
        lacking = list(self._lacking(lead, timezone=timezone))
        return _when(or_(*lacking), NO_CONSENT)

    def _lacking(self, lead: FromClause, *, timezone: str) -> Iterator[ColumnElement[bool]]:
        if self.field is not None:
            yield not_(self._says_yes(Value(name=self.field, lead=lead, timezone=timezone)))
        if self.given_at is not None:
            given = Value(name=self.given_at, lead=lead, timezone=timezone).read_as(Kind.MOMENT)
            yield func.coalesce(given + cast(literal(self.valid_for), Interval) <= func.now(), literal(True))  # noqa: FBT003
            # Nobody agreed tomorrow: such a date is a mistake, and shows nothing.
            yield func.coalesce(given > func.now() + cast(literal("1 day"), Interval), literal(True))  # noqa: FBT003
        if self.until is not None:
            value = Value(name=self.until, lead=lead, timezone=timezone)
            end = value.read_as(Kind.MOMENT)
            through = case(
                (value.text.regexp_match(_DAY_ONLY), end + cast(literal("1 day"), Interval)), else_=end
            )
            yield func.coalesce(through <= func.now(), literal(True))  # noqa: FBT003
        for name in self.opt_out:
            yield self._says_yes(Value(name=name, lead=lead, timezone=timezone))

    def _says_yes(self, value: Value) -> ColumnElement[bool]:
        said = func.lower(value.text, type_=String)
        return func.coalesce(said.in_([one.strip().lower() for one in self.values]), literal(False))  # noqa: FBT003


def international(value: Value, *, region: str) -> ColumnElement[str]:
    """Return the SQL expression for a phone number as its digits with the country's code; NULL where there are none.

    `(201) 555-0123`, `1-201-555-0123` and `+1 201 555 0123` are one number; what is said of an extension is left out.

    Raises:
        BatchConfigError: no numbering plan is known for the region.
    """
    plan = _numbers(region)
    written = func.regexp_replace(value.text, _EXTENSION, "", "i", type_=String)
    digits = func.regexp_replace(written, r"\D", "", "g", type_=String)
    readings = [
        (digits == "", literal(None, String)),
        (written.regexp_match(r"^\(?\+"), digits),
    ]
    if plan.exit:
        away = func.substr(digits, len(plan.exit) + 1, type_=String)
        readings.append((func.starts_with(digits, plan.exit), away))
    readings.append((digits.regexp_match(plan.possible), literal(plan.code).op("||")(digits)))
    if plan.trunk:
        trunkless = func.substr(digits, len(plan.trunk) + 1, type_=String)
        is_so = and_(func.starts_with(digits, plan.trunk), trunkless.regexp_match(plan.possible))
        readings.append((is_so, literal(plan.code).op("||")(trunkless)))
    with_code = func.substr(digits, len(plan.code) + 1, type_=String)
    is_whole = and_(func.starts_with(digits, plan.code), with_code.regexp_match(plan.possible))
    readings.append((is_whole, digits))
    return case(*readings, else_=literal(plan.code).op("||")(digits))


def _numbers(region: str) -> NationalNumbers:
    plan = national_numbers(region)
    if plan is None:
        raise BatchConfigError(
            f"No numbering plan is known for the region {region!r}",
            hint="Write the ISO code of a country, such as US, GB or DE",
        )
    return plan


def _when(wrong: ColumnElement[bool], reason: str) -> ColumnElement[str]:
    return case((wrong, literal(reason, String)))
