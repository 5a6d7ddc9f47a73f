"""The preview of a batch's departures; needs neither the lead store nor Airflow."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from leadferry.cli.output import AsJson, show

if TYPE_CHECKING:
    from leadferry.batch.model import Batch
    from leadferry.schedule import Departure

app = typer.Typer()


@app.command()
def schedule(
    batch: Annotated[str, typer.Argument(help="Id of the batch.")],
    *,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=10_000, help="How many departures.")] = 10,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="First moment of the preview, in the batch's zone: 2026-03-07 or 2026-03-07T12:00."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the next departures of a batch, in UTC and local time, with the reason of every shift."""
    from leadferry.batch.load import load_batch
    from leadferry.project import config_folder
    from leadferry.schedule import departures

    found = load_batch(batch, config=config_folder())
    zone = _zone(found)
    after = _moment(start, zone=zone)
    rows = [
        _row(one, as_json=as_json)
        for one in islice(departures(found.schedule, timezone=zone, after=after), count)
    ]
    if found.schedule == "manual" and not as_json:
        typer.echo(f"{found.id}: manual, departs only when it is triggered by hand")
        return
    show(
        rows, as_json=as_json, title=f"{found.id}: {found.schedule} {zone}", columns=["utc", "local", "note"]
    )


def _zone(batch: Batch) -> str:
    return batch.timezone if batch.schedule == "manual" else batch.schedule.timezone or batch.timezone


def _moment(written: str | None, *, zone: str) -> datetime:
    """Return the moment after which departures are wanted, so that one at the written moment itself is among them."""
    if written is None:
        return datetime.now(tz=UTC)
    try:
        moment = datetime.fromisoformat(written)
        return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).astimezone(
            UTC
        ) - datetime.resolution
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{written!r} is no date or time such as 2026-03-07 or 2026-03-07T12:00"
        ) from None


def _row(departure: Departure, *, as_json: bool) -> dict[str, Any]:
    if as_json:
        return {"utc": departure.utc, "local": departure.local, "note": departure.note}
    return {
        "utc": f"{departure.utc:%Y-%m-%d %H:%M}",
        "local": f"{departure.local:%a %Y-%m-%d %H:%M %Z}",
        "note": departure.note,
    }
