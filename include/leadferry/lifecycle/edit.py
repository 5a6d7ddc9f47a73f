"""Changing batch files without losing their comments, and only to something that loads."""

from __future__ import annotations

import difflib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadferry.batch.load import BATCHES, ConfigReader
from leadferry.batch.problems import BatchFileError
from leadferry.batch.yaml_file import parse_yaml, read_yaml
from leadferry.errors import BatchConfigError

if TYPE_CHECKING:
    from ruamel.yaml import YAML

_WIDE = 10_000
"""Columns: a line that a person wrote stays one line."""


def batch_file(config: Path, batch_id: str) -> Path:
    """Return where a batch's file is, or would be."""
    return config / BATCHES / f"{batch_id}.yaml"


def text_of(config: Path, batch_id: str) -> str:
    """Return the text of a batch's file, which can be read as YAML, though it need not be a batch that loads.

    Raises:
        BatchFileError: it cannot be read; says why, with file and line.
    """
    file = batch_file(config, batch_id)
    if problems := read_yaml(file, shown=file.relative_to(config.parent).as_posix()).problems:
        raise BatchFileError.of(problems)
    return file.read_text(encoding="utf-8")


def changed(text: str, changes: Mapping[str, Any]) -> str:
    """Return a batch file's text with some keys set; comments, order and quotes stay.

    Args:
        text: the file as it is.
        changes: dotted key path → value, such as `{"retry.attempts": 3}`; a whole number in the path is a place in a
            list. None removes the key, so that the batch inherits it again.

    Raises:
        BatchConfigError: a path leads through something that is neither a mapping nor a list.
    """
    yaml = _round_trip()
    data = yaml.load(text)
    for path, value in changes.items():
        _set(data, path.split("."), value, path=path)
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def _round_trip() -> YAML:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _WIDE
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _set(data: Any, parts: list[str], value: Any, *, path: str) -> None:
    *parents, last = parts
    for part in parents:
        step = _step(data, part, path=path)
        if isinstance(data, dict) and data.get(step) is None:
            if value is None:
                return
            data[step] = {}
        data = data[step]
    key = _step(data, last, path=path)
    if value is not None:
        data[key] = value
    elif not isinstance(data, dict) or key in data:
        del data[key]


def _step(data: Any, part: str, *, path: str) -> Any:
    if isinstance(data, dict):
        return part
    if isinstance(data, list) and part.isdigit() and int(part) < len(data):
        return int(part)
    raise BatchConfigError(
        f"{path}: there is nothing under {part!r} that could be set",
        hint="Name keys as they stand in the file, joined by dots, and places in lists by numbers from 0",
    )


def parse_value(text: str) -> Any:
    """Read a value as it would stand in a batch file: `3`, `true`, `[mon, thu]`; nothing is None.

    Raises:
        BatchFileError: this is not YAML.
    """
    return parse_yaml(text, shown="the value").data


def difference(before: str, after: str, *, name: str) -> str:
    """Return the change of a file as a unified diff."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), fromfile=name, tofile=name, n=1
    )
    return "".join(lines)


def tried(config: Path, texts: Mapping[str, str]) -> dict[str, BatchConfigError | None]:
    """Load batches as if their files had these texts; nothing is written. Returns why a batch would not load, or None."""
    with _copy(config) as copy:
        for batch_id, text in texts.items():
            file = batch_file(copy, batch_id)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        reader = ConfigReader(copy)
        return {batch_id: _fault(reader, batch_id) for batch_id in texts}


def check(config: Path, batch_id: str, text: str) -> None:
    """Try one batch with this text; see `tried`.

    Raises:
        BatchConfigError: it would not load; says why, with file and line.
    """
    if fault := tried(config, {batch_id: text})[batch_id]:
        raise fault


def _fault(reader: ConfigReader, batch_id: str) -> BatchConfigError | None:
    try:
        reader.load(batch_id)
    except BatchConfigError as error:
        return error
    return None


@contextmanager
def _copy(config: Path) -> Iterator[Path]:
    """Copy the folder to one of the same name, so that messages name the files as they are called."""
    with tempfile.TemporaryDirectory(prefix="leadferry-config-") as folder:
        copy = Path(folder) / config.name
        shutil.copytree(config, copy)
        yield copy


def write(config: Path, batch_id: str, text: str) -> Path:
    """Put a batch file in its place in one step, so that Airflow never reads half of it."""
    file = batch_file(config, batch_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    # The dot keeps it from being taken for a batch file.
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    if file.exists():
        shutil.copymode(file, temporary)
    os.replace(temporary, file)  # noqa: PTH105  (the word for what is meant)
    return file
