"""What every file format promises: a stream of frames in, deterministic bytes out, constant memory.

Also what several formats need on the way: frames made ready for writing, changed and refused values counted by
column, dotted column names as a tree. Formats do not import each other, so it stands here.
"""

from __future__ import annotations

import abc
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from leadferry.errors import RenderError

if TYPE_CHECKING:
    import polars as pl

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Values that a format had to write differently from what they were, because the batch file allows it."""

    column: str
    """The mapped column's name."""
    count: int
    """How many values of this column were changed, in the whole file."""
    what: str
    """What happened to them, for a reader: `control characters removed`."""

    def __str__(self) -> str:
        return f"{_values(self.count, self.column)}: {self.what}"


def _values(count: int, column: str) -> str:
    return f"{count} {'value' if count == 1 else 'values'} of column {column!r}"


def log_change(change: Change) -> None:
    """Warn in the log of the render step; holds a column's name and a count, no lead data."""
    _log.warning("%s", change)


@dataclass(frozen=True, kw_only=True)
class FileContext:
    """What a format may say about the file besides the leads."""

    columns: Sequence[str]
    """The mapped column names, in order; every frame has exactly these."""
    rows: int
    """How many leads the frames hold in total; known before the first byte is written."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """The template variables of this file: `batch`, `delivery`, `lead`, `file`, `recipient`."""
    report: Callable[[Change], None] = log_change
    """Told, once per column and after the last frame, of values that were changed; nothing is changed silently."""
    first_line: str | None = None
    """Control record before everything else, without its line ending; only for formats that take control records."""
    last_line: Callable[[], str | None] = lambda: None
    """Asked after the last frame for the control record behind everything else."""


class FormatBase(BaseModel, abc.ABC):
    """What every format has in YAML; each kind adds its own keys in its own file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extension: ClassVar[str]
    """File name ending that fits the bytes, without the dot."""
    media_type: ClassVar[str]
    """MIME type of the bytes."""
    takes_control_records: ClassVar[bool] = False
    """Whether `FileContext.first_line` and `last_line` are written."""

    @property
    def label_rows(self) -> int:
        """How many rows with the fields' names stand before the leads."""
        return 0

    def problems(self, columns: Sequence[str]) -> list[str]:  # noqa: ARG002 -- most formats take any name
        """Say which of these column names this format cannot have, a sentence each; empty when all is well.

        Asked when a batch file is checked, and again before the first byte is written.
        """
        return []

    @abc.abstractmethod
    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write all frames to `out` as one complete file.

        The same frames and context give the same bytes, on any day and machine.
        Frames come one at a time and are not kept, so memory does not grow with the number of leads.
        Every column is text (`polars.String`) or has the type its transforms gave it; null means "no value".

        Args:
            frames: at least one frame, possibly with no rows.
            out: opened for writing only; not seekable in general.
            context: columns, number of rows and variables.

        Raises:
            RenderError: a value cannot be written in this format (says column and count, never the value).
        """


class Tally:
    """Counts, over all frames of one file, the values that were changed and those that cannot be written at all."""

    def __init__(self, context: FileContext) -> None:
        self._context = context
        self._changed: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self.hint = ""
        """What the reader should do about refused values."""

    def changed(self, column: str, values: int, what: str) -> None:
        """Count values that are written differently from what they are."""
        self._changed[column, what] += values

    def refused(self, column: str, values: int, what: str, *, hint: str) -> None:
        """Count values that cannot be written; the file fails once all frames were counted."""
        self._refused[column, what] += values
        self.hint = hint

    @property
    def failed(self) -> bool:
        """Whether the file can no longer be completed."""
        return bool(self._refused)

    def close(self) -> None:
        """Report what was changed.

        Raises:
            RenderError: at least one value could not be written.
        """
        if self._refused:
            told = [f"{_values(count, column)} {what}" for (column, what), count in self._refused.items()]
            raise RenderError("; ".join(told), hint=self.hint)
        for (column, what), count in self._changed.items():
            self._context.report(Change(column=column, count=count, what=what))


Step = Callable[["pl.DataFrame", Tally], "pl.DataFrame"]
"""Makes the values of one frame fit the format, and counts what it changed or cannot accept."""


def prepared(frames: Iterable[pl.DataFrame], context: FileContext, *steps: Step) -> Iterator[pl.DataFrame]:
    """Yield the frames ready for writing: the file's columns in order, simple types, every step taken.

    There is always a first frame, without rows where there are no leads; no later frame is without rows.
    After a refused value the rest is only counted, so that the error tells the whole number.

    Raises:
        RenderError: values were refused, or the frames do not hold as many leads as the context says.
    """
    import polars as pl

    tally, rows = Tally(context), 0
    nothing = pl.DataFrame(schema=dict.fromkeys(context.columns, pl.String))
    for number, frame in enumerate(chain([nothing] if context.rows == 0 else [], frames)):
        rows += frame.height
        if number and frame.is_empty():
            continue
        ready = _simple(frame.select(context.columns))
        for step in steps:
            ready = step(ready, tally)
        if not tally.failed:
            yield ready
    if rows != context.rows:
        raise RenderError(
            f"the file should hold {context.rows} leads, but {rows} came",
            hint="Nothing was sent; clear the task 'render' to write the file again",
        )
    tally.close()


def _simple(frame: pl.DataFrame) -> pl.DataFrame:
    """Turn the types that only JSON could express into text: lists and structs as JSON, bytes as base64."""
    import polars as pl

    changed = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if dtype.is_nested():
            # The JSON of {"v": <value>} without its wrapping: polars writes only structs as JSON.
            whole = pl.struct(column.alias("v")).struct.json_encode()
            text = whole.str.slice(len('{"v":')).str.head(-len("}"))
            changed.append(pl.when(column.is_not_null()).then(text).alias(name))
        elif dtype == pl.Binary:
            changed.append(column.bin.encode("base64"))
        elif dtype == pl.Duration:
            changed.append(column.dt.to_string("iso"))
        elif dtype in (pl.Categorical, pl.Enum, pl.Null):
            changed.append(column.cast(pl.String))
    return frame.with_columns(changed) if changed else frame


def text_columns(frame: pl.DataFrame) -> list[str]:
    """Return the names of the columns that hold text."""
    import polars as pl

    return [name for name, dtype in frame.schema.items() if dtype == pl.String]


def columns_where(frame: pl.DataFrame, test: Callable[[pl.Expr], pl.Expr]) -> dict[str, int]:
    """Count the values that pass a test, for each text column that has any."""
    import polars as pl

    columns = text_columns(frame)
    if not columns:
        return {}
    counts = frame.select(test(pl.col(columns)).sum()).row(0, named=True)
    return {name: count for name, count in counts.items() if count}


ControlCharacters = Literal["remove", "replace", "fail"]
"""What becomes of characters that XML 1.0 cannot hold, not even escaped."""

_FORBIDDEN = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x{fffe}\x{ffff}]"
"""https://www.w3.org/TR/xml/#charsets; no lone surrogates, since polars text has none."""


