"""What runs in the processes that these tests kill: one try of one Airflow run, or a look at the inbox.

The test process never runs any of this itself. A driver is killed or stopped at a *point*: before or after one of the
functions that move a delivery on.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import paramiko
import polars as pl  # noqa: F401 loaded once, before the processes are forked
from airflow.providers.sftp.hooks.sftp import SFTPHook  # noqa: F401 the same

from batches import DEPARTS_AT, trigger
from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.delivery import deliver, extract, render, settle, stream
from leadferry.delivery.redelivery import ByHand, claim_redelivery
from leadferry.delivery.redelivery_params import Redeliver
from leadferry.destinations.parcel import Parcel
from leadferry.destinations.sftp import Sftp, SftpSession
from leadferry.errors import LeadferryError, NothingToDeliverError
from leadferry.mapping.fields import Mapping
from leadferry.states import DeliveryState
from leadferry.store import claim, ledger, routing, sending, settling
from leadferry.store.database import Database
from leadferry.store.leads import read_leads

POINTS = {
    "route": (routing, "route"),
    "take": (claim._Claimer, "claim"),
    "claim": (extract, "claim"),
    "map": (Mapping, "apply"),
    "publish": (Archive, "publish"),
    "record_files": (ledger, "record_files"),
    "begin_sending": (sending, "begin_sending"),
    "upload": (SftpSession, "_upload"),
    "rename": (paramiko.SFTPClient, "rename"),
    "end_sending": (sending, "end_sending"),
    "settle": (settling, "settle"),
}
"""Where a driver can be killed or stopped, in the order in which a delivery comes by."""


def attempt(job, pipe):
    """One try of a whole run, as Airflow's tasks make it; says how it ended through the pipe."""
    importlib.import_module("ferry_driver")
    os.environ["AIRFLOW_CONN_BUYER"] = json.dumps(job["connection"])
    stream.read_leads = partial(
        read_leads, block_bytes=job.get("block_bytes", 65536)
    )  # many blocks although the file is small
    _arm(job, pipe)
    pipe.send("started")
    try:
        pipe.send(_carry(job))
    except LeadferryError as error:
        pipe.send((type(error).__name__, error.retry))


def _carry(job):
    database, archive = Database(job["store"]), Archive(job["archive"])
    batch = Batch.model_validate(job["batch"])
    claimed = extract.extract(database, batch, trigger(job["run_id"]))
    if claimed.state is DeliveryState.SKIPPED:
        return str(claimed.state)
    render.render(database, archive, claimed.delivery_id)
    deliver.deliver(database, archive, claimed.delivery_id, "buyer")
    return str(settle.settle(database, archive, claimed.delivery_id).state)


def claim_only(job, pipe):
    """Claim for a run and report the delivery."""
    pipe.send("started")
    pipe.recv()
    claimed = extract.extract(
        Database(job["store"]), Batch.model_validate(job["batch"]), trigger(job["run_id"])
    )
    pipe.send((claimed.delivery_id, claimed.included))


def redeliver_only(job, pipe):
    """Choose leads by hand, write their files and send them; report what was taken."""
    pipe.send("started")
    pipe.recv()
    database, archive = Database(job["store"]), Archive(job["archive"])
    batch = Batch.model_validate(job["batch"])
    asked = Redeliver.parse({"batch": batch.id, "destination": "drop", **job["params"]})
    by = ByHand(run_id=job["run_id"], at=DEPARTS_AT, actor="kim")
    try:
        chosen = claim_redelivery(database, batch, asked, by)
        render.render(database, archive, chosen.delivery_id)
        deliver.deliver(database, archive, chosen.delivery_id, "drop")
        settle.settle(database, archive, chosen.delivery_id)
        pipe.send(chosen.included)
    except NothingToDeliverError:
        pipe.send(0)


def depart(job, pipe):
    """A departure beside them, to its end; report what it took."""
    pipe.send("started")
    pipe.recv()
    database, archive = Database(job["store"]), Archive(job["archive"])
    batch = Batch.model_validate(job["batch"])
    claimed = extract.extract(database, batch, trigger(job["run_id"]))
    if claimed.state is not DeliveryState.SKIPPED:
        render.render(database, archive, claimed.delivery_id)
        deliver.deliver(database, archive, claimed.delivery_id, "drop")
        settle.settle(database, archive, claimed.delivery_id)
    pipe.send(claimed.included)


def deliver_only(job, pipe):
    """Send the files of a rendered delivery."""
    os.environ["AIRFLOW_CONN_BUYER"] = json.dumps(job["connection"])
    _arm(job, pipe)
    pipe.send("started")
    try:
        pipe.send(
            deliver.deliver(Database(job["store"]), Archive(job["archive"]), job["delivery_id"], "buyer")
        )
    except LeadferryError as error:
        pipe.send((type(error).__name__, error.retry))


def send_only(job, pipe):
    """Send one file to a destination, without a delivery around it; report how many bytes arrived."""
    os.environ["AIRFLOW_CONN_BUYER"] = json.dumps(job["connection"])
    pipe.send("started")
    parcel = Parcel(key="large", attempt=job["attempt"], files=(job["file"],))
    with Sftp.model_validate(job["destination"]).open() as session:
        pipe.send(session.send(parcel).size)


def _arm(job, pipe):
    """Put the kill, or the stop, where the job wants it; the first time only."""
    if job.get("kill"):
        when, point = job["kill"]
        _wrap(point, when, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if job.get("pause"):
        when, point = job["pause"]

        def pause():
            pipe.send("paused")
            pipe.recv()

        _wrap(point, when, pause)


def _wrap(point, when, act):
    owner, name = POINTS[point]
    really = getattr(owner, name)
    to_do = [act]

    def wrapped(*args, **keys):
        if when == "before" and to_do:
            to_do.pop()()
        result = really(*args, **keys)
        if when == "after" and to_do:
            to_do.pop()()
        return result

    setattr(owner, name, wrapped)


def watch(folder, pipe):
    """Look at the buyer's folder again and again; report every content that ever stood under a final name."""
    seen, looked_at = {}, set()
    pipe.send("started")
    while not pipe.poll():
        for entry in os.scandir(folder):
            if entry.name.startswith("."):
                continue
            found = entry.stat()
            look = (entry.name, found.st_ino, found.st_size, found.st_mtime_ns)
            if look not in looked_at:
                looked_at.add(look)
                content = Path(entry.path).read_bytes()
                seen.setdefault(entry.name, set()).add(hashlib.sha256(content).hexdigest())
        time.sleep(0.001)
    pipe.send(seen)
