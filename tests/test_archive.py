"""The archive: complete files under keys whose bytes never change."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leadferry.archive import Archive
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
    with archive.new_file() as file:
        file.write(content)
        archive.publish(file, key)


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


def names(archive):
    return [path for path in Path(str(archive.root)).rglob("*") if path.is_file()]


@pytest.fixture(params=["without a name", "with a private name"])
def kind_of_file(request, monkeypatch):
    """File systems with files without a name, and those without."""
    if request.param == "with a private name":
        monkeypatch.delattr("os.O_TMPFILE", raising=False)


@pytest.mark.req("R093", "R223")
def test_a_file_that_was_not_published_leaves_nothing(archive, kind_of_file):
    with archive.new_file() as file:
        file.write(CONTENT)
    assert names(archive) == []


@pytest.mark.req("R223")
def test_a_killed_process_leaves_nothing_behind(archive):
    script = (
        "import os, signal, sys\n"
        "from leadferry.archive import Archive\n"
        "file = Archive(sys.argv[1]).new_file()\n"
        "file.write(b'leads in clear' * 100_000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(archive.root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names(archive) == []


def test_a_published_file_has_its_key_and_no_other_name(archive, kind_of_file):
    publish(archive)
    assert names(archive) == [Path(str(archive.root)) / "acme/1/leads"]


def test_an_archive_that_cannot_be_written_says_where_and_why(tmp_path):
    archive = Archive(str(tmp_path / "archive"))
    with archive.new_file() as file:
        file.write(CONTENT)
        (Path(str(archive.root)) / "acme").write_text("a file where a folder should be")
        with pytest.raises(StoreError, match=r"cannot be written \((NotADirectory|FileExists)Error"):
            archive.publish(file, "acme/1/leads")


def test_files_in_the_archive_are_for_this_user_only(archive, kind_of_file):
    publish(archive)
    stored = Path(str(archive.root)) / "acme/1/leads"
    assert os.stat(stored).st_mode & 0o777 == 0o600  # noqa: PTH116 the mode is the point


def test_the_archive_is_what_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("LEADFERRY_ARCHIVE", str(tmp_path / "there"))
    assert str(Archive.from_environment().root) == str(tmp_path / "there")
    monkeypatch.delenv("LEADFERRY_ARCHIVE")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert str(Archive.from_environment().root) == str(tmp_path / "leadferry-archive")


@pytest.mark.parametrize("blocks", [[], [b""], [CONTENT], [b"a" * 3_000_000, b"b" * 5, b"c" * 2_000_000]])
def test_the_hash_and_size_are_those_of_what_was_written(archive, blocks):
    with archive.new_file() as file:
        for block in blocks:
            assert file.write(block) == len(block)
        file.finish()
        content = Path(file.path).read_bytes()
    assert content == b"".join(blocks)
    assert (file.sha256, file.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_a_buffer_that_is_reused_after_writing_does_not_change_the_hash(archive):
    buffer = bytearray(b"first")
    with archive.new_file() as file:
        file.write(buffer)
        buffer[:] = b"other"
        file.finish()
    assert file.sha256 == hashlib.sha256(b"first").hexdigest()
