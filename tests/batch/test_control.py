"""Control records in the batch file: what may be written there, and what is refused in which line."""

import pytest

from batches import make_batch
from leadferry.batch.control import Control
from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch
from leadferry.batch.problems import BatchFileError

BATCH = """\
name: Acme, daily
recipient: acme
flows: [auto]
schedule: manual
fields:
  - {to: Loan Amount, from: amount}
files:
  - name: "{{ delivery.number }}_{{ file.part }}.txt"
    format: {type: FORMAT}
    control:
      SETTING
destinations:
  - {id: share, type: folder, path: out}
"""


@pytest.fixture
def complaint(tmp_path, monkeypatch):
    """What loading a batch file with this control record says."""
    config = tmp_path / "config"
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    for folder in ("batches", "recipients"):
        (config / folder).mkdir(parents=True)
    (config / "recipients/acme.yaml").write_text("name: Acme\n")

    def load(kind, setting):
        (config / "batches/acme.yaml").write_text(BATCH.replace("FORMAT", kind).replace("SETTING", setting))
        with pytest.raises(BatchFileError) as refused:
            load_batch("acme", config=config)
        return str(refused.value)

    return load


@pytest.mark.req("F16")
@pytest.mark.parametrize(
    ("kind", "setting", "line", "says"),
    [
        ("csv", 'header: "H|{{ batch.nmae }}"', 11, "did you mean batch.name?"),
        ("csv", 'header: "H|{{ control.lead }}"', 11, "did you mean control.leads?"),
        ("csv", 'header: "H|{{ sum.Amount }}"', 11, "sums are known only in the trailer"),
        ("csv", 'trailer: "T|{{ sum.Amount }}"', 11, "needs the label in sums"),
        (
            "csv",
            '{sums: [Loan Amount], trailer: "{{ sum.Amount }}"}',
            11,
            "Allowed are sum.Loan Amount",
        ),
        ("csv", '{sums: [Amount], trailer: "{{ sum.Amount }}"}', 11, "there is no field 'Amount'"),
        ("csv", '{header: "a\\nb"}', 11, "must be one line"),
        ("csv", "sums: [Loan Amount]", 10, "say header, trailer or both"),
        ("csv", "footer: T", 11, "footer"),
        ("xlsx", "header: H", 8, "has no room for control records"),
        ("json", "header: H", 8, "has no room for control records"),
    ],
)
def test_a_control_record_that_cannot_be_meant_is_told_with_file_and_line(
    complaint, kind, setting, line, says
):
    told = complaint(kind, setting)
    assert says in told
    assert f"config/batches/acme.yaml:{line}:" in told


def test_the_number_of_parts_is_unknown_in_them_where_it_is_unknown_in_names(complaint):
    setting = 'header: "{{ file.part }} of {{ file.parts }}"\n    split: {bytes: 5KB}'
    told = complaint("csv", setting)
    assert "not known beforehand" in told


def test_control_records_survive_being_frozen():
    control = {
        "header": "H|{{ batch.id }}|{{ control.rows }}",
        "trailer": '{{ sum["Loan Amount"] }}',
        "sums": ["Loan Amount"],
        "decimal_mark": ",",
    }
    fields = [{"to": "Loan Amount", "from": "amount"}]
    file = {"name": "a.csv", "format": {"type": "csv"}, "control": control}
    batch = make_batch(files=[file], fields=fields)
    assert isinstance(batch.files[0].control, Control)
    assert batch == Batch.model_validate(batch.model_dump(mode="json"))
