"""Holidays of countries and exchanges, from the package `holidays`: laws and habits that somebody else keeps up to date."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, time
from functools import lru_cache
from typing import Any

_CLOSES = re.compile(r"close at (\d{1,2}):(\d\d) ?([ap])m", re.IGNORECASE)
_NOON = 12
_LANGUAGE = "en_US"


@dataclass(kw_only=True)
class DatesFound:
    """What one source says about days."""

    closed: dict[date, str] = field(default_factory=dict)
    half_days: dict[date, time] = field(default_factory=dict)
    known_until: date | None = None
    """Last day about which the source says anything."""


def check_country(country: str, subdivision: str | None) -> None:
    """Refuse what the package does not know.

    Raises:
        ValueError: names what is known.
    """
    import holidays

    known = holidays.list_supported_countries(include_aliases=True)
    if country not in known:
        raise ValueError(
            f"{country!r} is no country with known holidays; write its two letters, such as US or DE"
        )
    if subdivision is not None and subdivision not in known[country]:
        near = difflib.get_close_matches(subdivision, known[country], n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        allowed = ", ".join(known[country]) or "none"
        raise ValueError(f"{subdivision!r} is not known in {country}; known: {allowed}{hint}")


def check_categories(country: str, categories: tuple[str, ...]) -> None:
    """Refuse kinds of holidays that the package does not know for a country it knows.

    Raises:
        ValueError: names what is known.
    """
    import holidays

    known = sorted(holidays.country_holidays(country).supported_categories)
    unknown = next((one for one in categories if one not in known), None)
    if unknown is not None:
        raise ValueError(f"the category {unknown!r} is not known for {country}; known: {', '.join(known)}")


def check_market(market: str) -> None:
    """Refuse what the package does not know.

    Raises:
        ValueError: names what is known.
    """
    import holidays

    known = sorted(holidays.list_supported_financial(include_aliases=True))
    if market not in known:
        near = difflib.get_close_matches(market.upper(), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{market!r} is no exchange with known holidays; known: {', '.join(known)}{hint}")


@lru_cache(maxsize=64)
def country_holidays(
    country: str, subdivision: str | None, years: range, categories: tuple[str, ...] = ()
) -> DatesFound:
    """Return the public holidays of a country or a part of it, with the days on which they are observed.

    Raises:
        ValueError: a category that this country does not have.
    """
    import holidays

    chosen = categories or None
    found = holidays.country_holidays(
        country, subdiv=subdivision, years=years, categories=chosen, language=_LANGUAGE
    )
    return DatesFound(closed=_listed(found), known_until=_end(found, years))


@lru_cache(maxsize=64)
def market_holidays(market: str, years: range, *, half_days_end: time | None) -> DatesFound:
    """Return the closed days of an exchange, and its half days when their end is given or told by the package."""
    import holidays

    found = holidays.financial_holidays(market, years=years, language=_LANGUAGE)
    half: dict[date, time] = {}
    if half_days_end is not None and "half_day" in found.supported_categories:
        short = holidays.financial_holidays(market, years=years, categories=("half_day",), language=_LANGUAGE)
        half = {day: _end_told(name) or half_days_end for day, name in _listed(short).items()}
    return DatesFound(closed=_listed(found), half_days=half, known_until=_end(found, years))


def _listed(found: Any) -> dict[date, str]:
    return {day: str(found[day]) for day in sorted(found)}


def _end(found: Any, years: range) -> date:
    return date(min(years[-1], getattr(found, "end_year", years[-1])), 12, 31)


def _end_told(name: str) -> time | None:
    said = _CLOSES.search(name)
    if said is None:
        return None
    hour = int(said[1]) % _NOON + (_NOON if said[3].lower() == "p" else 0)
    return time(hour, int(said[2]))


def check_names(closed: dict[date, str], names: Iterable[str]) -> None:
    """Refuse names that no holiday of these years has.

    Raises:
        ValueError: says which, and what was probably meant.
    """
    known = {_plain(name) for name in closed.values()}
    for name in names:
        if name.casefold() not in {one.casefold() for one in known}:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no holiday here is called {name!r}{hint}")


def without(closed: dict[date, str], names: Iterable[str]) -> dict[date, str]:
    """Leave holidays out by name, also on the days on which they are observed.

    A name that none of them has changes nothing: some come in single years only, which the horizon leaves behind.
    """
    folded = {name.casefold() for name in names}
    return {day: name for day, name in closed.items() if _plain(name).casefold() not in folded}


def _plain(name: str) -> str:
    return re.sub(r"\s*\([^)]*\)$", "", name)
