"""Names that Excel takes: titles of sheets, letters of columns, and how long Excel thinks a text is."""

from __future__ import annotations

import re
from collections.abc import Iterable

ROWS = 1_048_576
COLUMNS = 16_384
CHARACTERS = 32_767
"""What a sheet and a cell hold: Microsoft, "Excel specifications and limits". Characters are UTF-16 code units."""

LONGEST_TITLE = 31
FORBIDDEN = r"[\[\]:*?/\\]"
"""What no title of a sheet may hold."""

_ALPHABET = 26
_EMPTY = "Leads"


def units(text: str) -> int:
    """Count as Excel does, in UTF-16 code units."""
    return len(text.encode("utf-16-le")) // 2


def cut(text: str, most: int) -> str:
    """Keep at most so many UTF-16 code units, never half a character."""
    return text.encode("utf-16-le")[: most * 2].decode("utf-16-le", errors="ignore")


def sheet_name(wanted: str) -> str:
    r"""Make a name that Excel takes for a sheet: 31 characters, none of `[ ] : * ? / \`, no apostrophe at the ends.

    Never empty: what leaves nothing becomes `Leads`.
    """
    clean = re.sub(FORBIDDEN, "_", re.sub(r"[\x00-\x1f\x7f\ufffe\uffff]", "", wanted))
    name = cut(clean.strip().strip("'").strip(), LONGEST_TITLE).rstrip(" '")
    if name.casefold() == "history":  # reserved by Excel for tracked changes
        name += "_"
    return name or _EMPTY


def unique(names: Iterable[str]) -> list[str]:
    """Number the names that Excel would take for the same, since it does not tell `ca` from `CA`: `CA`, `ca (2)`."""
    wanted = list(names)
    taken: set[str] = set()
    found = []
    for name in wanted:
        number, one = 1, name
        while one.casefold() in taken:
            number += 1
            one = _numbered(name, number)
        taken.add(one.casefold())
        found.append(one)
    return found


def _numbered(name: str, number: int) -> str:
    ending = f" ({number})"
    return cut(name, LONGEST_TITLE - len(ending)).rstrip() + ending


def letters(index: int) -> str:
    """Return the letters of a column counted from 0: A, …, Z, AA."""
    found = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, _ALPHABET)
        found = chr(ord("A") + rest) + found
    return found
