"""Write the compound file that Office puts an encrypted workbook into: MS-CFB version 3, from start to end.

Only as much of the format as is needed: one long stream, a few short ones, folders.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

SECTOR: Final = 512
MINI_SECTOR: Final = 64
SHORT: Final = 4096
"""Streams shorter than this share the mini stream."""
LONGEST: Final = 0x7FFFFFFF
"""Bytes that a stream of version 3 may have."""

_FREE, _END, _FAT, _DIFAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFC
_IN_HEADER = 109
"""Places in the header for the numbers of FAT sectors; the next ones stand in DIFAT sectors."""
_PER_SECTOR = SECTOR // 4
_STORAGE, _STREAM, _ROOT = 1, 2, 5
_BLACK = 1


@dataclass(kw_only=True)
class Entry:
    """A folder or stream. Left and right are the indexes of its neighbours in the folder's tree, by length of name."""

    name: str
    kind: int = _STREAM
    left: int = _FREE
    right: int = _FREE
    child: int = _FREE
    content: bytes = field(default=b"", repr=False)
    start: int = 0
    size: int = 0

    @classmethod
    def folder(cls, name: str, *, child: int, left: int = _FREE, right: int = _FREE) -> Entry:
        """Return a folder whose tree of entries begins at `child`."""
        return cls(name=name, kind=_STORAGE, child=child, left=left, right=right)

    @classmethod
    def root(cls, *, child: int) -> Entry:
        """Return the entry that must be the first one."""
        return cls(name="Root Entry", kind=_ROOT, child=child)

    def packed(self) -> bytes:
        """Return the 128 bytes of the directory; without times."""
        name = self.name.encode("utf-16-le") + b"\0\0"
        tree = struct.pack("<BBIII", self.kind, _BLACK, self.left, self.right, self.child)
        length = struct.pack("<H", len(name))
        return name.ljust(64, b"\0") + length + tree + bytes(36) + struct.pack("<IQ", self.start, self.size)


_NO_ENTRY = bytes(64) + struct.pack("<HBBIII", 0, 0, 0, _FREE, _FREE, _FREE) + bytes(48)


def compound_file(entries: Sequence[Entry], *, long: Entry, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a compound file.

    Args:
        entries: the root first; all streams but `long` have their content and are short.
        long: the one of them whose content comes in blocks; its `size` is known. May be short as well.
        blocks: its content.
    """
    if long.size < SHORT:
        long.content, blocks = b"".join(blocks), ()
    shorts = [entry for entry in entries if entry.kind == _STREAM and entry.content]
    mini_chains: list[int] = []
    for entry in shorts:
        entry.start, entry.size = len(mini_chains), len(entry.content)
        mini_chains += _chain(len(mini_chains), _count(entry.size, MINI_SECTOR))
    mini = b"".join(_padded(entry.content, MINI_SECTOR) for entry in shorts)
    layout = _Layout(
        mini_fat=_count(len(mini_chains), _PER_SECTOR),
        directory=_count(len(entries) * 128, SECTOR),
        mini=_count(len(mini), SECTOR),
        long=_count(long.size, SECTOR) if long.size >= SHORT else 0,
    )
    entries[0].start, entries[0].size = layout.mini_start, len(mini)
    if long.size >= SHORT:
        long.start = layout.long_start
    yield layout.header()
    yield from layout.difat_sectors()
    yield from layout.fat_sectors()
    yield _numbers(mini_chains, layout.mini_fat * _PER_SECTOR)
    directory = b"".join(entry.packed() for entry in entries)
    yield directory + _NO_ENTRY * (layout.directory * SECTOR // 128 - len(entries))
    yield _padded(mini, SECTOR)
    yield from blocks
    yield bytes(-long.size % SECTOR if long.size >= SHORT else 0)


class _Layout:
    """Which sector holds what: DIFAT, FAT, mini FAT, directory, mini stream, long stream."""

    def __init__(self, *, mini_fat: int, directory: int, mini: int, long: int) -> None:
        self.mini_fat, self.directory, self.mini, self.long = mini_fat, directory, mini, long
        self.difat = self.fat = 0
        content = mini_fat + directory + mini + long
        while True:
            fat = _count(content + self.fat + self.difat, _PER_SECTOR)
            difat = _count(max(0, fat - _IN_HEADER), _PER_SECTOR - 1)
            if (fat, difat) == (self.fat, self.difat):
                break
            self.fat, self.difat = fat, difat
        self.mini_fat_start = self.difat + self.fat
        self.directory_start = self.mini_fat_start + mini_fat
        self.mini_start = self.directory_start + directory
        self.long_start = self.mini_start + mini

    def header(self) -> bytes:
        fat = range(self.difat, self.difat + min(self.fat, _IN_HEADER))
        return struct.pack(
            "<8s16x5H6x9I",
            bytes.fromhex("d0cf11e0a1b11ae1"),
            *(0x3E, 3, 0xFFFE, 9, 6),
            *(0, self.fat, self.directory_start, 0, SHORT, self.mini_fat_start, self.mini_fat),
            *(0 if self.difat else _END, self.difat),
        ) + _numbers(fat, _IN_HEADER)

    def difat_sectors(self) -> Iterator[bytes]:
        rest = range(self.difat + _IN_HEADER, self.difat + self.fat)
        for number in range(self.difat):
            part = rest[number * (_PER_SECTOR - 1) : (number + 1) * (_PER_SECTOR - 1)]
            following = number + 1 if number + 1 < self.difat else _END
            yield _numbers(part, _PER_SECTOR - 1) + struct.pack("<I", following)

    def fat_sectors(self) -> Iterator[bytes]:
        numbers = array("I", [_DIFAT] * self.difat + [_FAT] * self.fat)
        for length in (self.mini_fat, self.directory, self.mini, self.long):
            numbers.extend(_chain(len(numbers), length))
        yield _numbers(numbers, self.fat * _PER_SECTOR)


def _chain(start: int, length: int) -> list[int]:
    """Return for each of the sectors from `start` on which one follows."""
    return [*range(start + 1, start + length), _END] if length else []


def _numbers(numbers: Iterable[int], length: int) -> bytes:
    """Return numbers of sectors as bytes, filled up with free places."""
    given = array("I", numbers)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        given.byteswap()
    return given.tobytes().ljust(length * 4, b"\xff")


def _count(size: int, of: int) -> int:
    return -(-size // of)


def _padded(content: bytes, to: int) -> bytes:
    return content + bytes(-len(content) % to)
