"""The way of a file's bytes: rendered → compressed → encrypted → hashed; and what the file is called at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePath
from typing import BinaryIO, cast

from leadferry.packing.base import (
    CompressionBase,
    EncryptionBase,
    KeyProblem,
    PackingBase,
    PackingWriter,
    Valve,
)
from leadferry.packing.container import Holds, ZipContainer


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What a batch file says under `compress` and `encrypt` of one file; either may be missing."""

    compress: CompressionBase | None = None
    encrypt: EncryptionBase | None = None

    def problems(self, *, format_type: str) -> list[str]:
        """Say what cannot be combined, a sentence each; empty when all is well. Asked when a batch file is checked."""
        if self.encrypt is None:
            return []
        kind, formats = self._type(self.encrypt), self.encrypt.formats
        found = []
        if formats is not None and format_type not in formats:
            allowed = " or ".join(sorted(formats))
            found.append(f"encrypt: {kind} is for files of type {allowed}, and this one is {format_type}")
        if self.encrypt.compresses and self.compress is not None:
            found.append(f"encrypt: {kind} compresses by itself; leave compress out")
        return found

    def file_name(self, name: str) -> str:
        """Return what the file is called: the name with the endings behind it that are not there yet."""
        inner = self._base(name)
        return ".".join([inner, *self._endings()])

    def member_name(self, name: str, *, extension: str) -> str:
        """Return what the file inside is called.

        Args:
            name: the file's name as the batch file gives it, with or without the endings of the packings.
            extension: the format's; added when nothing else says what is inside (`leads.zip` holds `leads.csv`).
        """
        inner = self._base(name)
        return f"{inner}.{extension}" if inner != name and not PurePath(inner).suffix else inner

    def media_type(self, of_format: str) -> str:
        """Return the MIME type of the finished bytes."""
        return next((step.media_type for step in reversed(self._steps()) if step.media_type), of_format)

    def open(self, out: BinaryIO, *, name: str, extension: str, config: Path) -> PackingWriter:
        """Return the writer for the rendered bytes; closing it finishes every container, `out` stays open.

        Use it as a context manager: an exception inside leaves nothing that any program takes for complete.

        Args:
            out: gets the finished bytes, from start to end.
            name: see `member_name`.
            extension: see `member_name`.
            config: the folder that holds `keys/`.

        Raises:
            RenderError: a key or password cannot be used; nothing was written.
        """
        inner = self.member_name(name, extension=extension)
        writer = self.encrypt.open(out, name=inner, config=config) if self.encrypt is not None else None
        if self.compress is not None:
            below: BinaryIO = out if writer is None else writer  # type: ignore[assignment] # it only has to be written to
            compressed = self.compress.open(below, name=inner)
            compressed.finishes(writer)
            return compressed
        return writer if writer is not None else _plain(out)

    @contextmanager
    def container(self, out: BinaryIO, *, name: str, config: Path) -> Iterator[ZipContainer]:
        """Open one zip file for several files; it is finished when the block ends, and given up after an exception.

        Args:
            out: gets the finished bytes, from start to end.
            name: what the zip file is called before it is encrypted.
            config: the folder that holds `keys/`.

        Raises:
            RenderError: a key or password cannot be used; nothing was written.
        """
        with ExitStack() as stack:
            if isinstance(self.encrypt, Holds):
                yield stack.enter_context(self.encrypt.container(out))
            elif isinstance(self.compress, Holds):
                below = out
                if self.encrypt is not None:
                    encrypted = self.encrypt.open(out, name=name, config=config)
                    below = cast("BinaryIO", stack.enter_context(encrypted))
                yield stack.enter_context(self.compress.container(below))
            else:
                raise TypeError("neither the compression nor the encryption is a zip file")

    def key_problems(
        self, *, config: Path, now: datetime, ahead: timedelta, connections: bool = True
    ) -> Sequence[KeyProblem]:
        """See `EncryptionBase.key_problems`; none without encryption."""
        if self.encrypt is None:
            return []
        return self.encrypt.key_problems(config=config, now=now, ahead=ahead, connections=connections)

    def _steps(self) -> list[PackingBase]:
        return [step for step in (self.compress, self.encrypt) if step is not None]

    def _endings(self) -> Iterator[str]:
        return (step.ending for step in self._steps() if step.ending is not None)

    def _base(self, name: str) -> str:
        """Return the name without the endings that the packings add."""
        for ending in reversed(list(self._endings())):
            dotted = f".{ending}"
            if name.lower().endswith(dotted) and len(name) > len(dotted):
                name = name[: -len(dotted)]
        return name

    @staticmethod
    def _type(step: PackingBase) -> str:
        return str(getattr(step, "type", type(step).__name__))


class _Through:
    """Packs nothing: a file without compression and encryption takes the same way."""

    def __init__(self, valve: Valve) -> None:
        self._valve = valve

    def write(self, data: bytes, /) -> None:
        self._valve.write(data)

    def close(self) -> None:
        """Leave the writer below open."""


def _plain(out: BinaryIO) -> PackingWriter:
    valve = Valve(out)
    return PackingWriter(_Through(valve), valve)
