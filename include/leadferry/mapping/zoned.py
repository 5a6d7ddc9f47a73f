"""Instants on the clock of a zone, for whole blocks, by the same rules as everywhere else.

Polars converts time zones too, but by rules that were built into it: they are as old as its release, and a file would
tell another hour than the schedule for countries that have changed their clocks since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import TYPE_CHECKING

from leadferry.zones import time_zone

if TYPE_CHECKING:
    import polars as pl

_YEARS = range(1000, 9999)
"""Years whose rules can be asked for; those outside go by the nearest."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    """A time in which a zone's clock does not change."""

    begins: datetime
    """In UTC, without a zone."""
    offset: timedelta
    abbreviation: str


def wall(instants: pl.Series, *, zone: str) -> pl.Series:
    """Return what the clock of a zone shows at instants, which know UTC; the result knows no zone."""
    utc = instants.dt.replace_time_zone(None)
    return utc + _offsets(utc, _spans(utc, zone))


def instants(walls: pl.Series, *, zone: str) -> pl.Series:
    """Return when the clock of a zone shows these times: the first time where it does twice, null where it never does."""
    import polars as pl

    spans = _spans(walls, zone)
    before, after = (walls - _offsets(walls + by, spans) for by in (-_DAY, _DAY))
    found = pl.select(
        pl.when(before + _offsets(before, spans) == walls)
        .then(before)
        .when(after + _offsets(after, spans) == walls)
        .then(after)
    ).to_series()
    return found.dt.replace_time_zone("UTC")


def offsets_written(instants: pl.Series, *, zone: str) -> pl.Series:
    """Return the zone's offset at each instant as %z writes it: -0400."""
    utc = instants.dt.replace_time_zone(None)
    spans = _spans(utc, zone)
    return _told(utc, spans, [f"{datetime(2000, 1, 1, tzinfo=timezone(one.offset)):%z}"[:5] for one in spans])


def abbreviations(instants: pl.Series, *, zone: str) -> pl.Series:
    """Return the zone's abbreviation at each instant as %Z writes it: EDT."""
    utc = instants.dt.replace_time_zone(None)
    spans = _spans(utc, zone)
    return _told(utc, spans, [one.abbreviation for one in spans])


def _told(utc: pl.Series, spans: list[_Span], texts: list[str]) -> pl.Series:
    import polars as pl

    found = pl.Series(texts, dtype=pl.String).gather(_places(utc, spans))
    return pl.select(pl.when(utc.is_not_null()).then(found)).to_series()


def _offsets(utc: pl.Series, spans: list[_Span]) -> pl.Series:
    import polars as pl

    return pl.Series([one.offset for one in spans], dtype=pl.Duration("us")).gather(_places(utc, spans))


def _places(utc: pl.Series, spans: list[_Span]) -> pl.Series:
    """Return for each instant which of the spans it falls into."""
    import polars as pl

    begins = pl.Series([one.begins for one in spans], dtype=pl.Datetime("us"))
    return begins.search_sorted(utc, side="right").clip(1) - 1


def _spans(moments: pl.Series, zone: str) -> list[_Span]:
    """Return the spans of all years that occur, and of the years beside them."""
    years = moments.dt.year().drop_nulls().unique().to_list() or [_YEARS[0]]
    around = {min(max(year + by, _YEARS[0]), _YEARS[-1]) for year in years for by in (-1, 0, 1)}
    return [span for year in sorted(around) for span in _spans_of_year(zone, year)]


@cache
def _spans_of_year(zone: str, year: int) -> tuple[_Span, ...]:
    """Return the spans of a year: the one it begins with, and one for each change."""
    day = datetime(year, 1, 1, tzinfo=UTC)
    found = [_span(day, zone)]
    while day.year == year:
        following = day + _DAY
        if not _same(_span(following, zone), found[-1]):
            found.append(_first_unlike(found[-1], day, following, zone))
        day = following
    return tuple(one for one in found if one.begins.year == year)


def _first_unlike(span: _Span, low: datetime, high: datetime, zone: str) -> _Span:
    """Return what follows a span, which ends between two instants; to the second."""
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        low, high = (middle, high) if _same(_span(middle, zone), span) else (low, middle)
    return _span(high, zone)


def _span(instant: datetime, zone: str) -> _Span:
    local = instant.astimezone(time_zone(zone))
    return _Span(
        begins=instant.replace(tzinfo=None),
        offset=local.utcoffset() or timedelta(),
        abbreviation=local.tzname() or zone,
    )


def _same(one: _Span, other: _Span) -> bool:
    return (one.offset, one.abbreviation) == (other.offset, other.abbreviation)
