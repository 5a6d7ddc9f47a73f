from __future__ import annotations

import zipfile
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
import pyzipper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadferry.errors import RenderError
from leadferry.packing.zip_aes import ZipAes

NOW = datetime(2026, 1, 31, tzinfo=UTC)
PASSWORD = "correct horse; battery"
pytestmark = [pytest.mark.req("F20"), pytest.mark.req("R093")]


@pytest.fixture
def protected(connection) -> ZipAes:
    connection("zip_secret", password=PASSWORD)
    return ZipAes(connection="zip_secret")


@pytest.mark.parametrize("small", [1 << 20, 1000], ids=["classic", "zip64"])
def test_7z_opens_it_with_the_password_and_only_with_it(protected, leads, run, tmp_path, small):
    out = BytesIO()
    with protected.container(out, small=small).only("leads.csv") as writer:
        writer.write(leads)
    path = tmp_path / "leads.csv.zip"
    path.write_bytes(out.getvalue())

    assert run("7z", "e", "-so", f"-p{PASSWORD}", path).stdout == leads
    wrong = run("7z", "e", "-so", "-pwrong", path)
    assert wrong.returncode != 0
    assert b"Wrong password" in wrong.stderr
    assert run("7z", "e", "-so", "-p", path).stdout == b""


def test_the_encryption_is_aes_256_and_not_the_old_one(protected, pack, leads, run, tmp_path):
    path = tmp_path / "leads.csv.zip"
    path.write_bytes(pack(protected, leads, config=tmp_path))

    assert b"Method = AES-256 Deflate" in run("7z", "l", "-slt", path).stdout
    (member,) = zipfile.ZipFile(path).infolist()
    assert member.compress_type == 99, "WinZip AES; ZipCrypto keeps the method and sets only a flag"


def test_a_changed_byte_is_found(protected, pack, leads, run, tmp_path):
    packed = bytearray(pack(protected, leads, config=tmp_path))
    packed[len(packed) // 2] ^= 1
    (tmp_path / "x.zip").write_bytes(packed)

    assert run("7z", "t", f"-p{PASSWORD}", tmp_path / "x.zip").returncode != 0


def test_no_lead_and_no_password_stands_in_it_readable(protected, pack, tmp_path):
    packed = pack(protected, b"Ada Example," * 3, config=tmp_path)

    assert b"Ada" not in packed
    assert PASSWORD.encode() not in packed


def test_twice_the_same_bytes_are_two_different_files(protected, pack, leads, tmp_path):
    assert pack(protected, leads, config=tmp_path) != pack(protected, leads, config=tmp_path)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=30,
    deadline=None,
)
@given(data=st.binary(max_size=3000), small=st.integers(0, 3000))
def test_any_bytes_come_back(protected, data, small):
    out = BytesIO()
    with protected.container(out, small=small).only("x") as writer:
        writer.write(data)

    with pyzipper.AESZipFile(BytesIO(out.getvalue())) as box:
        assert box.read("x", pwd=PASSWORD.encode()) == data


def test_several_files_may_stand_in_one(protected, run, tmp_path):
    out = BytesIO()
    with protected.container(out, small=10) as box:
        for name in ("a.csv", "b.csv"):
            with box.open(name) as member:
                member.write(name.encode() * 10)
    (tmp_path / "x.zip").write_bytes(out.getvalue())

    run("7z", "x", f"-p{PASSWORD}", f"-o{tmp_path}", tmp_path / "x.zip")

    assert (tmp_path / "a.csv").read_bytes() == b"a.csv" * 10
    assert (tmp_path / "b.csv").read_bytes() == b"b.csv" * 10


def test_a_password_that_programs_read_differently_is_refused_unseen(connection, write_only, tmp_path):
    connection("zip_secret", password="pässwörd")
    out = write_only()

    with pytest.raises(
        RenderError, match="connection 'zip_secret': the password has characters outside"
    ) as told:
        ZipAes(connection="zip_secret").open(out, name="x", config=tmp_path)

    assert "pässwörd" not in str(told.value)
    assert out.content == b""


@pytest.mark.parametrize(("known", "found"), [(True, 0), (False, 1)])
def test_the_check_tells_of_a_missing_connection_if_it_may_ask(connection, known, found):
    if known:
        connection("zip_secret", password=PASSWORD)
    check = ZipAes(connection="zip_secret").key_problems

    problems = check(config=Path(), now=NOW, ahead=timedelta(days=14))

    assert len(problems) == found
    assert not check(config=Path(), now=NOW, ahead=timedelta(days=14), connections=False)
