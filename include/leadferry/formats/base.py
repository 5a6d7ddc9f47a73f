"""What every file format promises: a stream of frames in, deterministic bytes out, constant memory."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, kw_only=True)
class FileContext:
    """What a format may say about the file besides the leads."""

    columns: Sequence[str]
    """The mapped column names, in order; every frame has exactly these."""
    rows: int
    """How many leads the frames hold in total; known before the first byte is written."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """The template variables of this file: `batch`, `delivery`, `lead`, `file`, `recipient`."""


class FormatBase(BaseModel, abc.ABC):
    """What every format has in YAML; each kind adds its own keys in its own file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extension: ClassVar[str]
    """File name ending that fits the bytes, without the dot."""
    media_type: ClassVar[str]
    """MIME type of the bytes."""

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
