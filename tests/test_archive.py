"""The archive: complete files under keys whose bytes never change."""

import hashlib
import os
from pathlib import Path

import pytest

from leadferry.archive import Archive, HashingFile
from leadferry.errors import StoreError

CONTENT = b"Lead,Email\n1,lead1@example.com\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def archive(tmp_path):
    return Archive(str(tmp_path / "archive"))


@pytest.fixture(params=["folder", "object store"])
def any_archive(request, tmp_path):
    """A folder, and fsspec's store in memory, which is reached like every object store."""
    return Archive(str(tmp_path / "archive") if request.param == "folder" else f"memory://{tmp_path.name}")


def publish(archive, key="acme/1/leads", content=CONTENT):
    with archive.workspace() as workspace:
        (workspace / "leads").write_bytes(content)
        archive.publish(workspace / "leads", key)


def test_what_was_published_is_read_back(any_archive):
    publish(any_archive)
    with any_archive.local_copy("acme/1/leads", sha256=SHA256) as path:
        assert path.read_bytes() == CONTENT


def test_publishing_the_same_again_changes_nothing(any_archive):
    publish(any_archive)
    publish(any_archive)
    with any_archive.local_copy("acme/1/leads", sha256=SHA256) as path:
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("damage", [b"", CONTENT + b"2,x", CONTENT[:-1]])
def test_i3_bytes_that_are_not_the_rendered_ones_are_refused(any_archive, damage):
    publish(any_archive, content=damage)
    with (
        pytest.raises(StoreError, match="acme/1/leads has changed since it was rendered"),
        any_archive.local_copy("acme/1/leads", sha256=SHA256),
    ):
        pass


def test_a_file_that_is_not_there_is_named(any_archive):
    with (
        pytest.raises(StoreError, match="has no file acme/1/leads"),
        any_archive.local_copy("acme/1/leads", sha256=""),
    ):
        pass


def test_the_workspace_is_empty_again_whatever_happened(archive):
    given = []

    def fail_half_way():
        with archive.workspace() as workspace:
            given.append(workspace)
            (workspace / "half").write_text("half a fi")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert not given[0].exists()


def test_what_killed_renders_left_behind_can_be_removed(archive):
    publish(archive)
    with archive.workspace() as workspace:
        left = workspace.with_name("render-killed")
        left.mkdir()
        (left / "half").write_text("half a fi")
    archive.remove_unfinished()
    assert not left.exists()
    with archive.local_copy("acme/1/leads", sha256=SHA256):
        pass


def test_an_archive_that_cannot_be_written_says_where_and_why(tmp_path):
    archive = Archive(str(tmp_path / "archive"))
    with archive.workspace() as workspace:
        (workspace / "leads").write_bytes(CONTENT)
        (Path(str(archive.root)) / "acme").write_text("a file where a folder should be")
        with pytest.raises(StoreError, match=r"cannot be written \((NotADirectory|FileExists)Error"):
            archive.publish(workspace / "leads", "acme/1/leads")


def test_files_in_the_archive_are_for_this_user_only(archive):
    with archive.workspace() as workspace:
        with HashingFile(workspace / "leads") as out:
            out.write(CONTENT)
        archive.publish(workspace / "leads", "acme/1/leads")
    stored = Path(str(archive.root)) / "acme/1/leads"
    assert os.stat(stored).st_mode & 0o777 == 0o600  # noqa: PTH116 the mode is the point


def test_the_archive_is_what_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("LEADFERRY_ARCHIVE", str(tmp_path / "there"))
    assert str(Archive.from_environment().root) == str(tmp_path / "there")
    monkeypatch.delenv("LEADFERRY_ARCHIVE")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert str(Archive.from_environment().root) == str(tmp_path / "leadferry-archive")


@pytest.mark.parametrize("blocks", [[], [b""], [CONTENT], [b"a" * 3_000_000, b"b" * 5, b"c" * 2_000_000]])
def test_the_hash_and_size_are_those_of_what_was_written(tmp_path, blocks):
    with HashingFile(tmp_path / "file") as out:
        for block in blocks:
            assert out.write(block) == len(block)
    content = (tmp_path / "file").read_bytes()
    assert content == b"".join(blocks)
    assert (out.sha256, out.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_a_buffer_that_is_reused_after_writing_does_not_change_the_hash(tmp_path):
    buffer = bytearray(b"first")
    with HashingFile(tmp_path / "file") as out:
        out.write(buffer)
        buffer[:] = b"other"
    assert out.sha256 == hashlib.sha256(b"first").hexdigest()


def test_an_existing_file_is_not_written_over(tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(FileExistsError):
        HashingFile(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "here first"
