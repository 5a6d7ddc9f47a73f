"""Settings that cannot be meant are errors of the batch file, with file and line, before Airflow sees a DAG."""

import pytest

from leadferry.batch.load import load_batch
from leadferry.batch.problems import BatchFileError

BATCH = """\
name: Acme, daily
recipient: acme
flows: [auto]
schedule: manual
fields:
  - {to: First Name, from: first_name}
  - {to: Zip, from: zip, transform: [trim, {%(step)s}]}
files:
  - name: "{{ delivery.number }}.txt"
    format:
      type: %(type)s
      %(setting)s
destinations:
  - {id: share, type: folder, path: out}
"""


@pytest.fixture
def complaint(tmp_path, monkeypatch):
    """What loading a batch file with this format says."""
    config = tmp_path / "config"
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    for folder in ("batches", "recipients", "schemas"):
        (config / folder).mkdir(parents=True)
    (config / "recipients/acme.yaml").write_text("name: Acme\n")
    (config / "schemas/broken.xsd").write_text("<leads/>")

    def load(kind, setting, step="cut: 5"):
        (config / "batches/acme.yaml").write_text(BATCH % {"type": kind, "setting": setting, "step": step})
        with pytest.raises(BatchFileError) as refused:
            load_batch("acme", config=config)
        return str(refused.value)

    return load


NAMES = "names: {First Name: first}"


@pytest.mark.req("R074", "R075", "R078", "R087", "R090", "F52")
@pytest.mark.parametrize(
    ("kind", "setting", "line", "says"),
    [
        ("csv", 'delimiter: "||"', 12, "exactly one ASCII character"),
        ("csv", "delimiter: §", 12, "exactly one ASCII character"),
        ("csv", "quote: quotes", 12, "exactly one ASCII character"),
        ("csv", "encoding: utf9", 12, "'utf9' is no text encoding"),
        ("csv", "escape: slash", 12, "'slash' is not known; allowed: double, backslash"),
        ("csv", 'date_format: "%m/%Q"', 12, "'%Q' is no date code"),
        ("csv", 'decimal_mark: ";"', 12, "';' is not known"),
        ("xml", "root: lead list", 12, "'lead list' is no XML name"),
        ("xml", "names: {First Name: first name}", 10, "'first name' is no XML name"),
        ("xml", "indent: 2", 10, "'First Name' is no XML name"),
        ("xml", f"{NAMES}\n      schema: schemas/none.xsd", 13, "no file schemas/none.xsd"),
        ("xml", f"{NAMES}\n      schema: schemas/broken.xsd", 13, "schemas/broken.xsd is no XML Schema"),
        ("fixed_width", "columns:\n        - {name: First Name, width: 0}", 13, "must be at least 1"),
        ("fixed_width", "columns:\n        - {name: First Name, width: 9}", 10, "field 'Zip' has no place"),
        ("fixed_width", "encoding: ascii", 10, "the required key 'columns' is missing"),
        ("name_value", 'separator: "i"', 10, "field 'First Name' holds the separator 'i'"),
        ("name_value", "encoding: utf9", 12, "'utf9' is no text encoding"),
        ("parquet", "compression: rar", 12, "allowed: snappy, zstd"),
        ("parquet", "delimiter: comma", 12, "delimiter"),
        ("parket", "compression: zstd", 11, "did you mean 'parquet'"),
    ],
)
def test_a_bad_setting_is_told_with_file_and_line(complaint, kind, setting, line, says):
    told = complaint(kind, setting)
    assert f"config/batches/acme.yaml:{line}:" in told
    assert says in told


@pytest.mark.req("R070", "F30")
@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("mask: last", "mask"),
        ("hash: sha1", "allowed: sha256, md5"),
        ("hash: {algorithm: md5, of: phone}", "of: phone needs it"),
        ("pseudonym: {of: email}", "key"),
    ],
)
def test_a_bad_mask_or_hash_is_told_with_file_and_line(complaint, step, says):
    told = complaint("csv", "header: true", step)
    assert "config/batches/acme.yaml:7:" in told
    assert says in told
