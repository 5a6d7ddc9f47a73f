"""The store goes away in the middle: crash and restart of PostgreSQL, connections cut (I6)."""

import contextlib
import random
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from harbour import COUNT, Harbour, cut_connections, receiver

from batches import add_leads
from leadferry.errors import StoreUnavailableError
from leadferry.local.postgres import EmbeddedPostgres
from leadferry.store.database import Database

DELIVERIES = 6

MOMENTS = [
    ("after", "route"),
    ("after", "take"),  # inside the claim's transaction, which is lost
    ("before", "map"),  # while leads are being read
    ("before", "record_files"),
    ("after", "record_files"),
    ("after", "begin_sending"),
    ("before", "rename"),
    ("after", "rename"),
    ("before", "settle"),
]


@pytest.fixture
def own_postgres():
    """A server that may crash without disturbing other tests.

    Not under pytest's own folder, which a second pytest closes to the user that the server runs as.
    """
    folder = Path(tempfile.mkdtemp(prefix="leadferry-pg-"))
    server = EmbeddedPostgres(folder / "db")
    with server._connect() as connection:
        # The machine does not crash, only the server: what it wrote is safe, and starting again takes no disk.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    server.ensure_database("store")
    Database(server.url("store", driver="postgresql")).upgrade()
    yield server
    server.stop(crash=True)
    shutil.rmtree(folder, ignore_errors=True)


def crash(server):
    """Pull the plug and start again; on a busy machine the library may give up on a server that does come up."""
    try:
        server.restart(crash=True)
    except AssertionError:
        type(server._server)._instances.pop(server.folder, None)  # what it gave up on
        server._server = server._start()


@pytest.mark.req("F01", "R170")
def test_i6_a_database_that_crashes_in_the_middle_loses_and_doubles_nothing(forks, own_postgres, tmp_path):
    with receiver(tmp_path) as server:
        harbour = Harbour(
            store=own_postgres.url("store", driver="postgresql"), folder=tmp_path, receiver=server
        )
        for number, moment in enumerate(MOMENTS):
            harbour.add_leads(COUNT)
            driver = harbour.start(f"run-{number}", pause=moment)
            assert driver.hear() == "paused", moment
            crash(own_postgres)
            driver.go()
            said = driver.hear()
            driver.end()
            assert said in ("delivered", ("StoreUnavailableError", True)), moment
            harbour.until_done(f"run-{number}")
        harbour.assert_every_lead_arrived_once()


def add_leads_despite_cuts(harbour):
    """The test's own insert may be cut as well; then nothing of it is there."""
    while True:
        with contextlib.suppress(StoreUnavailableError):
            return add_leads(harbour.database, COUNT, fields={"note": "x" * 400})


@pytest.mark.req("F01", "R170")
def test_i6_connections_that_are_cut_at_any_moment_lose_and_double_nothing(harbour, store_url):
    cut, said = [], []
    harbour.leads += add_leads(harbour.database, COUNT, fields={"note": "x" * 400})
    with cutting(store_url, cut, said):
        for number in range(DELIVERIES):
            said += harbour.until_done(f"run-{number}", tries=60)
            harbour.leads += add_leads_despite_cuts(harbour)
    said += harbour.until_done("last")
    assert sum(cut) > 0
    assert set(said) <= {"delivered", ("StoreUnavailableError", True)}
    harbour.assert_every_lead_arrived_once()


@contextlib.contextmanager
def cutting(store_url, cut, said):
    """Cut all connections again and again, more patiently while nothing is said: a busy machine needs longer."""
    chance, stop = random.Random(42), threading.Event()

    def cut_again_and_again():
        patience, known = 0.5, 0
        while not stop.wait(chance.uniform(0.02, patience)):
            cut.append(cut_connections(store_url))
            patience, known = (patience * 1.05, known) if len(said) == known else (0.5, len(said))

    cutter = threading.Thread(target=cut_again_and_again)
    cutter.start()
    try:
        yield
    finally:
        stop.set()
        cutter.join()
