"""`scripts/run` in a checkout of its own: everything arrives once, and nothing is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from leadferry.local.airflow import AirflowApi

PROJECT = Path(__file__).parents[2]
COPIED = ("config", "dags", "include", "plugins", "samples", "scripts", "pyproject.toml", "requirements.txt")


@dataclass
class Checkout:
    """A copy of the project, with a home of its own that must stay empty."""

    folder: Path
    home: Path
    runners: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        runner = subprocess.Popen(
            [self.folder / "scripts" / "run", *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "LEADFERRY_VENV": sys.prefix},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.runners.append(runner)
        return runner

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=240)
        return subprocess.CompletedProcess(arguments, process.returncode, said)

    def alive(self) -> list[psutil.Process]:
        """Everything that runs in this checkout, by its folder: Airflow, receivers, PostgreSQL."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            here = str(self.folder)
            return process.cwd().startswith(here) or any(here in argument for argument in process.cmdline())
        return False

    def inbox(self) -> dict[str, str]:
        """Every file that arrived, with its hash."""
        files = sorted((self.folder / ".leadferry" / "inbox").rglob("*.csv"))
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@dataclass
class Served:
    """What was seen while the first run served, before it was killed."""

    said: str
    arrived: dict[str, str]
    dag_ids: list[str]
    missing_dags: list[str]
    import_errors: list[str]
    second_runner: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    folder, home = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("home")
    for name in COPIED:
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy2
        copy(PROJECT / name, folder / name)
    made = Checkout(folder=folder, home=home)
    yield made
    for runner in made.runners:
        runner.kill()
        runner.communicate()
    for process in made.alive():
        process.kill()


@pytest.fixture(scope="module")
def served(checkout: Checkout) -> Served:
    """The first run in a fresh checkout; looked at while it serves, then killed without a chance to clean up."""
    runner = checkout.start()
    assert runner.stdout is not None
    said = ""
    for line in runner.stdout:
        said += line
        if line.startswith("Stop:"):
            break
    assert runner.poll() is None, said
    found = _look(checkout, said)
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    return found


def _look(checkout: Checkout, said: str) -> Served:
    url = re.search(r"Airflow: +(\S+)", said)
    assert url is not None, said
    secrets = json.loads((checkout.folder / ".leadferry" / "secrets.json").read_text())
    api = AirflowApi(url[1], password=secrets["admin_password"])
    dag_ids = [f"batch_{file.stem}" for file in (checkout.folder / "config" / "batches").glob("*.yaml")]
    try:
        return Served(
            said=said,
            arrived=checkout.inbox(),
            dag_ids=dag_ids,
            missing_dags=[dag_id for dag_id in dag_ids if not api.has_dag(dag_id)],
            import_errors=api.import_errors(),
            second_runner=checkout.run("--once"),
        )
    finally:
        api.close()


@pytest.fixture(scope="module")
def again(checkout: Checkout, served: Served) -> subprocess.CompletedProcess[str]:
    """A run right after the one that was killed."""
    assert checkout.alive(), "the killed run left nothing that the next one could stumble over"
    return checkout.run("--once")


def test_every_sample_batch_arrives_with_the_bytes_that_the_table_names(served: Served):
    assert len(served.arrived) == len(served.dag_ids) == 4
    for name, sha256 in served.arrived.items():
        row = next(line for line in served.said.splitlines() if name in line)
        assert "delivered" in row
        assert sha256[:12] in row


@pytest.mark.req("R001")
def test_each_batch_file_is_one_dag_and_nothing_fails_to_import(served: Served):
    assert served.dag_ids
    assert served.missing_dags == []
    assert served.import_errors == []


def test_a_second_runner_in_the_same_folder_is_refused(served: Served):
    assert served.second_runner.returncode == 1
    assert "already runs" in served.second_runner.stdout


def test_the_run_after_a_killed_one_clears_up_and_delivers_nothing_twice(
    checkout: Checkout, served: Served, again: subprocess.CompletedProcess[str]
):
    assert again.returncode == 0, again.stdout
    assert "stopped what an earlier run left" in again.stdout
    assert again.stdout.count("nothing waits: all was delivered before") == len(served.dag_ids)
    assert checkout.inbox() == served.arrived


def test_nothing_runs_any_more_and_nothing_was_written_into_the_home_folder(
    checkout: Checkout, again: subprocess.CompletedProcess[str]
):
    assert again.returncode == 0
    assert checkout.alive() == []
    assert list(checkout.home.iterdir()) == []


def test_a_request_to_stop_during_the_start_ends_everything(checkout: Checkout):
    runner = checkout.start()
    assert runner.stdout is not None
    for line in runner.stdout:
        if "receivers listen" in line:
            break
    runner.send_signal(signal.SIGTERM)
    rest, _ = runner.communicate(timeout=60)
    assert "everything is stopped" in rest
    assert runner.returncode == 130
    assert checkout.alive() == []
