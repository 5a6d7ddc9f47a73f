"""What Airflow gets to hear: runs at the departures, windows that tile time, and never an exception."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path

import any_schedule
import pendulum
import pytest
from airflow.exceptions import AirflowTimetableInvalid
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.sdk import Asset, AssetAny
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.utils.types import DagRunType
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leadferry.asset_timetable import DepartureOrAssetTimetable
from leadferry.schedule import Timed
from leadferry.timetables import FIRST_DEPARTURE_GRACE, DepartureTimetable, timetable_for
from wall_clock import ZONES

PROJECT = Path(__file__).parents[1]
LONG_AGO = pendulum.datetime(2020, 1, 1)


def utc(text: str) -> pendulum.DateTime:
    return pendulum.parse(text, tz="UTC")


def timetable(*at: str, on="days", zone="UTC", now="2026-05-06T12:00") -> DepartureTimetable:
    schedule = Timed.model_validate({"at": at or ("09:00",), "on": on})
    return DepartureTimetable(schedule, zone, clock=lambda: utc(now))


def scheduled(*, now: str, **written) -> DepartureTimetable:
    return DepartureTimetable(Timed.model_validate(written), "UTC", clock=lambda: utc(now))


def following(
    asked: DepartureTimetable,
    last: DataInterval | None = None,
    *,
    earliest=LONG_AGO,
    latest=None,
    catchup=False,
) -> DagRunInfo | None:
    restriction = TimeRestriction(earliest=earliest, latest=latest, catchup=catchup)
    return asked.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)


def window(start: str, end: str) -> DataInterval:
    return DataInterval(utc(start), utc(end))


# --- the next run ----------------------------------------------------------------------------------------------


def test_a_run_starts_at_its_departure_and_stands_for_the_time_since_the_one_before():
    info = following(timetable(), window("2026-05-05T09:00", "2026-05-06T09:00"))
    assert info == DagRunInfo.interval(utc("2026-05-06T09:00"), utc("2026-05-07T09:00"))
    assert all(isinstance(moment, pendulum.DateTime) for moment in (info.run_after, *info.data_interval))


def test_after_three_days_down_only_the_latest_missed_departure_runs_and_covers_all_of_them():
    back = timetable(now="2026-05-09T15:00")
    missed = following(back, window("2026-05-05T09:00", "2026-05-06T09:00"))
    assert missed == DagRunInfo.interval(utc("2026-05-06T09:00"), utc("2026-05-09T09:00"))
    assert following(back, missed.data_interval).run_after == utc("2026-05-10T09:00")


def test_with_catchup_every_missed_departure_runs():
    back, last = timetable(now="2026-05-09T15:00"), window("2026-05-05T09:00", "2026-05-06T09:00")
    days = []
    for _ in range(4):
        info = following(back, last, catchup=True)
        days.append(info.run_after.day)
        last = info.data_interval
    assert days == [7, 8, 9, 10]


def test_a_new_batch_waits_for_its_next_time():
    info = following(timetable(now="2026-05-06T15:00"), None)
    assert info == DagRunInfo.interval(utc("2026-05-06T09:00"), utc("2026-05-07T09:00"))


def test_the_first_departure_is_not_lost_when_it_is_asked_for_a_moment_late():
    late = utc("2026-05-06T09:00") + FIRST_DEPARTURE_GRACE
    assert following(timetable(now=late.isoformat())).run_after == utc("2026-05-06T09:00")
    assert following(timetable(now=late.add(seconds=1).isoformat())).run_after == utc("2026-05-07T09:00")


def test_no_window_begins_before_the_start_date():
    starting = utc("2026-06-01T00:00")
    info = following(timetable(), None, earliest=starting)
    assert info == DagRunInfo.interval(starting, utc("2026-06-01T09:00"))
    moved = following(timetable(), window("2026-05-05T09:00", "2026-05-06T09:00"), earliest=starting)
    assert moved == DagRunInfo.interval(starting, utc("2026-06-01T09:00"))


def test_a_start_date_on_a_departure_opens_the_first_window():
    info = following(timetable(), None, earliest=utc("2026-06-01T09:00"), catchup=True)
    assert info == DagRunInfo.interval(utc("2026-06-01T09:00"), utc("2026-06-02T09:00"))


def test_with_catchup_the_first_run_is_the_first_after_the_start_date():
    info = following(timetable(), None, earliest=utc("2024-02-28T10:00"), catchup=True)
    assert info == DagRunInfo.interval(utc("2024-02-28T10:00"), utc("2024-02-29T09:00"))


@pytest.mark.parametrize("catchup", [True, False])
def test_without_start_date_the_first_run_is_the_next(catchup):
    info = following(timetable(now="2026-05-06T12:00"), None, earliest=None, catchup=catchup)
    assert info == DagRunInfo.interval(utc("2026-05-06T09:00"), utc("2026-05-07T09:00"))


def test_the_end_date_is_the_last_moment_at_which_a_run_may_start():
    last = window("2026-05-05T09:00", "2026-05-06T09:00")
    assert following(timetable(), last, latest=utc("2026-05-07T09:00")).run_after == utc("2026-05-07T09:00")
    assert following(timetable(), last, latest=utc("2026-05-07T08:59")) is None


@pytest.mark.parametrize(("new", "departs"), [("08:00", "2026-05-07T08:00"), ("18:00", "2026-05-06T18:00")])
def test_after_the_schedule_was_edited_the_next_window_begins_where_the_last_one_ended(new, departs):
    info = following(timetable(new), window("2026-05-05T09:00", "2026-05-06T09:00"))
    assert info == DagRunInfo.interval(utc("2026-05-06T09:00"), utc(departs))


@pytest.mark.req("F41")
@pytest.mark.parametrize(
    ("written", "last", "now", "departs"),
    [
        ({"at": ["09:00"]}, "2026-04-23T17:00", "2026-04-24T12:00", "2026-04-25T09:00"),
        ({"at": ["09:00"], "on": {"month": 5}}, "2026-04-20T09:00", "2026-04-24T12:00", "2026-05-05T09:00"),
        ({"at": ["09:00"]}, "2026-04-23T17:00", "2026-04-24T09:10", "2026-04-24T09:00"),
    ],
    ids=["another time", "another day", "just due"],
)
def test_an_edited_schedule_makes_up_for_nothing_that_was_due_before_the_edit(written, last, now, departs):
    edited = scheduled(now=now, **written)
    info = following(edited, window("2026-04-01T17:00", last))
    assert info == DagRunInfo.interval(utc(last), utc(departs))


@pytest.mark.req("F41")
def test_from_weekly_to_hourly_one_departure_is_made_up_for_and_not_each_of_a_week():
    edited = scheduled(now="2026-04-24T12:30", hourly={"minute": 0}, missed="each")
    info = following(edited, window("2026-04-13T09:00", "2026-04-20T09:00"))
    assert info == DagRunInfo.interval(utc("2026-04-20T09:00"), utc("2026-04-24T12:00"))


def test_a_run_that_stood_for_one_moment_is_followed_by_another_logical_date():
    due = utc("2026-05-06T09:00")
    info = following(timetable(), DataInterval.exact(due))
    assert info.run_after == utc("2026-05-07T09:00")
    assert info.logical_date == due + timedelta(microseconds=1)


def test_a_clock_that_went_back_repeats_nothing():
    info = following(timetable(now="2020-01-01T00:00"), window("2026-05-05T09:00", "2026-05-06T09:00"))
    assert info.run_after == utc("2026-05-07T09:00")


@pytest.mark.req("R035", "C06")
@pytest.mark.parametrize(("start", "nights"), [("2026-03-06T12:00", "gap"), ("2026-10-30T12:00", "fold")])
def test_half_past_two_runs_once_on_each_night_and_its_windows_tile_them(start, nights):
    clock = "02:30" if nights == "gap" else "01:30"
    asked, last = timetable(clock, zone="America/New_York", now=start), None
    infos = []
    for _ in range(4):
        infos.append(following(asked, last))
        last = infos[-1].data_interval
    local = [info.run_after.in_timezone("America/New_York") for info in infos]
    assert [one.day for one in local] == ([7, 8, 9, 10] if nights == "gap" else [31, 1, 2, 3])
    assert all(a.data_interval.end == b.data_interval.start for a, b in pairwise(infos))


zones = st.sampled_from(ZONES)
schedules = st.builds(
    lambda at, on: Timed.model_validate({"at": at, "on": on}),
    st.lists(
        st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    st.one_of(
        st.sampled_from(["days", "weekdays", "weekends"]),
        st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, unique=True),
    ),
)
moments = st.datetimes(datetime(1995, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # made aware by the strategy


@pytest.mark.req("R035")
@settings(max_examples=100, deadline=None)
@given(schedules, zones, moments, st.lists(st.integers(0, 20), min_size=5, max_size=40), st.booleans())
def test_whatever_downtime_comes_every_moment_is_in_exactly_one_window(
    schedule, zone, start, downtimes, catchup
):
    now = start
    asked = DepartureTimetable(schedule, zone, clock=lambda: now)
    info, windows = following(asked, None, catchup=catchup, earliest=pendulum.instance(start)), []
    for days_down in downtimes:
        now = max(now, info.run_after) + timedelta(days=days_down)
        asked = DepartureTimetable.deserialize(json.loads(json.dumps(asked.serialize())))
        asked._clock = lambda now=now: now
        windows.append(info)
        info = following(asked, info.data_interval, catchup=catchup, earliest=pendulum.instance(start))
    assert windows[0].data_interval.start == start
    for earlier, later in pairwise(windows):
        assert earlier.logical_date < later.logical_date
        assert earlier.data_interval.end == later.data_interval.start
        assert earlier.run_after == earlier.data_interval.end < later.run_after


@settings(max_examples=100, deadline=None)
@given(
    schedules,
    zones,
    st.lists(st.none() | st.datetimes(timezones=st.just(UTC)), min_size=5, max_size=5),
    st.booleans(),
)
def test_no_moment_of_the_calendar_makes_it_raise(schedule, zone, points, catchup):
    start, end, earliest, latest, now = (pendulum.instance(point) if point else None for point in points)
    asked = DepartureTimetable(schedule, zone, clock=lambda: now or utc("2026-05-06T12:00"))
    last = DataInterval(*sorted((start, end))) if start and end else None
    info = following(asked, last, earliest=earliest, latest=latest, catchup=catchup)
    assert info is None or last is None or info.logical_date > last.start
    manual = asked.infer_manual_data_interval(run_after=end or start or utc("2026-05-06T12:00"))
    assert manual.start <= manual.end


def test_a_backfill_ends_at_its_last_day():
    infos, last = [], None
    while info := following(timetable(on="weekdays"), last, latest=utc("2020-01-10T09:00"), catchup=True):
        infos.append(info)
        last = info.data_interval
    assert [info.run_after.day for info in infos] == [1, 2, 3, 6, 7, 8, 9, 10]


# --- runs by hand ----------------------------------------------------------------------------------------------


@pytest.mark.req("C32")
def test_a_run_by_hand_stands_for_the_time_since_the_last_departure():
    asked = utc("2026-05-06T15:20:30")
    assert timetable().infer_manual_data_interval(run_after=asked) == window(
        "2026-05-06T09:00", "2026-05-06T15:20:30"
    )


@pytest.mark.req("C32")
def test_a_run_by_hand_at_the_very_moment_of_a_departure_stands_for_the_same_window():
    asked = utc("2026-05-06T09:00")
    assert timetable().infer_manual_data_interval(run_after=asked) == window(
        "2026-05-05T09:00", "2026-05-06T09:00"
    )


def test_run_ids_are_the_same_with_and_without_a_partition_key():
    due = utc("2026-05-06T09:00")
    given_to = {"run_type": DagRunType.SCHEDULED, "run_after": due, "data_interval": DataInterval.exact(due)}
    assert timetable().generate_run_id(**given_to) == "scheduled__2026-05-06T09:00:00+00:00"
    assert (
        timetable().generate_run_id(**given_to, partition_key=None) == "scheduled__2026-05-06T09:00:00+00:00"
    )


# --- what is shown and what is refused -------------------------------------------------------------------------


def test_the_airflow_page_shows_the_schedule_as_one_would_say_it():
    asked = timetable(on="weekdays", zone="America/New_York")
    assert asked.summary == asked.description == "weekdays at 09:00 (America/New_York)"


def test_even_a_schedule_with_every_minute_has_a_short_description():
    every = timetable(*(f"{minute // 60:02}:{minute % 60:02}" for minute in range(1440)))
    every.validate()
    assert every.description == "every day, 1440 times from 00:00 to 23:59 (UTC)"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (DepartureTimetable(Timed(at=("09:00",)), "America/New_Yorck"), "America/New_Yorck"),
        (
            DepartureTimetable(Timed.model_construct(at=(time(9), time(9)), on="days", timezone=None), "UTC"),
            "09:00 stands twice",
        ),
    ],
)
def test_what_could_never_depart_is_refused_when_the_dag_file_is_read(broken, message):
    with pytest.raises(AirflowTimetableInvalid, match=message):
        broken.validate()


def test_what_could_never_depart_is_refused_also_where_an_asset_starts_runs():
    never = timetable_for(Timed(at=("09:00",), on={"month": "31st business day"}), "UTC")
    with pytest.raises(AirflowTimetableInvalid, match=r"never departs|no departure"):
        DepartureOrAssetTimetable(timetable=never, assets=AssetAny(Asset("prices"))).validate()
    fine = timetable_for(Timed(at=("09:00",)), "UTC")
    DepartureOrAssetTimetable(timetable=fine, assets=AssetAny(Asset("prices"))).validate()


def test_a_zone_that_only_this_process_does_not_know_is_logged_and_not_raised(caplog):
    lost = DepartureTimetable.deserialize({"schedule": {"at": ["09:00"]}, "timezone": "Mars/Olympus_Mons"})
    with caplog.at_level(logging.ERROR):
        assert following(lost) is None
        due = utc("2026-05-06T09:00")
        assert lost.infer_manual_data_interval(run_after=due) == DataInterval.exact(due)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "Mars/Olympus_Mons" in caplog.text


def test_manual_batches_have_no_timetable():
    assert timetable_for("manual", "UTC") is None


def test_the_zone_of_the_schedule_outweighs_the_zone_of_the_batch():
    own = Timed.model_validate({"at": ["09:00"], "timezone": "Asia/Tokyo"})
    assert timetable_for(own, "Europe/Paris") == timetable_for(
        own.model_copy(update={"timezone": None}), "Asia/Tokyo"
    )
    assert timetable_for(own, "Europe/Paris").summary.endswith("(Asia/Tokyo)")


def test_timetables_are_equal_when_they_depart_alike():
    assert timetable("09:00") == timetable("09:00", now="2030-01-01")
    assert len({timetable("09:00"), timetable("09:00"), timetable("09:00", zone="Asia/Tokyo")}) == 2
    assert timetable("09:00") != timetable("09:00", on="weekdays")


# --- through Airflow itself ------------------------------------------------------------------------------------

ROUND_TRIP = """
import json, sys
from airflow.sdk import DAG
from airflow.serialization.encoders import encode_timetable
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.serialized_objects import DagSerialization
from airflow import plugins_manager
from leadferry.schedule import Timed
from leadferry.timetables import timetable_for

