from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import msoffcrypto
import olefile
import openpyxl
import pytest
from msoffcrypto.exceptions import InvalidKeyError
from msoffcrypto.method.container.ecma376_encrypted import DefaultContent

from leadferry.errors import RenderError
from leadferry.packing import xlsx_password
from leadferry.packing.compound_file import Entry
from leadferry.packing.xlsx_password import XlsxPassword

NOW = datetime(2026, 1, 31, tzinfo=UTC)
PASSWORD = "Blå; pass wörd"
pytestmark = [pytest.mark.req("F20"), pytest.mark.req("R093"), pytest.mark.req("V47")]


@pytest.fixture
def protected(connection) -> XlsxPassword:
    connection("xlsx_secret", password=PASSWORD)
    return XlsxPassword(connection="xlsx_secret")


def workbook(rows: int) -> bytes:
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Leads")
    for number in range(rows):
        digest = hashlib.sha512(b"%d" % number).hexdigest()
        sheet.append([f"Ada {number}", digest, digest[::-1]])
    out = BytesIO()
    book.save(out)
    return out.getvalue()


def opened(content: bytes, *, password: str = PASSWORD) -> bytes:
    file, out = msoffcrypto.OfficeFile(BytesIO(content)), BytesIO()
    file.load_key(password=password, verify_password=True)
    file.decrypt(out, verify_integrity=True)
    return out.getvalue()


@pytest.mark.parametrize("rows", [1, 500])
def test_it_opens_with_the_password_to_the_same_workbook(protected, pack, tmp_path, rows):
    plain = workbook(rows)

    packed = pack(protected, plain, name="leads.xlsx", config=tmp_path)

    assert opened(packed) == plain
    assert openpyxl.load_workbook(BytesIO(opened(packed)))["Leads"]["A1"].value == "Ada 0"


@pytest.mark.parametrize("password", ["wrong", PASSWORD.lower(), "x" * 255])
def test_it_opens_with_no_other_password(protected, pack, tmp_path, password):
    packed = pack(protected, workbook(1), name="leads.xlsx", config=tmp_path)

    with pytest.raises(InvalidKeyError):
        opened(packed, password=password)


def test_libreoffice_opens_it_with_the_password_and_only_with_it(connection, pack, run, tmp_path):
    connection("xlsx_secret", password="secret")
    protected = XlsxPassword(connection="xlsx_secret")
    (tmp_path / "leads.xlsx").write_bytes(pack(protected, workbook(2), name="leads.xlsx", config=tmp_path))

    for password, file in (("secret", "right.csv"), ("wrong", "wrong.csv")):
        convert(run, tmp_path, tmp_path / "leads.xlsx", tmp_path / file, password)

    assert (tmp_path / "right.csv").read_text().startswith('"Ada 0",')
    assert not (tmp_path / "wrong.csv").exists()


def convert(run, home: Path, source: Path, target: Path, password: str) -> None:
    """Have LibreOffice open a workbook and write CSV; a password can only be given by a macro."""
    profile = (f"-env:UserInstallation=file://{home}/office", "--headless", "--norestore")
    # The first start only makes the profile.
    run("soffice", *profile, "--terminate_after_init")
    folder = home / "office" / "user" / "basic" / "Standard"
    folder.mkdir(parents=True, exist_ok=True)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE {0}:{1} PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "{1}.dtd">\n'
    (folder / "script.xlb").write_text(
        head.format("library", "library")
        + '<library:library xmlns:library="http://openoffice.org/2000/library" library:name="Standard"'
        ' library:readonly="false" library:passwordprotected="false">'
        '<library:element library:name="Module1"/></library:library>'
    )
    (folder / "Module1.xba").write_text(
        head.format("script", "module")
        + '<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Module1"'
        ' script:language="StarBasic">' + MACRO + "</script:module>"
    )
    call = f"macro:///Standard.Module1.Convert({source},{target},{password})"
    run("soffice", *profile, call)


