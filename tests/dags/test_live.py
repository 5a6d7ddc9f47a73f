"""Batches through a real Airflow (scheduler, dag-processor, api-server, LocalExecutor): what must go well, what must
fail in the right way, and that no lead's data is left behind in Airflow (I7).

All runs happen once, side by side; the tests look at what they left.
"""

import csv
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from batches import add_leads, execute, rows, scalars, waiting
from leadferry.local.airflow import ENDED, AirflowApi
from leadferry.local.processes import Processes
from leadferry.store.suspensions import hold
from servers.sftp import receiver

from .airflow_home import COMPONENTS, AirflowHome
from .patience import PATIENCE, get, until

pytestmark = pytest.mark.timeout(PATIENCE)

CANARY = f"canary{secrets.token_hex(6)}"
"""Stands in every value of every lead."""

PASSWORD, WRONG_PASSWORD = f"pw-{secrets.token_hex(8)}", f"wrong-{secrets.token_hex(8)}"

COLUMNS = ("email", "name", "amount", "note")

NARROW = "leadferry_sftp_narrow"
"""The pool of a host that takes one session at once; it has no slot before both its batches wait for it."""

CUTS = 2
"""How often the connection to `sftp_cut` breaks before it holds."""

SABOTAGE = """
CREATE SEQUENCE cuts;
CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE batch_id text;
BEGIN
    SELECT batch.id INTO batch_id FROM delivery JOIN batch ON batch.no = delivery.batch_no
    WHERE delivery.id = NEW.delivery_id;
    IF batch_id = 'database_quotes' THEN
        PERFORM (fields ->> 'email')::integer FROM lead WHERE flow = 'database_quotes';
    ELSIF batch_id = 'database_cut' AND nextval('cuts') = 1 THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER sabotage BEFORE INSERT ON file FOR EACH ROW EXECUTE FUNCTION sabotage();
"""

FUNCTIONS = """
def explode(frame):
    raise ValueError(f"cannot score {frame['value'].iloc[0]}")
"""


OWN_DAG = """
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

with DAG("own_dag", schedule=None):
    TriggerDagRunOperator(
        task_id="deliver", trigger_dag_id="batch_by_another_dag", trigger_run_id="live", conf={"limit": 2}
    )
"""
"""A DAG that was there before, in the same folder, and triggers a batch."""


def sftp(connection: str) -> list[dict]:
    return [{"id": "buyer", "type": "sftp", "connection": connection, "directory": "/in"}]


def broken_column(transform) -> list[dict]:
    return [{"to": "Email", "from": "email"}, {"to": "Amount", "from": "amount", "transform": [transform]}]


ALL_COLUMNS = {"fields": [{"to": name, "from": name} for name in COLUMNS]}

BATCHES = {
    "sftp_well": {"destinations": sftp("well"), **ALL_COLUMNS},
    "sftp_cut": {"destinations": sftp("cut"), **ALL_COLUMNS},
    "sftp_full": {"destinations": sftp("full"), **ALL_COLUMNS},
    "sftp_password": {"destinations": sftp("locked"), **ALL_COLUMNS},
    "narrow_low": {"destinations": sftp("narrow"), "priority": 2},
    "narrow_high": {"destinations": sftp("narrow"), "priority": 7},
    "fallback": {
        "destinations": [
            {**sftp("locked")[0], "id": "first"},
            {"id": "second", "type": "folder", "path": "second", "fallback_for": "first"},
        ]
    },
    "no_fallback_needed": {
        "destinations": [
            {"id": "first", "type": "folder", "path": "first"},
            {"id": "second", "type": "folder", "path": "second", "fallback_for": "first"},
        ]
    },
    "on_hold": {},
    "bad_value": {"fields": broken_column({"number": {"decimals": 2}})},
    "bad_function": {"fields": broken_column({"python": "canary_functions.explode"})},
    "database_quotes": {},
    "database_cut": {},
    "by_another_dag": {},
}
"""Each delivers the leads of a flow with its own name."""

CONF = {"sftp_well": {"limit": 3}}


