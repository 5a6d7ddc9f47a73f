"""Moments as people type them: a day, a time, or how long ago."""

from __future__ import annotations

from datetime import UTC, datetime

import typer
from pydantic import TypeAdapter, ValidationError

from leadferry.units import Duration

FORMS = "2026-03-07, 2026-03-07T12:00 (UTC unless it says otherwise), or 7d for seven days ago"


def moment(written: str | None) -> datetime | None:
    """Return the moment that an option names, aware; None where it was left out."""
    if written is None:
        return None
    try:
        return datetime.now(UTC) - TypeAdapter(Duration).validate_python(written)
    except (ValidationError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        raise typer.BadParameter(f"{written!r} is none of {FORMS}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