made = timetable_for(Timed(at=("09:00", "17:30"), on=("mon", "thu")), "Australia/Lord_Howe")
again = decode_timetable(json.loads(json.dumps(encode_timetable(made))))
dag = DAG("batch_a", schedule=made)
stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
print(json.dumps({
    "equal": [again == made, stored.timetable == made],
    "same class": type(again) is type(made),
    "type_name": made.type_name,
    "summary": stored.timetable.summary,
    "import errors": plugins_manager.get_import_errors(),
    "plugin loaded": "leadferry_plugin" in sys.modules,
    "loaded from a folder beside it": "page_of_the_plugin" in sys.modules,
}))
"""


def test_airflow_stores_and_rebuilds_it_through_the_plugins_folder(tmp_path):
    """In a process of its own, because Airflow reads its plugins folder once per process."""
    plugins = shutil.copytree(
        PROJECT / "plugins", tmp_path / "plugins", ignore=shutil.ignore_patterns("__pycache__")
    )
    (plugins / "pages").mkdir()
    (plugins / "pages" / "page_of_the_plugin.py").write_text("")
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "equal": [True, True],
        "same class": True,
        "type_name": "leadferry.timetables.DepartureTimetable",
        "summary": "mon and thu at 09:00 and 17:30 (Australia/Lord_Howe)",
        "import errors": {},
        "plugin loaded": True,
        "loaded from a folder beside it": False,
    }


# --- every kind of schedule --------------------------------------------------------------------------------------


@pytest.mark.req("R035", "R054")
@settings(max_examples=100, deadline=None)
@given(
    any_schedule.schedules,
    any_schedule.zones,
    st.datetimes(datetime(2018, 3, 1), datetime(2019, 6, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # made aware by the strategy
    st.lists(st.integers(0, 9), min_size=3, max_size=8),
)
def test_whatever_the_schedule_its_windows_tile_time_and_it_can_be_stored(schedule, zone, start, downtimes):
    now = start
    asked = DepartureTimetable(schedule, zone, batch_id="acme", clock=lambda: now)
    info, windows = following(asked, None, earliest=pendulum.instance(start)), []
    for days_down in downtimes:
        if info is None:
            break
        now = max(now, info.run_after) + timedelta(days=days_down)
        stored = DepartureTimetable.deserialize(json.loads(json.dumps(asked.serialize())))
        assert stored == asked
        assert stored.summary == asked.summary
        asked = stored
        asked._clock = lambda now=now: now
        windows.append(info)
        info = following(asked, info.data_interval, earliest=pendulum.instance(start))
    for earlier, later in pairwise(windows):
        assert earlier.logical_date < later.logical_date
        assert earlier.data_interval.end == later.data_interval.start
        assert earlier.run_after == earlier.data_interval.end < later.run_after


def made(written, *, zone="UTC", now="2026-05-06T12:00", batch_id="acme") -> DepartureTimetable:
    schedule = any_schedule.ADAPTER.validate_python(written)
    return DepartureTimetable(schedule, zone, batch_id=batch_id, clock=lambda: utc(now))


@pytest.mark.req("F41")
@pytest.mark.parametrize(
    ("missed", "runs"),
    [
        ("combine", ["09 09:00", "10 09:00"]),
        ("each", ["07 09:00", "08 09:00", "09 09:00", "10 09:00"]),
        ("skip", ["10 09:00", "11 09:00"]),
    ],
)
def test_after_three_days_down_missed_departures_are_combined_made_up_for_or_skipped(missed, runs):
    asked = made({"at": ["09:00"], "missed": missed}, now="2026-05-09T15:00")
    last, found = window("2026-05-05T09:00", "2026-05-06T09:00"), []
    for _ in runs:
        info = following(asked, last)
        assert info.data_interval.start == last.end
        found.append(f"{info.run_after:%d %H:%M}")
        last = info.data_interval
    assert found == runs


def noted(begins: str, ends: str) -> DagModel:
    """What Airflow keeps of a DAG's next run, from when it last read the file or made a run."""
    at = {"next_dagrun": utc(begins), "next_dagrun_create_after": utc(ends)}
    interval = {"next_dagrun_data_interval_start": utc(begins), "next_dagrun_data_interval_end": utc(ends)}
    return DagModel(dag_id="batch_acme", **at, **interval)


