"""dlt: from a view of the same columns, through its pyarrow backend, to CSV in a folder. Runs in its own environment.

The rules and the transforms are in the view, which is the fastest place for them; dlt keeps its own state of the load.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import dlt
from dlt.destinations import filesystem
from dlt.sources.sql_database import sql_table


def peak_mb() -> float:
    """Return the most memory this process ever held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def main(url: str, folder: str) -> None:
    """Deliver once."""
    dlt.config["normalize.data_writer.disable_compression"] = True
    dlt.config["data_writer.disable_compression"] = True
    started = time.perf_counter()
    source = sql_table(
        credentials=url,
        schema="leadferry",
        table="benchmark_columns",
        backend="pyarrow",
        chunk_size=50_000,
        reflection_level="full_with_precision",
        engine_kwargs={"connect_args": {"options": "-c timezone=UTC"}},
    )
    pipeline = dlt.pipeline(
        pipeline_name="benchmark",
        pipelines_dir=f"{folder}/state",
        destination=filesystem(bucket_url=f"{folder}/out"),
        dataset_name="leads",
    )
    pipeline.run(source, loader_file_format="csv", write_disposition="replace")
    seconds = time.perf_counter() - started
    files = list(Path(folder, "out").rglob("benchmark_columns/*"))
    size = sum(file.stat().st_size for file in files)
    print(json.dumps({"seconds": seconds, "size_mb": size / 1e6, "files": len(files), "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
