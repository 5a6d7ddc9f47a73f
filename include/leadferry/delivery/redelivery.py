"""First step of a redelivery: from what a person asked for to the claim of the chosen leads.

The frozen configuration is the batch's as its file says now, cut down to the one destination.
Caps, minimums, windows and the timetable do not count: a person decided. Rules do, unless told otherwise.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_

from leadferry.batch.eligibility import dedupe_of, failing, failing_always
from leadferry.batch.model import Batch
from leadferry.batch.timing import Timing
from leadferry.delivery.cuts import segment_condition
from leadferry.delivery.extract import Trigger, departure, may_depart
from leadferry.delivery.holding import why_on_hold
from leadferry.delivery.records import RECORDS
from leadferry.delivery.redelivery_params import STANDINGS, Redeliver
from leadferry.destinations.base import DestinationBase
from leadferry.destinations.email import Email
from leadferry.destinations.email.settings import Personal
from leadferry.errors import BatchConfigError, DepartureRefusedError, StoreError
from leadferry.mapping.rule_sql import is_met
from leadferry.mapping.sources import source
from leadferry.states import DeliveryKind, FileKind
from leadferry.store import ledger, settling
from leadferry.store.choosing import Request, Wanted
from leadferry.store.database import Database
from leadferry.store.history import get_file
from leadferry.store.leads import read_leads
from leadferry.store.ledger import StoredFile
from leadferry.store.redelivery import Chosen, redeliver
from leadferry.store.tables import lead
from leadferry.zones import time_zone

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """Who asks for a redelivery, and when."""

    run_id: str
    """The Airflow run, or a name of the command line's own; the same one twice is one delivery."""
    at: datetime
    """Aware."""
    actor: str


def claim_redelivery(database: Database, batch: Batch, params: Redeliver, by: ByHand) -> Chosen:
    """Take the chosen leads into a delivery to one destination, or find out what would go.

    Raises:
        BatchConfigError: the batch has no such destination, or a stored file is not the batch's.
        DepartureRefusedError: the batch is disabled, untested, held or suspended.
        NothingToDeliverError: no lead of the selection may go; says why.
        StoreError: a lead is not known, or leads are being sent there at this moment.
    """
    _require_destination(batch, params.destination)
    settling.recover_stale(database)
    file = None if params.file_id is None else _file_of(database, batch, params.file_id)
    if not params.dry_run:
        _refuse_closed(database, batch, only(batch, params.destination))
    request = _request(database, batch, params, by, file)
    chosen = redeliver(database, request, dry_run=params.dry_run)
    _tell(chosen, params, request, has_caps=bool(batch.select.caps))
    return chosen


def only(batch: Batch, destination_id: str) -> Batch:
    """Return the batch with one destination, without fallback, and only with the files that it gets."""
    chosen = batch.destination(destination_id)
    alone: dict[str, Any] = {"fallback_for": None, "primary": False}
    destinations = [chosen.model_copy(update=alone)]
    if isinstance(chosen, Email) and chosen.link_via is not None:
        # The store of what mails link to stays, but gets no files of its own.
        destinations = [chosen.model_copy(update={**alone, "link_via_gets_files": False})]
        whole: dict[str, Any] = {"files": None, "segments": None, "max_rows": None, "max_bytes": None}
        destinations.append(batch.destination(chosen.link_via).model_copy(update={**alone, **whole}))
    changes: dict[str, Any] = {"destinations": destinations, "success": "all", **_files_for(batch, chosen)}
    return Batch.model_validate(batch.model_copy(update=changes).model_dump(mode="json"))


def _files_for(batch: Batch, chosen: DestinationBase) -> dict[str, Any]:
    """Return the keys of the batch that say which files there are, without those that go elsewhere."""
    if chosen.takes == "leads":
        return {"files": [], "bundles": [], "manifest": None, "done_marker": None}
    gets = {one.id for one in batch.files_for(chosen.id)}
    bundles = [one for one in batch.bundles if one.id in gets]
    gets |= {name for bundle in bundles for name in bundle.files}
    if isinstance(chosen, Email):
        gets |= {name for one in chosen.to if isinstance(one, Personal) for name in one.files or []}
    return {"files": [one for one in batch.files if one.id in gets], "bundles": bundles}


def _require_destination(batch: Batch, destination_id: str) -> None:
    known = [one.id for one in batch.destinations if one.id not in batch.stores_for_links]
    if destination_id not in known:
        raise BatchConfigError(
            f"destination: batch {batch.id!r} has no destination {destination_id!r}; it has {', '.join(known)}",
            hint="Nothing was claimed; choose one of these and trigger again",
        )


def _refuse_closed(database: Database, batch: Batch, cut: Batch) -> None:
    may_depart(database, batch)
    held = why_on_hold(database, cut, DeliveryKind.REDELIVERY)
    if held is not None:
        raise DepartureRefusedError(
            f"Nothing is sent to {cut.destinations[0].id!r} at present: {held}",
            hint="`leadferry suspensions` lists what is held, `leadferry resume NAME --reason TEXT` ends it; nothing was claimed",
        )