@pytest.mark.req("F41")
@pytest.mark.parametrize(
    ("missed", "now", "departs"),
    [
        ("combine", "09T15:00", "09T09:00"),
        ("combine", "07T09:00", "07T09:00"),
        ("combine", "06T15:00", "07T09:00"),  # as the command line asks
        ("each", "09T15:00", "07T09:00"),
        ("skip", "09T09:10", "09T09:00"),
        ("skip", "07T09:10", "07T09:00"),
        ("skip", "06T15:00", "07T09:00"),
    ],
)
def test_a_run_that_was_noted_before_the_downtime_is_looked_at_again_when_it_is_made(missed, now, departs):
    asked = made({"at": ["09:00"], "missed": missed}, now=f"2026-05-{now}")
    info = asked.next_run_info_from_dag_model(dag_model=noted("2026-05-06T09:00", "2026-05-07T09:00"))
    assert info == DagRunInfo.interval(utc("2026-05-06T09:00"), utc(f"2026-05-{departs}"))


@pytest.mark.req("F41")
def test_a_noted_run_that_is_not_to_be_made_up_for_is_not_made():
    asked = made({"at": ["09:00"], "missed": "skip"}, now="2026-05-09T15:00")
    kept = noted("2026-05-06T09:00", "2026-05-07T09:00")
    with pytest.raises(AirflowTimetableInvalid, match=r"2026-05-07.* was missed and is left out"):
        asked.next_run_info_from_dag_model(dag_model=kept)

    following_it = DagRunInfo.interval(utc("2026-05-06T09:00"), utc("2026-05-10T09:00"))
    assert asked.next_run_info_from_dag_model(dag_model=kept) == following_it
    assert (kept.next_dagrun, kept.next_dagrun_create_after) == (
        utc("2026-05-06T09:00"),
        utc("2026-05-10T09:00"),
    )


