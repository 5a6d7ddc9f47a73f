"""A preview renders as the delivery would, and touches nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from batches import add_leads, folder, make_batch, scalars, waiting
from leadferry.delivery.preview import preview
from leadferry.errors import RenderError

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


def test_no_more_leads_are_shown_than_a_delivery_takes(database, tmp_path):
    add_leads(database, 5)
    batch = make_batch(select={"limit": 2}, destinations=[folder(tmp_path / "inbox")])
    (path,) = preview(database, batch, tmp_path / "look", leads=5, now=NOW, actor="ops")
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.req("F18", "F34")
def test_leads_that_no_segment_takes_are_not_shown(database, tmp_path):
    for state in ("TX", "CA"):
        add_leads(database, fields={"state": state})
    segment = {"by": "state", "values": ["CA"], "unknown": "withhold"}
    file = {"name": "{{ file.segment }}.csv", "format": {"type": "csv"}, "segment": segment}
    batch = make_batch(fields=[{"to": "State", "from": "state"}], files=[file])
    (path,) = preview(database, batch, tmp_path / "look", leads=5, now=NOW, actor="ops")
    assert path.read_text().split() == ["State", "CA"]


@pytest.mark.req("F53")
def test_files_that_would_have_the_same_name_are_told_as_in_a_delivery(database, tmp_path):
    files = [
        {"id": one, "name": name, "format": {"type": "csv"}}
        for one, name in {"a": "{{ batch.id }}.csv", "b": "ACME.csv"}.items()
    ]
    with pytest.raises(RenderError, match="two files would be called PREVIEW_ACME"):
        preview(database, make_batch(files=files), tmp_path / "look", leads=5, now=NOW, actor="ops")


@pytest.mark.req("F34", "R159")
def test_what_an_api_would_be_given_is_shown_as_well(database, tmp_path):
    leads = add_leads(database, 3)
    api = {"id": "api", "type": "http", "connection": "api"}
    api["answers"] = [{"when": {"status": [200]}, "then": "accepted"}]
    batch = make_batch(files=[], destinations=[api])
    (path,) = preview(database, batch, tmp_path / "look", leads=2, now=NOW, actor="ops")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["lead_id"] for one in records] == leads[:2]
    assert records[0]["fields"]["Email"] == "lead1@example.com"
    assert path.stat().st_mode & 0o777 == 0o600
