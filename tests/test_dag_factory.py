"""A batch file as a DAG: what an operator sees, what Airflow is told, what one broken file does to the others."""

import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.encoders import ensure_serialized_asset
from airflow.serialization.serialized_objects import DagSerialization

from leadferry import dag_factory
from leadferry.errors import BatchConfigError

PROJECT = Path(__file__).parents[1]

HEAVY = (
    "asyncssh", "boto3", "botocore", "lxml", "openpyxl", "pandas", "paramiko", "phonenumbers", "polars",
    "psycopg", "rustpy_xlsxwriter",
)  # fmt: skip

BATCH = {
    "name": "Acme Auto, business daily",
    "description": "Auto leads for Acme, every business morning",
    "notes": "The buyer pays per lead.",
    "recipient": "acme",
    "flows": ["auto"],
    "tags": ["auto"],
    "schedule": {"at": ["09:00"], "on": "weekdays"},
    "fields": [{"to": "Email", "from": "email"}],
    "files": [{"name": "{{ batch.id }}_{{ delivery.number }}.csv", "format": {"type": "csv"}}],
    "destinations": [
        {"id": "sftp_one", "type": "sftp", "connection": "one", "directory": "/in"},
        {"id": "share", "type": "folder", "path": "out"},
        {"id": "bucket", "type": "s3", "connection": "cloud", "bucket": "leads"},
    ],
    "priority": 7,
    "retry": {"attempts": 3, "first_delay": "90s", "factor": 3, "max_delay": "20m"},
}

LONG_RULE = "FREQ=YEARLY;BYYEARDAY=" + ",".join(map(str, range(1, 366)))

LAST_YEAR = (datetime.now(tz=UTC) - timedelta(days=365)).date().isoformat()

RECIPIENT = """\
name: Acme Insurance
timezone: America/Chicago
contacts: [{name: Robin Vale, role: ops, email: robin@acme.example}]
notes: Never on a bank holiday.
"""