@pytest.mark.req("F41")
def test_a_noted_run_that_is_left_out_may_have_been_the_last():
    asked = made({"at": ["09:00"], "on": {"dates": ["2026-05-07"]}, "missed": "skip"}, now="2026-05-09T15:00")
    kept = noted("2026-05-06T09:00", "2026-05-07T09:00")
    with pytest.raises(AirflowTimetableInvalid, match="is left out"):
        asked.next_run_info_from_dag_model(dag_model=kept)

    assert asked.next_run_info_from_dag_model(dag_model=kept) is None


@pytest.mark.req("F41", "R044")
def test_a_noted_run_that_builds_ahead_is_combined_with_the_one_whose_time_to_build_has_come():
    asked = made({"at": ["09:00"], "generate_before": "30m"}, now="2026-05-09T08:45")
    info = asked.next_run_info_from_dag_model(dag_model=noted("2026-05-06T09:00", "2026-05-07T09:00"))
    assert info.run_after == utc("2026-05-09T08:30")
    assert info.data_interval == window("2026-05-06T09:00", "2026-05-09T09:00")


@pytest.mark.req("C32")
@pytest.mark.parametrize("with_asset", [False, True])
@pytest.mark.parametrize("missed", ["combine", "each", "skip"])
def test_a_run_by_hand_for_the_logical_date_of_the_next_run_does_not_keep_that_from_being_made(
    missed, with_asset
):
    """Airflow finds the date taken, and asks for what comes after the run that took it."""
    by_hand = DagRun(
        dag_id="batch_acme",
        run_id="by_hand",
        run_type=DagRunType.MANUAL,
        logical_date=utc("2026-05-06T09:00"),
        data_interval=window("2026-05-05T09:00", "2026-05-06T09:00"),
        run_after=utc("2026-05-06T11:12"),
    )
    asked = scheduled(now="2026-05-07T09:00", at=["09:00"], missed=missed)
    if with_asset:
        asked = DepartureOrAssetTimetable(timetable=asked, assets=AssetAny(Asset("prices")))
    taken = asked.run_info_from_dag_run(dag_run=by_hand)
    info = following(asked, taken.data_interval)
    assert info.run_after == utc("2026-05-07T09:00")
    assert info.logical_date == by_hand.logical_date + timedelta(microseconds=1)


