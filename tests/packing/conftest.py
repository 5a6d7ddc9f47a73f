"""What the tests of packings share: connections, programs that nobody here wrote, a way to pack bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

PACKAGES = {
    "7z": "p7zip-full",
    "age": "age",
    "age-keygen": "age",
    "gpg": "gnupg",
    "gzip": "gzip",
    "soffice": "libreoffice-calc",
    "unzip": "unzip",
    "zstd": "zstd",
}

LEADS = b"id,name\r\n" + b"".join(b"%d,Ada Example %d\r\n" % (n, n * n) for n in range(20_000))
"""A file of invented leads, 500 KB."""


@pytest.fixture
def leads() -> bytes:
    return LEADS


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., bytes]:
    """Pack bytes in blocks of odd sizes, into something that can only be written."""

    def packed(
        packing: Any, data: bytes, *, name: str = "leads.csv", step: int = 70_001, **more: Any
    ) -> bytes:
        out = WriteOnly()
        with packing.open(out, name=name, **more) as writer:
            for start in range(0, len(data), step):
                assert writer.write(memoryview(data)[start : start + step]) == len(data[start : start + step])
        return out.content

    return packed


class WriteOnly:
    """A writer without seek, tell and read, such as the archive's."""

    def __init__(self, *, room: int | None = None) -> None:
        self._bytes = BytesIO()
        self._room = room

    def write(self, data: bytes) -> int:
        if self._room is not None and self._bytes.tell() + len(data) > self._room:
            raise OSError(28, "No space left on device")
        return self._bytes.write(data)

    @property
    def content(self) -> bytes:
        return self._bytes.getvalue()


@pytest.fixture
def write_only() -> type[WriteOnly]:
    return WriteOnly


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a program that nobody here wrote; skip where it is missing."""

    def running(program: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {PACKAGES[program]}")
        return subprocess.run(
            [program, *map(str, arguments)], capture_output=True, timeout=60, check=False, **options
        )

    return running


@pytest.fixture
def gnupg(run: Callable[..., Any]) -> Iterator[Callable[..., subprocess.CompletedProcess[bytes]]]:
    """GnuPG with a home of its own, in a short path, since its agent's socket lies there."""
    with tempfile.TemporaryDirectory(prefix="gpg-", ignore_cleanup_errors=True) as home:
        # Otherwise the agent takes its time on purpose whenever it meets a passphrase.
        (Path(home) / "gpg-agent.conf").write_text("s2k-count 65536\n")
        environment = {**os.environ, "GNUPGHOME": home, "LC_ALL": "C"}

        def gpg(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
            return run(
                "gpg", "--batch", "--pinentry-mode", "loopback", *arguments, env=environment, **options
            )

        yield gpg
        if shutil.which("gpgconf"):
            subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False, capture_output=True)
