"""What every way of compressing or encrypting a file promises: bytes in, a finished container out, constant memory.

A packing is a writer around another writer. Closing it finishes the container; an exception inside its `with` block,
or dropping it unclosed, leaves a container that no program takes for complete.
"""

from __future__ import annotations

import abc
import io
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from leadferry import secrets
from leadferry.errors import LeadferryError, RenderError

BLOCK = 1 << 16
"""Bytes that are handed on at a time."""


@dataclass(frozen=True, kw_only=True)
class KeyProblem:
    """Something about a key or password that stops a delivery, or will soon."""

    key: str
    """Which one, as the batch file names it: a file in `config/keys/`, a connection. Never the key itself."""
    what: str
    """What is wrong, for a reader."""
    fatal: bool
    """Whether nothing can be encrypted with it now; otherwise it will stop at `at`."""
    at: datetime | None = None
    """When it stops or stopped being usable, UTC; None where that is not a matter of time."""

    def __str__(self) -> str:
        return f"{self.key}: {self.what}"


class Packer(Protocol):
    """What does the work inside a `PackingWriter`: a compressor, a child process, a zip file."""

    def write(self, data: bytes, /) -> Any:
        """Take more bytes."""

    def close(self) -> None:
        """Finish the container."""


class Valve:
    """The writer below, as compressors see it: cannot be searched, and goes dead when the packing is given up.

    Several compressors write their ending when they are dropped; behind a shut valve that ending reaches nobody.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._shut = threading.Event()
        self.error: BaseException | None = None
        """What the writer below raised; libraries and threads in between would hide it."""

    def write(self, data: Any, /) -> int:
        """Pass the bytes on, or swallow them once shut."""
        size = memoryview(data).nbytes
        if not self._shut.is_set():
            try:
                self._out.write(data)
            except BaseException as error:
                self.error = error
                raise
        return size

    def flush(self) -> None:
        """Do nothing: whoever owns the writer below flushes it."""

    def shut(self) -> None:
        """Let nothing more through."""
        self._shut.set()


class PackingWriter(io.RawIOBase):
    """The writer that a packing gives to whoever has bytes."""

    def __init__(
        self,
        packer: Packer,
        valve: Valve,
        *,
        give_up: Callable[[], None] | None = None,
    ) -> None:
        """Wrap a packer.

        Args:
            packer: takes the bytes; its `close` finishes the container.
            valve: through which the packer writes.
            give_up: ends the packer without finishing; its `close` behind the shut valve when left out.
        """
        super().__init__()
        self._packer = packer
        self._valve = valve
        self._give_up = give_up
        self._then: PackingWriter | None = None
        self._done = False

    def finishes(self, below: PackingWriter | None) -> None:
        """Take over the packing below: it is closed after this one, and given up with it."""
        self._then = below

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of `data`.

        Raises:
            RenderError: the container cannot be written.
        """
        if self._done:
            raise ValueError("write to a closed packing")
        block = bytes(data)
        with self._telling():
            self._packer.write(block)
        return len(block)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise what the writer below raised, not what a library made of it."""
        try:
            yield
        except BaseException:
            if self._valve.error is not None:
                raise self._valve.error from None
            raise

    def close(self) -> None:
        """Finish the container, and the one below; the writer at the bottom stays open. Twice is once.

        Raises:
            RenderError: the container cannot be finished.
        """
        if self._done:
            return
        try:
            with self._telling():
                self._packer.close()
        except BaseException:
            self.abort()
            raise
        self._done = True
        if self._then is not None:
            self._then.close()
        super().close()

    def abort(self) -> None:
        """Give up: what was written so far is no complete container, and nothing more is written."""
        if self._done:
            return
        self._done = True
        self._valve.shut()
        # Whatever still fails here comes from what is given up; the reason is already on its way to the caller.
        with suppress(Exception):
            (self._give_up or self._packer.close)()
        if self._then is not None:
            self._then.abort()
        super().close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish after success, give up after an exception."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        """Give up what nobody closed; `io` would finish it."""
        if not getattr(self, "_done", True):
            self.abort()


class PulledPacker:
    """Turns a library that reads a stream and writes a stream into a writer: the library runs in a thread.

    At most eight blocks wait between the two.
    """

    def __init__(self, work: Callable[[Any], None], *, what: str) -> None:
        """Start the work.

        Args:
            work: gets an object with `read(size)`; returns when the container is complete.
            what: names the work in an error.
        """
        self._blocks: queue.Queue[bytes | None] = queue.Queue(maxsize=8)
        self._rest = b""
        self._ended = False
        self._given_up = threading.Event()
        self._failed = threading.Event()
        self._kind = ""
        self._what = what
        self._work = work
        self._thread = threading.Thread(target=self._run, name="packing", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work(self)
        except BaseException as error:  # noqa: BLE001 - told in the thread that writes; its text may hold anything
            self._kind = type(error).__name__
            self._failed.set()
            while not self._ended:
                self._ended = self._blocks.get() is None

    def read(self, size: int = BLOCK, /) -> bytes:
        """Give the library its next bytes; none at the end."""
        if not self._rest and not self._ended:
            block = self._blocks.get()
            self._ended = block is None
            self._rest = block or b""
        if self._given_up.is_set():
            raise RenderError("given up")
        size = BLOCK if size < 0 else size
        given, self._rest = self._rest[:size], self._rest[size:]
        return given

    def write(self, data: bytes, /) -> None:
        """Pass bytes to the library."""
        self._raise()
        for start in range(0, len(data), BLOCK):
            self._blocks.put(data[start : start + BLOCK])

    def close(self) -> None:
        """Say that this was all, and wait until the container is complete."""
        self._blocks.put(None)
        self._thread.join()
        self._raise()

    def give_up(self) -> None:
        """End the work; what it read last is no regular end."""
        self._given_up.set()
        self._blocks.put(None)
        self._thread.join()

    def _raise(self) -> None:
        if self._failed.is_set():
            raise unwritable(self._what, self._kind)


def unwritable(what: str, kind: str) -> LeadferryError:
    """Return the error for a library that failed; only the kind of what it raised is told."""
    return RenderError(
        f"{what} failed ({kind})", hint="Nothing was sent; check `leadferry check` for this batch"
    )


class PackingBase(BaseModel, abc.ABC):
    """What compressions and encryptions have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    @abc.abstractmethod
    def ending(self) -> str | None:
        """File name ending that is put behind the name, without the dot; None where the name stays."""

    @property
    @abc.abstractmethod
    def media_type(self) -> str | None:
        """MIME type of the container; None where it stays what it was."""