def test_what_follows_a_run_of_the_timetable_follows_its_window():
    run = DagRun(
        dag_id="batch_acme",
        run_id="nine",
        run_type=DagRunType.SCHEDULED,
        logical_date=utc("2026-05-05T09:00"),
        data_interval=window("2026-05-05T09:00", "2026-05-06T09:00"),
        run_after=utc("2026-05-06T09:00"),
    )
    last = timetable().run_info_from_dag_run(dag_run=run)
    assert last.data_interval == window("2026-05-05T09:00", "2026-05-06T09:00")


def test_a_dag_for_which_nothing_is_noted_has_no_next_run():
    assert (
        made({"at": ["09:00"]}).next_run_info_from_dag_model(dag_model=DagModel(dag_id="batch_acme")) is None
    )


@pytest.mark.req("F41")
def test_a_departure_that_skips_missed_ones_is_not_lost_when_it_is_asked_for_a_moment_late():
    asked = made({"at": ["09:00"], "missed": "skip"}, now="2026-05-07T09:10")
    assert following(asked, window("2026-05-05T09:00", "2026-05-06T09:00")).run_after == utc(
        "2026-05-07T09:00"
    )


@pytest.mark.req("F41")
def test_a_new_batch_makes_up_for_nothing_although_it_asks_for_each():
    asked = made({"at": ["09:00"], "missed": "each"}, now="2026-05-06T15:00")
    assert following(asked, None).run_after == utc("2026-05-07T09:00")


