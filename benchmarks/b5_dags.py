"""B5: a thousand DAGs from a thousand YAML files, against dag-factory; and what one task has to parse."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import yaml

from benchmarks.batch import make_batch
from benchmarks.competitors import airflow_additions
from benchmarks.measure import Number, Sample, child, interleaved, middle

DAGS = 1000
RECIPIENTS = 50


def run(leads: int, repeat: int) -> list[Number]:
    """Measure, and return the numbers; the number of DAGs is fixed here."""
    del leads
    additions = airflow_additions()
    with tempfile.TemporaryDirectory(prefix="leadferry-benchmarks-") as name:
        folder = Path(name)
        _write_batches(folder / "config")
        _write_dag_factory(folder / "dag-factory")
        quiet = {
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "DO_NOT_TRACK": "true",
            "LEADFERRY_CONFIG": str(folder / "config"),
        }
        ours = partial(child, "benchmarks.build_dags", **quiet)
        one = {
            "_AIRFLOW_PARSING_CONTEXT_DAG_ID": "batch_b0500",
            "_AIRFLOW_PARSING_CONTEXT_TASK_ID": "extract",
        }
        path = ":".join([str(additions), *filter(None, sys.path)])
        script = "benchmarks.competitors.dag_factory_dags"
        sides = {
            "dag-factory": partial(child, script, folder / "dag-factory", **quiet, PYTHONPATH=path),
            "ours": ours,
            "one task": partial(ours, **one),
        }
        samples = interleaved(repeat, sides)
    return _numbers(samples)


def _write_batches(config: Path) -> None:
    whole = make_batch().model_dump(mode="json", by_alias=True)
    fields = [{key: one[key] for key in ("to", "from", "transform") if one[key]} for one in whole["fields"]]
    batch = {
        "flows": ["auto_insurance"],
        "schedule": {"at": ["09:00"], "on": "weekdays"},
        "conditions": {"min_leads": 10, "max_wait": "3d"},
        "select": {
            "rules": [
                {"name": "served_states", "field": "state", "in": ["CA", "TX", "LA", "NJ", "OH", "MI"]},
                {"name": "car_not_too_old", "field": "vehicle_year", "at_least": 2005},
            ],
            "limit": 10000,
        },
        "fields": fields,
        "files": [
            {
                "id": "leads",
                "name": "{{ batch.id }}_{{ delivery.date }}_{{ lead.count }}.csv",
                "format": {"type": "csv"},
            }
        ],
        "destinations": [{"id": "share", "type": "folder", "path": "/srv/inbound"}],
        "retry": {"attempts": 5, "first_delay": "1m", "factor": 2, "max_delay": "1h"},
    }
    for folder in ("batches", "recipients"):
        (config / folder).mkdir(parents=True)
    (config / "defaults.yaml").write_text("timezone: America/New_York\n", encoding="utf-8")
    for number in range(RECIPIENTS):
        about = {"name": f"Buyer {number}", "timezone": "America/New_York", "locale": "en_US"}
        _write(config / "recipients" / f"buyer_{number}.yaml", about)
    for number in range(DAGS):
        own = {**batch, "name": f"Batch {number}", "recipient": f"buyer_{number % RECIPIENTS}"}
        _write(config / "batches" / f"b{number:04}.yaml", own)


def _write_dag_factory(folder: Path) -> None:
    """Write the same number of DAGs of the same shape, with as little as a DAG needs."""
    folder.mkdir()
    names = ("extract", "render", "deliver", "mark_delivered")
    tasks = [
        {
            "task_id": name,
            "operator": "airflow.providers.standard.operators.bash.BashOperator",
            "bash_command": "echo {{ ds }}",
            **({"dependencies": [names[place - 1]]} if place else {}),
        }
        for place, name in enumerate(names)
    ]
    for number in range(DAGS):
        dag = {
            "default_args": {
                "owner": f"buyer_{number % RECIPIENTS}",
                "retries": 4,
                "start_date": "2020-01-01",
            },
            "schedule": "0 9 * * 1-5",
            "catchup": False,
            "description": f"Batch {number}",
            "tags": ["leadferry"],
            "tasks": tasks,
        }
        _write(folder / f"b{number:04}.yaml", {f"batch_b{number:04}": dag})


def _write(file: Path, content: object) -> None:
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _numbers(samples: dict[str, list[Sample]]) -> list[Number]:
    ours, theirs = middle(samples["ours"]), middle(samples["dag-factory"])
    for side in ("ours", "dag-factory"):
        if {sample["dags"] for sample in samples[side]} != {DAGS}:
            raise RuntimeError(f"{side} did not build {DAGS} DAGs")
    return [
        Number(benchmark="B5", what="time per DAG, ours / dag-factory", value=ours / theirs, at_most=1),
        Number(
            benchmark="B5",
            what="one task parses its own batch",
            value=middle(samples["one task"]),
            unit="s",
            at_most=0.15,
        ),
        Number(benchmark="B5", what="ours per DAG", value=ours / DAGS * 1000, unit="ms"),
        Number(benchmark="B5", what="dag-factory per DAG", value=theirs / DAGS * 1000, unit="ms"),
        Number(benchmark="B5", what="our imports, apart", value=middle(samples["ours"], "import"), unit="s"),
        Number(
            benchmark="B5",
            what="dag-factory's imports, apart",
            value=middle(samples["dag-factory"], "import"),
            unit="s",
        ),
    ]
