"""The lead store, the archive and Airflow, as every delivery needs them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from leadferry.archive import Archive
from leadferry.connections import CONNECTION_ID
from leadferry.doctor.finding import Examination, Finding, Stage, Verdict
from leadferry.errors import LeadferryError
from leadferry.store import health
from leadferry.store.database import Database
from leadferry.zones import time_zone

SKEW = timedelta(seconds=30)
"""How far the clocks of this machine and of the store may be apart."""

_WORDS = 4
_DAY = timedelta(days=1)
_YEAR = 366


def examine_home(
    store: Callable[[], Database],
    archive: Archive,
    *,
    pools: Iterable[str],
    clock: Callable[[], datetime],
    zones: Iterable[str] = (),
) -> Examination:
    """Examine what all batches share.

    Args:
        store: returns the lead store, or raises why it cannot be found.
        archive: where files are kept.
        pools: the Airflow pools that deliver tasks wait in.
        clock: tells this machine's time, aware.
        zones: the time zones that batches use.
    """
    found = Examination(subject="here", where=f"connection '{CONNECTION_ID}', archive {archive.root}")
    try:
        database = store()
        found.findings += [_schema(database), _clock(database, clock=clock)]
        found.findings.append(examine_zones(database, zones, now=clock()))
    except LeadferryError as error:
        told = _failed(Stage.STORE, error.what, error.next_step or "Correct the connection 'leadferry'")
        found.findings += [told, Finding(stage=Stage.CLOCK, verdict=Verdict.NOT_REACHED)]
    found.findings += [examine_archive(archive), examine_pools(pools), examine_plugin()]
    return found


def _schema(database: Database) -> Finding:
    state = health.schema(database)
    if state.current == state.wanted:
        what = f"PostgreSQL {state.server}, schema version {state.current}"
        return Finding(stage=Stage.STORE, verdict=Verdict.OK, what=what)
    if state.current is None:
        return _failed(Stage.STORE, "the lead store has no tables yet", "Run `leadferry db upgrade`")
    what = f"the lead store has schema version {state.current}, this version needs {state.wanted}"
    return _failed(Stage.STORE, what, "Run `leadferry db upgrade` with the newest version that is in use")


def _clock(database: Database, *, clock: Callable[[], datetime]) -> Finding:
    before = clock()
    theirs = health.clock(database)
    ours = before + (clock() - before) / 2
    apart = abs(theirs - ours)
    what = f"this machine and the store are {apart.total_seconds():.1f} s apart"
    if apart <= SKEW:
        return Finding(stage=Stage.CLOCK, verdict=Verdict.OK, what=what)
    hint = "Set the clocks by NTP: departures, leases and signatures are reckoned by them"
    return _failed(Stage.CLOCK, what, hint)


def examine_zones(database: Database, zones: Iterable[str], *, now: datetime) -> Finding:
    """Compare the store's time zones with those of the package `tzdata`, on every day of the coming year.

    Raises:
        StoreError: the store cannot be reached.
    """
    asked = sorted(set(zones))
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0)
    moments = [noon + number * _DAY for number in range(_YEAR)]
    theirs = health.offsets(database, asked, moments)
    unlike = [
        (moment, zone)
        for zone in asked
        for moment in moments
        if theirs.get((zone, moment)) != moment.astimezone(time_zone(zone)).utcoffset()
    ]
    if not unlike:
        what = f"{len(asked)} time zones are alike in the store and here"
        return Finding(stage=Stage.ZONES, verdict=Verdict.OK, what=what)
    names = ", ".join(sorted({zone for _, zone in unlike}))
    what = f"the store's rules for {names} differ from ours, first on {min(unlike)[0]:%Y-%m-%d}"
    hint = "Update the older one: tzdata on the database's server, or the Python package here; see docs/reference/environment.md"
    return Finding(stage=Stage.ZONES, verdict=Verdict.WARNING, what=what, remedy=hint)


def examine_archive(archive: Archive) -> Finding:
    """Write a few made-up bytes, read them back, and remove them."""
    content = b"Leadferry doctor: made up, to be removed.\n" + secrets.token_hex(_WORDS).encode()
    try:
        with archive.new_file() as file:
            file.write(content)
            file.finish()
            key = f"doctor/{file.sha256}"
            archive.publish(file, key)
            sha256 = file.sha256
        with archive.local_copy(key, sha256=sha256):
            pass
        archive.remove(key)
    except LeadferryError as error:
        return _failed(Stage.ARCHIVE, error.what, error.next_step)
    except Exception as error:  # noqa: BLE001  (every object store raises its own kinds; none of them holds a lead)
        what = f"the archive {archive.root} cannot be used ({type(error).__name__})"
        return _failed(Stage.ARCHIVE, what, "Check LEADFERRY_ARCHIVE, its permissions and credentials")
    what = f"{archive.root}: written, read back and removed"
    return Finding(stage=Stage.ARCHIVE, verdict=Verdict.OK, what=what)


def examine_pools(wanted: Iterable[str]) -> Finding:
    """Look whether Airflow has the pools: a task whose pool does not exist is never started, and nobody is told."""
    from airflow.models.pool import Pool

    try:
        there = {pool.pool: pool.slots for pool in Pool.get_pools()}
    except Exception as error:  # noqa: BLE001  (whatever keeps this machine from Airflow's database)
        what = f"Airflow's database cannot be asked from here ({type(error).__name__})"
        hint = "Run this where `airflow pools list` works"
        return Finding(stage=Stage.POOLS, verdict=Verdict.WARNING, what=what, remedy=hint)
    names = sorted(set(wanted))
    missing = [name for name in names if name not in there]
    closed = [name for name in names if there.get(name) == 0]
    if missing:
        hint = "`leadferry pools > pools.json`, then `airflow pools import pools.json`"
        return _failed(Stage.POOLS, f"Airflow has no pool {', '.join(missing)}", hint)
    if closed:
        hint = "Give them slots in Airflow under Admin, Pools"
        return _failed(Stage.POOLS, f"no slots, so nothing starts: {', '.join(closed)}", hint)
    return Finding(stage=Stage.POOLS, verdict=Verdict.OK, what=f"{len(names)} pools are there")


def examine_plugin() -> Finding:
    """Look whether Airflow loads the plugin; without it no process can read the DAGs of the batches."""
    from airflow import plugins_manager

    from leadferry.asset_timetable import DepartureOrAssetTimetable
    from leadferry.timetables import DepartureTimetable

    known = {one.__name__ for one in plugins_manager.get_timetables_plugins().values()}
    if {DepartureTimetable.__name__, DepartureOrAssetTimetable.__name__} <= known:
        return Finding(stage=Stage.PLUGIN, verdict=Verdict.OK, what="the timetables are registered")
    hint = "Put plugins/leadferry_plugin.py into the folder that `airflow config get-value core plugins_folder` names"
    return _failed(Stage.PLUGIN, "Airflow has not loaded Leadferry's plugin", hint)


def now() -> datetime:
    """Return this machine's time, in UTC."""
    return datetime.now(UTC)


def _failed(stage: Stage, what: str, remedy: str) -> Finding:
    return Finding(stage=stage, verdict=Verdict.FAILED, what=what, remedy=remedy)
