"""Commands about what was: deliveries, leads and where they went, who did what."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from leadferry.cli.leads import app as leads
from leadferry.cli.moments import FORMS, moment
from leadferry.cli.output import AsJson, print_json, show, tell
from leadferry.connections import lead_store
from leadferry.states import DeliveryState
from leadferry.store.standing import Outcome

app = typer.Typer()
delivery = typer.Typer(help="One delivery.")
config = typer.Typer(help="Configurations that deliveries used.")
app.add_typer(delivery, name="delivery")
app.add_typer(config, name="config")

Since = Annotated[str | None, typer.Option(help=f"From then on: {FORMS}.")]
DeliveryId = Annotated[int, typer.Argument(metavar="DELIVERY", help="The delivery's id.")]


@app.command()
def deliveries(  # noqa: PLR0913  (one parameter for each option)
    batch: Annotated[str | None, typer.Argument(help="The batch's id; all batches when left out.")] = None,
    *,
    count: Annotated[int, typer.Option("-n", min=1, help="How many, newest first.")] = 20,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    since: Since = None,
    recipient: Annotated[
        str | None, typer.Option(help="Only those to this recipient, whatever it gets now.")
    ] = None,
    needs_attention: Annotated[
        bool, typer.Option("--needs-attention", help="Only those that wait for a person.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List deliveries: when, how many leads, what became of them."""
    from leadferry.store.history import Asked
    from leadferry.store.history import deliveries as deliveries_of

    if needs_attention:
        _show_needs_attention(batch, count=count, as_json=as_json)
        return
    asked = Asked(batch_id=batch, recipient_id=recipient, state=state, since=moment(since))
    columns = ["id", "batch", "number", "kind", "state", "included", "withheld", "confirmed", "answers"]
    columns += ["files", "departs_at", "settled_at", "reason"]
    brief = ["id", "state", "included", "withheld", "answers", "departs_at", "files", "reason"]
    rows = deliveries_of(lead_store(), asked, limit=count)
    title = f"Deliveries of {batch}" if batch else "Deliveries"
    brief = brief if batch else ["id", "batch", *brief[1:]]
    show(
        rows,
        as_json=as_json,
        title=title,
        columns=columns,
        brief=brief,
        prose=["files", "reason"],
        spare=["files", "answers", "withheld"],
    )


def _show_needs_attention(batch: str | None, *, count: int, as_json: bool) -> None:
    """Exits with 1 when there are any, so that a monitor need not read the list."""
    from leadferry.store.history import needs_attention

    columns = ["id", "batch", "state", "included", "confirmed", "departs_at", "lease_until", "why"]
    rows = needs_attention(lead_store(), batch, limit=count)
    brief = ["id", "batch", "state", "included", "departs_at", "why"]
    show(
        rows,
        as_json=as_json,
        title="Deliveries that need a person",
        columns=columns,
        brief=brief,
        prose=["why"],
    )
    if rows:
        raise typer.Exit(1)


@delivery.callback()
def _delivery() -> None:
    """Keep `show` a subcommand of its own."""


@delivery.command("show")
def show_delivery(delivery_id: DeliveryId, *, as_json: AsJson = False) -> None:
    """Show all about one delivery: leads, files, where each went with evidence or error, buyers' answers, config."""
    from leadferry.lifecycle.details import details
    from leadferry.project import config_folder

    found = details(lead_store(), delivery_id, config=config_folder())
    if as_json:
        print_json(found)
        return
    about = {key: value for key, value in found.items() if not isinstance(value, list | dict)}
    tell({key: value for key, value in about.items() if value is not False}, title=f"Delivery {delivery_id}")
    for title, rows, columns in _parts(found):
        if rows:
            show(rows, as_json=False, title=title, columns=columns, prose=["error"])
    for change in found["config_changes"] or []:
        typer.echo(f"changed since then: {change}")


def _parts(found: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]], list[str]]]:
    tries = [{"dispatch": one["id"], **attempt} for one in found["dispatches"] for attempt in one["tries"]]
    sent = ["id", "destination", "addressee", "state", "attempts", "file", "location", "error"]
    tried = ["dispatch", "number", "started_at", "seconds", "outcome", "error_code", "error"]
    return [
        ("Withheld", found["withheld_reasons"], ["reason", "leads"]),
        ("Files", found["files"], ["id", "kind", "name", "rows", "size", "sha256"]),
        ("Dispatches", found["dispatches"], sent),
        ("Attempts", tries, tried),
        ("Buyers' answers", found["answers"], ["destination", "outcome", "leads", "price"]),
        ("Done by people", found["done_by"], ["at", "actor", "action", "object"]),
    ]


@config.callback()
def _config() -> None:
    """Keep `show` a subcommand of its own."""


