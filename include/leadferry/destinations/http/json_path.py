"""Where a value stands in JSON: `$.result.id`, `$.items[0].status`, `$['lead id']`.

These are the *singular queries* of RFC 9535: each leads to one value or to none, which is what an answer to one lead
needs; wildcards and filters would lead to many.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator

_STEP = re.compile(
    r"""\.(?P<name>[^\W\d][\w-]*)|\[(?:'(?P<quoted>[^']+)'|"(?P<double>[^"]+)"|(?P<index>-?\d+))\]"""
)

MISSING = object()
"""What a path that leads nowhere finds; JSON's null is None."""


def _steps(path: str) -> list[str | int]:
    if not path.startswith("$"):
        raise ValueError("a JSON path begins with $, such as $.result.id")
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise ValueError(
                f"cannot be read from {path[at:]!r} on; use .name, ['any name'] and [0], such as $.items[0].id"
            )
        steps.append(
            int(found["index"]) if found["index"] else found["name"] or found["quoted"] or found["double"]
        )
        at = found.end()
    return steps


def _checked(path: str) -> str:
    _steps(path)
    return path


JsonPath = Annotated[str, AfterValidator(_checked)]
"""A path to one value in JSON."""


def value_at(path: str, document: Any) -> Any:
    """Return the value that a path leads to; `MISSING` when it leads nowhere."""
    for step in _steps(path):
        try:
            document = document[step] if isinstance(document, dict) == isinstance(step, str) else MISSING
        except (KeyError, IndexError, TypeError):
            return MISSING
        if document is MISSING:
            return MISSING
    return document
