"""Looking for people among the leads: what is found is masked unless somebody insists, and who looked is recorded."""

from __future__ import annotations

from typing import Any

from leadferry.mapping.masked import masked, masked_text
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.standing import Wanted, find_leads


def search(
    database: Database, wanted: Wanted, *, limit: int, unmasked: bool, actor: str
) -> list[dict[str, Any]]:
    """Return the newest leads that are wanted; leaves an audit row before anything is shown.

    A search is recorded even when its result is masked: that somebody is among the leads is personal, too.
    The row names the fields that were looked at and the leads that were found, never a value.

    Args:
        database: the lead store.
        wanted: which leads.
        limit: most leads.
        unmasked: show values as they are.
        actor: who looks.
    """
    found = find_leads(database, wanted, limit=limit)
    detail = {
        "fields": sorted(wanted.fields),
        "flow": wanted.flow,
        "batch": wanted.batch_id,
        "shown": unmasked,
        "leads": [one["id"] for one in found],
    }
    with database.transaction() as connection:
        record(connection, actor=actor, action="lead.search", subject="leads", detail=detail)
    if unmasked:
        return found
    values = masked([one["fields"] for one in found])
    return [
        {**one, "fields": fields, "external_id": masked_text(one["external_id"])}
        for one, fields in zip(found, values, strict=True)
    ]
