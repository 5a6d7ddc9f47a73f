"""Airflow DAGs of the lead batches: one for each file in `config/batches`.

This file shows the shape of a delivery and nothing else; all work is done in the package `leadferry`.
"""

from __future__ import annotations

from leadferry.dag_factory import batch_dag, batches_to_build, deliver, extract, mark_delivered, render

for batch in batches_to_build():
    with batch_dag(batch) as dag:
        claimed = extract(batch)
        rendered = render(batch)
        delivered = deliver(batch)
        claimed >> rendered >> delivered >> mark_delivered(batch)
    globals()[dag.dag_id] = dag
