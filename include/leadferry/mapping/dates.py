"""The transform `date`: days and instants in the recipient's zone, format and language."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from leadferry.errors import RenderError
from leadferry.mapping import zoned
from leadferry.mapping.step import Context, Options
from leadferry.zones import time_zone

if TYPE_CHECKING:
    import polars as pl

ISO = "iso"
"""The input format that stands for ISO 8601 and PostgreSQL's way of writing it, with or without time and offset."""

_DAY_CODES = frozenset("YymdejaAbBuwUWGVg%")
_TIME_CODES = frozenset("HIMSfpzZ")
_ZONE_CODES = frozenset("zZ")
_NAME_CODES = frozenset("aAbBp")
_CODE = re.compile(r"%(-?)([A-Za-z%])")
# chrono counts nanoseconds where strftime counts microseconds.
_CHRONO = {"%f": "%6f"}
_EARLIEST_YEAR = 1000
"""Chrono reads `26` as the year 26 where `%Y` was asked for; no lead is that old."""


def _codes(text: str) -> set[str]:
    return {match[2] for match in _CODE.finditer(text)}


def _check_codes(text: str) -> str:
    known = _DAY_CODES | _TIME_CODES
    for match in re.finditer(r"%(-?.?)", text):
        code = match[1].removeprefix("-")
        if not code or code not in known:
            allowed = " ".join(f"%{one}" for one in sorted(known))
            raise ValueError(
                f"{match[0]!r} is no date code; allowed are {allowed}, and %-d for a number without leading zero"
            )
    return text


def _check_output(text: str) -> str:
    if not _codes(_check_codes(text)) - {"%"}:
        raise ValueError("has no date code such as %Y, %m or %d")
    return text


def _check_input(text: str) -> str:
    if text == ISO:
        return text
    codes = _codes(_check_codes(text))
    if not ({"Y", "y"} & codes and {"m", "b", "B"} & codes and {"d", "e"} & codes) and not (
        {"Y", "j"} <= codes
    ):
        raise ValueError(f"must be {ISO!r} or hold codes for year, month and day, such as %m/%d/%Y")
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Date(Options):
    """Writes dates; an instant is converted to the recipient's zone first, a plain date stays the same day."""

    format: Annotated[str, AfterValidator(_check_output)] = Field(
        description="How to write it, in strftime codes: %m/%d/%Y"
    )
    input: Annotated[
        list[Annotated[str, AfterValidator(_check_input)]],
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ] = Field(
        default=[ISO],
        min_length=1,
        description="How leads come with it: iso, or strftime codes; the first that fits counts.",
    )
    timezone: str | None = Field(
        default=None, description="Zone in which instants are written; the recipient's when left out."
    )

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str | None) -> str | None:
        if name is None:
            return None
        try:
            time_zone(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"{name!r} is no time zone; write an IANA name such as America/New_York"
            ) from None
        return name

    def apply(self, values: pl.Series, context: Context) -> pl.Series:
        """Read every value and write it anew; what no input format fits fails."""
        zone = self.timezone or context.timezone
        with_zone = bool(_codes(self.format) & _ZONE_CODES)
        moments = read(values.str.strip_chars(), formats=self.input, zone=zone, with_zone=with_zone)
        if _codes(self.format) & _TIME_CODES:
            return _write(moments, template=self.format, locale=context.locale, zone=zone)
        # A block has few different days: each is written once.
        days = moments.dt.date()
        distinct = days.drop_nulls().unique().sort()
        written = _write(distinct, template=self.format, locale=context.locale, zone=zone)
        import polars as pl

        place = pl.select(pl.when(days.is_not_null()).then(distinct.search_sorted(days))).to_series()
        return written.gather(place) if len(distinct) else written.clear(len(days))


def read(values: pl.Series, *, formats: list[str], zone: str, with_zone: bool = False) -> pl.Series:
    """Return wall-clock times in the zone; instants in UTC when the offset is to be written."""
    import polars as pl

    kind = pl.Datetime("us", "UTC") if with_zone else pl.Datetime("us")
    read = pl.Series([None], dtype=kind).new_from_index(0, len(values))
    for one in [step for name in formats for step in _steps(name)]:
        missing = read.is_null() & values.is_not_null()
        if not missing.any():
            break
        found = _localized(_parse(values, one), zone=zone, with_zone=with_zone)
        read = found if missing.sum() == len(values) else read.zip_with(~missing, found)
    return read


