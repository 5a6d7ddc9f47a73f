"""`python -m leadferry.local`: the whole of Leadferry on this machine, for trying it out; see docs/how-to/try-it.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leadferry.batch.load import load_all
from leadferry.errors import LeadferryError
from leadferry.local.arrivals import Arrival, in_inbox
from leadferry.local.processes import InterruptedRunError
from leadferry.local.runner import SAMPLES, TryOut, all_well, reset
from leadferry.local.settings import USER
from leadferry.local.workspace import PROJECT, Workspace

_LOG_WIDTH = 200
_INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Deliver the sample batches, print what arrived, stop everything.")
    ] = False,
    reset_first: Annotated[
        bool, typer.Option("--reset", help="Start anew: forget all leads, deliveries and files.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Port of the Airflow page; a free one without it."),
    ] = None,
) -> None:
    """Start PostgreSQL, receivers and Airflow on this machine and deliver the sample batches."""
    workspace = Workspace(PROJECT / ".leadferry")
    with workspace.lock():
        if reset_first:
            reset(workspace)
        workspace.make()
        with TryOut(workspace, port=port) as try_out:
            well = _deliver(try_out, workspace=workspace)
            if not once:
                _tell_where(try_out, workspace=workspace)
                try_out.serve()
    raise typer.Exit(0 if well else 1)


def _deliver(try_out: TryOut, *, workspace: Workspace) -> bool:
    """Deliver, print the table, and say whether all that should have arrived did."""
    batches, errors = load_all(PROJECT / "config")
    samples = [batch for batch in batches if batch.enabled and set(batch.flows) & set(SAMPLES)]
    try_out.start(batches)
    found = try_out.deliver(samples)
    _show(found, workspace=workspace)
    for error in errors:
        typer.echo(f"not delivered: {error}", err=True)
    return all_well(found) and not errors


def _show(found: Sequence[Arrival], *, workspace: Workspace) -> None:
    table = Table(title="What arrived", title_justify="left", title_style="bold", box=SIMPLE)
    for name in ("batch", "state", "leads", "file", "where", "sha256"):
        table.add_column(name, justify="right" if name == "leads" else "left", overflow="fold")
    for arrival in found:
        where = _where(arrival, workspace=workspace) or arrival.note
        cells = (arrival.state, str(arrival.leads), arrival.file_name, where, arrival.sha256[:12])
        table.add_row(arrival.batch_id, *map(escape, cells))
    # In a log nobody knows the width, and a path in pieces cannot be copied.
    Console(width=None if sys.stdout.isatty() else _LOG_WIDTH).print(table)


def _where(arrival: Arrival, *, workspace: Workspace) -> str:
    """Return the folder that the file lies in here, or what its destination calls the place."""
    path = in_inbox(workspace.folder / "inbox", arrival)
    return f"{path.parent.relative_to(PROJECT)}/" if path else arrival.location


def _tell_where(try_out: TryOut, *, workspace: Workspace) -> None:
    typer.echo(f"\nAirflow:   {try_out.url}   user {USER}, password {workspace.secrets().admin_password}")
    typer.echo("Commands:  source .leadferry/env.sh && leadferry batches")
    typer.echo("Stop:      Ctrl-C\n")


def main() -> None:
    """Run; a known error is one readable sentence, not a traceback."""
    try:
        app()
    except InterruptedRunError:
        sys.exit(_INTERRUPTED)
    except LeadferryError as error:
        typer.echo(f"{error.code}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
