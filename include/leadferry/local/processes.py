"""The processes of the try-out: started in sessions of their own, recorded, stopped to the last child.

Each start writes a record into a folder, so that a runner that was killed leaves nothing behind for good:
the next one finds the records and stops what still runs.
A session id is a safe name for "this process and all its descendants": Airflow gives its children process groups
of their own, but never a session, and the system does not reuse the number while one of them lives.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from leadferry.errors import LeadferryError

_CLOCK_SLACK_SECONDS = 1.0
"""The system tells when a process began only to the tick, and may move that by a little with the wall clock."""


class LocalRunError(LeadferryError):
    """The try-out could not be started or did not end as it should."""

    code = "local"


class InterruptedRunError(LocalRunError):
    """A person or a service manager asked the try-out to stop."""

    code = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Session:
    """A process that leads a session; with its time of birth, because the system uses numbers again."""

    name: str
    pid: int
    born: float
    """Seconds since the epoch, as the system tells it."""

    def members(self) -> list[psutil.Process]:
        """Return the leader, while it lives, and all of its descendants that still run."""
        with suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(self.pid).create_time() - self.born) > _CLOCK_SLACK_SECONDS:
                return []
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return (
                os.getsid(process.pid) == self.pid
                and process.create_time() >= self.born - _CLOCK_SLACK_SECONDS
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except (OSError, psutil.NoSuchProcess):
            return False


class Processes:
    """Starts processes, tells when one ends by itself, stops all of them; see the module."""

    def __init__(self, records: Path, *, logs: Path) -> None:
        self._records = records
        self._logs = logs
        self._running: dict[Session, subprocess.Popen[bytes]] = {}
        self._interrupted = False
        records.mkdir(parents=True, exist_ok=True)
        logs.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        announces: bool = False,
    ) -> None:
        """Start a process whose output goes to `<logs>/<name>.log`; of one that `announces`, only standard error."""
        with self._log(name).open("ab") as log, self._said(name).open("wb") as said:
            process = subprocess.Popen(  # noqa: S603 the commands are this package's own
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=said if announces else log,
                stderr=log,
                start_new_session=True,
            )
        session = Session(name=name, pid=process.pid, born=psutil.Process(process.pid).create_time())
        _write_whole(self._record(name), json.dumps({"pid": session.pid, "born": session.born}))
        self._running[session] = process

    def announcement(self, name: str, *, timeout: float = 60) -> dict[str, Any]:
        """Wait until the process has printed its first line of JSON, and return it.

        Raises:
            LocalRunError: it ended before, or printed none within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for line in self._said(name).read_text("utf-8").splitlines(keepends=True):
                if line.startswith("{") and line.endswith("\n"):
                    announced: dict[str, Any] = json.loads(line)
                    return announced
            self.check()
            time.sleep(0.05)
        raise LocalRunError(
            f"{name} did not become ready within {timeout:.0f} s", hint=f"See {self._log(name)}"
        )

    def finish(self, name: str, *, timeout: float) -> None:
        """Wait until a process that is meant to end has ended.

        Raises:
            LocalRunError: it failed, or took longer than `timeout` seconds.
        """
        session, process = next((s, p) for s, p in self._running.items() if s.name == name)
        deadline = time.monotonic() + timeout
        while (code := process.poll()) is None:
            self._check_interrupted()
            if time.monotonic() >= deadline:
                raise LocalRunError(f"{name} took longer than {timeout:.0f} s", hint=f"See {self._log(name)}")
            time.sleep(0.05)
        del self._running[session]
        self._record(name).unlink(missing_ok=True)
        if code:
            raise LocalRunError(f"{name} failed with exit code {code}", hint=f"See {self._log(name)}")

    def interrupt(self) -> None:
        """Let the next `check`, or whatever waits in here, raise `InterruptedRunError`; for signal handlers."""
        self._interrupted = True

    def _check_interrupted(self) -> None:
        if self._interrupted:
            raise InterruptedRunError("Asked to stop")

    def check(self) -> None:
        """Raise `LocalRunError` when a process has ended by itself."""
        self._check_interrupted()
        for session, process in self._running.items():
            if (code := process.poll()) is not None:
                what = f"{session.name} ended by itself with exit code {code}"
                raise LocalRunError(what, hint=f"See {self._log(session.name)}")

    def stop(self, *, grace: float = 10) -> None:
        """Stop everything that was started and wait until it is gone; what is left after `grace` seconds is killed."""
        _stop(list(self._running), grace=grace)
        for session, process in self._running.items():
            process.wait()
            self._record(session.name).unlink(missing_ok=True)
        self._running.clear()

    def stop_leftovers(self, *, grace: float = 5) -> list[str]:
        """Stop what a killed runner left running, and return the names of what there was."""
        sessions = list(self._recorded())
        left = [session for session in sessions if session.members()]
        _stop(left, grace=grace)
        for session in sessions:
            self._record(session.name).unlink(missing_ok=True)
        return [session.name for session in left]

    def _recorded(self) -> Iterator[Session]:
        for path in sorted(self._records.glob("*.pid.json")):
            record = json.loads(path.read_text("utf-8"))
            yield Session(name=path.name.removesuffix(".pid.json"), pid=record["pid"], born=record["born"])

    def _record(self, name: str) -> Path:
        return self._records / f"{name}.pid.json"

    def _said(self, name: str) -> Path:
        return self._records / f"{name}.out"

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


def _stop(sessions: Sequence[Session], *, grace: float) -> None:
    """Ask the leaders, wait, then kill whatever is left of their sessions."""
    for session in sessions:
        members = session.members()
        leaders = [process for process in members if process.pid == session.pid]
        for process in leaders or members:
            _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while left := [process for session in sessions for process in session.members()]:
        if time.monotonic() >= deadline:
            for process in left:
                _signal(process, signal.SIGKILL)
        time.sleep(0.05)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _write_whole(path: Path, text: str) -> None:
    """Write so that a reader sees the whole text or nothing, also when this process is killed in between."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, "utf-8")
    draft.replace(path)
