"""The mapped leads with their ids, for destinations that take leads one by one instead of files.

One more stored file of the delivery: NDJSON, one line per lead in the delivery's order,
`{"lead_id": 123, "fields": {"First Name": "…", …}}`. It is hashed, archived and never changed like every file,
so what a buyer's API or table was given can be looked up and sent again byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from leadferry.batch.model import Batch
from leadferry.formats.base import json_lines
from leadferry.mapping.fields import LEAD_ID
from leadferry.store.ledger import Delivery

if TYPE_CHECKING:
    import polars as pl

RECORDS = "_records"
"""Key of the file in the ledger; no file of a batch can have it, because ids begin with a letter."""

MEDIA_TYPE = "application/x-ndjson"


def records_name(batch: Batch, delivery: Delivery) -> str:
    """Name the file for people who look at the ledger; no destination sees the name."""
    return f"{batch.id}_{delivery.id}.records.ndjson"


def write_records(frames: Iterable[pl.DataFrame], out: BinaryIO) -> None:
    """Write mapped frames that also have the column `LEAD_ID`; missing values are null."""
    out.writelines(json_lines(_as_records(frame), nested=False, nulls=True) for frame in frames)


def _as_records(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    # NDJSON knows no decimals, and inside a struct nobody would turn them into numbers.
    fields = frame.drop(LEAD_ID).with_columns(pl.selectors.decimal().cast(pl.Float64))
    return pl.DataFrame({"lead_id": frame.get_column(LEAD_ID), "fields": fields.to_struct()})
