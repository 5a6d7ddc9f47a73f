"""The timetable of a batch that departs at its times and when an asset is updated.

A module of its own: it needs a part of Airflow that takes a tenth of a second to import, and few batches need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.timetables.assets import AssetOrTimeSchedule

if TYPE_CHECKING:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.timetables.base import DagRunInfo


class DepartureOrAssetTimetable(AssetOrTimeSchedule):
    """Airflow's own, which leaves it to the times also what becomes of a run that was noted before a downtime."""

    def validate(self) -> None:
        """Refuse what the times cannot be used for as well: Airflow's own asks only the assets.

        Raises:
            AirflowTimetableInvalid: shown by Airflow as an import error of the DAG file.
        """
        super().validate()
        self.timetable.validate()

    def next_run_info_from_dag_model(self, *, dag_model: DagModel) -> DagRunInfo | None:
        """Return the run to make now; see `DepartureTimetable.next_run_info_from_dag_model`."""
        return self.timetable.next_run_info_from_dag_model(dag_model=dag_model)

    def run_info_from_dag_run(self, *, dag_run: DagRun) -> DagRunInfo:
        """Return the run that the next one follows; see `DepartureTimetable.run_info_from_dag_run`."""
        return self.timetable.run_info_from_dag_run(dag_run=dag_run)
