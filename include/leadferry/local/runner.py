"""What `scripts/run` does: a complete Leadferry on this machine, the sample batches delivered, everything stopped.

Airflow's migration takes the longest, so it runs beside the receivers, the lead store's migration and the import of
the samples; nothing is waited for by the clock, everything by asking.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import psutil
import typer

from leadferry.batch.model import Batch
from leadferry.leads_import.load import import_leads
from leadferry.local import receivers
from leadferry.local.airflow import ENDED, AirflowApi
from leadferry.local.arrivals import Arrival, arrivals, clock, in_flight
from leadferry.local.postgres import EmbeddedPostgres
from leadferry.local.processes import LocalRunError, Processes
from leadferry.local.settings import environment, plain_environment, write_passwords
from leadferry.local.workspace import PROJECT, Workspace
from leadferry.store.database import Database

SAMPLES = {"us_contacts": "us_500.csv", "education": "education_leads.csv"}
"""For each sample flow the file of its leads, in `samples/`."""

_COMPONENTS = {
    "api-server": "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}
"""Airflow's processes, and under which name its health page answers for each."""

_POOL_SLOTS = 4
"""As in `leadferry.dag_factory`, which is not imported here because Airflow comes with it and takes seconds."""

_START_SECONDS = 300.0
_DELIVERY_SECONDS = 900.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class TryOut:
    """A running Leadferry; a context manager that stops everything it started, however the block ends."""

    def __init__(self, workspace: Workspace, *, port: int | None) -> None:
        self._workspace = workspace
        self._processes = Processes(workspace.records, logs=workspace.logs)
        self._port = port or _free_port()
        self._postgres: EmbeddedPostgres | None = None
        self._environment: Mapping[str, str] = {}
        self._connections: dict[str, dict[str, Any]] = {}
        self._began = time.monotonic()
        self.url = f"http://127.0.0.1:{self._port}"
        self.api = AirflowApi(self.url, password=workspace.secrets().admin_password)

    def __enter__(self) -> Self:
        """Clear up what a killed run left, and from now on stop in good order when asked to."""
        for number in _SIGNALS:
            signal.signal(number, lambda *_: self._processes.interrupt())
        left = self._processes.stop_leftovers()
        if left:
            self._say(f"stopped what an earlier run left: {', '.join(left)}")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything; a second Ctrl-C does not keep it from that."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.api.close()
        self._processes.stop(grace=5)
        self._stop_postgres()
        self._say("everything is stopped")

    @property
    def database(self) -> Database:
        """The lead store."""
        return Database(self._running_postgres.url("leadferry"))

    @property
    def _running_postgres(self) -> EmbeddedPostgres:
        if self._postgres is None:
            raise LocalRunError("PostgreSQL is not started yet")
        return self._postgres

    def start(self, batches: Sequence[Batch]) -> None:
        """Start everything that these batches need and return when Airflow says that it is healthy."""
        self._start_postgres()
        self._connections = self._start_receivers(batches)
        self._environment = environment(
            self._workspace,
            port=self._port,
            postgres_socket=self._running_postgres.socket_folder,
            connections=self._connections,
            inherited=os.environ,
        )
        self._write_shell_file()
        with self._airflow_migration():
            self.database.upgrade()
            self._import_samples()
        self._start_airflow()
        self._make_pools(batches)

    def deliver(self, batches: Sequence[Batch]) -> list[Arrival]:
        """Run the DAGs of these batches once and return what arrived."""
        since = clock(self.database)
        run_id = f"try_out_{since:%Y%m%dT%H%M%S}"
        for batch in batches:
            self._depart(batch.dag_id, run_id=run_id)
        self._say(f"{len(batches)} batches depart")
        states = {batch.id: self._ended(batch.dag_id, run_id=run_id) for batch in batches}
        ids = [batch.id for batch in batches]
        self._until(
            lambda: not in_flight(self.database, ids),
            what="the last delivery is settled",
            timeout=_DELIVERY_SECONDS,
        )
        self._say("all runs have ended")
        inbox = self._workspace.inbox("s3")
        receivers.fetch_objects(self._connections["local_s3"], batches=batches, inbox=inbox)
        return arrivals(self.database, states, since=since)

    def _make_pools(self, batches: Sequence[Batch]) -> None:
        for name in sorted({destination.pool for batch in batches for destination in batch.destinations}):
            self._until(
                partial(self.api.ensure_pool, name, slots=_POOL_SLOTS), what=f"Airflow makes the pool {name}"
            )

    def _depart(self, dag_id: str, *, run_id: str) -> None:
        self._until(partial(self.api.has_dag, dag_id), what=f"Airflow has read {dag_id}")
        self._until(partial(self.api.trigger, dag_id, run_id=run_id), what=f"Airflow starts {dag_id}")

    def serve(self) -> None:
        """Stay until one of the processes ends by itself, which raises, or a signal comes."""
        while True:
            self._processes.check()
            time.sleep(1)

    def _start_postgres(self) -> None:
        workspace = self._workspace
        made = workspace.folder / "postgres-is-made"
        if not made.exists():
            discard_postgres(workspace)
        self._postgres = EmbeddedPostgres(workspace.postgres)
        self._postgres.ensure_database("leadferry")
        made.touch()
        if not self._migrated.exists():
            # A first migration that was cut off leaves tables that the next one stumbles over; nothing is lost yet.
            self._postgres.drop_database("airflow")
        self._postgres.ensure_database("airflow")
        self._say("PostgreSQL is up")

    def _stop_postgres(self) -> None:
        if self._postgres is None:
            return
        try:
            self._postgres.stop()
        except subprocess.CalledProcessError:
            # It did not go in good order, or had gone before; what is committed survives a kill as it does a power cut.
            kill_postgres(self._workspace)

    def _start_receivers(self, batches: Sequence[Batch]) -> dict[str, dict[str, Any]]:
        plain = plain_environment(self._workspace, inherited=os.environ)
        receivers.start_all(self._processes, workspace=self._workspace, batches=batches, environment=plain)
        found = receivers.connections(self._processes)
        self._say(f"receivers listen: {', '.join(receivers.NAMES)}")
        return found

    @property
    def _migrated(self) -> Path:
        return self._workspace.folder / "airflow-is-migrated"

    @contextmanager
    def _airflow_migration(self) -> Iterator[None]:
        """Migrate Airflow's database beside the block, unless this version of Airflow has done so before."""
        current = version("apache-airflow-core")
        if self._migrated.exists() and self._migrated.read_text("utf-8") == current:
            yield
            return
        self._run("airflow-migrate", "-m", "airflow", "db", "migrate")
        yield
        self._processes.finish("airflow-migrate", timeout=_START_SECONDS)
        self._migrated.write_text(current, "utf-8")
        self._say("Airflow's database is migrated")

    def _import_samples(self) -> None:
        for flow, file_name in SAMPLES.items():
            rejects = self._workspace.folder / "rejects" / f"{file_name}.rejects.csv"
            rejects.parent.mkdir(mode=0o700, exist_ok=True)
            result = import_leads(self.database, PROJECT / "samples" / file_name, flow=flow, rejects=rejects)
            self._say(str(result))

    def _start_airflow(self) -> None:
        write_passwords(self._workspace)
        self._run("api-server", "-m", "airflow", "api-server")
        self._run("scheduler", "-m", "airflow", "scheduler", "--skip-serve-logs")
        self._run("dag-processor", "-m", "airflow", "dag-processor")
        self._run("triggerer", "-m", "airflow", "triggerer", "--skip-serve-logs")
        names = tuple(_COMPONENTS.values())
        self._until(lambda: not self.api.unhealthy(names), what="Airflow is healthy", timeout=_START_SECONDS)
        self._say(f"Airflow is healthy at {self.url}")

    def _run(self, name: str, *arguments: str) -> None:
        self._processes.start(
            name, [sys.executable, *arguments], environment=self._environment, folder=PROJECT
        )

    def _ended(self, dag_id: str, *, run_id: str) -> str:
        state: str | None = None

        def ended() -> bool:
            nonlocal state
            state = self.api.run_state(dag_id, run_id=run_id)
            return state in ENDED

        self._until(ended, what=f"the run of {dag_id} ends", timeout=_DELIVERY_SECONDS)
        return str(state)

    def _until(self, question: Callable[[], bool], *, what: str, timeout: float = 120) -> None:
        """Ask until the answer is yes; say what was waited for when it never is."""
        deadline = time.monotonic() + timeout
        while not question():
            self._processes.check()
            if time.monotonic() >= deadline:
                errors = "; ".join(self.api.import_errors())
                hint = (
                    f"Airflow cannot read: {errors}" if errors else f"See the logs in {self._workspace.logs}"
                )
                raise LocalRunError(f"Waited {timeout:.0f} s in vain until {what}", hint=hint)
            time.sleep(0.2)

    def _write_shell_file(self) -> None:
        """Write what a shell needs to use the `leadferry` and `airflow` commands on this try-out."""
        path = self._workspace.folder / "env.sh"
        ours = {
            name: value
            for name, value in self._environment.items()
            if name.startswith(("AIRFLOW", "LEADFERRY"))
        }
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(ours.items())]
        lines.append(f'export PATH={shlex.quote(self._environment["PATH"].split(os.pathsep)[0])}:"$PATH"')
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n", "utf-8")

    def _say(self, what: str) -> None:
        typer.echo(f"{time.monotonic() - self._began:6.1f} s  {what}", err=True)


def reset(workspace: Workspace) -> None:
    """Stop what a previous run left and empty the folder."""
    Processes(workspace.records, logs=workspace.logs).stop_leftovers()
    discard_postgres(workspace)
    workspace.empty()


def discard_postgres(workspace: Workspace) -> None:
    """End a server on the folder, or one that is being made there, and remove its data."""
    kill_postgres(workspace)
    shutil.rmtree(workspace.postgres, ignore_errors=True)


def kill_postgres(workspace: Workspace) -> None:
    """End at once whatever works on the folder of the embedded PostgreSQL; committed data stays."""
    ours = [process for process in psutil.process_iter() if _works_on(process, str(workspace.postgres))]
    for process in ours:
        process.kill()
    psutil.wait_procs(ours, timeout=30)


def _works_on(process: psutil.Process, folder: str) -> bool:
    try:
        return process.name() in {"postgres", "initdb", "pg_ctl"} and folder in process.cmdline()
    except psutil.Error:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def all_well(found: Sequence[Arrival]) -> bool:
    """Whether every batch delivered all it had; nothing at all is not well."""
    return bool(found) and all(arrival.well for arrival in found)
