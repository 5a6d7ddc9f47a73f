"""The files of `config/calendars/` and `config/schedules/`: read, resolved and put into the schedules that name them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from leadferry.batch.explain import Layer, explain
from leadferry.batch.files import ID_PATTERN
from leadferry.batch.problems import BatchFileError, Problem, did_you_mean
from leadferry.batch.yaml_file import YamlFile
from leadferry.schedule.calendar import Calendar
from leadferry.schedule.calendar_file import CalendarFaultError, CalendarFile, Surroundings, years_around
from leadferry.schedule.date_files import DateFileError
from leadferry.schedule.library import BUILT_IN

CALENDARS = "calendars"
TEMPLATES = "schedules"


def today() -> date:
    """Return the day from which the years of holidays are counted."""
    return datetime.now(tz=UTC).date()


@dataclass(kw_only=True)
class CalendarReader:
    """Reads calendars and templates of one config folder, each once."""

    config: Path
    read: Callable[[Path], YamlFile]
    """Reads a file that must hold a mapping."""
    _found: dict[str, Calendar | BatchFileError] = field(default_factory=dict, repr=False)
    _under_way: list[str] = field(default_factory=list, repr=False)

    def names(self) -> list[str]:
        """Return the ids of all calendars."""
        return _stems(self.config / CALENDARS)

    def calendar(self, calendar_id: str) -> Calendar:
        """Return a calendar with plain dates.

        Raises:
            KeyError: there is no such file.
            BatchFileError: the file, or one that it is made of, cannot be used; the same each time it is asked for.
        """
        if calendar_id not in self._found:
            try:
                self._found[calendar_id] = self._resolve(calendar_id)
            except BatchFileError as error:
                self._found[calendar_id] = error
        found = self._found[calendar_id]
        if isinstance(found, BatchFileError):
            raise BatchFileError.of(found.problems)
        return found

    def unknown(self, calendar_id: Any) -> str:
        """Say that there is no such calendar, and which there are."""
        known = self.names()
        return (
            f"{calendar_id!r} is not known: there is no {self.config.name}/{CALENDARS}/{calendar_id}.yaml; "
            f"known: {', '.join(known) or 'none'}{did_you_mean(calendar_id, known)}"
        )

    def template(self, name: Any) -> dict[str, Any]:
        """Return the keys of a schedule template.

        Raises:
            KeyError: there is none of this name; the text says which there are.
            BatchFileError: its file cannot be used.
        """
        file = self._file(TEMPLATES, name)
        if file is None or not file.exists():
            if isinstance(name, str) and name in BUILT_IN:
                return BUILT_IN[name]
            known = sorted({*_stems(self.config / TEMPLATES), *BUILT_IN})
            raise KeyError(
                f"{name!r} is no schedule template; known: {', '.join(known)}{did_you_mean(name, known)}"
            )
        read = self.read(file)
        for key in ("template", "timezone"):
            if key in read.data:
                raise _error(read, key, "cannot stand in a template; write it in the batch")
        return dict(read.data)

    def _file(self, folder: str, name: Any) -> Path | None:
        if not isinstance(name, str) or re.fullmatch(ID_PATTERN, name) is None:
            return None
        return self.config / folder / f"{name}.yaml"

    def _resolve(self, calendar_id: str) -> Calendar:
        file = self._file(CALENDARS, calendar_id)
        if file is None or not file.exists():
            raise KeyError(calendar_id)
        read = self.read(file)
        if read.problems:
            raise BatchFileError.of(read.problems)
        try:
            written = CalendarFile.model_validate(read.data)
        except ValidationError as error:
            raise BatchFileError.of(explain(error, [Layer(file=read)], CalendarFile)) from None
        self._under_way.append(calendar_id)
        try:
            self._check_parts(read, written)
            around = Surroundings(years=years_around(today()), folder=file.parent, other=self.calendar)
            return written.resolve(calendar_id, around)
        except DateFileError as error:
            raise self._of_date_file(read, error) from None
        except CalendarFaultError as error:
            raise _error(read, error.key, error.text) from None
        finally:
            self._under_way.pop()

    def _check_parts(self, read: YamlFile, written: CalendarFile) -> None:
        """Refuse calendars that are made of themselves, or of what does not exist."""
        for needed in written.needs():
            if needed in self._under_way:
                circle = " → ".join([*self._under_way[self._under_way.index(needed) :], needed])
                raise _error(read, "closed", f"the calendars are made of each other: {circle}")
            try:
                self.calendar(needed)
            except KeyError:
                raise _error(read, "closed", self.unknown(needed)) from None

    def _of_date_file(self, read: YamlFile, error: DateFileError) -> BatchFileError:
        shown = f"{self.config.name}/{CALENDARS}/{error.file}"
        return BatchFileError.of(
            [Problem(file=shown, line=error.line, text=f"{error.text} (used by {read.shown})")]
        )


def _error(read: YamlFile, key: str, text: str) -> BatchFileError:
    return BatchFileError.of([Problem(file=read.shown, line=read.key_line((key,)), path=(key,), text=text)])


def _stems(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(file.stem for file in folder.glob("*.yaml") if file.name[0] != ".")
