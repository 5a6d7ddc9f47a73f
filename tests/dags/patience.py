"""Waiting for a real Airflow; when it is in vain, what was seen is told."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from leadferry.local.airflow import ENDED, AirflowApi
from leadferry.local.processes import LocalRunError, Processes

PATIENCE = 1200
"""Seconds that a module's one fixture may take: it runs up to some thirty batches, on a machine that does more besides."""

LAST_LINES = 15


def get(api: AirflowApi, path: str) -> dict:
    answer = api._ask("GET", f"/api/v2/{path}")
    assert answer is not None, f"Airflow has no answer to {path}"
    return answer


def until(question: Callable[[], object], processes: Processes, api: AirflowApi, *, what: str) -> None:
    """Ask again and again, and go on when the answer is yes.

    How long a machine may take is not known here: who waits in vain is ended by the timeout of the test.
    """
    answer: object = None
    try:
        while not (answer := question()):
            processes.check()
            time.sleep(0.2)
    except BaseException as end:  # the timeout is no `Exception`
        waited = f"waited until {what}; the last answer was {answer!r}"
        end.add_note("\n".join([waited, *last_words(processes), *standing(api)]))
        raise


def last_words(processes: Processes) -> Iterator[str]:
    """The end of what each process printed."""
    for log in sorted(processes._logs.glob("*.log")):
        yield f"--- {log.name}"
        yield from log.read_text(errors="replace").splitlines()[-LAST_LINES:]


def standing(api: AirflowApi) -> Iterator[str]:
    """What Airflow could not read, each run, and each task of those that have not ended."""
    with suppress(LocalRunError):
        yield from api.import_errors()
        runs = api._ask("GET", "/api/v2/dags/~/dagRuns?order_by=-run_after&limit=100")
        for run in (runs or {"dag_runs": []})["dag_runs"]:
            yield f"{run['dag_id']} {run['dag_run_id']} {run['state']}"
            if run["state"] not in ENDED:
                path = f"/api/v2/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances"
                for one in (api._ask("GET", path) or {"task_instances": []})["task_instances"]:
                    yield f"    {one['task_id']} {one['state']} (try {one['try_number']})"
