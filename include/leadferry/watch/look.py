"""What is wrong now: what should have happened, by the batch files, compared with what did, by the lead store.

A run that did not happen cannot tell: its DAG is paused, the scheduler or the dag-processor is down, the DAG cannot be
imported, its timetable stopped. So nothing here asks Airflow; a few queries over all batches answer for each of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from leadferry.batch.load import batch_ids, load_all
from leadferry.batch.model import Batch, Notify
from leadferry.errors import BatchConfigError
from leadferry.schedule import latest_departure
from leadferry.store import incidents
from leadferry.store.database import Database
from leadferry.store.incidents import Finding, Incident, Kind, Unsettled
from leadferry.store.waiting import Waiting, queues
from leadferry.units import told_duration
from leadferry.watch.queues import follow
from leadferry.watch.settings import notify_of_last_resort
from leadferry.zones import told_moment

RECOVERY_TAKES = timedelta(minutes=30)
"""How long `leadferry.watch.recover` may try before a person is asked about an abandoned delivery."""

PATIENCE = timedelta(hours=1)
"""How long the last departure of a schedule has for its leads, where the batch has no deadline."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """All that is compared: the batch files on one side, the lead store on the other."""

    config: Path
    now: datetime
    batches: Mapping[str, Batch]
    broken: Sequence[str]
    """Ids of the batches whose files cannot be loaded."""
    errors: Sequence[BatchConfigError]
    """What is wrong with them, in the same order."""
    since: Mapping[str, datetime] = field(default_factory=dict)
    """For each batch since when its schedule is as it is."""
    departed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    queues: Mapping[str, Waiting] = field(default_factory=dict)
    unsettled: Sequence[Unsettled] = ()
    open: Sequence[Incident] = ()

    def findings(self) -> list[Finding]:
        """Return everything that is wrong."""
        found = [*self._broken(), *self._deliveries()]
        for batch in self.batches.values():
            found += [*self._departure(batch), *self._queue(batch), *self._keys(batch)]
        return found

    def notify(self, batch_id: str) -> Notify:
        """Return who is told about a batch: by its file, or by `defaults.yaml` when there is none that loads."""
        if batch_id in self.batches:
            return self.batches[batch_id].notify
        frozen = next((one.config for one in self.unsettled if one.batch == batch_id), None)
        own = Notify.model_validate(frozen["notify"]) if frozen else Notify()
        return own if own.failure else notify_of_last_resort(self.config)

    def zone(self, batch_id: str) -> str:
        """Return the zone in which people are told of a batch: that of its schedule; UTC while its file does not load."""
        return self.batches[batch_id].schedule_zone if batch_id in self.batches else "UTC"

    def _broken(self) -> Iterator[Finding]:
        for batch_id, error in zip(self.broken, self.errors, strict=True):
            text = f"The file of batch {batch_id} cannot be loaded, so it does not depart: {error.what}"
            yield self._finding(batch_id, Kind.BROKEN, text)

    def _finding(self, batch: str, kind: Kind, text: str, *, since: datetime | None = None) -> Finding:
        return Finding(batch=batch, kind=kind, since=since or self.now, detail=text)

    def _departure(self, batch: Batch) -> Iterator[Finding]:
        """Compare the latest departure that should have left by now with the last one that did."""
        if not batch.enabled or batch.deadline is None:
            return
        last = self.departed.get(batch.id)
        left_at = last["departs_at"] if last else None
        due = latest_departure(
            batch.schedule, timezone=batch.timezone, by=self.now - batch.deadline, batch_id=batch.id
        )
        if due is not None and due.utc > self.since[batch.id]:
            if left_at is None or left_at < due.utc:
                yield self._finding(batch.id, Kind.MISSING, _missing(batch, due.local), since=due.utc)
            return
        # Nothing has been due since the schedule changed: what was missing before is missing until something departs.
        for known in self.open:
            is_missing = known.batch == batch.id and known.kind is Kind.MISSING
            if is_missing and batch.schedule != "manual" and (left_at is None or left_at < known.since):
                yield known

    def _queue(self, batch: Batch) -> Iterator[Finding]:
        waiting = self.queues.get(batch.id)
        if waiting is None:
            return
        seen = f"{waiting.leads} leads wait for batch {batch.id}, the oldest since {told_moment(waiting.oldest, zone=batch.schedule_zone)}"
        advice = f"`leadferry leads pending {batch.id}` and `leadferry deliveries {batch.id}` show more"
        if batch.watch.max_pending is not None and waiting.leads > batch.watch.max_pending:
            told = f"{seen}; more than {batch.watch.max_pending} should not. {advice}."
            yield self._finding(batch.id, Kind.DEPTH, told)
        if batch.watch.max_age is not None and self.now - waiting.oldest > batch.watch.max_age:
            told = f"{seen}; none should wait longer than {told_duration(batch.watch.max_age)}. {advice}."
            yield self._finding(batch.id, Kind.AGE, told, since=waiting.oldest + batch.watch.max_age)
        over = batch.over(now=self.now - (batch.deadline or PATIENCE))
        if over is not None and over.last is not None:
            told = f"{waiting.leads} leads wait for batch {batch.id}, and {over}: nothing takes them any more. Trigger the DAG {batch.dag_id}, or give the schedule new days. {advice}."
            yield self._finding(batch.id, Kind.OVER, told, since=max(waiting.oldest, over.last.utc))

    def _keys(self, batch: Batch) -> Iterator[Finding]:
        for _, _, file in batch.files_and_bundles:
            for one in file.packing.key_problems(config=self.config, now=self.now, ahead=batch.watch.keys):
                kind = Kind.KEY_UNUSABLE if one.fatal else Kind.KEY_EXPIRES
                text = f"Files of batch {batch.id} are encrypted with {one}. `leadferry check {batch.id}` tells it as well."
                yield self._finding(batch.id, kind, text)

    def _deliveries(self) -> Iterator[Finding]:
        for one in self.unsettled:
            batch = self.batches.get(one.batch)
            if one.state == "held":
                yield from self._held(one, batch)
            elif one.lease_until + RECOVERY_TAKES < self.now:
                yield self._finding(one.batch, Kind.DOUBT, _doubt(one), since=one.lease_until)
            elif batch and batch.deadline is not None and one.departs_at + batch.deadline < self.now:
                stands = one.reason or f"is {one.state}"
                late = f"Delivery {one.id} of batch {one.batch} departed on {told_moment(one.departs_at, zone=batch.schedule_zone)} and has not arrived within {told_duration(batch.deadline)}; it {stands}. See its run {one.run_id} in Airflow; `leadferry dispatch list {one.id}` shows what is on its way."
                yield self._finding(one.batch, Kind.LATE, late, since=one.departs_at + batch.deadline)

    def _held(self, one: Unsettled, batch: Batch | None) -> Iterator[Finding]:
        patience = batch.watch.held if batch else timedelta()
        since = one.settled_at or one.departs_at
        if patience is None or since + patience > self.now:
            return
        ids = ", ".join(map(str, one.unknown)) or "none"
        text = f"Delivery {one.id} of batch {one.batch} has waited for a person since {told_moment(since, zone=self.zone(one.batch))}. Ask the recipient whether it arrived, then `leadferry dispatch confirm|fail ID --reason TEXT`; the ids: {ids}."
        yield self._finding(one.batch, Kind.HELD, text, since=since)


def look(database: Database, config: Path, *, now: datetime) -> Look:
    """Read the batch files and ask the lead store; a handful of queries, however many batches there are.

    Queues that do not follow their batch files yet are brought up to date first (`leadferry.watch.queues.follow`).

    Args:
        database: the lead store.
        config: see `leadferry.project.config_folder`.
        now: the present, aware; notes that schedules were seen as they are.
    """
    batches, errors = load_all(config)
    fine = {batch.id: batch for batch in batches}
    schedules = {batch.id: _schedule_hash(batch) for batch in batches}
    follow(database, fine)
    return Look(
        config=config,
        now=now,
        batches=fine,
        broken=[one for one in batch_ids(config) if one not in fine],
        errors=errors,
        since=incidents.watch_schedules(database, schedules, now=now),
        departed=incidents.last_departures(database),
        queues=queues(database),
        unsettled=incidents.unsettled(database),
        open=incidents.open_incidents(database),
    )


def _schedule_hash(batch: Batch) -> str:
    deciding = batch.model_dump(mode="json", include={"schedule", "timezone", "enabled"})
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _missing(batch: Batch, due: datetime) -> str:
    ready = batch.conditions.ready
    waits = f" or still waits for {ready}" if ready else ""
    return (
        f"Batch {batch.id} should have departed on {told_moment(due)} and there is no delivery. Its leads wait"
        f" in the queue. Look in Airflow whether the DAG {batch.dag_id} is paused or has an import error, whether its run"
        f" is stuck in extract{waits}, and whether the scheduler and the dag-processor run; trigger the DAG to deliver now."
    )


def _doubt(one: Unsettled) -> str:
    tasks = ", ".join(f"deliver.{name}" for name in one.sending) or "mark_delivered"
    return (
        f"Nobody works on delivery {one.id} of batch {one.batch} any more; it is {one.state}, and what became of it"
        f" could not be found out. `leadferry dispatch list {one.id}` shows what is in doubt; clear {tasks} of run"
        f" {one.run_id} in Airflow with everything downstream, which asks the destination again."
    )
