"""The states that rows of the ledger pass through: one enum per thing, one table of allowed moves.

The same table stands in the database (`state_move`), where a trigger refuses every other move;
`docs/reference/states.md` draws it. Tests hold the three together.
"""

from __future__ import annotations

from enum import StrEnum


class DeliveryState(StrEnum):
    """One departure of a batch, from the claim to the outcome."""

    CLAIMED = "claimed"
    """The leads are out of the queue and belong to this delivery; set by the claim."""
    RENDERED = "rendered"
    """All files are complete in the archive; nothing was sent before this."""
    DELIVERED = "delivered"
    """All that the batch's success policy asks for is confirmed."""
    PARTIAL = "partial"
    """Some destinations confirmed, others failed for good; the leads count as delivered."""
    HELD = "held"
    """At least one dispatch is unknown: a person must say whether it arrived."""
    FAILED = "failed"
    """Nothing was confirmed; the leads are back in the queue."""
    SKIPPED = "skipped"
    """There was nothing to deliver, or less than the minimum; the leads stayed in the queue."""


class DeliveryKind(StrEnum):
    """Whose leads a delivery carries."""

    DEPARTURE = "departure"
    """Leads of the queue: they leave it, and come back when the delivery fails."""
    EARLY_COPY = "early_copy"
    """Copies of waiting leads; the leads themselves stay in the queue for the next departure."""
    TEST = "test"
    """Made-up leads; no lead of the queue is touched."""
    REDELIVERY = "redelivery"
    """Leads that a person chose, waiting or not, to one destination; or a stored file once more."""


class LeadStanding(StrEnum):
    """Where a lead stands with one batch and one of its destinations, as the store's function `standing` tells."""

    WAITING = "waiting"
    """In the batch's queue."""
    UNDER_WAY = "under_way"
    """In a delivery that has not ended, or of which nobody knows whether it arrived."""
    DELIVERED = "delivered"
    """The destination has it: the file's arrival is confirmed, or the buyer accepted the lead."""
    REJECTED = "rejected"
    """The buyer did not want it."""
    DUPLICATE = "duplicate"
    """The buyer said to have it already."""
    INCOMPLETE = "incomplete"
    """The buyer needs more data."""
    WITHHELD = "withheld"
    """A delivery took it and kept it back, by a rule or because a field could not be written."""
    FAILED = "failed"
    """Meant for the destination, but it did not arrive there."""
    NEW = "new"
    """It was never on its way there."""


class FileKind(StrEnum):
    """What a file holds; also the order in which files are sent."""

    LEADS = "leads"
    """Rendered leads."""
    CHECKSUM = "checksum"
    """The checksum of one file with leads."""
    MANIFEST = "manifest"
    """The list of the files."""
    DONE = "done"
    """Nothing: it says that everything before it is there."""
    VARIANT = "variant"
    """The same leads once more, zipped or divided, so that a mail can carry them."""
    CHART = "chart"
    """A picture of counts, for the text of a mail."""


class DispatchState(StrEnum):
    """One file on its way to one destination (and one mail recipient)."""

    READY = "ready"
    """Rendered, not yet sent; the next try sends it."""
    SENDING = "sending"
    """The intent is written; bytes may be under way. Found after a crash, it is looked up, never just resent."""
    CONFIRMED = "confirmed"
    """Arrived and verified; the receipt is stored."""
    FAILED = "failed"
    """Did not arrive, and nothing of it is at the destination; may be tried again."""
    UNKNOWN = "unknown"
    """No protocol can tell whether it arrived; waits for a person."""
    SKIPPED = "skipped"
    """Not needed: another destination of its way, a fallback or what it replaces, has the file. Never sent."""


class RequestState(StrEnum):
    """One request to a buyer's API, with one lead, a chunk of leads or a file."""

    SENDING = "sending"
    """The intent is written; the request may be under way. Without a row, it was never sent."""
    ANSWERED = "answered"
    """The buyer's answer for every lead in it is stored."""
    OPEN = "open"
    """The buyer did not take it, or repeating it does no harm: the next try sends it again."""
    UNKNOWN = "unknown"
    """No answer came, and the buyer cannot tell a repeated request from a new one; waits for a person."""


class Answer(StrEnum):
    """What a buyer says to a lead."""

    ACCEPTED = "accepted"
    """The buyer has the lead: it counts as delivered."""
    REJECTED = "rejected"
    """The buyer does not want the lead."""
    DUPLICATE = "duplicate"
    """The buyer says to have had the lead before."""
    INCOMPLETE = "incomplete"
    """The buyer needs more data for the lead."""
    RETRY = "retry"
    """The buyer could not decide now: the lead is sent again. The only answer that is not final."""


MOVES: dict[type[StrEnum], dict[StrEnum, frozenset[StrEnum]]] = {
    DeliveryState: {
        DeliveryState.CLAIMED: frozenset(
            {DeliveryState.RENDERED, DeliveryState.FAILED, DeliveryState.SKIPPED}
        ),
        DeliveryState.RENDERED: frozenset(
            {DeliveryState.DELIVERED, DeliveryState.PARTIAL, DeliveryState.HELD, DeliveryState.FAILED}
        ),
        DeliveryState.HELD: frozenset({DeliveryState.DELIVERED, DeliveryState.PARTIAL, DeliveryState.FAILED}),
        DeliveryState.PARTIAL: frozenset({DeliveryState.DELIVERED}),
    },
    DispatchState: {
        DispatchState.READY: frozenset({DispatchState.SENDING, DispatchState.SKIPPED}),
        DispatchState.SENDING: frozenset(
            {DispatchState.CONFIRMED, DispatchState.FAILED, DispatchState.UNKNOWN, DispatchState.READY}
        ),
        DispatchState.FAILED: frozenset({DispatchState.SENDING, DispatchState.SKIPPED}),
        DispatchState.UNKNOWN: frozenset({DispatchState.CONFIRMED, DispatchState.FAILED}),
    },
    RequestState: {
        RequestState.SENDING: frozenset({RequestState.ANSWERED, RequestState.OPEN, RequestState.UNKNOWN}),
        RequestState.OPEN: frozenset({RequestState.SENDING}),
        RequestState.UNKNOWN: frozenset({RequestState.ANSWERED, RequestState.OPEN}),
    },
}
"""For each enum: from which state to which. A state that is no key is an end."""


def sources(target: StrEnum) -> list[StrEnum]:
    """Return the states from which `target` may be reached, in the enum's order."""
    moves = MOVES[type(target)]
    return [state for state in type(target) if target in moves.get(state, frozenset())]
