"""What Airflow's triggerer watches for the batches, so that no worker is kept busy by waiting.

* `ReadyTrigger` looks whether that is there which a departure waits for; the task `wait` is deferred to it.
* `LeadsWaiting` looks into a batch's queue all the time, and asks for a departure before its time.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from leadferry.batch.conditions import DATE, Ready
from leadferry.errors import StoreError

_log = logging.getLogger(__name__)

SETTLING_SECONDS = 10.0
"""A trigger that fires before the scheduler heard of the deferral makes Airflow 3.3 fail the task: "finished with state
success, but the task instance's state attribute is queued"."""


def _event(payload: dict[str, Any]) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's own lacks types


class ReadyTrigger(BaseTrigger):
    """Fires once: `{"ready": True}`, or `{"ready": False, "error": …}` when the deadline has passed.

    Args:
        ready: the key `conditions.ready` of the batch, as JSON; its kind is sql or file.
        day: local day of the departure, as 2026-01-30.
        deadline: ISO 8601 with a zone; after it nobody looks any more.
        first_look: seconds before the first look; the task has just looked itself.
    """

    def __init__(
        self, *, ready: dict[str, Any], day: str, deadline: str, first_look: float = SETTLING_SECONDS
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own lacks types
        self.ready = ready
        self.day = day
        self.deadline = deadline
        self.first_look = first_look

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow needs to make it again in another process."""
        names = ("ready", "day", "deadline", "first_look")
        values = {name: getattr(self, name) for name in names}
        return f"{type(self).__module__}.{type(self).__name__}", values

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, until it is there or the time is over; at least once."""
        asked = Ready.model_validate(self.ready)
        deadline = datetime.fromisoformat(self.deadline)
        look = sync_to_async(is_ready)
        await asyncio.sleep(self.first_look)
        while True:
            error = None
            try:
                if await look(asked, day=self.day):
                    yield _event({"ready": True})
                    return
            except Exception as problem:  # noqa: BLE001  # whatever a database or store raises: it may be there next time
                error = type(problem).__name__  # its text may hold what the query found
                _log.warning("It could not be found out whether %s is there: %s", asked, error)
            left = (deadline - datetime.now(tz=UTC)).total_seconds()
            if left <= 0:
                yield _event({"ready": False, "error": error})
                return
            await asyncio.sleep(min(asked.every.total_seconds(), left))


def is_ready(ready: Ready, *, day: str) -> bool:
    """Look once whether what a departure waits for is there.

    Args:
        ready: of kind sql or file.
        day: what `{{ date }}` in a path stands for.

    Raises:
        Exception: whatever the database, the object store or Airflow's connection says.
    """
    if ready.sql is not None:
        from airflow.sdk import BaseHook

        hook = BaseHook.get_connection(ready.sql.connection).get_hook()  # type: ignore[no-untyped-call]  # Airflow's own lacks types
        found = hook.get_first(ready.sql.query)
        return bool(found and found[0])
    if ready.file is None:
        raise ValueError("an asset is not looked for here")
    path = re.sub(DATE, day, ready.file.path)
    if "://" not in path:
        return Path(path).exists()
    from airflow.sdk import ObjectStoragePath

    return bool(ObjectStoragePath(path, conn_id=ready.file.connection).exists())


class LeadsWaiting(BaseEventTrigger):
    """Fires when a batch is to depart before its time: at most once after each of its deliveries, or once in each pause.

    Args:
        batch_id: whose queue.
        flows: the flows it listens to; new leads of theirs are routed first.
        received_from: ISO 8601; a batch that is new to a flow collects its leads from here on.
        leads: fire when this many wait.
        oldest: fire when the oldest waits this many seconds.
        every: seconds between two looks.
        again_after: seconds after which it fires again when nothing came of it.
        others_come: whether the timetable goes on; then it fires again only when there was no departure at all.
        timing: `leadferry.batch.timing.Timing` as JSON text, by which leads that may not go yet do not count; None where
            none ever has to stay.
        zone: of the batch's schedule, in which people are told of times.
    """

    def __init__(  # noqa: PLR0913  # one for each thing that is to be known without the batch file
        self,
        *,
        batch_id: str,
        flows: list[str],
        received_from: str | None,
        leads: int | None,
        oldest: float | None,
        every: float,
        again_after: float,
        others_come: bool,
        timing: str | None = None,
        zone: str = "UTC",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own lacks types
        self.values: dict[str, Any] = {
            "batch_id": batch_id,
            "flows": flows,
            "received_from": received_from,
            "leads": leads,
            "oldest": oldest,
            "every": every,
            "again_after": again_after,
            "others_come": others_come,
            "timing": timing,
            "zone": zone,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow needs to make it again in another process, and to know whether it changed."""
        return f"{type(self).__module__}.{type(self).__name__}", self.values

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for ever."""
        look = sync_to_async(self.order)
        while True:
            try:
                reason = await look()
            except StoreError as error:
                _log.warning("Whether %s departs early: %s", self.values["batch_id"], error)
                reason = None
            if reason is not None:
                yield _event({"batch": self.values["batch_id"], "reason": reason})
            await asyncio.sleep(self.values["every"])

    def order(self, *, now: datetime | None = None) -> str | None:
        """Look once; say why the batch departs now, or None when it does not, or was asked to already.

        Args:
            now: the moment, aware, at which it would depart; the present one when left out.
        """
        from leadferry.connections import lead_store
        from leadferry.store.early import order_early

        asked = self.values
        since = asked["received_from"]
        return order_early(
            lead_store(),
            asked["batch_id"],
            flows=asked["flows"],
            received_from=datetime.fromisoformat(since) if since else None,
            leads=asked["leads"],
            oldest=None if asked["oldest"] is None else timedelta(seconds=asked["oldest"]),
            again_after=timedelta(seconds=asked["again_after"]),
            others_come=asked["others_come"],
            zone=asked["zone"],
            **_may_go(asked["timing"], now or datetime.now(tz=UTC)),
        )


def _may_go(timing: str | None, now: datetime) -> dict[str, Any]:
    """Return by what a departure at a moment would leave leads in the queue."""
    if timing is None:
        return {}
    from leadferry.batch.timing import Timing
    from leadferry.store.tables import lead

    found = Timing.model_validate_json(timing)
    return {"window_to": found.window_at(now).ends, "must_wait": found.must_wait(lead, now)}