_ISO_STEPS = (
    "%Y-%m-%dT%H:%M:%S.%6fZ",  # how received_at comes; polars has a fast way for exactly this
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%dT%H:%M",
)


def _steps(name: str) -> tuple[str, ...]:
    if name == ISO:
        return _ISO_STEPS
    return (_CODE.sub(lambda match: _CHRONO.get(match[0], match[0].replace("-", "")), name),)


def _parse(values: pl.Series, template: str) -> pl.Series:
    """Parse what fits; null elsewhere. The result knows UTC where the template holds an offset."""
    import polars as pl

    if template in _ISO_STEPS and "T" in template:
        if template != _ISO_STEPS[0]:
            values = (
                values.str.replace(r"^(\S{10})[ t]", "${1}T")
                .str.replace(r"[zZ]$", "+00:00")
                .str.replace(r"([+-]\d\d)$", "${1}:00")
            )
        elif values.drop_nulls().head(1).str.len_bytes().sum() != 27:  # noqa: PLR2004 - the length of received_at
            return pl.Series([None], dtype=pl.Datetime("us", "UTC")).new_from_index(0, len(values))
    codes = _codes(template.replace("%#z", "%z").replace("%.f", "").replace("%6f", "%f"))
    if codes & _TIME_CODES:
        moments = values.str.to_datetime(template, time_unit="us", strict=False, ambiguous="null")
        if template.endswith("Z"):
            moments = moments.dt.replace_time_zone("UTC")
    else:
        moments = values.str.to_date(template, strict=False).cast(pl.Datetime("us"))
    return moments.set(moments.dt.year() < _EARLIEST_YEAR, None)


def _localized(moments: pl.Series, *, zone: str, with_zone: bool) -> pl.Series:
    aware = getattr(moments.dtype, "time_zone", None) is not None
    if aware:
        return moments if with_zone else zoned.wall(moments, zone=zone)
    return zoned.instants(moments, zone=zone) if with_zone else moments


def _write(moments: pl.Series, *, template: str, locale: str, zone: str) -> pl.Series:
    """Write wall-clock times, days, or instants in UTC as the clock of the zone shows them."""
    import polars as pl

    instants = moments
    if getattr(moments.dtype, "time_zone", None) is not None:
        moments = zoned.wall(instants, zone=zone)
    parts: list[pl.Expr] = []
    for text in re.split(r"(%-?[aAbBpzZ])", template.replace("%%", "%\0")):
        if not text:
            continue
        code = text.lstrip("%-") if _CODE.fullmatch(text) else ""
        if code in _NAME_CODES and code:
            parts.append(_name(moments, code=code, locale=locale))
        elif code in _ZONE_CODES:
            tell = zoned.offsets_written if code == "z" else zoned.abbreviations
            parts.append(pl.lit(tell(instants, zone=zone)))
        else:
            plain = _CODE.sub(lambda match: _CHRONO.get(match[0], match[0]), text.replace("%\0", "%%"))
            parts.append(pl.lit(moments).dt.strftime(plain))
    return pl.select(pl.concat_str(parts)).to_series()


def _name(moments: pl.Series, *, code: str, locale: str) -> pl.Expr:
    import polars as pl

    column = pl.lit(moments)
    if code == "p":
        periods = _names("periods", width="abbreviated", locale=locale)
        return pl.when(column.dt.hour() < 12).then(pl.lit(periods[0])).otherwise(pl.lit(periods[1]))  # noqa: PLR2004 - noon
    width: Literal["abbreviated", "wide"] = "abbreviated" if code in "ab" else "wide"
    numbers = column.dt.weekday() if code in "aA" else column.dt.month()
    names = _names("days" if code in "aA" else "months", width=width, locale=locale)
    return numbers.replace_strict(dict(enumerate(names, start=1)), default=None, return_dtype=pl.String)


def _names(kind: str, *, width: Literal["abbreviated", "wide"], locale: str) -> list[str]:
    """Return names in a language: of the months, of the days from Monday on, or of morning and afternoon."""
    from babel import Locale
    from babel.core import UnknownLocaleError

    try:
        language = Locale.parse(locale.replace("-", "_"))
    except (UnknownLocaleError, ValueError):
        raise RenderError(
            f"date: {locale!r} is no known locale", hint="Write the recipient's locale as en_US or de_DE"
        ) from None
    if kind == "periods":
        periods = language.day_periods["format"]["abbreviated"]
        return [periods["am"], periods["pm"]]
    names = (language.days if kind == "days" else language.months)["format"][width]
    return [names[number] for number in sorted(names)]
