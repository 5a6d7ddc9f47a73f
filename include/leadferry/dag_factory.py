"""From batch files to DAGs: what `dags/lead_batches.py` needs, and nothing that would slow its parsing down.

While a task runs, only its own batch file is read; the dag-processor reads all of them.
A broken file breaks only its own DAG; `dags/zz_config_errors.py` makes it visible. A bug that a batch brings to light in
the building of its DAG stops no other batch either.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import (
    DAG,
    Asset,
    AssetAny,
    AssetWatcher,
    Param,
    TaskGroup,
    get_parsing_context,
)

from leadferry import tasks
from leadferry.batch.conditions import DepartEarly
from leadferry.batch.describe import describe
from leadferry.batch.load import ConfigReader, batch_ids, load_all
from leadferry.batch.model import Batch
from leadferry.batch.problems import bug
from leadferry.batch.received import collects_from
from leadferry.batch.timing import Timing
from leadferry.delivery.params import FORM, DeliverNow
from leadferry.destinations import Destination
from leadferry.destinations.base import Retry
from leadferry.errors import BatchConfigError
from leadferry.project import config_folder
from leadferry.schedule import departures
from leadferry.timetables import timetable_for
from leadferry.triggers import LeadsWaiting

_log = logging.getLogger(__name__)

_PREFIX = "batch_"
_START = datetime(2020, 1, 1, tzinfo=UTC)
"""Fixed, so that a DAG is the same whenever it is built; the timetable departs from now on."""

_RUN_TYPES = ["scheduled", "manual", "operator_triggered"]
"""Not a backfill: what waits is delivered now or at the next departure; there is no past to deliver again."""

_POOL_SLOTS = 4
"""Sessions that one destination host gets at once unless an operator changes the pool."""

ASKED_AGAIN_AFTER = timedelta(hours=1)
"""How long an early departure that was asked for is waited for, and one that took nothing left alone if no other comes."""


def batches_to_build() -> Iterator[Batch]:
    """Yield the valid batches, in the order of their ids; while a task runs, only the one it belongs to."""
    config = config_folder()
    running = get_parsing_context().dag_id
    if running is not None:
        wanted = [one for one in batch_ids(config) if f"{_PREFIX}{one}" == running]
    else:
        wanted = batch_ids(config)
    reader = ConfigReader(config)
    for batch_id in wanted:
        try:
            batch = reader.load(batch_id)  # refuses also what would make Airflow refuse all DAGs of the file
        except BatchConfigError:
            continue  # zz_config_errors.py tells
        yield batch


def dags_of(put_tasks: Callable[[Batch], None]) -> list[DAG]:
    """Build the DAG of every valid batch, or, while a task runs, of its batch alone.

    Args:
        put_tasks: called with each batch, within its DAG.
    """
    with _nothing_is_garbage():
        return [_dag_of(batch, put_tasks) for batch in batches_to_build()]


@contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """Look for no cyclic garbage meanwhile: DAGs stay, and to go through all of them again and again takes an eighth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _dag_of(batch: Batch, put_tasks: Callable[[Batch], None]) -> DAG:
    try:
        with _batch_dag(batch) as dag:
            put_tasks(batch)
    except Exception as error:  # noqa: BLE001  # whatever it is, the other batches depart
        return _not_built(batch, error)
    return dag


@contextmanager
def _batch_dag(batch: Batch) -> Iterator[DAG]:
    """Open the DAG of a batch: schedule, page and trigger form; the caller puts the tasks in."""
    dag = DAG(
        doc_md=describe(batch),
        schedule=_schedule(batch),
        catchup=False,
        max_active_runs=_runs_at_once(batch),
        allowed_run_types=_run_types(batch),  # type: ignore[arg-type] # Airflow makes its enum of the names
        # The file says whether the batch departs; Airflow's pause stays an operator's brake, and is never pulled here.
        is_paused_upon_creation=False,
        default_args=_task_arguments(batch),
        **_looks(batch, *([] if batch.enabled else ["disabled"])),
    )
    with dag:
        yield dag
    # Last: Airflow checks the defaults of a DAG made with params, and copies them for each of its tasks,
    # which takes longer than all the rest. They are the same for every batch, and a run checks what it is given.
    dag.params.update(_params())


