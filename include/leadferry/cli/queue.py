"""Commands about what waits: counting it, and holding, releasing and cancelling single leads."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadferry.cli.leads import app as leads
from leadferry.cli.output import AsJson, print_json, say_who_is_not_counted, show, tell
from leadferry.connections import lead_store

if TYPE_CHECKING:
    from leadferry.store.database import Database
    from leadferry.store.queue import Stop
    from leadferry.store.waiting import Queue

app = typer.Typer()

Ids = Annotated[list[int], typer.Argument(metavar="ID...", help="The leads' ids in the store.")]
ForBatch = Annotated[str | None, typer.Option("--batch", help="For this batch only.")]
ForAll = Annotated[bool, typer.Option("--all", help="For all batches, also those that come later.")]
Why = Annotated[str, typer.Option("--reason", help="Why; stored with your name.")]
Samples = Annotated[int, typer.Option("-n", min=0, max=1000, help="How many of the oldest leads to show.")]


@app.command()
def queue(
    batch: Annotated[str | None, typer.Argument(help="The batch's id; all batches when left out.")] = None,
    *,
    samples: Samples = 5,
    as_json: AsJson = False,
) -> None:
    """Show what waits for a batch: how many leads, since when, by flow and age, the oldest with masked values."""
    database = lead_store()
    if batch is None:
        _show_queues(database, as_json=as_json)
        return
    found, oldest = _queue_of(database, batch, samples=samples)
    if as_json:
        print_json({"batch": batch, **asdict(found), "samples": oldest})
        return
    counts = {name: value for name, value in asdict(found).items() if name not in {"flows", "ages"}}
    tell(counts, title=f"Waiting for {batch}")
    if oldest or found.leads:
        _show_who_waits(found, oldest)


def _show_who_waits(found: Queue, oldest: list[dict[str, Any]]) -> None:
    flows = [{"flow": flow, "leads": number} for flow, number in found.flows.items()]
    show(flows, as_json=False, title="By flow", columns=["flow", "leads"])
    most = max(found.ages.values())
    ages = [{"age": age, "leads": number, "": _bar(number, most)} for age, number in found.ages.items()]
    show(ages, as_json=False, title="By age", columns=["age", "leads", ""])
    rows = [{**one, "values": _told(one["fields"])} for one in oldest]
    columns = ["id", "flow", "received_at", "status", "values"]
    show(rows, as_json=False, title="The oldest, with masked values", columns=columns)


def _bar(number: int, most: int) -> str:
    return "#" * -(-20 * number // most) if most else ""


def _told(fields: dict[str, str | None]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in fields.items() if value is not None)


def _show_queues(database: Database, *, as_json: bool) -> None:
    from leadferry.batch.load import load_all
    from leadferry.project import config_folder
    from leadferry.store.waiting import queues
    from leadferry.watch.queues import uncounted

    batches = load_all(config_folder())[0]
    unsure = uncounted(database, batches)
    rows = [
        {
            "batch": one,
            "leads": found.leads,
            "oldest_received_at": found.oldest,
            "newest_received_at": found.newest,
        }
        for one, found in queues(database).items()
        if one not in unsure
    ]
    columns = ["batch", "leads", "oldest_received_at", "newest_received_at"]
    show(rows, as_json=as_json, title="Queues", columns=columns)
    say_who_is_not_counted(one.id for one in batches if one.enabled and one.id in unsure)


def _queue_of(database: Database, batch: str, *, samples: int) -> tuple[Queue, list[dict[str, Any]]]:
    """Route new leads where the batch has a file, then look; the leads are masked."""
    from leadferry.mapping.masked import masked
    from leadferry.store import waiting

    batch_no = _routed(database, batch)
    oldest = waiting.first_waiting(database, batch_no, limit=samples) if samples else []
    shown = masked([one["fields"] for one in oldest])
    rows = [{**one, "fields": fields} for one, fields in zip(oldest, shown, strict=True)]
    return waiting.queue_of(database, batch_no), rows


def _routed(database: Database, batch: str) -> int:
    """Return the batch's number in the store after new leads were offered; of a deleted batch, what is left there."""
    from leadferry.batch.load import batch_ids, load_batch
    from leadferry.batch.received import collects_from
    from leadferry.project import config_folder
    from leadferry.store.precedents import batch_no
    from leadferry.store.routing import route_new_leads

    config = config_folder()
    known = None if batch in batch_ids(config) else batch_no(database, batch)
    if known is not None:
        return known
    found = load_batch(batch, config=config)
    return route_new_leads(database, batch_id=found.id, flows=found.flows, received_from=collects_from(found))


@leads.command()
def pending(
    batch: Annotated[str, typer.Argument(help="The batch's id.")],
    *,
    samples: Samples = 5,
    as_json: AsJson = False,
) -> None:
    """Show in one row what waits for a batch: how many leads, the oldest and the newest; new leads are routed first."""
    found, oldest = _queue_of(lead_store(), batch, samples=samples)
    ids = [one["id"] for one in oldest]
    row = {"batch": batch, **asdict(found), "ids": ids if as_json else ", ".join(map(str, ids))}
    row["flows"] = found.flows if as_json else ", ".join(found.flows)
    brief = ["batch", "flows", "leads", "held", "oldest_received_at", "newest_received_at", "ids"]
    show([row], as_json=as_json, title=f"Waiting for {batch}", columns=list(row), brief=brief)


@leads.command()
def hold(ids: Ids, *, reason: Why, batch: ForBatch = None, every: ForAll = False) -> None:
    """Keep leads in the queue, in their place, until they are released."""
    from leadferry.store.queue import Stop

    _stop(ids, Stop.HELD, batch=batch, every=every, reason=reason)


@leads.command()
def cancel(ids: Ids, *, reason: Why, batch: ForBatch = None, every: ForAll = False) -> None:
    """Withhold leads for good; this cannot be taken back."""
    from leadferry.store.queue import Stop

    _stop(ids, Stop.CANCELLED, batch=batch, every=every, reason=reason)


def _stop(ids: list[int], kind: Stop, *, batch: str | None, every: bool, reason: str) -> None:
    from leadferry.store.queue import stop

    database = lead_store()
    where = _where(database, batch, every=every)
    done = stop(database, ids, kind, batch_id=batch, actor=getpass.getuser(), reason=reason)
    typer.echo(f"{len(done.new)} leads are {kind} {where}; {len(set(ids)) - len(done.new)} were so already")
    if done.under_way:
        told = ", ".join(map(str, done.under_way))
        typer.echo(
            f"In a delivery already; unless its files are still to be written, they go with it: {told}",
            err=True,
        )


@leads.command("release")
def release_leads(ids: Ids, *, reason: Why, batch: ForBatch = None, every: ForAll = False) -> None:
    """Let held leads go with the next departure, in their old place."""
    from leadferry.store.queue import release

    database = lead_store()
    where = _where(database, batch, every=every)
    release(database, ids, batch_id=batch, actor=getpass.getuser(), reason=reason)
    typer.echo(f"{len(set(ids))} leads are released {where}")


def _where(database: Database, batch: str | None, *, every: bool) -> str:
    """Refuse what names neither or both; new leads are offered first, since they can be stopped as well."""
    if every is (batch is not None):
        raise typer.BadParameter("say --batch BATCH, or --all for all batches")
    if batch is None:
        return "for all batches"
    _routed(database, batch)
    return f"for batch {batch}"
