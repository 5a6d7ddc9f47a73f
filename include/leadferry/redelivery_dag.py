"""The DAG `redeliver_leads`: chosen leads, or a stored file, to one destination of one batch, by hand.

The form, the REST conf and the command line have the same names, and one model checks them: `Redeliver`.
A run takes the steps of a batch's departure, so every promise of a delivery holds for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, get_parsing_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from leadferry import tasks
from leadferry.batch.load import batch_ids
from leadferry.delivery.redelivery_params import Redeliver
from leadferry.destinations.base import Retry
from leadferry.errors import BatchConfigError, StoreError
from leadferry.project import config_folder
from leadferry.states import LeadStanding

DAG_ID = "redeliver_leads"

_RUN_TYPES: Any = ["manual", "operator_triggered"]
"""Airflow makes its enum of the names."""

_CHOOSE = "Choose leads by what they are"
_FILE = "A stored file"
_HOW_MANY = "How many, and which first"
_SET_ASIDE = "What is set aside"
_EDIT = "Edit the leads first"

_MOMENT = {"default": None, "type": ["null", "string"], "format": "date-time"}
_TEXT = {"default": None, "type": ["null", "string"]}
_ID = {"default": None, "type": ["null", "integer"], "minimum": 1}
_SWITCH = {"default": False, "type": "boolean"}

FORM: dict[str, dict[str, Any]] = {
    "batch": {"type": "string", "minLength": 1},
    "destination": {"type": "string", "minLength": 1},
    "lead_ids": {"default": None, "type": ["null", "array"]},
    "failed_since": _MOMENT,
    "reason": {"default": None, "type": ["null", "string"], "format": "multiline"},
    "dry_run": _SWITCH,
    "selection": {
        "default": None,
        "type": ["null", "string"],
        "enum": [None, "all", "leads", "query", "file", "failed_since"],
        "values_display": {"null": "what is filled in", "all": "all leads of the batch"},
        "section": _CHOOSE,
    },
    "status": {
        "default": None,
        "type": ["null", "array"],
        "items": {"type": "string", "enum": [one.value for one in LeadStanding if one != "under_way"]},
        "examples": [one.value for one in LeadStanding if one != "under_way"],
        "section": _CHOOSE,
    },
    "rule": {**_TEXT, "section": _CHOOSE},
    "flow": {**_TEXT, "section": _CHOOSE},
    "received_from": {**_MOMENT, "section": _CHOOSE},
    "received_to": {**_MOMENT, "section": _CHOOSE},
    "where": {"default": None, "type": ["null", "array"], "items": {"type": "object"}, "section": _CHOOSE},
    "delivery_id": {**_ID, "section": _CHOOSE},
    "file_id": {**_ID, "section": _FILE},
    "as_sent": {**_SWITCH, "section": _FILE},
    "count": {**_ID, "section": _HOW_MANY},
    "order": {
        "default": "oldest",
        "type": "string",
        "enum": ["oldest", "newest", "random"],
        "section": _HOW_MANY,
    },
    "seed": {**_ID, "minimum": 0, "section": _HOW_MANY},
    "include_delivered": {**_SWITCH, "section": _SET_ASIDE},
    "skip_rules": {**_SWITCH, "section": _SET_ASIDE},
    "skip_dedupe": {**_SWITCH, "section": _SET_ASIDE},
    "override_window": {**_SWITCH, "section": _SET_ASIDE},
    "assign_others": {**_SWITCH, "section": _SET_ASIDE},
    "mark": {"default": True, "type": "boolean", "section": _SET_ASIDE},
    "edits": {"default": None, "type": ["null", "object"], "section": _EDIT},
    "persist_edits": {**_SWITCH, "section": _EDIT},
}
"""The fields of Airflow's trigger form, as JSON Schema that its form understands (no `anyOf`).

The first ones have no section: Airflow shows them at once and folds up every section that a DAG names itself.
"""

_PAGE = """
Deliver chosen leads, or a stored file, to **one** destination of one batch.

Try it with **Dry run** first: the log of the task `claim` then lists what would go and what would not, and why.
Leads that wait are taken out of the queue, so that the next departure does not contain them again. Leads that the
destination has already go only with *Also what was delivered there*. Caps, minimums and the timetable do not count.

