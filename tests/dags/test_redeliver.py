"""The classic story over Airflow's REST API: a rejected lead is corrected and delivered again, to one destination."""

import csv
import json
from dataclasses import dataclass, field

import pytest

from batches import add_leads, rows, scalars
from leadferry.local.airflow import ENDED
from leadferry.local.http import as_json
from leadferry.local.processes import Processes
from leadferry.store.standing import story_of
from servers.http_buyer import Buyer

from .airflow_home import COMPONENTS
from .patience import PATIENCE, get, until

pytestmark = pytest.mark.timeout(PATIENCE)

API = {
    "id": "api",
    "type": "http",
    "connection": "buyer_api",
    "answers": [
        {"when": {"json": "$.result", "equals": "accepted"}, "then": "accepted"},
        {"when": {"json": "$.result", "equals": "rejected"}, "then": "rejected"},
    ],
    "capture": {"message": {"json": "$.why"}},
}


@dataclass
class Story:
    """What the runs left behind."""

    airflow: object
    buyer: Buyer
    leads: list[int]
    states: dict = field(default_factory=dict)
    refused: dict = field(default_factory=dict)
    returned: dict = field(default_factory=dict)


def wants_old_cars(buyer):
    """Answer as a buyer does who takes no cars of this year."""

    def answer(request):
        if json.loads(request.body)["Year"] == "2025":
            return as_json({"result": "rejected", "why": "car too new"}, status=422)
        return buyer.accept(request)

    return answer


@pytest.fixture(scope="module")
def story(make_airflow, tmp_path_factory):
    with Buyer(root=tmp_path_factory.mktemp("inbox"), state=tmp_path_factory.mktemp("state")) as buyer:
        buyer.usual = wants_old_cars(buyer)
        airflow = make_airflow({"buyer_api": buyer.announcement()["connection"]})
        airflow.batch(
            "cars",
            fields=[{"to": "Lead", "from": "id"}, {"to": "Year", "from": "vehicle_year"}],
            destinations=[API, {"id": "drop", "type": "folder", "path": str(airflow.inbox / "cars")}],
        )
        leads = add_leads(airflow.database, 1, fields={"vehicle_year": "2025"})
        leads += add_leads(airflow.database, 1, fields={"vehicle_year": "2014"})
        told = Story(airflow, buyer, leads)
        play(told)
        yield told


def play(story):
    airflow = story.airflow
    processes = Processes(airflow.workspace.records, logs=airflow.workspace.logs)
    api = airflow.start(processes, "api-server", "scheduler", "dag-processor")
    asked = {"batch": "cars", "destination": "api", "lead_ids": [story.leads[0]]}
    edits = {"edits": {"vehicle_year": "2015"}, "reason": "the form misread the year"}

    def run(dag_id, run_id, conf):
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        assert api._ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)
        until(lambda: api.run_state(dag_id, run_id=run_id) in ENDED, processes, api, what=f"{run_id} ends")
        story.states[dag_id, run_id] = str(api.run_state(dag_id, run_id=run_id))

    try:
        until(lambda: not api.unhealthy(COMPONENTS), processes, api, what="Airflow is healthy")
        for pool in airflow_pools(airflow):
            until(lambda name=pool: api.ensure_pool(name, slots=4), processes, api, what=f"{pool} is made")
        for dag_id in ("batch_cars", "redeliver_leads"):
            until(lambda one=dag_id: api.has_dag(one), processes, api, what=f"{dag_id} is read")
        run("batch_cars", "live", {})
        for name, conf in {
            "no batch": {"destination": "api", "lead_ids": [1]},
            "unknown batch": {**asked, "batch": "boats"},
            "no destination": {"batch": "cars", "lead_ids": [1]},
        }.items():
            body = {"logical_date": None, "conf": conf}
            story.refused[name] = api._http.post(
                "/api/v2/dags/redeliver_leads/dagRuns", json=body
            ).status_code
        run("redeliver_leads", "unknown-destination", {**asked, "destination": "sftp"})
        run("redeliver_leads", "dry", {**asked, **edits, "dry_run": True})
        run("redeliver_leads", "live", {**asked, **edits})  # run ids are unique only within a DAG
        path = "dags/redeliver_leads/dagRuns/live/taskInstances/mark_delivered/xcomEntries/return_value"
        story.returned = get(api, path)["value"]
    finally:
        api.close()
        processes.stop(grace=5)


def airflow_pools(airflow):
    return json.loads(airflow.leadferry("pools"))


@pytest.mark.req("R181", "R182", "R194")
def test_the_corrected_lead_is_delivered_and_its_history_shows_both(story):
    rejected, other = story.leads
    assert {story.states[dag, "live"] for dag in ("batch_cars", "redeliver_leads")} == {"success"}
    history = [
        (one["outcome"], one["reason"]) for one in story_of(story.airflow.database, rejected)["history"]
    ]
    assert history == [("rejected", "car too new"), ("delivered", None)]
    assert story.buyer.accepted == [other, rejected]
    assert story.buyer.documents[-1] == {"Lead": str(rejected), "Year": "2015"}
    assert scalars(story.airflow.database, "SELECT fields ->> 'vehicle_year' FROM lead ORDER BY id") == [
        "2025",
        "2014",
    ]
    assert isinstance(story.returned, str | dict)
    assert "delivered" in str(story.returned)


@pytest.mark.req("R178")
def test_the_other_destination_got_nothing_more(story):
    (file,) = (story.airflow.inbox / "cars").iterdir()
    assert len(list(csv.DictReader(file.read_text().splitlines()))) == 2
    found = rows(
        story.airflow.database,
        "SELECT run_id, destination FROM dispatch JOIN delivery ON delivery.id = delivery_id ORDER BY 1, 2",
    )
    assert found == [("live", "api"), ("live", "drop"), ("redeliver_leads:live", "api")]


@pytest.mark.req("R182")
def test_who_did_it_and_why_is_on_record(story):
    told = rows(story.airflow.database, "SELECT before, changes, reason, actor FROM lead_edit")
    assert told == [
        ({"vehicle_year": "2025"}, {"vehicle_year": "2015"}, "the form misread the year", "admin")
    ]
    audit = "SELECT actor, object FROM audit WHERE action = 'delivery.redeliver'"
    assert rows(story.airflow.database, audit) == [("admin", "batch cars")]


@pytest.mark.req("R178")
def test_what_is_missing_or_unknown_is_refused_before_anything_is_claimed(story):
    assert set(story.refused) == {"no batch", "unknown batch", "no destination"}
    assert all(400 <= code < 500 for code in story.refused.values()), story.refused
    assert story.states["redeliver_leads", "unknown-destination"] == "failed"
    logs = story.airflow.workspace.logs / "airflow" / "dag_id=redeliver_leads"
    told = "".join(one.read_text() for one in logs.rglob("*.log"))
    assert "destination: batch 'cars' has no destination 'sftp'; it has api, drop" in told


@pytest.mark.req("R187")
def test_the_dry_run_told_what_would_go_and_sent_nothing(story):
    assert story.states["redeliver_leads", "dry"] == "success"
    (log,) = (
        story.airflow.workspace.logs / "airflow" / "dag_id=redeliver_leads" / "run_id=dry" / "task_id=claim"
    ).glob("*.log")
    assert f"Lead {story.leads[0]} (rejected, edited): goes" in log.read_text()
    assert len(story.buyer.requests) == 3
