"""Airflow DAGs of the lead batches: one for each file in `config/batches`.

This file shows the shape of a delivery and nothing else; all work is done in the package `leadferry`.
"""

from __future__ import annotations

from leadferry.batch.model import Batch
from leadferry.dag_factory import dags_of, deliver, extract, mark_delivered, render


def delivery(batch: Batch) -> None:
    """Put the tasks into the DAG of a batch."""
    claimed = extract(batch)
    rendered = render(batch)
    delivered = deliver(batch)
    claimed >> rendered >> delivered >> mark_delivered(batch)


for dag in dags_of(delivery):
    globals()[dag.dag_id] = dag
