"""Duplicates: a lead that has a value in common with one that goes, or went, stays out.

A value is compared by a hash of its normalised text (`lead_key`), found through an index, so that the cost grows with the
leads that wait and not with those delivered before. The hashes of a delivery are made by the first claim afterwards that
asks for them: switching it on covers the deliveries that were made before, once, and a batch without it pays nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    MetaData,
    ScalarSelect,
    Select,
    SmallInteger,
    Subquery,
    Table,
    Uuid,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.edits import reading, versions
from leadferry.store.tables import (
    batch_config,
    delivery,
    lead,
    lead_edit,
    lead_key,
    lead_key_made,
    lot,
    queue_entry,
    withheld,
)

_GONE = [DeliveryState.FAILED, DeliveryState.SKIPPED]

candidate_key = Table(
    "candidate_key",
    MetaData(),
    Column("lead_id", BigInteger, nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("key", Uuid, nullable=False),
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)
"""The hashes of the leads that are judged; `number` says by which of the values."""


@dataclass(frozen=True, kw_only=True)
class Same:
    """By what two leads are the same."""

    name: str
    """Said where a lead is withheld: `email`."""
    kind: str
    """What the value is and how it is normalised; values of one kind are compared with each other."""
    value: ColumnElement[str]
    """SQL on the table `lead`: the normalised value, NULL when there is none."""

    @property
    def key(self) -> ColumnElement[Any]:
        """The hash; NULL when there is no value."""
        return cast(func.md5(literal(self.kind + "\x1f").op("||")(self.value)), Uuid)


@dataclass(frozen=True, kw_only=True)
class Dedupe:
    """Which leads are duplicates of which."""

    by: tuple[Same, ...]
    """A lead is a duplicate when one of these is the same."""
    in_file: bool
    """Among the leads that go now."""
    past: bool
    """Of leads that went before."""
    within: timedelta | None
    """How long before; None for ever."""
    recipient: str | None = None
    """Of all batches for this recipient; None for those of the batch alone."""


def withhold_duplicates(  # noqa: PLR0913  # what is compared with what
    connection: Connection,
    candidate: Table,
    batch_no: int,
    dedupe: Dedupe,
    *,
    now: datetime,
    leads: FromClause = lead,
) -> None:
    """Write the reason into the rows of `candidate` that are duplicates; the first in order goes.

    Args:
        connection: inside the claim's transaction.
        candidate: the leads that are judged; those with a reason are no candidates any more.
        batch_no: for which batch.
        dedupe: what to compare with what.
        now: the moment of the claim, aware.
        leads: the table `lead`, or its version that goes.
    """
    candidate_key.create(connection)
    _collect(connection, candidate, dedupe, leads=leads)
    if dedupe.past:
        since = None if dedupe.within is None else now - dedupe.within
        batches = _batches(connection, batch_no, dedupe)
        _make_missing_keys(connection, batches, dedupe, since=since)
        _withhold_known(connection, candidate, batch_no, batches=batches, dedupe=dedupe, since=since)
    if dedupe.in_file:
        _withhold_equal(connection, candidate, dedupe)


def _collect(connection: Connection, candidate: Table, dedupe: Dedupe, *, leads: FromClause) -> None:
    each = [
        select(
            candidate.c.lead_id,
            candidate.c.place,
            cast(literal(number), SmallInteger).label("number"),
            reading(same.key, leads).label("key"),
        )
        .join_from(candidate, leads, leads.c.id == candidate.c.lead_id)
        .where(candidate.c.reason.is_(None), reading(same.value, leads).is_not(None))
        for number, same in enumerate(dedupe.by)
    ]
    names = ["lead_id", "place", "number", "key"]
    connection.execute(insert(candidate_key).from_select(names, union_all(*each)))
    connection.execute(text("ANALYZE candidate_key"))


def _batches(connection: Connection, batch_no: int, dedupe: Dedupe) -> list[int]:
    """Return the batches whose deliveries count; for a recipient's, one claim at a time."""
    if dedupe.recipient is None:
        return [batch_no]
    lock = func.hashtextextended(f"dedupe {dedupe.recipient}", 0)
    connection.execute(select(func.pg_advisory_xact_lock(lock)))
    same = batch_config.c.config["recipient"]["id"].astext == dedupe.recipient
    others = connection.scalars(select(batch_config.c.batch_no).where(same).distinct())
    return sorted({batch_no, *others})