def _request(
    database: Database, batch: Batch, params: Redeliver, by: ByHand, file: StoredFile | None
) -> Request:
    cut = only(batch, params.destination)
    trigger = Trigger(run_id=by.run_id, departs_at=by.at, actor=by.actor)
    return Request(
        departure=departure(cut, trigger, params=params.for_the_record()),
        destination=params.destination,
        ways=batch.ways()[batch.way_of(params.destination)],
        wanted=_wanted(database, batch, params, file),
        failed_rule=failing(batch, lead),
        failed_always=failing_always(batch, lead),
        dedupe=None if params.skip_dedupe else dedupe_of(batch, lead),
        must_wait=_must_wait(batch, params, by),
        skip_rules=params.skip_rules,
        include_delivered=params.include_delivered,
        assign_others=params.assign_others,
        count=params.count,
        order=params.order,
        seed=secrets.randbelow(2**63) if params.seed is None else params.seed,
        edits=params.edits_of_all,
        edits_of=params.edits_by_lead,
        persist_edits=params.persist_edits,
        reason=params.reason,
        file=file if params.as_sent else None,
        mark=params.mark,
    )


def _must_wait(batch: Batch, params: Redeliver, by: ByHand) -> ColumnElement[bool] | None:
    if params.override_window:
        return None
    return Timing.of(batch).must_wait(lead, max(by.at, datetime.now(tz=UTC)))


def _wanted(database: Database, batch: Batch, params: Redeliver, file: StoredFile | None) -> Wanted:
    conditions = [is_met(one, lead, timezone=batch.timezone) for one in params.where or []]
    return Wanted(
        lead_ids=params.lead_ids if file is None else leads_of(database, file),
        flow=params.flow,
        received_from=_aware(params.received_from, batch),
        received_to=_aware(params.received_to, batch),
        standings=[STANDINGS[one] for one in params.status] if params.status else None,
        rule=params.rule,
        where=and_(*conditions) if conditions else None,
        of_delivery=params.delivery_id,
        failed_since=_aware(params.failed_since, batch),
    )


def _aware(moment: datetime | None, batch: Batch) -> datetime | None:
    """Read a time without an offset in the batch's zone."""
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=time_zone(batch.timezone))


# --- stored files


def _file_of(database: Database, batch: Batch, file_id: int) -> StoredFile:
    """Return a file with leads of this batch."""
    file = get_file(database, file_id)
    if (
        file.kind is not FileKind.LEADS
        or ledger.get_delivery(database, file.delivery_id).batch_id != batch.id
    ):
        raise BatchConfigError(
            f"file_id: file {file_id} is no file with leads of batch {batch.id!r}",
            hint="Nothing was claimed; `leadferry dispatch list DELIVERY` tells the files of a delivery",
        )
    return file


def leads_of(database: Database, file: StoredFile) -> list[int]:
    """Return the ids of the leads in a stored file, in its order.

    A part's leads are found by their place in the delivery, as they were when it was written.

    Raises:
        StoreError: fields of the leads changed since, so that it cannot be told any more.
    """
    delivery = ledger.get_delivery(database, file.delivery_id)
    parts = [
        one
        for one in ledger.stored_files(database, delivery.id)
        if one.kind is FileKind.LEADS and one.key == file.key and one.segment == file.segment
    ]
    where = _segment_of(Batch.model_validate(delivery.config), file)
    ids = {"id": source("id", lead)}
    found = [
        int(one)
        for frame in read_leads(database, delivery.id, ids, where=where)
        for one in frame.get_column("id")
    ]
    if len(found) != sum(one.rows for one in parts):
        raise StoreError(
            f"Nobody can tell any more which leads are in file {file.id}: they were edited since",
            hint=f"Redeliver the leads of delivery {delivery.id} instead (delivery_id), with current settings",
        )
    first = sum(one.rows for one in parts if one.part < file.part)
    return found[first : first + file.rows]


def _segment_of(batch: Batch, file: StoredFile) -> ColumnElement[bool] | None:
    if not file.segment or file.key == RECORDS:
        return None
    written = next(one for one in batch.files if one.id == file.key.partition(".")[0])
    return None if written.segment is None else segment_condition(written.segment, file.segment)


# --- what is told


def _tell(chosen: Chosen, params: Redeliver, request: Request, *, has_caps: bool) -> None:
    """Say in the log what goes and what does not: counts, ids, reasons."""
    would = "would go" if params.dry_run else "go"
    _log.info("%s of %s selected leads %s to %r", chosen.included, chosen.selected, would, params.destination)
    if params.count is not None and params.count > chosen.available:
        _log.warning("Asked for %s leads, but only %s may go: all of them do", params.count, chosen.available)
    if params.order == "random":
        _log.info("Drawn at random with seed %s", request.seed)
    for why, leads in chosen.left_out.items():
        _log.info("Left out, %s: %s leads", why, leads)
    for rule, leads in chosen.withheld.items():
        _log.info("Withheld by rule %r: %s leads", rule, leads)
    for rule, leads in chosen.skipped_rules.items():
        _log.warning("Rule %r was skipped for %s leads", rule, leads)
    if has_caps:
        _log.warning("The batch's caps are ignored: a redelivery neither heeds nor uses them up")
    if chosen.mark:
        _log.info("Marked as %s", chosen.mark)
    for row in chosen.leads if params.dry_run else ():
        edited = ", edited" if row["edited"] else ""
        _log.info("Lead %s (%s%s): %s", row["lead"], row["standing"], edited, row["becomes"])
