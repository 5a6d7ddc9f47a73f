"""From the files under `config/` to the effective configuration of one batch.

A batch is made of three files, the weakest first: `defaults.yaml` (any keys of a batch), the recipient's file
(its key `batch` holds keys of a batch) and the batch's own. Mappings are merged key by key, a list or a single
value replaces what it inherits. Loading one batch reads these three files and no other,
so the cost of a task does not grow with the number of batches, and a broken file breaks one batch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leadferry.batch.calendars import CalendarReader
from leadferry.batch.explain import Layer, explain, locate
from leadferry.batch.files import ID_PATTERN
from leadferry.batch.mail_groups import (
    LISTS,
    MAIL_DOMAINS,
    Groups,
    MailingList,
    allowed_domains,
    read_list,
)
from leadferry.batch.model import Batch
from leadferry.batch.problems import BatchFileError, Problem, bugs_told_of, did_you_mean
from leadferry.batch.yaml_file import YamlFile, read_yaml
from leadferry.errors import BatchConfigError
from leadferry.formats.xml_schema import FOLDER
from leadferry.schedule.calendar import Calendar
from leadferry.schedule.library import expand
from leadferry.schedule.usable import why_unusable
from leadferry.units import Duration
from leadferry.zones import zone_names

BATCHES = "batches"
RECIPIENTS = "recipients"
DEFAULTS = "defaults.yaml"

NAMING = "naming"
"""The key of `defaults.yaml` that is no key of a batch: the pattern that names of batches should fit."""

MAINTENANCE = "maintenance"
"""The key of `defaults.yaml` that is no key of a batch: how often the DAG `leadferry_maintenance` runs."""


class Maintenance(BaseModel):
    """How often somebody looks after all batches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: Duration | None = Field(
        default=timedelta(minutes=10), description="How often to look; null for by hand only."
    )


def batch_ids(config: Path) -> list[str]:
    """Return the ids of all batches, sorted, from the names of the files alone.

    A name that is no id is among them: `load_batch` says what is wrong with it.
    """
    return sorted({file.stem for file in _files(config / BATCHES)})


def recipient_files(config: Path) -> list[Path]:
    """Return the files of all recipients, sorted."""
    return [file for file in _files(config / RECIPIENTS) if file.suffix == ".yaml"]


def list_files(config: Path) -> list[Path]:
    """Return the files of all mailing lists, sorted."""
    return [file for file in _files(config / LISTS) if file.suffix == ".yaml"]


def load_batch(batch_id: str, *, config: Path) -> Batch:
    """Return one batch as it will run, with everything that it inherits.

    Args:
        batch_id: name of the file without `.yaml`.
        config: see `config_folder`.

    Raises:
        BatchFileError: all problems that were found, one per line, each with file, line and key.
    """
    return ConfigReader(config).load(batch_id)


def load_all(config: Path) -> tuple[list[Batch], list[BatchConfigError]]:
    """Return every batch that can be loaded, and one error for each that cannot; both in the order of the ids."""
    reader = ConfigReader(config)
    batches: list[Batch] = []
    errors: list[BatchConfigError] = []
    for batch_id in batch_ids(config):
        try:
            batches.append(reader.load(batch_id))
        except BatchConfigError as error:
            errors.append(error)
    return batches, errors


