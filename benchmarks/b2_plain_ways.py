"""B2: a whole delivery, against pandas `read_sql` + `to_csv`, and against dlt."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

from sqlalchemy import text

from benchmarks.b1_delivery import Ferry
from benchmarks.batch import columns_sql, rules_sql
from benchmarks.competitors import FOLDER, own_python
from benchmarks.leads import FLOW, fill
from benchmarks.measure import Number, Sample, child, interleaved, middle
from benchmarks.server import database_url, postgres
from leadferry.store import routing
from leadferry.store.database import Database


def run(leads: int, repeat: int) -> list[Number]:
    """Measure, and return the numbers."""
    python = own_python()
    with postgres() as (server, folder):
        ferry = Ferry(database_url(server, "leads"), folder)
        print(f"B2: making {leads:,} leads", file=sys.stderr)
        fill(ferry.database, leads)
        routing.route_new_leads(ferry.database, batch_id="benchmark", flows=[FLOW])
        _make_view(ferry.database)
        sides = {
            "pandas": partial(_pandas, server.url("leads"), folder),
            "dlt": partial(_dlt, python, server.url("leads", driver="postgresql+psycopg2"), folder),
            "delivery": ferry.deliver,
        }
        samples = interleaved(repeat, sides)
    return _numbers(samples)


def _make_view(database: Database) -> None:
    """Give dlt the columns, rules and transforms as a view."""
    columns = columns_sql(
        first_name="initcap(btrim(fields->>'first_name'))",
        email="lower(fields->>'email')",
        received_at="to_char(received_at, 'MM/DD/YYYY')",
    )
    with database.transaction() as connection:
        # As the driver's own text: SQLAlchemy would take the colons of a time for parameters.
        connection.exec_driver_sql(
            f"CREATE VIEW benchmark_columns AS SELECT {columns} FROM lead WHERE {rules_sql()}".replace(
                "%", "%%"
            )
        )
        connection.execute(text("ANALYZE lead"))


def _pandas(url: str, folder: Path) -> Sample:
    return child("benchmarks.competitors.pandas_csv", url, folder / "pandas.csv")


def _dlt(python: Path, url: str, folder: Path) -> Sample:
    try:
        return child(
            FOLDER / "dlt_csv.py", url, folder / "dlt", python=python, RUNTIME__DLTHUB_TELEMETRY="false"
        )
    finally:
        shutil.rmtree(folder / "dlt", ignore_errors=True)


def _numbers(samples: dict[str, list[Sample]]) -> list[Number]:
    ours, ours_mb = middle(samples["delivery"]), middle(samples["delivery"], "peak_mb")
    pandas, pandas_mb = middle(samples["pandas"]), middle(samples["pandas"], "peak_mb")
    dlt, dlt_mb = middle(samples["dlt"]), middle(samples["dlt"], "peak_mb")
    return [
        Number(benchmark="B2", what="pandas / delivery, time", value=pandas / ours, at_least=4),
        Number(benchmark="B2", what="pandas / delivery, memory", value=pandas_mb / ours_mb, at_least=6),
        Number(benchmark="B2", what="dlt / delivery, time", value=dlt / ours, at_least=2.4),
        Number(benchmark="B2", what="the delivery", value=ours, unit="s"),
        Number(benchmark="B2", what="pandas", value=pandas, unit="s"),
        Number(benchmark="B2", what="dlt", value=dlt, unit="s"),
        Number(benchmark="B2", what="the delivery's memory", value=ours_mb, unit="MB"),
        Number(benchmark="B2", what="pandas' memory", value=pandas_mb, unit="MB"),
        Number(benchmark="B2", what="dlt's memory", value=dlt_mb, unit="MB"),
    ]
