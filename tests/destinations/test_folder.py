"""The folder destination: the contract, and what only folders do."""

import contextlib
import dataclasses
import errno
import hashlib
import os
import resource
import subprocess

import pytest

from contracts.destination_contract import Crash, FileStoreContract, Harness, find, send
from leadferry.destinations import folder
from leadferry.destinations.folder import Folder
from leadferry.errors import AccessDeniedError, NameConflictError, NoSuchPathError, QuotaError
from servers.sender import LARGE, kill_while_sending, large_parcel


class FolderHarness(Harness):
    def __init__(self, path):
        self.path = path
        self.destination = Folder(id="out", path=str(path))

    def _names(self):
        return [path.name for path in self.path.iterdir()] if self.path.exists() else []

    def visible(self):
        return {name: (self.path / name).read_bytes() for name in self._names() if not name.startswith(".")}

    def remains(self):
        return [name for name in self._names() if name.startswith(".")]

    def put(self, name, data):
        self.path.mkdir(exist_ok=True)
        (self.path / name).write_bytes(data)

    def leave_partial(self, parcel, data):
        self.put(parcel.temporary_name, data)

    @contextlib.contextmanager
    def failing_half_way(self):
        """Let the system refuse to make the file longer than half."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def crashing(self, monkeypatch, *, when):
        for name in ("link", "replace"):
            really = getattr(os, name)

            def crash(source, target, really=really):
                if when == "after":
                    really(source, target)
                raise Crash

            monkeypatch.setattr(os, name, crash)

    @contextlib.contextmanager
    def forbidden(self):
        """Point at a folder of the kernel's in which not even root may make files."""
        here, self.destination = self.destination, Folder(id="out", path="/sys/kernel", create=False)
        yield
        self.destination = here


@pytest.fixture
def harness(tmp_path):
    return FolderHarness(tmp_path / "out")


class TestFolder(FileStoreContract):
    pass


def test_missing_folders_are_made(tmp_path, parcel, content):
    send(Folder(id="out", path=f"{tmp_path}/a/b"), parcel)
    assert content == (tmp_path / "a/b/leads.csv").read_bytes()


@pytest.mark.req("R134", "R142")
def test_a_missing_folder_that_must_not_be_made_is_said(tmp_path, parcel):
    with pytest.raises(NoSuchPathError, match="ENOENT"):
        send(Folder(id="out", path=f"{tmp_path}/a", create=False), parcel)
    assert not (tmp_path / "a").exists()


def test_the_path_is_a_template_and_values_make_no_folders(tmp_path, parcel):
    parcel.variables["batch"]["name"] = "Acme/../../Auto"
    send(Folder(id="out", path=str(tmp_path) + "/{{ batch.name }}/{{ delivery.date }}"), parcel)
    assert (tmp_path / "Acme_.._.._Auto/2026-01-31/leads.csv").exists()
    parcel.variables["batch"]["name"] = "Acme Auto"


@pytest.mark.req("R095")
@pytest.mark.parametrize("create", [True, False], ids=["made", "required"])
def test_folders_by_year_and_month_are_made_or_required_as_the_batch_says(tmp_path, parcel, content, create):
    year_and_month = "/{{ delivery.year }}/{{ delivery.month }}"
    parcel = dataclasses.replace(
        parcel, variables={**parcel.variables, "delivery": {"year": "2026", "month": "01"}}
    )
    there = Folder(id="out", path=str(tmp_path) + year_and_month, create=create)
    if not create:
        with pytest.raises(NoSuchPathError):
            send(there, parcel)
        assert not (tmp_path / "2026").exists()
        (tmp_path / "2026" / "01").mkdir(parents=True)
    receipt = send(there, parcel)
    assert content == (tmp_path / "2026" / "01" / "leads.csv").read_bytes()
    assert receipt.location == str(tmp_path / "2026" / "01" / "leads.csv")


def test_a_probe_takes_the_folders_that_it_made_away_again(tmp_path, make_parcel):
    with Folder(id="out", path=f"{tmp_path}/new/er").open() as session:
        session.probe(make_parcel(b"probe"))
    assert not (tmp_path / "new").exists()


@pytest.mark.req("F53")
def test_a_folder_under_the_name_is_never_overwritten(tmp_path, parcel):
    (tmp_path / "leads.csv").mkdir()
    with pytest.raises(NameConflictError):
        send(Folder(id="out", path=str(tmp_path), on_name_taken="overwrite"), parcel)
    assert (tmp_path / "leads.csv").is_dir()


@pytest.mark.parametrize("name", ["..", "a\nb"])
def test_a_path_that_leads_elsewhere_is_refused(tmp_path, parcel, name):
    with pytest.raises(NoSuchPathError):
        send(Folder(id="out", path=f"{tmp_path}/{name}/x"), parcel)


def test_a_relative_path_starts_at_the_projects_folder(tmp_path, parcel, monkeypatch):
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path / "config"))
    send(Folder(id="out", path="out"), parcel)
    assert (tmp_path / "out/leads.csv").exists()


@pytest.mark.parametrize("link_answer", [errno.EPERM, errno.EOPNOTSUPP])
@pytest.mark.parametrize("renameat2", [True, False], ids=["renameat2", "no renameat2"])
def test_without_hard_links_a_name_is_still_never_taken_from_others(
    tmp_path, monkeypatch, link_answer, renameat2
):
    def link(source, target):
        raise OSError(link_answer, os.strerror(link_answer))

    monkeypatch.setattr(os, "link", link)
    if not renameat2:
        monkeypatch.setattr(folder, "_rename_noreplace", lambda *_: False)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "taken").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        folder.publish(tmp_path / "new", tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == b"other"
    assert ("renameat2" if renameat2 else "rename") == folder.publish(tmp_path / "new", tmp_path / "free")
    assert (tmp_path / "free").read_bytes() == b"new"


def test_a_name_that_is_taken_between_the_look_and_the_link_is_left_alone(
    tmp_path, harness, parcel, monkeypatch
):
    really = os.link

    def link(source, target):
        harness.put("leads.csv", b"faster")
        really(source, target)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Exception, match=r"leads\.csv"):
        send(harness.destination, parcel)
    assert harness.visible() == {"leads.csv": b"faster"}
    assert harness.remains() == []


@pytest.mark.req("R200")
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path, parcel):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk could not be mounted: run scripts/test as root with the right to mount")
    try:
        with pytest.raises(QuotaError, match="ENOSPC"):
            send(Folder(id="out", path=str(disk)), parcel)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_may_not_be_written_is_found_empty_not_failed(parcel):
    assert find(Folder(id="out", path="/sys/kernel", create=False), parcel) is None
    with pytest.raises(AccessDeniedError):
        send(Folder(id="out", path="/sys/kernel", create=False), parcel)


@pytest.mark.req("F01", "F05", "R143", "C01")
def test_a_process_that_is_killed_in_the_middle_of_200_mb_leaves_one_complete_file_after_the_next_try(
    tmp_path,
):
    parcel, inbox = large_parcel(tmp_path), tmp_path / "inbox"
    destination = Folder(id="drop", path=str(inbox))
    kill_while_sending(
        destination,
        parcel,
        when=lambda: any(one.stat().st_size > LARGE // 4 for one in inbox.glob(".*")),
    )
    assert not (inbox / "leads.csv").exists()
    send(destination, dataclasses.replace(parcel, attempt=2))
    (there,) = inbox.iterdir()
    assert there.name == "leads.csv"
    with there.open("rb") as stored:
        assert hashlib.file_digest(stored, "sha256").hexdigest() == parcel.file.sha256
