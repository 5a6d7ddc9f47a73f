"""Parquet: the contract, types, compression, row groups, and what fails."""

import errno
import io
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from pydantic import ValidationError

from contracts.format_contract import TYPED, FormatContract, context, frame, nasty, written
from leadferry.errors import RenderError
from leadferry.formats.parquet import Parquet

NEEDS_PYARROW = "the reader of others for Parquet: pip install pyarrow"


class TestParquetContract(FormatContract):
    @pytest.fixture
    def written_by(self):
        return Parquet()

    def read(self, data):
        return pl.read_parquet(io.BytesIO(data)).to_dicts()


@pytest.fixture
def pyarrow_parquet():
    return pytest.importorskip("pyarrow.parquet", reason=NEEDS_PYARROW)


@pytest.mark.req("F52")
def test_pyarrow_reads_the_same_records(pyarrow_parquet):
    table = pyarrow_parquet.read_table(io.BytesIO(written(Parquet(), nasty())))
    assert table.to_pylist() == nasty().to_dicts()


@pytest.mark.req("F52")
def test_pyarrow_sees_the_types_that_the_fields_have(pyarrow_parquet):
    table = pyarrow_parquet.read_table(io.BytesIO(written(Parquet(), TYPED)))
    first = table.to_pylist()[0]
    assert {name: first[name] for name in ("whole", "fraction", "money", "yes", "day", "moment")} == {
        "whole": 1,
        "fraction": 1.5,
        "money": Decimal("12.30"),
        "yes": True,
        "day": date(2026, 1, 31),
        "moment": datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    }
    assert str(table.schema.field("moment").type) == "timestamp[us, tz=UTC]"
    assert all(value is None for name, value in table.to_pylist()[1].items() if name != "id")


@pytest.mark.req("F52")
@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "lz4", "brotli", "uncompressed"])
def test_pages_are_compressed_as_the_batch_file_says(pyarrow_parquet, compression):
    file = pyarrow_parquet.ParquetFile(io.BytesIO(written(Parquet(compression=compression), nasty())))
    assert file.metadata.row_group(0).column(1).compression.lower() == compression
    assert file.read().num_rows == nasty().height


def test_row_groups_have_one_size_however_the_leads_come():
    leads = frame(id=[str(number) for number in range(2_500)])
    small = Parquet(row_group=1000)
    data = written(small, leads[:1], leads[1:1_700], leads[1_700:])
    assert data == written(small, leads)
    assert pl.read_parquet(io.BytesIO(data)).equals(leads)
    pyarrow_parquet = pytest.importorskip("pyarrow.parquet", reason=NEEDS_PYARROW)
    metadata = pyarrow_parquet.ParquetFile(io.BytesIO(data)).metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [
        1000,
        1000,
        500,
    ]


def test_the_first_leads_decide_a_columns_type_and_what_does_not_fit_fails_without_the_value():
    leads = [
        frame(id=["1"]).with_columns(n=pl.lit(1, dtype=pl.Int64)),
        frame(id=["2", "3"]).with_columns(n=pl.lit("SECRET")),
    ]
    with pytest.raises(RenderError, match="2 values of column 'n' are not of the type Int64") as failed:
        written(Parquet(), *leads)
    assert "SECRET" not in str(failed.value)
    whole = [leads[0], leads[1].with_columns(n=pl.lit("7"))]
    assert pl.read_parquet(io.BytesIO(written(Parquet(), *whole)))["n"].to_list() == [1, 7, 7]


def test_a_full_disk_is_told_as_what_it_is():
    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    leads = frame(a=["1"])
    with pytest.raises(OSError, match="No space left") as failed:
        Parquet().write([leads], Full(), context(leads))
    assert failed.value.errno == errno.ENOSPC


@pytest.mark.parametrize("wrong", [{"compression": "lzo"}, {"row_group": 0}, {"compression": None}])
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValidationError):
        Parquet(**wrong)
