"""Deliver into a folder that the workers can reach: a mounted share, a folder that another program watches.

A file appears under its final name in one step and complete, and never in the place of other bytes unless the batch
asks for that: it is written under a hidden name beside it, read back, and then linked, which the file system does only
if the name is free.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import Field

from leadferry.destinations.base import FileStore, FileStoreSession, rendered_path
from leadferry.destinations.faults.system import file_faults
from leadferry.destinations.parcel import OutgoingFile, Parcel, Receipt
from leadferry.destinations.transfer import logged
from leadferry.errors import NameConflictError, TransferInterruptedError
from leadferry.project import project_folder
from leadferry.templates import Template

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems without hard links answer (FAT, some network shares and FUSE)."""


class Folder(FileStore):
    """A folder that the workers can reach, such as a mounted share."""

    type: Literal["folder"] = "folder"
    path: Template = Field(
        min_length=1,
        description="The folder; a template. Relative to the project's folder, the one that holds `config/`.",
    )
    create: bool = Field(default=True, description="Make the folder when it is missing.")

    @property
    def where(self) -> str:
        """The folder, as written."""
        return f"folder {self.path}"

    @property
    def pool(self) -> str:
        """One pool for all folders."""
        return "leadferry_folder"

    @contextmanager
    def open(self) -> Iterator[FolderSession]:
        """There is nothing to connect to: a folder that cannot be used shows when it is used."""
        yield FolderSession(self)


class FolderSession(FileStoreSession):
    """The file system, as a destination."""

    def __init__(self, destination: Folder) -> None:
        self._destination = destination
        self._made: list[Path] = []

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look for the file by name, size and SHA-256; temporary files of earlier tries are removed."""
        folder = self._folder(parcel)
        with file_faults(f"folder {folder}"):
            _sweep(folder, parcel)
            return self._standing(folder / parcel.file.name, parcel.file)

    def send(self, parcel: Parcel) -> Receipt:
        """Write, read back, publish; a file that is already there is only verified."""
        folder = self._folder(parcel)
        with file_faults(f"folder {folder}"):
            if self._destination.create:
                self._make(folder)
            _sweep(folder, parcel)
            final = folder / parcel.file.name
            return self._standing(final, parcel.file) or self._deliver(final, parcel)

    def remove(self, parcel: Parcel) -> None:
        """See `FileStoreSession.remove`; folders that this session made go with it when they are empty."""
        folder = self._folder(parcel)
        final = folder / parcel.file.name
        with file_faults(f"folder {folder}"):
            _sweep(folder, parcel)
            if final.is_file() and _same_bytes(final, parcel.file):
                with logged("remove", final.as_uri()):
                    final.unlink()
                _sync(folder)
        with suppress(OSError):
            while self._made:
                self._made.pop().rmdir()

    def _folder(self, parcel: Parcel) -> Path:
        written = rendered_path(self._destination.path, parcel, where=self._destination.where)
        return project_folder() / Path(written).expanduser()

    def _make(self, folder: Path) -> None:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._made += reversed(missing)

    @property
    def _replaces(self) -> bool:
        return self._destination.on_name_taken == "overwrite"

    def _standing(self, final: Path, file: OutgoingFile) -> Receipt | None:
        """Look at what stands under the final name: nothing, this file, what may be replaced, or something else."""
        if not os.path.lexists(final):
            return None
        if final.is_file() and _same_bytes(final, file):
            return _receipt(final, file, verified="found there and read back")
        if self._replaces and not final.is_dir():
            return None
        raise NameConflictError(
            f"folder {final.parent}: something else already stands under the name {final.name}"
        )

    def _deliver(self, final: Path, parcel: Parcel) -> Receipt:
        temporary = final.with_name(parcel.temporary_name)
        try:
            with logged("put", temporary.as_uri(), size=parcel.file.size):
                self._write(temporary, parcel.file)
            with logged("rename", final.as_uri()):
                how = _replace(temporary, final) if self._replaces else publish(temporary, final)
        except FileExistsError:
            # Somebody took the name since we looked.
            if receipt := self._standing(final, parcel.file):
                return receipt
            raise
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        _sync(final.parent)
        return _receipt(final, parcel.file, verified=f"read back before it was published by {how}")

    def _write(self, temporary: Path, file: OutgoingFile) -> None:
        """Write the bytes to the disk and read them back from the file."""
        with temporary.open("wb") as out:
            for block in self._destination.blocks(file):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if not _same_bytes(temporary, file):
            raise TransferInterruptedError(
                f"folder {temporary.parent}: what was written reads back differently"
            )


def _replace(temporary: Path, final: Path) -> str:
    """Give a complete file its final name in one step, whatever stood there; say how."""
    temporary.replace(final)
    return "rename over what stood there"


def publish(temporary: Path, final: Path) -> str:
    """Give a complete file its final name, only if that is free; say by which system call.

    Raises:
        FileExistsError: the name is taken; the file under it was not touched.
    """
    try:
        os.link(temporary, final)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return "link"
    if _rename_noreplace(temporary, final):
        return "renameat2"
    # Neither is offered by this file system. Only here a stranger could take the name between look and rename.
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    temporary.rename(final)
    return "rename"


def _rename_noreplace(temporary: Path, final: Path) -> bool:
    """Rename by Linux' `renameat2(RENAME_NOREPLACE)`; False where the system or the file system has none."""
    renameat2: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_fdcwd, noreplace = -100, 1
    if renameat2 is None:
        return False
    if renameat2(at_fdcwd, os.fsencode(temporary), at_fdcwd, os.fsencode(final), noreplace) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_LINKS:
        return False
    raise OSError(number, os.strerror(number))


def _same_bytes(path: Path, file: OutgoingFile) -> bool:
    with path.open("rb") as stored:
        if os.fstat(stored.fileno()).st_size != file.size:
            return False
        return hashlib.file_digest(stored, "sha256").hexdigest() == file.sha256


def _sweep(folder: Path, parcel: Parcel) -> None:
    """Remove what earlier tries of this parcel left behind."""
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):  # noqa: PTH208  (names, of which there may be many, not paths)
            if parcel.owns(name):
                (folder / name).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the new name survive a power cut, where the file system can do that for a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _receipt(final: Path, file: OutgoingFile, *, verified: str) -> Receipt:
    return Receipt(location=str(final), size=file.size, sha256=file.sha256, details={"verified": verified})