@dataclass
class Live:
    """What the runs left behind; everything is stopped by now, but the databases."""

    airflow: AirflowHome
    roots: dict[str, Path]
    """What the SFTP servers hold."""
    states: dict[str, str] = field(default_factory=dict)
    """How each batch's run ended."""
    tries: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each batch the tries of each task that ran."""
    dag_ids: set[str] = field(default_factory=set)
    import_errors: list[dict] = field(default_factory=list)
    plugin_errors: list[dict] = field(default_factory=list)

    def attempts(self, batch_id: str) -> list[tuple]:
        """The ledger's attempts to send, the oldest first: outcome and error."""
        return rows(
            self.airflow.database,
            "SELECT attempt.outcome, attempt.error_code FROM attempt JOIN dispatch ON dispatch.id = dispatch_id"
            " JOIN delivery ON delivery.id = dispatch.delivery_id JOIN batch ON batch.no = delivery.batch_no"
            " WHERE batch.id = :batch ORDER BY attempt.number",
            batch=batch_id,
        )

    def delivered(self, batch_id: str) -> list[dict]:
        """The lines of the only file that arrived."""
        (file,) = (self.roots[batch_id] / "in").iterdir()
        return list(csv.DictReader(file.read_text().splitlines()))

    def log(self, batch_id: str) -> str:
        """All that the tasks of a batch logged."""
        folder = self.airflow.workspace.logs / "airflow" / f"dag_id=batch_{batch_id}"
        return "".join(file.read_text() for file in sorted(folder.rglob("*.log")))


@pytest.fixture(scope="module")
def live(make_airflow, tmp_path_factory) -> Iterator[Live]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("well", "cut", "full", "locked", "narrow")}
    options = {"passwords": {"ferry": PASSWORD}}
    with (
        receiver(folders["well"], **options) as well,
        receiver(folders["cut"], **options) as cut,
        receiver(folders["full"], **options) as full,
        receiver(folders["locked"], **options) as locked,
        receiver(folders["narrow"], **options) as narrow,
    ):
        servers = {"well": well, "cut": cut, "full": full, "locked": locked, "narrow": narrow}
        for server in servers.values():
            (server.root / "in").mkdir()
        full.faults.room = 10
        cut.faults.on_write = breaks(cut)
        narrow.faults.on_write = lambda: time.sleep(1)  # so long that two at once would be seen
        connections = {name: server.announcement()["connection"] for name, server in servers.items()}
        connections["locked"]["password"] = WRONG_PASSWORD
        found = Live(make_airflow(connections), {f"sftp_{name}": one.root for name, one in servers.items()})
        prepare(found.airflow)
        run_all(found)
        yield found


def breaks(server):
    """Hang up on every client in the middle of its first writes, as often as `CUTS` says."""
    left = CUTS

    def hang_up():
        nonlocal left
        if left:
            left -= 1
            for connection in list(server.connections):
                connection.abort()

    return hang_up


def prepare(airflow: AirflowHome) -> None:
    """Batch files, one of them broken; five leads for each; a database that fails when told."""
    for batch_id, keys in BATCHES.items():
        retry = {"attempts": 4, "first_delay": "1s", "factor": 2, "max_delay": "3s"}
        chosen = placed(airflow, batch_id, keys.get("destinations", []))
        folder = [{"id": "drop", "type": "folder", "path": str(airflow.inbox / batch_id)}]
        airflow.batch(
            batch_id,
            **{"flows": [batch_id], "retry": retry, **keys, "destinations": chosen or folder},
        )
        fields = {name: f"{CANARY} {name}" for name in COLUMNS}
        add_leads(airflow.database, 5, flow=batch_id, fields=fields)
    hold(airflow.database, scope="batch", name="on_hold", reason="contract under review", actor="kim")
    broken = airflow.batch("broken")
    broken.write_text(broken.read_text().replace("schedule: manual", "schedul: manual"))
    execute(airflow.database, SABOTAGE)
    (airflow.folder / "dags" / "own_dag.py").write_text(OWN_DAG)
    (airflow.folder / "python").mkdir()
    (airflow.folder / "python" / "canary_functions.py").write_text(FUNCTIONS)


def placed(airflow: AirflowHome, batch_id: str, destinations: list[dict]) -> list[dict]:
    """Put the folders of a batch into the inbox."""
    return [
        {**one, "path": str(airflow.inbox / batch_id / one["path"])} if "path" in one else one
        for one in destinations
    ]


