"""The one folder that the try-out writes into: where things lie in it, its secrets, and who may use it now."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leadferry.local.processes import LocalRunError

PROJECT = Path(__file__).resolve().parents[3]
"""The checkout: the package is installed from `include/` in place, so it is found from here."""


@dataclass(frozen=True)
class Secrets:
    """What nobody else may know; made once per folder, kept in a file that only its owner can read."""

    admin_password: str
    receiver_password: str
    jwt_secret: str
    session_secret: str
    fernet_key: str


@dataclass(frozen=True)
class Workspace:
    """Paths inside the folder, `.leadferry/` in the project unless told otherwise."""

    folder: Path

    @property
    def airflow_home(self) -> Path:
        """Airflow's own folder."""
        return self.folder / "airflow"

    @property
    def postgres(self) -> Path:
        """Data of the embedded PostgreSQL."""
        return self.folder / "postgres"

    @property
    def archive(self) -> Path:
        """Rendered files, see `leadferry.archive`."""
        return self.folder / "archive"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.folder / "logs"

    @property
    def records(self) -> Path:
        """What runs, see `leadferry.local.processes`."""
        return self.folder / "run"

    @property
    def temporary(self) -> Path:
        """Temporary files of every process: leads never lie in a folder that others share."""
        return self.folder / "tmp"

    def inbox(self, receiver: str) -> Path:
        """What has arrived at this receiver."""
        return self.folder / "inbox" / receiver

    def state(self, receiver: str) -> Path:
        """Host keys, certificates and the like of this receiver."""
        return self.folder / "receivers" / receiver

    def make(self) -> None:
        """Make the folders that are not there yet; readable by their owner only where leads or secrets lie."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (
            self.logs,
            self.airflow_home,
            self.archive,
            self.temporary,
            self.records,
            self.folder / "inbox",
        ):
            path.mkdir(mode=0o700, exist_ok=True)

    def empty(self) -> None:
        """Remove everything but the lock."""
        for path in self.folder.iterdir():
            if path.name == "lock":
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def secrets(self) -> Secrets:
        """Return the folder's secrets, the same on every call; the first one makes them."""
        path = self.folder / "secrets.json"
        if not path.exists():
            made = {name: secrets.token_urlsafe(24) for name in Secrets.__dataclass_fields__}
            made["fernet_key"] = urlsafe_b64encode(secrets.token_bytes(32)).decode()
            draft = path.with_suffix(".draft")
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(made, indent=2), "utf-8")
            draft.replace(path)
        return Secrets(**json.loads(path.read_text("utf-8")))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runners out of this folder; the system lets go of it when this process ends, however it ends.

        Raises:
            LocalRunError: another runner uses the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                what = f"Leadferry already runs in {self.folder} (process {file.read().strip()})"
                raise LocalRunError(what, hint="Stop it with Ctrl-C in its terminal first") from None
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield
