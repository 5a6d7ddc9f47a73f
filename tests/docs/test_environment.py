"""The page on the environment: the variables are all there are, and the examples work."""

from __future__ import annotations

import re
import shlex

import pytest
from sqlalchemy import make_url

from docs.pages import PROJECT, blocks, section, text_of
from leadferry.archive import Archive
from leadferry.connections import lead_store
from leadferry.destinations.folder import Folder
from leadferry.destinations.sftp import Sftp

PAGE = "docs/reference/environment.md"
_EXAMPLES = [
    line.removeprefix("export AIRFLOW_CONN_LEADFERRY=")
    for block in blocks("bash", PROJECT / PAGE)
    for line in block.text.splitlines()
    if line.startswith("export")
]


def test_the_page_names_every_variable_of_ours():
    code = "\n".join(path.read_text("utf-8") for path in (PROJECT / "include").rglob("*.py"))
    read = set(re.findall(r'"((?:AIRFLOW_CONN_)?LEADFERRY(?:_[A-Z]+)?)"', code)) - {"LEADFERRY"}
    told = set(re.findall(r"^\| `([A-Z_]+)` \|", section(PAGE, "Variables"), re.MULTILINE))

    assert read == told


@pytest.mark.parametrize("example", _EXAMPLES)
def test_an_example_of_a_connection_names_a_store(example, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", *shlex.split(example))

    url = make_url(lead_store().engine.url)

    assert (url.get_backend_name(), url.username, url.database) == ("postgresql", "leadferry", "leadferry")
    assert (url.host or url.query["host"]) in {"db.example.com", "/run/postgresql"}


def test_the_archive_is_where_the_page_says_when_nothing_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("LEADFERRY_ARCHIVE", raising=False)

    assert str(Archive.from_environment().root) == str(tmp_path / "leadferry-archive")
    assert "`leadferry-archive` in `AIRFLOW_HOME`" in text_of(PAGE)


def test_pools_are_named_as_the_page_says():
    sftp = Sftp(id="a", connection="acme_sftp", directory="/inbound")

    assert (sftp.pool, Folder(id="b", path="out").pool) == ("leadferry_sftp_acme_sftp", "leadferry_folder")
    assert "`leadferry_<type>_<connection>`" in text_of(PAGE)