def without_control_characters(policy: ControlCharacters) -> Step:
    """Return the step that takes the characters out that XML 1.0 forbids; Excel files are XML as well."""

    def step(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        import polars as pl

        hits = columns_where(frame, lambda column: column.str.contains(_FORBIDDEN))
        for name, values in hits.items():
            if policy == "fail":
                hint = "Set control_characters: remove or replace, or correct the leads"
                tally.refused(
                    name, values, "hold control characters, which this format cannot have", hint=hint
                )
            else:
                tally.changed(name, values, f"control characters {policy}d")
        if policy == "fail" or not hits:
            return frame
        return frame.with_columns(
            pl.col(list(hits)).str.replace_all(_FORBIDDEN, "" if policy == "remove" else "\ufffd")
        )

    return step


Tree = dict[str, "str | Tree"]
"""Names by level; a leaf is the column whose value stands there."""


def tree(columns: Mapping[str, str]) -> Tree:
    """Arrange columns by the dots in their paths; siblings keep the order in which they first appear.

    Args:
        columns: for each column its path, such as `contact.name`.

    Raises:
        ValueError: a path has an empty part, or two columns cannot both have their place; says which.
    """
    root: Tree = {}
    for column, path in columns.items():
        *parents, last = parts = path.split(".")
        if not all(parts):
            raise ValueError(f"column {column!r} has an empty part between its dots")
        level = root
        for parent in parents:
            below = level.setdefault(parent, {})
            if isinstance(below, str):
                raise ValueError(  # noqa: TRY004 - the names are wrong, not their type
                    f"column {column!r} would stand inside column {below!r}, which has a value"
                )
            level = below
        if last in level:
            raise ValueError(f"column {column!r} has the same place as another column")
        level[last] = column
    return root


def refuse_bad_columns(written_by: FormatBase, context: FileContext) -> None:
    """Raise `RenderError` for the first column name that the format cannot have."""
    for problem in written_by.problems(context.columns):
        raise RenderError(problem, hint="Correct the field's name in the batch file")


def nested_problems(columns: Sequence[str]) -> list[str]:
    """Say why these column names cannot be nested by their dots; empty when they can."""
    try:
        tree({name: name for name in columns})
    except ValueError as error:
        return [f"{error}; rename it, or set nested: false"]
    return []


def json_lines(frame: pl.DataFrame, *, nested: bool, nulls: bool) -> bytes:
    """Return the leads as JSON objects, one to a line, UTF-8, each line ended by LF.

    Args:
        frame: as `prepared` yields it.
        nested: make objects of dotted column names.
        nulls: write `null` where a lead has no value; otherwise leave the key out.
    """
    import polars as pl

    if nested:
        frame = frame.select(
            _struct(name, below) for name, below in tree({n: n for n in frame.columns}).items()
        )
    block = BytesIO()
    frame.with_columns(pl.selectors.decimal().cast(pl.Float64)).write_ndjson(block)
    if nulls:
        return block.getvalue()
    return b"".join(_without_nulls(line) for line in block.getvalue().splitlines(keepends=True))


def _struct(name: str, below: str | Tree) -> pl.Expr:
    import polars as pl

    if isinstance(below, str):
        return pl.col(below).alias(name)
    return pl.struct(_struct(*one) for one in below.items()).alias(name)


def _without_nulls(line: bytes) -> bytes:
    import json

    return json.dumps(_pruned(json.loads(line)), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _pruned(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {key: _pruned(below) for key, below in value.items() if below is not None}
    return {key: below for key, below in kept.items() if below != {}}
