"""All files under `config/` in one archive, with their checksums, and back."""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from leadferry.batch.load import load_all
from leadferry.errors import BatchConfigError

CHECKSUMS = "SHA256SUMS"
"""Lines as `sha256sum --check` reads them."""

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""Every file's time in the archive, so that the same files make the same archive."""


def export(config: Path, target: Path) -> int:
    """Write every file of the config folder into a ZIP file; return how many.

    Raises:
        BatchConfigError: the target exists.
    """
    if target.exists():
        raise BatchConfigError(f"{target} is there already", hint="Choose another name, or remove it")
    files = {file.relative_to(config).as_posix(): file.read_bytes() for file in _files(config)}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [*sorted(files.items()), (CHECKSUMS, sums.encode())]:
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data, zipfile.ZIP_DEFLATED)
    target.write_bytes(out.getvalue())
    return len(files)


def _files(config: Path) -> Iterator[Path]:
    for file in sorted(config.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(config).parts)
        if file.is_file() and not hidden:
            yield file


def restore(archive: Path, config: Path) -> int:
    """Put the files of an export into an empty config folder; all or nothing. Returns how many.

    Raises:
        BatchConfigError: this is no such archive, a file in it is damaged, the folder is not empty, or a batch would
            not load.
    """
    if config.exists() and any(_files(config)):
        raise BatchConfigError(
            f"{config} is not empty", hint="Import into an empty folder: set LEADFERRY_CONFIG to a new one"
        )
    files = _checked(archive)
    with tempfile.TemporaryDirectory(prefix="leadferry-config-") as folder:
        tried = Path(folder) / config.name
        _write(files, tried)
        _, errors = load_all(tried)
    if errors:
        told = "\n".join(error.what for error in errors)
        raise BatchConfigError(f"Nothing was imported: {len(errors)} batches would not load\n{told}", hint="")
    _write(files, config)
    return len(files)


def _checked(archive: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(archive) as opened:
            files = {name: opened.read(name) for name in opened.namelist()}
    except (OSError, zipfile.BadZipFile):
        raise BatchConfigError(f"{archive} is no export of config files", hint=_HOW) from None
    sums = files.pop(CHECKSUMS, None)
    if sums is None:
        raise BatchConfigError(f"{archive} has no {CHECKSUMS}, so it is no export of config files", hint=_HOW)
    told = {name: digest for digest, name in (line.split("  ", 1) for line in sums.decode().splitlines())}
    damaged = [name for name, data in files.items() if told.pop(name, "") != hashlib.sha256(data).hexdigest()]
    if bad := sorted({*damaged, *told, *(name for name in files if not _stays_inside(name))}):
        raise BatchConfigError(
            f"{archive}: {', '.join(bad[:5])} is not what was exported",
            hint="Take another copy of the export",
        )
    return files


_HOW = "`leadferry batches export FILE` makes one"


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _write(files: dict[str, bytes], config: Path) -> None:
    for name, data in files.items():
        file = config / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
