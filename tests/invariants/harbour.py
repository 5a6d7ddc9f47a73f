"""A lead store, an archive, a buyer's SFTP server, and processes that deliver from the one to the other."""

from __future__ import annotations

import csv
import hashlib
import io
import multiprocessing
import os
import time
from pathlib import Path

import ferry_driver
import psycopg

from batches import add_leads, make_batch, rows, scalars, waiting
from leadferry.local.sftp import SftpReceiver
from leadferry.store.database import Database

PATIENCE = 250
"""Seconds after which a process is given up for stuck; no test waits that long when it passes."""

processes = multiprocessing.get_context("forkserver")


def prepare():
    """Start the process that all drivers are forked from, with everything heavy loaded already."""
    here = Path(__file__).parent
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent), *([before] if before else [])])
    processes.set_forkserver_preload(["pytest", "ferry_driver"])
    started = processes.Process(target=int)
    started.start()
    started.join()
    os.environ.pop("PYTHONPATH")
    if before:
        os.environ["PYTHONPATH"] = before


class Driver:
    """A running process and the pipe to it."""

    def __init__(self, work, *args):
        self.pipe, theirs = processes.Pipe()
        self.process = processes.Process(target=work, args=(*args, theirs), daemon=True)
        self.process.start()
        theirs.close()
        assert self.hear() == "started"

    def hear(self):
        """What it says next; None when it died instead."""
        if not self.pipe.poll(PATIENCE):
            self.process.kill()
            raise AssertionError("the driver is stuck")
        try:
            return self.pipe.recv()
        except EOFError:
            return None

    def go(self):
        self.pipe.send("go")

    def kill(self):
        self.process.kill()
        self.end()

    def end(self):
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None
        self.pipe.close()
        return self.process.exitcode


class Harbour:
    """Everything a delivery passes through, and what must be true of it at the end."""

    def __init__(self, *, store, folder, receiver):
        self.store = store
        self.database = Database(store)
        self.archive = folder / "archive"
        self.inbox = receiver.root
        self.connection = receiver.announcement()["connection"]
        self.batch = make_batch(
            fields=[{"to": "Lead", "from": "id"}, {"to": "Note", "from": "note"}],
            destinations=[{"id": "buyer", "type": "sftp", "connection": "buyer", "directory": "/"}],
        ).model_dump(mode="json")
        self.leads = []

    def add_leads(self, count):
        self.leads += add_leads(self.database, count, fields={"note": "x" * 400})

    def job(self, run_id, **keys):
        return {
            "store": self.store,
            "archive": str(self.archive),
            "connection": self.connection,
            "batch": self.batch,
            "run_id": run_id,
            **keys,
        }

    def start(self, run_id, **keys):
        return Driver(ferry_driver.attempt, self.job(run_id, **keys))

    def attempt(self, run_id, **keys):
        """One try; what it said, or None when it was killed."""
        driver = self.start(run_id, **keys)
        said = driver.hear()
        driver.end()
        return said

    def until_done(self, run_id, *, tries=8):
        """Try again, as Airflow does, until the run has delivered."""
        said = []
        while len(said) < tries:
            said.append(self.attempt(run_id))
            if said[-1] == "delivered":
                return said
            assert said[-1][1], f"{said} cannot be tried again"
        raise AssertionError(f"not delivered: {said}")

    def measure(self):
        """Seconds of an undisturbed run."""
        self.add_leads(COUNT)
        driver = self.start("undisturbed")
        begin = time.monotonic()
        assert driver.hear() == "delivered"
        took = time.monotonic() - begin
        driver.end()
        return took

    def assert_every_lead_arrived_once(self, seen=None):
        """Hold the inbox, the archive's hashes and the ledger against each other."""
        files = dict(rows(self.database, "SELECT name, sha256 FROM file"))
        arrived = {path.name: path.read_bytes() for path in self.inbox.iterdir()}
        assert {name: hashlib.sha256(content).hexdigest() for name, content in arrived.items()} == files
        leads = [int(row["Lead"]) for content in arrived.values() for row in csv.DictReader(_text(content))]
        assert sorted(leads) == sorted(self.leads)
        assert waiting(self.database) == []
        if seen is not None:
            assert seen == {name: {sha256} for name, sha256 in files.items()}
        self._assert_the_ledger_is_consistent()

    def _assert_the_ledger_is_consistent(self):
        database = self.database
        unfinished = "SELECT id FROM delivery WHERE state NOT IN ('delivered', 'skipped', 'failed')"
        assert scalars(database, unfinished) == []
        assert set(scalars(database, "SELECT state::text FROM dispatch")) == {"confirmed"}
        assert scalars(database, "SELECT id FROM attempt WHERE ended_at IS NULL") == []
        confirmed = rows(
            database,
            "SELECT dispatch_id, count(*) FILTER (WHERE outcome = 'confirmed'), max(number), max(attempts)"
            " FROM attempt JOIN dispatch ON dispatch.id = dispatch_id GROUP BY 1",
        )
        assert all(count == 1 and last == attempts for _, count, last, attempts in confirmed)
        doubled = (
            "SELECT lead_id FROM delivery_lead WHERE outcome = 'included' GROUP BY 1 HAVING count(*) > 1"
        )
        assert scalars(database, doubled) == []


COUNT = 2000
"""Leads of one delivery; a file of nearly a megabyte."""


def _text(content):
    return io.StringIO(content.decode(), newline="")


def receiver(folder):
    return SftpReceiver(root=folder / "inbox", state=folder / "keys", passwords={"ferry": "correct horse"})


def cut_connections(url):
    """Cut every connection of the product to this store, as an administrator or a failing network would."""
    with psycopg.connect(url, autocommit=True, application_name="the test") as connection:
        cut = (
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'leadferry'"
        )
        return connection.execute(cut).fetchone()[0]
