"""Commands about what the lead store holds: deliveries, dispatches, files, the database itself."""

from __future__ import annotations

import getpass
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from leadferry.archive import Archive
from leadferry.cli.output import AsJson, show
from leadferry.connections import lead_store
from leadferry.errors import StoreError
from leadferry.states import DispatchState
from leadferry.store import history, ledger
from leadferry.store.audit import record
from leadferry.store.retirements import removed_at

app = typer.Typer()
db = typer.Typer(help="The lead store's database.")
files = typer.Typer(help="Files that were rendered.")
dispatch = typer.Typer(help="Files on their way to one destination.")
app.add_typer(db, name="db")
app.add_typer(files, name="files")
app.add_typer(dispatch, name="dispatch")

Reason = Annotated[str, typer.Option(help="How you know; stored with your name.")]


@db.command()
def upgrade() -> None:
    """Create or migrate the lead store's tables; safe to run at any time."""
    lead_store().upgrade()
    typer.echo("The lead store is up to date.")


@app.command()
def deliveries(
    batch: Annotated[str | None, typer.Argument(help="The batch's id.")] = None,
    *,
    count: Annotated[int, typer.Option("-n", min=1, help="How many, newest first.")] = 20,
    needs_attention: Annotated[
        bool,
        typer.Option(
            "--needs-attention", help="Only those that wait for a person; of all batches by default."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List a batch's deliveries: when, how many leads, what became of them."""
    if needs_attention:
        _show_needs_attention(batch, count=count, as_json=as_json)
        return
    if batch is None:
        raise typer.BadParameter("name a batch, or say --needs-attention")
    columns = ["id", "number", "state", "included", "withheld", "confirmed", "answers"]
    columns += ["files", "departs_at", "reason"]
    rows = history.deliveries(lead_store(), batch, limit=count)
    brief = ["id", "state", "included", "withheld", "answers", "departs_at", "files", "reason"]
    show(rows, as_json=as_json, title=f"Deliveries of {batch}", columns=columns, brief=brief)


def _show_needs_attention(batch: str | None, *, count: int, as_json: bool) -> None:
    """Exits with 1 when there are any, so that a monitor need not read the list."""
    columns = ["id", "batch", "state", "included", "confirmed", "departs_at", "lease_until", "why"]
    rows = history.needs_attention(lead_store(), batch, limit=count)
    brief = ["id", "batch", "state", "included", "departs_at", "why"]
    show(rows, as_json=as_json, title="Deliveries that need a person", columns=columns, brief=brief)
    if rows:
        raise typer.Exit(1)


@app.command()
def preview(
    batch: Annotated[str, typer.Argument(help="The batch's id.")],
    *,
    count: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many leads at most.")] = 5,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the files.")] = Path("preview"),
) -> None:
    """Render a few waiting leads as the batch would deliver them now; nothing is claimed or sent."""
    from leadferry.batch.load import load_batch
    from leadferry.delivery.preview import preview as render_preview
    from leadferry.project import config_folder

    found = load_batch(batch, config=config_folder())
    now = datetime.now(UTC)
    actor = getpass.getuser()
    for path in render_preview(lead_store(), found, out, leads=count, now=now, actor=actor):
        typer.echo(str(path))


@dispatch.command("list")
def list_dispatches(
    delivery: Annotated[int, typer.Argument(help="The delivery's id.")], *, as_json: AsJson = False
) -> None:
    """List what a delivery sent where, with the evidence or the error."""
    columns = [
        "id",
        "destination",
        "addressee",
        "state",
        "attempts",
        "file_id",
        "file",
        "rows",
        "sha256",
        "location",
        "error",
    ]
    rows = history.dispatches(lead_store(), delivery)
    brief = ["id", "destination", "state", "file_id", "location", "error"]
    show(rows, as_json=as_json, title=f"Dispatches of delivery {delivery}", columns=columns, brief=brief)


@dispatch.command()
def confirm(dispatch_id: Annotated[int, typer.Argument(metavar="ID")], *, reason: Reason) -> None:
    """Say that a dispatch whose outcome is unknown did arrive."""
    _resolve(dispatch_id, DispatchState.CONFIRMED, reason)


@dispatch.command()
def fail(dispatch_id: Annotated[int, typer.Argument(metavar="ID")], *, reason: Reason) -> None:
    """Say that a dispatch whose outcome is unknown did not arrive."""
    _resolve(dispatch_id, DispatchState.FAILED, reason)


def _resolve(dispatch_id: int, outcome: DispatchState, reason: str) -> None:
    settled = ledger.resolve(lead_store(), dispatch_id, outcome, actor=getpass.getuser(), reason=reason)
    typer.echo(f"Dispatch {dispatch_id} is {outcome}; delivery {settled.delivery_id} is {settled.state}.")


@files.command()
def get(
    file_id: Annotated[int, typer.Argument(metavar="ID", help="The file's id.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write it; must not exist yet.")],
) -> None:
    """Write a stored file, hash checked; the download is recorded."""
    database = lead_store()
    file = history.get_file(database, file_id)
    if (removed := removed_at(database, file.archive_key)) is not None:
        raise StoreError(
            f"File {file_id} was removed on {removed:%Y-%m-%d}, as the batch's `retention` says",
            hint="Its name, hash, size and receipts are kept: `leadferry dispatch list DELIVERY`",
        )
    with Archive.from_environment().local_copy(file.archive_key, sha256=file.sha256) as stored:
        if out.exists():
            raise typer.BadParameter(f"{out} exists already")
        shutil.copyfile(stored, out)
    with database.transaction() as connection:
        record(connection, actor=getpass.getuser(), action="file.get", subject=f"file {file_id}")
    typer.echo(f"{out}: {file.size} bytes, {file.rows} leads, sha256 {file.sha256}")
