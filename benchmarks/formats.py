"""FORMATS: what each format costs at 10,000, 100,000 and 1,000,000 leads: leads and bytes per second, peak memory."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.b3_xlsx import write_frames
from benchmarks.batch import SOURCES
from benchmarks.measure import Number, Sample, child, interleaved, middle

SIZES = (10_000, 100_000, 1_000_000)

_FORMATS = {
    "csv": {},
    "fixed_width": {"columns": [{"name": label, "width": 60} for label in SOURCES]},
    "json": {},
    "name_value": {},
    "ndjson": {},
    "parquet": {},
    "xlsx": {},
    "xml": {"names": {label: label.replace(" ", "_") for label in SOURCES}},
}


def run(leads: int, repeat: int) -> list[Number]:
    """Write every format at every size up to `leads`, in turns, and return three numbers for each."""
    numbers = []
    with tempfile.TemporaryDirectory(prefix="leadferry-benchmarks-") as folder:
        for rows in (size for size in SIZES if size <= leads):
            frames = Path(folder) / f"{rows}.parquet"
            print(f"FORMATS: making {rows:,} leads", file=sys.stderr)
            write_frames(frames, rows)
            sides = {
                name: partial(_write, {"type": name, **settings}, frames, Path(folder) / f"out.{name}")
                for name, settings in _FORMATS.items()
            }
            for name, samples in interleaved(repeat, sides).items():
                numbers += _numbers(name, rows, samples)
    return numbers


def _write(form: dict[str, object], frames: Path, out: Path) -> Sample:
    return child("benchmarks.ours", "write", json.dumps(form), frames, out)


def _numbers(name: str, rows: int, samples: list[Sample]) -> list[Number]:
    seconds, size = middle(samples), middle(samples, "size_mb")
    about = f"{name}, {rows:,} leads"
    return [
        Number(benchmark="FORMATS", what=f"{about}: thousand leads/s", value=rows / seconds / 1000, unit=""),
        Number(benchmark="FORMATS", what=f"{about}: written", value=size / seconds, unit="MB/s"),
        Number(
            benchmark="FORMATS", what=f"{about}: peak memory", value=middle(samples, "peak_mb"), unit="MB"
        ),
    ]
