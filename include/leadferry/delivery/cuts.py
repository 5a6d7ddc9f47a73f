"""How the leads of a delivery are divided into the parts of a file: by a field's value, by number, by size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, String, case, func, literal, null

from leadferry.batch.files import OutputFile, Segment
from leadferry.batch.model import Batch
from leadferry.mapping.sources import source
from leadferry.store.database import Database
from leadferry.store.leads import count_by, read_ids
from leadferry.store.ledger import Delivery, withhold
from leadferry.store.tables import lead


@dataclass(frozen=True, kw_only=True)
class Pile:
    """The leads of one segment, or all of them: one stream, from which the parts are cut."""

    segment: str
    """The field's value; empty where the file has no segments."""
    leads: int
    where: ColumnElement[bool] | None

    def parts(self, file: OutputFile) -> int:
        """Return how many parts it has; 1 where that is only known when they are written (a limit in bytes)."""
        most = file.split.rows if file.split else None
        return 1 if most is None else max(1, -(-self.leads // most))


def piles(database: Database, delivery: Delivery, file: OutputFile) -> Iterator[Pile]:
    """Yield the piles of a file in a fixed order; one without leads when there are none at all."""
    if file.segment is None or not delivery.included:
        yield Pile(segment="", leads=delivery.included, where=None)
        return
    value = _segment_of(file.segment)
    for segment, leads in sorted(count_by(database, delivery.id, value).items()):
        yield Pile(segment=segment, leads=leads, where=value == segment)


def withhold_unknown_segments(database: Database, batch: Batch, delivery: Delivery) -> bool:
    """Keep back leads that belong to no segment, where a file says so; tell whether there were any."""
    found = False
    for file in batch.files:
        if file.segment is not None and file.segment.unknown == "withhold":
            ids = read_ids(database, delivery.id, where=_segment_of(file.segment).is_(None))
            if ids:
                withhold(database, delivery.id, dict.fromkeys(ids, f"segment {file.segment.by}"))
                found = True
    return found


def in_a_segment(segment: Segment) -> ColumnElement[bool]:
    """Return the SQL condition that a lead goes into one of the files, and is not withheld."""
    return _segment_of(segment).is_not(None)


def segment_condition(segment: Segment, value: str) -> ColumnElement[bool]:
    """Return the condition on the table `lead` for the leads of one segment."""
    return _segment_of(segment) == value


def _segment_of(segment: Segment) -> ColumnElement[str]:
    """Return the SQL expression for a lead's segment; NULL where it has none and is to be withheld."""
    trimmed = func.btrim(source(segment.by, lead), type_=String)
    value: ColumnElement[str] = case((trimmed.in_(segment.values), trimmed), else_=null())
    return value if segment.unknown == "withhold" else func.coalesce(value, literal(segment.default))
