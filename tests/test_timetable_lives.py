"""Lives of a batch under Airflow's scheduler: files read at odd moments, edits, downtime, runs by hand, a clock set back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import any_schedule
import pendulum
import pytest
from airflow.exceptions import AirflowTimetableInvalid
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.timetables.base import DagRunInfo, TimeRestriction
from airflow.utils.types import DagRunType
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leadferry.schedule import Plan
from leadferry.timetables import FIRST_DEPARTURE_GRACE, DepartureTimetable

TICK = timedelta(microseconds=1)
LONG_AGO = TimeRestriction(earliest=pendulum.datetime(2015, 1, 1), latest=None, catchup=False)


class Airflow:
    """Keeps of one DAG what Airflow keeps, and asks its timetable when Airflow does."""

    def __init__(self, schedule: Any, zone: str, now: datetime) -> None:
        self.now, self.zone = now, zone
        self.model = DagModel(dag_id="batch_acme")
        self.runs: list[DagRun] = []
        self.edit(schedule)

    def edit(self, schedule: Any) -> None:
        """Read a new version of the file; every version comes out of the database."""
        self.schedule, self.was_edited = schedule, True
        self.plan = Plan(schedule, timezone=self.zone, batch_id="acme")
        stored = DepartureTimetable(schedule, self.zone, batch_id="acme").serialize()
        self.timetable = DepartureTimetable.deserialize(json.loads(json.dumps(stored)))
        self.timetable._clock = lambda: self.now
        self.read()

    @property
    def last(self) -> DagRun | None:
        of_the_timetable = [run for run in self.runs if run.run_type == DagRunType.SCHEDULED]
        return max(of_the_timetable, key=lambda run: run.logical_date, default=None)

    def read(self) -> None:
        self.note(after=self.last)

    def note(self, *, after: DagRun | None) -> None:
        last = self.timetable.run_info_from_dag_run(dag_run=after) if after else None
        info = self.timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=LONG_AGO)
        self.model.next_dagrun = info and info.logical_date
        self.model.next_dagrun_create_after = info and info.run_after
        self.model.next_dagrun_data_interval = info and info.data_interval

    @property
    def is_due(self) -> bool:
        return (
            self.model.next_dagrun_create_after is not None
            and self.model.next_dagrun_create_after <= self.now
        )

    def make_runs(self) -> list[datetime]:
        """Make the runs that are due, and return their departures."""
        made, refused = [], 0
        while self.is_due:
            for taken in [run for run in self.runs if run.logical_date == self.model.next_dagrun]:
                assert taken.run_type == DagRunType.MANUAL
                self.note(after=taken)
                assert self.model.next_dagrun != taken.logical_date
            if not self.is_due:
                break
            try:
                info = self.timetable.next_run_info_from_dag_model(dag_model=self.model)
            except AirflowTimetableInvalid:
                assert self.schedule.missed == "skip"
                refused += 1
                assert refused == 1
                continue
            self.make(info, DagRunType.SCHEDULED)
            made.append(info.data_interval.end)
            self.note(after=self.runs[-1])
        return made

    def make(self, info: DagRunInfo, kind: DagRunType) -> None:
        given_to = {"run_type": kind, "run_after": info.run_after, "data_interval": info.data_interval}
        run_id = self.timetable.generate_run_id(**given_to)
        assert run_id not in {run.run_id for run in self.runs}
        assert info.logical_date not in {run.logical_date for run in self.runs}
        if kind == DagRunType.SCHEDULED:
            self.check(info)
        self.runs.append(
            DagRun(dag_id="batch_acme", run_id=run_id, logical_date=info.logical_date, **given_to)
        )

    def check(self, info: DagRunInfo) -> None:
        """A run is for a departure, never early, and its window follows the last one."""
        begins, ends = info.data_interval
        assert begins < ends
        assert info.run_after == ends - self.ahead <= self.now
        assert self.plan.latest(ends).utc == ends
        if self.last:
            assert begins - self.last.data_interval_end in (timedelta(), TICK)
        between = next(self.plan.after(begins)).utc < ends
        self.was_edited = self.was_edited and between and self.schedule.missed == "each"

    @property
    def ahead(self) -> timedelta:
        return self.schedule.generate_before or timedelta()

    def promised(self) -> list[datetime]:
        """Return what departs now, as the documentation says, of all that became due since the last run."""
        until = self.now + self.ahead
        since = self.plan.after(self.last.data_interval_end)
        due = [one.utc for one in takewhile(lambda one: one.utc <= until, since)]
        if self.schedule.missed == "each":
            return due
        if self.schedule.missed == "skip":
            due = [one for one in due if self.now - one <= FIRST_DEPARTURE_GRACE]
        return due[-1:]

    # --- what may happen ---------------------------------------------------------------------------------------

    def up(self, late: timedelta) -> None:
        """The scheduler comes by just before the next run is due, and then a little late."""
        due = self.model.next_dagrun_create_after
        if due is None:
            return
        if self.now < due:
            self.now = max(self.now, due - TICK)
            self.read()
            assert self.model.next_dagrun_create_after == due
        self.now = max(self.now, due + late)
        made = self.make_runs()
        assert made
        assert made[-1] >= self.plan.latest(self.now + self.ahead).utc

    def down(self, length: timedelta, is_read_first: bool) -> None:
        self.now += length
        promised = None if self.was_edited or not self.last else self.promised()
        if is_read_first:
            self.read()
        made = self.make_runs()
        assert promised is None or made == promised

    def set_back(self, by: timedelta) -> None:
        """Only the process's clock is: nothing is made that was not due before."""
        self.now -= by
        self.read()
        self.make_runs()
        self.now += by

    def change(self, **keys: Any) -> None:
        try:
            self.edit(type(self.schedule).model_validate({**dict(self.schedule), **keys}))
        except ValidationError:
            return
        self.make_runs()

    def by_hand(self) -> None:
        """Trigger a run, with the logical date that the next one would have."""
        date = self.model.next_dagrun
        if date and date not in {run.logical_date for run in self.runs}:
            window = self.timetable.infer_manual_data_interval(run_after=pendulum.instance(date))
            run_id = f"manual__{date.isoformat()}"
            kept = {"logical_date": date, "run_type": DagRunType.MANUAL, "run_after": date}
            self.runs.append(DagRun(dag_id="batch_acme", run_id=run_id, data_interval=window, **kept))