class Config:
    """A config folder, set as the one that counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "recipients").mkdir(parents=True)
        (path / "recipients" / "acme.yaml").write_text(RECIPIENT)
        (path / "batches").mkdir()

    def add(self, batch_id="acme_auto", **keys) -> None:
        self.write(batch_id, yaml.safe_dump({**BATCH, **keys}, sort_keys=False))

    def write(self, batch_id: str, text: str) -> None:
        (self.path / "batches" / f"{batch_id}.yaml").write_text(text)

    def bag(self) -> DagBag:
        """Read `dags/` as Airflow does."""
        return DagBag(PROJECT / "dags", load_op_links=False)

    def dag(self, **keys):
        """The DAG of one batch."""
        self.add(**keys)
        return self.bag().dags["batch_acme_auto"]


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "config"))
    return Config(tmp_path / "config")


def in_new_process(code: str, *, config: Config, **variables: str) -> str:
    path = os.pathsep.join(str(PROJECT / name) for name in ("dags", "include"))
    variables = {"LEADFERRY_CONFIG": str(config.path), "PYTHONPATH": path, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- what an operator sees ---------------------------------------------------------------------------------------


@pytest.mark.req("R001")
def test_the_shipped_batches_are_one_dag_each_and_nothing_fails_to_import(monkeypatch):
    monkeypatch.setenv("LEADFERRY_CONFIG", str(PROJECT / "config"))
    files = (PROJECT / "config" / "batches").glob("*.yaml")

    bag = DagBag(PROJECT / "dags", load_op_links=False)

    assert bag.import_errors == {}
    assert {one for one in bag.dags if one.startswith("batch_")} == {f"batch_{file.stem}" for file in files}


@pytest.mark.req("R001")
def test_two_batch_files_are_exactly_two_dags_named_after_them(config):
    config.add("one")
    config.add("two")

    bag = config.bag()

    assert bag.import_errors == {}
    assert sorted(one for one in bag.dags if one.startswith("batch_")) == ["batch_one", "batch_two"]


@pytest.mark.parametrize("where", ["_schedule", "_deliver_to", "_params"])
def test_a_bug_in_the_building_of_one_dag_stops_no_other_and_stands_on_its_page(config, monkeypatch, where):
    """Whether before, among or after the tasks."""
    works = getattr(dag_factory, where)
    calls = []

    def breaks_the_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise ZeroDivisionError("robin@acme.example")
        return works(*arguments)

    monkeypatch.setattr(dag_factory, where, breaks_the_first)
    config.add("one")
    config.add("two")

    bag = config.bag()

    assert bag.import_errors == {}
    broken, works = (bag.dags[f"batch_{name}"] for name in ("one", "two"))
    assert (broken.task_ids, broken.timetable.can_be_scheduled, "broken" in broken.tags) == (
        ["not_built"],
        False,
        True,
    )
    assert "cannot be built: a bug in Leadferry (ZeroDivisionError at test_dag_factory.py:" in broken.doc_md
    run = broken.get_task("not_built")
    with pytest.raises(AirflowFailException) as failed:
        run.python_callable(*run.op_args)
    assert str(failed.value) in broken.doc_md
    assert "robin@acme.example" not in broken.doc_md
    assert works.has_task("mark_delivered")


@pytest.mark.req("R002")
def test_the_dag_carries_name_description_owner_and_tags(config):
    dag = config.dag()

    assert dag.dag_display_name == "Acme Auto, business daily"
    assert dag.description == "Auto leads for Acme, every business morning"
    assert dag.owner == "acme"
    assert dag.tags == {"leadferry", "recipient:acme", "auto"}


@pytest.mark.req("R002")
def test_a_batch_without_description_is_described_by_its_name(config):
    assert config.dag(description="").description == "Acme Auto, business daily"


@pytest.mark.req("R017")
@pytest.mark.parametrize(
    "told",
    [
        "Acme Auto, business daily",
        "Acme Insurance",
        "robin@acme.example",
        "Never on a bank holiday.",
        "The buyer pays per lead.",
        "leadferry deliveries acme_auto",
        "deliver.sftp_one",
        "first_delay: 90s",
    ],
)
def test_the_page_of_the_dag_tells(config, told):
    assert told in config.dag().doc_md


def test_the_timetable_is_the_schedule_in_the_recipients_zone(config):
    assert config.dag().timetable.summary == "weekdays at 09:00 (America/Chicago)"


@pytest.mark.req("F41")
@pytest.mark.parametrize(
    ("schedule", "runs"),
    [
        ("manual", 4),
        ({"at": ["09:00"]}, 4),
        ({"at": ["09:00"], "missed": "each"}, 1),
        ({"on_asset": "prices", "missed": "each"}, 1),
    ],
)
def test_only_a_batch_that_makes_up_for_each_departure_has_one_run_at_a_time(config, schedule, runs):
    assert config.dag(schedule=schedule).max_active_runs == runs


def test_a_manual_batch_has_no_timetable(config):
    dag = config.dag(schedule="manual")

    assert dag.schedule is None
    assert not dag.timetable.can_be_scheduled


@pytest.mark.req("R047")
@pytest.mark.parametrize(
    ("schedule", "ready", "seconds", "others_come"),
    [
        ("manual", None, 3600, False),
        ("manual", {"asset": "prices", "timeout": "2h"}, 3 * 3600, False),
        ({"on_asset": "prices"}, None, 3600, False),
        ({"at": ["09:00"], "on": {"dates": [LAST_YEAR]}}, None, 3600, False),
        ({"at": ["09:00"]}, None, 3600, True),
        ({"at": ["09:00"], "on_asset": "prices"}, {"asset": "prices", "timeout": "2h"}, 3 * 3600, True),
    ],
)
def test_the_watch_knows_how_long_to_wait_for_its_departure_and_whether_others_come(
    config, schedule, ready, seconds, others_come
):
    dag = config.dag(schedule=schedule, conditions={"depart_early": {"leads": 5}, "ready": ready})
    stored = ensure_serialized_asset(dag.timetable.asset_condition)
    watchers = [watcher for _, asset in stored.iter_assets() for watcher in asset.watchers]
    (told,) = [one.trigger["kwargs"] for one in watchers]
    assert (told["again_after"], told["others_come"]) == (seconds, others_come)


@pytest.mark.req("R007")
def test_a_batch_that_is_not_enabled_has_no_timetable_and_says_so(config):
    dag = config.dag(enabled=False)
    assert not dag.timetable.can_be_scheduled
    assert "disabled" in dag.tags
    assert config.dag().timetable.can_be_scheduled


def test_no_batch_starts_paused_because_the_file_says_whether_it_departs(config):
    assert [config.dag(enabled=one).is_paused_upon_creation for one in (True, False)] == [False, False]


# --- the trigger form --------------------------------------------------------------------------------------------


@pytest.mark.req("C33")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("limit", ["null", "integer"]),
        ("order", ["null", "string"]),
        ("ignore_minimum", "boolean"),
        ("keep_for_next", "boolean"),
    ],
)
def test_each_field_of_the_form_has_title_description_type_and_a_default_that_is_valid(config, name, kind):
    field = config.dag().params.get_param(name)

    assert field.schema["type"] == kind
    assert field.schema["title"]
    assert field.description
    assert field.resolve() in (None, False)


def test_the_form_has_a_field_for_everything_that_a_person_may_ask_and_no_other(config):
    from leadferry.delivery.params import DeliverNow

    assert set(config.dag().params) == set(DeliverNow.model_fields)


def test_the_form_is_open_at_once_and_says_what_the_choice_of_nothing_means(config):
    params = config.dag().params

    assert "section" not in params.get_param("limit").schema
    assert params.get_param("order").schema["values_display"] == {"null": "as the batch says"}


def test_there_is_nothing_to_backfill(config):
    assert config.dag().allowed_run_types == {"scheduled", "manual", "operator_triggered"}


# --- tasks -------------------------------------------------------------------------------------------------------


@pytest.mark.req("R234", "R235")
def test_three_destinations_are_three_parallel_tasks_after_one_extract_and_one_render(config):
    dag = config.dag()
    delivers = {"deliver.sftp_one", "deliver.share", "deliver.bucket"}

    assert set(dag.task_dict) == {"extract", "render", "mark_delivered"} | delivers
    assert dag.get_task("extract").downstream_task_ids == {"render"}
    assert dag.get_task("render").downstream_task_ids == delivers
    for name in delivers:
        assert dag.get_task(name).upstream_task_ids == {"render"}
        assert dag.get_task(name).downstream_task_ids == {"mark_delivered"}


@pytest.mark.req("R197", "R198")
def test_a_fallback_waits_behind_the_destination_that_it_replaces_and_has_its_own_retries(config):
    share, mirror = (
        {"id": "share", "type": "folder", "path": "/a"},
        {"id": "mirror", "type": "folder", "path": "/b"},
    )
    mirror |= {"fallback_for": "share", "retry": {"attempts": 2, "first_delay": "7s"}}
    dag = config.dag(destinations=[mirror, share], retry={"attempts": 4})
    first, second = dag.get_task("deliver.share"), dag.get_task("deliver.mirror")

    assert dag.get_task("render").downstream_task_ids == {"deliver.share"}
    assert first.downstream_task_ids == {"deliver.mirror"}
    assert (first.trigger_rule, second.trigger_rule) == ("all_success", "all_failed")
    assert dag.get_task("mark_delivered").upstream_task_ids == {"deliver.mirror"}
    assert (first.retries, second.retries) == (3, 1)
    assert second.retry_delay == timedelta(seconds=7)
    assert second.task_display_name == "mirror (only if share fails)"


def test_only_the_last_task_runs_whatever_happened_before(config):
    rules = {task.task_id: task.trigger_rule for task in config.dag().tasks}

    assert rules.pop("mark_delivered") == "all_done"
    assert set(rules.values()) == {"all_success"}


@pytest.mark.req("R197")
@pytest.mark.parametrize("attempts", [1, 3, 50])
def test_attempts_counts_the_first_try_too(config, attempts):
    dag = config.dag(retry={"attempts": attempts})

    assert {task.retries for task in dag.tasks} == {attempts - 1}


@pytest.mark.req("R196", "R197")
def test_the_delays_between_tries_are_those_of_the_file(config):
    for task in config.dag().tasks:
        assert task.retry_delay == timedelta(seconds=90)
        assert task.retry_exponential_backoff == 3
        assert task.max_retry_delay == timedelta(minutes=20)


def test_a_factor_of_one_means_that_delays_do_not_grow(config):
    dag = config.dag(retry={"factor": 1})

    assert {task.retry_exponential_backoff for task in dag.tasks} == {0}


@pytest.mark.req("C34")
def test_each_destination_host_has_its_pool_and_the_other_tasks_use_the_default_one(config):
    pools = {task.task_id: task.pool for task in config.dag().tasks}

    own = {pools.pop(name) for name in ("deliver.sftp_one", "deliver.share", "deliver.bucket")}
    assert len(own) == 3
    assert own == set(dag_factory.pools())
    assert set(pools.values()) == {"default_pool"}


def test_the_priority_of_the_batch_is_the_absolute_priority_of_its_tasks(config):
    for task in config.dag().tasks:
        assert (task.priority_weight, task.weight_rule) == (7, "absolute")


def test_only_ids_are_handed_to_the_tasks(config):
    for task in config.dag().tasks:
        assert set(task.op_args) <= {"acme_auto", "sftp_one", "share", "bucket"}
        assert task.op_kwargs == {}


# --- broken files ------------------------------------------------------------------------------------------------


@pytest.mark.req("F09", "C25")
def test_a_broken_file_among_five_leaves_four_dags_and_one_error_with_file_and_line(config):
    for number in range(4):
        config.add(f"good_{number}")
    config.write("broken", yaml.safe_dump({**BATCH, "schedule": {"at": ["25:00"]}}, sort_keys=False))

    bag = config.bag()

    assert sorted(one for one in bag.dags if one.startswith("batch_")) == [
        f"batch_good_{n}" for n in range(4)
    ]
    ((file, error),) = bag.import_errors.items()
    assert Path(file).name == "zz_config_errors.py"
    line = next(line for line in error.splitlines() if "config/batches/broken.yaml" in line)
    place = next(
        number
        for number, text in enumerate((config.path / "batches" / "broken.yaml").read_text().splitlines(), 1)
        if "25:00" in text
    )
    assert f"broken.yaml:{place}" in line
    assert "schedule.at" in line


@pytest.mark.parametrize("period", [{"month": "31st business day"}, {"dates": ["1999-01-04"]}])
def test_a_schedule_that_never_departs_breaks_its_batch_and_no_other(config, period):
    config.add("acme_auto")
    config.add("acme_never", schedule={"at": ["09:00"], "on": period})

    bag = config.bag()

    assert [one for one in bag.dags if one.startswith("batch_")] == ["batch_acme_auto"]
    ((file, error),) = bag.import_errors.items()
    assert Path(file).name == "zz_config_errors.py"
    assert "config/batches/acme_never.yaml:9: schedule: the schedule never departs" in error


@pytest.mark.req("F09")
@pytest.mark.parametrize(
    "text", ["", "name: [", "just a text", "name: x\n", "\x00", "name: x\nschedule: &a [*a]\n"]
)
def test_whatever_stands_in_a_broken_file_the_others_stay(config, text):
    config.add("good")
    config.write("broken", text)

    bag = config.bag()

    assert "batch_good" in bag.dags
    assert [Path(file).name for file in bag.import_errors] == ["zz_config_errors.py"]
    assert "broken.yaml" in next(iter(bag.import_errors.values()))


@pytest.mark.req("F09")
@pytest.mark.parametrize(
    "keys",
    [
        {"schedule": {"at": ["09:00"], "on": {"year": [*range(1, 200)]}}},
        {
            "schedule": {
                "at": ["09:00"],
                "on": {"year": [f"{n} business days before the end" for n in range(200)]},
            }
        },
        {"schedule": {"at": ["09:00"], "on": {"rrule": LONG_RULE, "starting": date(2026, 1, 1)}}},
        {"schedule": {"cron": f"{'0,' * 600}0 9 * * *"}},
        {"schedule": {"hourly": {"minute": [*range(60)]}}},
        {"schedule": {"on_asset": "x" * 1500}},
        {"conditions": {"ready": {"asset": "x" * 1500}}},
        {"tags": ["x" * 100]},
        {"recipient": "r" * 90},
    ],
    ids=lambda keys: str(keys)[:40],
)
def test_a_long_schedule_or_name_is_no_reason_to_refuse_it(config, keys):
    (config.path / "recipients" / f"{'r' * 90}.yaml").write_text(RECIPIENT)

    config.add(**keys)

    bag = config.bag()

    assert "batch_acme_auto" in bag.dags
    assert bag.import_errors == {}


@pytest.mark.req("F09")
@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"schedule": {"on_asset": "x" * 1501}}, "schedule.on_asset: may have at most 1500 characters"),
        ({"schedule": {"on_asset": " "}}, "schedule.on_asset: must be a name that Airflow allows"),
        (
            {"schedule": {"at": ["09:00"], "on_asset": "self"}},
            "schedule.on_asset: must be a name that Airflow",
        ),
        (
            {"conditions": {"ready": {"asset": "context"}}},
            "conditions.ready.asset: must be a name that Airflow",
        ),
        ({"tags": ["x" * 101]}, "tags[0]: may have at most 100 characters"),
        ({"recipient": "r" * 91}, "may have at most 90 characters"),
    ],
    ids=lambda told: str(told)[:40],
)
def test_what_airflow_refuses_is_refused_with_file_and_line_and_breaks_no_other_batch(config, keys, told):
    config.add("good")
    config.add("broken", **keys)
    (config.path / "recipients" / f"{'r' * 91}.yaml").write_text(RECIPIENT)

    bag = config.bag()

    assert "batch_good" in bag.dags
    ((file, error),) = bag.import_errors.items()
    assert Path(file).name == "zz_config_errors.py"
    assert re.search(rf"config/\w+/\w+.yaml:\d+: {re.escape(told)}", error)


@pytest.mark.req("F09")
def test_a_length_of_time_over_its_limit_breaks_its_batch_and_no_other(config):
    config.add("good")
    config.add("broken", schedule={"at": ["09:00"], "generate_before": "13h"})

    bag = config.bag()

    assert "batch_good" in bag.dags
    ((file, error),) = bag.import_errors.items()
    assert Path(file).name == "zz_config_errors.py"
    assert "schedule.generate_before: must be at most 12h, is '13h'" in error


@pytest.mark.req("F09")
def test_a_file_that_cannot_be_read_as_text_does_not_stop_the_others(config):
    config.add("good")
    (config.path / "batches" / "broken.yaml").write_bytes(b"name: \xff\xfe")

    bag = config.bag()

    assert "batch_good" in bag.dags
    assert [Path(file).name for file in bag.import_errors] == ["zz_config_errors.py"]


@pytest.mark.req("F09")
def test_a_recipient_that_cannot_be_read_breaks_its_own_batches_only(config):
    config.add("good")
    config.add("other", recipient="other")
    (config.path / "recipients" / "other.yaml").write_text("name: [\n")

    bag = config.bag()

    assert "batch_good" in bag.dags
    assert "batch_other" not in bag.dags
    assert "config/recipients/other.yaml:2" in next(iter(bag.import_errors.values()))


def test_all_broken_files_are_told_at_once(config):
    for number in range(3):
        config.write(f"broken_{number}", "name: x\n")

    with pytest.raises(BatchConfigError) as told:
        dag_factory.raise_config_errors()

    assert [f"broken_{n}.yaml" in str(told.value) for n in range(3)] == [True] * 3
    assert str(told.value).startswith("3 broken batch files")


def test_nothing_is_raised_while_all_files_are_well(config):
    config.add()
    dag_factory.raise_config_errors()


# --- parsing -----------------------------------------------------------------------------------------------------


def test_a_task_reads_only_its_own_batch_and_hears_nothing_of_broken_ones(config, monkeypatch):
    config.add()
    for number in range(5):
        config.write(f"broken_{number}", "name: [")
    (config.path / "batches" / "fifo.yaml").mkdir()
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "batch_acme_auto")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "extract")

    opened = files_opened_by(config)

    assert opened == ["batches/acme_auto.yaml", "recipients/acme.yaml"]
    assert config.bag().import_errors == {}


def test_the_dag_processor_reads_all_of_them(config):
    config.add("one")
    config.add("two")

    assert {"batches/one.yaml", "batches/two.yaml"} < set(files_opened_by(config))


def files_opened_by(config: Config) -> list[str]:
    """What building the DAGs opens under `config/`, in a process that notes every `open`."""
    code = f"""