def _not_built(batch: Batch, error: Exception) -> DAG:
    """Return a DAG that never departs, whose page says why, and whose runs by hand fail with it.

    The watchdog tells of the departures that it misses.
    """
    text = (
        f"The DAG of this batch cannot be built: {bug(error)}. The batch does not depart. Please report this."
    )
    _log.error("%s: %s", batch.id, text, exc_info=error)
    with DAG(doc_md=f"# {batch.name}\n\n{text}\n", schedule=None, **_looks(batch, "broken")) as dag:
        # Without a task a run would end well, as if all had been delivered.
        tasks.not_built(text)
    return dag


def _looks(batch: Batch, *tags: str) -> dict[str, Any]:
    """Return by what people find the DAG of a batch."""
    return {
        "dag_id": batch.dag_id,
        "dag_display_name": batch.name,
        "description": batch.description or batch.name,
        "start_date": _START,
        "tags": {"leadferry", f"recipient:{batch.recipient.id}", *batch.tags, *tags},
        # The DAG file names its DAGs; Airflow would also take one that was left half built.
        "auto_register": False,
    }


def _runs_at_once(batch: Batch) -> int:
    """Several runs may be under way, but not of a batch that makes up for each departure.

    There each run claims the leads of its own departure, so the earlier must have claimed before the later does.
    """
    return 1 if batch.makes_up_for_each else 4


def _schedule(batch: Batch) -> Any:
    """Return what Airflow departs by: the timetable, updates of assets, or both."""
    if not batch.enabled:
        return None
    times = timetable_for(batch.schedule, batch.timezone, batch.id)
    assets = _assets(batch)
    if not assets:
        return times
    any_of_them = AssetAny(*assets)
    if times is None:
        return any_of_them
    from leadferry.asset_timetable import DepartureOrAssetTimetable  # few batches need what this imports

    # It takes the assets of a DAG file as well; its annotation knows only stored ones.
    return DepartureOrAssetTimetable(timetable=times, assets=any_of_them)  # type: ignore[arg-type]


def _run_types(batch: Batch) -> list[str]:
    return [*_RUN_TYPES, "asset_triggered"] if _assets(batch) else _RUN_TYPES


def _assets(batch: Batch) -> list[Asset]:
    """Return the assets whose updates start a run: the one of the schedule, and that of leads that wait."""
    found = []
    if batch.schedule != "manual" and batch.schedule.on_asset is not None:
        found.append(Asset(batch.schedule.on_asset))
    if batch.conditions.depart_early is not None:
        watcher = AssetWatcher(name="queue", trigger=_leads_waiting(batch, batch.conditions.depart_early))
        found.append(Asset(f"leadferry_early_{batch.id}", watchers=[watcher]))
    return found


def _leads_waiting(batch: Batch, early: DepartEarly) -> LeadsWaiting:
    since = collects_from(batch)
    return LeadsWaiting(
        batch_id=batch.id,
        flows=batch.flows,
        received_from=since.isoformat() if since else None,
        leads=early.leads,
        oldest=None if early.oldest is None else early.oldest.total_seconds(),
        every=early.every.total_seconds(),
        again_after=_asked_again_after(batch).total_seconds(),
        others_come=_others_come(batch),
        timing=_timing(batch),
        zone=batch.schedule_zone,
    )


def _timing(batch: Batch) -> str | None:
    """Return by what leads may have to stay in the queue at some moments; None where they never have to."""
    if batch.select.quiet_hours is None and batch.select.window == "all_pending":
        return None
    return Timing.of(batch).model_dump_json()


def _asked_again_after(batch: Batch) -> timedelta:
    """Return after which pause an early departure is asked for again; its run may wait for `conditions.ready` as long."""
    ready = batch.conditions.ready
    return ASKED_AGAIN_AFTER + (ready.timeout if ready else timedelta())


