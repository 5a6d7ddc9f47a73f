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
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from leadferry.errors import StoreError

if TYPE_CHECKING:
    from typing_extensions import Buffer
    from upath import UPath

_UNFINISHED = ".unfinished"

_MOVED = ".moved"
"""End of the signpost that stands where a file was that another archive has now; it holds that archive's URL."""

_COPY = "leadferry-copy-"
"""Begin of the names of folders with a local copy from an object store."""


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

    def new_file(self) -> NewFile:
        """Open a file that nobody can see, and that is gone with this process unless it is published."""
        folder = None
        if self._is_folder:
            folder = Path(str(self.root)) / _UNFINISHED
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return NewFile(folder)

    def publish(self, file: NewFile, key: str) -> None:
        """Put a file under its key; it appears whole, or not at all. A key that is there has these bytes already.

        Raises:
            StoreError: the archive cannot be written.
        """
        target = self.root / key
        try:
            file.finish()
            if self._is_folder:
                self._link(file, Path(str(target)))
            else:
                target.fs.put_file(file.path, target.path)
        except OSError as error:
            raise StoreError(
                f"The archive {self.root} cannot be written ({type(error).__name__}, {os.strerror(error.errno or 0)})",
                hint="Check LEADFERRY_ARCHIVE, its permissions and free space; nothing was sent",
            ) from None

    def _link(self, file: NewFile, final: Path) -> None:
        final.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        folder_handle = os.open(final.parent, os.O_RDONLY)
        try:
            # By the folder's handle, because only then Python asks for linkat(2), which follows /proc/self/fd.
            os.link(file.path, final.name, dst_dir_fd=folder_handle, follow_symlinks=True)
        except FileExistsError:
            pass  # the key has the hash in it
        finally:
            os.close(folder_handle)
        root = Path(str(self.root))
        for folder in [final.parent, *final.parent.parents]:
            _sync(folder)
            if folder == root:
                break

    @contextmanager
    def local_copy(self, key: str, *, sha256: str) -> Iterator[Path]:
        """Give a local path with the file's bytes, checked against their hash.

        Raises:
            StoreError: the file is gone or its bytes are not those that were rendered.
        """
        with contextlib.ExitStack() as cleanup:
            path = Path(str(self.root / key)) if self._is_folder else self._download(key, cleanup)
            if not path.is_file() and (elsewhere := self._signpost(key)) is not None:
                yield cleanup.enter_context(Archive(elsewhere).local_copy(key, sha256=sha256))
                return
            if not path.is_file():
                raise StoreError(
                    f"The archive {self.root} has no file {key}",
                    hint="Every worker must see the same LEADFERRY_ARCHIVE; a file may also have been removed by `retention`",
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
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix=_COPY)))
        target = self.root / key
        with contextlib.suppress(FileNotFoundError):
            target.fs.get_file(target.path, str(folder / "file"))
        return folder / "file"

    def _signpost(self, key: str) -> str | None:
        try:
            text: str = (self.root / f"{key}{_MOVED}").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return text

    def move(self, key: str, to: str, *, sha256: str) -> None:
        """Move a file into another archive, where `local_copy` still finds it; a second call goes on where the first ended.

        The bytes here are removed only after those there were read back and found to be the same.

        Args:
            key: the file's.
            to: the other archive, a folder or a URL.
            sha256: of its bytes.

        Raises:
            StoreError: one of the two cannot be read or written; the file is still here.
        """
        other = Archive(to)
        with self._told_as_store_errors():
            if not (self.root / key).is_file():
                return
            with self.local_copy(key, sha256=sha256) as path, contextlib.closing(other.new_file()) as copy:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, cast("BinaryIO", copy), 1 << 20)
                other.publish(copy, key)
            with other.local_copy(key, sha256=sha256):
                (self.root / f"{key}{_MOVED}").write_text(to, encoding="utf-8")
            self._unlink(key)

    def remove(self, key: str) -> None:
        """Remove a file, wherever it was moved to; a second call changes nothing.

        Raises:
            StoreError: the archive cannot be written.
        """
        with self._told_as_store_errors():
            if (elsewhere := self._signpost(key)) is not None:
                Archive(elsewhere).remove(key)
            self._unlink(key)
            self._unlink(f"{key}{_MOVED}")
            if self._is_folder:
                self._drop_empty_folders(Path(str(self.root / key)).parent)

    def _unlink(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.root / key).unlink()

    def _drop_empty_folders(self, folder: Path) -> None:
        root = Path(str(self.root))
        while folder != root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    @contextmanager
    def _told_as_store_errors(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  (every object store raises its own kinds; none of them holds a lead)
            why = (
                os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no more is known"
            )
            raise StoreError(
                f"The archive {self.root} cannot be changed ({type(error).__name__}, {why})",
                hint="Check its permissions and free space; it is tried again with the next maintenance",
            ) from None

    def sweep(self, *, older_than: datetime) -> int:
        """Remove what killed processes left: unfinished files, and local copies in this machine's temporary directory.

        They are overwritten before, since they may hold leads in clear. Returns how many files.

        Args:
            older_than: what changed later may still be in use; aware.
        """
        left = list(Path(tempfile.gettempdir()).glob(f"{_COPY}*/*"))
        if self._is_folder:
            left += (Path(str(self.root)) / _UNFINISHED).glob("*")
        swept = [one for one in left if _is_left_over(one, older_than)]
        for one in swept:
            _shred(one)
            if one.parent.name.startswith(_COPY):
                with contextlib.suppress(OSError):
                    one.parent.rmdir()
        return len(swept)


def _is_left_over(path: Path, older_than: datetime) -> bool:
    """Tell an old file of ours from one that is in use, or of somebody else."""
    try:
        about = path.lstat()
    except OSError:
        return False
    mine = stat.S_ISREG(about.st_mode) and about.st_uid == os.getuid()
    return mine and about.st_mtime < older_than.timestamp()


def _shred(path: Path) -> None:
    """Write zeros over a file, then remove it; whoever reads the disk afterwards finds nothing where disks overwrite."""
    with contextlib.suppress(FileNotFoundError):
        with path.open("r+b") as file:
            left = file.seek(0, os.SEEK_END)
            file.seek(0)
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 20)))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


