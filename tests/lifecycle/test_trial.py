"""A test from the command line goes the ways that a delivery goes."""

import pytest

from batches import folder, make_batch
from leadferry.archive import Archive
from leadferry.errors import BatchConfigError
from leadferry.lifecycle.trial import trial
from leadferry.states import DeliveryState

API = {
    "id": "api",
    "type": "http",
    "connection": "api",
    "answers": [{"when": {"status": [200]}, "then": "accepted"}],
}


@pytest.fixture
def archive(tmp_path):
    return Archive(str(tmp_path / "archive"))


@pytest.mark.req("R012", "R198")
def test_a_destination_is_tried_before_its_fallback_wherever_that_stands(database, archive, tmp_path):
    drop, spare = folder(tmp_path / "drop"), folder(tmp_path / "spare", id="spare", fallback_for="drop")
    settled = trial(database, archive, make_batch(destinations=[spare, drop]), folder=None, actor="ops")
    assert settled.state is DeliveryState.DELIVERED
    assert (tmp_path / "drop").exists()
    assert not (tmp_path / "spare").exists()


@pytest.mark.req("R012")
def test_a_batch_without_files_cannot_be_tested_into_a_folder(database, archive, tmp_path):
    batch = make_batch(files=[], destinations=[API])
    with pytest.raises(BatchConfigError, match="has no files"):
        trial(database, archive, batch, folder=tmp_path, actor="ops")


@pytest.mark.req("R012")
def test_a_folder_gets_what_many_destinations_get(database, archive, tmp_path):
    file = {"name": "{{ file.segment }}.csv", "format": {"type": "csv"}}
    file["segment"] = {"by": "state", "values": ["CA", "TX"], "unknown": "withhold"}
    destinations = [folder("/x", id=one.lower(), segments=[one]) for one in ("CA", "TX")]
    here = tmp_path / "here"
    batch = make_batch(files=[file], destinations=[*destinations, API], success="all")
    assert trial(database, archive, batch, folder=here, actor="ops").state is DeliveryState.DELIVERED
    assert sorted(one.name.rpartition("_")[2] for one in here.iterdir()) == ["CA.csv", "TX.csv"]
