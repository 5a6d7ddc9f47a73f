"""Our side of B5, in a process of its own: run `dags/lead_batches.py` as Airflow does."""

from __future__ import annotations

import runpy

from benchmarks.measure import PROJECT, Sample, tell, timed


def main() -> None:
    """Build the DAGs once."""
    measured: Sample = {}
    with timed(measured, "import"):
        import leadferry.dag_factory  # noqa: F401  importing Airflow is no building
    with timed(measured):
        built = runpy.run_path(str(PROJECT / "dags" / "lead_batches.py"))
    tell(**measured, dags=sum(name.startswith("batch_b") for name in built))


if __name__ == "__main__":
    main()
