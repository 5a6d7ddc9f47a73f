from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadferry.packing.zstd import Zstd, _library

pytestmark = pytest.mark.req("R092")


def test_the_zstd_program_gives_the_same_bytes(pack, leads, run):
    answer = run("zstd", "-dc", input=pack(Zstd(), leads))

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == leads


def test_a_changed_byte_is_found_by_the_checksum(pack, leads, run):
    packed = bytearray(pack(Zstd(), leads))
    packed[-1] ^= 1

    assert run("zstd", "-dc", input=bytes(packed)).returncode != 0


@given(data=st.binary(max_size=5000), level=st.integers(1, 19))
def test_any_bytes_come_back_at_any_level(data, level):
    out = BytesIO()
    with Zstd(level=level).open(out, name="x") as writer:
        writer.write(data)

    assert _library().decompress(out.getvalue()) == data


def test_the_same_bytes_give_the_same_file(pack, leads):
    assert pack(Zstd(), leads) == pack(Zstd(), leads, name="other")
