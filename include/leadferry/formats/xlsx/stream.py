"""Frames on their way into the Rust code: it pulls one at a time through the Arrow C stream interface.

So memory stays the same however many leads there are. `FrameStream` is Python's part of that interface.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import polars as pl


class Source:
    """Frames, as several sheets pull them one after the other, never more rows at once than asked for."""

    def __init__(self, frames: Iterator[pl.DataFrame]) -> None:
        self._frames = frames
        self.first = next(frames)
        self._waiting: list[pl.DataFrame] = [self.first]
        self.error: BaseException | None = None

    def peek(self, rows: int) -> pl.DataFrame:
        """Return the first rows without taking them away."""
        import polars as pl

        while sum(frame.height for frame in self._waiting) < rows:
            frame = next(self._frames, None)
            if frame is None:
                break
            self._waiting.append(frame)
        return pl.concat(self._waiting, how="vertical_relaxed").head(rows)

    def take(self, rows: int) -> pl.DataFrame | None:
        """Return the next frame, at most so many rows of it; None when all rows were taken."""
        frame = next(chain(self._drain(), self._frames), None)
        if frame is None or frame.height <= rows:
            return frame
        self._waiting.insert(0, frame[rows:])
        return frame[:rows]

    def _drain(self) -> Iterator[pl.DataFrame]:
        while self._waiting:
            yield self._waiting.pop(0)


class _ArrowSchema(ctypes.Structure):
    """Only passed on, so its inside does not matter."""


class _ArrowArray(ctypes.Structure):
    _fields_: ClassVar = [
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.c_void_p),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


class _ArrowArrayStream(ctypes.Structure):
    pass


_GetSchema = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_ArrowArrayStream), ctypes.POINTER(_ArrowSchema))
_GetNext = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_ArrowArrayStream), ctypes.POINTER(_ArrowArray))
_GetLastError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ArrowArrayStream))
_Release = ctypes.CFUNCTYPE(None, ctypes.POINTER(_ArrowArrayStream))
_ArrowArrayStream._fields_ = [  # after the class, because its functions take a pointer to it
    ("get_schema", _GetSchema),
    ("get_next", _GetNext),
    ("get_last_error", _GetLastError),
    ("release", _Release),
    ("private_data", ctypes.c_void_p),
]

_CAPSULE = b"arrow_array_stream"
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


class FrameStream:
    """The rows of one sheet, pulled frame by frame: https://arrow.apache.org/docs/format/CStreamInterface.html.

    polars hands over only frames that are already there; this stands before it and asks for the next frame when the
    last one is used up. The object must live as long as the stream is read.

    Args:
        source: where the frames come from; an error of it is kept there.
        rows: at most so many are pulled.
        passing: told of every frame on its way.
    """

    def __init__(
        self, source: Source, *, rows: int, passing: Callable[[pl.DataFrame], None] | None = None
    ) -> None:
        self._source = source
        self._left = rows
        self._passing = passing
        self._capsule: object = None
        self._stream = _ArrowArrayStream(
            _GetSchema(self._get_schema),
            _GetNext(self._get_next),
            _GetLastError(_no_message),
            _Release(_release),
        )

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the stream as Arrow's PyCapsule interface wants it."""
        return _new_capsule(ctypes.addressof(self._stream), _CAPSULE, None)

    def _get_schema(self, _: Any, schema: Any) -> int:
        stream, self._capsule = _stream_of(self._source.first.clear())
        return int(stream.get_schema(ctypes.byref(stream), schema))

    def _get_next(self, _: Any, array: Any) -> int:
        try:
            frame = self._source.take(self._left) if self._left else None
            if frame is None:
                array.contents.release = None  # says that the stream has ended
                return 0
            self._left -= frame.height
            if self._passing is not None:
                self._passing(frame)
            stream, self._capsule = _stream_of(frame.cast(self._source.first.schema).rechunk())
            return int(stream.get_next(ctypes.byref(stream), array))
        except BaseException as error:  # noqa: BLE001 - nothing may be raised through C; `write` raises it again
            self._source.error = error
            return errno.EIO


def _stream_of(frame: pl.DataFrame) -> tuple[Any, object]:
    """Return polars' own stream of a frame, and the capsule that keeps it alive."""
    capsule = frame.__arrow_c_stream__()
    return _ArrowArrayStream.from_address(_capsule_pointer(capsule, _CAPSULE)), capsule


def _no_message(_: Any) -> None:
    return None


def _release(stream: Any) -> None:
    """Mark the stream as released; its memory belongs to the `FrameStream`."""
    stream.contents.release = _Release()
