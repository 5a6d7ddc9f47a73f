"""The tasks of a batch's DAG: each finds its delivery in the lead store, takes one step, and translates errors.

Only ids, counts, hashes and file names pass through Airflow (I7).
What may be tried again is decided by our error classes; what may not becomes `AirflowFailException`.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import Asset, BaseOperator, get_current_context, task
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
)

from leadferry.errors import LeadferryError, NotReadyError
from leadferry.zones import time_zone, told_moment

if TYPE_CHECKING:
    from airflow.sdk import Context

    from leadferry.batch.conditions import Ready
    from leadferry.batch.model import Batch
    from leadferry.delivery.extract import Trigger
    from leadferry.delivery.later import Later
    from leadferry.store.claim import Claim

_log = logging.getLogger(__name__)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Let Airflow see only errors whose text is ours.

    A foreign exception may quote a lead (`KeyError: 'jane@example.com'`), and Airflow logs and mails its text;
    so of those only the class and the place are told.
    """
    try:
        yield
    except (AirflowFailException, AirflowRescheduleException, AirflowSkipException):
        raise
    except LeadferryError as error:
        kind = AirflowException if error.retry else AirflowFailException
        raise kind(f"{error.code}: {error}") from None
    except Exception as error:  # noqa: BLE001 the point is to catch all
        raise AirflowException(_place(error)) from None


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
    return f"internal: {type(error).__name__} at {where}. Its text is not shown because it may hold a lead's data"


