"""What every file format promises, whatever it is: a subclass says how the format is read back, by a reader of others."""

import io
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from pydantic import TypeAdapter

from leadferry.errors import RenderError, StoreUnavailableError
from leadferry.formats import Format
from leadferry.formats.base import FileContext

VARIABLES = {
    "batch": {"id": "acme_auto", "name": "Acme Auto", "description": ""},
    "recipient": {"id": "acme", "name": "Acme", "timezone": "UTC", "locale": "en_US"},
    "delivery": {"id": "d-7", "number": 7, "date": "2026-01-31"},
    "lead": {"count": 999},
    "file": {"id": "leads", "name": "leads", "part": 1, "parts": 1},
}

NASTY = [
    "plain",
    'a "quoted" word, and ""',
    '"',
    "'single'",
    "comma, semicolon; tab\t pipe| end",
    "line\nfeed",
    "crlf\r\nbreak",
    "02138",
    "1E5",
    "+44 7700 900123",
    "+447700900123",
    "-5",
    "-1,234.50",
    "=1+1",
    "@SUM(A1:A9)",
    "+1+cmd|' /C calc'!A0",
    "José Ñandú Straße",
    "Łódź Ελλάς Киев 日本語",
    "שלום العربية",
    "👩‍👩‍👧 😀",
    "e\u0301 combining",
    "  spaces  ",
    "NULL",
    "NaN",
    "true",
    "#N/A",
    "&amp; <b>bold</b> ]]>",
    "back\\slash \\n",
    "\u00a0 no-break \u2028 separator",
    "x" * 30_000,
    None,
    "",
]


def frame(**named):
    """A frame of text columns."""
    return pl.DataFrame(named, schema=dict.fromkeys(named, pl.String))


def nasty():
    return frame(id=[f"{number:03}" for number in range(len(NASTY))], value=NASTY)


def context(*frames, **more):
    return FileContext(
        columns=frames[0].columns, rows=sum(one.height for one in frames), **{"variables": VARIABLES} | more
    )


def written(written_by, *frames, **more):
    """The file's bytes, through a stream that can only be written to."""
    out = io.BytesIO()
    written_by.write(iter(frames), _OnlyWritable(out), context(*frames, **more))
    return out.getvalue()


class _OnlyWritable(io.RawIOBase):
    def __init__(self, inner):
        self._inner = inner

    def writable(self):
        return True

    def write(self, data):
        return self._inner.write(data)


CHILD = """
import hashlib, json, sys
import polars as pl
from pydantic import TypeAdapter
from leadferry.formats import Format
from leadferry.formats.base import FileContext

model, variables, sizes = json.loads(sys.argv[1])
written_by = TypeAdapter(Format).validate_python(model)

class Out:
    def __init__(self): self.sha = hashlib.sha256()
    def write(self, data): self.sha.update(data)
    def writelines(self, parts):
        for part in parts: self.write(part)

def frames(rows):
    for start in range(0, rows, 5000):
        ids = range(start, min(start + 5000, rows))
        yield pl.DataFrame({f"field_{n}": [f"value {n} of lead {i}" for i in ids] for n in range(13)})

def peak_mb():
    # Not getrusage: its peak begins with that of the process that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

for rows in sizes:
    out = Out()
    names = [f"field_{n}" for n in range(13)]
    written_by.write(frames(rows), out, FileContext(columns=names, rows=rows, variables=variables))
    print(json.dumps({"sha": out.sha.hexdigest(), "peak_mb": peak_mb()}))
"""


def in_child(written_by, *sizes, hash_seed):
    """Write files of so many generated leads in a process of their own; return hash and peak memory after each."""
    asked = json.dumps([written_by.model_dump(mode="json"), VARIABLES, sizes])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, asked],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


