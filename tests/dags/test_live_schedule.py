"""Timetables through a real Airflow and a PostgreSQL whose clock is moved: three days down, edited calendars, windows.

All happens once; the tests look at what is left. The clock begins on a Thursday, two minutes after nine in New York,
is moved on by three days while nothing runs but the api-server, and then to the Monday morning. Clocks in
New York go forward on that Sunday.
"""

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text

from batches import execute, rows, scalars
from leadferry.local.airflow import ENDED
from leadferry.local.postgres import EmbeddedPostgres
from leadferry.local.processes import Processes

from .airflow_home import COMPONENTS, AirflowHome
from .moved_clock import MovedClock, library
from .patience import PATIENCE, get, until

pytestmark = [
    pytest.mark.skipif(
        library() is None,
        reason="needs libfaketime: `pip install libfaketime`, or Debian's package libfaketime",
    ),
    pytest.mark.timeout(PATIENCE),
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


THURSDAY, FRIDAY, SATURDAY = (utc(f"2026-03-{day:02}T14:00") for day in (5, 6, 7))
SUNDAY, MONDAY = (utc(f"2026-03-{day:02}T13:00") for day in (8, 9))
"""Nine o'clock in New York."""

BEGIN = THURSDAY + timedelta(minutes=2)
AFTERWARDS = SUNDAY + timedelta(minutes=30)
"""When everything is up again; `missed: skip` takes no departure for missed that is less than 15 minutes late."""

TICK = timedelta(microseconds=1)
LEADS = {
    "before": THURSDAY - timedelta(hours=18),
    "at_nine_on_thursday": THURSDAY,
    "just_before_friday": FRIDAY - TICK,
    "at_nine_on_friday": FRIDAY,
    "sunday_morning": SUNDAY - timedelta(hours=1),
    "at_nine_on_sunday": SUNDAY,
}
"""When they were received. All but the first are of the time when nothing runs."""

NINE = {"at": ["09:00"], "timezone": "America/New_York"}
SINCE_PREVIOUS = {"select": {"window": "since_previous"}}
OR_ASSET = {**NINE, "on_asset": "crm_ready"}
DAILY = {
    "combine": {"schedule": NINE, **SINCE_PREVIOUS},
    "each": {"schedule": {**NINE, "missed": "each"}},
    "skip": {"schedule": {**NINE, "missed": "skip"}, **SINCE_PREVIOUS},
    "combine_or_asset": {"schedule": OR_ASSET, **SINCE_PREVIOUS},
    "skip_or_asset": {"schedule": {**OR_ASSET, "missed": "skip"}, **SINCE_PREVIOUS},
    "observed": {"schedule": {**NINE, "calendar": "house"}, **SINCE_PREVIOUS},
}
TILES = {"schedule": {"every": "1 minute"}, **SINCE_PREVIOUS}
MINUTES = 2
"""Runs of `tiles` that are waited for before the downtime, after its first."""

SETTINGS = {
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "8",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
}


@dataclass
class Live:
    airflow: AirflowHome
    clock: MovedClock
    next_of_observed: list[str] = field(default_factory=list)
    """What Airflow said of its next run: before the calendar was edited, and after each edit."""
    seen: dict[str, list[dict]] = field(default_factory=dict)
    """For each batch the runs that there were after the downtime, before the clock was moved to Monday."""
    runs: dict[str, list[dict]] = field(default_factory=dict)
    """For each batch all its runs, the oldest first."""

    def carried(self, batch_id: str) -> list[list[str]]:
        """The names of the leads of each delivery, in the order in which they were claimed."""
        found = rows(
            self.airflow.database,
            "SELECT delivery.id, lead.fields ->> 'name' FROM delivery_lead JOIN delivery ON delivery.id = delivery_id"
            " JOIN batch ON batch.no = delivery.batch_no JOIN lead ON lead.id = lead_id"
            " WHERE batch.id = :batch AND outcome = 'included' ORDER BY delivery.id, lead.received_at",
            batch=batch_id,
        )
        by_delivery: dict[int, list[str]] = {}
        for delivery_id, name in found:
            by_delivery.setdefault(delivery_id, []).append(name)
        return list(by_delivery.values())

    def windows(self, batch_id: str) -> list[tuple[datetime, datetime]]:
        return rows(
            self.airflow.database,
            "SELECT window_from, window_to FROM delivery JOIN batch ON no = batch_no"
            " WHERE batch.id = :batch AND number IS NOT NULL ORDER BY delivery.id",
            batch=batch_id,
        )


# --- what happens ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(postgres, airflow_template, tmp_path_factory) -> Iterator[Live]:
    # Beside the server's data, where the server's own user may read it.
    folder = Path(tempfile.mkdtemp(prefix="leadferry-pg-"))
    clock = MovedClock(folder, at=BEGIN)
    with clock.for_children():
        server = EmbeddedPostgres(folder / "db", durable=False)
    try:
        for name, template in (("airflow", airflow_template), ("store", "template_leadferry")):
            copy_database(postgres, template, server, name)
        home = AirflowHome(
            folder=tmp_path_factory.mktemp("airflow"),
            postgres=server,
            store="store",
            metadata="airflow",
            connections={},
            settings={**clock.environment, **SETTINGS},
        )
        (shown,) = scalars(home.database, "SELECT now()")
        assert abs(shown - clock.now()) < timedelta(minutes=1), "the server does not follow the moved clock"
        found = Live(home, clock)
        prepare(home)
        Story(found).tell()
        yield found
    finally:
        server.stop(crash=True)
        shutil.rmtree(folder, ignore_errors=True)


def copy_database(source: EmbeddedPostgres, template: str, target: EmbeddedPostgres, name: str) -> None:
    """Copy a database to a server with another clock."""
    target.ensure_database(name)
    programs = source.programs
    dump = [programs / "pg_dump", "-h", source.socket_folder, "-U", "postgres", template]
    dumped = subprocess.run(dump, capture_output=True, check=True)
    load = [
        programs / "psql",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        target.socket_folder,
        "-U",
        "postgres",
        name,
    ]
    subprocess.run(load, input=dumped.stdout, capture_output=True, check=True)


def prepare(airflow: AirflowHome) -> None:
    airflow.config.mkdir(parents=True, exist_ok=True)
    # What is read again every few seconds should be little.
    for file in (airflow.workspace.folder / "dags").glob("*.py"):
        if file.name != "lead_batches.py":
            file.unlink()
    write_calendar(airflow, closed=[])
    for batch_id, keys in {**DAILY, "tiles": TILES}.items():
        folder = [{"id": "drop", "type": "folder", "path": str(airflow.inbox / batch_id)}]
        flow = "auto" if batch_id in DAILY else batch_id
        airflow.batch(batch_id, **{"flows": [flow], "destinations": folder, **keys})
    receive(airflow, "before", "at_nine_on_thursday")


def write_calendar(airflow: AirflowHome, *, closed: list[str]) -> None:
    folder = airflow.config / "calendars"
    folder.mkdir(exist_ok=True)
    house = {"weekend": ["sat", "sun"], "closed": [{"dates": day, "name": "Company day"} for day in closed]}
    (folder / "house.yaml").write_text(yaml.safe_dump(house))


def receive(airflow: AirflowHome, *names: str) -> None:
    for name in names:
        execute(
            airflow.database,
            "INSERT INTO lead (flow, received_at, fields) VALUES ('auto', :at, jsonb_build_object('name', CAST(:name AS text)))",
            at=LEADS[name],
            name=name,
        )


class Story:
    """All that happens, in order."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.airflow, self.clock = live.airflow, live.clock
        workspace = self.airflow.workspace
        self.server = Processes(workspace.records, logs=workspace.logs)
        self.stopped_later = Processes(workspace.records, logs=workspace.logs)

    def tell(self) -> None:
        self.api = self.airflow.start(self.server, "api-server")
        self.airflow.start(self.stopped_later, "scheduler", "dag-processor")
        try:
            self.thursday()
            self.three_days_down()
            self.monday()
        finally:
            self.api.close()
            for processes in (self.server, self.stopped_later):
                processes.stop(grace=5)

    def until(self, question, what: str) -> None:
        self.stopped_later.check()
        until(question, self.server, self.api, what=what)

    def thursday(self) -> None:
        self.healthy()
        for pool in json.loads(self.airflow.leadferry("pools")):
            self.until(lambda name=pool: self.api.ensure_pool(name, slots=4), f"{pool} is made")
        with steady_leads(self.airflow):
            for batch_id in DAILY:
                self.until(lambda one=batch_id: len(self.ended(one)) == 1, f"{batch_id} departed")
            self.edit_the_calendar()
            for _ in range(MINUTES):
                self.next_minute()
        self.until(self.nothing_runs, "nothing runs")

    def healthy(self) -> None:
        self.until(lambda: not self.api.unhealthy(COMPONENTS), "Airflow is healthy")

    def edit_the_calendar(self) -> None:
        """Twice, while everything runs: Friday closed, then Friday and Monday, then Friday alone."""
        said = self.live.next_of_observed
        self.until(lambda: self.next_run("observed") is not None, "the next run is known")
        said.append(self.next_run("observed"))
        for closed in (["2026-03-06", "2026-03-09"], ["2026-03-06"]):
            write_calendar(self.airflow, closed=closed)
            self.until(lambda: self.next_run("observed") != said[-1], f"{closed} is known to be closed")
            said.append(self.next_run("observed"))

    def next_minute(self) -> None:
        """Move the clock to the end of the minute, and wait for the run that is due then."""
        self.until(self.nothing_runs, "nothing runs")
        before = len(self.ended("tiles"))
        now = self.clock.now()
        if now.second < 54:
            self.clock.set(now.replace(second=54, microsecond=0))
        self.until(lambda: len(self.ended("tiles")) > before, "the minute's run ended")

    def three_days_down(self) -> None:
        self.stopped_later.stop(grace=10)
        self.move_the_clock(AFTERWARDS)
        receive(self.airflow, *list(LEADS)[2:])
        # Alone at first: nobody reads DAG files, so it starts from what was the next departure three days ago.
        self.airflow.start(self.stopped_later, "scheduler")
        for batch_id, runs in (("combine", 2), ("combine_or_asset", 2), ("each", 4), ("tiles", 2 + MINUTES)):
            self.until(
                lambda one=batch_id, runs=runs: len(self.ended(one)) >= runs, f"{batch_id} makes up for it"
            )
        for batch_id in DAILY:
            self.until(lambda one=batch_id: self.next_run(one) == said(MONDAY), f"{batch_id} goes on Monday")
        self.airflow.start(self.stopped_later, "dag-processor")
        self.until(self.nothing_runs, "nothing runs")
        self.live.seen = {batch_id: self.ended(batch_id) for batch_id in DAILY}

    def monday(self) -> None:
        self.move_the_clock(MONDAY - timedelta(seconds=10))
        for batch_id, runs in self.live.seen.items():
            self.until(
                lambda one=batch_id, runs=runs: len(self.ended(one)) > len(runs),
                f"{batch_id} departs on Monday",
            )
        self.until(self.nothing_runs, "nothing runs")
        self.live.runs = {batch_id: self.ended(batch_id) for batch_id in [*DAILY, "tiles"]}

    def move_the_clock(self, moment: datetime) -> None:
        self.clock.set(moment)
        self.until(lambda: self.time_of_the_server() >= moment - timedelta(seconds=1), "the server follows")
        self.api._http.headers.pop("Authorization")  # what was given for a day has expired

    def time_of_the_server(self) -> datetime:
        return parsedate_to_datetime(self.api._http.get("/api/v2/monitor/health").headers["date"])

    def ended(self, batch_id: str) -> list[dict]:
        path = f"dags/batch_{batch_id}/dagRuns?order_by=run_after&limit=100"
        answer = self.api._ask("GET", f"/api/v2/{path}")
        return [run for run in (answer or {"dag_runs": []})["dag_runs"] if run["state"] in ENDED]

    def next_run(self, batch_id: str) -> str | None:
        return get(self.api, f"dags/batch_{batch_id}")["next_dagrun_run_after"]

    def nothing_runs(self) -> bool:
        return get(self.api, "dags/~/dagRuns?state=running&state=queued")["total_entries"] == 0


def said(moment: datetime) -> str:
    """A moment as Airflow's API writes it."""
    return moment.isoformat().replace("+00:00", "Z")


@contextmanager
def steady_leads(airflow: AirflowHome) -> Iterator[None]:
    """Let leads for `tiles` come in all the time."""
    enough = threading.Event()

    def come_in() -> None:
        with airflow.database.session() as store:
            while not enough.wait(0.3):
                store.execute(
                    text("INSERT INTO lead (flow, received_at, fields) VALUES ('tiles', now(), '{}')")
                )

    thread = threading.Thread(target=come_in)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


# --- what is left ------------------------------------------------------------------------------------------------


def intervals(runs: list[dict]) -> list[tuple[datetime, datetime]]:
    names = ("data_interval_start", "data_interval_end")
    return [tuple(datetime.fromisoformat(run[name]) for name in names) for run in runs]


@pytest.mark.req("F41")
@pytest.mark.parametrize("batch_id", ["combine", "combine_or_asset"])
def test_after_three_days_down_combine_departs_once_with_a_window_over_all_of_it(live, batch_id):
    (_, made_up) = live.seen[batch_id]

    assert intervals([made_up]) == [(THURSDAY, SUNDAY)]
    assert live.windows(batch_id)[1] == (THURSDAY, SUNDAY)
    assert live.carried(batch_id) == [
        ["before"],
        ["at_nine_on_thursday", "just_before_friday", "at_nine_on_friday", "sunday_morning"],
        ["at_nine_on_sunday"],
    ]


@pytest.mark.req("F41")
def test_after_three_days_down_each_departs_for_every_day_in_order_with_the_leads_of_that_day(live):
    assert intervals(live.seen["each"])[1:] == [(THURSDAY, FRIDAY), (FRIDAY, SATURDAY), (SATURDAY, SUNDAY)]
    assert live.carried("each") == [
        ["before"],
        ["at_nine_on_thursday", "just_before_friday"],
        ["at_nine_on_friday"],
        ["sunday_morning"],
        ["at_nine_on_sunday"],
    ]


@pytest.mark.req("F41")
@pytest.mark.parametrize("batch_id", ["skip", "skip_or_asset"])
def test_after_three_days_down_skip_departs_for_none_and_the_leads_go_with_the_next_departure(live, batch_id):
    assert len(live.seen[batch_id]) == 1
    assert intervals(live.runs[batch_id])[1:] == [(THURSDAY, MONDAY)]
    assert live.carried(batch_id) == [["before"], list(LEADS)[1:]]


@pytest.mark.req("F41")
@pytest.mark.parametrize("batch_id", DAILY)
def test_whatever_was_missed_every_lead_was_delivered_exactly_once(live, batch_id):
    delivered = [name for names in live.carried(batch_id) for name in names]

    assert sorted(delivered) == sorted(LEADS)
    assert {run["state"] for run in live.runs[batch_id]} == {"success"}


@pytest.mark.req("R037", "R038")
def test_an_edited_calendar_moves_the_next_run_while_everything_runs(live):
    tuesday = MONDAY + timedelta(days=1)

    assert live.next_of_observed == [said(FRIDAY), said(tuesday), said(MONDAY)]
    assert intervals(live.runs["observed"])[1:] == [(THURSDAY, MONDAY)]


@pytest.mark.req("R035", "R052")
@pytest.mark.parametrize("batch_id", [*DAILY, "tiles"])
def test_the_intervals_of_runs_cover_time_without_gap_or_overlap(live, batch_id):
    tiles = intervals(live.runs[batch_id])

    assert len(tiles) >= 2
    for (_, ends), (begins, _) in pairwise(tiles):
        assert begins == ends


@pytest.mark.req("R035", "R052")
def test_leads_that_come_in_all_the_time_are_each_in_one_delivery_and_in_its_window(live):
    went = rows(
        live.airflow.database,
        "SELECT lead.id, lead.received_at >= coalesce(window_from, '-infinity') AND lead.received_at < window_to,"
        " delivery.state::text FROM lead LEFT JOIN delivery_lead ON lead_id = lead.id"
        " LEFT JOIN delivery ON delivery.id = delivery_id WHERE flow = 'tiles'",
    )
    deliveries = scalars(
        live.airflow.database,
        "SELECT DISTINCT delivery_id FROM delivery_lead JOIN lead ON lead.id = lead_id WHERE flow = 'tiles'",
    )

    assert len(deliveries) > MINUTES
    assert len(went) == len({lead for lead, _, _ in went})
    assert {(within, state) for _, within, state in went} == {(True, "delivered")}


@pytest.mark.req("R052")
def test_the_windows_of_deliveries_are_the_intervals_of_their_runs(live):
    runs = set(intervals(live.runs["tiles"]))
    windows = live.windows("tiles")

    assert {ends for _, ends in windows} <= {ends for _, ends in runs}
    for (_, ends), (begins, _) in pairwise(windows):
        assert begins == ends
