"""Leads from the outside: bringing them in."""

from __future__ import annotations

import dataclasses
import getpass
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from leadferry.leads_import.layout import Layout
    from leadferry.leads_import.load import ImportResult

app = typer.Typer(
    no_args_is_help=True, help="Leads: bring them in, find them, see where they are, hold and cancel them."
)


@app.callback()
def leads() -> None:
    """Keep `import` a subcommand of its own."""


@app.command("import")
def import_file(  # noqa: PLR0913  one parameter per option
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, NDJSON or XLSX.")],
    *,
    flow: Annotated[str, typer.Option(help="The flow that these leads came in by.")],
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=FIELD", help="Give a column another name; repeatable."),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column that tells leads apart; a known one is not loaded again.")
    ] = None,
    received_column: Annotated[
        str | None, typer.Option(help="Column with the time of arrival; now when left out.")
    ] = None,
    received_format: Annotated[
        str | None, typer.Option(help="Form of that time, such as '%m/%d/%Y %H:%M'; ISO 8601 when left out.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Zone of times without an offset.")] = "UTC",
    kind: Annotated[
        str | None, typer.Option("--type", help="csv, ndjson or xlsx; by the file's ending when left out.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a text file; UTF-8 when left out.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between columns; found out when left out; 'tab' for a tab.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Of an XLSX file; the first when left out.")] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Where bad lines go; FILE.rejects.csv when left out.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, load nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a sentence.")] = False,
) -> None:
    """Load a file of leads into a flow; the same file twice loads nothing twice.

    Exit code 0: every lead of the file is in the store. 1: lines were rejected, or nothing could be loaded.
    """
    from leadferry.connections import lead_store
    from leadferry.leads_import.load import import_leads

    layout = _layout(
        type=kind,
        names=_renamed(rename or []),
        external_id=id_column,
        received_at=received_column,
        received_format=received_format,
        timezone=timezone,
        encoding=encoding,
        delimiter=delimiter,
        sheet=sheet,
    )
    with _progress(quiet=as_json) as progress:
        result = import_leads(
            lead_store(),
            file,
            flow=flow,
            layout=layout,
            rejects=rejects,
            dry_run=dry_run,
            progress=progress,
            actor=getpass.getuser(),
        )
    _say(result, as_json=as_json)
    if not result.ok:
        sys.exit(1)


def _renamed(pairs: list[str]) -> dict[str, str]:
    names = dict(pair.rpartition("=")[::2] for pair in pairs)
    if not all(names) or not all(names.values()):
        raise typer.BadParameter("must be COLUMN=FIELD", param_hint="--map")
    return names


def _layout(**keys: Any) -> Layout:
    """Return the layout; what cannot be meant is wrong usage."""
    from pydantic import ValidationError

    from leadferry.leads_import.layout import Layout

    try:
        return Layout.model_validate(keys)
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)
        )
        raise typer.BadParameter("; ".join(faults)) from None


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Count on the terminal while a large file is read."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} lines read"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda read: bar.update(task, completed=read)


def _say(result: ImportResult, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), default=str, indent=2))
        return
    typer.echo(str(result))
    if result.rejects_file is not None:
        typer.echo(f"The rejected lines, with reasons, are in {result.rejects_file}", err=True)


@app.command("edit")
def edit_leads(
    lead_ids: Annotated[list[int], typer.Argument(metavar="ID…", help="The leads' ids in the store.")],
    *,
    edit: Annotated[
        list[str], typer.Option("--set", metavar="FIELD=VALUE", help="A field's new value; repeatable.")
    ],
    reason: Annotated[str, typer.Option(help="Why; stored with your name.")],
) -> None:
    """Change fields of leads for good, from the next delivery on; what stood there before is kept with the reason."""
    import getpass

    from leadferry.cli.redeliver import changes
    from leadferry.connections import lead_store
    from leadferry.store.edits import edit as change

    changed = change(lead_store(), lead_ids, changes(edit), reason=reason, actor=getpass.getuser())
    typer.echo(f"{changed} leads changed; `leadferry redeliver` delivers them again.")