@config.command("show")
def show_config(
    delivery_id: DeliveryId,
    *,
    diff: Annotated[
        bool, typer.Option("--diff", help="Only what the batch's file says otherwise now.")
    ] = False,
) -> None:
    """Print the configuration that a delivery used, as JSON; also of a batch whose file is gone."""
    from leadferry.lifecycle.details import details, shown_config
    from leadferry.project import config_folder

    if not diff:
        print_json(shown_config(lead_store(), delivery_id))
        return
    changes = details(lead_store(), delivery_id, config=config_folder())["config_changes"]
    if changes is None:
        typer.echo("The batch has no file any more that could be compared, or it does not load", err=True)
        raise typer.Exit(1)
    typer.echo("\n".join(changes) or "nothing has changed")


@leads.command("search")
def search_leads(  # noqa: PLR0913  (one parameter for each option)
    *,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", metavar="FIELD=VALUE", help="A field's whole value, in any case; repeatable."
        ),
    ] = None,
    flow: Annotated[str | None, typer.Option(help="Only of this flow.")] = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option(help="Received before then, written likewise.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only leads that came to this batch.")] = None,
    status: Annotated[Outcome | None, typer.Option(help="Only those that stand so in the batch.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many, newest first.")] = 20,
    unmasked: Annotated[bool, typer.Option("--show", help="Show values unmasked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find leads by what is in them, when they came and where they stand; values are masked. Who looked is recorded."""
    from leadferry.lifecycle.lookup import search
    from leadferry.store.standing import Wanted

    wanted = Wanted(
        fields=dict(map(_condition, where or [])),
        flow=flow,
        since=moment(since),
        until=moment(until),
        batch_id=batch,
        outcome=status,
    )
    rows = search(lead_store(), wanted, limit=count, unmasked=unmasked, actor=getpass.getuser())
    if not as_json:
        rows = [{**row, "stands": _stands(row["standing"]), "values": _values(row["fields"])} for row in rows]
    columns = ["id", "flow", "external_id", "received_at", "fields", "standing"]
    brief = ["id", "flow", "received_at", "stands", "values"]
    show(rows, as_json=as_json, title="Leads", columns=columns if as_json else brief)


def _condition(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not FIELD=VALUE", param_hint="--where")
    return name, value


def _stands(standing: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one['batch']}: {one['outcome']}" for one in standing)


def _values(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in fields.items() if value not in (None, ""))


@leads.command("show")
def show_lead(
    lead_id: Annotated[int, typer.Argument(metavar="ID", help="The lead's id in the store.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show where a lead waits and went: deliveries, files, destinations, receipts, answers; without its data."""
    from leadferry.store.standing import story_of

    story = story_of(lead_store(), lead_id)
    if as_json:
        print_json(story)
        return
    columns = ["batch", "delivery", "outcome", "reason", "at"]
    show(story["history"], as_json=False, title=f"Lead {lead_id} ({story['flow']})", columns=columns)
    for title, rows, names in _chapters(story):
        if rows:
            show(rows, as_json=False, title=title, columns=names)


def _chapters(story: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]], list[str]]]:
    history = story["history"]
    files = {file["id"]: file["name"] for one in history for file in one["files"]}
    sent = [
        {**row, "file": files[row["file_id"]], "location": (row["receipt"] or {}).get("location")}
        for one in history
        for row in one["dispatches"]
    ]
    answers = [row for one in history for row in one["answers"]]
    went = ["delivery", "destination", "addressee", "state", "updated_at", "file", "location", "error"]
    told = ["at", "batch", "destination", "outcome", "status", "buyer_id", "price", "message"]
    return [
        ("Held and cancelled", story["stops"], ["kind", "batch", "reason", "actor", "at"]),
        ("Where its files went", sent, went),
        ("What buyers answered, the newest last", answers, told),
        ("Done by people", story["audit"], ["at", "actor", "action", "detail"]),
    ]


@app.command("audit")
def show_audit(  # noqa: PLR0913  (one parameter for each option)
    *,
    subject: Annotated[
        str | None, typer.Option("--object", help="About this thing: 'batch acme', 'lead 17', 'file 3'.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Done by this user.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this, or all that begins with it: lead, lead.hold.")
    ] = None,
    since: Since = None,
    count: Annotated[int, typer.Option("-n", min=1, help="How many, newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List what people did: who, when, what, to which thing, and why."""
    from leadferry.store.audit import trail

    rows = trail(lead_store(), subject=subject, actor=actor, action=action, since=moment(since), limit=count)
    columns = ["id", "at", "actor", "action", "object", "detail"]
    if not as_json:
        rows = [{**row, "detail": _values(row["detail"])} for row in rows]
    show(rows, as_json=as_json, title="Audit", columns=columns, brief=columns[1:])
