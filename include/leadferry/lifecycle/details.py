"""One delivery, told to somebody who asks what became of it; also when the batch's file is long gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leadferry.batch.load import load_batch
from leadferry.batch.secret_literals import is_secret_key, redact
from leadferry.errors import BatchConfigError, LeadferryError
from leadferry.lifecycle.versions import changes_between
from leadferry.store import history
from leadferry.store.database import Database


def details(database: Database, delivery_id: int, *, config: Path) -> dict[str, Any]:
    """Return all that is known about a delivery; no lead's data, but buyers' names, addresses and places.

    Beside the columns of the delivery: `withheld_reasons`, `files`, `dispatches` (each with its `attempts` and,
    after an error, the `hint` what to do), `answers` of buyers, `config_version` and `config_changes` since then
    (None when the batch has no readable file any more), `done_by` people.

    Args:
        database: the lead store.
        delivery_id: which one.
        config: the config folder, for the batch as it is now.

    Raises:
        StoreError: there is no such delivery.
    """
    row = history.delivery_row(database, delivery_id)
    used = row.pop("config")
    tries = history.attempts(database, delivery_id)
    sent = history.dispatches(database, delivery_id)
    for one in sent:
        one["hint"] = hint_of(one["error_code"])
        mine = [attempt for attempt in tries if attempt["dispatch"] == one["id"]]
        one["tries"] = [{key: attempt[key] for key in _OF_A_TRY} for attempt in mine]
    return {
        **row,
        "recipient": used["recipient"]["id"],
        "withheld_reasons": history.withheld_reasons(database, delivery_id),
        "files": history.files(database, delivery_id=delivery_id, limit=_ALL)[::-1],
        "dispatches": sent,
        "answers": history.answers_by_outcome(database, delivery_id),
        "config_changes": changes_since(used, row["batch"], config=config),
        "done_by": history.done_to(database, delivery_id),
    }


_ALL = 1_000_000
_OF_A_TRY = ("number", "worker", "started_at", "ended_at", "seconds", "outcome", "error_code", "error")


def changes_since(used: dict[str, Any], batch_id: str, *, config: Path) -> list[str] | None:
    """Return what changed from a configuration to the batch's present one; None when it has none that loads."""
    try:
        now = load_batch(batch_id, config=config)
    except BatchConfigError:
        return None
    return list(changes_between(used, now.model_dump(mode="json")))


def shown_config(database: Database, delivery_id: int) -> dict[str, Any]:
    """Return the configuration that a delivery used, with everything that looks like a secret masked.

    Raises:
        StoreError: there is no such delivery.
    """
    found: dict[str, Any] = _without_secrets(history.delivery_row(database, delivery_id)["config"])
    return found


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "(a secret)" if is_secret_key(key) and isinstance(one, str) else _without_secrets(one)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    return redact(value) if isinstance(value, str) else value


def hint_of(code: str | None) -> str | None:
    """Return what to do about an error of this code, as its class says; None for a code that is not known."""
    return next((kind.hint for kind in _kinds(LeadferryError) if kind.code == code and kind.hint), None)


def _kinds(kind: type[LeadferryError]) -> Iterator[type[LeadferryError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)
