"""Control records through a whole delivery: counts, exact sums, parts, and values that are no numbers."""

from decimal import Decimal

import polars as pl
import pytest

from batches import add_leads, folder, make_batch
from leadferry.batch.files import OutputFile
from leadferry.delivery.control_records import ControlRecords
from leadferry.errors import RenderError
from leadferry.states import DeliveryState

AMOUNTS = ["0.10", "0.20", "1,234.56", "-5", " 7.000000001 "]
SUM = "1236.860000001"


@pytest.fixture
def inbox(tmp_path):
    return tmp_path / "inbox"


@pytest.fixture
def carry(ferry, inbox):
    def carry(control, *, amounts=AMOUNTS, name="leads.csv", form=None, **keys):
        for amount in amounts:
            add_leads(ferry.database, fields={"amount": amount})
        file = {"name": name, "format": {"type": "csv", **(form or {})}, "control": control, **keys}
        fields = [{"to": "Loan Amount", "from": "amount"}]
        ferry_batch = make_batch(files=[file], fields=fields, destinations=[folder(inbox)])
        settled = ferry.carry(ferry_batch)
        assert settled.state is DeliveryState.DELIVERED
        return {path.name: path.read_text().splitlines() for path in sorted(inbox.iterdir())}

    return carry


@pytest.mark.req("F16")
def test_counts_come_with_and_without_the_row_of_labels_and_the_records_themselves(carry):
    counts = "{{ control.leads }}|{{ control.rows }}|{{ control.all_rows }}"
    control = {"header": f"H|{{{{ batch.id }}}}|{{{{ delivery.date }}}}|{counts}", "trailer": f"T|{counts}"}
    lines = carry(control)["leads.csv"]
    assert lines[0] == "H|acme|2026-01-30|5|6|8"
    assert lines[-1] == "T|5|6|8"
    assert len(lines) == 8


@pytest.mark.req("F16")
def test_without_labels_and_with_one_record_the_counts_follow(carry):
    trailer = "{{ control.leads }}|{{ control.rows }}|{{ control.all_rows }}"
    lines = carry({"trailer": trailer}, form={"header": False})["leads.csv"]
    assert lines[-1] == "5|5|6"
    assert len(lines) == 6


@pytest.mark.req("F16")
def test_sums_are_exact(carry):
    lines = carry({"trailer": 'T|{{ sum["Loan Amount"] }}', "sums": ["Loan Amount"]})["leads.csv"]
    assert lines[-1] == f"T|{SUM}"


@pytest.mark.req("F16")
def test_each_part_has_its_own(carry):
    control = {
        "header": "H|{{ file.part }}|{{ control.leads }}|{{ lead.count }}",
        "trailer": 'T|{{ sum["Loan Amount"] }}',
        "sums": ["Loan Amount"],
    }
    parts = carry(
        control, amounts=["1.5", "2.5", "10"], name="{{ file.part }}.csv", split={"rows": 2, "bytes": "5KB"}
    )
    assert [(lines[0], lines[-1]) for lines in parts.values()] == [
        ("H|1|2|3", "T|4.0"),
        ("H|2|1|3", "T|10"),
    ]


@pytest.mark.req("F16")
def test_a_value_that_is_no_number_fails_before_anything_is_sent_and_is_not_told(carry, inbox):
    control = {"trailer": "{{ control.leads }}", "sums": ["Loan Amount"]}
    with pytest.raises(
        RenderError, match=r"'Loan Amount' cannot be added up.*2 values are no numbers"
    ) as told:
        carry(control, amounts=["1", "about 77", "1,2"])
    assert "77" not in str(told.value)
    assert not inbox.exists()


def test_a_template_may_round_and_write_it_as_it_likes(carry):
    trailer = "{{ '{:015.2f}'.format(sum['Loan Amount']) }}|{{ sum['Loan Amount'] | round(1) }}"
    lines = carry({"trailer": trailer, "sums": ["Loan Amount"]})["leads.csv"]
    assert lines[-1] == "000000001236.86|1236.9"


def added_up(values, *, dtype=None, **control):
    file = OutputFile.model_validate(
        {
            "name": "a.csv",
            "format": {"type": "csv"},
            "control": {"sums": ["n"], "trailer": "{{ sum.n }}", **control},
        }
    )
    frame = pl.DataFrame({"n": pl.Series(values, dtype=dtype)})
    records = ControlRecords(file, rows=frame.height, variables={})
    assert list(records.added_up([frame, frame.clear()])) != []
    return records.context(columns=["n"], rows=frame.height).last_line()


@pytest.mark.req("F16")
@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([], pl.String, "0"),
        ([None, "", "0.00"], pl.String, "0.00"),
        (["0.1"] * 10, pl.String, "1.0"),
        (["1234567890123456789012345678.01"] * 3, pl.String, "3703703670370370367037037034.03"),
        (["0.00000001"], pl.String, "0.00000001"),
        (["+1,000", "1,234,567.5"], pl.String, "1235567.5"),
        ([0.1, 0.2, None], pl.Float64, "0.3"),
        ([1e22, 1.0], pl.Float64, "10000000000000000000001.0"),
        ([1e-9], pl.Float64, "0.000000001"),
        ([2**62, 2**62], pl.Int64, "9223372036854775808"),
        ([Decimal("1.10"), Decimal("2.20")], pl.Decimal(20, 2), "3.30"),
    ],
)
def test_any_kind_of_number_is_added_up_to_the_last_digit(values, dtype, expected):
    assert added_up(values, dtype=dtype) == expected


@pytest.mark.parametrize("value", ["1.234,50", "1234,50"])
def test_numbers_with_a_decimal_comma_are_read_where_the_file_says_so(value):
    assert added_up([value], decimal_mark=",") == "1234.50"
    with pytest.raises(RenderError):
        added_up([value])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["1e5"], pl.String),
        (["$5"], pl.String),
        (["1 000"], pl.String),
        (["12,34"], pl.String),
        (["--5"], pl.String),
        (["٣"], pl.String),
        ([True], pl.Boolean),
        ([float("nan")], pl.Float64),
        ([float("inf")], pl.Float64),
        ([[1]], pl.List(pl.Int64)),
    ],
)
def test_what_is_no_plain_number_is_refused(values, dtype):
    with pytest.raises(RenderError, match="1 value is no number"):
        added_up(values, dtype=dtype)
