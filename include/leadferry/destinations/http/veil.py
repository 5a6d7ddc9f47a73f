"""Takes the leads' values out of a buyer's words before they are kept: an answer may repeat what it was sent."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator

from leadferry.destinations.http.bodies import Record

_SHORTEST = 3
"""Characters; shorter values, such as a state's, name nobody and stand in too many words."""
_DIGITS = 7
"""From so many digits on, a number is looked for in every way of writing it."""
_MAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")

MOST_LOOKED_AT = 4000
LONGEST_EXCERPT = 500
"""Characters of a body that are looked at, and that are kept."""


class Veil:
    """Hides the values of some leads."""

    def __init__(self, records: Iterable[Record]) -> None:
        # The longest first: a value may be a part of another one.
        self._values = sorted(_written(records), key=lambda pair: len(pair[0]), reverse=True)

    def hide(self, text: str) -> str:
        """Replace every value by its label, `[Email]`; anything that looks like an address goes as well."""
        for value, label in self._values:
            if value in text.casefold():
                text = re.sub(re.escape(value), _as(label), text, flags=re.IGNORECASE)
        for value, label in self._values:
            if (number := _number(value)) is not None:
                text = number.sub(_as(label), text)
        return _MAIL.sub("[e-mail]", text)

    def excerpt(self, body: str) -> str:
        """Return the start of a body, fit to be kept."""
        return self.hide(body[:MOST_LOOKED_AT].replace("\0", ""))[:LONGEST_EXCERPT]


def _as(label: str) -> Callable[[re.Match[str]], str]:
    return lambda _: f"[{label}]"


def _written(records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """Yield the values, lower case, as they stand in plain text, JSON and XML, with their labels."""
    for record in records:
        for label, value in record.fields.items():
            text = value if isinstance(value, str) else json.dumps(value)
            if value is None or isinstance(value, bool) or len(text.strip()) < _SHORTEST:
                continue
            plain = text.strip()
            for way in {plain, json.dumps(plain)[1:-1], html.escape(plain)}:
                yield way.casefold(), label


def _number(value: str) -> re.Pattern[str] | None:
    """Return what finds a telephone number however it is grouped, with or without its country."""
    digits = re.sub(r"\D", "", value)
    if len(digits) < _DIGITS or re.search(r"[^\d\s+().-]", value):
        return None
    return re.compile(r"\+?(?:\d{1,3}[\s.-]?)?\(?" + r"[\s().-]{0,3}".join(digits[-10:]))
