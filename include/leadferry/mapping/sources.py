"""How a name in a batch file (`from: state`, `field: state`) finds its value in a lead.

`id`, `flow` and `received_at` are the lead's own; every other name is a key of its free-form fields.
A form field that happens to be called `id` is reached as `fields.id`.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, FromClause, String, cast, func

OWN = ("id", "flow", "received_at")
"""The names that every lead has, whatever form it came from."""

CHANGE = "delivery.change"
"""Not of the lead, but of the delivery: `added`, `changed` or `removed`, with `select.mode: changed`."""


def source(name: str, lead: FromClause) -> ColumnElement[str]:
    """Return the SQL expression, always text, for the value that `name` means.

    A missing key and a JSON null are both SQL NULL; numbers, booleans, lists and objects are their JSON text.
    `received_at` is ISO 8601 in UTC with microseconds, `2026-01-31T23:59:59.000000Z`.

    Args:
        name: as written in the batch file.
        lead: the table `lead` or an alias of it.
    """
    if name == "received_at":
        utc = func.timezone("UTC", lead.c.received_at)
        return func.to_char(utc, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"', type_=String)
    if name in OWN:
        return cast(lead.c[name], String)
    key = name.removeprefix("fields.")
    return lead.c.fields.op("->>", return_type=String())(key)