@dataclass
class ConfigReader:
    """Reads the files of one folder, those that batches share once; made for one pass, it does not notice later changes."""

    config: Path
    _read: dict[Path, YamlFile | BatchFileError] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Share the files read with the calendars."""
        self.calendars = CalendarReader(config=self.config, read=self.read)

    def load(self, batch_id: str) -> Batch:
        """Return one batch as it will run; see `load_batch`. A bug met on the way is a problem of this batch alone."""
        with bugs_told_of(f"{self.shown(self.config / BATCHES)}/{batch_id}.yaml"):
            return self._load(batch_id)

    def _load(self, batch_id: str) -> Batch:
        merged = self.merge(batch_id)
        problems = list(merged.problems)
        try:
            batch = Batch.model_validate(merged.data, context={FOLDER: self.config})
        except ValidationError as error:
            told = {(problem.file, problem.path) for problem in problems}
            # The times may stand in the template that is not known: nobody need say them twice.
            told |= {(file, path[:-1]) for file, path in told if path[-2:] == ("schedule", "template")}
            more = explain(error, merged.layers, Batch, complete=merged.complete)
            problems += [problem for problem in more if (problem.file, problem.path) not in told]
        if problems:
            raise BatchFileError.of(problems)
        _refuse_what_airflow_would(batch, merged.layers)
        return self._with_mail_groups(batch, merged)

    def _with_mail_groups(self, batch: Batch, merged: Merged) -> Batch:
        groups = Groups(
            lists=self.mailing_list,
            names=lambda: [file.stem for file in list_files(self.config)],
            domains=allowed_domains(merged.defaults),
        )
        found = groups.resolve(batch, merged.layers)
        if groups.problems:
            raise BatchFileError.of(groups.problems)
        return found

    def mailing_list(self, name: str) -> MailingList:
        """Return a list of mail recipients.

        Raises:
            BatchFileError: the file cannot be read, or is none.
        """
        return read_list(self.read(self.config / LISTS / f"{name}.yaml"))

    def merge(self, batch_id: str) -> Merged:
        """Put a batch together from its files, as far as they can be read.

        Raises:
            BatchFileError: the batch's own file cannot be read.
        """
        _check_file_name(batch_id, folder=self.config / BATCHES, shown=self.shown)
        found = Merged(batch=self._fresh(self.config / BATCHES / f"{batch_id}.yaml"))
        defaults = self.config / DEFAULTS
        with found.collecting():
            found.defaults = self.read(defaults) if defaults.exists() else None
        with found.collecting():
            recipient_id = self._recipient_id(found)
            found.recipient = self._recipient(recipient_id, found)
            found.recipient_id = recipient_id
        found.merge(batch_id)
        schedule = found.data.get("schedule")
        if isinstance(schedule, dict):
            found.data["schedule"] = self._filled(schedule, found)
        return found

    def _filled(self, schedule: dict[str, Any], found: Merged) -> dict[str, Any]:
        """Put the template under a schedule, and what the calendar holds in the place of its name."""
        filled = dict(schedule)
        if "template" in filled:
            with found.collecting(), self._blaming(found, ("schedule", "template")):
                filled = expand(self.calendars.template(filled["template"]), filled)
        named = filled.get("calendar")
        if isinstance(named, str):
            del filled["calendar"]
            with found.collecting(), self._blaming(found, ("schedule", "calendar")):
                filled["calendar"] = self._calendar(named, wanted_by=_template_that_wants_it(schedule))
        return filled

    def _calendar(self, named: str, *, wanted_by: str) -> Calendar:
        try:
            return self.calendars.calendar(named)
        except KeyError:
            raise KeyError(f"{self.calendars.unknown(named)}{wanted_by}") from None

    @contextmanager
    def _blaming(self, found: Merged, path: tuple[str | int, ...]) -> Iterator[None]:
        """Tell what is not known at the place where it is named."""
        try:
            yield
        except KeyError as error:
            layer, written = locate(path, [one for one in found.layers if not one.at])
            raise _error(layer.file, (*layer.start, *written), str(error.args[0])) from None

    def naming(self) -> str | None:
        """Return the pattern that names of batches should fit, when `defaults.yaml` has one.

        Raises:
            BatchFileError: it is not a regular expression.
        """
        defaults = self._defaults()
        pattern = defaults.data.get(NAMING) if defaults else None
        if defaults is None or pattern is None:
            return None
        try:
            re.compile(pattern)
        except (re.error, TypeError):
            raise _error(defaults, (NAMING,), "must be a regular expression") from None
        return str(pattern)

    def defaults(self) -> dict[str, Any]:
        """Return what stands in `defaults.yaml`; nothing when there is none.

        Raises:
            BatchFileError: it cannot be read.
        """
        defaults = self._defaults()
        return dict(defaults.data) if defaults else {}

    def maintenance_problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the key `maintenance` of `defaults.yaml`; an unreadable file is told elsewhere."""
        try:
            defaults = self._defaults()
        except BatchFileError:
            return
        given = defaults.data.get(MAINTENANCE) if defaults else None
        if defaults is None or given is None:
            return
        try:
            Maintenance.model_validate(given)
        except ValidationError as error:
            yield from explain(error, [Layer(file=defaults, start=(MAINTENANCE,))], Maintenance)

    def shown(self, file: Path) -> str:
        """Return a file's name for messages: `config/batches/acme.yaml`."""
        return file.relative_to(self.config.parent).as_posix()

    def read(self, file: Path) -> YamlFile:
        """Return a file that must hold a mapping.

        Raises:
            BatchFileError: see `read_yaml`; the same error each time it is asked for.
        """
        if file not in self._read:
            try:
                self._read[file] = self._fresh(file)
            except BatchFileError as error:
                self._read[file] = error
        found = self._read[file]
        if isinstance(found, BatchFileError):
            raise BatchFileError.of(found.problems)
        return found

    def _fresh(self, file: Path) -> YamlFile:
        """Read a file without keeping it: a batch's own file serves one batch, and a thousand would fill the memory."""
        return _with_mapping(read_yaml(file, shown=self.shown(file)))

    def _defaults(self) -> YamlFile | None:
        file = self.config / DEFAULTS
        return self.read(file) if file.exists() else None

    def _recipient_id(self, found: Merged) -> str:
        source = found.batch if found.defaults is None or "recipient" in found.batch.data else found.defaults
        named = source.data.get("recipient")
        if named is None:
            text = "the required key 'recipient' is missing"
            raise _error(found.batch, ("recipient",), text, line=found.batch.line(()))
        if not isinstance(named, str) or re.fullmatch(ID_PATTERN, named) is None:
            raise _error(source, ("recipient",), f"must be the name of a file in {RECIPIENTS}/, such as acme")
        return named

    def _recipient(self, recipient_id: str, found: Merged) -> YamlFile:
        file = self.config / RECIPIENTS / f"{recipient_id}.yaml"
        if file.exists():
            return self.read(file)
        known = [one.stem for one in recipient_files(self.config)]
        layer, path = locate(("recipient",), found.own_layers)
        text = f"{recipient_id!r} is not known: there is no {self.shown(file)}; known: {', '.join(known) or 'none'}"
        raise _error(layer.file, path, text + did_you_mean(recipient_id, known))


