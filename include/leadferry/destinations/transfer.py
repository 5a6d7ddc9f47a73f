"""What transfers have in common wherever they go: their pace, and the access log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

access_log = logging.getLogger("leadferry.access")
"""One line for each thing done at a destination: what, where, bytes, seconds. No secrets, no lead data."""

_PIECES_PER_SECOND = 10


def paced(blocks: Iterable[bytes], *, bytes_per_second: int | None) -> Iterator[bytes]:
    """Hand on blocks no faster than `bytes_per_second`, in pieces of at most a tenth of that; None sets no limit."""
    if bytes_per_second is None:
        yield from blocks
        return
    most = max(1, bytes_per_second // _PIECES_PER_SECOND)
    began, sent = monotonic(), 0
    for block in blocks:
        for start in range(0, len(block), most):
            piece = block[start : start + most]
            yield piece
            sent += len(piece)
            ahead = sent / bytes_per_second - (monotonic() - began)
            if ahead > 0:
                sleep(ahead)


@contextmanager
def logged(verb: str, place: str, *, size: int | None = None) -> Iterator[None]:
    """Write one line to the access log when the block ends, whichever way.

    Args:
        verb: what is done: connect, put, rename, remove, close.
        place: where, as a URL without user and password.
        size: bytes that are moved, when any are.
    """
    began = monotonic()
    outcome = "failed"
    try:
        yield
        outcome = "ok"
    finally:
        moved = "" if size is None else f" {size} bytes"
        access_log.info("%s %s %s%s %.3f s", verb, place, outcome, moved, monotonic() - began)
