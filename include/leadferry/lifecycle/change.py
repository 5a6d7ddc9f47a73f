"""What a person does to batches: each action is planned, tried, then carried out, with one result per batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leadferry.batch.load import batch_ids, load_all, load_batch
from leadferry.batch.model import Batch
from leadferry.batch.problems import did_you_mean
from leadferry.errors import BatchConfigError, LeadferryError, StoreError
from leadferry.lifecycle import edit
from leadferry.store import precedents, waiting
from leadferry.store.audit import record
from leadferry.store.database import Database


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who changes the files, and where that is written down."""

    actor: str
    database: Database | None
    """None where there is no lead store, as in a checkout on somebody's desk; Git knows the author then."""
    reason: str | None = None
    """Why, in the author's words."""

    def record(self, action: str, batch_id: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write an audit row about a batch (I8)."""
        self.record_about(f"batch {batch_id}", action, detail)

    def record_about(self, subject: str, action: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write an audit row (I8)."""
        if self.database is None:
            return
        told = dict(detail or {}) | ({} if self.reason is None else {"reason": self.reason})
        with self.database.transaction() as connection:
            record(connection, actor=self.actor, action=action, subject=subject, detail=told)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one batch."""

    batch: str
    changed: bool
    text: str
    """What was done, or why not."""
    ok: bool = True


def chosen(config: Path, ids: Sequence[str], *, tag: str | None = None, every: bool = False) -> list[str]:
    """Return the ids of the batches that were named, or have a tag, or all of them.

    Raises:
        BatchConfigError: an id is not known, no batch has the tag, or nothing was named.
    """
    known = batch_ids(config)
    if unknown := [one for one in ids if one not in known]:
        near = did_you_mean(unknown[0], known)
        raise BatchConfigError(
            f"There is no batch {unknown[0]!r}{near}", hint="`leadferry batches` lists them"
        )
    if tag is not None:
        found = [batch.id for batch in load_all(config)[0] if tag in batch.tags]
        if not found:
            raise BatchConfigError(
                f"No batch has the tag {tag!r}", hint="`leadferry batches --json` shows tags"
            )
        return found
    if not ids and not every:
        raise BatchConfigError("No batch was named", hint="Name batches, or say --tag TAG or --all")
    return known if every else list(ids)


def set_keys(config: Path, ids: Sequence[str], changes: Mapping[str, Any], *, by: Author) -> list[Result]:
    """Set keys of several batches: those that would not load afterwards stay as they are and say why.

    Args:
        config: see `config_folder`.
        ids: which batches.
        changes: see `edit.changed`.
        by: who.
    """
    results: dict[str, Result] = {}
    before, after = {}, {}
    for one in ids:
        try:
            before[one] = edit.text_of(config, one)
            after[one] = edit.changed(before[one], changes)
        except BatchConfigError as error:
            results[one] = _refused(one, error)
    for one, fault in edit.tried(config, after).items():
        results[one] = (
            _refused(one, fault) if fault else _written(config, one, before[one], after[one], changes, by=by)
        )
    return [results[one] for one in ids]


def planned(config: Path, batch_id: str, changes: Mapping[str, Any]) -> str:
    """Return the change of one batch's file as a diff; nothing is written.

    Raises:
        BatchConfigError: the batch would not load afterwards.
    """
    before = edit.text_of(config, batch_id)
    after = edit.changed(before, changes)
    edit.check(config, batch_id, after)
    return edit.difference(before, after, name=f"{config.name}/batches/{batch_id}.yaml")


def _refused(batch_id: str, error: LeadferryError) -> Result:
    return Result(batch=batch_id, changed=False, ok=False, text=str(error))


def _written(  # noqa: PLR0913  (one file, before and after)
    config: Path, batch_id: str, before: str, after: str, changes: Mapping[str, Any], *, by: Author
) -> Result:
    if after == before:
        return Result(batch=batch_id, changed=False, text="was so already")
    edit.write(config, batch_id, after)
    by.record("batch.change", batch_id, {"keys": sorted(changes)})
    return Result(batch=batch_id, changed=True, text=", ".join(sorted(changes)))


def enable(config: Path, ids: Sequence[str], *, by: Author) -> list[Result]:
    """Switch batches on: from its next time on each departs. One that must be tested first is refused until it was."""
    return [_enable(config, one, by=by) for one in ids]


def _enable(config: Path, batch_id: str, *, by: Author) -> Result:
    try:
        batch = load_batch(batch_id, config=config)
        if batch.enabled:
            return Result(batch=batch_id, changed=False, text="was enabled already")
        if batch.must_test and not _tested(by.database, batch):
            told = f"not enabled: must_test is set, and this config had no successful test; run `leadferry batches test {batch_id}`"
            return Result(batch=batch_id, changed=False, ok=False, text=told)
    except LeadferryError as error:
        return _refused(batch_id, error)
    _switch(config, batch_id, on=True)
    by.record("batch.enable", batch_id)
    return Result(batch=batch_id, changed=True, text="enabled")


def _tested(database: Database | None, batch: Batch) -> bool:
    if database is None:
        raise StoreError(
            "Whether the batch was tested stands in the lead store, which is not configured",
            hint="Set AIRFLOW_CONN_LEADFERRY",
        )
    return precedents.was_tested(database, batch.id, batch.model_dump(mode="json"))


def disable(config: Path, ids: Sequence[str], *, by: Author) -> list[Result]:
    """Switch batches off: nothing departs, leads go on being collected."""
    return [_disable(config, one, by=by) for one in ids]


def _disable(config: Path, batch_id: str, *, by: Author) -> Result:
    try:
        if not load_batch(batch_id, config=config).enabled:
            return Result(batch=batch_id, changed=False, text="was disabled already")
    except LeadferryError as error:
        return _refused(batch_id, error)
    _switch(config, batch_id, on=False)
    by.record("batch.disable", batch_id)
    return Result(batch=batch_id, changed=True, text="disabled")


def _switch(config: Path, batch_id: str, *, on: bool) -> None:
    edit.write(config, batch_id, edit.changed(edit.text_of(config, batch_id), {"enabled": on}))


def copy(config: Path, source: str, new: str, *, name: str | None, by: Author) -> Path:
    """Make a batch like another one: a new id, disabled, without history; its queue starts with its first routing.

    Raises:
        BatchConfigError: there is no such batch, or the new id is taken or would not load.
    """
    chosen(config, [source])
    _refuse_taken(config, new)
    old = load_batch(source, config=config)
    text = edit.changed(
        edit.text_of(config, source), {"name": name or f"{old.name} (copy)", "enabled": False}
    )
    edit.check(config, new, text)
    file = edit.write(config, new, text)
    by.record("batch.copy", new, {"from": source})
    return file


def create(config: Path, new: str, text: str, *, by: Author) -> Path:
    """Write a new batch file if it loads.

    Raises:
        BatchConfigError: the id is taken, or the text would not load; nothing is written.
    """
    _refuse_taken(config, new)
    edit.check(config, new, text)
    file = edit.write(config, new, text)
    by.record("batch.create", new)
    return file


def _refuse_taken(config: Path, new: str) -> None:
    if new in batch_ids(config):
        raise BatchConfigError(
            f"There is a batch {new!r} already", hint="Choose another id, or change that one"
        )


def obstacles(config: Path, batch_id: str, *, database: Database | None) -> list[str]:
    """Return why a batch should not be deleted: others pass leads to it, leads that wait, deliveries that are not settled."""
    return [*_references(config, batch_id), *_open_ends(batch_id, database=database)]


def _references(config: Path, batch_id: str) -> list[str]:
    others = [one for one in load_all(config)[0] if one.id != batch_id]
    told = "batch {!r} passes leads on to it (next_batch)"
    return [
        told.format(one.id) for one in others if any(cap.next_batch == batch_id for cap in one.select.caps)
    ]


def _open_ends(batch_id: str, *, database: Database | None) -> list[str]:
    if database is None:
        return []
    waits = waiting.queues(database).get(batch_id)
    queue = [f"{waits.leads} leads wait for it"] if waits else []
    return queue + [
        f"delivery {one['id']} is {one['state']}" for one in precedents.unsettled(database, batch_id)
    ]


def delete(config: Path, batch_id: str, *, force: bool, by: Author) -> list[str]:
    """Remove a batch's file; what it delivered stays in the store. Returns the obstacles that `force` overrode.

    Raises:
        BatchConfigError: there is no such batch, or something stands against it and `force` is not set.
    """
    chosen(config, [batch_id])
    against = obstacles(config, batch_id, database=by.database)
    if against and not force:
        raise BatchConfigError(
            f"Batch {batch_id!r} is not deleted: {'; '.join(against)}",
            hint="Deliver or cancel what waits, or say --force; history is kept either way",
        )
    edit.batch_file(config, batch_id).unlink()
    by.record("batch.delete", batch_id, {"overridden": against})
    return against
