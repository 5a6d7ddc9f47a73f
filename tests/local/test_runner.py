"""Starting anew, and a folder that an earlier run left half made."""

from __future__ import annotations

import psutil

from leadferry.local.arrivals import Arrival
from leadferry.local.postgres import EmbeddedPostgres
from leadferry.local.runner import all_well, kill_postgres, reset
from leadferry.local.workspace import Workspace
from leadferry.states import DeliveryState


def test_reset_ends_a_server_that_was_left_running_and_empties_the_folder(tmp_path):
    workspace = Workspace(tmp_path / ".leadferry")
    workspace.make()
    EmbeddedPostgres(workspace.postgres)
    server = int((workspace.postgres / "postmaster.pid").read_text().split()[0])
    (workspace.inbox("sftp")).mkdir(parents=True)
    (workspace.inbox("sftp") / "leads.csv").write_text("kept nowhere")

    with workspace.lock():
        reset(workspace)

    assert not psutil.pid_exists(server)
    assert [path.name for path in workspace.folder.iterdir()] == ["lock"]


def test_a_killed_server_keeps_what_was_committed(tmp_path):
    workspace = Workspace(tmp_path / ".leadferry")
    workspace.make()
    EmbeddedPostgres(workspace.postgres).ensure_database("kept")
    kill_postgres(workspace)

    again = EmbeddedPostgres(workspace.postgres)
    try:
        with again._connect() as connection:
            assert connection.execute("SELECT 1 FROM pg_database WHERE datname = 'kept'").fetchone()
    finally:
        again.stop(crash=True)


def test_secrets_stay_the_same_and_only_the_owner_reads_them(tmp_path):
    workspace = Workspace(tmp_path / ".leadferry")
    workspace.make()
    assert workspace.secrets() == workspace.secrets()
    assert (workspace.folder / "secrets.json").stat().st_mode & 0o077 == 0


def test_a_run_is_well_only_when_every_batch_delivered_all_it_had():
    good = Arrival(batch_id="a", state=DeliveryState.DELIVERED, leads=3)
    empty = Arrival(batch_id="b", state=DeliveryState.SKIPPED, leads=0)
    assert all_well([good, empty])
    assert not all_well([])
    for state in (DeliveryState.FAILED, DeliveryState.PARTIAL, DeliveryState.HELD, DeliveryState.CLAIMED):
        assert not all_well([good, Arrival(batch_id="c", state=state, leads=1)])
