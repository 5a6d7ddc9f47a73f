from __future__ import annotations

from io import BytesIO

import olefile
import pytest

from leadferry.packing.compound_file import Entry, _Layout, compound_file

pytestmark = pytest.mark.req("F20")


def written(size: int) -> bytes:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    long = Entry(name="Long", size=size)
    entries = [Entry.root(child=1), long, Entry(name="x", content=b"short" * 20)]
    long.left = 2
    blocks = (content[start : start + 65_536] for start in range(0, size, 65_536))
    return b"".join(compound_file(entries, long=long, blocks=blocks))


SIZES = [1, 63, 64, 4095, 4096, 4097, 65_536, 109 * 128 * 512 - 5000, 109 * 128 * 512 + 5000, 20_000_000]
"""From 109 * 128 sectors on the header has no room for the list of sectors, and DIFAT sectors take the rest."""


@pytest.mark.parametrize("size", SIZES)
def test_olefile_reads_both_streams_and_finds_nothing_wrong(size):
    file = olefile.OleFileIO(BytesIO(written(size)), raise_defects=olefile.DEFECT_POTENTIAL)

    assert file.openstream("Long").read() == bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert file.openstream("x").read() == b"short" * 20
    assert file.parsing_issues == []


@pytest.mark.parametrize("size", [4096, 7_200_000, 20_000_000])
def test_7z_reads_it(run, tmp_path, size):
    (tmp_path / "file.ole").write_bytes(written(size))

    answer = run("7z", "t", "-tCompound", tmp_path / "file.ole")

    assert answer.returncode == 0, answer.stdout
    assert b"Everything is Ok" in answer.stdout


@pytest.mark.parametrize("long", [0, 8, 13_900, 14_000, 40_000, 4_194_304])
def test_the_table_of_sectors_covers_every_sector_and_itself(long):
    layout = _Layout(mini_fat=1, directory=3, mini=4, long=long)

    sectors = layout.long_start + long
    assert layout.fat * 128 >= sectors
    assert (layout.fat - 1) * 128 < sectors
    assert 109 + layout.difat * 127 >= layout.fat
    assert len(b"".join(layout.fat_sectors())) == layout.fat * 512
    assert len(b"".join(layout.difat_sectors())) == layout.difat * 512
