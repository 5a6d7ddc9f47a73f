"""Airflow DAG that delivers chosen leads, or a stored file, to one destination of a batch, by hand.

This file shows the shape of it and nothing else; all work is done in the package `leadferry`.
"""

from __future__ import annotations

from leadferry.redelivery_dag import claim, deliver, mark_delivered, redelivery_dag, render

with redelivery_dag() as redeliver_leads_dag:
    claim() >> render() >> deliver() >> mark_delivered()
