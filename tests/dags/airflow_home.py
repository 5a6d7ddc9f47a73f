"""An Airflow of a test's own: folders, a migrated metadata database, a lead store, batch files; real commands."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from leadferry.local.airflow import AirflowApi
from leadferry.local.postgres import EmbeddedPostgres
from leadferry.local.processes import Processes
from leadferry.local.settings import environment, write_passwords
from leadferry.local.workspace import Workspace
from leadferry.store.database import Database
from servers.ports import kept_free

PROJECT = Path(__file__).parents[2]

COMPONENTS = ("metadatabase", "scheduler", "dag_processor")
"""What must be healthy before a run can be expected to start."""


def batch_file(**keys):
    """What stands in a valid batch file: one CSV into `/nowhere`, by hand; every key may be changed."""
    return {
        "name": "Acme, by hand",
        "recipient": "acme",
        "flows": ["auto"],
        "schedule": "manual",
        "fields": [{"to": "Email", "from": "email"}],
        "files": [{"name": "{{ batch.id }}_{{ delivery.number }}.csv", "format": {"type": "csv"}}],
        "destinations": [{"id": "drop", "type": "folder", "path": "/nowhere"}],
        **keys,
    }


def write_batch(config: Path, batch_id: str, **keys) -> Path:
    """Write `config/batches/<id>.yaml` and, unless it is there, its recipient `acme`."""
    recipient = config / "recipients" / "acme.yaml"
    if not recipient.exists():
        recipient.parent.mkdir(parents=True, exist_ok=True)
        recipient.write_text("name: Acme Insurance\n")
    file = config / "batches" / f"{batch_id}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(batch_file(**keys), sort_keys=False))
    return file


@dataclass
class AirflowHome:
    """The folder `folder` and two databases of the embedded server belong to this Airflow alone."""

    folder: Path
    postgres: EmbeddedPostgres
    store: str
    """Name of the lead store's database."""
    metadata: str
    """Name of Airflow's own database."""
    connections: dict
    settings: dict[str, str] = field(default_factory=dict)
    """More environment variables for its processes."""
    _ports: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def workspace(self) -> Workspace:
        made = Workspace(self.folder)
        made.make()
        write_passwords(made)
        # Copies, as in an Airflow that was there before: docs/how-to/install-into-your-airflow.md.
        for name in ("dags", "plugins"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / name, self.folder / name, ignore=ignored)
        return made

    @cached_property
    def database(self) -> Database:
        return Database(self.postgres.url(self.store, driver="postgresql"))

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def inbox(self) -> Path:
        """Where `folder` destinations of these tests deliver."""
        return self.workspace.folder / "inbox"

    @cached_property
    def port(self) -> int:
        """Airflow's, kept free for as long as this object lives."""
        return self._ports.enter_context(kept_free())

    @property
    def environment(self) -> dict[str, str]:
        socket_folder = self.postgres.socket_folder
        mine = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.folder / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.folder / "plugins"),
            "LEADFERRY_CONFIG": str(self.config),
            "AIRFLOW_CONN_LEADFERRY": json.dumps(
                {"conn_type": "postgres", "host": socket_folder, "login": "postgres", "schema": self.store}
            ),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": (
                f"postgresql+psycopg2://postgres@/{self.metadata}?host={socket_folder}"
            ),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(self.folder / "python"), os.environ.get("PYTHONPATH")])
            ),
        }
        made = environment(
            self.workspace,
            port=self.port,
            postgres_socket=socket_folder,
            connections=self.connections,
            inherited=os.environ,
        )
        return {**made, **mine, **self.settings}

    def batch(self, batch_id: str, **keys) -> Path:
        """Write a batch file."""
        return write_batch(self.config, batch_id, **keys)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run `airflow …` and return how it ended, with everything it said."""
        return subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )

    def leadferry(self, *arguments: str, exits: int = 0) -> str:
        """Run `leadferry …`, see that it exits with this code, and return what it printed."""
        command = [str(Path(sys.executable).parent / "leadferry"), *arguments]
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == exits, done.stderr
        return done.stdout

    def dags_test(self, batch_id: str, **conf) -> subprocess.CompletedProcess:
        """Run `airflow dags test batch_<id>`, with the conf as JSON."""
        return self.run("dags", "test", f"batch_{batch_id}", *(["-c", json.dumps(conf)] if conf else []))

    def start(self, processes: Processes, *names: str) -> AirflowApi:
        """Start Airflow's processes and return the way to ask them; they are not ready yet."""
        for name in names:
            options = ["--skip-serve-logs"] if name == "scheduler" else []
            command = [sys.executable, "-m", "airflow", name, *options]
            processes.start(name, command, environment=self.environment, folder=self.folder)
        password = self.workspace.secrets().admin_password
        return AirflowApi(f"http://127.0.0.1:{self.port}", password=password)
