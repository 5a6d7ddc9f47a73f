"""A config folder, a store and a clock of the test's own."""

import itertools
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

# `batches` and `servers` are shared by several test folders and are no packages of the product.
TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)

from batches import DEPARTS_AT, execute  # noqa: E402
from leadferry.archive import Archive  # noqa: E402
from leadferry.batch.load import load_batch  # noqa: E402
from leadferry.delivery import deliver, extract, render, settle  # noqa: E402
from leadferry.delivery.extract import Trigger  # noqa: E402
from leadferry.watch.tell import watch  # noqa: E402

DAY = timedelta(days=1)
MONDAY = datetime(2026, 2, 2, tzinfo=UTC)
OPS = "ops@example.com"


class Port:
    """Batch files, a store and an archive; the present is what the test says."""

    def __init__(self, database, folder):
        self.database = database
        self.folder = folder
        self.runs = itertools.count(1)
        self.config = folder / "config"
        self.archive = Archive(str(folder / "archive"))
        (self.config / "recipients").mkdir(parents=True)
        (self.config / "recipients" / "acme.yaml").write_text("name: Acme Insurance\n")
        self.defaults()

    def defaults(self, **keys):
        (self.config / "defaults.yaml").write_text(yaml.safe_dump(keys))

    def batch(self, batch_id="acme", **keys):
        """Write a batch file: daily at 09:00 UTC unless the keys say otherwise."""
        file = self.config / "batches" / f"{batch_id}.yaml"
        file.parent.mkdir(exist_ok=True)
        told = {
            "name": f"{batch_id}, daily",
            "recipient": "acme",
            "flows": ["auto"],
            "schedule": {"at": ["09:00"]},
            "deadline": "30m",
            "fields": [{"to": "Email", "from": "email"}],
            "files": [{"name": "{{ batch.id }}_{{ delivery.number }}.csv", "format": {"type": "csv"}}],
            "destinations": [{"id": "drop", "type": "folder", "path": str(self.folder / "inbox")}],
            **keys,
        }
        file.write_text(yaml.safe_dump(told, sort_keys=False))
        return file

    def watch(self, now):
        return watch(self.database, self.config, now=now)

    def extract(self, batch_id="acme", *, at=DEPARTS_AT, run_id=None, **keys):
        batch = load_batch(batch_id, config=self.config)
        asked = Trigger(run_id=run_id or f"run {next(self.runs)}", departs_at=at, **keys)
        return extract.extract(self.database, batch, asked).delivery_id

    def rendered(self, batch_id="acme", *, at=DEPARTS_AT, **keys):
        delivery_id = self.extract(batch_id, at=at, **keys)
        render.render(self.database, self.archive, delivery_id)
        return delivery_id

    def carry(self, batch_id="acme", *, at=DEPARTS_AT, **keys):
        """A whole departure."""
        delivery_id = self.rendered(batch_id, at=at, **keys)
        for one in load_batch(batch_id, config=self.config).destinations:
            deliver.deliver(self.database, self.archive, delivery_id, one.id)
        settle.settle(self.database, self.archive, delivery_id)
        return delivery_id

    def abandon(self, delivery_id):
        """Let the lease of a delivery be over, as when nobody worked on it for hours."""
        execute(
            self.database,
            "UPDATE delivery SET lease_until = now() - interval '1 minute' WHERE id = :id",
            id=delivery_id,
        )


@pytest.fixture
def port(database, tmp_path, monkeypatch):
    made = Port(database, tmp_path)
    monkeypatch.setenv("LEADFERRY_CONFIG", str(made.config))
    return made


@pytest.fixture
def mail(tmp_path, monkeypatch):
    """A mail server and the Airflow connection `smtp` to it."""
    from servers import smtp

    with smtp.receiver(tmp_path / "smtp") as server:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP", json.dumps(server.announcement()["connection"]))
        yield server
