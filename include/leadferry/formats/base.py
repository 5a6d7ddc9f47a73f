"""What every file format promises: a stream of frames in, deterministic bytes out, constant memory."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import polars

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Values that a format had to write differently from what they were, because the batch file allows it."""

    column: str
    """The mapped column's name."""
    values: int
    """How many values of this column were changed, in the whole file."""
    what: str
    """What happened to them, for a reader: `control characters removed`."""

    def __str__(self) -> str:
        return f"column {self.column!r}: {self.what} in {self.values} {'value' if self.values == 1 else 'values'}"


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


class FormatBase(BaseModel, abc.ABC):
    """What every format has in YAML; each kind adds its own keys in its own file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extension: ClassVar[str]
    """File name ending that fits the bytes, without the dot."""
    media_type: ClassVar[str]
    """MIME type of the bytes."""

    def problems(self, columns: Sequence[str]) -> list[str]:  # noqa: ARG002 -- most formats take any name
        """Say which of these column names this format cannot have, a sentence each; empty when all is well.

        Asked when a batch file is checked, and again before the first byte is written.
        """
        return []

    @abc.abstractmethod
    def write(self, frames: Iterable[polars.DataFrame], out: BinaryIO, context: FileContext) -> None:
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
