"""The pages on packing are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from leadferry.packing import Compression, Encryption, age, gzip, pgp, xlsx_password, zip_aes, zstd
from leadferry.packing import zip as zip_

PAGES = Path(__file__).parents[2] / "docs" / "packing"
COMPRESSION, ENCRYPTION = (
    (PAGES / name).read_text(encoding="utf-8") for name in ("compression.md", "encryption.md")
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks(COMPRESSION + ENCRYPTION, "yaml"))
def test_each_yaml_example_is_valid(block):
    written = yaml.safe_load(block)
    file = written.get("files", [written])[0]

    assert {"compress", "encrypt"} & set(file)
    if "compress" in file:
        TypeAdapter(Compression).validate_python(file["compress"])
    if "encrypt" in file:
        model = TypeAdapter(Encryption).validate_python(file["encrypt"])
        assert isinstance(model, age.Age | pgp.Pgp | xlsx_password.XlsxPassword | zip_aes.ZipAes)
        if isinstance(model, age.Age):
            assert model._keys()[1] == []


@pytest.mark.parametrize("block", blocks(COMPRESSION, "python"))
def test_each_python_example_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    exec(compile(block, "page", "exec"), {})

    (made,) = tmp_path.iterdir()
    assert made.suffix == ".zip"


MODELS = [
    (COMPRESSION, gzip.Gzip()),
    (COMPRESSION, zip_.Zip()),
    (COMPRESSION, zstd.Zstd()),
    (ENCRYPTION, age.Age(recipients=["age1x"])),
    (ENCRYPTION, pgp.Pgp(recipients=["acme"])),
    (ENCRYPTION, xlsx_password.XlsxPassword(connection="x")),
    (ENCRYPTION, zip_aes.ZipAes(connection="x")),
]


@pytest.mark.parametrize(("page", "model"), MODELS, ids=lambda one: getattr(one, "type", None))
def test_the_table_of_types_says_what_the_models_say(page, model):
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{model.type}` |")]

    assert model.ending is None or f"`.{model.ending}`" in row
    assert model.media_type is None or f"`{model.media_type}`" in row


@pytest.mark.parametrize(("page", "model"), MODELS, ids=lambda one: getattr(one, "type", None))
def test_each_key_stands_on_its_page(page, model):
    for key in type(model).model_fields:
        assert f"`{key}`" in page or f"{key}:" in page