MACRO = """
Sub Convert(source As String, target As String, secret As String)
  On Error Goto Failed
  Dim opening(1) As New com.sun.star.beans.PropertyValue
  opening(0).Name = "Hidden" : opening(0).Value = True
  opening(1).Name = "Password" : opening(1).Value = secret
  Dim storing(1) As New com.sun.star.beans.PropertyValue
  storing(0).Name = "FilterName" : storing(0).Value = "Text - txt - csv (StarCalc)"
  storing(1).Name = "FilterOptions" : storing(1).Value = "44,34,76,1"
  document = StarDesktop.loadComponentFromURL(ConvertToURL(source), "_blank", 0, opening())
  If Not IsNull(document) Then
    document.storeToURL(ConvertToURL(target), storing())
    document.close(True)
  End If
Failed:
  StarDesktop.terminate()
End Sub
"""


def test_the_key_is_256_random_bits(protected, pack, tmp_path, monkeypatch):
    asked = []
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or real(size))

    pack(protected, workbook(1), name="leads.xlsx", config=tmp_path)

    assert 32 in asked
    info = (
        olefile.OleFileIO(pack(protected, workbook(1), config=tmp_path)).openstream("EncryptionInfo").read()
    )
    assert info.count(b'keyBits="256"') == 2
    assert b'spinCount="100000"' in info


def test_a_changed_byte_is_found(protected, pack, tmp_path):
    packed = bytearray(pack(protected, workbook(500), config=tmp_path))
    packed[-2000] ^= 1

    with pytest.raises(Exception, match=r"(?i)integrity|corrupt|mismatch"):
        opened(bytes(packed))


def test_twice_the_same_workbook_is_two_different_files(protected, pack, tmp_path):
    assert pack(protected, workbook(1), config=tmp_path) != pack(protected, workbook(1), config=tmp_path)


def test_the_streams_that_excel_wants_beside_are_those_that_it_writes():
    entries, _ = xlsx_password._entries(b"", 0)
    ours: dict[str, Entry] = {entry.name: entry for entry in entries}

    assert ours["Version"].content == DefaultContent.Version
    assert ours["DataSpaceMap"].content == DefaultContent.DataSpaceMap
    assert ours["StrongEncryptionDataSpace"].content == DefaultContent.StrongEncryptionDataSpace
    assert ours["\x06Primary"].content == DefaultContent.Primary


def test_what_waits_on_disk_is_encrypted_and_has_no_name(protected, write_only, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plain = b"Ada Example," * 100_000
    writer = protected.open(write_only(), name="leads.xlsx", config=tmp_path)
    writer.write(plain)
    spool = writer._packer._spool
    spool.seek(0)

    assert list(tmp_path.iterdir()) == []
    waiting = spool.read()
    assert len(waiting) >= 1_000_000
    assert b"Example" not in waiting
    writer.abort()
    assert spool.closed


def test_a_password_that_excel_cannot_take_is_refused_unseen(connection, tmp_path, write_only):
    connection("xlsx_secret", password="s3cret" * 50)
    packing = XlsxPassword(connection="xlsx_secret")

    with pytest.raises(RenderError, match="longer than the 255 characters") as told:
        packing.open(write_only(), name="x", config=tmp_path)

    assert "s3cret" not in str(told.value)
    assert packing.key_problems(config=tmp_path, now=NOW, ahead=timedelta(0))


def test_the_check_tells_of_a_missing_connection():
    packing = XlsxPassword(connection="nowhere")

    (problem,) = packing.key_problems(config=Path(), now=NOW, ahead=timedelta(0))

    assert "connection 'nowhere': Airflow does not know" in str(problem)
    assert not packing.key_problems(config=Path(), now=NOW, ahead=timedelta(0), connections=False)


def test_more_than_the_container_holds_is_an_error_with_a_way_out(
    protected, write_only, tmp_path, monkeypatch
):
    monkeypatch.setattr(xlsx_password, "LONGEST", 100_000)

    with (
        pytest.raises(RenderError, match="larger than the 2 GB"),
        protected.open(write_only(), name="x", config=tmp_path) as writer,
    ):
        writer.write(bytes(100_000))
