"""Commands about what the lead store holds: deliveries, dispatches, files, the database itself."""

from __future__ import annotations

import getpass
import os
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
from leadferry.store import history, settling
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
    database = lead_store()
    database.upgrade()
    with database.transaction() as connection:
        record(connection, actor=getpass.getuser(), action="store.upgrade", subject="lead store")
    typer.echo("The lead store is up to date.")


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
    show(
        rows,
        as_json=as_json,
        title=f"Dispatches of delivery {delivery}",
        columns=columns,
        brief=brief,
        prose=["error"],
    )


@dispatch.command()
def confirm(dispatch_id: Annotated[int, typer.Argument(metavar="ID")], *, reason: Reason) -> None:
    """Say that a dispatch whose outcome is unknown did arrive."""
    _resolve(dispatch_id, DispatchState.CONFIRMED, reason)


@dispatch.command()
def fail(dispatch_id: Annotated[int, typer.Argument(metavar="ID")], *, reason: Reason) -> None:
    """Say that a dispatch whose outcome is unknown did not arrive."""
    _resolve(dispatch_id, DispatchState.FAILED, reason)


def _resolve(dispatch_id: int, outcome: DispatchState, reason: str) -> None:
    settled = settling.resolve(lead_store(), dispatch_id, outcome, actor=getpass.getuser(), reason=reason)
    typer.echo(f"Dispatch {dispatch_id} is {outcome}; delivery {settled.delivery_id} is {settled.state}.")


@files.command("list")
def list_files(
    delivery: Annotated[int | None, typer.Argument(help="The delivery's id; all when left out.")] = None,
    *,
    batch: Annotated[str | None, typer.Option(help="Only of this batch.")] = None,
    name: Annotated[str | None, typer.Option(help="Only with exactly this name.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="How many, newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List rendered files: what each holds, its size and hash."""
    columns = ["id", "batch", "delivery", "kind", "name", "part", "segment", "rows", "size", "sha256"]
    columns += ["media_type", "created_at"]
    rows = history.files(lead_store(), delivery_id=delivery, batch_id=batch, name=name, limit=count)
    brief = ["id", "delivery", "kind", "name", "rows", "size", "created_at"]
    show(rows, as_json=as_json, title="Files", columns=columns, brief=brief)


@files.command()
def get(
    file_id: Annotated[int, typer.Argument(metavar="ID", help="The file's id.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write it; must not exist yet.")],
) -> None:
    """Write a stored file, hash checked, readable by you only; the download is recorded."""
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
        # Recorded before the bytes are handed out: nobody gets a file of which no row tells.
        with database.transaction() as connection:
            detail = {"delivery": file.delivery_id, "name": file.name, "sha256": file.sha256}
            subject = f"file {file_id}"
            record(connection, actor=getpass.getuser(), action="file.get", subject=subject, detail=detail)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as target, stored.open("rb") as source:
            shutil.copyfileobj(source, target)
    typer.echo(f"{out}: {file.size} bytes, {file.rows} leads, sha256 {file.sha256}")