@dataclass
class Merged:
    """The configuration of one batch on its way from the files to the model."""

    batch: YamlFile
    recipient: YamlFile | None = None
    recipient_id: str = "unknown"
    defaults: YamlFile | None = None
    problems: list[Problem] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    """What `Batch` validates."""
    complete: bool = True
    """Whether every file that has a say was read."""

    @property
    def own_layers(self) -> list[Layer]:
        """The files with keys of a batch at the top, the strongest first."""
        return [Layer(file=self.batch), *([Layer(file=self.defaults)] if self.defaults else [])]

    @property
    def layers(self) -> list[Layer]:
        """All files, the strongest first."""
        if self.recipient is None:
            return self.own_layers
        part, about = (
            Layer(file=self.recipient, start=("batch",)),
            Layer(file=self.recipient, at=("recipient",)),
        )
        return [self.own_layers[0], part, *self.own_layers[1:], about]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Go on after a file that cannot be used, to tell everything else that is wrong too."""
        try:
            yield
        except BatchFileError as error:
            self.problems += error.problems
            self.complete = False

    def merge(self, batch_id: str) -> None:
        """Fill `data`, and collect what the files say that cannot be merged."""
        batch = self.batch.data
        about = self.recipient.data if self.recipient else {"name": "unknown"}
        defaults = self.defaults.data if self.defaults else {}
        part = about.get("batch")
        part = part if isinstance(part, dict) else {}
        merged = _merged(_without(defaults, NAMING, MAIL_DOMAINS, MAINTENANCE), part, batch)
        _set_timezone(merged, [batch, {"timezone": about.get("timezone"), **part}, defaults])
        self.data = {
            **merged,
            "id": batch_id,
            "recipient": {**_without(about, "batch"), "id": self.recipient_id},
        }
        for file in (self.batch, self.recipient, self.defaults):
            self.problems += _not_written_here(file, is_recipient=file is self.recipient) if file else []


def _not_written_here(file: YamlFile, *, is_recipient: bool) -> Iterator[Problem]:
    yield from file.problems
    if "id" in file.data:
        yield _problem(file, ("id",), "leave this out: the id is the file's name")
    part = file.data.get("batch") if is_recipient else None
    if part is not None and not isinstance(part, dict):
        yield _problem(file, ("batch",), "must be a mapping with keys of a batch file")
        return
    for key in ("id", "name", "recipient"):
        if key in (part or {}):
            yield _problem(
                file, ("batch", key), "every batch says this itself; it cannot be inherited from here"
            )


def _files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder; what editors leave behind starts with a dot or ends otherwise."""
    if not folder.is_dir():
        return []
    found = (Path(entry.path) for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != ".")
    return sorted(file for file in found if file.suffix in (".yaml", ".yml"))


