"""The timetable that Airflow asks when a batch departs next.

A thin layer: the calendar is `leadferry.schedule`, this says how departures become runs.

* A run stands for the window from the previous departure to its own, `[from, to)`; it starts at the end of its window.
  Windows follow each other without gap or overlap, also after downtime and after the schedule was edited,
  because each begins where the last one ended.
* After downtime (and `catchup=False`) only the latest missed departure runs, once, and its window covers all of it;
  the schedule's key `missed` may ask for a run for each, or for none. Airflow makes the run that it noted before, so
  that one is looked at again when it is made.
* A batch that never departed waits for its next time instead: adding a batch at three in the afternoon
  must not send what was due at nine. So does one whose schedule was edited, which shows when the last run's departure
  is none of the schedule's.
* With `generate_before` a run begins that much before its departure; its window still ends at the departure.

Airflow swallows exceptions from a timetable, and the DAG then silently never runs again.
So what can be wrong is refused by `validate`, where it is shown as an import error, and nothing here raises later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable
from airflow.utils.types import DagRunType

from leadferry.schedule import Cron, Plan, Schedule, Timed
from leadferry.schedule.model import SCHEDULES
from leadferry.schedule.usable import why_unusable

if TYPE_CHECKING:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.timetables.base import TimeRestriction

log = logging.getLogger(__name__)

FIRST_DEPARTURE_GRACE = timedelta(minutes=15)
"""How late the first departure of a batch may be; covers the moments between a due time and its run being made."""

_DESCRIPTION_LENGTH = 1000
"""What Airflow's database keeps of a description."""

_TICK = timedelta(microseconds=1)


def _utcnow() -> datetime:
    return datetime.now(tz=UTC)


def timetable_for(schedule: Schedule, timezone: str, batch_id: str = "") -> DepartureTimetable | None:
    """Return the timetable of a batch's schedule; None for one without times, which Airflow writes as `schedule=None`.

    Args:
        schedule: the key `schedule` of the batch.
        timezone: the batch's zone, for a schedule that names none.
        batch_id: whose share of `spread` counts.
    """
    if not isinstance(schedule, Timed | Cron):
        return None
    return DepartureTimetable(schedule, timezone, batch_id=batch_id)