@pytest.mark.req("R043", "F60", "C34")
def test_the_spread_of_a_batch_survives_being_stored_and_differs_between_batches():
    minutes = set()
    for number in range(8):
        asked = made({"at": ["09:00"], "spread": "10m"}, batch_id=f"batch_{number}")
        stored = DepartureTimetable.deserialize(json.loads(json.dumps(asked.serialize())))
        stored._clock = asked._clock
        due = following(stored).run_after
        assert due == following(asked).run_after
        assert timedelta() <= due - utc("2026-05-07T09:00") < timedelta(minutes=10)
        minutes.add(due)
    assert len(minutes) > 4


def test_without_spread_the_batch_is_no_part_of_what_is_stored():
    assert made({"at": ["09:00"]}, batch_id="a") == made({"at": ["09:00"]}, batch_id="b")


@pytest.mark.req("R038")
def test_an_edited_calendar_is_another_timetable_and_no_process_keeps_the_old_one():
    def with_holiday(*days):
        calendar = {"id": "us", "closed": dict.fromkeys(days, "Outing")}
        return made({"at": ["09:00"], "calendar": calendar})

    before, after = with_holiday(), with_holiday("2026-05-07")
    assert before != after
    assert following(before).run_after == utc("2026-05-07T09:00")
    assert following(after).run_after == utc("2026-05-08T09:00")


