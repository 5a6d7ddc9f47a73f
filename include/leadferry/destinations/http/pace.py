"""How fast requests may go: so many in a second, and not at all while the buyer asks to be left alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic


class Pace:
    """Says when the next request may go.

    Args:
        per_second: most requests in a second; None sets no limit.
        clock: seconds that only go forward.
    """

    def __init__(self, per_second: float | None, *, clock: Callable[[], float] = monotonic) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._clock = clock
        self._next = clock()

    def delay(self) -> float:
        """Return the seconds until the next request may go; 0 for now."""
        return max(0.0, self._next - self._clock())

    def gone(self) -> None:
        """Say that a request goes now."""
        self._next = max(self._next, self._clock()) + self._gap

    def pause(self, seconds: float) -> None:
        """Let nothing go for so long from now on."""
        self._next = max(self._next, self._clock() + seconds)


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Read the header Retry-After: seconds, or a date (RFC 9110, 10.2.3); None when it cannot be read."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
