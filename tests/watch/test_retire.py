"""Files that were kept long enough leave the archive; what stands about them stays."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from batches import add_leads, execute, rows, scalars
from leadferry.archive import Archive
from leadferry.errors import StoreError
from leadferry.store import history, retirements
from leadferry.watch import retire as retiring
from leadferry.watch.retire import retire

from .conftest import DAY


@pytest.fixture
def now(database):
    """The database's time: files are as old as it says."""
    return scalars(database, "SELECT now()")[0]


def files_in(folder: Path):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def delivered(port, batch_id="acme", **keys):
    """One delivery with one file; returns the file."""
    add_leads(port.database, 2)
    port.batch(batch_id, schedule="manual", **keys)
    port.carry(batch_id)
    (file_id,) = scalars(port.database, "SELECT max(id) FROM file")
    return history.get_file(port.database, file_id)


@pytest.mark.req("R222")
def test_a_file_older_than_the_policy_is_removed_and_its_row_hash_and_size_stay(port, now):
    file = delivered(port, retention={"files": "400d"})

    young = retire(port.database, port.archive, port.config, now=now + 399 * DAY)
    old = retire(port.database, port.archive, port.config, now=now + 401 * DAY)
    again = retire(port.database, port.archive, port.config, now=now + 402 * DAY)

    assert [one["decided"] for one in (young, old, again)] == [0, 1, 0]
    assert (old["removed"], files_in(port.folder / "archive")) == (1, [])
    assert history.get_file(port.database, file.id) == file
    assert retirements.removed_at(port.database, file.archive_key) == now + 401 * DAY
    assert rows(
        port.database, "SELECT actor, action, object, detail FROM audit WHERE action LIKE 'files.%'"
    ) == [("leadferry_maintenance", "files.removed", "batch acme", {"files": [file.id]})]
    with (
        pytest.raises(StoreError, match="retention"),
        port.archive.local_copy(file.archive_key, sha256=file.sha256),
    ):
        pass


def test_without_a_policy_files_stay_for_ever(port, now):
    delivered(port)

    assert retire(port.database, port.archive, port.config, now=now + 10_000 * DAY)["decided"] == 0
    assert len(files_in(port.folder / "archive")) == 1


@pytest.mark.req("R175")
def test_a_moved_file_is_still_what_a_delivery_would_send_and_is_removed_when_its_second_time_is_over(
    port, now, tmp_path
):
    cold = tmp_path / "cold"
    file = delivered(port, retention={"files": "90d", "then": {"move": str(cold), "keep": "310d"}})

    moved = retire(port.database, port.archive, port.config, now=now + 91 * DAY)
    with port.archive.local_copy(file.archive_key, sha256=file.sha256) as path:
        assert path.is_relative_to(cold)
        assert path.stat().st_size == file.size
    removed = retire(port.database, port.archive, port.config, now=now + 401 * DAY)

    assert (moved["moved"], removed["removed"]) == (1, 1)
    assert files_in(cold) == files_in(port.folder / "archive") == []


@pytest.mark.req("R175")
def test_files_move_to_an_object_store_and_come_back_from_it(port, now):
    from upath import UPath

    url = "memory://cold-tier"
    file = delivered(port, retention={"files": "90d", "then": {"move": url}})

    retire(port.database, port.archive, port.config, now=now + 91 * DAY)

    assert (UPath(url) / file.archive_key).stat().st_size == file.size
    with port.archive.local_copy(file.archive_key, sha256=file.sha256) as path:
        assert len(path.read_bytes()) == file.size


@pytest.mark.parametrize("state", ["claimed", "rendered", "held"])
def test_no_file_goes_that_a_delivery_may_still_send(port, now, state):
    delivered(port, retention={"files": "1d"})
    execute(port.database, "ALTER TABLE delivery DISABLE TRIGGER USER")
    execute(port.database, f"UPDATE delivery SET state = '{state}'")

    assert retire(port.database, port.archive, port.config, now=now + 100 * DAY)["decided"] == 0


