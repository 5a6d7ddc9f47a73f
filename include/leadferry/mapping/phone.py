"""The transform `phone`: valid numbers in one form, decided by the `phonenumbers` library.

Parsing a number with the library takes tens of microseconds, a million of them half a minute. What most leads
hold is simple, though: the digits of a national number, perhaps with a trunk prefix or the country's own code,
and some punctuation. Those are read with the patterns that the library itself publishes for the region, all at
once. Whatever is not plainly of that kind goes through the library, each distinct value once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from leadferry.mapping.rest import fill_rest
from leadferry.mapping.step import Context, Options

if TYPE_CHECKING:
    import polars as pl

Form = Literal["e164", "national", "international", "digits"]


class Phone(Options):
    """Checks that a phone number is valid and writes it in one form."""

    region: str = Field(
        pattern=r"^[A-Z]{2}$", description="ISO country code of numbers written without one: US, GB, DE."
    )
    format: Form = Field(
        default="e164",
        description="e164 +12015550123, national (201) 555-0123, international +1 201-555-0123, digits 2015550123.",
    )

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Write every valid number; numbers that cannot exist fail.

        `national` and `digits` cannot tell a country, so numbers of another country fail in these forms.
        """
        plan = _plan(self.region)
        found = (
            _write(_significant(values, plan), plan=plan, form=self.format)
            if plan
            else values.clear(len(values))
        )
        return fill_rest(found, values, lambda value: write_one(value, region=self.region, form=self.format))


def write_one(value: str, *, region: str, form: Form) -> str | None:
    """Read and write one number by the library alone; None where it is not valid."""
    import phonenumbers

    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    if form in {"e164", "international"}:
        kind = (
            phonenumbers.PhoneNumberFormat.E164
            if form == "e164"
            else phonenumbers.PhoneNumberFormat.INTERNATIONAL
        )
        return str(phonenumbers.format_number(number, kind))
    if number.country_code != phonenumbers.country_code_for_region(region):
        return None
    number.extension = None if form == "digits" else number.extension
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    return re.sub(r"\D", "", written) if form == "digits" else str(written)


@dataclass(frozen=True, kw_only=True)
class NationalNumbers:
    """What PostgreSQL needs to know to tell the numbers of a region: regular expressions and prefixes."""

    code: str
    """Country calling code."""
    trunk: str
    """Digit dialled before a national number; empty where there is none."""
    exit: str
    """Digits dialled before the code of another country; empty where there are several ways."""
    possible: str
    """General shape of the region's national numbers."""
    valid: str
    """Numbers of the region."""
    elsewhere: str
    """First digits that belong to another region of the same code."""


def national_numbers(region: str) -> NationalNumbers | None:
    """Return what the library knows of a region's numbers; None where it knows nothing."""
    import phonenumbers

    own: Any = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    if own is None:
        return None
    plan = _make_plan(own)
    way_out = own.international_prefix or ""
    return NationalNumbers(
        code=plan.code,
        trunk=plan.trunk,
        exit=way_out if way_out.isdigit() else "",
        possible=plan.possible,
        valid=plan.valid,
        elsewhere=plan.elsewhere,
    )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the library knows of a region, as patterns for whole columns of digits."""

    code: str
    """Country calling code."""
    trunk: str
    """Digit dialled before a national number, empty where there is none or where it is not plainly removed."""
    prefixes: str
    """What the library would take off the front of a national number; such numbers are left to it."""
    exit: str
    """What the library would take for an international call; such numbers are left to it."""
    possible: str
    """General shape of the region's national numbers."""
    valid: str
    """Numbers of a region that is decided by nothing but its patterns."""
    elsewhere: str
    """First digits that hand a number to another region of the same code; left to the library."""
    national: tuple[tuple[str, str, str], ...]
    """Ways of writing: first digits, pattern, replacement."""
    international: tuple[tuple[str, str, str], ...]


@lru_cache(maxsize=64)
def _plan(region: str) -> _Plan | None:
    """Return the patterns for a region; None where the library's need what polars' engine lacks."""
    import phonenumbers
    import polars as pl

    own: Any = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    if own is None:
        return None
    plan = _make_plan(own)
    ways = [pattern for way in plan.national + plan.international for pattern in way[:2]]
    try:
        for pattern in (plan.prefixes, plan.exit, plan.possible, plan.valid, plan.elsewhere, *ways):
            pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError:
        return None
    return plan


def _make_plan(own: Any) -> _Plan:
    import phonenumbers

    code = own.country_code
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]
    shared: list[Any] = [phonenumbers.PhoneMetadata.metadata_for_region(name, None) for name in regions]
    main = shared[0]
    stripped = [one.national_prefix_for_parsing for one in (own, main) if one.national_prefix_for_parsing]
    return _Plan(
        code=str(code),
        trunk=(own.national_prefix or "") if own.national_prefix_transform_rule is None else "",
        prefixes=_start(stripped),
        exit=_start([own.international_prefix] if own.international_prefix else []),
        possible=_whole([own.general_desc.national_number_pattern]),
        valid=_whole([_valid(one) for one in shared if one.leading_digits is None]),
        elsewhere=_start([one.leading_digits for one in shared if one.leading_digits is not None]),
        national=tuple(_ways(main.number_format, national=True)),
        international=tuple(_ways(main.intl_number_format or main.number_format, national=False)),
    )


