"""The plain Airflow way: `read_sql`, transforms in pandas, `to_csv`. No claim, no ledger, no hash."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from sqlalchemy import create_engine

from benchmarks.batch import columns_sql, rules_sql
from benchmarks.measure import Sample, tell, timed


def main(url: str, out: str) -> None:
    """Deliver once."""
    engine = create_engine(url, connect_args={"options": "-c search_path=leadferry -c timezone=UTC"})
    # Doubled for the driver, which takes a single percent sign for a parameter.
    query = f"SELECT {columns_sql()} FROM lead WHERE {rules_sql()} ORDER BY received_at, id".replace(
        "%", "%%"
    )
    measured: Sample = {}
    with timed(measured):
        frame = pd.read_sql(query, engine)
        frame["First Name"] = frame["First Name"].str.strip().str.title()
        frame["Email"] = frame["Email"].str.lower()
        frame["Submitted"] = frame["Submitted"].dt.strftime("%m/%d/%Y")
        frame.to_csv(out, index=False)
    tell(**measured, included=len(frame), size_mb=Path(out).stat().st_size / 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