def _sync(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class NewFile(RawIOBase):
    """A file that is hashed while it is written: the hash costs a second thread instead of a second pass.

    It has no name (Linux's O_TMPFILE), so that a killed process leaves nothing behind, least of all leads in clear.
    Where the file system has no such files, it has a name in a private folder until it is published or closed.
    """

    def __init__(self, folder: Path | None) -> None:
        """Create the file, readable by nobody else.

        Args:
            folder: on the file system on which it is to be published; the temporary directory when left out.
        """
        self._handle, self._name = _nameless(folder or Path(tempfile.gettempdir()))
        self._hash = hashlib.sha256()
        self._blocks: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        self._thread: threading.Thread | None = threading.Thread(
            target=self._hash_blocks, name="hashing", daemon=True
        )
        self._thread.start()
        self.size = 0

    @property
    def path(self) -> str:
        """Where this process can read it, published or not."""
        return self._name or f"/proc/self/fd/{self._handle}"

    def _hash_blocks(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._hash.update(block)

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`."""
        block = bytes(data)
        self._blocks.put(block)
        left = memoryview(block)
        while left:
            left = left[os.write(self._handle, left) :]
        self.size += len(block)
        return len(block)

    def finish(self) -> None:
        """Write everything to disk and finish the hash; nothing can be written after it."""
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()
            self._thread = None
            os.fsync(self._handle)

    def close(self) -> None:
        """Let go of the file; unless it was published, it is gone."""
        if not self.closed:
            self._blocks.put(None)
            if self._thread is not None:
                self._thread.join()
            os.close(self._handle)
            if self._name:
                Path(self._name).unlink(missing_ok=True)
        super().close()

    @property
    def sha256(self) -> str:
        """Hex digest of everything written; final once the file is finished."""
        return self._hash.hexdigest()


def _nameless(folder: Path) -> tuple[int, str | None]:
    """Open a file without a name, or, where there are none (macOS, some network file systems), one with a private name."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600), None
    except (AttributeError, OSError):
        return tempfile.mkstemp(dir=folder)
