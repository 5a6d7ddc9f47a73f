"""The pace of transfers, by a clock that only sleeping and sending move on."""

import pytest

from leadferry.destinations import transfer
from leadferry.destinations.transfer import paced

LIMIT = 1_000_000


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(transfer, "monotonic", lambda: self.now)
        monkeypatch.setattr(transfer, "sleep", self.sleep)

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def _send(clock, blocks, *, seconds_per_byte=0.0):
    """Take the pieces as a wire does; when each had gone, and what went."""
    gone, sent = [], bytearray()
    for piece in paced(blocks, bytes_per_second=LIMIT):
        clock.now += len(piece) * seconds_per_byte
        sent += piece
        gone.append((clock.now, len(sent)))
    return gone, bytes(sent)


@pytest.mark.req("R237")
@pytest.mark.parametrize("block", [1, 999, 4096, 1 << 20], ids=lambda size: f"blocks of {size}")
@pytest.mark.parametrize("wire", [0.0, 0.5 / LIMIT], ids=["a wire without end", "a wire twice as fast"])
def test_the_limit_is_used_to_nine_tenths_and_never_passed_by_more_than_a_tenth_of_a_second(
    clock, block, wire
):
    size = 3_000 * block if block < 4096 else 5 * LIMIT
    data = bytes(range(256)) * (size // 256 + 1)
    blocks = [data[start : min(start + block, size)] for start in range(0, size, block)]
    gone, sent = _send(clock, blocks, seconds_per_byte=wire)
    assert sent == data[:size]
    assert all(so_far <= LIMIT * (now + 0.1) + 1 for now, so_far in gone)
    assert size / LIMIT * 0.9 <= clock.now <= size / LIMIT * 1.1


@pytest.mark.req("R237")
def test_a_wire_that_is_slower_than_the_limit_is_not_slowed_down(clock):
    _, sent = _send(clock, [bytes(LIMIT)], seconds_per_byte=2 / LIMIT)
    assert len(sent) == LIMIT
    assert clock.now == pytest.approx(2)


def test_without_a_limit_blocks_pass_as_they_are(clock):
    blocks = [b"one", b"two"]
    assert list(paced(blocks, bytes_per_second=None)) == blocks
    assert clock.now == 0