_NEVER = r"[^\s\S]"


def _start(patterns: list[str]) -> str:
    return "^(?:" + ("|".join(f"(?:{one})" for one in patterns) or _NEVER) + ")"


def _whole(patterns: list[str]) -> str:
    return "^(?:" + ("|".join(f"(?:{one})" for one in patterns) or _NEVER) + ")$"


def _valid(region: Any) -> str:
    kinds = (
        "fixed_line mobile toll_free premium_rate shared_cost voip personal_number pager uan voicemail".split()  # noqa: SIM905 - a list of ten names reads worse
    )
    described = [getattr(region, kind) for kind in kinds]
    patterns = dict.fromkeys(
        one.national_number_pattern for one in described if one and one.national_number_pattern
    )
    return "|".join(f"(?:{pattern})" for pattern in patterns) or _NEVER


def _ways(formats: list[Any], *, national: bool) -> list[tuple[str, str, str]]:
    ways = []
    for one in formats:
        text = one.format
        if national and one.national_prefix_formatting_rule:
            text = _with_prefix(text, rule=one.national_prefix_formatting_rule)
        first = _start(one.leading_digits_pattern[-1:]) if one.leading_digits_pattern else ""
        ways.append((first, f"^(?:{one.pattern})$", re.sub(r"\\(\d)", r"${\1}", text)))
    return ways


def _with_prefix(text: str, *, rule: str) -> str:
    r"""Write the trunk prefix around the first group: rule `0\1` makes `\1 \2` into `0\1 \2`."""
    return re.sub(r"\\\d", lambda group: rule.replace("\\1", group[0]), text, count=1)


# Nothing but digits and marks that mean nothing; a plus only in front. The library reads exactly the digits of these.
_SIMPLE = r"^(?:\+|\(?)[0-9](?:[ ().-]{0,3}[0-9])*$"


def _significant(values: pl.Series, plan: _Plan) -> pl.Series:
    """Return the national significant number where it is plain to see, else null."""
    import polars as pl

    frame = pl.DataFrame({"text": values})
    text = pl.col("text")
    simple = pl.when(text.str.contains(_SIMPLE)).then(text.str.replace_all(r"[ ().-]+", ""))
    digits = pl.col("digits")
    frame = frame.select(digits=simple).with_columns(numbers=_candidates(digits, plan))
    return frame.get_column("numbers")


def _candidates(digits: pl.Expr, plan: _Plan) -> pl.Expr:
    """Take off the plus and country code, the bare country code, or the trunk prefix, as the library would."""
    import polars as pl

    def plain(number: pl.Expr) -> pl.Expr:
        return (
            number.str.contains(plan.valid)
            & number.str.contains(plan.possible)
            & ~number.str.contains(plan.prefixes)
            & ~number.str.contains(plan.elsewhere)
        )

    dialled = ~digits.str.contains(plan.exit)
    bare = dialled & plain(digits) & ~digits.str.starts_with(plan.code)
    with_plus = digits.str.strip_prefix(f"+{plan.code}")
    with_code = digits.str.strip_prefix(plan.code)
    plus = digits.str.starts_with(f"+{plan.code}") & plain(with_plus)
    coded = dialled & digits.str.starts_with(plan.code) & ~digits.str.contains(plan.possible)
    trunked, national = _without_trunk(digits, plan)
    return (
        pl.when(bare)
        .then(digits)
        .when(plus)
        .then(with_plus)
        .when(coded & plain(with_code))
        .then(with_code)
        .when(dialled & trunked & plain(national))
        .then(national)
    )


def _without_trunk(digits: pl.Expr, plan: _Plan) -> tuple[pl.Expr, pl.Expr]:
    """Return whether a number plainly begins with the trunk prefix, and the number without it."""
    import polars as pl

    # A trunk prefix that is also the country's code has been taken off as that.
    if not plan.trunk or plan.trunk == plan.code:
        return pl.lit(value=False), digits
    only_trunk = digits.str.extract(f"({plan.prefixes})", 1) == plan.trunk
    return only_trunk & ~digits.str.starts_with(plan.code), digits.str.strip_prefix(plan.trunk)


def _write(numbers: pl.Series, *, plan: _Plan, form: Form) -> pl.Series:
    import polars as pl

    number = pl.lit(numbers)
    if form == "e164":
        return pl.select(pl.format(f"+{plan.code}{{}}", number)).to_series()
    written = number
    for first, pattern, replacement in reversed(
        plan.international if form == "international" else plan.national
    ):
        fits = number.str.contains(pattern) & number.str.contains(first)
        written = pl.when(fits).then(number.str.replace(pattern, replacement)).otherwise(written)
    if form == "international":
        written = pl.format(f"+{plan.code} {{}}", written)
    elif form == "digits":
        written = written.str.replace_all(r"[^0-9]+", "")
    return pl.select(written).to_series()
