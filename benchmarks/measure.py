"""Taking turns, timing in processes of their own, medians, and what is printed of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

PROJECT = Path(__file__).parents[1]

Sample = dict[str, float]
"""What one run of one side measured: `seconds`, `peak_mb`, and parts of them."""


def child(
    script: str | Path, *arguments: str | Path, python: str | Path = sys.executable, **environment: str
) -> Sample:
    """Run a side in a fresh process and return what it measured: the JSON in the last line that it prints.

    Args:
        script: a file, or a module of this package by its dotted name.
        arguments: for it.
        python: the interpreter, for those who live in an environment of their own.
        environment: added to ours.
    """
    start = [str(script)] if isinstance(script, Path) else ["-m", script]
    done = subprocess.run(
        [str(python), *start, *map(str, arguments)],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    measured: Sample = json.loads(done.stdout.splitlines()[-1])
    return measured


def tell(**measured: float) -> None:
    """Say what was measured, for `child` in the process that started this one; adds this process's peak of memory."""
    print(json.dumps({**measured, "peak_mb": peak_mb()}))


def peak_mb() -> float:
    """Return the most memory this process ever held, in MB: not `getrusage`, which counts its parent's before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


@contextmanager
def timed(into: Sample, name: str = "seconds") -> Iterator[None]:
    """Time the block by the wall clock."""
    started = time.perf_counter()
    yield
    into[name] = time.perf_counter() - started


def interleaved(repeat: int, sides: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Run all sides in turn, `repeat` times: what else the machine does hits all of them alike."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for turn in range(repeat):
        for name, side in sides.items():
            samples[name].append(side())
            told = ", ".join(f"{key} {value:.2f}" for key, value in samples[name][-1].items())
            print(f"  {turn + 1}/{repeat} {name}: {told}", file=sys.stderr, flush=True)
    return samples


def middle(samples: Sequence[Sample], key: str = "seconds") -> float:
    """Return the median of one measure."""
    return median(sample[key] for sample in samples)


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number of DESIGN.md, or one that stands beside it for the reader."""

    benchmark: str
    what: str
    value: float
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def to_reach(self) -> str:
        """What was asked for; empty for a number that only explains another."""
        if self.at_most is not None:
            least = "" if self.at_least is None else f"{self.at_least:g} to "
            return f"{least or '<= '}{self.at_most:g} {self.unit}"
        return f">= {self.at_least:g} {self.unit}" if self.at_least is not None else ""

    @property
    def reached(self) -> bool | None:
        """Whether it is what was asked for; None where nothing was."""
        if self.at_most is not None:
            return (self.at_least or 0) <= self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None

    def as_json(self) -> dict[str, Any]:
        """Everything, for a machine."""
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "to_reach": self.to_reach,
            "reached": self.reached,
        }


def print_table(numbers: Sequence[Number]) -> None:
    """Print the numbers as a Markdown table."""
    print("| | what | measured | to reach | reached |\n| --- | --- | ---: | ---: | --- |")
    for one in numbers:
        verdict = {True: "yes", False: "**no**", None: ""}[one.reached]
        value = f"{one.value:.2f}" if one.value < 100 else f"{one.value:.0f}"
        print(
            f"| {one.benchmark} | {one.what} | {value} {one.unit} | {one.to_reach} | {verdict} |", flush=True
        )
