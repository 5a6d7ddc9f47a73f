"""Zip files, plain or encrypted, written from start to end without ever going back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, Protocol, Self, runtime_checkable

from leadferry.packing.base import PackingWriter, Valve

SMALL = 8 << 20
"""Bytes up to which a member waits in memory and is written without ZIP64, as old programs like it best.

A larger member is written as it comes, with ZIP64, since nobody knows its size yet.
"""

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip file can name: the same leads must give the same bytes."""

_DEFLATED = 8
_UNIX = 3
_ONLY_OWNER = 0o100600 << 16


@runtime_checkable
class Holds(Protocol):
    """A packing that can hold several files."""

    def container(self, out: BinaryIO) -> ZipContainer:
        """Begin a zip file for several files on `out`, which stays open."""


class ZipContainer:
    """A zip file that members are put into, one after the other; `close` writes its directory, `abort` never does."""

    def __init__(
        self, out: BinaryIO, make: Callable[[Any], Any], *, info: type[Any], small: int = SMALL
    ) -> None:
        """Begin.

        Args:
            out: written from start to end; stays open.
            make: opens the library's zip file for writing on what it gets.
            info: the library's class for a member's header.
            small: see `SMALL`.
        """
        self._valve = Valve(out)
        self._zip = make(self._valve)
        self._info = info
        self._small = small
        self._names: set[str] = set()
        self._current: _Member | None = None
        self._done = False

    def open(self, name: str) -> PackingWriter:
        """Begin the next member; close it before the next one begins.

        Raises:
            ValueError: there is a member of that name already.
        """
        if name.casefold() in self._names:
            raise ValueError(f"two files in one zip would be called {name}")
        self._names.add(name.casefold())
        return PackingWriter(self._member(name), self._valve, give_up=self.abort)

    def only(self, name: str) -> PackingWriter:
        """Begin the only member: closing it finishes the zip file as well."""
        member = self._member(name)
        member.then = self.close
        return PackingWriter(member, self._valve, give_up=self.abort)

    def _member(self, name: str) -> _Member:
        info = self._info(name, date_time=_LONG_AGO)
        info.compress_type = _DEFLATED
        info.create_system = _UNIX
        info.external_attr = _ONLY_OWNER
        self._current = _Member(self._zip, info, small=self._small)
        return self._current

    def close(self) -> None:
        """Write the directory; the zip file is complete."""
        self._done = True
        self._zip.close()

    def abort(self) -> None:
        """Give up: without its directory no program takes it for a zip file."""
        self._done = True
        self._valve.shut()
        # The library writes a directory when it is dropped, and complains of members that are still open.
        with suppress(Exception):
            if self._current is not None:
                self._current.drop()
            self._zip.close()

    def __del__(self) -> None:
        """Give up what nobody closed."""
        if not getattr(self, "_done", True):
            self.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _Member:
    """One file inside: in memory while it is small."""

    def __init__(self, archive: Any, info: Any, *, small: int) -> None:
        self._zip = archive
        self._info = info
        self._small = small
        self._waiting = bytearray()
        self._stream: Any = None
        self.then: Callable[[], None] | None = None

    def write(self, data: bytes, /) -> None:
        if self._stream is None and len(self._waiting) + len(data) <= self._small:
            self._waiting += data
            return
        if self._stream is None:
            self._stream = self._zip.open(self._info, "w", force_zip64=True)
            self._stream.write(bytes(self._waiting))
            self._waiting.clear()
        self._stream.write(data)

    def close(self) -> None:
        if self._stream is None:
            self._info.file_size = len(self._waiting)
            self._stream = self._zip.open(self._info, "w")
            self._stream.write(bytes(self._waiting))
        self._stream.close()
        if self.then is not None:
            self.then()

    def drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
