"""Airflow DAG file that builds no DAG: it shows broken batch files as an import error.

`lead_batches.py` leaves a broken file out, so that it stops no other batch; here it becomes visible in the UI.
"""

from __future__ import annotations

from airflow.sdk import get_parsing_context

from leadferry.dag_factory import raise_config_errors

if get_parsing_context().dag_id is None:
    raise_config_errors()
