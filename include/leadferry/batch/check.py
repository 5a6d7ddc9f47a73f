"""Everything that can be said about the files under `config/` without a database, a server or Airflow.

Problems keep a batch from existing. Hints are things that are allowed and yet mostly not meant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePath

from pydantic import ValidationError

from leadferry.batch.calendars import CALENDARS
from leadferry.batch.explain import Layer, explain, locate
from leadferry.batch.files import Bundle, OutputFile
from leadferry.batch.load import BATCHES, RECIPIENTS, ConfigReader, batch_ids, list_files, recipient_files
from leadferry.batch.model import Batch, Recipient
from leadferry.batch.problems import BatchFileError, Problem, bugs_told_of
from leadferry.batch.problems import Path as KeyPath
from leadferry.batch.routes import takers
from leadferry.batch.yaml_file import YamlFile
from leadferry.destinations.base import AllowsPlaintext


@dataclass
class Report:
    """What a check found."""

    checked: list[str]
    """Ids of the batches that were looked at."""
    batches: list[Batch] = field(default_factory=list)
    """Those that can be loaded."""
    problems: list[Problem] = field(default_factory=list)
    """What must be corrected; a fault of a shared file is told once."""
    hints: list[Problem] = field(default_factory=list)
    """What should be looked at."""

    @property
    def broken(self) -> list[str]:
        """Ids of the batches that cannot be loaded."""
        fine = {batch.id for batch in self.batches}
        return [batch_id for batch_id in self.checked if batch_id not in fine]


AHEAD = timedelta(days=30)
"""How long before a key expires it is told."""

DATES_AHEAD = timedelta(days=180)
"""How long before a calendar's dates run out it is told."""


def check(config: Path, *, only: str | None = None, now: datetime | None = None) -> Report:
    """Check the whole folder, or one batch with the files that it inherits from.

    Args:
        config: see `leadferry.project.config_folder`.
        only: id of the one batch; its name is still compared with the names of all others.
        now: by which keys are expired or soon will be, aware; the present when left out.
    """
    reader = ConfigReader(config)
    report = Report(checked=[only] if only else batch_ids(config))
    found: list[Problem] = []
    for batch_id in report.checked:
        try:
            report.batches.append(reader.load(batch_id))
        except BatchFileError as error:
            found += error.problems
    if only is None:
        found += _unused_recipients(reader, report.batches)
        found += _mailing_lists(reader)
        report.hints += _unread_files(reader)
        for fatal, problem in _calendars(reader, today=(now or datetime.now(UTC)).date()):
            (found if fatal else report.hints).append(problem)
    report.hints += [*_hints(reader, report), *_over(reader, report.batches, now=now or datetime.now(UTC))]
    for fatal, problem in _keys(reader, report.batches, now=now or datetime.now(UTC)):
        (found if fatal else report.hints).append(problem)
    report.problems = _ordered([*found, *_naming_problem(reader), *reader.maintenance_problems()])
    report.hints = _ordered(report.hints)
    return report


