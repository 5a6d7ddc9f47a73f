"""`leadferry doctor` beside a real Airflow: its own connections, pools and plugin."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from servers.sftp import receiver

from .patience import PATIENCE

pytestmark = pytest.mark.timeout(PATIENCE)


@pytest.fixture(scope="module")
def sftp(tmp_path_factory):
    with receiver(tmp_path_factory.mktemp("sftp")) as server:
        (server.root / "in").mkdir()
        yield server


@pytest.fixture(scope="module")
def airflow(make_airflow, sftp):
    made = make_airflow()
    made.batch(
        "acme",
        destinations=[{"id": "buyer", "type": "sftp", "connection": "in_the_database", "directory": "/in"}],
    )
    announced = json.dumps(sftp.announcement()["connection"])
    made.run("connections", "add", "in_the_database", "--conn-json", announced)
    return made


def doctor(airflow):
    """What it says, by subject; standard output is JSON and nothing else."""
    command = [str(Path(sys.executable).parent / "leadferry"), "doctor", "--json"]
    done = subprocess.run(
        command,
        env=airflow.environment,
        cwd=airflow.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode in {0, 1}, done.stderr
    told = json.loads(done.stdout)
    found = {one["subject"]: {two["stage"]: two for two in one["findings"]} for one in told["examined"]}
    return told["ok"], found


@pytest.mark.req("F43", "R144")
def test_missing_pools_are_told_and_everything_is_well_once_they_are_there(airflow):
    well, found = doctor(airflow)
    assert not well
    assert found["here"]["pools"]["verdict"] == "failed"
    assert "leadferry_sftp_in_the_database" in found["here"]["pools"]["what"]
    # The connection stands in Airflow's own database, where commands outside of its servers do not look by themselves.
    assert found["acme → buyer"]["delete"]["verdict"] == "ok"

    (airflow.folder / "pools.json").write_text(airflow.leadferry("pools"))
    airflow.run("pools", "import", str(airflow.folder / "pools.json"))
    well, found = doctor(airflow)

    assert {stage: one["verdict"] for stage, one in found["here"].items()} == dict.fromkeys(
        ["store", "clock", "archive", "pools", "plugin", "zones"], "ok"
    )
    assert found["acme → buyer"]["credential"]["verdict"] == "ok"
    assert well
