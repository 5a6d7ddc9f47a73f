"""Processes start in sessions of their own and are stopped to the last child, by whoever comes next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from leadferry.local.processes import InterruptedRunError, LocalRunError, Processes

FAMILY = """
    import json, os, signal, sys, time
    if not os.fork():
        os.setpgid(0, 0)                                # as Airflow's task supervisor does
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(json.dumps({"child": os.getpid()}), flush=True)
        time.sleep(600)
    time.sleep(600)
"""
"""A parent that ends on SIGTERM, and a child in a process group of its own that does not."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path / "run", logs=tmp_path / "logs")
    yield processes
    processes.stop(grace=0.2)


@pytest.fixture
def start(made: Processes, tmp_path: Path) -> Callable[[str, str], None]:
    def start(name: str, script: str) -> None:
        command = [sys.executable, "-c", textwrap.dedent(script)]
        made.start(name, command, environment=dict(os.environ), folder=tmp_path, announces=True)

    return start


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_first_line_of_json_is_the_announcement(made, start):
    start("talker", 'print("starting"); print(\'{"port": 7}\', flush=True); import time; time.sleep(600)')
    assert made.announcement("talker") == {"port": 7}


def test_a_process_that_ends_before_its_announcement_is_named_with_its_log(made, start, tmp_path):
    start("broken", "import sys; sys.exit('no such file')")
    with pytest.raises(LocalRunError, match=r"broken ended by itself with exit code 1.*broken\.log"):
        made.announcement("broken")
    assert "no such file" in (tmp_path / "logs" / "broken.log").read_text()


def test_stop_ends_children_in_other_process_groups_that_ignore_the_request(made, start):
    start("family", FAMILY)
    child = made.announcement("family")["child"]
    made.stop(grace=0.5)
    assert _gone(child)
    assert made.stop_leftovers() == []


def test_what_a_killed_runner_left_is_stopped_by_the_next_one(tmp_path):
    script = f"""
        import os, pathlib, signal, sys
        from leadferry.local.processes import Processes
        processes = Processes(pathlib.Path("run"), logs=pathlib.Path("logs"))
        processes.start("family", [sys.executable, "-c", {textwrap.dedent(FAMILY)!r}],
                        environment=dict(os.environ), folder=pathlib.Path.cwd(), announces=True)
        print(processes.announcement("family")["child"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    runner = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    child = int(runner.stdout)
    assert runner.returncode == -signal.SIGKILL
    assert psutil.pid_exists(child)

    assert Processes(tmp_path / "run", logs=tmp_path / "logs").stop_leftovers(grace=0.2) == ["family"]

    assert _gone(child)


def test_an_orphan_is_stopped_also_when_its_parent_is_gone(made, start, tmp_path):
    start("family", FAMILY)
    child = made.announcement("family")["child"]
    parent = psutil.Process(child).ppid()
    os.kill(parent, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(parent)] if psutil.pid_exists(parent) else [], timeout=10)

    Processes(tmp_path / "run", logs=tmp_path / "logs").stop_leftovers(grace=0.2)

    assert _gone(child)


def test_a_number_that_the_system_has_given_to_another_process_is_left_alone(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        (tmp_path / "run").mkdir()
        record = {"pid": other.pid, "born": psutil.Process(other.pid).create_time() - 3600}
        (tmp_path / "run" / "scheduler.pid.json").write_text(json.dumps(record))
        assert Processes(tmp_path / "run", logs=tmp_path / "logs").stop_leftovers() == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_finish_waits_for_the_end_and_tells_of_a_failure(made, start):
    start("good", "pass")
    made.finish("good", timeout=30)
    start("bad", "raise SystemExit(3)")
    with pytest.raises(LocalRunError, match="bad failed with exit code 3"):
        made.finish("bad", timeout=30)
    made.check()


def test_a_wait_ends_when_the_run_is_interrupted(made, start):
    start("sleeper", "import time; time.sleep(600)")
    made.interrupt()
    with pytest.raises(InterruptedRunError):
        made.finish("sleeper", timeout=30)
    with pytest.raises(InterruptedRunError):
        made.announcement("sleeper")
