from __future__ import annotations

import struct
import zipfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadferry.packing.zip import Zip

pytestmark = pytest.mark.req("R092")


def read(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(content)) as box:
        return {name: box.read(name) for name in box.namelist()}


@pytest.mark.parametrize("program", [("unzip", "-p"), ("7z", "e", "-so")], ids=lambda words: words[0])
@pytest.mark.parametrize("small", [1 << 20, 1000], ids=["classic", "zip64"])
def test_programs_unpack_the_same_bytes(pack, leads, run, tmp_path, program, small):  # noqa: PLR0913, PLR0917  (parameters and fixtures)
    out = BytesIO()
    with Zip().container(out, small=small).only("leads.csv") as writer:
        writer.write(leads)
    (tmp_path / "leads.csv.zip").write_bytes(out.getvalue())

    answer = run(*program, tmp_path / "leads.csv.zip")

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == leads


def test_unzip_finds_nothing_to_complain_about(pack, leads, run, tmp_path):
    (tmp_path / "leads.csv.zip").write_bytes(pack(Zip(), leads))

    answer = run("unzip", "-tq", tmp_path / "leads.csv.zip")

    assert answer.returncode == 0, answer.stdout
    assert b"No errors" in answer.stdout


@given(data=st.binary(max_size=5000), level=st.integers(1, 9), small=st.integers(0, 5000))
def test_any_bytes_come_back(data, level, small):
    out = BytesIO()
    with Zip(level=level).container(out, small=small).only("x.bin") as writer:
        writer.write(data)

    assert read(out.getvalue()) == {"x.bin": data}


def test_names_outside_ascii_arrive(pack, run, tmp_path):
    (tmp_path / "x.zip").write_bytes(pack(Zip(), b"1", name="Anfragen März.csv"))

    assert read((tmp_path / "x.zip").read_bytes()) == {"Anfragen März.csv": b"1"}
    assert "Anfragen März.csv" in run("7z", "l", "-sccUTF-8", tmp_path / "x.zip").stdout.decode()


def test_the_same_bytes_give_the_same_file_dated_1980_and_only_for_its_owner(pack, leads):
    packed = pack(Zip(), leads)
    (member,) = zipfile.ZipFile(BytesIO(packed)).infolist()

    assert pack(Zip(), leads) == packed
    assert member.date_time == (1980, 1, 1, 0, 0, 0)
    assert member.external_attr >> 16 == 0o100600


@pytest.mark.parametrize(("size", "version"), [(1000, 20), (1001, 45)])
def test_only_a_file_too_large_to_wait_in_memory_needs_zip64(size, version):
    """Nobody knows the size of what is streamed, so that 3 GB are written with the header that these 1001 bytes get."""
    out = BytesIO()
    with Zip().container(out, small=1000).only("x") as writer:
        writer.write(bytes(size))

    (needed,) = struct.unpack("<H", out.getvalue()[4:6])
    assert needed == version


def test_several_files_stand_in_one_zip_in_the_order_they_came():
    out = BytesIO()
    with Zip().container(out, small=10) as box:
        for name, data in (("b.csv", b"1,2"), ("a.csv", b"x" * 100), ("c.csv", b"")):
            with box.open(name) as member:
                member.write(data)

    assert list(read(out.getvalue()).items()) == [("b.csv", b"1,2"), ("a.csv", b"x" * 100), ("c.csv", b"")]


def test_two_files_of_one_name_are_refused_since_one_would_replace_the_other():
    with Zip().container(BytesIO()) as box:
        box.open("leads.csv").close()
        with pytest.raises(ValueError, match=r"two files in one zip would be called LEADS\.csv"):
            box.open("LEADS.csv")


@pytest.mark.parametrize("small", [10, 1 << 20])
@pytest.mark.parametrize("dropped", [True, False])
def test_a_zip_of_several_files_that_was_given_up_is_none(small, dropped):
    out = BytesIO()
    box = Zip().container(out, small=small)
    with box.open("a.csv") as member:
        member.write(bytes(100))
    half = box.open("b.csv")
    half.write(bytes(100))
    if dropped:
        del half, member, box
    else:
        half.abort()

    assert not zipfile.is_zipfile(BytesIO(out.getvalue()))
