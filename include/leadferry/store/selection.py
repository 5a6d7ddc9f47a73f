"""What a claim asks of the leads that wait, as SQL and numbers: a batch's `select` when its words are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement

from leadferry.states import DeliveryKind
from leadferry.store.caps import Cap
from leadferry.store.duplicates import Dedupe

Order = Literal["oldest", "newest", "random"]
Mode = Literal["new", "cumulative", "full", "changed"]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How many of the leads that may go must meet a condition before any of them goes."""

    name: str
    meets: ColumnElement[bool]
    """SQL on the table `lead`."""
    at_least: int
    at_most: int | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which of the pending leads go."""

    failed_rule: ColumnElement[Any] | None = None
    """SQL on the table `lead`: the name of the first rule a lead does not meet, NULL when it meets all.
    None where there is no rule, so that no lead needs to be read."""
    order: Order = "oldest"
    limit: int | None = None
    minimum: int = 1
    """Fewer leads that may go than this stay in the queue."""
    max_wait: timedelta | None = None
    """The minimum does not count once the oldest lead that may go has waited this long."""
    departs_empty: bool = False
    """Below the minimum, depart without leads (a file with only a header) instead of being skipped."""
    keep_for_next: bool = False
    """Also leave the leads in the queue for the next departure."""
    made_up: Sequence[Mapping[str, Any]] = ()
    """Fields of leads that are delivered instead of those that wait: a test."""
    on_hold: str | None = None
    """Why nothing may go at present; the leads are not even looked at."""
    mode: Mode = "new"
    """What goes besides the leads that wait: nothing; what went before; all there is; what changed."""
    version_of: ColumnElement[Any] | None = None
    """SQL on the table `lead`: a UUID that changes with what the batch delivers of it; for the mode `changed`."""
    caps: Sequence[Cap] = ()
    unit_price: Decimal | None = None
    """What every lead is worth, for a cap on revenue."""
    price_of: ColumnElement[Any] | None = None
    """SQL on the table `lead`: what a lead is worth, NULL when that cannot be read."""
    dedupe: Dedupe | None = None
    gates: Sequence[Gate] = ()
    maximum: int | None = None
    """More leads that may go than this stay in the queue, all of them."""
    must_wait: ColumnElement[bool] | None = None
    """SQL on the table `lead`: true for a lead that stays in the queue this time, never NULL."""
    window_from: datetime | None = None
    """Where the window begins, unless the last one ends later; there, when left out. No lead is left behind for it."""
    window_to: datetime | None = None
    """Leads received from this instant on stay for the next departure; now, by the database's clock, when left out."""

    @property
    def has_price(self) -> bool:
        """Whether it is known what leads are worth."""
        return self.unit_price is not None or self.price_of is not None

    @property
    def needs_judge(self) -> bool:
        """Whether more is asked than that a lead meets rules: each lead's place in the order must be known."""
        return bool(self.caps or self.gates) or self.dedupe is not None or self.goes_again

    @property
    def counts_beyond_limit(self) -> bool:
        """Whether the leads count, too, that may go and that the limit leaves for the next delivery."""
        asked = self.limit is not None and (self.minimum > self.limit or self.maximum is not None)
        return asked and self.kind is not DeliveryKind.TEST

    @property
    def goes_again(self) -> bool:
        """Whether leads that went before may go again; early copies and tests are never more than asked for."""
        return self.mode != "new" and self.kind is DeliveryKind.DEPARTURE

    @property
    def kind(self) -> DeliveryKind:
        """What this makes of the delivery."""
        if self.made_up:
            return DeliveryKind.TEST
        return DeliveryKind.EARLY_COPY if self.keep_for_next else DeliveryKind.DEPARTURE