def _make_missing_keys(
    connection: Connection, batches: list[int], dedupe: Dedupe, *, since: datetime | None
) -> None:
    """Make the hashes of deliveries that have none yet."""
    for same in dedupe.by:
        made = exists().where(lead_key_made.c.delivery_id == delivery.c.id, lead_key_made.c.kind == same.kind)
        lacking = select(delivery.c.id).where(*_count(batches, since=since), ~made)
        ids = list(connection.scalars(lacking))
        if not ids:
            continue
        keys = _keys_of(connection, ids, same)
        names = ["key", "batch_no", "delivery_id", "lead_id"]
        connection.execute(upsert(lead_key).from_select(names, keys).on_conflict_do_nothing())
        rows = [{"delivery_id": one, "kind": same.kind} for one in ids]
        # Another batch for the same recipient may be making them at this moment.
        connection.execute(upsert(lead_key_made).on_conflict_do_nothing(), rows)


def _keys_of(connection: Connection, ids: list[int], same: Same) -> Select[Any]:
    """Return the hashes of the leads that went with some deliveries, each lead as it was edited for its delivery."""
    out = exists().where(
        withheld.c.delivery_id == lot.c.delivery_id, withheld.c.lead_id == queue_entry.c.lead_id
    )
    names = [lot.c.batch_no, lot.c.delivery_id, queue_entry.c.lead_id]
    went = lot.join(queue_entry, queue_entry.c.lot_id == lot.c.id)
    condition = lot.c.delivery_id.in_(ids) & ~out
    if not connection.scalar(select(exists().where(lead_edit.c.delivery_id.in_(ids)))):
        both = went.join(lead, lead.c.id == queue_entry.c.lead_id)
        return select(same.key, *names).select_from(both).where(condition, same.value.is_not(None))
    mine = (lead_edit.c.lead_id == queue_entry.c.lead_id) & (lead_edit.c.delivery_id == lot.c.delivery_id)
    edited = select(*names, lead_edit.c.changes).select_from(went.outerjoin(lead_edit, mine)).where(condition)
    leads = versions(edited.subquery("went"))
    keys = select(reading(same.key, leads), leads.c.batch_no, leads.c.delivery_id, leads.c.id)
    return keys.where(reading(same.value, leads).is_not(None))


def _count(batches: list[int], *, since: datetime | None) -> list[ColumnElement[bool]]:
    """Return the conditions for deliveries whose leads are known: not failed, and of real leads."""
    conditions: list[ColumnElement[bool]] = [
        delivery.c.batch_no.in_(batches),
        delivery.c.state.not_in(_GONE),
        delivery.c.kind != DeliveryKind.TEST,
    ]
    return conditions if since is None else [*conditions, delivery.c.window_to >= since]


def _withhold_known(  # noqa: PLR0913  (two tables, two batches)
    connection: Connection,
    candidate: Table,
    batch_no: int,
    *,
    batches: list[int],
    dedupe: Dedupe,
    since: datetime | None,
) -> None:
    went = _went(batch_no, batches=batches, since=since)
    looked = select(candidate_key.c.lead_id, candidate_key.c.number, went.label("went")).subquery()
    known = (
        select(looked.c.lead_id, func.min(looked.c.number).label("number"))
        .where(looked.c.went.is_not(None))
        .group_by(looked.c.lead_id)
        .subquery()
    )
    _take_out(connection, candidate, known, dedupe=dedupe)
    connection.execute(
        delete(candidate_key).where(
            candidate_key.c.lead_id == candidate.c.lead_id, candidate.c.reason.is_not(None)
        )
    )