def run_all(live: Live) -> None:
    pools = json.loads(live.airflow.leadferry("pools"))
    processes = Processes(live.airflow.workspace.records, logs=live.airflow.workspace.logs)
    api = live.airflow.start(processes, "api-server", "scheduler", "dag-processor")
    try:
        until(lambda: not api.unhealthy(COMPONENTS), processes, api, what="Airflow is healthy")
        for pool in pools:
            slots = 0 if pool == NARROW else 4
            until(
                lambda name=pool, slots=slots: api.ensure_pool(name, slots=slots),
                processes,
                api,
                what=f"{pool} is made",
            )
        until(lambda: api.has_dag("own_dag"), processes, api, what="own_dag is read")
        for batch_id in BATCHES:
            until(
                lambda dag=f"batch_{batch_id}": api.has_dag(dag), processes, api, what=f"{batch_id} is read"
            )
            trigger(api, batch_id)
        for batch_id in ("narrow_low", "narrow_high"):
            until(
                lambda one=batch_id: waits_for_slot(api, one),
                processes,
                api,
                what=f"{batch_id} waits for a slot",
            )
        one = {"pool": NARROW, "slots": 1, "description": None, "include_deferred": False}
        assert api._ask("PATCH", f"/api/v2/pools/{NARROW}", json=one)
        for batch_id in BATCHES:
            until(lambda one=f"batch_{batch_id}": ended(api, one), processes, api, what=f"{batch_id} ends")
            look(live, api, batch_id)
        looked = "SELECT batch FROM incident WHERE told_at IS NOT NULL"
        until(
            lambda: scalars(live.airflow.database, looked),
            processes,
            api,
            what="the watchdog looks by itself",
        )
        live.dag_ids = {dag["dag_id"] for dag in get(api, "dags?limit=100")["dags"]}
        until(
            lambda: get(api, "importErrors")["import_errors"], processes, api, what="the broken file is told"
        )
        live.import_errors = get(api, "importErrors")["import_errors"]
        live.plugin_errors = get(api, "plugins/importErrors")["import_errors"]
    finally:
        api.close()
        processes.stop(grace=5)


def trigger(api: AirflowApi, batch_id: str) -> None:
    """As a person or another system does, over the REST API; one batch by a DAG of the test's own."""
    dag_id = "own_dag" if batch_id == "by_another_dag" else f"batch_{batch_id}"
    body = {"dag_run_id": "live", "logical_date": None, "conf": CONF.get(batch_id, {})}
    assert api._ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)


def ended(api: AirflowApi, dag_id: str) -> bool:
    return api.run_state(dag_id, run_id="live") in ENDED


def waits_for_slot(api: AirflowApi, batch_id: str) -> bool:
    instances = get(api, f"dags/batch_{batch_id}/dagRuns/live/taskInstances")["task_instances"]
    return any(one["task_id"] == "deliver.buyer" and one["state"] == "scheduled" for one in instances)


def look(live: Live, api: AirflowApi, batch_id: str) -> None:
    live.states[batch_id] = str(api.run_state(f"batch_{batch_id}", run_id="live"))
    instances = get(api, f"dags/batch_{batch_id}/dagRuns/live/taskInstances")["task_instances"]
    live.tries[batch_id] = {one["task_id"]: one["try_number"] for one in instances if one["try_number"]}


@pytest.mark.req("F44")
def test_the_watchdog_runs_by_itself_and_knows_of_the_file_that_cannot_be_loaded(live):
    found = rows(live.airflow.database, "SELECT batch, kind FROM incident")

    assert ("broken", "broken") in found
    assert set(scalars(live.airflow.database, "SELECT batch FROM watched")) == set(BATCHES)


# --- what must go well -------------------------------------------------------------------------------------------


@pytest.mark.req("R001", "F09", "C25")
def test_every_good_batch_file_is_a_dag_and_the_broken_one_is_told_with_file_and_line(live):
    assert live.dag_ids == {
        "import_leads",
        "leadferry_maintenance",
        "own_dag",
        "redeliver_leads",
        *(f"batch_{batch_id}" for batch_id in BATCHES),
    }
    (error,) = live.import_errors
    assert error["filename"] == "zz_config_errors.py"
    lines = (live.airflow.config / "batches" / "broken.yaml").read_text().splitlines()
    assert f"config/batches/broken.yaml:{lines.index('schedul: manual') + 1}:" in error["stack_trace"]
    assert "did you mean 'schedule'" in error["stack_trace"]


