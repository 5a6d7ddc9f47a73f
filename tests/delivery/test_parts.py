"""Files in parts, by number, by size and by a field's value; and the files that tell of them."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from batches import add_leads, folder, make_batch
from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.delivery import stream
from leadferry.delivery.deliver import deliver
from leadferry.delivery.extract import Trigger, extract
from leadferry.delivery.render import render
from leadferry.delivery.settle import settle
from leadferry.errors import DeliveryError, RenderError
from leadferry.states import DeliveryState
from leadferry.store import history
from leadferry.store.tables import lead

STATES = ["CA", "TX", "", "N/Y", "CA"]


@pytest.fixture
def inbox(tmp_path):
    return tmp_path / "inbox"


@pytest.fixture
def carry(database, tmp_path, inbox):
    def carry(file, *, leads=2500, **keys):
        rows = [
            {"flow": "auto", "fields": {"n": str(n), "state": STATES[n % 5]}} for n in range(1, leads + 1)
        ]
        with database.transaction() as connection:
            connection.execute(lead.insert(), rows)
        batch = Batch.model_validate(
            {
                "id": "acme",
                "name": "Acme",
                "recipient": {"id": "acme", "name": "Acme"},
                "flows": ["auto"],
                "schedule": "manual",
                "fields": [{"to": "N", "from": "n"}, {"to": "State", "from": "state"}],
                "files": [{"id": "leads", "format": {"type": "csv"}, **file}],
                "destinations": [{"id": "share", "type": "folder", "path": str(inbox)}],
                **keys,
            }
        )
        trigger = Trigger(run_id="r", departs_at=datetime(2026, 1, 31, tzinfo=UTC))
        claim = extract(database, batch, trigger)
        archive = Archive(str(tmp_path / "archive"))
        render(database, archive, claim.delivery_id)
        deliver(database, archive, claim.delivery_id, "share")
        return settle(database, archive, claim.delivery_id)

    return carry


def whole_numbers(frame):
    import pandas as pd

    return pd.Series([int(one) if one.isdigit() else None for one in frame["value"]], dtype=object)


def numbers(path):
    with path.open(newline="") as text:
        return [row["N"] for row in csv.DictReader(text)]


@pytest.mark.req("R094", "F17", "C18")
def test_2500_leads_in_parts_of_1000_are_three_numbered_files_without_loss(carry, inbox, database):
    settled = carry({"name": "{{ file.part }}_of_{{ file.parts }}.csv", "split": {"rows": 1000}})
    assert settled.state is DeliveryState.DELIVERED
    files = sorted(inbox.iterdir())
    assert [file.name for file in files] == ["1_of_3.csv", "2_of_3.csv", "3_of_3.csv"]
    assert [len(numbers(file)) for file in files] == [1000, 1000, 500]
    assert [str(n) for n in range(1, 2501)] == [n for file in files for n in numbers(file)]
    stored = history.dispatches(database, settled.delivery_id)
    assert [row["rows"] for row in stored] == [1000, 1000, 500]


@pytest.mark.req("F17")
@pytest.mark.parametrize("limit", [1000, 2048, 7000])
def test_no_part_is_larger_than_the_limit_and_none_is_much_smaller(carry, inbox, limit):
    carry({"name": "{{ file.part }}.csv", "split": {"bytes": f"{limit}B"}})
    files = sorted(inbox.iterdir(), key=lambda file: int(file.stem))
    sizes = [file.stat().st_size for file in files]
    assert max(sizes) <= limit
    assert min(sizes[:-1]) > limit * 0.7
    assert [str(n) for n in range(1, 2501)] == [n for file in files for n in numbers(file)]


def test_both_limits_hold_at_once(carry, inbox):
    carry({"name": "{{ file.part }}.csv", "split": {"bytes": "2KB", "rows": 100}}, leads=950)
    assert [len(numbers(file)) for file in sorted(inbox.iterdir(), key=lambda file: int(file.stem))] == [
        100
    ] * 9 + [50]


def test_a_lead_that_alone_is_too_large_fails_the_file_and_nothing_is_lost(carry, database):
    fields = [{"to": "N", "value": "x" * 3000}]
    with pytest.raises(RenderError, match="a part with one lead has"):
        carry({"name": "{{ file.part }}.csv", "split": {"bytes": "1KB"}}, leads=3, fields=fields)


def test_a_file_without_leads_that_is_too_large_fails_as_well(ferry, inbox):
    file = {"name": "{{ file.part }}.xlsx", "format": {"type": "xlsx"}, "split": {"bytes": "1KB"}}
    batch = make_batch(empty="header_only", files=[file], destinations=[folder(inbox)])
    with pytest.raises(RenderError, match="a part with no leads has"):
        ferry.rendered(batch)


@pytest.mark.req("F17")
def test_a_function_that_gives_another_type_in_every_block_does_not_stop_the_division(
    ferry, inbox, monkeypatch
):
    add_leads(ferry.database, 400, received_at=datetime(2026, 1, 1, tzinfo=UTC))
    add_leads(ferry.database, 400, fields={"n": "none"})
    monkeypatch.setattr(stream, "read_leads", partial(stream.read_leads, block_bytes=2000))
    function = {"python": {"function": "users.whole_numbers"}}
    monkeypatch.setitem(sys.modules, "users", SimpleNamespace(whole_numbers=whole_numbers))
    fields = [{"to": "Lead", "from": "id"}, {"to": "N", "from": "n", "transform": [function]}]
    file = {"name": "{{ file.part }}.csv", "format": {"type": "csv"}, "split": {"bytes": "1KB"}}
    ferry.carry(make_batch(fields=fields, files=[file], destinations=[folder(inbox)]))
    files = sorted(inbox.iterdir(), key=lambda file: int(file.stem))
    found = [number for file in files for number in numbers(file)]
    assert sorted(found) == sorted([*map(str, range(1, 401)), *[""] * 400])


@pytest.mark.req("F18")
def test_each_value_of_a_field_gets_its_file_and_the_rest_the_default_one(carry, inbox):
    segment = {"by": "state", "values": ["CA", "N/Y"], "default": "other"}
    settled = carry({"name": "{{ file.segment }}.csv", "segment": segment}, leads=10)
    assert (settled.state, settled.included) == (DeliveryState.DELIVERED, 10)
    found = {file.name: numbers(file) for file in inbox.iterdir()}
    assert found == {
        "CA.csv": ["4", "5", "9", "10"],
        "N_Y.csv": ["3", "8"],
        "other.csv": ["1", "2", "6", "7"],
    }


@pytest.mark.req("F18")
def test_leads_without_a_segment_can_be_withheld_with_the_reason(carry, inbox, database):
    segment = {"by": "state", "values": ["CA", "TX", "N/Y"], "unknown": "withhold"}
    settled = carry({"name": "{{ file.segment }}.csv", "segment": segment}, leads=10)
    assert (settled.included, settled.withheld) == (8, 2)
    assert history.withheld_reasons(database, settled.delivery_id) == [
        {"reason": "segment state", "leads": 2}
    ]
    assert sorted(file.name for file in inbox.iterdir()) == ["CA.csv", "N_Y.csv", "TX.csv"]


def test_two_values_that_would_meet_under_one_name_fail_before_anything_is_sent(carry, inbox):
    segment = {"by": "state", "values": ["N/Y", "N_Y"], "default": "n_y"}
    with pytest.raises(RenderError, match="would have the same name"):
        carry({"name": "{{ file.segment }}.csv", "segment": segment}, leads=10)
    assert not inbox.exists()


def test_segments_and_parts_go_together(carry, inbox):
    name = "{{ file.segment }}_{{ file.part }}of{{ file.parts }}.csv"
    carry(
        {"name": name, "segment": {"by": "state", "values": ["CA", "TX", "N/Y"]}, "split": {"rows": 3}},
        leads=10,
    )
    assert {file.name: len(numbers(file)) for file in inbox.iterdir()} == {
        "CA_1of2.csv": 3,
        "CA_2of2.csv": 1,
        "TX_1of1.csv": 2,
        "N_Y_1of1.csv": 2,
        "other_1of1.csv": 2,
    }


@pytest.mark.req("F15")
def test_manifest_checksum_and_marker_tell_of_the_files_and_come_last(carry, inbox, database):
    file = {"name": "{{ file.part }}.csv", "split": {"rows": 6}, "checksum": "sha256"}
    settled = carry(file, leads=10, manifest={"name": "m.json"}, done_marker={"name": "all.done"})
    order = [row["file"] for row in history.dispatches(database, settled.delivery_id)]
    assert order == ["1.csv", "2.csv", "1.csv.sha256", "2.csv.sha256", "m.json", "all.done"]
    manifest = json.loads((inbox / "m.json").read_text())
    assert manifest["leads"] == 10
    for entry in manifest["files"]:
        content = (inbox / entry["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert f"{entry['sha256']}  {entry['name']}\n" == (inbox / f"{entry['name']}.sha256").read_text()
    assert (inbox / "all.done").read_bytes() == b""


@pytest.mark.req("F15", "C07")
def test_a_manifest_never_announces_what_is_not_there(carry, inbox):
    inbox.mkdir()
    (inbox / "2.csv").write_text("something else")
    with pytest.raises(DeliveryError):
        carry({"name": "{{ file.part }}.csv", "split": {"rows": 6}}, leads=10, manifest={"name": "m.json"})
    assert sorted(file.name for file in inbox.iterdir()) == ["1.csv", "2.csv"]


def test_a_manifest_may_be_a_table(carry, inbox):
    carry({"name": "a.csv"}, leads=3, manifest={"name": "m.csv", "format": "csv"})
    (row,) = csv.DictReader((inbox / "m.csv").read_text().splitlines())
    assert (row["name"], row["rows"], row["leads"]) == ("a.csv", "3", "3")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ({"name": "a.csv", "split": {"rows": 5}}, "file.part"),
        ({"name": "a.csv", "segment": {"by": "state", "values": ["CA"]}}, "file.segment"),
        ({"name": "{{ file.segment }}.csv", "segment": {"by": "state"}}, "values"),
        (
            {"name": "{{ file.part }}of{{ file.parts }}.csv", "split": {"bytes": "5KB"}},
            "not known beforehand",
        ),
        ({"name": "{{ file.part }}.csv", "split": {}}, "say rows, bytes or both"),
        ({"name": "{{ file.part }}.csv", "split": {"bytes": "5 parsecs"}}, "such as 10MB"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_the_batch_file(carry, file, told):
    with pytest.raises(ValidationError, match=told):
        carry(file, leads=1)
