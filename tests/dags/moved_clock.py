"""Another clock for a whole set of processes, PostgreSQL among them: libfaketime, loaded into each of them.

The clock runs as fast as the real one, and may be set on while they run. Monotonic clocks, by which programs sleep and
measure how long something takes, stay as they are.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_DEBIAN = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@cache
def library() -> Path | None:
    """Where libfaketime is, of the wheel `libfaketime` or of Debian's package; None when none works here."""
    spec = find_spec("libfaketime")
    folders = spec.submodule_search_locations if spec else []
    wheels = [Path(folder) / "vendor/libfaketime/src/libfaketime.so.1" for folder in folders or []]
    return next((one for one in (*wheels, *_DEBIAN) if one.is_file() and _works(one)), None)


def _works(one: Path) -> bool:
    environment = {**os.environ, "LD_PRELOAD": str(one), "FAKETIME": "2001-02-03 04:05:06"}
    shown = subprocess.run(["date", "+%Y"], env=environment, capture_output=True, text=True, check=False)
    return (shown.returncode, shown.stdout, shown.stderr) == (0, "2001\n", "")


class MovedClock:
    """What processes with `environment` take for the time."""

    def __init__(self, folder: Path, *, at: datetime) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "clock"
        self.set(at)

    def set(self, moment: datetime) -> None:
        """Set the clock; it goes on from there. Processes that run follow within a second or two."""
        self._ahead = moment - datetime.now(tz=UTC)
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{self._ahead.total_seconds():+.6f}\n")
        draft.replace(self._file)

    def now(self) -> datetime:
        """What the clock shows."""
        return datetime.now(tz=UTC) + self._ahead

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to follow this clock."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # The file is read once a second: read at every look at the clock, it makes a process many times slower.
            "FAKETIME_CACHE_DURATION": "0",
            # Else each look at a file waits for all other processes with this clock.
            "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # The two disagree about Python's switching between threads, which then takes hundreds of times as long as
            # it should; this is Python's own interval for it, in milliseconds.
            "FAKETIME_WAIT_MS": "5",
        }

    @contextmanager
    def for_children(self) -> Iterator[None]:
        """Let processes that are started meanwhile follow this clock."""
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name in self.environment:
                del os.environ[name]
            os.environ.update(before)