class DepartureTimetable(Timetable):
    """Runs at the departures of a schedule.

    Args:
        schedule: times and days, with its calendar.
        timezone: where they are meant, unless the schedule itself names a zone.
        batch_id: whose share of `spread` counts.
        clock: tells the present moment, aware.
    """

    def __init__(
        self,
        schedule: Timed | Cron,
        timezone: str,
        *,
        batch_id: str = "",
        clock: Callable[[], datetime] = _utcnow,
    ) -> None:
        self._schedule = schedule.model_copy(update={"timezone": None, "on_asset": None})
        self._timezone = schedule.timezone or timezone
        self._batch_id = batch_id if schedule.spread else ""
        self._clock = clock
        self.description = self.summary

    @property
    def summary(self) -> str:
        """What stands in Airflow's column "Schedule": `weekdays at 09:00 (America/New_York)`."""
        return f"{self._schedule} ({self._timezone})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DepartureTimetable) and self.serialize() == other.serialize()

    def __hash__(self) -> int:
        return hash((str(self._schedule), self._timezone, self._batch_id))

    def serialize(self) -> dict[str, Any]:
        """Return everything that decides a departure; a change of it is a new version of the DAG."""
        schedule = self._schedule.model_dump(
            mode="json", exclude={"timezone", "template", "on_asset"}, exclude_defaults=True
        )
        return {"schedule": schedule, "timezone": self._timezone, "batch_id": self._batch_id}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """Rebuild what `serialize` returned."""
        schedule = SCHEDULES.validate_python(data["schedule"])
        return cls(schedule, data["timezone"], batch_id=data.get("batch_id", ""))

    def validate(self) -> None:
        """Refuse what would fail later, when nobody would see it.

        Raises:
            AirflowTimetableInvalid: shown by Airflow as an import error of the DAG file.
        """
        try:
            why = why_unusable(
                self._schedule, timezone=self._timezone, now=self._clock(), batch_id=self._batch_id
            )
        except Exception as error:
            raise AirflowTimetableInvalid(f"{self.summary}: this schedule cannot be used: {error}") from error
        if why is not None:
            raise AirflowTimetableInvalid(f"{self.summary}: {why}")
        if len(self.description) > _DESCRIPTION_LENGTH:
            raise AirflowTimetableInvalid(
                f"the schedule is described by more than {_DESCRIPTION_LENGTH} characters"
            )

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """Return the window from the last departure to the moment at which a person asked for a run."""
        try:
            previous = self._latest(by=run_after - _TICK)
        except Exception:  # Airflow would refuse the run; a run without a window still delivers
            log.exception("No departure before %s could be found for: %s", run_after, self.summary)
            previous = None
        return DataInterval(_pendulum(previous), run_after) if previous else DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next run; None when there is none, or none up to the DAG's end date.

        Args:
            last_automated_data_interval: window of the last scheduled run; None before the first.
            restriction: the DAG's start date (no window begins before it), end date and catchup.
        """
        try:
            return self._next_run(last_automated_data_interval, restriction)
        except (
            Exception
        ):  # see the module's text: raised here, it would end the batch's schedule just as silently
            log.exception("The next departure could not be found for: %s", self.summary)
            return None

    def _next_run(self, last: DataInterval | None, restriction: TimeRestriction) -> DagRunInfo | None:
        slot = self._next(after=self._floor(last, restriction))
        if slot is None or (restriction.latest is not None and slot > restriction.latest):
            return None
        start = _follow(last) if last else self._latest(by=slot - _TICK) or restriction.earliest or slot
        if restriction.earliest is not None:
            start = max(start, restriction.earliest)
        return self._run(start, slot)

    def generate_run_id(
        self,
        *,
        run_type: DagRunType,
        run_after: pendulum.DateTime,
        data_interval: DataInterval | None,
        **extra: Any,
    ) -> str:
        """Return a run's id: that of a scheduled one names its departure, since no two windows end at one moment.

        Two may begin at one: the departure at ten, built an hour ahead since `generate_before` was added at half past nine,
        begins at nine, as the last run did. Airflow allows an id once.

        Args:
            run_type: scheduled, by hand and so on.
            run_after: when the run may begin.
            data_interval: its window; None for a run without one.
            extra: what else Airflow tells, which is no part of the id.
        """
        named = data_interval.end if run_type == DagRunType.SCHEDULED and data_interval else run_after
        return super().generate_run_id(
            run_type=run_type, run_after=named, data_interval=data_interval, **extra
        )

    def next_run_info_from_dag_model(self, *, dag_model: DagModel) -> DagRunInfo | None:
        """Return the run to make now, where Airflow asks for the one that it noted.

        It noted it when it last read the file or made a run. After three days down that is the first missed departure:
        made as it stands, it would run besides the latest one, and also where nothing is to be made up for.

        Raises:
            AirflowTimetableInvalid: what was noted is not to be made up for; the next departure is noted in its place.
                Airflow logs it and makes no run.
        """
        noted = super().next_run_info_from_dag_model(dag_model=dag_model)
        if noted is None or noted.data_interval is None or self._schedule.missed == "each":
            return noted
        try:
            slot = self._overtaken_by(noted.data_interval)
        except Exception:  # as above: a run that is not combined still delivers
            log.exception("Whether another departure is due could not be found for: %s", self.summary)
            return noted
        if slot is None:
            self._note_next(dag_model, begins=noted.data_interval.start)
            left_out = f"the departure of {noted.data_interval.end} was missed and is left out (missed: skip)"
            raise AirflowTimetableInvalid(f"{self.summary}: {left_out}")
        return self._run(noted.data_interval.start, slot)

    def run_info_from_dag_run(self, *, dag_run: DagRun) -> DagRunInfo:
        """Return the run that the next one follows.

        Of a run by hand Airflow asks this where it was given the logical date of the run that is due. That one is made
        all the same, a tick later: after the window of the run by hand it would have the very date that is taken, for ever.
        """
        info = super().run_info_from_dag_run(dag_run=dag_run)
        is_automated = dag_run.run_type in (DagRunType.SCHEDULED, DagRunType.BACKFILL_JOB)
        if is_automated or dag_run.logical_date is None:
            return info
        taken = DataInterval.exact(_pendulum(dag_run.logical_date))
        return DagRunInfo(run_after=info.run_after, data_interval=taken)

    def _note_next(self, dag_model: DagModel, *, begins: datetime) -> None:
        """Note the next departure, as Airflow does when it reads the DAG file; else it asks once a second until then."""
        slot = self._next(after=self._clock() + self._ahead)
        run = self._run(begins, slot) if slot else None
        dag_model.next_dagrun = run and run.logical_date
        dag_model.next_dagrun_create_after = run and run.run_after
        dag_model.next_dagrun_data_interval = run and run.data_interval

    def _run(self, begins: datetime, slot: datetime) -> DagRunInfo:
        """Return the run that stands for the window from `begins` to a departure."""
        window = DataInterval(_pendulum(begins), _pendulum(slot))
        return DagRunInfo(run_after=_pendulum(slot - self._ahead), data_interval=window)

    def _overtaken_by(self, noted: DataInterval) -> datetime | None:
        """Return the departure that stands for `noted` by now: itself or a later one; None for one that is left out."""
        now = self._clock()
        slot = max(noted.end, self._latest(by=now + self._ahead) or noted.end)
        is_left_out = self._schedule.missed == "skip" and now - slot > FIRST_DEPARTURE_GRACE
        return None if is_left_out else slot

    @property
    def _ahead(self) -> timedelta:
        """How long before its departure a run begins."""
        return self._schedule.generate_before or timedelta()

    def _floor(self, last: DataInterval | None, restriction: TimeRestriction) -> datetime:
        """Return the moment after which the next run's departure is to be looked for."""
        known = last is not None and self._is_departure(last.end)
        each = restriction.catchup or (
            self._schedule.missed == "each" and last is not None and known and self._follows_directly(last)
        )
        ends: tuple[datetime | None, ...] = (last.end if last else None, restriction.earliest)
        floors = [moment for moment in ends if moment is not None]
        if not each or not floors:
            floors.append(self._missed_floor(first=not known))
        return max(floors)

    def _missed_floor(self, *, first: bool) -> datetime:
        """Return the moment before the latest departure that was due, or now when that is not to be made up for.

        Args:
            first: this schedule has not departed yet: the batch is new, or its schedule was edited.
        """
        now = self._clock()
        due = self._latest(by=now + self._ahead)
        not_made_up_for = first or self._schedule.missed == "skip"
        if due is None or (not_made_up_for and now - due > FIRST_DEPARTURE_GRACE):
            return now + self._ahead
        return due - _TICK

    def _is_departure(self, moment: datetime) -> bool:
        """Whether the schedule departs at this moment; if the last run's departure is none, the schedule was edited since."""
        return self._latest(by=moment) == moment

    def _follows_directly(self, last: DataInterval) -> bool:
        """Whether the last run stood for one departure of this schedule and no more.

        Otherwise it was edited, say from weekly to hourly, and to make up for each would be for many that never were.
        """
        before = self._latest(by=last.end - _TICK)
        return before is None or last.start >= before

    @cached_property
    def _plan(self) -> Plan:
        """The departures; made when they are first asked for, since a zone may be unknown to this machine."""
        return Plan(self._schedule, timezone=self._timezone, batch_id=self._batch_id)

    def _next(self, *, after: datetime) -> datetime | None:
        departure = next(self._plan.after(after), None)
        return departure.utc if departure else None

    def _latest(self, *, by: datetime) -> datetime | None:
        departure = self._plan.latest(by)
        return departure.utc if departure else None


def _follow(last: DataInterval) -> datetime:
    """Return where the window after `last` begins.

    A window's begin is its run's logical date, which Airflow wants unique,
    so a run that stood for a single moment (made by another timetable) is followed a tick later.
    """
    return last.end if last.end > last.start else last.end + _TICK


def _pendulum(moment: datetime) -> pendulum.DateTime:
    return pendulum.instance(moment).in_timezone("UTC")
