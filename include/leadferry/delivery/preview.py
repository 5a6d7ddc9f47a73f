"""What a batch would deliver: a few of the waiting leads, rendered as files, without claiming anything."""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from sqlalchemy import ColumnElement, and_

from leadferry.batch.eligibility import failing
from leadferry.batch.files import OutputFile
from leadferry.batch.model import Batch
from leadferry.batch.received import collects_from
from leadferry.delivery.control_records import ControlRecords
from leadferry.delivery.cuts import in_a_segment
from leadferry.delivery.records import records_name, write_records
from leadferry.delivery.variables import file_variables, recipient_zone
from leadferry.errors import RenderError
from leadferry.file_names import file_name
from leadferry.mapping.fields import LEAD_ID, Mapped, Mapping
from leadferry.mapping.sources import source
from leadferry.packing.pipeline import Packing
from leadferry.project import config_folder
from leadferry.states import DeliveryKind, DeliveryState
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.leads import peek
from leadferry.store.ledger import Delivery
from leadferry.store.routing import route_new_leads
from leadferry.store.tables import lead

if TYPE_CHECKING:
    import polars as pl

MARK = "PREVIEW_"


def preview(  # noqa: PLR0913  (all but three by keyword)
    database: Database, batch: Batch, folder: Path, *, leads: int, now: datetime, actor: str
) -> list[Path]:
    """Render the first leads that would go now into files named PREVIEW_…; nothing is claimed, sent or archived.

    What a destination gets that takes leads one by one stands in a file of records.
    Compressed as in a delivery, but never encrypted, so that it can be looked at; readable by this user only.

    Args:
        database: the lead store.
        batch: as its file says now.
        folder: where the files go; made when it is not there.
        leads: at most this many.
        now: the moment of the departure that is played, aware.
        actor: who looks; recorded, because they see leads.

    Raises:
        RenderError: a value cannot be mapped or written.
    """
    batch_no = route_new_leads(
        database, batch_id=batch.id, flows=batch.flows, received_from=collects_from(batch)
    )
    mapping = Mapping(batch.fields, timezone=recipient_zone(batch), locale=batch.recipient.locale)
    sample = _sample(database, batch, batch_no, mapping, leads=leads)
    frame = sample.frame
    with database.transaction() as connection:
        detail = {"leads": frame.height}
        record(connection, actor=actor, action="batch.preview", subject=f"batch {batch.id}", detail=detail)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for file in batch.files:
        written.append(_write(file, batch, mapping, frame, folder, now=now, taken=written))
    if any(one.takes == "leads" for one in batch.destinations):
        written.append(_records(batch, sample, folder, now=now))
    return written


def _sample(database: Database, batch: Batch, batch_no: int, mapping: Mapping, *, leads: int) -> Mapped:
    columns = {LEAD_ID: lead.c.id, **{name: source(name, lead) for name in mapping.sources}}
    fails = failing(batch, lead)
    conditions: list[ColumnElement[bool]] = [] if fails is None else [fails.is_(None)]
    conditions += [in_a_segment(file.segment) for file in batch.files if file.segment is not None]
    may_go = and_(*conditions) if conditions else None
    most = min(leads, batch.select.limit or leads)
    frame = peek(database, batch_no, columns, where=may_go, order=batch.select.order, limit=most)
    return mapping.apply(frame)


def _records(batch: Batch, sample: Mapped, folder: Path, *, now: datetime) -> Path:
    """Write the leads as a destination that takes them one by one would be given them."""
    path = folder / f"{MARK}{records_name(batch, _played(batch, sample.frame.height, now=now))}"
    with _opened(path) as out:
        write_records([sample.frame.with_columns(sample.lead_ids)], out)
    return path


def _write(  # noqa: PLR0913  (what one file is made of)
    file: OutputFile,
    batch: Batch,
    mapping: Mapping,
    frame: pl.DataFrame,
    folder: Path,
    *,
    now: datetime,
    taken: Collection[Path],
) -> Path:
    delivery = _played(batch, frame.height, now=now)
    values = file_variables(batch, delivery, file_id=file.id, file_segment="sample")
    packing = Packing(compress=file.compress)
    name = packing.file_name(f"{MARK}{file_name(file.name, values)}")
    values["file"]["name"] = name
    records = ControlRecords(file, rows=frame.height, variables=values)
    context = records.context(columns=file.columns(mapping.columns), rows=frame.height)
    path = folder / name
    if any(path.name.casefold() == other.name.casefold() for other in taken):
        raise RenderError(f"two files would be called {name}", hint="Change the names in the batch file")
    with (
        _opened(path) as out,
        packing.open(out, name=name, extension=file.format.extension, config=config_folder()) as packer,
    ):
        file.format.write(records.added_up([frame]), cast("BinaryIO", packer), context)
    return path


def _opened(path: Path) -> BinaryIO:
    """Open a file that only this user may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _played(batch: Batch, leads: int, *, now: datetime) -> Delivery:
    """Return the delivery that would have been, for the templates."""
    return Delivery(
        id=0,
        batch_id=batch.id,
        number=0,
        run_id="preview",
        kind=DeliveryKind.DEPARTURE,
        state=DeliveryState.CLAIMED,
        reason=None,
        on_hold=False,
        departs_at=now,
        window_from=None,
        window_to=now,
        included=leads,
        withheld=0,
        params={},
        config={},
    )
