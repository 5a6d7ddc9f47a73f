"""Leads made up for a test delivery: each value is one that the batch's transforms and files can handle."""

from __future__ import annotations

from leadferry.batch.model import Batch
from leadferry.formats.fixed_width import FixedWidth
from leadferry.mapping.fields import OutputField
from leadferry.mapping.sources import OWN
from leadferry.mapping.transforms import Transform

FEWEST = 2


def made_up_leads(batch: Batch) -> list[dict[str, str]]:
    """Return the fields of a few leads that nobody sent, with a value for every field that the batch reads.

    Two, or as many as it takes to have one in every segment: a test must reach what gets only one of them.
    """
    divided = [file.segment for file in batch.files if file.segment is not None]
    many = max([FEWEST, *(len(one.values) for one in divided)])
    leads = [_lead(batch, number) for number in range(1, many + 1)]
    for segment in divided:
        if segment.by not in OWN:
            for index, lead in enumerate(leads):
                lead[segment.by.removeprefix("fields.")] = segment.values[index % len(segment.values)]
    return leads


def _lead(batch: Batch, number: int) -> dict[str, str]:
    summed = {label for file in batch.files if file.control for label in file.control.sums}
    values: dict[str, str] = {}
    for field in batch.fields:
        for source in field.sources:
            if source not in OWN:
                value = _value(field, "#" if field.to in summed else _text(source))
                told = value.replace("#", str(number))
                values.setdefault(source.removeprefix("fields."), told[: _room(batch, field)])
    return values


def _room(batch: Batch, field: OutputField) -> int | None:
    """Return the width of a field's narrowest column in files of fixed width; None where there is none."""
    formats = [file.format for file in batch.files if isinstance(file.format, FixedWidth)]
    columns = [column for one in formats for column in one.columns if column.name == field.to]
    return None if field.transform else min((one.width for one in columns), default=None)


def _text(source: str) -> str:
    return "test#@example.com" if "mail" in source.lower() else "TEST"


def _value(field: OutputField, otherwise: str) -> str:
    """Return a text that the field's first demanding step accepts; `#` becomes the lead's number."""
    for step in field.transform:
        found = _accepted_by(step)
        if found is not None:
            return found
    return otherwise


_ANY_DAY = "2026-01-0#"
_TYPED = {"integer": "#", "number": "#", "boolean": "true", "date": _ANY_DAY, "datetime": _ANY_DAY}


def _accepted_by(step: Transform) -> str | None:
    """Return a text that this step handles, or None where it takes any."""
    if step.phone is not None:
        return _phone_number(step.phone.region)
    if step.lookup is not None:
        return next(iter(step.lookup.table))
    if step.type is not None:
        return _TYPED[step.type.to]
    if step.date is not None:
        return _ANY_DAY
    return "#" if step.number is not None else "true" if step.boolean is not None else None


def _phone_number(region: str) -> str | None:
    import phonenumbers

    example = phonenumbers.example_number(region)
    return (
        None if example is None else phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    )
