"""What a destination that takes leads by requests, and the ledger that remembers them, tell each other.

A *request* carries one lead, a chunk of leads or a file; it has a number in its dispatch, which never changes, because
the leads of a dispatch and their order never change.
The intent is remembered before a request goes out, the buyer's answers after it: so a crash loses none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from leadferry.states import Answer, RequestState


@dataclass(frozen=True, kw_only=True)
class Intent:
    """A request that is about to go out."""

    number: int
    """Counts the requests of a dispatch from 1."""
    lead_ids: tuple[int, ...]
    """The leads in it; none where it carries a file."""
    key: str
    """Idempotency key: the same whenever the same leads are sent again."""


@dataclass(frozen=True, kw_only=True)
class LeadAnswer:
    """What the buyer said to one lead."""

    lead_id: int
    outcome: Answer
    buyer_id: str | None = None
    """The buyer's own id for the lead."""
    price: Decimal | None = None
    message: str | None = None
    """The buyer's words, short, without the lead's values."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a request ended."""

    number: int
    state: RequestState
    lead_ids: tuple[int, ...] = ()
    """The leads in it that have no final answer."""
    answers: tuple[LeadAnswer, ...] = ()
    status_code: int | None = None
    """HTTP status; None when no answer came."""
    latency_ms: int | None = None
    excerpt: str | None = None
    """Start of the answer's body, without the leads' values."""
    error_code: str | None = None
    """Short name of what went wrong, as errors have it."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a request stands that went out before."""

    state: RequestState
    lead_ids: tuple[int, ...]
    """The leads that it carried last, or that still need an answer."""


class Answers(Protocol):
    """Remembers the requests of one dispatch and what the buyer answered, over tries and crashes."""

    def standing(self, first: int, last: int) -> Mapping[int, Standing]:
        """Return the requests with numbers from `first` to `last` (included) that ever went out."""

    def advance(self, *, ended: Sequence[Reply] = (), begun: Sequence[Intent] = ()) -> None:
        """Remember in one step how requests ended and which go out next; waits for a store that is away for a while."""

    def settle_lost(self, state: RequestState) -> int:
        """Move requests whose sender died to `open` or `unknown`; return how many are `unknown` now."""

    def counts(self) -> Mapping[Answer, int]:
        """Count the leads by their final answer."""
