"""Airflow DAG that looks after all batches: what did not depart, what waits too long, what is stuck, what may go.

All work is done in the package `leadferry.watch`. The tasks do not wait for each other, so that a slow archive
delays no alert; what one run does not finish, the next one does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import dag, task

from leadferry.project import config_folder
from leadferry.watch.settings import every

PROJECT = Path(__file__).parents[1]
CONFIG = config_folder(project=PROJECT)


@dag(
    dag_id="leadferry_maintenance",
    dag_display_name="Look after all batches",
    description="Tells of departures that did not happen and of queues that grow; recovers, retires old files",
    schedule=every(CONFIG),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["leadferry", "maintenance"],
    default_args={"retries": 0, "execution_timeout": timedelta(minutes=8)},
)
def leadferry_maintenance() -> None:
    """Look, recover, retire."""

    @task
    def watch() -> dict[str, int]:
        """Compare what should have happened with what did, and tell of each incident once."""
        from leadferry.connections import lead_store
        from leadferry.tasks import airflow_errors
        from leadferry.watch.tell import watch as look_and_tell

        with airflow_errors():
            return look_and_tell(lead_store(), CONFIG, now=datetime.now(tz=UTC)).counts

    @task
    def recover() -> dict[str, str]:
        """Bring deliveries to an end that nobody works on any more."""
        from leadferry.archive import Archive
        from leadferry.connections import lead_store
        from leadferry.tasks import airflow_errors
        from leadferry.watch.recover import recover as recover_deliveries

        with airflow_errors():
            settled = recover_deliveries(lead_store(), Archive.from_environment())
            return {str(one.delivery_id): str(one.state) for one in settled}

    @task
    def retire() -> dict[str, int]:
        """Move or remove files that were kept long enough."""
        from leadferry.archive import Archive
        from leadferry.connections import lead_store
        from leadferry.tasks import airflow_errors
        from leadferry.watch.retire import retire as retire_files

        with airflow_errors():
            return retire_files(lead_store(), Archive.from_environment(), CONFIG, now=datetime.now(tz=UTC))

    watch()
    recover()
    retire()


leadferry_maintenance_dag = leadferry_maintenance()
