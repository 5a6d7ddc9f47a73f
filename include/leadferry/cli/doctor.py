"""The command that says why a delivery fails, stage by stage."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadferry.cli.output import AsJson, aside

if TYPE_CHECKING:
    from leadferry.batch.model import Batch
    from leadferry.doctor.examine import Orders
    from leadferry.doctor.finding import Examination, Finding
    from leadferry.store.database import Database

app = typer.Typer()


@app.command()
def doctor(  # noqa: PLR0913  (one argument per option)
    batch: Annotated[
        str | None, typer.Argument(help="Id of one batch; all of them, and what they share, when left out.")
    ] = None,
    *,
    destination: Annotated[str | None, typer.Option(help="Only this destination of the batch.")] = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Write nothing, not even a made-up file that is removed.")
    ] = False,
    send_test: Annotated[
        bool, typer.Option("--send-test", help="Also send a made-up file that stays, or a mail, marked TEST.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that a server may stay silent.")] = 15,
    credential_days: Annotated[int, typer.Option(min=1, help="Older credentials are a warning.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Examine destinations from the DNS to a written file, the store, the archive and Airflow; exit 1 if one fails."""
    from leadferry.project import config_folder

    if destination is not None and batch is None:
        raise typer.BadParameter("--destination needs a batch")
    orders = _orders(
        config_folder(), write=not no_probe, send_test=send_test, timeout=timeout, days=credential_days
    )
    if send_test:
        _record(orders.database, batch, destination)
    found: list[Examination] = []
    for one in _aside(_examinations(batch, destination, orders)):
        found.append(one)
        if not as_json:
            _print(one)
    if as_json:
        typer.echo(json.dumps(_as_data(found), indent=2))
    raise typer.Exit(code=0 if all(one.ok for one in found) else 1)


def _aside(examinations: Iterator[Examination]) -> Iterator[Examination]:
    """Go on with nothing but the findings on standard output."""
    while True:
        with aside():
            one = next(examinations, None)
        if one is None:
            return
        yield one


def _orders(config: Path, *, write: bool, send_test: bool, timeout: float, days: int) -> Orders:
    from leadferry.doctor.examine import Orders

    return Orders(
        now=datetime.now(UTC),
        config=config,
        database=_store(),
        timeout=timeout,
        max_age=timedelta(days=days),
        write=write,
        send_test=send_test,
    )


def _store() -> Database | None:
    """Return the store if it can be used; that it cannot is told by the examination of it."""
    from leadferry.connections import lead_store
    from leadferry.errors import LeadferryError
    from leadferry.store import health

    try:
        database = lead_store()
        health.clock(database)
    except LeadferryError:
        return None
    return database


def _record(database: Database | None, batch: str | None, destination: str | None) -> None:
    """Write down who sends a test (I8); without a store nothing can be delivered, and nothing is sent."""
    from leadferry.connections import lead_store
    from leadferry.store.audit import record

    subject = f"batch {batch}" if batch else "all batches"
    with (database or lead_store()).transaction() as connection:
        detail = {"destination": destination} if destination else {}
        record(connection, actor=getpass.getuser(), action="doctor.send_test", subject=subject, detail=detail)


def _examinations(batch: str | None, destination: str | None, orders: Orders) -> Iterator[Examination]:
    from leadferry.batch.load import load_all, load_batch
    from leadferry.doctor.examine import examine_batch

    if batch is not None:
        found = load_batch(batch, config=orders.config)
        _require_destination(found, destination)
        yield from examine_batch(found, orders, destination=destination)
        return
    batches, errors = load_all(orders.config)
    yield _home(batches)
    yield from (_broken(str(error)) for error in errors)
    for one in batches:
        yield from examine_batch(one, orders)


def _require_destination(batch: Batch, destination: str | None) -> None:
    known = [one.id for one in batch.destinations]
    if destination is not None and destination not in known:
        raise typer.BadParameter(f"{batch.id} has no destination {destination!r}; it has {', '.join(known)}")


def _home(batches: list[Batch]) -> Examination:
    from leadferry.archive import Archive
    from leadferry.connections import lead_store
    from leadferry.doctor.home import examine_home, now

    pools = {destination.pool for batch in batches for destination in batch.destinations}
    zones = {batch.timezone for batch in batches}
    return examine_home(lead_store, Archive.from_environment(), pools=pools, clock=now, zones=zones)


def _broken(error: str) -> Examination:
    from leadferry.doctor.finding import Examination, Finding, Stage, Verdict

    told = Finding(
        stage=Stage.CONFIG, verdict=Verdict.FAILED, what=error, remedy="Correct the file; `leadferry check`"
    )
    return Examination(subject="config", findings=[told])


def _print(examination: Examination) -> None:
    from leadferry.doctor.finding import Verdict

    where = f": {examination.where}" if examination.where else ""
    typer.echo(f"{examination.subject}{where}")
    for finding in examination.findings:
        if finding.verdict is Verdict.NOT_APPLICABLE and not finding.what:
            continue  # what a destination does not have is of interest to programs only
        typer.echo(_line(finding))
        if finding.remedy:
            typer.echo(f"{'':28}→ {finding.remedy}")
    typer.echo()


def _line(finding: Finding) -> str:
    from leadferry.doctor.finding import Verdict

    shown = finding.verdict.upper() if finding.verdict is Verdict.FAILED else finding.verdict
    return f"  {shown:<14}  {finding.stage:<10}  {finding.what}".rstrip()


def _as_data(found: list[Examination]) -> dict[str, Any]:
    return {
        "ok": all(one.ok for one in found),
        "examined": [
            {
                "subject": one.subject,
                "batch": one.batch,
                "destination": one.destination,
                "where": one.where,
                "ok": one.ok,
                "findings": [
                    {
                        "stage": finding.stage,
                        "verdict": finding.verdict,
                        "what": finding.what,
                        "remedy": finding.remedy,
                    }
                    for finding in one.findings
                ],
            }
            for one in found
        ],
    }
