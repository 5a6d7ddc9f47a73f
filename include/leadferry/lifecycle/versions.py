"""Which configurations of a batch ever ran, and what changed from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from leadferry.batch.secret_literals import redact
from leadferry.store import precedents
from leadferry.store.database import Database

_ABSENT = "-"
_SHOWN = 60
"""Characters of a value that a line has room for."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One effective configuration, as it was frozen when a delivery took its leads."""

    number: int
    """Counts the batch's versions from 1."""
    sha256: str
    first_used_at: datetime
    deliveries: int
    """How many deliveries ran with it."""
    changes: tuple[str, ...]
    """Against the version before: `retry.attempts: 5 → 3`. Secrets are masked."""


def versions(database: Database, batch_id: str) -> list[Version]:
    """Return every configuration that ran, the oldest first; empty for a batch that never departed."""
    found = []
    before: dict[str, Any] = {}
    for number, row in enumerate(precedents.configs(database, batch_id), start=1):
        changes = tuple(changes_between(before, row["config"])) if number > 1 else ()
        about = {name: row[name] for name in ("sha256", "first_used_at", "deliveries")}
        found.append(Version(number=number, changes=changes, **about))
        before = row["config"]
    return found


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield each key that two configurations do not share: `retry.attempts: 5 → 3`. Secrets are masked."""
    old, new = dict(_flat(before)), dict(_flat(after))
    for path in sorted(old.keys() | new.keys()):
        if old.get(path, _ABSENT) != new.get(path, _ABSENT):
            yield f"{path}: {_told(old.get(path, _ABSENT))} → {_told(new.get(path, _ABSENT))}"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every single value with its dotted path."""
    inside = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if not inside:
        yield path, value
        return
    for key, one in inside:
        yield from _flat(one, f"{path}.{key}" if path else str(key))


def _told(value: Any) -> str:
    text = redact(str(value))  # before it is cut, so that no half of a secret stays
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
