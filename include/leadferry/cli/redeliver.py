"""`leadferry redeliver`: chosen leads, or a stored file, to one destination, as the DAG `redeliver_leads` does it."""

from __future__ import annotations

import getpass
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadferry.cli.output import AsJson, aside, show

if TYPE_CHECKING:
    from leadferry.store.redelivery import Chosen
    from leadferry.store.settling import Settlement

app = typer.Typer()

_COLUMNS = ["lead", "received_at", "standing", "edited", "becomes"]


@app.command()
def redeliver(  # noqa: PLR0913  one parameter per option
    batch: Annotated[str, typer.Argument(help="The batch's id.")],
    *,
    to: Annotated[str, typer.Option(help="The one destination of the batch that gets them.")],
    lead: Annotated[list[int] | None, typer.Option(help="Id of a lead; repeatable.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every lead that the batch ever had.")] = False,
    failed_since: Annotated[
        str | None, typer.Option(help="Leads that did not arrive since then, such as 2026-01-31T09:00.")
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option(help="Only leads that stand like this there; repeatable.")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only leads withheld last by this rule.")] = None,
    flow: Annotated[str | None, typer.Option(help="Only leads of this flow.")] = None,
    received_from: Annotated[str | None, typer.Option(help="Only leads received from then on.")] = None,
    received_to: Annotated[str | None, typer.Option(help="Only leads received before.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="JSON", help="A condition as in a rule, such as '{\"field\": …}'; repeatable."),
    ] = None,
    delivery: Annotated[int | None, typer.Option(help="Only leads of this earlier delivery.")] = None,
    file: Annotated[int | None, typer.Option(help="The leads of this stored file.")] = None,
    as_sent: Annotated[bool, typer.Option("--as-sent", help="Send the file's stored bytes.")] = False,
    count: Annotated[int | None, typer.Option(help="Most leads.")] = None,
    order: Annotated[str, typer.Option(help="oldest, newest or random first.")] = "oldest",
    seed: Annotated[int | None, typer.Option(help="With random: draws the same leads again.")] = None,
    include_delivered: Annotated[
        bool, typer.Option("--include-delivered", help="Also leads that the destination has already.")
    ] = False,
    skip_rules: Annotated[
        bool, typer.Option("--skip-rules", help="Also leads that do not meet the rules.")
    ] = False,
    skip_dedupe: Annotated[bool, typer.Option("--skip-dedupe", help="Also duplicates.")] = False,
    override_window: Annotated[
        bool, typer.Option("--override-window", help="Also outside business hours and in a blackout.")
    ] = False,
    assign_others: Annotated[
        bool, typer.Option("--assign-others", help="Also leads of flows that the batch does not listen to.")
    ] = False,
    edit: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Edit a field of all of them first; repeatable."),
    ] = None,
    persist_edits: Annotated[
        bool, typer.Option("--persist-edits", help="Change the leads for good.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why; stored with your name.")] = None,
    unmarked: Annotated[
        bool, typer.Option("--unmarked", help="Leave _R1 out of names, although leads go there again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go; change and send nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Deliver chosen leads, or a stored file, to one destination of a batch. Exit 1 when it did not arrive."""
    params = {
        "batch": batch,
        "destination": to,
        "lead_ids": lead,
        "selection": "all" if every else None,
        "failed_since": failed_since,
        "status": status,
        "rule": rule,
        "flow": flow,
        "received_from": received_from,
        "received_to": received_to,
        "where": [_json(one) for one in where or []],
        "delivery_id": delivery,
        "file_id": file,
        "as_sent": as_sent,
        "count": count,
        "order": order,
        "seed": seed,
        "include_delivered": include_delivered,
        "skip_rules": skip_rules,
        "skip_dedupe": skip_dedupe,
        "override_window": override_window,
        "assign_others": assign_others,
        "edits": changes(edit or []),
        "persist_edits": persist_edits,
        "reason": reason,
        "mark": not unmarked,
        "dry_run": dry_run,
    }
    chosen, settlement = _run(params)
    _say(chosen, settlement, as_json=as_json)
    raise typer.Exit(code=0 if _is_well(settlement) else 1)


def changes(pairs: list[str]) -> dict[str, Any]:
    """Read `field=value`; a value that is JSON (a number, true, null, a quoted text) is meant as that."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not name or not sign:
            raise typer.BadParameter("must be FIELD=VALUE", param_hint="--set")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise typer.BadParameter("must be JSON", param_hint="--where") from None


def _run(params: dict[str, Any]) -> tuple[Chosen, Settlement | None]:
    from leadferry.archive import Archive
    from leadferry.batch.load import load_batch
    from leadferry.connections import lead_store
    from leadferry.delivery.redelivery_params import Redeliver
    from leadferry.lifecycle.redelivery import redeliver_now
    from leadferry.project import config_folder

    asked = Redeliver.parse(params)
    batch = load_batch(asked.batch, config=config_folder())
    with aside():
        return redeliver_now(lead_store(), Archive.from_environment(), batch, asked, actor=getpass.getuser())


def _is_well(settlement: Settlement | None) -> bool:
    from leadferry.states import DeliveryState

    return settlement is None or settlement.state is DeliveryState.DELIVERED


def _say(chosen: Chosen, settlement: Settlement | None, *, as_json: bool) -> None:
    from leadferry.delivery.settle import explain
    from leadferry.store.redelivery import why_not

    if as_json:
        told = {
            "delivery": chosen.delivery_id,
            "state": str(settlement.state) if settlement else None,
            "selected": chosen.selected,
            "included": chosen.included,
            "withheld": dict(chosen.withheld),
            "left_out": dict(chosen.left_out),
            "leads": list(chosen.leads) if settlement is None else [],
        }
        typer.echo(json.dumps(told, default=str, indent=2))
        return
    if settlement is None:
        show(chosen.leads, as_json=False, title="What would go", columns=_COLUMNS)
    rest = why_not(chosen) if chosen.left_out or chosen.withheld else "none left out"
    typer.echo(f"{chosen.included} of {chosen.selected} leads {'go' if settlement else 'would go'} ({rest}).")
    if settlement is not None:
        typer.echo(explain(settlement))