def test_the_plugin_is_loaded_without_errors(live):
    assert live.plugin_errors == []


def test_a_run_triggered_over_the_api_delivers_what_its_conf_asks_for(live):
    assert live.states["sftp_well"] == "success"
    assert live.tries["sftp_well"] == {"extract": 1, "render": 1, "deliver.buyer": 1, "mark_delivered": 1}
    assert [line["email"] for line in live.delivered("sftp_well")] == [f"{CANARY} email"] * 3
    assert len(waiting(live.airflow.database, "sftp_well")) == 2


@pytest.mark.req("R057", "R058")
def test_two_batches_to_a_host_with_one_slot_never_overlap_and_the_more_important_one_goes_first(live):
    assert (live.states["narrow_low"], live.states["narrow_high"]) == ("success", "success")
    sent = rows(
        live.airflow.database,
        "SELECT batch.id, attempt.started_at, attempt.ended_at FROM attempt JOIN dispatch ON dispatch.id = dispatch_id"
        " JOIN delivery ON delivery.id = dispatch.delivery_id JOIN batch ON batch.no = delivery.batch_no"
        " WHERE batch.id LIKE 'narrow%' ORDER BY attempt.started_at",
    )
    (first, _, first_ended), (second, second_began, _) = sent
    assert (first, second) == ("narrow_high", "narrow_low")
    assert first_ended <= second_began


def test_another_dag_may_trigger_a_batch_with_the_same_parameters(live):
    assert live.states["by_another_dag"] == "success"
    assert len(waiting(live.airflow.database, "by_another_dag")) == 5 - 2


@pytest.mark.req("R196", "R197")
def test_a_delivery_that_breaks_off_is_tried_again_until_it_arrives(live):
    broken = [("failed", "interrupted")] * CUTS

    assert live.states["sftp_cut"] == "success"
    assert live.tries["sftp_cut"]["deliver.buyer"] == CUTS + 1
    assert live.attempts("sftp_cut") == [*broken, ("confirmed", None)]
    assert len(live.delivered("sftp_cut")) == 5
    first, second, third = scalars(
        live.airflow.database,
        "SELECT attempt.started_at FROM attempt JOIN dispatch ON dispatch.id = dispatch_id"
        " WHERE dispatch.parcel_key LIKE 'sftp_cut.%' ORDER BY attempt.number",
    )
    assert second - first >= timedelta(seconds=1)
    assert third - second >= timedelta(seconds=2), "the delay did not grow"


def test_a_run_whose_database_connection_is_cut_goes_on_by_itself(live):
    assert live.states["database_cut"] == "success"
    assert live.tries["database_cut"]["render"] == 2
    (file,) = (live.airflow.inbox / "database_cut").iterdir()
    assert len(file.read_text().splitlines()) == 5 + 1


# --- what must fail in the right way -----------------------------------------------------------------------------


@pytest.mark.req("R196", "R200")
@pytest.mark.parametrize(("batch_id", "code"), [("sftp_password", "auth"), ("sftp_full", "quota")])
def test_what_a_person_must_mend_is_tried_once_and_the_leads_are_back_in_the_queue(live, batch_id, code):
    assert live.states[batch_id] == "failed"
    assert live.tries[batch_id]["deliver.buyer"] == 1
    assert live.attempts(batch_id) == [("failed", code)]
    assert len(waiting(live.airflow.database, batch_id)) == 5
    assert f"{code}: " in live.log(batch_id)


@pytest.mark.parametrize("batch_id", ["bad_value", "bad_function"])
def test_a_value_that_cannot_be_mapped_fails_the_run_at_once_and_the_leads_are_back_in_the_queue(
    live, batch_id
):
    assert live.states[batch_id] == "failed"
    assert live.tries[batch_id] == {"extract": 1, "render": 1, "mark_delivered": 1}
    assert "render: " in live.log(batch_id)
    assert "Amount" in live.log(batch_id)
    assert len(waiting(live.airflow.database, batch_id)) == 5


def test_a_database_error_fails_the_run_and_the_leads_are_back_in_the_queue(live):
    assert live.states["database_quotes"] == "failed"
    assert len(waiting(live.airflow.database, "database_quotes")) == 5


