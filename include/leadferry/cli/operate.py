"""Commands that stop and start sending: to a recipient, for a batch, to one of its destinations."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from leadferry.cli.output import AsJson, show
from leadferry.connections import lead_store
from leadferry.store import suspensions
from leadferry.store.suspensions import EVERYTHING, Scope

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="RECIPIENT|BATCH", help="The id of a recipient or a batch.")]
Only = Annotated[str | None, typer.Option("--destination", help="Only this destination of the batch.")]
As = Annotated[
    str | None,
    typer.Option("--as", metavar="recipient|batch", help="Which of the two, when both have this id."),
]
Why = Annotated[str, typer.Option("--reason", help="Why; stored with your name.")]


@app.command()
def hold(name: Name, *, reason: Why, destination: Only = None, scope: As = None) -> None:
    """Send nothing until `resume`: leads wait in the queue, runs skip. What is on its way is finished."""
    found = _scope(name, destination=destination, chosen=scope)
    suspensions.hold(
        lead_store(),
        scope=found,
        name=name,
        destination=destination or EVERYTHING,
        reason=reason,
        actor=getpass.getuser(),
    )
    which = (
        f"{name} --destination {destination}" if destination else f"{name} --as {scope}" if scope else name
    )
    typer.echo(
        f"{_what(found, name, destination)} is on hold; `leadferry resume {which} --reason TEXT` ends it,"
        " `leadferry suspensions` lists all that is held."
    )


@app.command()
def resume(name: Name, *, reason: Why, destination: Only = None, scope: As = None) -> None:
    """End what holds or suspends a recipient, a batch or a destination; the next departure sends again."""
    found = _scope(name, destination=destination, chosen=scope)
    ended = suspensions.resume(
        lead_store(), scope=found, name=name, destination=destination, reason=reason, actor=getpass.getuser()
    )
    typer.echo(f"{_what(found, name, destination)}: {ended} ended. The next departure sends again.")


@app.command("suspensions")
def list_suspensions(*, as_json: AsJson = False) -> None:
    """List what is held or suspended now: since when, why, by whom, until when."""
    columns = ["scope", "name", "destination", "cause", "reason", "since", "until", "actor", "delivery_id"]
    found = suspensions.active(lead_store())
    rows = [{name: getattr(one, name) for name in columns} for one in found]
    show(rows, as_json=as_json, title="Suspensions", columns=columns, brief=columns[:-1], prose=["reason"])


def _scope(name: str, *, destination: str | None, chosen: str | None) -> Scope:
    """Find out what a name is; a name that is neither would hold nothing."""
    kinds = _kinds(name)
    if chosen is not None:
        kinds = [one for one in kinds if one == chosen]
    if not kinds:
        raise typer.BadParameter(f"there is no {chosen or 'recipient or batch'} {name!r}")
    if destination is not None:
        kinds = [one for one in kinds if one == "batch"]
        _require_destination(name, destination, is_batch=bool(kinds))
    if len(kinds) > 1:
        raise typer.BadParameter(f"{name!r} is a recipient and a batch: say --as recipient or --as batch")
    return kinds[0]


def _kinds(name: str) -> list[Scope]:
    from leadferry.batch.load import batch_ids
    from leadferry.project import config_folder

    config = config_folder()
    kinds: list[Scope] = ["batch"] if name in batch_ids(config) else []
    if (config / "recipients" / f"{name}.yaml").is_file():
        kinds.append("recipient")
    return kinds


def _require_destination(name: str, destination: str, *, is_batch: bool) -> None:
    from leadferry.batch.load import load_batch
    from leadferry.project import config_folder

    if not is_batch:
        raise typer.BadParameter("a destination belongs to a batch: name the batch")
    known = [one.id for one in load_batch(name, config=config_folder()).destinations]
    if destination not in known:
        raise typer.BadParameter(
            f"batch {name!r} has no destination {destination!r}; known: {', '.join(known)}"
        )


def _what(scope: Scope, name: str, destination: str | None) -> str:
    return f"Destination {destination} of batch {name}" if destination else f"{scope.title()} {name}"
