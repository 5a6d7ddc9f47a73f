"""openpyxl in its write-only mode: the leads of a Parquet file as a workbook."""

from __future__ import annotations

import sys
from pathlib import Path

import openpyxl
import polars as pl

from benchmarks.measure import Sample, tell, timed

_BLOCK = 50_000


def main(frames: str, out: str) -> None:
    """Write once."""
    leads = pl.scan_parquet(frames)
    rows = leads.select(pl.len()).collect().item()
    measured: Sample = {}
    with timed(measured):
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        sheet.append(leads.collect_schema().names())
        for start in range(0, rows, _BLOCK):
            for row in leads.slice(start, _BLOCK).collect().iter_rows():
                sheet.append(row)
        book.save(out)
    tell(**measured, size_mb=Path(out).stat().st_size / 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
