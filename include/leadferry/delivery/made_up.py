"""Leads made up for a test delivery: each value is one that the batch's transforms can handle."""

from __future__ import annotations

from leadferry.batch.model import Batch
from leadferry.mapping.fields import OutputField
from leadferry.mapping.sources import OWN
from leadferry.mapping.transforms import Transform

HOW_MANY = 2


def made_up_leads(batch: Batch) -> list[dict[str, str]]:
    """Return the fields of a few leads that nobody sent, with a value for every field that the batch reads."""
    values: dict[str, str] = {}
    for field in batch.fields:
        for source in field.sources:
            if source not in OWN:
                values.setdefault(source.removeprefix("fields."), _value(source, field))
    return [
        {name: value.replace("#", str(number)) for name, value in values.items()}
        for number in range(1, HOW_MANY + 1)
    ]


def _value(source: str, field: OutputField) -> str:
    """Return a text that the field's first demanding step accepts; `#` becomes the lead's number."""
    for step in field.transform:
        found = _accepted_by(step)
        if found is not None:
            return found
    return "test#@example.com" if "mail" in source.lower() else "TEST"


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
