"""Versions of leads: what people changed of their fields, for good or for one delivery, with the reason.

A delivery sees its leads with the changes that were made for it; everybody else sees them as they are in `lead`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Subquery,
    any_,
    exists,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy import cast as cast_to
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.visitors import replacement_traverse

from leadferry.errors import StoreError
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.tables import lead, lead_edit

_Clause = TypeVar("_Clause", bound=ClauseElement)

_NOTHING = literal_column("'{}'::jsonb", JSONB)


def with_changes(changed: FromClause, on: ColumnElement[bool]) -> Subquery:
    """Return the table `lead` as it reads with the column `changes` of another table laid over its fields.

    Args:
        changed: has the column `changes`, JSON objects.
        on: which row of it belongs to which lead; at most one.
    """
    return select(*_columns(changed)).select_from(lead.outerjoin(changed, on)).subquery("edited")


def versions(changed: Subquery) -> Subquery:
    """Return the rows of another table, each with its lead as that reads with the row's changes laid over its fields.

    Args:
        changed: has the columns `lead_id` and `changes`; its other ones come along.
    """
    own = [column for column in changed.c if column.name not in {"lead_id", "changes"}]
    joined = changed.join(lead, lead.c.id == changed.c.lead_id)
    return select(*own, *_columns(changed)).select_from(joined).subquery("edited")


def _columns(changed: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of a lead with changes laid over its fields."""
    others = [column for column in lead.c if column is not lead.c.fields]
    laid_over = lead.c.fields.op("||", return_type=JSONB())(func.coalesce(changed.c.changes, _NOTHING))
    return [*others, laid_over.label("fields")]


def reading(clause: _Clause, edited: FromClause) -> _Clause:
    """Return a clause on the table `lead` as one that reads another version of it."""
    versions = {id(column): edited.c[column.name] for column in lead.c}
    versions[id(lead)] = cast("Any", edited)

    def replaced(element: Any, **_: Any) -> Any:
        return versions.get(id(element))

    return cast("_Clause", replacement_traverse(clause, {}, replaced))


def as_delivered(connection: Connection, delivery_id: int, clause: _Clause) -> _Clause:
    """Return a clause on the table `lead` as a delivery must read it; itself where nothing was edited for the delivery."""
    mine = lead_edit.c.delivery_id == delivery_id
    if not connection.scalar(select(exists().where(mine))):
        return clause
    return reading(clause, with_changes(lead_edit, (lead_edit.c.lead_id == lead.c.id) & mine))


def edit(
    database: Database, lead_ids: Sequence[int], changes: Mapping[str, Any], *, reason: str, actor: str
) -> int:
    """Change fields of leads for good, from the next delivery on; return how many leads were changed.

    What stood there before is kept, with the reason and who did it. Leads that were rendered already are not touched.

    Args:
        database: the lead store.
        lead_ids: whose fields.
        changes: field → value that JSON can hold; None for no value.
        reason: why; must not be empty.
        actor: who.

    Raises:
        StoreError: a lead is not known, or there is no reason; nothing was changed.
    """
    ids = sorted(set(lead_ids))
    if not reason.strip():
        raise StoreError("A lead's data is edited only with a reason", hint="Give it with --reason")
    mine = lead.c.id == any_(cast_to(literal(ids, ARRAY(BigInteger)), ARRAY(BigInteger)))
    with database.transaction() as connection:
        known = set(connection.scalars(select(lead.c.id).where(mine).with_for_update()))
        if missing := sorted(set(ids) - known):
            raise StoreError(
                f"There is no lead {missing[0]}", hint="Nothing was changed; correct the ids and try again"
            )
        change = literal(dict(changes), JSONB)
        kept = insert(lead_edit).from_select(
            ["lead_id", "persisted", "before", "changes", "reason", "actor"],
            select(
                lead.c.id, literal_column("true"), before(change), change, literal(reason), literal(actor)
            ).where(mine),
        )
        connection.execute(kept)
        connection.execute(update(lead).where(mine).values(fields=lead.c.fields.op("||")(change)))
        # Names only: values are a lead's data (I7), and stand in lead_edit.
        detail = {"fields": sorted(changes), "reason": reason}
        for one in ids:
            record(connection, actor=actor, action="lead.edit", subject=f"lead {one}", detail=detail)
    return len(ids)


def before(changes: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the SQL expression for what a lead of the table `lead` has in the fields that are about to change."""
    names = func.jsonb_object_keys(changes).table_valued("name", name="changing")
    old = (
        select(func.jsonb_object_agg(names.c.name, lead.c.fields.op("->")(names.c.name)))
        .select_from(names)
        .where(func.jsonb_exists(lead.c.fields, names.c.name))
    )
    return func.coalesce(old.correlate_except(names).scalar_subquery(), _NOTHING)
