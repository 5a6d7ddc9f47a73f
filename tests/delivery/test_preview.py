"""A preview renders as the delivery would, and touches nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from batches import add_leads, folder, make_batch, scalars, waiting
from leadferry.delivery.preview import preview

NOW = datetime(2026, 1, 31, 14, tzinfo=UTC)


@pytest.mark.req("F34")
def test_a_preview_is_the_first_leads_as_they_would_be_delivered_and_claims_nothing(database, tmp_path):
    leads = add_leads(database, 20)
    rules = [{"name": "not_the_first", "field": "n", "at_least": 3}]
    batch = make_batch(select={"rules": rules}, destinations=[folder(tmp_path / "inbox")])
    (path,) = preview(database, batch, tmp_path / "look", leads=5, now=NOW, actor="ops")
    assert path.name.startswith("PREVIEW_")
    lines = path.read_text().splitlines()
    assert [line for line in lines[1:] if "lead3@" in line] == [lines[1]]
    assert len(lines) == 6
    assert path.stat().st_mode & 0o777 == 0o600
    assert waiting(database) == leads
    assert scalars(database, "SELECT count(*) FROM delivery") == [0]
    assert scalars(database, "SELECT actor FROM audit WHERE action = 'batch.preview'") == ["ops"]


def test_an_empty_queue_gives_files_without_leads(database, tmp_path):
    batch = make_batch(destinations=[folder(tmp_path / "inbox")])
    (path,) = preview(database, batch, tmp_path / "look", leads=5, now=NOW, actor="ops")
    assert len(path.read_text().splitlines()) == 1