def test_a_schedule_that_its_calendar_closes_for_ever_is_refused():
    never = made({"at": ["09:00"], "on": "weekends", "calendar": {"id": "us"}})
    with pytest.raises(AirflowTimetableInvalid, match="never departs"):
        never.validate()


@pytest.mark.parametrize(
    "on",
    [{"dates": ["2026-01-05"]}, {"rrule": "FREQ=DAILY;COUNT=2", "starting": "2026-01-05"}],
)
def test_a_schedule_that_is_over_is_no_error_since_its_last_run_still_needs_the_dag(on):
    over = made({"at": ["09:00"], "on": on})
    over.validate()
    assert following(over) is None


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"on": {"rrule": "FREQ=DAILY;INTERVAL=0", "starting": "2026-01-05"}}, "INTERVAL must be 1 or more"),
        (
            {"on": {"rrule": "FREQ=DAILY;COUNT=2\nRRULE:INTERVAL=0;FREQ=DAILY", "starting": "2026-01-05"}},
            "single rule",
        ),
        ({"every": "999999999999 days", "starting": "2026-01-05"}, "at most 2500 days"),
    ],
)
def test_what_would_keep_a_process_busy_for_ever_or_overflow_is_refused_when_it_is_read(keys, told):
    with pytest.raises(ValueError, match=told):
        made({"at": ["09:00"], **keys})


def test_blackouts_that_leave_no_time_are_refused():
    blackouts = [{"starts": "00:00", "ends": "12:00"}, {"starts": "12:00", "ends": "00:00"}]
    with pytest.raises(ValidationError, match="leave no time of the week"):
        made({"at": ["09:00"], "calendar": {"id": "us", "blackouts": blackouts}})


# --- files built ahead -----------------------------------------------------------------------------------------


def ahead(*, now: str, missed="combine") -> DepartureTimetable:
    schedule = Timed.model_validate({"at": ["09:00"], "generate_before": "30m", "missed": missed})
    return DepartureTimetable(schedule, "UTC", clock=lambda: utc(now))


