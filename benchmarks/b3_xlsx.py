"""B3: the mapped leads as an Excel workbook, against openpyxl's write-only mode on the same rows.

Both read the same Parquet file in blocks; what is compared is the writing.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import polars as pl

from benchmarks.batch import SOURCES
from benchmarks.leads import samples
from benchmarks.measure import Number, Sample, child, interleaved, middle

_ROWS = 1_048_575
"""What a sheet holds beside its header."""


def run(leads: int, repeat: int) -> list[Number]:
    """Measure, and return the numbers; openpyxl takes minutes for a million leads, so there is one turn fewer."""
    rows = min(leads, _ROWS)
    with tempfile.TemporaryDirectory(prefix="leadferry-benchmarks-") as folder:
        frames = Path(folder) / "leads.parquet"
        print(f"B3: making {rows:,} leads", file=sys.stderr)
        write_frames(frames, rows)
        sides = {
            name: partial(_write, script, *arguments, frames, Path(folder) / "out.xlsx")
            for name, script, arguments in (
                ("openpyxl", "benchmarks.competitors.openpyxl_xlsx", ()),
                ("ours", "benchmarks.ours", ("write", '{"type": "xlsx"}')),
            )
        }
        measured = interleaved(max(repeat - 1, 1), sides)
    return _numbers(measured)


def _write(script: str, *arguments: str | Path) -> Sample:
    return child(script, *arguments)


def write_frames(file: Path, rows: int) -> None:
    """Write the leads as the mapping hands them to a format: 13 columns of text."""
    people = [{**one, "received_at": "01/30/2026"} for one in samples()]
    number = pl.int_range(rows, dtype=pl.Int32)
    block = pl.DataFrame(
        {label: [str(one[name]).strip() for one in people] for label, name in SOURCES.items()}
    ).with_row_index("n")
    leads = pl.select(id=number).lazy().with_columns(n=(pl.col("id") % len(people)).cast(pl.UInt32))
    email = pl.concat_str(pl.lit("lead"), pl.col("id"), pl.lit("."), "Email").alias("Email")
    leads.join(block.lazy(), on="n").with_columns(email).select(list(SOURCES)).sink_parquet(file)


def _numbers(measured: dict[str, list[Sample]]) -> list[Number]:
    ours, theirs = middle(measured["ours"]), middle(measured["openpyxl"])
    memory = middle(measured["ours"], "peak_mb")
    return [
        Number(benchmark="B3", what="openpyxl write-only / ours, time", value=theirs / ours, at_least=8),
        Number(benchmark="B3", what="our memory", value=memory, unit="MB", at_most=400),
        Number(benchmark="B3", what="ours", value=ours, unit="s"),
        Number(benchmark="B3", what="openpyxl", value=theirs, unit="s"),
    ]