def _ordered(problems: list[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda one: (one.file, one.line, one.column or 0))


def _naming_problem(reader: ConfigReader) -> Iterator[Problem]:
    try:
        reader.naming()
    except BatchFileError as error:
        yield from error.problems


def _unused_recipients(reader: ConfigReader, batches: list[Batch]) -> Iterator[Problem]:
    """Check the recipients that no batch has made us read."""
    used = {batch.recipient.id for batch in batches}
    for file in recipient_files(reader.config):
        if file.stem in used:
            continue
        try:
            with bugs_told_of(reader.shown(file)):
                yield from _of_recipient(reader.read(file), file.stem)
        except BatchFileError as error:
            yield from error.problems


def _of_recipient(read: YamlFile, recipient_id: str) -> list[Problem]:
    about = {key: value for key, value in read.data.items() if key != "batch"}
    try:
        Recipient.model_validate({**about, "id": recipient_id})
    except ValidationError as error:
        return [*read.problems, *explain(error, [Layer(file=read)], Recipient)]
    return list(read.problems)


def _mailing_lists(reader: ConfigReader) -> Iterator[Problem]:
    """Check all mailing lists, those that no batch names as well."""
    for file in list_files(reader.config):
        try:
            with bugs_told_of(reader.shown(file)):
                reader.mailing_list(file.stem)
        except BatchFileError as error:
            yield from error.problems


def _calendars(reader: ConfigReader, *, today: date) -> Iterator[tuple[bool, Problem]]:
    """Check every calendar, also those that no batch has made us read; dates that run out are a hint."""
    for calendar_id in reader.calendars.names():
        shown = reader.shown(reader.config / CALENDARS / f"{calendar_id}.yaml")
        try:
            with bugs_told_of(shown):
                until = reader.calendars.calendar(calendar_id).known_until
        except BatchFileError as error:
            yield from ((True, problem) for problem in error.problems)
            continue
        if until is not None and until < today + DATES_AHEAD:
            told = f"its dates end on {until}; after that day only the weekend counts"
            yield False, Problem(file=shown, line=1, text=told)


def _unread_files(reader: ConfigReader) -> Iterator[Problem]:
    """Point out files that look like config and are never read."""
    for folder in (BATCHES, RECIPIENTS):
        for file in sorted((reader.config / folder).glob("*/**/*.y*ml")):
            yield Problem(
                file=reader.shown(file), line=1, text=f"not read: only files directly in {folder}/ are"
            )
    for file in sorted((reader.config / RECIPIENTS).glob("*.yml")):
        yield Problem(file=reader.shown(file), line=1, text=f"not read: rename it to {file.stem}.yaml")


def _hints(reader: ConfigReader, report: Report) -> Iterator[Problem]:
    try:
        pattern = reader.naming()
    except BatchFileError:
        pattern = None
    names = _names(reader)
    for batch in report.batches:
        if pattern and re.search(pattern, batch.name) is None:
            yield _hint(reader, batch, ("name",), f"{batch.name!r} does not fit the naming pattern {pattern}")
        yield from _same_names(reader, batch, names[_folded(batch.name)])
        for path, text in _doubts(batch):
            yield _hint(reader, batch, path, text)


def _keys(reader: ConfigReader, batches: list[Batch], *, now: datetime) -> Iterator[tuple[bool, Problem]]:
    """Yield what is wrong with the keys in `keys/`, and whether it stops deliveries already; connections are not asked."""
    for batch in batches:
        for kind, index, file in batch.files_and_bundles:
            told = file.packing.key_problems(config=reader.config, now=now, ahead=AHEAD, connections=False)
            for one in told:
                yield one.fatal, _hint(reader, batch, (kind, index, "encrypt"), str(one))


def _over(reader: ConfigReader, batches: list[Batch], *, now: datetime) -> Iterator[Problem]:
    """Point out schedules that are over; one that never departs is a problem, and its batch is not loaded."""
    for batch in batches:
        found = batch.over(now=now)
        if found is not None:
            told = f"{found}; leads that still come wait until somebody triggers the DAG"
            yield _hint(reader, batch, ("schedule",), told)


def _same_names(reader: ConfigReader, batch: Batch, same: list[str]) -> Iterator[Problem]:
    twins = [other for other in same if other != batch.id]
    if twins:
        files = ", ".join(f"{reader.shown(reader.config / BATCHES / other)}.yaml" for other in twins)
        yield _hint(
            reader, batch, ("name",), f"the name differs at most in case and spaces from that of {files}"
        )


def _names(reader: ConfigReader) -> dict[str, list[str]]:
    """Return the ids of the batches by their folded names, as far as the files can be read."""
    names: dict[str, list[str]] = defaultdict(list)
    for batch_id in batch_ids(reader.config):
        try:
            name = reader.read(reader.config / BATCHES / f"{batch_id}.yaml").data.get("name")
        except BatchFileError:
            continue
        names[_folded(str(name))].append(batch_id)
    return names


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _doubts(batch: Batch) -> Iterator[tuple[KeyPath, str]]:
    if not batch.description:
        yield ("description",), "a description would help whoever looks at the DAG"
    if not batch.select.rules:
        yield ("select", "rules"), "no rules: every lead of these flows is delivered"
    if not batch.recipient.contacts:
        yield ("recipient", "contacts"), "nobody to call at the recipient when a delivery fails"
    for kind, index, file in batch.files_and_bundles:
        if "delivery." not in file.name and (kind == "bundles" or file in batch.loose_files):
            told = "the same name every time: the second delivery will conflict with the first; use {{ delivery.number }}"
            yield (kind, index, "name"), told
        yield from (((kind, index, "name"), told) for told in _misleading_ending(file))
        sent = kind == "bundles" or file in batch.loose_files
        if sent and all(one.takes == "leads" or not takers(file, [one]) for one in batch.destinations):
            yield (kind, index), f"no destination gets {file.id!r}; it is rendered and stays in the archive"
    for index, destination in enumerate(batch.destinations):
        if isinstance(destination, AllowsPlaintext) and destination.allow_plaintext:
            told = "unencrypted: whoever is on the way can read the leads and the password"
            yield ("destinations", index, "allow_plaintext"), told


_ENDINGS = {".csv", ".gz", ".json", ".ndjson", ".parquet", ".xls", ".xlsx", ".xml", ".zip", ".zst"}
"""Of names by which systems and people choose the program that opens the file."""


def _misleading_ending(file: OutputFile | Bundle) -> Iterator[str]:
    """Say when a name ends like a file of another type; endings of packings are added by themselves."""
    ending = PurePath(file.name.lower()).suffix
    if isinstance(file, Bundle) or ending not in _ENDINGS:
        return
    of_packings = PurePath(file.packing.file_name("x")).suffixes
    fitting = {
        f".{file.format.extension}",
        *of_packings,
        *([".json"] if file.format.type == "ndjson" else []),
    }
    if ending not in fitting:
        yield f"the name ends in {ending}, and the file is of type {file.format.type}; write .{file.format.extension}"


def _hint(reader: ConfigReader, batch: Batch, path: KeyPath, text: str) -> Problem:
    layer, exists = locate(path, reader.merge(batch.id).layers)
    below = path[len(layer.at) :]
    return Problem(
        file=layer.file.shown,
        line=layer.file.line((*layer.start, *exists[len(layer.at) :])),
        path=(*layer.start, *below),
        text=text,
    )