class WaitUntilReady(BaseOperator):
    """Waits for `conditions.ready` of a batch without keeping a worker busy; fails when it comes too late.

    A file or query is looked for by the triggerer; updates of an asset only a task can ask for,
    so for these the task runs again and again, a moment each time.
    """

    def __init__(self, *, batch_id: str, **options: Any) -> None:
        super().__init__(**options)
        self.batch_id = batch_id

    def execute(self, context: Context) -> None:
        """Return when it is ready, or give the slot back."""
        with airflow_errors():
            from leadferry.batch.load import load_batch
            from leadferry.project import config_folder

            batch = load_batch(self.batch_id, config=config_folder())
            trigger = _trigger()
            ready = batch.conditions.ready
            if ready is None or trigger.params.test:
                return
            if _took_its_leads(batch, trigger):
                return
            _skip_if_left_out(batch, trigger)
            run = context["dag_run"]
            deadline = (run.start_date or run.run_after) + ready.timeout
            if ready.asset is None:
                self._look(batch, ready, trigger, deadline=deadline)
            else:
                self._ask_airflow(batch, ready, trigger, deadline=deadline)

    def resume(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002  # Airflow hands it over
        """Go on when the triggerer found it; Airflow calls it."""
        if event["ready"]:
            _show("what it waited for came")
        else:
            with airflow_errors():
                from leadferry.batch.load import load_batch
                from leadferry.project import config_folder

                _give_up(load_batch(self.batch_id, config=config_folder()), _trigger(), error=event["error"])

    def _look(self, batch: Batch, ready: Ready, trigger: Trigger, *, deadline: datetime) -> None:
        from leadferry.triggers import ReadyTrigger, is_ready

        day = trigger.departs_at.astimezone(time_zone(batch.schedule_zone)).date().isoformat()
        # What fails now may be there later; the triggerer tells what it was in the end.
        with suppress(Exception):
            if is_ready(ready, day=day):
                return
        asked = ready.model_dump(mode="json")
        looks = ReadyTrigger(ready=asked, day=day, deadline=deadline.isoformat())
        until = told_moment(deadline, zone=batch.schedule_zone)
        _show(f"waits until {until} at most: {ready} is awaited")
        self.defer(trigger=looks, method_name="resume")

    def _ask_airflow(self, batch: Batch, ready: Ready, trigger: Trigger, *, deadline: datetime) -> None:
        from leadferry.batch.conditions import NOT_READY
        from leadferry.connections import lead_store
        from leadferry.delivery.later import Later
        from leadferry.store.precedents import previous_departure

        events = get_current_context()["inlet_events"][Asset(str(ready.asset))]
        since = previous_departure(
            lead_store(),
            batch.id,
            run_id=trigger.run_id,
            not_ready=NOT_READY,
            makes_up=trigger.actor not in {None, "event"},
        )
        if events.after(since.isoformat()) if since else events:
            return
        now = datetime.now(tz=UTC)
        if now >= deadline:
            _give_up(batch, trigger, error=None)
        again = min(now + ready.every, deadline)
        _reschedule(Later(until=again, reason=f"{ready} is awaited", zone=batch.schedule_zone))


def _took_its_leads(batch: Batch, trigger: Trigger) -> bool:
    """Tell whether the run took its leads before somebody cleared it: there is nothing to wait for any more."""
    from leadferry.connections import lead_store
    from leadferry.store.precedents import is_under_way

    return is_under_way(lead_store(), batch.id, run_id=trigger.run_id)


def _skip_if_left_out(batch: Batch, trigger: Trigger) -> None:
    """Wait for nothing where a person wants the departure left out."""
    from leadferry.connections import lead_store
    from leadferry.delivery.extract import left_out

    skipped = left_out(lead_store(), batch, trigger)
    if skipped is not None:
        _skip(skipped)


def _skip(claimed: Claim) -> NoReturn:
    _show(str(claimed.reason))
    raise AirflowSkipException(f"Nothing was claimed: {claimed.reason}. The leads stay in the queue")


def _give_up(batch: Batch, trigger: Trigger, *, error: str | None) -> NoReturn:
    """Write down that the run took nothing, and fail; skip when a person wanted the departure left out meanwhile."""
    from leadferry.connections import lead_store
    from leadferry.delivery.extract import note_not_ready

    noted = note_not_ready(lead_store(), batch, trigger, error=error)
    if noted.on_request:
        _skip(noted)
    _show(str(noted.reason))
    raise NotReadyError(f"Batch {batch.id!r} took nothing: {noted.reason}")


@task
def not_built(why: str) -> None:
    """Fail the run of a batch whose DAG cannot be built."""
    raise AirflowFailException(why)


@task
def extract(batch_id: str) -> dict[str, Any]:
    """Take the pending leads that may go out of the queue, and freeze the batch's configuration."""
    with airflow_errors():
        from leadferry.batch.load import load_batch
        from leadferry.connections import lead_store
        from leadferry.delivery.extract import extract as claim_leads
        from leadferry.delivery.notices import tell_caps, tell_changed_fields, tell_nothing_to_deliver
        from leadferry.project import config_folder
        from leadferry.states import DeliveryState

        database = lead_store()
        batch = load_batch(batch_id, config=config_folder())
        with _shown_in_airflow():
            claimed = claim_leads(database, batch, _trigger())
        tell_caps(batch, claimed)
        tell_changed_fields(batch, claimed)
        if claimed.on_hold:
            _skip(claimed)
        if claimed.state is DeliveryState.SKIPPED:
            _show(str(claimed.reason))
            tell_nothing_to_deliver(batch, claimed)
            raise AirflowSkipException(f"Nothing to deliver: {claimed.reason}. The leads stay in the queue")
        return {
            "delivery_id": claimed.delivery_id,
            "included": claimed.included,
            "withheld": claimed.withheld,
        }


@task
def render(batch_id: str) -> list[dict[str, Any]]:
    """Write the claimed leads into the batch's files, complete and hashed, in the archive."""
    with airflow_errors():
        from leadferry.archive import Archive
        from leadferry.connections import lead_store
        from leadferry.delivery.notices import tell_if_late
        from leadferry.delivery.render import render as render_files

        database = lead_store()
        delivery_id = _delivery_id(database, batch_id)
        files = render_files(database, Archive.from_environment(), delivery_id)
        if _of_the_timetable():
            tell_if_late(database, delivery_id, now=datetime.now(tz=UTC))
        if not files:
            _show("every lead was withheld")
            raise AirflowSkipException("Nothing to deliver: every lead was withheld")
        return [
            {"name": file.name, "rows": file.rows, "size": file.size, "sha256": file.sha256} for file in files
        ]


@task
def deliver(batch_id: str, destination_id: str) -> int:
    """Send the files to one destination, verify that they arrived, and store the receipt."""
    with airflow_errors():
        from leadferry.archive import Archive
        from leadferry.connections import lead_store
        from leadferry.delivery.deliver import deliver as send_files
        from leadferry.delivery.later import another_time, not_yet

        database = lead_store()
        delivery_id = _delivery_id(database, batch_id)
        now = datetime.now(tz=UTC)
        _reschedule(not_yet(database, delivery_id, now=now, destination_id=destination_id))
        try:
            confirmed = send_files(database, Archive.from_environment(), delivery_id, destination_id)
        except LeadferryError as error:
            if _is_last_try(error):
                now = datetime.now(tz=UTC)
                _reschedule(another_time(database, delivery_id, destination_id, error, now=now))
            raise
        if not confirmed:
            raise AirflowSkipException(
                "Nothing to send: no file was rendered, or another destination has it all"
            )
        return confirmed


@task
def mark_delivered(batch_id: str) -> dict[str, Any]:
    """Close the delivery in the lead store; what was not delivered goes back to the queue, and the run fails."""
    with airflow_errors():
        from leadferry.archive import Archive
        from leadferry.connections import lead_store
        from leadferry.delivery.notices import tell_outcome
        from leadferry.delivery.settle import explain, settle
        from leadferry.states import DeliveryState
        from leadferry.store import ledger

        with _unsettled_is_told(batch_id):
            database = lead_store()
            delivery_id = _delivery_id(database, batch_id)
            settlement = settle(database, Archive.from_environment(), delivery_id)
        delivery = ledger.get_delivery(database, delivery_id)
        if not tell_outcome(database, delivery, settlement):
            raise AirflowFailException(explain(settlement))
        if settlement.state is DeliveryState.SKIPPED:
            raise AirflowSkipException(f"Nothing was to be delivered: {settlement.reason}")
        return {"delivery_id": delivery_id, "state": str(settlement.state), "leads": settlement.included}


@contextmanager
def _unsettled_is_told(batch_id: str) -> Iterator[None]:
    """Mail when the last try to close a delivery fails, or there is none: nobody else would hear of it."""
    from leadferry.batch.load import load_batch
    from leadferry.delivery.notices import tell_unsettled
    from leadferry.project import config_folder

    try:
        yield
    except LeadferryError as error:
        if _is_last_try(error):
            batch = load_batch(batch_id, config=config_folder())
            tell_unsettled(batch, run_id=_run().run_id, error=error)
        raise


def _is_last_try(error: LeadferryError) -> bool:
    """Whether Airflow will not try this task again by itself."""
    tries = get_current_context()["ti"]
    return not error.retry or tries.try_number > tries.max_tries


def _reschedule(later: Later | None) -> None:
    """Give the task back to Airflow until a later moment; its slot is free meanwhile, and the try does not count.

    Never for less than a few seconds: a task that is queued again before the scheduler heard that it was given back,
    Airflow 3.3 fails: "finished with state success, but the task instance's state attribute is queued".
    """
    if later is not None:
        from leadferry.triggers import SETTLING_SECONDS

        _log.info("Waits until %s", later)
        _show(f"waits until {later}")
        settled = datetime.now(tz=UTC) + timedelta(seconds=SETTLING_SECONDS)
        raise AirflowRescheduleException(max(later.until, settled))  # type: ignore[no-untyped-call]  # Airflow's own lacks types


def _show(reason: str) -> None:
    """Show in Airflow why nothing goes, or not yet: as the task's XCom `reason`, which its page and the run's list.

    A task cannot write a note, and its log is one click and many lines further away.
    """
    get_current_context()["ti"].xcom_push(key="reason", value=reason)


@contextmanager
def _shown_in_airflow() -> Iterator[None]:
    """Show what a batch refuses, before the task fails with it."""
    try:
        yield
    except LeadferryError as error:
        if not error.retry:
            _show(error.what)
        raise


def _delivery_id(database: Any, batch_id: str) -> int:
    """Find this run's delivery in the store: XCom is for people to look at, not to rely on."""
    from leadferry.store.ledger import delivery_of_run

    return delivery_of_run(database, batch_id=batch_id, run_id=name_of(_run()))


def name_of(run: Any) -> str:
    """Return how the ledger calls an Airflow run: a run's id is unique only within its DAG."""
    return str(run.run_id) if run.dag_id.startswith("batch_") else f"{run.dag_id}:{run.run_id}"


def _run() -> Any:
    return get_current_context()["dag_run"]


def _of_the_timetable() -> bool:
    return bool(_run().run_type == "scheduled")


def _departs_at(run: Any) -> datetime:
    """Return the timetable's instant, which a run may be ahead of, or the moment of the trigger."""
    ahead = run.data_interval_end if _of_the_timetable() else None
    departs_at: datetime = ahead or run.run_after
    return departs_at


def _actor(run: Any) -> str | None:
    """Return who wanted the run: nobody for the timetable, `event` for an asset, else a person."""
    if run.run_type == "asset_triggered":
        return "event"
    return None if run.run_type == "scheduled" else run.triggering_user_name or "unknown"


def _trigger() -> Trigger:
    from leadferry.delivery.extract import Trigger
    from leadferry.delivery.params import DeliverNow

    run = _run()
    return Trigger(
        run_id=run.run_id,
        departs_at=_departs_at(run),
        params=DeliverNow.parse(get_current_context()["params"]),
        actor=_actor(run),
    )
