from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadferry.packing.gzip import Gzip

pytestmark = pytest.mark.req("R092")


def test_gunzip_gives_the_same_bytes(pack, leads, run):
    answer = run("gzip", "-dc", input=pack(Gzip(), leads))

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == leads


@given(data=st.binary(max_size=5000), level=st.integers(1, 9))
def test_any_bytes_come_back_at_any_level(data, level):
    from io import BytesIO

    out = BytesIO()
    with Gzip(level=level).open(out, name="x") as writer:
        writer.write(data)

    assert gzip.decompress(out.getvalue()) == data


def test_the_same_bytes_give_the_same_file_whatever_its_name_and_pieces(pack, leads):
    first = pack(Gzip(), leads, name="a.csv")

    assert pack(Gzip(), leads, name="b.csv") == first
    assert gzip.decompress(pack(Gzip(), leads, step=333)) == leads
    assert first[3] == 0, "no name in the header"
    assert first[4:8] == b"\0\0\0\0", "no time in the header"


def test_a_higher_level_is_smaller(pack, leads):
    assert len(pack(Gzip(level=9), leads)) < len(pack(Gzip(level=1), leads))