What is written here stays in Airflow's database: no names, no addresses, only ids. Values that must not stand there are
edited with `leadferry leads edit`.
"""


@contextmanager
def redelivery_dag() -> Iterator[DAG]:
    """Open the DAG: its page and trigger form; the caller puts the tasks in."""
    retry = Retry()
    dag = DAG(
        dag_id=DAG_ID,
        dag_display_name="Redeliver leads",
        description="Chosen leads, or a stored file, to one destination of a batch, by hand",
        doc_md=_PAGE,
        schedule=None,
        start_date=datetime(2020, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=8,
        allowed_run_types=_RUN_TYPES,
        tags={"leadferry", "leads"},
        is_paused_upon_creation=False,
        params=_form(),
        default_args={
            "retries": retry.attempts - 1,
            "retry_delay": retry.first_delay,
            "max_retry_delay": retry.max_delay,
            "retry_exponential_backoff": retry.factor,
            "execution_timeout": timedelta(hours=6),
        },
    )
    with dag:
        yield dag


def _form() -> dict[str, Param]:
    fields = {name: dict(schema) for name, schema in FORM.items()}
    # The list of batches is for people; a running task neither needs it nor waits for it.
    known = batch_ids(config_folder()) if get_parsing_context().dag_id is None else []
    if known:
        fields["batch"]["enum"] = known
    about = Redeliver.model_fields
    return {
        name: Param(**schema, title=about[name].title, description=about[name].description, source="dag")
        for name, schema in fields.items()
    }


@task
def claim() -> dict[str, Any]:
    """Take the chosen leads into a delivery of their own, and freeze the batch's configuration."""
    with tasks.airflow_errors():
        from leadferry.batch.load import load_batch
        from leadferry.connections import lead_store
        from leadferry.delivery.redelivery import ByHand, claim_redelivery

        asked = _asked()
        batch = load_batch(require_batch(asked.batch), config=config_folder())
        run = get_current_context()["dag_run"]
        by = ByHand(run_id=tasks.name_of(run), at=run.run_after, actor=run.triggering_user_name or "unknown")
        chosen = claim_redelivery(lead_store(), batch, asked, by)
        return {
            "delivery_id": chosen.delivery_id,
            "selected": chosen.selected,
            "included": chosen.included,
            "withheld": dict(chosen.withheld),
            "left_out": dict(chosen.left_out),
        }


@task
def render() -> Any:
    """Write the leads into the batch's files, or take the stored file as it is."""
    asked = _asked()
    if asked.dry_run:
        raise AirflowSkipException("Dry run: nothing was claimed; the log of claim tells what would go")
    return tasks.render.function(asked.batch)


@task
def deliver() -> Any:
    """Send the files to the one destination, verify that they arrived, and store the receipt."""
    asked = _asked()
    return tasks.deliver.function(asked.batch, asked.destination)


@task(trigger_rule="all_done")
def mark_delivered() -> Any:
    """Close the delivery in the lead store, whatever happened before; leads that waited go back if it failed."""
    asked = _asked()
    if asked.dry_run:
        raise AirflowSkipException("Dry run: there is nothing to close")
    with tasks.airflow_errors():
        _require_claimed(asked.batch)
    return tasks.mark_delivered.function(asked.batch)


def require_batch(batch_id: str) -> str:
    """Return the id of a batch that there is.

    Raises:
        BatchConfigError: there is none with this id.
    """
    known = batch_ids(config_folder())
    if batch_id not in known:
        near = difflib.get_close_matches(batch_id, known, n=1)
        raise BatchConfigError(
            f"batch: there is no batch {batch_id!r}{f'; did you mean {near[0]!r}?' if near else ''}",
            hint="Nothing was claimed; `leadferry batches` lists them",
        )
    return batch_id


def _asked() -> Redeliver:
    with tasks.airflow_errors():
        return Redeliver.parse(get_current_context()["params"])


def _require_claimed(batch_id: str) -> None:
    """Do not mail people that a delivery could not be closed when the request for it was refused."""
    from leadferry.connections import lead_store
    from leadferry.store.ledger import delivery_of_run

    try:
        delivery_of_run(
            lead_store(), batch_id=batch_id, run_id=tasks.name_of(get_current_context()["dag_run"])
        )
    except StoreError as error:
        if error.retry:
            raise
        raise AirflowFailException("Nothing was claimed and nothing was sent; see the log of claim") from None
