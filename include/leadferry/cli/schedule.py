"""The preview of departures, what gets in the way of each other, and the order to leave one out.

The preview needs neither the lead store nor Airflow; `--skip-next` and `--keep-next` write to the lead store.
"""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadferry.cli.output import AsJson, show
from leadferry.zones import time_zone, told_clock, told_moment

if TYPE_CHECKING:
    from leadferry.batch.model import Batch
    from leadferry.batch.outlook import Outlook
    from leadferry.delivery.leaving_out import Kept

app = typer.Typer()

_ALWAYS = ("utc", "local", "note")
_COLUMNS = ("utc", "local", "window_from", "window_to", "built_at", "note")


@app.command()
def schedule(  # noqa: PLR0913  # one parameter per option of the command
    batch: Annotated[str | None, typer.Argument(help="Id of the batch.")] = None,
    *,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=10_000, help="How many departures.")] = 10,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="First moment of the preview, in the batch's zone: 2026-03-07 or 2026-03-07T12:00."
        ),
    ] = None,
    as_json: AsJson = False,
    as_ics: Annotated[bool, typer.Option("--ics", help="Print a calendar file.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Look for conflicts between all batches instead.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=400, help="With --all: how many days to look ahead.")] = 14,
    skip_next: Annotated[
        bool, typer.Option("--skip-next", help="Leave the next scheduled departure out; its leads wait.")
    ] = False,
    keep_next: Annotated[bool, typer.Option("--keep-next", help="Take such an order back.")] = False,
    reason: Annotated[
        str, typer.Option(help="With --skip-next or --keep-next: why; stored with your name.")
    ] = "",
) -> None:
    """Print the next departures of a batch, in UTC and local time, with the leads they are for and the reason of every shift."""
    from leadferry.batch.outlook import outlooks

    if every is (batch is not None):
        raise typer.BadParameter("name one batch, or ask for --all")
    asked = [skip_next, keep_next, as_ics]
    if sum(asked) > 1 or (every and any(asked)):
        raise typer.BadParameter("--skip-next, --keep-next and --ics go with one batch, one at a time")
    if batch is None:
        _show_conflicts(start, days=days, as_json=as_json)
        return
    found = _load(batch)
    if skip_next or keep_next:
        _order(found, keep=keep_next, reason=reason)
        return
    zone = found.schedule_zone
    upcoming = list(islice(outlooks(found, after=_moment(start, zone=zone)), count))
    if as_ics:
        typer.echo(_calendar_file(found, upcoming), nl=False)
        return
    if found.schedule == "manual" and not as_json:
        typer.echo(f"{found.id}: manual, departs only when it is triggered by hand")
        return
    rows = [_row(one, as_json=as_json) for one in upcoming]
    # Only what says something: most batches take all that wait, at the departure.
    columns = [name for name in _COLUMNS if name in _ALWAYS or any(row[name] for row in rows)]
    title = f"{found.id}: {found.schedule} ({zone})"
    spare = ["window_from", "built_at", "utc", "window_to"]
    show(rows, as_json=as_json, title=title, columns=columns, prose=["note"], spare=spare)
    _warn_of_the_horizon(found, upcoming)
    if not found.enabled:
        typer.echo(
            f"{found.id} is disabled: nothing departs until `leadferry batches enable {found.id}`", err=True
        )


def _load(batch: str) -> Batch:
    from leadferry.batch.load import load_batch
    from leadferry.project import config_folder

    return load_batch(batch, config=config_folder())


def _warn_of_the_horizon(batch: Batch, upcoming: list[Outlook]) -> None:
    """Say on standard error where the calendar's dates end, when the preview goes beyond."""
    calendar = None if batch.schedule == "manual" else batch.schedule.calendar
    until = calendar.known_until if calendar else None
    if until and upcoming and upcoming[-1].departure.local.date() > until:
        told = f"calendar {calendar} knows holidays until {until}; after that day only its weekend counts"
        typer.echo(told, err=True)


def _order(batch: Batch, *, keep: bool, reason: str) -> None:
    from leadferry.connections import lead_store
    from leadferry.delivery.leaving_out import keep_next, leave_out_next, why_none_departs

    now = datetime.now(tz=UTC)
    if not reason:
        raise typer.BadParameter("say why: --reason TEXT")
    if not keep and (why := why_none_departs(batch, now=now)):
        raise typer.BadParameter(f"{batch.id} has no next departure to leave out: {why}")
    actor = getpass.getuser()
    if keep:
        kept = keep_next(lead_store(), batch, now=now, actor=actor, reason=reason)
        typer.echo(f"{batch.id}: {_say_kept(kept, zone=batch.schedule_zone)}")
        return
    left_out = leave_out_next(lead_store(), batch, now=now, actor=actor, reason=reason)
    already = "" if left_out.is_new else "already "
    typer.echo(
        f"{batch.id}: {already}leaves out its departure of {told_moment(left_out.departure.local)}; its leads wait"
    )


def _say_kept(kept: Kept, *, zone: str) -> str:
    following = told_moment(kept.departure.local) if kept.departure else "none"
    if kept.withdrawn:
        return f"departs as planned: {following}"
    if kept.too_late:
        late = f"its departure of {told_moment(kept.too_late, zone=zone)} was left out already"
        return f"{late}, a run by hand takes the leads; the next one goes: {following}"
    return f"nothing was to be left out; the next departure: {following}"


def _show_conflicts(start: str | None, *, days: int, as_json: bool) -> None:
    from leadferry.batch.conflicts import conflicts
    from leadferry.batch.load import load_all
    from leadferry.project import config_folder

    batches, errors = load_all(config_folder())
    found = conflicts(batches, start=_moment(start, zone="UTC"), span=timedelta(days=days))
    rows = [
        {"utc": one.utc, "batches": ", ".join(one.batches), "where": one.where, "problem": one.problem}
        for one in found
    ]
    if rows or as_json:
        show(
            rows,
            as_json=as_json,
            title="Conflicts",
            columns=["utc", "batches", "where", "problem"],
            prose=["problem"],
        )
    else:
        typer.echo(f"No conflicts between {len(batches)} batches in {days} days")
    for error in errors:
        typer.echo(f"not looked at: {error.what}", err=True)
    if rows or errors:
        raise typer.Exit(1)


def _calendar_file(batch: Batch, upcoming: list[Outlook]) -> str:
    from icalendar import Calendar, Event

    calendar = Calendar()
    calendar.add("prodid", "-//Leadferry//departures//EN")
    calendar.add("version", "2.0")
    for outlook in upcoming:
        one, event = outlook.departure, Event()
        event.add("uid", f"{batch.id}-{one.utc:%Y%m%dT%H%M%SZ}@leadferry")
        event.add("dtstamp", one.utc)
        event.add("dtstart", one.utc)
        event.add("summary", batch.name)
        event.add("description", "\n".join(filter(None, [one.note, str(outlook)])))
        calendar.add_component(event)
    return str(calendar.to_ical().decode())


def _moment(written: str | None, *, zone: str) -> datetime:
    """Return the moment after which departures are wanted, so that one at the written moment itself is among them."""
    from leadferry.schedule.instants import resolve

    if written is None:
        return datetime.now(tz=UTC)
    try:
        moment = datetime.fromisoformat(written)
        utc = moment.astimezone(UTC) if moment.tzinfo else resolve(moment, zone=time_zone(zone)).utc
        return utc - datetime.resolution
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{written!r} is no date or time such as 2026-03-07 or 2026-03-07T12:00"
        ) from None


def _row(outlook: Outlook, *, as_json: bool) -> dict[str, Any]:
    departure, window = outlook.departure, outlook.window
    zone = departure.local.tzinfo
    others = {
        "window_from": window and window.begins,
        "window_to": window and window.ends,
        "built_at": outlook.built_at,
    }
    if as_json:
        return {"utc": departure.utc, "local": departure.local, **others, "note": departure.note}
    return {
        "utc": f"{departure.utc:%Y-%m-%d %H:%M}",
        "local": told_clock(departure.local),
        **{name: moment and told_clock(moment.astimezone(zone)) for name, moment in others.items()},
        "note": departure.note,
    }