def _others_come(batch: Batch) -> bool:
    """Say whether a timetable goes on beside early departures: not for a batch without one, or whose timetable is over."""
    now = datetime.now(tz=UTC)
    found = departures(batch.schedule, timezone=batch.timezone, after=now, batch_id=batch.id)
    return next(found, None) is not None


def extract(batch: Batch) -> Any:
    """Make the task that claims the leads; with `conditions.ready`, after a task that waits until all is there."""
    claims = tasks.extract.override(task_id="extract")(batch.id)
    ready = batch.conditions.ready
    if ready is not None:
        inlets = [] if ready.asset is None else [Asset(ready.asset)]
        tasks.WaitUntilReady(task_id="wait", batch_id=batch.id, inlets=inlets) >> claims
    return claims


def render(batch: Batch) -> Any:
    """Make the task that writes the files."""
    return tasks.render.override(task_id="render")(batch.id)


def deliver(batch: Batch) -> TaskGroup:
    """Make one task per destination; they run side by side from the one render.

    A fallback waits for the destination that it replaces, and runs only when its last try failed. Whether there is
    anything to send it asks the lead store.
    """
    with TaskGroup("deliver", tooltip="One task per destination") as group:
        made = {one.id: _deliver_to(batch, one) for one in batch.destinations}
        for one in batch.destinations:
            if one.fallback_for is not None:
                made[one.fallback_for] >> made[one.id]
    return group


def _deliver_to(batch: Batch, destination: Destination) -> Any:
    options: dict[str, Any] = {} if destination.retry is None else _retries(batch.retry_of(destination.id))
    if destination.fallback_for is not None:
        options["trigger_rule"] = "all_failed"
        # What the graph shows: the arrow alone looks as if both were always served.
        options["task_display_name"] = f"{destination.id} (only if {destination.fallback_for} fails)"
    task = tasks.deliver.override(task_id=destination.id, pool=destination.pool, **options)
    return task(batch.id, destination.id)


def mark_delivered(batch: Batch) -> Any:
    """Make the task that closes the delivery, whatever happened before."""
    return tasks.mark_delivered.override(task_id="mark_delivered", trigger_rule="all_done")(batch.id)


def raise_config_errors() -> None:
    """Raise one exception that lists what is wrong with every broken batch file, or return when all are well.

    Raises:
        BatchConfigError: a line per problem: file, line, key, value, what is allowed.
    """
    _, errors = load_all(config_folder())
    if errors:
        what = "\n".join(error.what for error in errors)
        many = "1 broken batch file" if len(errors) == 1 else f"{len(errors)} broken batch files"
        raise BatchConfigError(f"{many}; the other batches run\n{what}", hint="")


def pools() -> dict[str, int]:
    """Return the Airflow pools that the batches' deliver tasks wait in, with their slots.

    A task whose pool does not exist is never queued, so create them before the first run
    (`leadferry pools` prints them for `airflow pools import`).
    """
    names = {destination.pool for batch in batches_to_build() for destination in batch.destinations}
    return dict.fromkeys(sorted(names), _POOL_SLOTS)


def _task_arguments(batch: Batch) -> dict[str, Any]:
    return {
        "owner": batch.recipient.id,
        "priority_weight": batch.priority,
        "weight_rule": "absolute",
        "execution_timeout": batch.claim_lease,
        **_retries(batch.retry),
    }


def _retries(retry: Retry) -> dict[str, Any]:
    return {
        "retries": retry.attempts - 1,
        "retry_delay": retry.first_delay,
        "max_retry_delay": max(retry.max_delay, timedelta(seconds=1)),
        "retry_exponential_backoff": 0 if retry.factor == 1 else retry.factor,
    }


def _params() -> dict[str, Param]:
    return {name: Param(**_form_field(name, schema), source="dag") for name, schema in FORM.items()}


def _form_field(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Put words to a field; without `section`, because Airflow folds up every section that a DAG names itself."""
    about = DeliverNow.model_fields[name]
    # Airflow shows the choice of nothing as "null".
    shown = {"values_display": {"null": "as the batch says"}} if None in schema.get("enum", ()) else {}
    return {**schema, **shown, "title": about.title, "description": about.description}