missed = st.sampled_from(["combine", "each", "skip"])
lengths = st.sampled_from([None, *(timedelta(minutes=count) for count in (20, 60, 120, 720))])
events = st.lists(
    st.one_of(
        st.tuples(st.just("up"), st.sampled_from([timedelta(), TICK, timedelta(minutes=5)])),
        st.tuples(
            st.just("down"),
            st.timedeltas(timedelta(), timedelta(days=1)) | st.just(timedelta(days=4)),
            st.booleans(),
        ),
        st.tuples(st.just("set_back"), st.timedeltas(timedelta(), timedelta(hours=3))),
        st.tuples(st.just("by_hand")),
        st.tuples(st.just("read")),
    )
    | st.one_of(
        missed.map(lambda chosen: {"missed": chosen}),
        lengths.map(lambda chosen: {"generate_before": chosen}),
        lengths.map(lambda chosen: {"spread": chosen}),
        any_schedule.calendars.map(lambda chosen: {"calendar": chosen}),
        any_schedule.policies.map(lambda chosen: {"on_closed_day": chosen}),
    ),
    min_size=4,
    max_size=12,
)


lives = st.builds(
    lambda schedule, missed, ahead: schedule.model_copy(update={"missed": missed, "generate_before": ahead}),
    any_schedule.schedules,
    missed,
    lengths,
)


@pytest.mark.req("R035", "R044", "F41")
@settings(max_examples=80, deadline=None)
@given(
    lives,
    any_schedule.zones,
    st.datetimes(datetime(2018, 3, 1), datetime(2019, 6, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # made aware by the strategy
    events,
)
def test_whatever_happens_in_the_life_of_a_batch_each_departure_goes_as_it_is_promised(
    schedule, zone, start, events
):
    life = Airflow(schedule, zone, start)
    for event in events:
        if isinstance(event, dict):
            life.change(**event)
        else:
            name, *told = event
            getattr(life, name)(*told)
