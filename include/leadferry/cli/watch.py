"""Commands about all batches at once: what is wrong, how they stand, what they delivered."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import typer

from leadferry.cli.output import AsJson, say_who_is_not_counted, show
from leadferry.connections import lead_store

app = typer.Typer()

_STALE = timedelta(hours=1)
"""A look longer ago than this says little about now."""

_NOT_FOR_THE_TABLE = frozenset({"name", "recipient", "schedule", "last_leads", "left_out"})
_SELDOM = ("incidents", "suspended")

_INCIDENTS = ("id", "batch", "kind", "since", "noticed_at", "told_at", "recovered_at", "detail")


@app.command()
def watch(*, as_json: AsJson = False) -> None:
    """Look after all batches once, as the DAG `leadferry_maintenance` does, and tell what is new. Exit 1 when something is wrong."""
    from leadferry.project import config_folder
    from leadferry.watch.tell import watch as look_and_tell

    seen = look_and_tell(lead_store(), config_folder(), now=datetime.now(UTC))
    _show_incidents(seen.open, as_json=as_json, title="Open incidents")
    raise typer.Exit(code=1 if seen.open else 0)


@app.command()
def incidents(
    *,
    count: Annotated[int, typer.Option("-n", min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what went wrong, open or over; looks into the store only."""
    from leadferry.store.incidents import latest

    _show_incidents(latest(lead_store(), limit=count), as_json=as_json, title="Incidents")


def _show_incidents(found: list[Any], *, as_json: bool, title: str) -> None:
    rows = [{name: getattr(one, name) for name in _INCIDENTS} for one in found]
    brief = ["batch", "kind", "since", "recovered_at", "detail"]
    show(rows, as_json=as_json, title=title, columns=_INCIDENTS, brief=brief, prose=["detail"])


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show how all batches stand. Exit 1 when one is broken, or an incident is open."""
    from leadferry.project import config_folder
    from leadferry.store.incidents import last_look
    from leadferry.watch.status import COLUMNS
    from leadferry.watch.status import status as status_of_all

    database, now = lead_store(), datetime.now(UTC)
    rows = status_of_all(database, config_folder(), now=now)
    shown = rows if as_json else [_told(row) for row in rows]
    brief = [one for one in COLUMNS if one not in _NOT_FOR_THE_TABLE]
    show(
        shown,
        as_json=as_json,
        title="All batches",
        columns=COLUMNS,
        brief=brief,
        prose=list(_SELDOM),
        spare=["oldest", "last_departure", "last_state", "next_departure"],
    )
    departs = {"enabled", "over"}
    say_who_is_not_counted(row["batch"] for row in rows if row["pending"] is None and row["state"] in departs)
    looked = last_look(database)
    if looked is None or now - looked > _STALE:
        since = f"since {looked:%Y-%m-%d %H:%M} UTC" if looked else "yet"
        typer.echo(
            f"Nobody looked for incidents {since}: is the DAG leadferry_maintenance running? `leadferry watch` looks now.",
            err=True,
        )
    wrong = any(row["incidents"] or row["state"] == "broken" for row in rows)
    raise typer.Exit(code=1 if wrong else 0)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    moments = {
        name: f"{row[name].astimezone(UTC):%Y-%m-%d %H:%M} UTC" if row[name] else None
        for name in ("next_departure", "last_departure", "oldest")
    }
    if row["left_out"]:
        moments["next_departure"] = f"{moments['next_departure']}, left out"
    lists = {name: ", ".join(row[name]) for name in _SELDOM}
    return {**row, **moments, **lists}


@app.command()
def report(
    *,
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.")],
    by: Annotated[
        list[str] | None, typer.Option("--by", help="day, recipient, batch; repeatable, in this order.")
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Add up what was delivered in a span of days, over all batches, those that are deleted included."""
    from leadferry.watch.report import MEASURES
    from leadferry.watch.report import report as report_on

    groups = _groups(by or ["day", "recipient"])
    if last < first:
        raise typer.BadParameter("--to is before --from")
    rows = report_on(lead_store(), first=first.date(), last=last.date(), by=groups)
    columns = [*groups, *MEASURES]
    if as_csv:
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    brief = [*groups, "departures", "delivered", "failed", "leads", "files", "bytes", "success_rate"]
    span = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    show(rows, as_json=as_json, title=f"Deliveries, {span}", columns=columns, brief=brief)


def _groups(names: list[str]) -> list[Literal["day", "recipient", "batch"]]:
    known: list[Literal["day", "recipient", "batch"]] = ["day", "recipient", "batch"]
    if unknown := [one for one in names if one not in known]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(known)}")
    return [next(one for one in known if one == name) for name in dict.fromkeys(names)]