def test_each_batch_has_its_own_policy_and_a_broken_file_keeps_everything(port, now):
    delivered(port, "acme", retention={"files": "10d"})
    delivered(port, "bolt", retention={"files": "100d"})
    delivered(port, "torn", retention={"files": "10d"})
    (port.config / "batches" / "torn.yaml").write_text("name: [\n")

    retire(port.database, port.archive, port.config, now=now + 50 * DAY)

    removed = scalars(
        port.database,
        "SELECT batch.id FROM retirement JOIN file USING (archive_key) JOIN delivery ON delivery.id = delivery_id"
        " JOIN batch ON batch.no = batch_no",
    )
    assert removed == ["acme"]


@pytest.mark.req("R176")
def test_a_deleted_batch_keeps_its_history_and_its_last_policy(port, now):
    file = delivered(port, retention={"files": "10d"})
    (port.config / "batches" / "acme.yaml").unlink()

    retire(port.database, port.archive, port.config, now=now + 50 * DAY)

    assert files_in(port.folder / "archive") == []
    (delivery,) = history.deliveries(port.database, history.Asked(batch_id="acme"))
    assert (delivery["state"], delivery["included"], delivery["files"]) == ("delivered", 2, file.name)


def test_what_was_decided_and_interrupted_is_carried_out_by_the_next_run(port, now, monkeypatch):
    file = delivered(port, retention={"files": "10d"})
    folder = (port.folder / "archive" / file.archive_key).parent

    def refuse(*_):
        raise StoreError("The archive is read-only")

    with monkeypatch.context() as broken:
        broken.setattr(port.archive, "remove", refuse)
        with pytest.raises(StoreError, match="1 files could not be moved or removed"):
            retire(port.database, port.archive, port.config, now=now + 11 * DAY)
    assert len(files_in(folder)) == 1

    after = retire(port.database, port.archive, port.config, now=now + 11 * DAY)
    assert (after["decided"], after["removed"], folder.exists()) == (0, 1, False)


def test_a_move_that_died_after_the_copy_goes_on_where_it_ended(port, tmp_path):
    file = delivered(port)
    cold = Archive(str(tmp_path / "cold"))
    port.archive.move(file.archive_key, str(cold.root), sha256=file.sha256)
    port.archive.move(file.archive_key, str(cold.root), sha256=file.sha256)

    with port.archive.local_copy(file.archive_key, sha256=file.sha256) as path:
        assert path.is_relative_to(tmp_path / "cold")


def test_a_file_whose_bytes_changed_is_not_moved(port, tmp_path):
    file = delivered(port)
    (port.folder / "archive" / file.archive_key).write_bytes(b"other")

    with pytest.raises(StoreError, match="has changed"):
        port.archive.move(file.archive_key, str(tmp_path / "cold"), sha256=file.sha256)
    assert files_in(port.folder / "archive") != []


@pytest.mark.req("R223")
def test_what_killed_processes_left_is_overwritten_and_removed_and_what_is_in_use_stays(
    port, now, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    unfinished = port.folder / "archive" / ".unfinished"
    copies = tmp_path / "tmp" / "leadferry-copy-abc"
    unfinished.mkdir(parents=True)
    copies.mkdir(parents=True)
    link = tmp_path / "kept"
    for path, days in ((unfinished / "old", 2), (unfinished / "new", 0), (copies / "file", 2)):
        path.write_text("ann@example.com")
        os.utime(path, times=((now - days * DAY).timestamp(),) * 2)
    os.link(unfinished / "old", link)

    counts = retire(port.database, port.archive, port.config, now=now)

    assert counts["left_over"] == 2
    assert files_in(port.folder / "archive") == ["new"]
    assert not copies.exists()
    assert link.read_bytes() == bytes(15)


def test_one_run_decides_about_no_more_than_it_can_do(port, now, monkeypatch):
    monkeypatch.setattr(retiring, "MOST_AT_ONCE", 1)
    delivered(port, retention={"files": "10d"})
    port.carry() if add_leads(port.database, 1) else None

    runs = [
        retire(port.database, port.archive, port.config, now=now + 50 * DAY + timedelta(n)) for n in range(3)
    ]

    assert [one["removed"] for one in runs] == [1, 1, 0]
