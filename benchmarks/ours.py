"""Our side, in a process of its own: `python -m benchmarks.ours COMMAND …` prints what it took."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.batch import copy_sql, make_batch
from benchmarks.measure import Sample, tell, timed
from leadferry.archive import Archive
from leadferry.delivery.extract import Trigger, extract
from leadferry.delivery.render import render
from leadferry.store.database import Database
from leadferry.templates import variables

DEPARTS_AT = datetime(2026, 1, 30, 14, 0, tzinfo=UTC)


def copy(url: str) -> None:
    """Read the yardstick's COPY with psycopg and throw it away."""
    measured: Sample = {}
    with Database(url).session() as connection:
        driver = connection.connection.driver_connection
        with (
            timed(measured),
            driver.cursor() as cursor,
            cursor.copy(f"COPY ({copy_sql()}) TO STDOUT (FORMAT csv)") as blocks,
        ):
            size = sum(map(len, blocks))
    tell(**measured, size_mb=size / 1e6)


def deliver(url: str, archive: str, run_id: str, variant: str) -> None:
    """Claim and render one delivery, as the tasks `extract` and `render` do."""
    import polars  # noqa: F401, ICN001  loading the library is not what is measured here

    database, batch = Database(url), make_batch(phone=variant == "phone")
    measured: Sample = {}
    with timed(measured):
        with timed(measured, "claim"):
            claimed = extract(database, batch, Trigger(run_id=run_id, departs_at=DEPARTS_AT))
        with timed(measured, "render"):
            files = render(database, Archive(archive), claimed.delivery_id)
    tell(
        **measured,
        delivery=claimed.delivery_id,
        included=claimed.included,
        withheld=claimed.withheld,
        size_mb=sum(file.size for file in files) / 1e6,
    )


def claim(url: str, run_id: str, variant: str = "plain") -> None:
    """Only claim; with the variant `dedupe` leaving out who was delivered before."""
    database, batch = Database(url), make_batch(dedupe=variant == "dedupe")
    measured: Sample = {}
    with timed(measured):
        claimed = extract(database, batch, Trigger(run_id=run_id, departs_at=DEPARTS_AT))
    tell(**measured, delivery=claimed.delivery_id, included=claimed.included)


def write(form: str, frames: str, out: str) -> None:
    """Write the leads of a Parquet file in a format; `form` is the key `format` of a batch file, as JSON."""
    import polars as pl
    from pydantic import TypeAdapter

    from leadferry.formats import Format
    from leadferry.formats.base import FileContext

    rows = pl.scan_parquet(frames).select(pl.len()).collect().item()
    measured: Sample = {}
    with timed(measured), Path(out).open("wb") as file:
        columns = pl.read_parquet_schema(frames).names()
        context = FileContext(columns=columns, rows=rows, variables=_variables(rows))
        TypeAdapter(Format).validate_json(form).write(_slices(frames, rows), file, context)
    tell(**measured, size_mb=Path(out).stat().st_size / 1e6)


def _variables(leads: int) -> dict[str, dict[str, object]]:
    return variables(
        batch_id="benchmark",
        batch_name="Benchmark",
        recipient_id="buyer",
        recipient_name="Buyer",
        timezone="UTC",
        locale="en_US",
        delivery_id="1",
        delivery_number=1,
        departs_at=DEPARTS_AT,
        window_from=None,
        window_to=DEPARTS_AT,
        lead_count=leads,
        file_name="leads",
    )


def _slices(frames: str, rows: int):
    import polars as pl

    for start in range(0, rows, 50_000):
        yield pl.scan_parquet(frames).slice(start, 50_000).collect()


COMMANDS = {"copy": copy, "deliver": deliver, "claim": claim, "write": write}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
