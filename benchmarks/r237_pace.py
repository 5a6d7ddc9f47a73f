"""R237: how near a limit of the pace an upload by SFTP comes, on a server of this machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Number
from leadferry.destinations.parcel import OutgoingFile, Parcel
from leadferry.destinations.sftp import Sftp
from leadferry.local.sftp import SftpReceiver

_SECONDS = 5
_LIMITS = (200_000, 5_000_000)
"""Bytes per second; the machine can do much more."""


def run(leads: int, repeat: int) -> list[Number]:  # noqa: ARG001  (as for all benchmarks)
    """Upload for five seconds at each limit, and return the pace that was reached as a share of it."""
    for noisy in ("asyncssh", "paramiko"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with (
        tempfile.TemporaryDirectory(prefix="leadferry-benchmarks-") as folder,
        SftpReceiver(
            root=Path(folder) / "root", state=Path(folder) / "state", passwords={"ferry": "ferry"}
        ) as server,
    ):
        os.environ["AIRFLOW_CONN_BENCHMARK"] = json.dumps(server.announcement()["connection"])
        return [_number(limit, Path(folder)) for limit in _LIMITS]


def _number(limit: int, folder: Path) -> Number:
    print(f"R237: {_SECONDS} s at {limit:,} bytes per second", file=sys.stderr)
    data = os.urandom(limit * _SECONDS)
    path = folder / f"{limit}.bin"
    path.write_bytes(data)
    file = OutgoingFile(
        name=path.name,
        path=path,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=0,
        media_type="application/octet-stream",
    )
    destination = Sftp(id="benchmark", connection="benchmark", max_bytes_per_second=limit)
    with destination.open() as session:
        began = time.monotonic()
        session.send(Parcel(key=path.name, attempt=1, files=(file,)))
        share = len(data) / (time.monotonic() - began) / limit
    what = f"pace / limit of {limit:,} bytes per second"
    return Number(benchmark="R237", what=what, value=share, at_least=0.9, at_most=1.1)