@pytest.mark.req("R044")
def test_a_run_that_builds_ahead_begins_earlier_and_stands_for_the_window_of_its_departure():
    last = window("2026-05-05T09:00", "2026-05-06T09:00")
    found = following(ahead(now="2026-05-06T12:00"), last)
    assert found.run_after == utc("2026-05-07T08:30")
    assert found.data_interval == window("2026-05-06T09:00", "2026-05-07T09:00")


@pytest.mark.req("R044")
def test_while_files_are_built_ahead_the_same_departure_is_not_run_again():
    last = window("2026-05-05T09:00", "2026-05-06T09:00")
    found = following(ahead(now="2026-05-06T08:45"), last)
    assert found.run_after == utc("2026-05-07T08:30")


@pytest.mark.req("R044")
@pytest.mark.parametrize(
    ("now", "run_after"),
    [
        ("2026-05-06T08:31", "2026-05-06T08:30"),
        ("2026-05-06T08:44", "2026-05-06T08:30"),
        ("2026-05-06T08:46", "2026-05-06T08:30"),
        ("2026-05-06T09:14", "2026-05-06T08:30"),
        ("2026-05-06T09:16", "2026-05-07T08:30"),
        ("2026-05-06T08:29", "2026-05-06T08:30"),
    ],
)
def test_the_first_run_of_a_batch_that_builds_ahead_may_be_a_little_late(now, run_after):
    assert following(ahead(now=now)).run_after == utc(run_after)


@pytest.mark.req("R044")
def test_a_missed_departure_that_builds_ahead_runs_once_afterwards():
    last = window("2026-05-01T09:00", "2026-05-02T09:00")
    found = following(ahead(now="2026-05-06T08:40"), last)
    assert found.data_interval == window("2026-05-02T09:00", "2026-05-06T09:00")
    assert found.run_after == utc("2026-05-06T08:30")


def test_the_time_ahead_survives_being_stored():
    asked = ahead(now="2026-05-06T12:00")
    again = DepartureTimetable.deserialize(json.loads(json.dumps(asked.serialize())))
    assert again == asked
    assert again.summary == "every day at 09:00, built 30 minutes ahead (UTC)"


@pytest.mark.req("R044")
@pytest.mark.parametrize("missed", ["combine", "each"])
def test_no_two_runs_have_one_id_after_the_time_ahead_was_edited(missed):
    last, ids = window("2026-05-06T08:00", "2026-05-06T09:00"), ["scheduled__2026-05-06T09:00:00+00:00"]
    edited = scheduled(now="2026-05-06T09:30", hourly={"minute": 0}, generate_before="1h", missed=missed)
    for _ in range(3):
        info = following(edited, last)
        asked_for = {"run_after": info.run_after, "data_interval": info.data_interval}
        ids.append(edited.generate_run_id(run_type=DagRunType.SCHEDULED, **asked_for))
        last = info.data_interval
    assert len(set(ids)) == len(ids)


def test_the_id_of_a_run_by_hand_has_the_moment_at_which_it_was_asked_for():
    asked = utc("2026-05-06T15:20:30")
    window_of_it = ahead(now="2026-05-06T15:20:30").infer_manual_data_interval(run_after=asked)
    for told in (window_of_it, None):
        found = ahead(now="2026-05-06T15:20:30").generate_run_id(
            run_type=DagRunType.MANUAL, run_after=asked, data_interval=told
        )
        assert found == "manual__2026-05-06T15:20:30+00:00"


@pytest.mark.req("R044", "F41")
@pytest.mark.parametrize(
    ("missed", "last"), [("combine", None), ("skip", window("2026-05-04T09:00", "2026-05-05T09:00"))]
)
def test_a_departure_that_is_still_ahead_is_not_missed_although_its_files_should_be_under_way(missed, last):
    ahead = scheduled(now="2026-05-06T04:00", at=["09:00"], generate_before="6h", missed=missed)
    info = following(ahead, last)
    assert (info.run_after, info.data_interval.end) == (utc("2026-05-06T03:00"), utc("2026-05-06T09:00"))
