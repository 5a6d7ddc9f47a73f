"""Files that are compressed and encrypted on their way into the archive."""

from __future__ import annotations

import gzip
import json

import pytest
from pydantic import ValidationError

from batches import add_leads, folder, make_batch
from leadferry.errors import RenderError
from leadferry.states import DeliveryState
from leadferry.store import ledger


def packed(tmp_path, **keys):
    file = {"id": "leads", "name": "acme.csv", "format": {"type": "csv"}, **keys}
    return make_batch(files=[file], destinations=[folder(tmp_path / "inbox")])


@pytest.mark.req("R092")
def test_a_compressed_file_holds_the_rendered_bytes_and_is_named_for_what_it_is(ferry, tmp_path):
    add_leads(ferry.database, 20)
    plain = {"id": "plain", "name": "plain.csv", "format": {"type": "csv"}}
    small = {"id": "small", "name": "small.csv", "format": {"type": "csv"}, "compress": "gzip"}
    claimed = ferry.rendered(make_batch(files=[plain, small], destinations=[folder(tmp_path / "inbox")]))
    ferry.deliver(claimed, "drop")
    inbox = tmp_path / "inbox"
    assert gzip.decompress((inbox / "small.csv.gz").read_bytes()) == (inbox / "plain.csv").read_bytes()
    stored = {file.key: file for file in ledger.stored_files(ferry.database, claimed.delivery_id)}
    assert stored["small"].media_type == "application/gzip"
    assert stored["small"].rows == stored["plain"].rows == 20


@pytest.mark.req("R093", "F20")
def test_an_encrypted_file_opens_only_with_the_password_of_the_connection(ferry, tmp_path, monkeypatch):
    import pyzipper

    monkeypatch.setenv(
        "AIRFLOW_CONN_ZIP_SECRET", json.dumps({"conn_type": "generic", "password": "a long secret"})
    )
    add_leads(ferry.database, 20)
    batch = packed(tmp_path, encrypt={"type": "zip_aes", "connection": "zip_secret"})
    claimed = ferry.rendered(batch)
    ferry.deliver(claimed, "drop")
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    (file,) = (tmp_path / "inbox").iterdir()
    assert b"lead1@example.com" not in file.read_bytes()
    with pyzipper.AESZipFile(file) as archive:
        with pytest.raises(RuntimeError):
            archive.read("acme.csv", pwd=b"another one")
        assert b"lead1@example.com" in archive.read("acme.csv", pwd=b"a long secret")
    for stored in ferry.archive.root.rglob("*"):
        assert stored.is_dir() or b"lead1@example.com" not in stored.read_bytes()


def test_without_the_key_nothing_is_stored_and_the_leads_go_back(ferry, tmp_path, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_ZIP_SECRET", raising=False)
    add_leads(ferry.database, 3)
    claimed = ferry.extract(packed(tmp_path, encrypt={"type": "zip_aes", "connection": "zip_secret"}))
    with pytest.raises(RenderError, match="zip_secret"):
        ferry.render(claimed)
    assert [path for path in ferry.archive.root.rglob("*") if path.is_file()] == []
    assert (ferry.settle(claimed).state, ferry.settle(claimed).included) == (DeliveryState.FAILED, 3)


@pytest.mark.req("F17")
def test_a_limit_in_bytes_is_that_of_the_compressed_part(ferry, tmp_path):
    add_leads(ferry.database, 2000)
    file = {"name": "{{ file.part }}.csv", "compress": "gzip", "split": {"bytes": "4KB"}}
    claimed = ferry.rendered(packed(tmp_path, **file))
    ferry.deliver(claimed, "drop")
    files = sorted((tmp_path / "inbox").iterdir(), key=lambda path: int(path.name.split(".")[0]))
    assert max(path.stat().st_size for path in files) <= 4000
    lines = [line for path in files for line in gzip.decompress(path.read_bytes()).splitlines()[1:]]
    assert len(set(lines)) == len(lines) == 2000


def test_a_password_for_excel_needs_an_excel_file(tmp_path):
    with pytest.raises(ValidationError, match="xlsx_password is for files of type xlsx"):
        packed(tmp_path, encrypt={"type": "xlsx_password", "connection": "secret"})
