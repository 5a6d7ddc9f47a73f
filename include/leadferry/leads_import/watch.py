"""Folders into which other systems put files of leads, looked into again and again.

A file is left alone while it is being written, imported once, and then out of the way:
in `done/`, or in `failed/` when nothing of it could be loaded. Whatever is interrupted is simply done again:
the store knows a file by its bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leadferry.errors import BatchConfigError, LeadImportError
from leadferry.leads_import.layout import Layout
from leadferry.leads_import.load import ImportResult, import_leads
from leadferry.store.database import Database

log = logging.getLogger(__name__)

FILE_NAME = "imports.yaml"

_CORRECT = "Correct that file; the folders are looked at again with the next run"

_NOT_LEADS = (".part", ".tmp", ".filepart", ".rejects.csv")
"""Ends of names that programs give to files they are still writing, and of our own."""


class WatchedFolder(BaseModel):
    """One folder and the flow that its files belong to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(min_length=1, description="Path; a relative one begins at the project's folder.")
    flow: str = Field(min_length=1, description="The flow that the leads came in by.")
    pattern: Annotated[str, Field(pattern=r"^[^/]+$")] = Field(
        default="*.csv", description="Which files: * stands for any part of a name."
    )
    done: Literal["move", "keep"] = Field(
        default="move",
        description="What happens to an imported file: into done/, or nothing (it is known by its bytes).",
    )
    quiet_seconds: int = Field(
        default=60, ge=0, description="How long a file must not have changed before it is read."
    )
    layout: Layout = Field(default=Layout(), description="How leads stand in these files.")


class Imports(BaseModel):
    """`config/imports.yaml`: what the DAG `import_leads` watches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every_minutes: int | None = Field(
        default=5, ge=1, description="How often to look; null for by hand only."
    )
    folders: list[WatchedFolder] = []


@dataclass
class ImportReport:
    """What a look into the folders came to; only numbers."""

    files: int = 0
    """Files that were imported now."""
    loaded: int = 0
    rejected: int = 0
    duplicates: int = 0
    known: int = 0
    """Files that had been imported before."""
    waiting: int = 0
    """Files that were left alone because they changed a moment ago."""
    failed: int = 0
    """Files (or folders) that could not be read at all; the log has the reasons."""

    def add(self, result: ImportResult) -> None:
        """Count one import."""
        self.known += result.already_imported_at is not None
        self.files += result.already_imported_at is None
        self.loaded += result.loaded
        self.rejected += result.rejected
        self.duplicates += result.duplicates

    @property
    def counts(self) -> dict[str, int]:
        """The report as plain numbers."""
        return asdict(self)

    def require_readable(self) -> Self:
        """Return the report unless somebody must look at a file.

        Raises:
            LeadImportError: some files or folders could not be read; all others were imported.
        """
        if self.failed:
            raise LeadImportError(
                f"{self.failed} files or folders could not be read, {self.files} others were imported",
                hint="The log above has the reasons; such files are in the subfolder failed/",
            )
        return self


def read_imports(config: Path) -> Imports:
    """Read `imports.yaml` in the config folder; without that file nothing is watched.

    Raises:
        BatchConfigError: it says something that cannot be meant.
    """
    path = config / FILE_NAME
    if not path.exists():
        return Imports(every_minutes=None)
    try:
        return Imports.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise BatchConfigError(f"config/{FILE_NAME}{line}: this is not YAML", hint=_CORRECT) from None
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)
        ]
        raise BatchConfigError(f"config/{FILE_NAME}: " + "; ".join(faults), hint=_CORRECT) from None


def import_folders(database: Database, imports: Imports, *, project: Path, now: datetime) -> ImportReport:
    """Import every file that is complete, in all folders; one bad file or folder stops no other.

    Args:
        database: the lead store.
        imports: the folders.
        project: where relative folders begin.
        now: the current moment, aware; files that changed shortly before it are left alone.

    Raises:
        StoreError: the store refused or went away; nothing is lost, the next call goes on.
    """
    report = ImportReport()
    for watched in imports.folders:
        folder = project / Path(watched.folder).expanduser()
        if not folder.is_dir():
            log.error("There is no folder %s", folder)
            report.failed += 1
            continue
        for path in _complete_files(folder, watched, now=now, report=report):
            _import_one(database, path, watched, report=report)
    return report


def import_named_file(database: Database, *, path: str | None, flow: str | None) -> ImportReport:
    """Import one file that a person named; it stays where it is.

    Raises:
        LeadImportError: path or flow is missing, or nothing of the file could be loaded.
        StoreError: the store refused; nothing was loaded.
    """
    if not path or not flow:
        raise LeadImportError(
            "A file that is imported by hand needs both its path and its flow",
            hint="Trigger the DAG again with both",
        )
    result = import_leads(database, Path(path).expanduser(), flow=flow)
    log.info("%s", result)
    report = ImportReport()
    report.add(result)
    if _is_useless(result):
        raise LeadImportError(
            f"{result.file}: no line could be loaded", hint="The reasons are in its rejects file"
        )
    return report


def _is_useless(result: ImportResult) -> bool:
    return result.rejected > 0 and not (result.loaded or result.duplicates)


def _complete_files(
    folder: Path, watched: WatchedFolder, *, now: datetime, report: ImportReport
) -> Iterator[Path]:
    """Yield the oldest first, so that leads are loaded in the order in which they were put there."""
    found = [path for path in folder.glob(watched.pattern) if _is_candidate(path)]
    before = (now - timedelta(seconds=watched.quiet_seconds)).timestamp()
    for path in sorted(found, key=lambda one: (one.stat().st_mtime, one.name)):
        # The change time as well: copying programs set the modification time back to that of the original.
        changed = max(path.stat().st_mtime, path.stat().st_ctime)
        if changed > before:
            report.waiting += 1
        else:
            yield path


def _is_candidate(path: Path) -> bool:
    return path.is_file() and not path.name.startswith((".", "~$")) and not path.name.endswith(_NOT_LEADS)


def _import_one(database: Database, path: Path, watched: WatchedFolder, *, report: ImportReport) -> None:
    moves = watched.done == "move"
    done = _free(path.parent / "done" / path.name) if moves else path
    rejects = path.with_name(f"{path.name}.rejects.csv")
    try:
        result = import_leads(database, path, flow=watched.flow, layout=watched.layout, rejects=rejects)
    except LeadImportError as error:
        log.error("%s", error)  # noqa: TRY400  the sentence is enough; a traceback would say nothing more
        report.failed += 1
        _put_away(path, _free(path.parent / "failed" / path.name), rejects=None, moves=moves)
        return
    log.info("%s", result)
    report.add(result)
    if _is_useless(result):
        log.error("%s: no line could be loaded; the reasons are in its rejects file", path.name)
        report.failed += 1
        done = _free(path.parent / "failed" / path.name)
    _put_away(path, done, rejects=result.rejects_file, moves=moves)


def _put_away(path: Path, target: Path, *, rejects: Path | None, moves: bool) -> None:
    """Move a file and its rejects; after a crash in between, the next look finishes it."""
    if not moves:
        return
    target.parent.mkdir(exist_ok=True)
    if rejects is not None:
        rejects.replace(target.with_name(f"{target.name}.rejects.csv"))
    path.replace(target)


def _free(path: Path) -> Path:
    """Return this path, or one with a number when another file has the name already."""
    number = 1
    candidate = path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
