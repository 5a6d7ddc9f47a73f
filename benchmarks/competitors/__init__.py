"""What Leadferry is measured against, each a script for a process of its own; and the environments they need.

dlt pins libraries that Airflow pins otherwise, so it lives in an environment of its own. dag-factory needs our
Airflow, the very same: it is put into a folder of its own, without its dependencies, which are all there already.
Both are made on first use under `.leadferry/`, from `benchmarks/requirements.txt` and `requirements-airflow.txt`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import PROJECT

FOLDER = Path(__file__).parent
_OWN = PROJECT / ".leadferry"


def own_python() -> Path:
    """Return the interpreter of the environment with dlt, made unless it is there and up to date."""
    folder = _OWN / "benchmarks-venv"
    python = folder / "bin" / "python"

    def make(pins: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", pins], check=True)

    _unless_made(folder, FOLDER.parent / "requirements.txt", make)
    return python


def airflow_additions() -> Path:
    """Return the folder for PYTHONPATH with what is compared inside our own Airflow, made unless it is there."""
    folder = _OWN / "benchmarks-airflow"

    def make(pins: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--target", folder, "--requirement", pins], check=True)

    _unless_made(folder, FOLDER.parent / "requirements-airflow.txt", make)
    return folder


def _unless_made(folder: Path, pins: Path, make) -> None:
    made = folder / "made-from.txt"
    if made.exists() and made.read_bytes() == pins.read_bytes():
        return
    print(f"making {folder.relative_to(PROJECT)}", file=sys.stderr)
    folder.parent.mkdir(exist_ok=True)
    make(pins)
    made.write_bytes(pins.read_bytes())
