"""Airflow DAG that brings leads in from files: from the folders of `config/imports.yaml`, or one file by hand.

All work is done in the package `leadferry.leads_import`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Param, dag, task

from leadferry.leads_import.watch import read_imports
from leadferry.project import config_folder

PROJECT = Path(__file__).parents[1]
CONFIG = config_folder(project=PROJECT)
IMPORTS = read_imports(CONFIG)


@dag(
    dag_id="import_leads",
    dag_display_name="Import leads",
    description="Leads from files: the folders of config/imports.yaml, or one file by hand",
    schedule=timedelta(minutes=IMPORTS.every_minutes) if IMPORTS.folders and IMPORTS.every_minutes else None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["leadferry", "leads"],
    params={
        "path": Param(
            None,
            type=["null", "string"],
            title="File",
            description="Path of one file to import; all watched folders when empty.",
        ),
        "flow": Param(
            None,
            type=["null", "string"],
            title="Flow",
            description="The flow that the file's leads belong to.",
        ),
    },
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
)
def import_leads() -> None:
    """Look into the folders once, or import one file."""

    @task
    def import_files(params: dict[str, Any] | None = None) -> dict[str, int]:
        """Import what is there; return counts only."""
        from leadferry.connections import lead_store
        from leadferry.leads_import.watch import import_folders, import_named_file
        from leadferry.tasks import airflow_errors

        given = params or {}
        with airflow_errors():
            if given.get("path") or given.get("flow"):
                return import_named_file(lead_store(), path=given.get("path"), flow=given.get("flow")).counts
            now = datetime.now(tz=UTC)
            return (
                import_folders(lead_store(), IMPORTS, project=CONFIG.parent, now=now)
                .require_readable()
                .counts
            )

    import_files()


import_leads_dag = import_leads()