def _check_file_name(batch_id: str, *, folder: Path, shown: Callable[[Path], str]) -> None:
    """Refuse names that are no ids, and names that two files claim; reads no folder while all is well."""
    if re.fullmatch(ID_PATTERN, batch_id) is None:
        # A name that is no id may be a path to anywhere, so it is never made into one.
        names = [file.name for file in _files(folder) if file.stem == batch_id]
        raise _file_error(f"{shown(folder)}/{names[0] if names else batch_id}", _bad_name(batch_id, folder))
    file, other = folder / f"{batch_id}.yaml", folder / f"{batch_id}.yml"
    if other.exists():
        both = f"both {shown(file)} and {shown(other)} are there; keep one, named {file.name}"
        raise _file_error(shown(other), both if file.exists() else f"rename this file to {file.name}")
    if not file.exists():
        near = did_you_mean(batch_id, batch_ids(folder.parent))
        raise _file_error(
            shown(file), f"there is no such file{near or '; `leadferry batches` lists those that are there'}"
        )


def _template_that_wants_it(schedule: dict[str, Any]) -> str:
    """Say where a calendar is named that the batch itself does not name."""
    return "" if "calendar" in schedule else f"; the template {schedule.get('template')!r} names it"


def _file_error(shown: str, text: str) -> BatchFileError:
    return BatchFileError.of([Problem(file=shown, line=1, text=text)])


def _bad_name(batch_id: str, folder: Path) -> str:
    better = re.sub(r"[^a-z0-9]+", "_", batch_id.lower()).strip("_")
    better = better if re.fullmatch(ID_PATTERN, better) else f"batch_{better}".strip("_")
    taken = [
        file.name
        for file in _files(folder)
        if file.stem.lower() == batch_id.lower() and file.stem != batch_id
    ]
    text = "the file's name is the batch's id: lower case letters, digits and _, starting with a letter"
    return f"{text}; differs from {taken[0]} only in case" if taken else f"{text}, such as {better}.yaml"


def _with_mapping(file: YamlFile) -> YamlFile:
    if file.data is None:
        raise _error(file, (), "the file is empty")
    if not isinstance(file.data, dict):
        raise _error(file, (), "must be a mapping (key: value)")
    return file


def _problem(file: YamlFile, path: tuple[str | int, ...], text: str, *, line: int | None = None) -> Problem:
    return Problem(file=file.shown, line=line or (file.key_line(path) if path else 1), path=path, text=text)


def _refuse_what_airflow_would(batch: Batch, layers: Sequence[Layer]) -> None:
    """Refuse here, with file and line, what Airflow would refuse for all batches of a DAG file at once."""
    if not batch.enabled:
        return
    now = datetime.now(UTC)
    why = why_unusable(batch.schedule, timezone=batch.timezone, now=now, batch_id=batch.id)
    if why is not None:
        layer, written = locate(("schedule",), layers)
        raise _error(layer.file, (*layer.start, *written), why)


def _error(
    file: YamlFile, path: tuple[str | int, ...], text: str, *, line: int | None = None
) -> BatchFileError:
    return BatchFileError.of([_problem(file, path, text, line=line)])


def _without(data: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in keys}


def _merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings, the weakest first: deep for mappings, everything else is replaced."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            inherited = result.get(key)
            both = isinstance(inherited, dict) and isinstance(value, dict)
            result[key] = _merged(inherited or {}, value) if both else value
    return result


def _set_timezone(merged: dict[str, Any], parts: Sequence[Mapping[str, Any]]) -> None:
    """Give the batch and its schedule the one zone that counts.

    The strongest file that names a zone decides for both: `schedule.timezone` for the departures and `timezone`
    for dates in names and fields; a file that says only one of them means both. UTC when no file says any.
    A name that is no zone is left where it stands, for the model to refuse it in its place.
    """
    named = next((zones for part in parts if any(zones := tuple(_zones(part)))), ("UTC", "UTC"))
    of_schedule, of_batch = named
    if (of_batch or of_schedule) in zone_names():
        merged["timezone"] = of_batch or of_schedule
    schedule = merged.get("schedule")
    if isinstance(schedule, dict) and (of_schedule or of_batch) in zone_names():
        merged["schedule"] = {**schedule, "timezone": of_schedule or of_batch}


def _zones(part: Mapping[str, Any]) -> Iterator[str | None]:
    """Yield what one file says of the schedule's zone and of the batch's."""
    schedule = part.get("schedule")
    for zone in (schedule.get("timezone") if isinstance(schedule, dict) else None, part.get("timezone")):
        yield zone if isinstance(zone, str) else None
