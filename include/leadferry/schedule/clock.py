"""Times of day and days of the week as people write them."""

from __future__ import annotations

import difflib
from typing import Any, Literal, get_args

from leadferry.units import Clock, write_clock

__all__ = ["WEEKDAYS", "Clock", "Weekday", "check_word", "spoken", "write_clock"]

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
"""In the order of `datetime.date.weekday()`: Monday is 0."""


def check_word(word: Any, *, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is not in the list, with the one that was probably meant.

    Raises:
        ValueError: names what is allowed.
    """
    if word in allowed:
        return
    near = difflib.get_close_matches(str(word).casefold(), allowed, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{word!r} is not one of {', '.join(allowed)}{hint}")


_MOST_SPOKEN = 12


def spoken(words: list[str]) -> str:
    """Join words as one would say them: `mon, thu and sat`; of a long list the first ones, `and 90 more`."""
    if len(words) > _MOST_SPOKEN:
        words = [*words[:_MOST_SPOKEN], f"{len(words) - _MOST_SPOKEN} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
