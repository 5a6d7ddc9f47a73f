"""The guard against a changed mapping: leads that wait should not go with other columns than the recipient expects.

A delivery under way is safe anyhow: it keeps the configuration that was frozen when it took its leads.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leadferry.batch.model import Batch
from leadferry.errors import DepartureRefusedError
from leadferry.store import precedents
from leadferry.store.audit import record
from leadferry.store.database import Database

_log = logging.getLogger(__name__)

ACTION = "fields.acknowledge"


@dataclass(frozen=True, kw_only=True)
class FieldChanges:
    """How the columns of a batch differ from those that were delivered last, by their labels."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """Another source, other steps."""
    moved: bool
    """The same columns in another order."""

    def __str__(self) -> str:
        """Say it in words; nothing of a lead is in it."""
        parts = [
            f"{what} {', '.join(repr(one) for one in labels)}"
            for what, labels in (("added", self.added), ("removed", self.removed), ("changed", self.changed))
            if labels
        ]
        return "; ".join(parts) or "another order"


def field_changes(database: Database, batch: Batch) -> FieldChanges | None:
    """Compare the fields with those of the last delivery; None where they are the same, or nothing was delivered yet."""
    last = precedents.last_config(database, batch.id)
    if last is None:
        return None
    before, now = _by_label(last), _by_label(batch.model_dump(mode="json"))
    if list(before.items()) == list(now.items()):
        return None
    return FieldChanges(
        added=tuple(label for label in now if label not in before),
        removed=tuple(label for label in before if label not in now),
        changed=tuple(label for label in now if label in before and before[label] != now[label]),
        moved=list(before) != list(now),
    )


def _by_label(config: Mapping[str, Any]) -> dict[str, Any]:
    return {field["to"]: field for field in config.get("fields", [])}


def guard(database: Database, batch: Batch) -> FieldChanges | None:
    """Let a departure go on, as the batch's policy for changed fields says; return a change to tell of.

    Raises:
        DepartureRefusedError: the policy is `acknowledge`, and nobody did.
    """
    if batch.when_fields_change == "apply":
        return None
    found = field_changes(database, batch)
    if found is None:
        return None
    if batch.when_fields_change == "acknowledge" and not _is_acknowledged(database, batch):
        raise DepartureRefusedError(
            f"The fields of batch {batch.id!r} changed since its last delivery ({found}), and nobody acknowledged that",
            hint=f"`leadferry batches acknowledge {batch.id}` does, or undo the change; leads that wait stay in the queue",
        )
    _log.warning("The fields of batch %s changed since its last delivery: %s", batch.id, found)
    return found


def acknowledge(database: Database, batch: Batch, *, actor: str) -> FieldChanges | None:
    """Say that the recipient expects the fields as they are now; return what changed. Leaves an audit row.

    Any later change needs an acknowledgement of its own.
    """
    found = field_changes(database, batch)
    with database.transaction() as connection:
        detail = {"fields": _digest(batch), "changes": str(found) if found else "none"}
        record(connection, actor=actor, action=ACTION, subject=f"batch {batch.id}", detail=detail)
    return found


def _is_acknowledged(database: Database, batch: Batch) -> bool:
    return precedents.has_audit(
        database, action=ACTION, subject=f"batch {batch.id}", detail={"fields": _digest(batch)}
    )


def _digest(batch: Batch) -> str:
    fields = batch.model_dump(mode="json")["fields"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
