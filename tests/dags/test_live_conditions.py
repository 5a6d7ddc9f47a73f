"""Conditions, events and business hours through a real Airflow, triggerer included.

All runs happen once, side by side; the tests look at what they left.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml

from batches import add_leads, rows, scalars, waiting
from leadferry.local.airflow import ENDED, AirflowApi
from leadferry.local.processes import Processes
from leadferry.store.suspensions import hold, resume
from leadferry.watch.tell import watch

from . import condition_cases
from .airflow_home import COMPONENTS, AirflowHome
from .condition_cases import AFTERNOON, HELD, LATE_EVENING, LEFT_OUT, NEVER, NEVER_ASKED, PAIRS, ZONES
from .patience import PATIENCE, get, until

pytestmark = pytest.mark.timeout(PATIENCE)

AT_TEN = {"at": ["10:00"], "calendar": "nine_to_five"}
TONIGHT = {"schedule": AT_TEN, "timezone": LATE_EVENING, "deadline": "1s"}
BATCHES = {
    "by_night": TONIGHT,
    "by_night_all_the_same": TONIGHT,
    "bad_conf": {},
    "file_missing": {
        "conditions": {"ready": {"file": {"path": "{ready}.not"}, "timeout": "2s", "every": "1s"}}
    },
    "at_an_event": {
        "schedule": {"on_asset": "prices_loaded"},
        "conditions": {"ready": {"file": {"path": "{ready}"}, "every": "1s"}},
    },
    "crossing": {
        "schedule": {"at": ["09:00"], "on": ["mon"], "timezone": AFTERNOON},
        "conditions": {
            "depart_early": {"leads": 4, "every": "1s"},
            "ready": {"asset": "prices_loaded", "every": "1s"},
        },
    },
    "nothing_waits": {
        "conditions": {"ready": {"asset": "prices_loaded", "timeout": "3s", "every": "1s"}},
        "retry": {"attempts": 1},
    },
    "second_chance": {"retry": {"attempts": 1, "at": ["14:00"]}, "timezone": LATE_EVENING},
    **condition_cases.BATCHES,
}
"""Each delivers the five leads of a flow with its own name."""

BY_THEMSELVES = {"at_an_event", "crossing", *LEFT_OUT, *condition_cases.BY_THEMSELVES, *NEVER}
CONF = {
    "bad_conf": {"limits": 2},
    "by_night_all_the_same": {"override_window": True},
}


@dataclass
class Live:
    airflow: AirflowHome
    late_evening: str
    """The zone where it was that late when all began."""
    states: dict[str, str] = field(default_factory=dict)
    """How each batch's only run ended."""
    tasks: dict[str, dict[str, str]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    later: dict[str, dict[str, str]] = field(default_factory=dict)
    """The tasks of the runs of `nothing_waits` after its first, by run; of the first itself when it ran again."""
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each batch what Airflow shows beside a task of its only run: its XCom `reason`."""
    listed: dict[str, list[dict]] = field(default_factory=dict)
    """For each batch what `leadferry deliveries` tells, the newest first."""
    stand: dict[str, dict] = field(default_factory=dict)
    """For each batch what `leadferry status` tells."""
    told: dict[str, str] = field(default_factory=dict)
    """What the command answered to the order to leave a departure of a batch out."""
    refused: int = 0
    """What Airflow answered to a conf that its form does not allow."""

    def delivered(self, batch_id: str) -> list[Path]:
        folder = self.airflow.inbox / batch_id
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def deliveries(self, batch_id: str) -> list[tuple]:
        return rows(
            self.airflow.database,
            "SELECT delivery.state::text, reason FROM delivery JOIN batch ON no = batch_no WHERE batch.id = :batch",
            batch=batch_id,
        )


@pytest.fixture(scope="module")
def live(make_airflow) -> Live:
    home = make_airflow({})
    home.connections["scoring"] = {
        "conn_type": "postgres",
        "host": home.postgres.socket_folder,
        "login": "postgres",
    }
    places = condition_cases.places(datetime.now(tz=UTC))
    found = Live(home, late_evening=places[LATE_EVENING])
    prepare(found.airflow, places)
    run_all(found)
    return found


def prepare(airflow: AirflowHome, places: dict[str, str]) -> None:
    ready = airflow.folder / "ready"
    ready.touch()
    calendars = airflow.config / "calendars"
    calendars.mkdir(parents=True)
    for name, calendar in condition_cases.CALENDARS.items():
        (calendars / f"{name}.yaml").write_text(yaml.safe_dump(calendar))
    places = {"{ready}": str(ready), **places}
    for batch_id, written in BATCHES.items():
        text = json.dumps(written)
        for name, value in places.items():
            text = text.replace(name, value)
        keys = json.loads(text)
        folder = [{"id": "drop", "type": "folder", "path": str(airflow.inbox / batch_id)}]
        retry = {"attempts": 1, "first_delay": "1s"}
        airflow.batch(batch_id, **{"flows": [batch_id], "retry": retry, "destinations": folder, **keys})
        if batch_id not in condition_cases.WITHOUT_LEADS:
            fields = {"zone": places[ZONES[batch_id]]} if batch_id in ZONES else None
            add_leads(airflow.database, 5, flow=batch_id, fields=fields)
    airflow.inbox.mkdir(parents=True, exist_ok=True)
    (airflow.inbox / "second_chance").write_text("a file is in the way of the folder")
    stop_some(airflow)


def stop_some(airflow: AirflowHome) -> None:
    """What people did before the first departure."""
    for batch_id in ("on_hold", "resumed"):
        hold(airflow.database, scope="batch", name=batch_id, reason="contract under review", actor="kim")
    resume(airflow.database, scope="batch", name="resumed", reason="signed", actor="kim")
    disk = {"scope": "batch", "name": "destination_on_hold", "destination": "drop"}
    hold(airflow.database, **disk, reason="their disk is full", actor="kim")


def run_all(live: Live) -> None:
    pools = json.loads(live.airflow.leadferry("pools"))
    processes = Processes(live.airflow.workspace.records, logs=live.airflow.workspace.logs)
    api = live.airflow.start(processes, "api-server", "scheduler", "dag-processor", "triggerer")
    try:
        until(
            lambda: not api.unhealthy((*COMPONENTS, "triggerer")), processes, api, what="Airflow is healthy"
        )
        for pool in pools:
            until(lambda name=pool: api.ensure_pool(name, slots=4), processes, api, what=f"{pool} is made")
        for batch_id in BATCHES:
            until(
                lambda dag=f"batch_{batch_id}": api.has_dag(dag), processes, api, what=f"{batch_id} is read"
            )
        for batch_id in LEFT_OUT:
            told = live.airflow.leadferry("schedule", batch_id, "--skip-next", "--reason", "importer is down")
            live.told[batch_id] = told
        update(api, "prices_loaded")
        add_leads(live.airflow.database, 5, flow="crossing")
        live.refused = trigger(api, "bad_conf", "refused", {"limit": "many"})
        for batch_id in set(BATCHES) - BY_THEMSELVES:
            assert trigger(api, batch_id, "live", CONF.get(batch_id, {})) == 200
        for batch_id in set(BATCHES) - NEVER - LEFT_OUT:
            until(
                lambda one=batch_id: came_to_rest(api, one), processes, api, what=f"{batch_id} comes to rest"
            )
            look(live, api, batch_id)
        depart_again(live, api, processes)
        for batch_id in LEFT_OUT:
            look_at_what_was_left_out(live, api, processes, batch_id)
        add_leads(live.airflow.database, 5, flow="left_out")
        until(
            lambda: "delivered" in [state for state, _ in live.deliveries("left_out")],
            processes,
            api,
            what="a later departure of left_out delivers",
        )
        for batch_id in NEVER:
            live.runs[batch_id] = len(runs_of(api, batch_id))
        listen_to_the_commands(live)
    finally:
        api.close()
        processes.stop(grace=5)


def look_at_what_was_left_out(live: Live, api: AirflowApi, processes: Processes, batch_id: str) -> None:
    """Wait for the run that used the order, and look at that one."""
    used = "SELECT run_id FROM skip_order WHERE batch_id = :batch AND run_id IS NOT NULL"
    store = live.airflow.database
    until(lambda: scalars(store, used, batch=batch_id), processes, api, what=f"{batch_id} is left out")
    (run_id,) = scalars(store, used, batch=batch_id)
    of_run = f"dags/batch_{batch_id}/dagRuns/{run_id}"
    until(lambda: get(api, of_run)["state"] in ENDED, processes, api, what=f"the run of {batch_id} ends")
    look(live, api, batch_id, get(api, of_run))


def depart_again(live: Live, api: AirflowApi, processes: Processes) -> None:
    """After a departure that found nothing: one more without a new update, and the first one once more."""
    dag = "dags/batch_nothing_waits"
    assert trigger(api, "nothing_waits", "again", {}) == 200
    for run_id, told in (("again", "the second run"), ("live", "the cleared run")):
        ended = f"{dag}/dagRuns/{run_id}"
        until(lambda url=ended: get(api, url)["state"] in ENDED, processes, api, what=f"{told} ends")
        live.later[run_id] = instances(api, "nothing_waits", run_id)
        if run_id == "again":
            cleared = {"dry_run": False, "dag_run_id": "live", "only_failed": False}
            assert api._ask("POST", f"/api/v2/{dag}/clearTaskInstances", json=cleared)


def update(api: AirflowApi, asset: str) -> None:
    """Say that an asset was updated, as another system does."""
    (found,) = [one for one in get(api, f"assets?name_pattern={asset}")["assets"] if one["name"] == asset]
    assert api._ask("POST", "/api/v2/assets/events", json={"asset_id": found["id"], "extra": {}})


def trigger(api: AirflowApi, batch_id: str, run_id: str, conf: dict) -> int:
    body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
    return api._http.post(f"/api/v2/dags/batch_{batch_id}/dagRuns", json=body).status_code


def listen_to_the_commands(live: Live) -> None:
    """What an operator reads on a terminal, after the watchdog has looked."""
    watch(live.airflow.database, live.airflow.config, now=datetime.now(tz=UTC))
    for row in json.loads(live.airflow.leadferry("deliveries", "-n", "200", "--json")):
        live.listed.setdefault(row["batch"], []).append(row)
    stand = json.loads(live.airflow.leadferry("status", "--json", exits=1))
    live.stand = {row["batch"]: row for row in stand}


def runs_of(api: AirflowApi, batch_id: str, states: Collection[str] = ()) -> list[dict]:
    runs = get(api, f"dags/batch_{batch_id}/dagRuns")["dag_runs"]
    return [run for run in runs if not states or run["state"] in states]


def only_run(api: AirflowApi, batch_id: str) -> dict | None:
    runs = runs_of(api, batch_id)
    return runs[0] if runs else None


def instances(api: AirflowApi, batch_id: str, run_id: str) -> dict[str, str]:
    found = get(api, f"dags/batch_{batch_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return {one["task_id"]: one["state"] for one in found}


def came_to_rest(api: AirflowApi, batch_id: str) -> bool:
    run = only_run(api, batch_id)
    if run is None:
        return False
    if batch_id in HELD:
        return instances(api, batch_id, run["dag_run_id"]).get("deliver.drop") == "up_for_reschedule"
    return run["state"] in ENDED


def look(live: Live, api: AirflowApi, batch_id: str, run: dict | None = None) -> None:
    run = run or only_run(api, batch_id)
    live.states[batch_id] = run["state"]
    live.runs[batch_id] = len(runs_of(api, batch_id))
    live.tasks[batch_id] = instances(api, batch_id, run["dag_run_id"])
    of_run = f"dags/batch_{batch_id}/dagRuns/{run['dag_run_id']}/taskInstances"
    shown = get(api, f"{of_run}/~/xcomEntries?xcom_key=reason")["xcom_entries"]
    live.reasons[batch_id] = {
        one["task_id"]: get(api, f"{of_run}/{one['task_id']}/xcomEntries/reason")["value"] for one in shown
    }


def next_at(hour: int, zone: str, after: datetime) -> datetime:
    """When it is `hour` for the first time after this instant in a zone that never changes its clocks."""
    local = after.astimezone(ZoneInfo(zone))
    there = local.replace(hour=hour, minute=0, second=0, microsecond=0)
    return there if there > local else there + timedelta(days=1)


@pytest.mark.req("R042", "V66")
def test_a_run_by_hand_in_the_evening_is_held_and_takes_no_slot(live):
    assert live.states["by_night"] == "running"
    assert live.tasks["by_night"]["render"] == "success"
    assert live.delivered("by_night") == []
    ((state, _),) = live.deliveries("by_night")
    assert state == "rendered"
    ((claimed, lease),) = rows(
        live.airflow.database,
        "SELECT claimed_at, lease_until FROM delivery JOIN batch ON no = batch_no WHERE batch.id = 'by_night'",
    )
    assert lease >= next_at(9, live.late_evening, claimed) + timedelta(hours=6)  # the usual lease


@pytest.mark.req("R042", "R049", "R051")
def test_a_run_over_the_rest_api_does_what_its_conf_says_and_is_sent_in_the_evening_all_the_same(live):
    assert live.states["by_night_all_the_same"] == "success"
    assert len(live.delivered("by_night_all_the_same")) == 1


@pytest.mark.req("R049")
def test_a_conf_that_cannot_be_meant_is_refused_before_anything_is_claimed(live):
    assert live.refused in {400, 422}
    assert live.states["bad_conf"] == "failed"
    assert live.tasks["bad_conf"]["extract"] == "failed"
    assert live.deliveries("bad_conf") == []
    assert live.delivered("bad_conf") == []


@pytest.mark.req("R046")
@pytest.mark.parametrize("batch_id", ["at_an_event", "crossing"])
def test_what_a_departure_waits_for_is_there_so_it_goes(live, batch_id):
    assert live.states[batch_id] == "success"
    assert live.tasks[batch_id]["wait"] == "success"
    assert len(live.delivered(batch_id)) == 1


@pytest.mark.req("R046")
def test_what_does_not_come_in_time_fails_the_run_as_not_ready_and_nothing_is_sent(live):
    assert live.states["file_missing"] == "failed"
    assert live.tasks["file_missing"]["extract"] == "upstream_failed"
    ((state, reason),) = live.deliveries("file_missing")
    assert state == "skipped"
    assert reason.startswith("not ready: waited in vain for the file ")
    assert len(waiting(live.airflow.database, "file_missing")) == 5
    assert live.delivered("file_missing") == []


@pytest.mark.req("R046")
def test_an_update_that_a_departure_without_leads_saw_does_not_count_for_the_next(live):
    assert live.tasks["nothing_waits"]["wait"] == "success"
    assert live.tasks["nothing_waits"]["extract"] == "skipped"
    assert live.later["again"]["wait"] == "failed"
    assert sorted(reason for _, reason in live.deliveries("nothing_waits")) == [
        "no lead waits that may go",
        "no lead waits that may go",  # of the first run when it was cleared
        "not ready: waited in vain for an update of the asset prices_loaded",
    ]


@pytest.mark.req("R046")
def test_a_run_that_is_cleared_still_sees_its_own_update(live):
    assert live.later["live"]["wait"] == "success"
    assert live.later["live"]["extract"] == "skipped"


@pytest.mark.req("R046")
def test_a_batch_that_waits_for_nothing_has_no_such_task(live):
    assert "wait" not in live.tasks["by_night"]


@pytest.mark.req("R048")
def test_an_update_of_an_asset_starts_one_run(live):
    assert live.states["at_an_event"] == "success"
    assert live.runs["at_an_event"] == 1
    assert len(live.delivered("at_an_event")) == 1
    assert scalars(
        live.airflow.database,
        "SELECT actor FROM audit WHERE action = 'delivery.trigger' AND object = 'batch at_an_event'",
    ) == ["event"]


@pytest.mark.req("R047")
def test_crossing_the_threshold_causes_one_delivery(live):
    assert live.states["crossing"] == "success"
    assert live.runs["crossing"] == 1
    assert len(live.delivered("crossing")) == 1
    asked = "SELECT reason FROM early_departure JOIN batch ON no = batch_no WHERE batch.id = 'crossing'"
    assert scalars(live.airflow.database, asked) == ["5 leads wait"]


@pytest.mark.req("R059")
def test_a_delivery_that_failed_for_good_waits_for_its_second_chance(live):
    assert live.states["second_chance"] == "running"
    ((destination, number, ordered, later),) = rows(
        live.airflow.database, "SELECT destination, number, ordered_at, until FROM later_try"
    )
    assert (destination, number) == ("drop", 1)
    assert later == next_at(14, live.late_evening, ordered)


# --- every condition: one that departs, one that does not, and why ---------------------------------------------------

ROWS = {
    "minimum": ("R045",),
    "longest wait": ("R045",),
    "maximum": ("R045",),
    "only if": (),
    "a query": ("R046",),
    "a file": ("R046",),
    "an asset": ("R046",),
    "business hours": ("R042", "V66"),
    "a blackout": ("R060",),
    "the window": ("R052",),
    "ahead of time": ("R044",),
    "quiet hours": ("R042",),
    "a hold": ("F36",),
    "a hold on a destination": ("F36",),
    "leads at all": (),
    "another try": ("R059",),
    "leads for an early departure": ("R047",),
    "age for an early departure": ("R047",),
    "an event": ("R048",),
}


def conditions(names: Collection[str]) -> list:
    """One parameter for each condition, marked with the rows that it shows."""
    return [
        pytest.param(one, marks=[pytest.mark.req(*ROWS[one])] if ROWS[one] else [], id=one) for one in names
    ]


@pytest.mark.parametrize("condition", conditions([*PAIRS, *NEVER_ASKED]))
def test_a_batch_that_meets_the_condition_departs_and_shows_no_reason(live, condition):
    batch_id = PAIRS[condition].goes if condition in PAIRS else NEVER_ASKED[condition][0]

    assert live.states[batch_id] == "success"
    assert len(live.delivered(batch_id)) == 1
    assert waiting(live.airflow.database, batch_id) == []
    assert [(row["state"], row["reason"]) for row in live.listed[batch_id]] == [("delivered", None)]
    assert live.reasons[batch_id] == {}


@pytest.mark.parametrize("condition", conditions(PAIRS))
def test_a_batch_that_does_not_meet_it_sends_nothing_and_airflow_shows_why(live, condition):
    pair = PAIRS[condition]

    assert live.tasks[pair.stays][pair.task] == pair.state
    assert re.search(pair.reason, live.reasons[pair.stays][pair.task])
    assert live.delivered(pair.stays) == []


@pytest.mark.parametrize("condition", conditions(PAIRS))
def test_the_deliveries_on_a_terminal_tell_why_as_well_and_no_lead_is_lost(live, condition):
    stays = PAIRS[condition].stays
    (row,) = live.listed[stays]

    assert row["state"] == ("rendered" if stays in HELD else "skipped")
    assert re.search(PAIRS[condition].reason, row["reason"])
    leads = 0 if stays == "no_leads" else 5
    assert row["included"] == (leads if stays in HELD else 0)
    assert live.stand[stays]["pending"] == leads - row["included"]


@pytest.mark.parametrize("condition", conditions(NEVER_ASKED))
def test_where_nothing_asks_for_a_run_there_is_none_and_the_status_shows_what_waits(live, condition):
    stays = NEVER_ASKED[condition][1]

    assert live.runs[stays] == 0
    assert stays not in live.listed
    assert live.stand[stays]["last_departure"] is None
    assert live.stand[stays]["state"] == "enabled"


def left_out(live, batch_id):
    """When the departures of a batch were that a person wanted left out, and their reason."""
    listed = (
        "SELECT departs_at, delivery.reason FROM delivery JOIN batch ON no = batch_no WHERE batch.id = :batch"
    )
    found = rows(live.airflow.database, f"{listed} AND state = 'skipped'", batch=batch_id)
    return [(at, reason) for at, reason in found if reason.startswith("left out on request")]


@pytest.mark.req("R050")
@pytest.mark.parametrize("batch_id", sorted(LEFT_OUT))
def test_the_departure_that_was_named_is_left_out_and_airflow_and_the_list_tell_by_whom_and_why(
    live, batch_id
):
    ((departs_at, reason),) = left_out(live, batch_id)

    named = f"{departs_at:%a %Y-%m-%d %H:%M UTC}"
    assert live.told[batch_id] == f"{batch_id}: leaves out its departure of {named}; its leads wait\n"
    when = re.escape(f"(the departure of {departs_at:%a %Y-%m-%d %H:%M} UTC)")
    assert re.fullmatch(f"left out on request of .+: importer is down {when}", reason)
    assert reason in [row["reason"] for row in live.listed[batch_id]]
    assert reason in live.reasons[batch_id].values()
    assert live.states[batch_id] == "success"


@pytest.mark.req("R050")
def test_a_later_departure_takes_the_leads(live):
    delivered = [row for row in live.listed["left_out"] if row["included"]]
    assert [(row["state"], row["included"]) for row in delivered] == [("delivered", 5)]


@pytest.mark.req("R050", "R046")
def test_a_departure_that_is_to_be_left_out_waits_for_nothing(live):
    assert {live.tasks["left_out_unready"][one] for one in ("wait", "extract")} == {"skipped"}
    assert set(live.reasons["left_out_unready"]) == {"wait"}


@pytest.mark.req("F44")
def test_a_delivery_that_is_not_out_by_its_deadline_is_told_and_one_that_is_is_not(live):
    assert live.stand["by_night"]["incidents"] == ["late"]
    assert live.stand["meets_them_all"]["incidents"] == []