import sys
root, opened = {str(config.path)!r} + "/", set()
sys.addaudithook(lambda name, args: name == "open" and str(args[0]).startswith(root) and opened.add(str(args[0])))
import lead_batches, zz_config_errors
print("\\n".join(sorted(file.removeprefix(root) for file in opened)))
"""
    names = ("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "_AIRFLOW_PARSING_CONTEXT_TASK_ID")
    context = {name: os.environ[name] for name in names if name in os.environ}
    return in_new_process(code, config=config, **context).split()


def test_parsing_loads_no_heavy_library_that_airflow_itself_does_not_load(config):
    config.add(
        fields=[
            {"to": "Email", "from": "email", "transform": ["trim", "lower"]},
            {"to": "Phone", "from": "phone", "transform": [{"phone": {"region": "US"}}]},
        ],
        select={"rules": [{"name": "has_email", "field": "email", "exists": True}]},
    )
    tell = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"

    baseline = in_new_process(f"import airflow.sdk; {tell}", config=config).split()
    loaded = in_new_process(f"import lead_batches, zz_config_errors; {tell}", config=config).split()

    assert set(loaded) - set(baseline) == set()


def test_every_dag_is_the_same_in_every_process(config):
    config.add("one", tags=["c", "a", "b"], select={"rules": [{"name": "r", "field": "x", "in": ["c", "a"]}]})
    config.add("two", schedule={"at": ["17:30", "09:00"], "on": ["thu", "mon"]})
    code = """
import lead_batches
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import DagSerialization
for name, dag in sorted(vars(lead_batches).items()):
    if name.startswith("batch_") and hasattr(dag, "dag_id"):
        print(name, SerializedDagModel.hash(DagSerialization.to_dict(dag)))
"""
    plugins = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins")}

    first, second = (in_new_process(code, config=config, PYTHONHASHSEED=seed, **plugins) for seed in "12")

    assert hashes(first).keys() == {"batch_one", "batch_two"}
    assert hashes(first) == hashes(second)


def hashes(said: str) -> dict[str, str]:
    """The hash of each DAG; Airflow prints warnings in between."""
    lines = (line.split() for line in said.splitlines() if line.startswith("batch_"))
    return dict(lines)


def test_a_changed_batch_file_is_a_new_version_of_its_dag(config):
    before = in_airflow(config.dag(schedule="manual"))

    assert in_airflow(config.dag(schedule="manual")) == before
    assert in_airflow(config.dag(schedule="manual", fields=[{"to": "Mail", "from": "email"}])) != before


def in_airflow(dag) -> str:
    """The hash by which Airflow tells versions of a DAG apart."""
    return SerializedDagModel.hash(DagSerialization.to_dict(dag))
