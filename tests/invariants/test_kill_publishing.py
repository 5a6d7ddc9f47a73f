"""kill -9 in each way of publishing a file on an SFTP server, and in the middle of a large one (I5, I6)."""

import hashlib
import json
import time

import ferry_driver
import pytest
from harbour import PATIENCE, Driver

from leadferry.destinations.parcel import OutgoingFile, Parcel
from leadferry.destinations.sftp import Sftp

LARGE = 200_000_000
"""Bytes; all zero, so that they take no room on the disk and next to nothing on the wire."""

WAYS = {
    "temp_directory": {"temporary_directory": "/uploads"},
    "direct": {},
    "direct_with_marker": {},
}
"""What needs more than `publish`; `rename` is what every other test here uses."""


@pytest.mark.req("F05", "F01")
@pytest.mark.parametrize("how", WAYS)
def test_i6_killed_around_every_step_of_publishing_each_lead_is_delivered_once(harbour, how):
    root = harbour.inbox
    (root / "uploads").mkdir()
    (root / "in").mkdir()
    harbour.batch["destinations"][0] |= {"directory": "/in", "publish": how, **WAYS[how]}
    harbour.inbox = root / "in"
    points = [(when, point) for point in ("upload", "end_sending") for when in ("before", "after")]
    for number, point in enumerate(points):
        harbour.add_leads(50)
        assert harbour.attempt(f"run-{number}", kill=point) is None, f"{point} was never reached"
        assert harbour.until_done(f"run-{number}") == ["delivered"], point
    markers = [path for path in harbour.inbox.iterdir() if path.name.endswith(".done")]
    assert len(markers) == (len(points) if how == "direct_with_marker" else 0)
    for marker in markers:
        marker.unlink()
    harbour.assert_every_lead_arrived_once()
    assert list((root / "uploads").iterdir()) == []


@pytest.mark.req("F01", "R143", "R137", "C01")
@pytest.mark.parametrize("how", ["rename", "direct_with_marker"])
def test_i6_killed_in_the_middle_of_a_large_file_one_complete_file_is_there_after_the_next_try(
    harbour, monkeypatch, tmp_path, how
):
    destination = Sftp(id="buyer", connection="buyer", directory="/", publish=how)
    monkeypatch.setenv("AIRFLOW_CONN_BUYER", json.dumps(harbour.connection))
    file = _large(tmp_path / "large")
    job = {"connection": harbour.connection, "destination": destination.model_dump(mode="json"), "file": file}

    driver = Driver(ferry_driver.send_only, {**job, "attempt": 1})
    _wait_until(lambda: any(path.stat().st_size > LARGE // 4 for path in harbour.inbox.iterdir()))
    driver.kill()
    assert harbour.inbox / ("large.csv" if how == "rename" else "large.csv.done") not in set(
        harbour.inbox.iterdir()
    )

    with destination.open() as session:
        assert session.find(Parcel(key="large", attempt=1, files=(file,))) is None
    driver = Driver(ferry_driver.send_only, {**job, "attempt": 2})
    assert driver.hear() == LARGE
    driver.end()
    there = {path.name: path for path in harbour.inbox.iterdir()}
    assert _sha256(there.pop("large.csv")) == file.sha256
    assert set(there) == ({"large.csv.done"} if how == "direct_with_marker" else set())


def _large(path):
    with path.open("wb") as out:
        out.truncate(LARGE)
    return OutgoingFile(
        name="large.csv", path=path, size=LARGE, sha256=_sha256(path), rows=1, media_type="text/csv"
    )


def _sha256(path):
    with path.open("rb") as stored:
        return hashlib.file_digest(stored, "sha256").hexdigest()


def _wait_until(happened):
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "the upload never came so far"
        time.sleep(0.002)
