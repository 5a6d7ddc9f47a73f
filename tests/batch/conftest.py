"""A config folder that a test fills with files."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch
from leadferry.batch.problems import BatchFileError

BATCH = """\
name: Acme, daily
recipient: acme
flows: [auto]
schedule: {at: ["09:00"], on: weekdays}
fields:
  - {to: Email, from: email}
files:
  - {name: "{{ batch.id }}_{{ delivery.number }}.csv", format: {type: csv}}
destinations:
  - {id: share, type: folder, path: out}
"""

RECIPIENT = """\
name: Acme
contacts: [{name: Robin Vale}]
"""


@dataclass(frozen=True)
class ConfigFolder:
    """`config/` of a project, with one good recipient."""

    path: Path

    def write(self, name: str, text: str) -> None:
        """Write a file, for example `batches/acme.yaml`."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")

    def batch(self, batch_id: str = "acme", text: str = BATCH, *, more: str = "") -> None:
        self.write(f"batches/{batch_id}.yaml", text + textwrap.dedent(more))

    def load(self, batch_id: str = "acme") -> Batch:
        return load_batch(batch_id, config=self.path)

    def complaints(self, batch_id: str = "acme") -> list[str]:
        """Return the lines of the error that loading the batch raises."""
        with pytest.raises(BatchFileError) as caught:
            self.load(batch_id)
        return str(caught.value).splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> ConfigFolder:
    config = ConfigFolder(tmp_path / "config")
    config.write("recipients/acme.yaml", RECIPIENT)
    return config