@pytest.mark.req("R198")
def test_a_fallback_delivers_once_when_the_last_try_failed_and_the_run_is_well(live):
    assert live.states["fallback"] == "success"
    tries = {"extract": 1, "render": 1, "deliver.first": 1, "deliver.second": 1, "mark_delivered": 1}
    assert live.tries["fallback"] == tries
    assert sorted(live.attempts("fallback")) == [("confirmed", None), ("failed", "auth")]
    (file,) = (live.airflow.inbox / "fallback" / "second").iterdir()
    assert len(file.read_text().splitlines()) == 5 + 1
    assert waiting(live.airflow.database, "fallback") == []


@pytest.mark.req("R198")
def test_a_fallback_that_is_not_needed_is_skipped(live):
    assert live.states["no_fallback_needed"] == "success"
    assert "deliver.second" not in live.tries["no_fallback_needed"]
    assert not (live.airflow.inbox / "no_fallback_needed" / "second").exists()
    assert live.attempts("no_fallback_needed") == [("confirmed", None)]


@pytest.mark.req("F36")
def test_a_batch_on_hold_is_skipped_its_leads_wait_and_the_log_says_why(live):
    assert live.states["on_hold"] == "success"
    assert len(waiting(live.airflow.database, "on_hold")) == 5
    assert "on hold by kim" in live.log("on_hold")
    assert "contract under review" in live.log("on_hold")


# --- nothing is left behind --------------------------------------------------------------------------------------


def tables(live: Live, database: str) -> str:
    """Every value of every table, also those in binary columns, as text."""
    with psycopg.connect(live.airflow.postgres.url(database, driver="postgresql")) as connection:
        connection.execute("SET bytea_output = 'escape'")
        names = connection.execute(
            "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        return "\n".join(_copied(connection, name) for (name,) in names)


def _copied(connection: psycopg.Connection, table: str) -> str:
    with connection.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as rows_of_table:
        return b"".join(bytes(block) for block in rows_of_table).decode()


def files(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.relative_to(folder).parts[0] not in but
    }


def holding(found: dict[str, bytes], needle: str) -> list[str]:
    return [name for name, content in found.items() if needle.lower().encode() in content.lower()]


def test_the_search_finds_the_leads_where_they_belong(live):
    archive = files(live.airflow.workspace.archive)

    assert holding(files(live.roots["sftp_well"]), CANARY)
    assert len(holding(archive, CANARY)) == len(archive) > 0
    assert CANARY in tables(live, live.airflow.store)


@pytest.mark.req("F11", "R228", "C26")
def test_no_lead_is_in_airflows_database(live):
    kept = tables(live, live.airflow.metadata)

    assert '{"limit": 3}' in kept, "the search does not see the runs' conf"
    assert "sftp_cut_1.csv" in kept, "the search does not see XCom"
    assert CANARY not in kept


@pytest.mark.req("F11", "R228", "C26")
def test_no_lead_is_in_a_log_or_in_anything_else_on_disk(live):
    left = files(live.airflow.folder, but=("archive", "inbox"))

    assert holding(left, "Its text is not shown") or holding(left, "cannot be"), (
        "the search sees no failed task"
    )
    assert [name for name in left if name.endswith("attempt=3.log")], "the search sees no retry"
    assert holding(left, CANARY) == []


@pytest.mark.req("R219", "C26")
@pytest.mark.parametrize("password", [PASSWORD, WRONG_PASSWORD], ids=["right", "wrong"])
def test_no_password_is_in_airflows_database_in_a_log_in_the_store_or_in_an_archived_file(live, password):
    assert holding(files(live.airflow.folder), password) == []
    assert password not in tables(live, live.airflow.metadata)
    assert password not in tables(live, live.airflow.store)


@pytest.mark.req("F11", "R228")
def test_the_ledger_tells_of_errors_without_a_lead(live):
    told = scalars(live.airflow.database, "SELECT error FROM attempt WHERE error IS NOT NULL")
    told += scalars(live.airflow.database, "SELECT reason FROM delivery WHERE reason IS NOT NULL")

    assert len(told) >= CUTS + len({"sftp_full", "sftp_password"})
    assert CANARY not in "".join(told)
