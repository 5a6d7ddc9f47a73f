"""A rendering that ends in its middle, by an error or by kill -9, leaves no file and nothing readable anywhere."""

import json
import signal
import subprocess
import sys

import pytest

from batches import add_leads, folder, make_batch
from leadferry.errors import RenderError
from leadferry.mapping.fields import Mapping

DRIVER = """
import os, signal, sys
from functools import partial
from leadferry.archive import Archive
from leadferry.delivery import render, stream
from leadferry.mapping.fields import Mapping
from leadferry.store.database import Database
from leadferry.store.leads import read_leads

url, archive, delivery_id = sys.argv[1:]
stream.read_leads = partial(read_leads, block_bytes=65536)
really, calls = Mapping.apply, []

def apply(self, frame):
    calls.append(frame.height)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return really(self, frame)

Mapping.apply = apply
render.render(Database(url), Archive(archive), int(delivery_id))
"""
CSV = {"id": "leads", "name": "leads.csv", "format": {"type": "csv"}}
XLSX = {"id": "leads", "name": "leads.xlsx", "format": {"type": "xlsx"}}
PASSWORD = {"connection": "zip_secret"}
BUNDLE = {"id": "all", "name": "all.zip", "files": ["leads"]}
KINDS = {
    "csv": {"files": [CSV]},
    "xlsx": {"files": [XLSX]},
    "gzip": {"files": [{**CSV, "compress": "gzip"}]},
    "zip_aes": {"files": [{**CSV, "encrypt": {"type": "zip_aes", **PASSWORD}}]},
    "xlsx_password": {"files": [{**XLSX, "encrypt": {"type": "xlsx_password", **PASSWORD}}]},
    "bundle": {"files": [CSV], "bundles": [BUNDLE]},
}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, of this process and of those it starts."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr("tempfile.tempdir", str(path))
    secret = json.dumps({"conn_type": "generic", "password": "a long secret"})
    monkeypatch.setenv("AIRFLOW_CONN_ZIP_SECRET", secret)
    return path


@pytest.fixture
def claimed(ferry, tmp_path):
    def claimed(kind):
        add_leads(ferry.database, 4000)
        return ferry.extract(make_batch(destinations=[folder(tmp_path / "inbox")], **KINDS[kind]))

    return claimed


def left_behind(*folders):
    return [path for one in folders for path in one.rglob("*") if path.is_file()]


@pytest.mark.req("R093", "R223", "F19", "F20")
@pytest.mark.parametrize("kind", ["csv", "xlsx", "zip_aes", "xlsx_password", "bundle"])
def test_i6_a_rendering_that_is_killed_leaves_no_file_and_the_next_one_delivers(
    ferry, claimed, temporary, store_url, kind
):
    delivery = claimed(kind)
    root = str(ferry.archive.root)
    command = [sys.executable, "-c", DRIVER, store_url, root, str(delivery.delivery_id)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    assert left_behind(temporary, ferry.archive.root) == []
    ferry.render(delivery)
    ferry.deliver(delivery, "drop")
    assert ferry.settle(delivery).state == "delivered"
    assert len(left_behind(ferry.archive.root)) == 1
    assert left_behind(temporary) == []


@pytest.mark.req("R223")
@pytest.mark.parametrize("kind", KINDS)
def test_a_rendering_that_fails_in_its_middle_leaves_no_file(ferry, claimed, temporary, monkeypatch, kind):
    delivery, really, calls = claimed(kind), Mapping.apply, []

    def apply(self, frame):
        calls.append(frame.height)
        if len(calls) == 2:
            raise RenderError("a value cannot be written")
        return really(self, frame)

    monkeypatch.setattr(Mapping, "apply", apply)
    monkeypatch.setattr("leadferry.delivery.stream.read_leads", small_blocks)
    with pytest.raises(RenderError, match="a value cannot be written"):
        ferry.render(delivery)
    assert left_behind(temporary, ferry.archive.root) == []


def small_blocks(*args, **keys):
    from leadferry.store.leads import read_leads

    return read_leads(*args, block_bytes=65536, **keys)
