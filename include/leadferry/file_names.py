"""What files are called: names that every system takes, made of templates, numbered and marked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from leadferry.templates import render

LONGEST_NAME = 200
"""Bytes of a file name in UTF-8: file systems allow 255, and temporary and compressed names need room."""

_FORBIDDEN = re.compile(r'[\\/<>:"|?*]')

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\.|$)", re.IGNORECASE)

_EXTENSIONS = re.compile(r"(?:\.[A-Za-z0-9]{1,10}){1,3}$")

_ENDINGS = re.compile(r"(?:\.[A-Za-z][A-Za-z0-9]{0,9}){1,3}$")
"""Extensions that begin with a letter: in `leads_2026.01.31.csv` the day is none."""

_NO_NAME = "file"


def file_name(text: str, variables: Mapping[str, Any]) -> str:
    """Fill a template in and make it a name that every system and protocol takes.

    Slashes and what Windows forbids become `_`; control and invisible characters go; so do dots, dashes and
    white space in front and dots and white space behind. A name that is too long loses the end of its stem, never
    its extension. The result is a single name: it cannot lead into another folder.

    Raises:
        RenderError: as `render`.
    """
    return safe_file_name(render(text, variables))


def safe_file_name(name: str) -> str:
    """Make a name safe as `file_name` does; a safe name stays as it is."""
    visible = "".join(
        " " if one.isspace() else one for one in name if one.isspace() or unicodedata.category(one)[0] != "C"
    )
    # Composed only now: a control character may have stood between a letter and its accent.
    plain = re.sub(" +", " ", _FORBIDDEN.sub("_", unicodedata.normalize("NFC", visible)))
    plain = plain.lstrip(" .-").rstrip(" .") or _NO_NAME
    if _RESERVED.match(plain):
        plain = f"_{plain}"
    return _shortened(plain)


def numbered_name(name: str, number: int) -> str:
    """Return a safe name with a number before its endings: `leads_2.csv.gz`; 1 is the name itself."""
    if number == 1:
        return name
    found = _ENDINGS.search(name)
    ending = found[0] if found else ""
    return _fitted(name.removesuffix(ending), f"_{number}{ending}")


def marked_name(name: str, mark: str) -> str:
    """Return a safe name with a mark before its endings: `leads_R1.csv.gz`; without a mark, the name itself."""
    if not mark:
        return name
    found = _ENDINGS.search(name)
    ending = found[0] if found else ""
    return _fitted(name.removesuffix(ending), f"_{mark}{ending}")


def with_part(template: str) -> str:
    """Return the template of a file's name with the number of the part in it, before its endings."""
    if re.search(r"\bfile\.part\b", template) and "file.parts" not in template:
        return template
    found = _ENDINGS.search(template)
    ending = found[0] if found else ""
    return f"{template.removesuffix(ending)}_{{{{ file.part }}}}{ending}"


def _shortened(name: str) -> str:
    found = _EXTENSIONS.search(name)
    extension = found[0] if found else ""
    return _fitted(name.removesuffix(extension), extension)


def _fitted(stem: str, end: str) -> str:
    if len((stem + end).encode()) <= LONGEST_NAME:
        return stem + end
    cut = stem.encode()[: LONGEST_NAME - len(end.encode())].decode(errors="ignore")
    return unicodedata.normalize("NFC", cut).rstrip(" .") + end