def _went(batch_no: int, *, batches: list[int], since: datetime | None) -> ScalarSelect[Any]:
    """Return the look, for one key of a candidate, for a delivery in which a lead with that key went."""
    out = exists().where(
        withheld.c.delivery_id == lead_key.c.delivery_id, withheld.c.lead_id == lead_key.c.lead_id
    )
    # One look into the index for each lead: a join might be answered by reading all that was ever delivered.
    return (
        select(lead_key.c.delivery_id)
        .join(delivery, delivery.c.id == lead_key.c.delivery_id)
        # Still in it: a lead that was held after the claim went back to the queue.
        .join(lot, lot.c.delivery_id == lead_key.c.delivery_id)
        .join(
            queue_entry,
            (queue_entry.c.lead_id == lead_key.c.lead_id)
            & (queue_entry.c.batch_no == lead_key.c.batch_no)
            & (queue_entry.c.lot_id == lot.c.id),
        )
        .where(
            lead_key.c.key == candidate_key.c.key,
            lead_key.c.batch_no.in_(batches),
            # A copy of the lead itself, sent early, makes it no duplicate.
            (lead_key.c.lead_id != candidate_key.c.lead_id) | (lead_key.c.batch_no != batch_no),
            *_count(batches, since=since),
            ~out,
        )
        .limit(1)
        .correlate(candidate_key)
        .scalar_subquery()
    )


def _take_out(connection: Connection, candidate: Table, found: Subquery, *, dedupe: Dedupe) -> None:
    """Withhold the leads that were found, each by the number of the key that it shares."""
    connection.execute(
        update(candidate)
        .where(candidate.c.lead_id == found.c.lead_id)
        .values(reason=_reason(dedupe, found.c.number))
    )


def _reason(dedupe: Dedupe, number: ColumnElement[int]) -> ColumnElement[str]:
    names = [f"dedupe {same.name}" for same in dedupe.by]
    return func.split_part(literal("\x1f".join(names)), "\x1f", number + 1)


def _withhold_equal(connection: Connection, candidate: Table, dedupe: Dedupe) -> None:
    """Let of leads that share a value only the first go, as if they were looked at one after the other.

    A lead that is itself withheld keeps nobody out: of A, B like A, and C like B but not like A, both A and C go.
    So in each round those go that are first in everything, and take out those like them, until nobody is left.
    """
    other = candidate_key.alias("other")
    shared = exists().where(other.c.key == candidate_key.c.key, other.c.lead_id != candidate_key.c.lead_id)
    connection.execute(delete(candidate_key).where(~shared))
    while connection.scalar(select(exists().select_from(candidate_key))):
        goes = _first_in_everything()
        taken = select(candidate_key.c.key).where(candidate_key.c.lead_id.in_(select(goes.c.lead_id)))
        losers = (
            select(candidate_key.c.lead_id, func.min(candidate_key.c.number).label("number"))
            .where(candidate_key.c.key.in_(taken), candidate_key.c.lead_id.not_in(select(goes.c.lead_id)))
            .group_by(candidate_key.c.lead_id)
            .subquery()
        )
        _take_out(connection, candidate, losers, dedupe=dedupe)
        connection.execute(
            delete(candidate_key).where(
                candidate_key.c.lead_id.in_(select(goes.c.lead_id))
                | candidate_key.c.lead_id.in_(
                    select(candidate.c.lead_id).where(candidate.c.reason.is_not(None))
                )
            )
        )


def _first_in_everything() -> CTE:
    """Return the leads of which no key stands with a lead before them."""
    first = candidate_key.c.place == func.min(candidate_key.c.place).over(partition_by=candidate_key.c.key)
    firsts = select(candidate_key.c.lead_id, first.label("first")).subquery()
    return (
        select(firsts.c.lead_id).group_by(firsts.c.lead_id).having(func.bool_and(firsts.c.first)).cte("goes")
    )
