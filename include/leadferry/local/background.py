"""Run an asyncio server on a thread of its own, so that a test or a runner can use it like any other resource."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self


class Receiver(ABC):
    """A local server that speaks a real protocol; listens while the `with` block runs."""

    port: int = 0
    """The port it listens on; known inside the `with` block."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Listen; returns when the first connection would be answered."""

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Stop listening and cut what is open."""

    @abstractmethod
    def announcement(self) -> dict[str, Any]:
        """Return what a client must know, JSON-able: `port` and the Airflow `connection`."""


class AsyncReceiver(Receiver):
    """A receiver made of coroutines, with a thread for their event loop."""

    def __enter__(self) -> Self:
        """Start the loop and wait until the server listens."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)
        self._thread.start()
        try:
            self.run(self.listen())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server, end its tasks, then the loop."""
        self.run(self.close())
        self._end()

    @abstractmethod
    async def listen(self) -> None:
        """Start the server and set `port`."""

    @abstractmethod
    async def close(self) -> None:
        """Stop the server and drop its connections."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on the server's loop and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def _end(self) -> None:
        self.run(_cancel_the_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        self._loop.close()


async def _cancel_the_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    # Transports report their end in a callback of the next round.
    await asyncio.sleep(0)


def serve(receiver: Receiver) -> None:
    """Run a receiver in the foreground: say in one line of JSON when it is ready, stop on SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with receiver:
        sys.stdout.write(json.dumps(receiver.announcement()) + "\n")
        sys.stdout.flush()
        stop.wait()


def serve_logins(make: Callable[..., Receiver], *, description: str | None) -> None:
    """Run a receiver that keeps what one login sends it in a folder, as the command line says.

    Args:
        make: makes the receiver of `root` (the inbox), `state`, `port` and `passwords`.
        description: what `--help` says.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, required=True, help="the inbox")
    parser.add_argument("--state", type=Path, required=True, help="where its keys and certificates stay")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--user", default="leadferry")
    parser.add_argument(
        "--password", default="leadferry", help="guards a server that only this machine can reach"
    )
    chosen = parser.parse_args()
    passwords = {chosen.user: chosen.password}
    serve(make(root=chosen.root, state=chosen.state, port=chosen.port, passwords=passwords))


def private_folder(path: Path) -> Path:
    """Return the folder, made if need be, that only this user may read: keys live there."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