class FormatContract:
    """Subclass as `TestXxxContract` with a fixture `written_by` and these two."""

    def read(self, data):
        """Records of the file, as a list of dicts."""
        raise NotImplementedError

    def expected(self, value):
        """What a value reads back as."""
        return value

    def expect(self, *frames):
        return [
            {name: self.expected(value) for name, value in row.items()}
            for one in frames
            for row in one.iter_rows(named=True)
        ]

    @pytest.mark.req("F13")
    def test_nasty_values_read_back_as_the_same_records(self, written_by):
        assert self.read(written(written_by, nasty())) == self.expect(nasty())

    def test_the_same_leads_give_the_same_bytes_again(self, written_by):
        assert written(written_by, nasty()) == written(written_by, nasty())

    def test_another_process_with_another_hash_seed_writes_the_same_bytes(self, written_by):
        one, other = (in_child(written_by, 500, hash_seed=seed)[0]["sha"] for seed in ("1", "4242"))
        assert one == other

    def test_several_frames_give_the_bytes_of_one(self, written_by):
        whole = nasty()
        parts = [whole[:1], whole[1:7], whole[7:7], whole[7:]]
        assert written(written_by, *parts) == written(written_by, whole)

    def test_a_first_frame_without_leads_changes_nothing(self, written_by):
        assert written(written_by, nasty().clear(), nasty()) == written(written_by, nasty())

    def test_no_leads_make_a_complete_file_without_records(self, written_by):
        assert self.read(written(written_by, nasty().clear())) == []

    def test_columns_come_in_the_order_of_the_context(self, written_by):
        leads = frame(b=["2"], a=["1"])
        out = io.BytesIO()
        written_by.write([leads], out, FileContext(columns=["a", "b"], rows=1, variables=VARIABLES))
        assert [list(record) for record in self.read(out.getvalue())] == [["a", "b"]]

    @pytest.mark.req("F58")
    @pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="needs Linux, which tells a process's peak"
    )
    def test_memory_does_not_grow_with_the_leads(self, written_by):
        """One million cells, then three: a format that gathers them would need at least 40 MB more for the second."""
        small, large = in_child(written_by, 77_000, 231_000, hash_seed="0")
        assert small["peak_mb"] < 200
        assert large["peak_mb"] - small["peak_mb"] < 40

    def test_a_missing_or_surplus_lead_fails_the_file(self, written_by):
        for rows in (0, 2):
            with pytest.raises(RenderError, match=rf"should hold {rows} leads, but 1 came"):
                written_by.write(
                    [frame(a=["1"])], io.BytesIO(), FileContext(columns=["a"], rows=rows, variables=VARIABLES)
                )

    def test_an_error_of_whoever_brings_the_leads_comes_through(self, written_by):
        def frames():
            yield frame(a=["1"] * 200)
            raise StoreUnavailableError("the connection was cut")

        with pytest.raises(StoreUnavailableError):
            written_by.write(
                frames(), io.BytesIO(), FileContext(columns=["a"], rows=400, variables=VARIABLES)
            )

    def test_columns_of_other_types_than_text_are_written(self, written_by):
        assert len(self.read(written(written_by, TYPED))) == 2

    def test_the_model_survives_being_frozen_as_json(self, written_by):
        again = TypeAdapter(Format).validate_python(
            json.loads(json.dumps(written_by.model_dump(mode="json")))
        )
        assert again == written_by

    def test_it_has_an_extension_a_media_type_and_a_page(self, written_by):
        assert "/" in written_by.media_type
        assert (Path(__file__).parents[2] / "docs/formats" / f"{written_by.extension}.md").is_file()


TYPED = pl.DataFrame(
    {
        "id": ["1", "2"],
        "whole": [1, None],
        "fraction": [1.5, None],
        "money": pl.Series([Decimal("12.30"), None], dtype=pl.Decimal(10, 2)),
        "yes": [True, None],
        "day": [date(2026, 1, 31), None],
        "moment": pl.Series(
            [datetime(2026, 1, 31, 12, 30, tzinfo=UTC), None], dtype=pl.Datetime("us", "UTC")
        ),
        "clock": [time(9, 30), None],
        "length": [timedelta(hours=3), None],
        "kind": pl.Series(["a", None], dtype=pl.Categorical),
        "bytes": [b"\x00\xff", None],
        "many": [["a", "b"], None],
        "inner": [{"x": 1, "y": "z"}, None],
        "nothing": pl.Series([None, None], dtype=pl.Null),
    }
)
