"""Where rendered files stay: a folder or an object store, named by `LEADFERRY_ARCHIVE`.

Only complete files are ever there under their key, and a key's bytes never change (I3):
the key contains their hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from leadferry.errors import StoreError

if TYPE_CHECKING:
    from upath import UPath

_UNFINISHED = ".unfinished"


class Archive:
    """The files of all deliveries, by key."""

    def __init__(self, url: str) -> None:
        """Remember where the archive is.

        Args:
            url: an absolute folder, or what fsspec understands: `s3://bucket/prefix`.
        """
        from upath import UPath

        self.root: UPath = UPath(url)

    @classmethod
    def from_environment(cls) -> Archive:
        """Return the archive that `LEADFERRY_ARCHIVE` names, or the default folder under `AIRFLOW_HOME`."""
        home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
        default = Path(home).expanduser() / "leadferry-archive"
        return cls(os.environ.get("LEADFERRY_ARCHIVE") or str(default))

    @property
    def _is_folder(self) -> bool:
        return self.root.protocol in {"", "file", "local"}

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Give a private local folder for unfinished files; empty again afterwards, whatever happened.

        For a folder archive it lies inside, so that publishing is a rename and not a copy.
        """
        parent = None
        if self._is_folder:
            parent = Path(str(self.root)) / _UNFINISHED
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix="render-") as folder:
            yield Path(folder)

    def publish(self, local: Path, key: str) -> None:
        """Put a complete file under its key; it is moved or uploaded whole, or not at all.

        Raises:
            StoreError: the archive cannot be written.
        """
        target = self.root / key
        try:
            if self._is_folder:
                final = Path(str(target))
                final.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                local.replace(final)
                _sync(final.parent)
            else:
                target.fs.put_file(str(local), target.path)
        except OSError as error:
            raise StoreError(
                f"The archive {self.root} cannot be written ({type(error).__name__}, {os.strerror(error.errno or 0)})",
                hint="Check LEADFERRY_ARCHIVE, its permissions and free space; nothing was sent",
            ) from None

    @contextmanager
    def local_copy(self, key: str, *, sha256: str) -> Iterator[Path]:
        """Give a local path with the file's bytes, checked against their hash.

        Raises:
            StoreError: the file is gone or its bytes are not those that were rendered.
        """
        with contextlib.ExitStack() as cleanup:
            path = Path(str(self.root / key)) if self._is_folder else self._download(key, cleanup)
            if not path.is_file():
                raise StoreError(
                    f"The archive {self.root} has no file {key}",
                    hint="Every worker must see the same LEADFERRY_ARCHIVE",
                )
            with path.open("rb") as stored:
                found = hashlib.file_digest(stored, "sha256").hexdigest()
            if found != sha256:
                raise StoreError(
                    f"The archived file {key} has changed since it was rendered; it is not sent",
                    hint="Restore the archive from its backup",
                )
            yield path

    def _download(self, key: str, cleanup: contextlib.ExitStack) -> Path:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="leadferry-")))
        target = self.root / key
        with contextlib.suppress(FileNotFoundError):
            target.fs.get_file(target.path, str(folder / "file"))
        return folder / "file"

    def remove_unfinished(self) -> None:
        """Delete what killed renders left behind; call it only when none is running."""
        if self._is_folder:
            shutil.rmtree(Path(str(self.root)) / _UNFINISHED, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class HashingFile(RawIOBase):
    """A file that is hashed while it is written: the hash costs a second thread instead of a second pass."""

    def __init__(self, path: Path) -> None:
        """Create the file, readable by nobody else."""
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0)
        self._hash = hashlib.sha256()
        self._blocks: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._hash_blocks, name="hashing", daemon=True)
        self._thread.start()
        self.size = 0

    def _hash_blocks(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._hash.update(block)

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override] # every caller writes bytes
        """Write all of `data`."""
        block = bytes(data)
        self._blocks.put(block)
        self._file.write(block)
        self.size += len(block)
        return len(block)

    def close(self) -> None:
        """Write everything to disk and finish the hash."""
        if not self.closed:
            self._blocks.put(None)
            self._thread.join()
            os.fsync(self._file.fileno())
            self._file.close()
        super().close()

    @property
    def sha256(self) -> str:
        """Hex digest of everything written; final once the file is closed."""
        return self._hash.hexdigest()
