"""What templates of one delivery may use: the same values in file names, subjects, bodies and control records."""

from __future__ import annotations

from typing import Any

from leadferry.batch.model import Batch
from leadferry.file_names import marked_name
from leadferry.states import DeliveryKind
from leadferry.store.ledger import Delivery
from leadferry.templates import variables
from leadferry.zones import time_zone


def recipient_zone(batch: Batch) -> str:
    """Return the zone in which dates are written: the recipient's, else the batch's."""
    return batch.recipient.timezone or batch.timezone


def _fiscal(batch: Batch, delivery: Delivery) -> dict[str, str] | None:
    """Return the period of the calendar's fiscal year on the recipient's day of departure; None without a calendar."""
    calendar = None if batch.schedule == "manual" else batch.schedule.calendar
    if calendar is None:
        return None
    period = calendar.fiscal.period_of(
        delivery.departs_at.astimezone(time_zone(recipient_zone(batch))).date()
    )
    return {
        "fiscal_year": f"{period.year}",
        "fiscal_quarter": f"Q{period.quarter}",
        "fiscal_period": f"P{period.number:02}",
    }


def test_mark(delivery: Delivery) -> str:
    """Return what the names of a test delivery's files begin with, so that nobody takes them for real ones.

    The delivery's id is in it: tests have no number of their own, and the files of the last one may still be there.
    """
    return f"TEST_{delivery.id}_" if delivery.kind is DeliveryKind.TEST else ""


def marked(delivery: Delivery, name: str) -> str:
    """Return the name of a delivery's file with what marks it as a test (`TEST_…`) or a redelivery (`…_R1.csv`)."""
    return f"{test_mark(delivery)}{marked_name(name, delivery.mark)}"


def file_variables(batch: Batch, delivery: Delivery, **about_the_file: Any) -> dict[str, Any]:
    """Return what templates may use about a delivery, and about one of its files.

    Args:
        batch: the frozen configuration.
        delivery: whose leads.
        about_the_file: `file_id`, `file_name`, `file_part`, `file_parts`, `file_segment` as `leadferry.templates.variables` takes them.
    """
    return variables(
        batch_id=batch.id,
        batch_name=f"{'TEST_' if delivery.kind is DeliveryKind.TEST else ''}{batch.name}",
        batch_description=batch.description,
        recipient_id=batch.recipient.id,
        recipient_name=batch.recipient.name,
        timezone=recipient_zone(batch),
        locale=batch.recipient.locale,
        delivery_id=str(delivery.id),
        delivery_number=delivery.number or 0,
        departs_at=delivery.departs_at,
        window_from=delivery.window_from,
        window_to=delivery.window_to,
        lead_count=delivery.included,
        fiscal=_fiscal(batch, delivery),
        **about_the_file,
    )
