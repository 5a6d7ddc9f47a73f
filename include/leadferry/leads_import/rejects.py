"""The lines that could not be loaded, in a file beside the file they came from.

The only place where such a line is quoted: it is lead data, so the file is readable by its owner only.
"""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

LONGEST_RECORD = 10_000
"""Characters of a bad line that are kept."""


class Rejects:
    """A CSV file `line, reason, record`, made with the first bad line and visible only when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._part = path.with_name(f".{path.name}.part")
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Forget what was not published."""
        if self._file is not None:
            self._file.close()
            with suppress(FileNotFoundError):
                self._part.unlink()

    def add(self, line: int, reason: str, record: str) -> None:
        """Write one bad line; `line` counts from 1."""
        if self._file is None:
            self._file = self._opened()
        self.count += 1
        csv.writer(self._file).writerow((line, reason, record[:LONGEST_RECORD].replace("\x00", "\\0")))

    def publish(self) -> Path | None:
        """Give the file its name, in place of one from an earlier import; None when no line was bad."""
        if self._file is None:
            return None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self.path)
        return self.path

    def _opened(self) -> TextIO:
        with suppress(FileNotFoundError):
            self._part.unlink()
        # Exclusive and 0600 from the first byte on: nobody else can have the file open already.
        number = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        file = os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", newline="")
        csv.writer(file).writerow(("line", "reason", "record"))
        return file