class CompressionBase(PackingBase):
    """What every compression has in YAML; the same bytes in give the same bytes out, on any day."""

    @abc.abstractmethod
    def open(self, out: BinaryIO, *, name: str) -> PackingWriter:
        """Start a container on `out`.

        Args:
            out: written only, from the start to the end; stays open.
            name: what the file inside is called, where the container has room for a name.
        """


class EncryptionBase(PackingBase):
    """What every encryption has in YAML. The same bytes in never give the same bytes out: salts and keys are random."""

    formats: ClassVar[frozenset[str] | None] = None
    """The types of format that it can encrypt; None for all."""
    compresses: ClassVar[bool] = False
    """Whether it compresses by itself, so that `compress` beside it makes no sense."""

    @abc.abstractmethod
    def open(self, out: BinaryIO, *, name: str, config: Path) -> PackingWriter:
        """Start a container on `out`; nothing is written before all keys and passwords are known to be usable.

        Args:
            out: written only, from the start to the end; stays open.
            name: what the file inside is called, where the container has room for a name.
            config: the folder that holds `keys/`.

        Raises:
            RenderError: a key or password is missing, expired, revoked or unusable; says which, never its value.
        """

    @abc.abstractmethod
    def key_problems(
        self, *, config: Path, now: datetime, ahead: timedelta, connections: bool = True
    ) -> Sequence[KeyProblem]:
        """Say what is wrong with the keys now, and what will be before `now + ahead`; empty when all is well.

        Args:
            config: the folder that holds `keys/`.
            now: aware.
            ahead: how long before its expiry a key is announced.
            connections: also ask Airflow for keys and passwords in connections; `False` on a machine without them.
        """


class PasswordBase(EncryptionBase):
    """What encryptions have in common that ask for a password."""

    connection: str = Field(min_length=1, description="Airflow connection whose password opens the file.")

    @abc.abstractmethod
    def unusable(self, password: str) -> str | None:
        """Say why programs that read the container could not take this password; None if they can."""

    def password(self) -> str:
        """Return the connection's password.

        Raises:
            RenderError: it is missing or cannot be used.
        """
        password = secrets.password(self.connection)
        refuse_fatal(self._problems(password))
        return password

    def key_problems(
        self,
        *,
        config: Path,  # noqa: ARG002 - no key files here
        now: datetime,  # noqa: ARG002 - passwords do not expire
        ahead: timedelta,  # noqa: ARG002
        connections: bool = True,
    ) -> Sequence[KeyProblem]:
        """See `EncryptionBase.key_problems`."""
        if not connections:
            return []
        try:
            return self._problems(secrets.password(self.connection))
        except RenderError as error:
            return [KeyProblem(key="encrypt", what=error.what, fatal=True)]

    def _problems(self, password: str) -> list[KeyProblem]:
        what = self.unusable(password)
        return [KeyProblem(key=f"connection '{self.connection}'", what=what, fatal=True)] if what else []


def refuse_fatal(problems: Sequence[KeyProblem]) -> None:
    """Raise `RenderError` for the keys that cannot be used now."""
    fatal = [str(problem) for problem in problems if problem.fatal]
    if fatal:
        raise RenderError(
            f"The file cannot be encrypted: {'; '.join(fatal)}",
            hint="Put a usable key or password in its place, then clear the task; nothing was written or sent",
        )
