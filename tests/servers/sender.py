"""A file of 200 MB, and a process of its own that sends it and can be killed."""

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time

from leadferry.destinations.parcel import OutgoingFile, Parcel

LARGE = 200_000_000
PATIENCE = 250
VARIABLES = {"delivery": {"date": "2026-01-31"}}


def large_parcel(folder, *, size=LARGE):
    """Return a parcel whose file is all zero, so that it takes no room on the disk."""
    path = folder / "large"
    with path.open("wb") as out:
        out.truncate(size)
    with path.open("rb") as stored:
        digest = hashlib.file_digest(stored, "sha256").hexdigest()
    file = OutgoingFile(name="leads.csv", path=path, size=size, sha256=digest, rows=1, media_type="text/csv")
    return Parcel(key="large", attempt=1, files=(file,), variables=VARIABLES)


@contextlib.contextmanager
def sending(destination, parcel, *, before=""):
    """Send in a process of its own, which runs the lines `before` first."""
    kind = type(destination)
    told = {"model": destination.model_dump(mode="json"), "path": str(parcel.file.path)}
    told |= {"size": parcel.file.size, "sha256": parcel.file.sha256, "variables": VARIABLES}
    program = f"""
import json, pathlib
from leadferry.destinations.parcel import OutgoingFile, Parcel
from {kind.__module__} import {kind.__name__}
{before}
told = json.loads({json.dumps(json.dumps(told))})
file = OutgoingFile(name="leads.csv", path=pathlib.Path(told["path"]), size=told["size"],
                    sha256=told["sha256"], rows=1, media_type="text/csv")
with {kind.__name__}.model_validate(told["model"]).open() as session:
    session.send(Parcel(key="large", attempt=1, files=(file,), variables=told["variables"]))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def until(reached, process):
    """Wait until the process has come so far."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it never came so far"
        threading.Event().wait(0.002)


def kill_while_sending(destination, parcel, *, when, before=""):
    """Send in a process of its own and kill it as soon as `when()` is true."""
    with sending(destination, parcel, before=before) as process:
        until(when, process)
        process.kill()
