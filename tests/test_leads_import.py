from __future__ import annotations

import csv
import json
import os
import re
import stat
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import func, select, text

from leadferry.errors import BatchConfigError, LeadImportError, StoreError
from leadferry.leads_import import records
from leadferry.leads_import.layout import Layout
from leadferry.leads_import.load import import_leads
from leadferry.leads_import.records import Bad, Found, read_records
from leadferry.leads_import.watch import Imports, import_folders, import_named_file, read_imports
from leadferry.store.database import Database
from leadferry.store.tables import arrival, lead, lead_import

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def _store(postgres):
    postgres.ensure_database("store_import", template="template_leadferry")
    yield Database(postgres.url("store_import"))
    postgres.drop_database("store_import")


@pytest.fixture
def store(_store):
    """One store for this file, emptied before each test; leads are never deleted, only truncated by an owner."""
    with _store.transaction() as connection:
        # The store refuses to be emptied; this lets its owner do it all the same.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("TRUNCATE lead, lead_import, arrival RESTART IDENTITY CASCADE"))
    return _store


def stored(store: Database, flow: str = "f") -> list[dict[str, Any]]:
    with store.transaction() as connection:
        return list(connection.scalars(select(lead.c.fields).where(lead.c.flow == flow).order_by(lead.c.id)))


def column(store: Database, name: str) -> list[Any]:
    with store.transaction() as connection:
        return list(connection.scalars(select(lead.c[name]).order_by(lead.c.id)))


def count(store: Database, table: Any) -> int:
    with store.transaction() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def rejected(path: Path) -> list[tuple[int, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(int(row["line"]), row["reason"]) for row in csv.DictReader(file)]


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "leads.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- what is loaded ---------------------------------------------------------------------------------------------


def test_a_csv_files_lines_become_leads_in_their_order_with_the_cells_as_they_are(store, write):
    path = write('first_name,zip,note\nAnn, 01234 ,"say ""hi"", \\ and\ttab"\nBob,,\n\nÉve,5,"two\nlines"\n')

    result = import_leads(store, path, flow="f")

    assert (result.loaded, result.rejected, result.duplicates) == (3, 0, 0)
    assert stored(store) == [
        {"first_name": "Ann", "zip": " 01234 ", "note": 'say "hi", \\ and\ttab'},
        {"first_name": "Bob", "zip": "", "note": ""},
        {"first_name": "Éve", "zip": "5", "note": "two\nlines"},
    ]
    assert str(result) == "3 leads loaded into flow f, 0 rejected"
    assert not list(path.parent.glob("*reject*"))


def test_new_leads_are_offered_to_the_queues(store, write):
    import_leads(store, write("a\n1\n2\n"), flow="f")

    assert count(store, arrival) == 2


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_and_line_end_are_found_out(tmp_path, delimiter, line_end):
    path = tmp_path / "leads.csv"
    rows = [["name", "text"], ["Ann", "a, b; c"], ["Bob", "x"]]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=line_end).writerows(rows)

    found = list(read_records(path, Layout()))

    assert [json.loads(one.fields) for one in found] == [
        {"name": "Ann", "text": "a, b; c"},
        {"name": "Bob", "text": "x"},
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_byte_order_mark_tells_the_encoding(store, write, encoding):
    said = "utf-16-le" if encoding == "utf-16-le" else None
    path = write("näme\nZoë\n".encode(encoding))

    import_leads(store, path, flow="f", layout=Layout(encoding=said))

    assert stored(store) == [{"näme": "Zoë"}]


def test_another_encoding_must_be_said(store, write):
    path = write("name\nAnn\nZoë\n".encode("cp1252"))

    with pytest.raises(LeadImportError, match=r"leads\.csv is not utf-8: line 3 .*--encoding cp1252"):
        import_leads(store, path, flow="f")
    assert count(store, lead_import) == 0

    import_leads(store, path, flow="f", layout=Layout(encoding="cp1252"))
    assert stored(store)[1] == {"name": "Zoë"}


def test_a_file_that_ends_within_a_character_is_refused_as_a_whole(store, write):
    with pytest.raises(LeadImportError, match="not in the encoding"):
        import_leads(store, write("name\nZoë".encode()[:-1]), flow="f")
    assert stored(store) == []


def test_columns_get_other_names(store, write):
    path = write("First Name,Zip\nAnn,1\n")

    import_leads(store, path, flow="f", layout=Layout(names={"First Name": "first_name"}))

    assert stored(store) == [{"first_name": "Ann", "Zip": "1"}]


def test_ndjson_values_keep_their_types_and_exact_numbers(store, write):
    lines = [
        '{"price": 1.10, "big": 12345678901234567890.5, "n": null, "t": true, "l": [1, {"a": "\\u00e9\\\\u0000"}]}',
        " ",
        "{}",
    ]
    path = write("\n".join(lines), "leads.ndjson")

    result = import_leads(store, path, flow="f")

    assert result.loaded == 2
    with store.transaction() as connection:
        shown = connection.scalars(text("SELECT fields::text FROM lead ORDER BY id")).all()
    assert '"price": 1.10' in shown[0]
    assert "12345678901234567890.5" in shown[0]
    assert stored(store)[0]["l"] == [1, {"a": "é\\u0000"}]
    assert stored(store)[1] == {}


def test_ndjson_keys_get_other_names_and_numbers_stay_exact(store, write):
    path = write('{"a": 1.10, "b": "x"}\n{}\n{"c": 2}\n{"a": 1, "z": 2}\n', "leads.jsonl")

    result = import_leads(store, path, flow="f", layout=Layout(names={"a": "z"}))

    assert stored(store) == [{"z": 1.1, "b": "x"}, {}, {"c": 2}]
    assert rejected(result.rejects_file) == [(4, "two fields get the same name")]


def test_xlsx_cells_become_values_that_rules_and_files_can_use(store, tmp_path):
    book = openpyxl.Workbook()
    page = book.active
    page.append(["name", "zip", "born", "called", "n", "ok"])
    page.append(["Ann", "01234", date(2000, 1, 31), datetime(2026, 1, 31, 9, 30), 5.0, True])  # noqa: DTZ001
    page.append([None, None, None, None, 2.5, False])
    page.append([])
    page.append(["Bob"])
    page.append(["Eve", 1, 2, 3, 4, 5, "too much"])
    path = tmp_path / "leads.xlsx"
    book.save(path)

    result = import_leads(store, path, flow="f")

    assert stored(store) == [
        {
            "name": "Ann",
            "zip": "01234",
            "born": "2000-01-31",
            "called": "2026-01-31T09:30:00",
            "n": 5,
            "ok": True,
        },
        {"name": "", "zip": "", "born": "", "called": "", "n": 2.5, "ok": False},
        {"name": "Bob", "zip": "", "born": "", "called": "", "n": "", "ok": ""},
    ]
    assert rejected(result.rejects_file) == [(6, "7 columns instead of 6")]


def test_a_sheet_is_chosen_by_its_name(store, tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["no"])
    other = book.create_sheet("Leads")
    other.append(["a"])
    other.append([1])
    path = tmp_path / "leads.xlsx"
    book.save(path)

    with pytest.raises(LeadImportError, match=r"no sheet 'Lead'.*Sheet, Leads"):
        import_leads(store, path, flow="f", layout=Layout(sheet="Lead"))
    import_leads(store, path, flow="f", layout=Layout(sheet="Leads"))

    assert stored(store) == [{"a": 1}]


# --- the time of arrival ----------------------------------------------------------------------------------------


def test_the_time_of_arrival_comes_from_a_column_in_the_said_zone(store, write):
    path = write(
        "at\n2026-07-01T09:00\n2026-07-01T09:00:00Z\n2026-07-01\n\nyesterday\n2026-02-30\n0001-01-01\n"
    )

    result = import_leads(store, path, flow="f", layout=Layout(received_at="at", timezone="America/New_York"))

    assert column(store, "received_at") == [
        datetime(2026, 7, 1, 13, tzinfo=UTC),
        datetime(2026, 7, 1, 9, tzinfo=UTC),
        datetime(2026, 7, 1, 4, tzinfo=UTC),
        datetime(1, 1, 1, 4, 56, 2, tzinfo=UTC),
    ]
    assert rejected(result.rejects_file) == [
        (6, "the time of arrival is missing or not ISO 8601"),
        (7, "the time of arrival is missing or not ISO 8601"),
    ]


def test_the_time_of_arrival_may_have_a_form_of_its_own(store, write):
    layout = Layout(received_at="at", received_format="%m/%d/%Y %H:%M")

    result = import_leads(
        store, write("at,a\n01/31/2026 23:59,1\n31/01/2026 10:00,2\n"), flow="f", layout=layout
    )

    assert column(store, "received_at") == [datetime(2026, 1, 31, 23, 59, tzinfo=UTC)]
    assert rejected(result.rejects_file) == [(3, "the time of arrival is missing or not %m/%d/%Y %H:%M")]


def test_without_such_a_column_leads_arrive_at_the_import(store, write):
    import_leads(store, write("a\n1\n2\n"), flow="f")

    with store.transaction() as connection:
        ages = connection.scalars(text("SELECT now() - received_at < interval '5 minutes' FROM lead")).all()
    assert ages == [True, True]


# --- bad lines --------------------------------------------------------------------------------------------------


def test_a_bad_line_is_named_and_the_rest_is_loaded(store, write):
    path = write("a,b\n1,2\nonly\n3,4\n5,6,7\nx\x00,8\n9,10\n")

    result = import_leads(store, path, flow="f")

    assert stored(store) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "9", "b": "10"}]
    assert rejected(result.rejects_file) == [
        (3, "1 columns instead of 2"),
        (5, "3 columns instead of 2"),
        (6, "holds a NUL character"),
    ]
    assert result.rejects_file == path.with_name("leads.csv.rejects.csv")
    assert stat.S_IMODE(result.rejects_file.stat().st_mode) == 0o600
    assert "only" in result.rejects_file.read_text()


@pytest.mark.parametrize(
    ("lines", "good", "bad"),
    [
        (['1,"never closed', "2,x", "3,y"], [2, 3], [2]),
        (['1,"never closed', "2,x", '3,"y"', "4,z"], [2, 3, 4], [2]),
        (['1,"5" pipe"', "2,x"], [2], [2]),
        (['1,"cut', 'through" here"', "2,x"], [2], [2, 3]),
        (["1,x", '2,"'], [1], [3]),
        (['1,a 5" pipe', "2,x"], [1, 2], []),
        (['1,"two', 'lines"', "2,x"], [1, 2], []),
    ],
)
def test_a_stray_quote_costs_only_its_own_lines(write, lines, good, bad):
    found = list(read_records(write("\n".join(["n,text", *lines, ""])), Layout()))

    assert [int(json.loads(one.fields)["n"]) for one in found if isinstance(one, Found)] == good
    assert [one.line for one in found if isinstance(one, Bad)] == bad


def test_thousands_of_lines_behind_an_open_quote_are_not_lost(write):
    lines = ['0,"open', *(f"{number},{'x' * 50}" for number in range(1, 10_000))]

    found = list(read_records(write("\n".join(["n,text", *lines])), Layout()))

    assert [one.line for one in found if isinstance(one, Bad)] == [2]
    assert len(found) == 10_000


def test_a_line_longer_than_any_lead_is_passed_over(write, monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD", 100)
    for name, head, good in (("a.csv", "a\n", "1"), ("a.ndjson", "", '{"a": 1}')):
        path = write(f"{head}{good}\n{'z' * 1000}\n{good}\n", name)

        found = list(read_records(path, Layout()))

        assert [type(one) for one in found] == [Found, Bad, Found]
        assert len(found[1].record) <= 102
        assert found[2].line == found[1].line + 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ('{"a": 1} x', "is not JSON"),
        ("[1]", "is JSON, but not an object"),
        ('"a"', "is JSON, but not an object"),
        ("null", "is JSON, but not an object"),
        ('{"a": NaN}', "NaN and Infinity"),
        ('{"a": -Infinity}', "NaN and Infinity"),
        ('{"a": 1e99999999}', "too large or too small"),
        ('{"a": 1e-20000}', "too large or too small"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"a": "x\\u0000y"}', "NUL"),
        ('{"\\u0000": 1}', "NUL"),
        ('{"a": "\\ud800"}', "lone surrogate"),
        ('{"a": "\x01"}', "is not JSON"),
        ("{" * 1500, "more than 1,000 lists"),
        ('{"a":' * 900 + "1" + "}" * 900, None),
        ('{"a": 1e400}', None),
        ('{"a": 1e-400, "b": 123.456e12}', None),
        ('{"a": "\\ud83d\\ude00 \\\\u0000 \x7f \u2028"}', None),
        ('{"a": 1, "a": 2}', None),
    ],
)
def test_what_postgresql_cannot_hold_is_rejected_before_it_gets_there(store, write, line, reason):
    path = write(f'{line}\n{{"good": 1}}\n', "leads.ndjson")

    result = import_leads(store, path, flow="f")

    assert stored(store)[-1] == {"good": 1}
    assert result.loaded == (1 if reason else 2)
    if reason:
        [(number, said)] = rejected(result.rejects_file)
        assert number == 1
        assert reason in said


_cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(_cells, min_size=2, max_size=2).filter(any), min_size=1, max_size=5))
def test_whatever_stands_in_cells_arrives_unchanged(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["a", "b"], *rows])

    assert [json.loads(one.fields) for one in read_records(path, Layout())] == [
        {"a": a, "b": b} for a, b in rows
    ]


@settings(max_examples=150, deadline=None)
@given(content=st.text(st.sampled_from('ab,"\n\r \\\x00;'), max_size=40))
def test_no_text_makes_reading_raise_or_hang_and_every_line_is_accounted_for(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "noise.csv"
    path.write_bytes(b"h1,h2\n" + content.encode())

    found = list(read_records(path, Layout()))

    lines = [one.line for one in found]
    assert lines == sorted(set(lines))
    assert all("\x00" not in one.fields for one in found if isinstance(one, Found))


def test_rejects_quote_only_the_beginning_of_a_long_line(store, write):
    path = write("a,b\n" + "q" * 50_000 + "\n1,2\n")

    result = import_leads(store, path, flow="f")

    assert result.rejects_file.stat().st_size < 11_000


# --- once, and all or nothing -----------------------------------------------------------------------------------


def test_the_same_file_is_loaded_into_a_flow_once(store, write):
    path = write("a\n1\n")
    import_leads(store, path, flow="f")
    copy = path.with_name("another name.csv")
    copy.write_bytes(path.read_bytes())

    again = import_leads(store, copy, flow="f")
    other = import_leads(store, copy, flow="g")

    assert (again.loaded, other.loaded) == (0, 1)
    assert "another name.csv was imported into flow f on " in str(again)
    assert len(stored(store)) == 1


def test_two_imports_of_one_file_at_once_load_it_once(store, write):
    path = write("a\n" + "1\n" * 5000)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(import_leads(store, path, flow="f"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(result.loaded for result in results) == [0, 0, 5000]
    assert len(stored(store)) == 5000


def test_a_lead_whose_external_id_is_known_is_not_loaded_again(store, write):
    layout = Layout(external_id="id")
    import_leads(store, write("id,a\n1,x\n2,y\n", "one.csv"), flow="f", layout=layout)

    result = import_leads(
        store, write("id,a\n2,new\n3,z\n3,again\n 3 ,again\n", "two.csv"), flow="f", layout=layout
    )

    assert (result.loaded, result.duplicates, result.rejected) == (1, 3, 0)
    assert [fields["a"] for fields in stored(store)] == ["x", "y", "z"]
    assert column(store, "external_id") == ["1", "2", "3"]
    assert str(result) == "1 leads loaded into flow f, 0 rejected, 3 known already"
    assert import_leads(store, write("id\n1\n", "three.csv"), flow="g", layout=layout).loaded == 1


@pytest.mark.parametrize("value", ['""', "null", "true", "[1]", '"' + "x" * 501 + '"', "1.5"])
def test_an_id_that_tells_nothing_apart_is_rejected(store, write, value):
    path = write(f'{{"id": {value}}}\n{{"id": 7}}\n{{}}\n', "leads.ndjson")

    result = import_leads(store, path, flow="f", layout=Layout(external_id="id"))

    assert column(store, "external_id") == ["7"]
    assert [line for line, _ in rejected(result.rejects_file)] == [1, 3]


def test_ids_and_times_with_any_character_reach_the_store(store, write):
    odd = 'a\\N\tb"\u2028c'
    path = write(json.dumps({"id": odd}) + "\n", "leads.ndjson")

    import_leads(store, path, flow="f", layout=Layout(external_id="id"))

    assert column(store, "external_id") == [odd]


def test_nothing_is_loaded_when_the_file_changes_meanwhile(store, write):
    path = write("a\n" + "1\n" * 5000)

    def append(_: int) -> None:
        with path.open("a") as file:
            file.write("2\n")

    with pytest.raises(LeadImportError, match="changed while it was read"):
        import_leads(store, path, flow="f", progress=append)
    assert (count(store, lead), count(store, lead_import)) == (0, 0)


def test_nothing_is_loaded_and_no_half_rejects_file_stays_when_the_import_is_cut(store, write):
    path = write("a\nbad,line\n" + "1\n" * 5000)

    def cut(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_leads(store, path, flow="f", progress=cut)
    assert (count(store, lead), count(store, lead_import), count(store, arrival)) == (0, 0, 0)
    assert [one.name for one in path.parent.iterdir()] == ["leads.csv"]
    assert import_leads(store, path, flow="f").loaded == 5000


def test_a_database_that_goes_away_leaves_nothing_behind(store, write):
    path = write("a\n" + "1\n" * 20_000)
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY staged_lead%'"
        " AND datname = current_database()"
    )

    def terminate(read: int) -> None:
        if read == 2000:
            with store.engine.begin() as connection:
                assert connection.scalars(kill).all() == [True]

    with pytest.raises(StoreError):
        import_leads(store, path, flow="f", progress=terminate)
    assert (count(store, lead), count(store, lead_import)) == (0, 0)


def test_an_import_that_loads_nothing_is_not_remembered(store, write):
    path = write("at\n01/31/2026\n")
    first = import_leads(store, path, flow="f", layout=Layout(received_at="at"))

    second = import_leads(store, path, flow="f", layout=Layout(received_at="at", received_format="%m/%d/%Y"))

    assert (first.loaded, first.rejected, first.ok) == (0, 1, False)
    assert second.loaded == 1


def test_a_dry_run_loads_nothing_and_tells_the_rest(store, write):
    path = write("a,b\n1,2\n3\n")

    result = import_leads(store, path, flow="f", dry_run=True)

    assert str(result) == "1 leads would be loaded into flow f, 1 rejected"
    assert result.rejects_file.exists()
    assert (count(store, lead), count(store, lead_import)) == (0, 0)


def test_the_import_is_on_record(store, write):
    import_leads(store, write("id,a\n1,x\n1,y\nz\n"), flow="f", layout=Layout(external_id="id"))

    with store.transaction() as connection:
        row = connection.execute(select(lead_import)).one()._asdict()
    assert {key: row[key] for key in ("flow", "file_name", "rows", "rejected", "duplicates")} == {
        "flow": "f",
        "file_name": "leads.csv",
        "rows": 1,
        "rejected": 1,
        "duplicates": 1,
    }
    assert column(store, "import_id") == [row["id"]]


# --- files that cannot be read at all ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "layout", "message"),
    [
        ("a.csv", "", {}, "empty"),
        ("a.csv", "\n\n", {}, "empty"),
        ("a.csv", "a,,b\n", {}, "Column 2 has no name"),
        ("a.csv", "a,a\n", {}, "Two columns have the name 'a'"),
        ("a.csv", "a,b\n", {"names": {"a": "b"}}, "Two columns have the name 'b'"),
        ("a.csv", "email\n", {"external_id": "emial"}, "no column 'emial'.*Did you mean 'email'"),
        ("a.csv", "email\n", {"names": {"x": "y"}}, "no column 'x'.*There is email"),
        ("a.csv", '"a\n', {}, "Line 1 should name the columns"),
        ("a.doc", "a\n", {}, "ending of a.doc.*--type"),
        ("a.xlsx", "no zip", {}, "not a readable XLSX file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(store, write, name, content, layout, message):  # noqa: PLR0913, PLR0917
    with pytest.raises(LeadImportError, match=message):
        import_leads(store, write(content, name), flow="f", layout=Layout.model_validate(layout))
    assert count(store, lead_import) == 0


def test_an_empty_sheet_says_so(store, tmp_path):
    openpyxl.Workbook().save(tmp_path / "a.xlsx")

    with pytest.raises(LeadImportError, match="sheet is empty"):
        import_leads(store, tmp_path / "a.xlsx", flow="f")


def test_a_missing_file_and_an_unnamed_flow_say_so(store, tmp_path, write):
    with pytest.raises(LeadImportError, match=r"no\.csv: No such file"):
        import_leads(store, tmp_path / "no.csv", flow="f")
    with pytest.raises(LeadImportError, match="flow has no name"):
        import_leads(store, write("a\n1\n"), flow=" ")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"encoding": "utf-9"}, "no encoding 'utf-9'"),
        ({"delimiter": ",,"}, "one character"),
        ({"timezone": "New York"}, "no time zone"),
        ({"timezone": "../etc/passwd"}, "no time zone"),
        ({"received_format": "%Y"}, "needs received_at"),
        ({"type": "xls"}, "'csv', 'ndjson' or 'xlsx'"),
        ({"sheeet": "x"}, "Extra inputs"),
    ],
)
def test_a_layout_that_cannot_be_meant_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Layout.model_validate(keys)


def test_a_layout_survives_json():
    layout = Layout(names={"a": "b"}, delimiter="tab", received_at="x", received_format="%Y")

    assert Layout.model_validate(layout.model_dump(mode="json")) == layout
    assert layout.delimiter == "\t"


def test_errors_hold_nothing_of_a_lead(store, write):
    secret = "carla.secret@example.com"
    path = write(f"a,b\n{secret},1\n{secret}\n" + f"x{secret}y,".encode("utf-16").decode("latin-1"))

    result = import_leads(store, path, flow="f")

    assert secret not in str(result)
    assert secret not in repr(result)
    assert all(secret not in reason for _, reason in rejected(result.rejects_file))


def test_memory_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    peaks = []
    for lines in (5_000, 50_000):
        path = tmp_path / f"{lines}.csv"
        path.write_text("a,b,c\n" + "some text,more text,12345\n" * lines)
        tracemalloc.start()
        for _ in read_records(path, Layout()):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < peaks[0] * 1.2


def test_the_rejects_file_never_stands_open_to_others_even_with_an_open_umask(store, write):
    before = os.umask(0)
    try:
        result = import_leads(store, write("a,b\n1\n2,3\n"), flow="f")
    finally:
        os.umask(before)

    assert stat.S_IMODE(result.rejects_file.stat().st_mode) == 0o600


# --- watched folders --------------------------------------------------------------------------------------------


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def look(store: Database, inbox: Path, *, seconds_later: int = 3600, **keys: Any):
    """Look into the folder as if so many seconds had passed since something changed in it."""
    folder = {"folder": "inbox", "flow": "f", **keys}
    imports = Imports.model_validate({"folders": [folder]})
    changed = max(one.stat().st_ctime for one in [inbox, *inbox.rglob("*")])
    now = datetime.fromtimestamp(changed, tz=UTC) + timedelta(seconds=seconds_later)
    return import_folders(store, imports, project=inbox.parent, now=now)


def names(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def test_files_are_imported_and_moved_out_of_the_way(store, inbox):
    (inbox / "a.csv").write_text("n\n1\n")
    (inbox / "b.csv").write_text("n\n2\n3\n4,5\n")
    (inbox / "notes.txt").write_text("n\n")

    report = look(store, inbox)

    assert report.counts == {
        "files": 2, "loaded": 3, "rejected": 1, "duplicates": 0, "known": 0, "waiting": 0, "failed": 0,
    }  # fmt: skip
    assert names(inbox) == ["done/a.csv", "done/b.csv", "done/b.csv.rejects.csv", "notes.txt"]
    assert look(store, inbox).counts["files"] == 0


def test_a_file_that_is_still_being_written_is_left_alone(store, inbox):
    (inbox / "a.csv").write_text("n\n1\n")

    assert look(store, inbox, seconds_later=30, quiet_seconds=60).waiting == 1
    assert names(inbox) == ["a.csv"]
    assert look(store, inbox, seconds_later=90, quiet_seconds=60).loaded == 1


def test_an_old_modification_time_does_not_make_a_file_complete(store, inbox):
    (inbox / "a.csv").write_text("n\n1\n")
    os.utime(inbox / "a.csv", (0, 0))

    assert look(store, inbox, seconds_later=30).waiting == 1


@pytest.mark.parametrize("name", [".a.csv", "~$a.csv", "a.csv.part", "a.csv.rejects.csv", "a.tmp"])
def test_files_of_other_programs_are_not_leads(store, inbox, name):
    (inbox / name).write_text("n\n1\n")

    assert look(store, inbox, pattern="*").counts == dict.fromkeys(look(store, inbox).counts, 0)


def test_a_file_that_cannot_be_read_goes_to_failed_and_stops_no_other(store, inbox, caplog):
    (inbox / "a.csv").write_bytes(b"name\nsecret\xff\n")
    (inbox / "b.csv").write_text("at\nsecret\n")
    (inbox / "c.csv").write_text("at\n2026-01-31\n")

    report = look(store, inbox, layout={"received_at": "at"})

    assert (report.failed, report.loaded) == (2, 1)
    assert names(inbox) == ["done/c.csv", "failed/a.csv", "failed/b.csv", "failed/b.csv.rejects.csv"]
    assert "a.csv is not utf-8: line 2" in caplog.text
    assert "secret" not in caplog.text
    with pytest.raises(LeadImportError, match="2 files or folders could not be read, 2 others"):
        report.require_readable()


def test_a_missing_folder_stops_no_other(store, inbox):
    (inbox / "a.csv").write_text("n\n1\n")
    imports = Imports.model_validate(
        {"folders": [{"folder": "no", "flow": "f"}, {"folder": str(inbox), "flow": "f"}]}
    )

    report = import_folders(
        store, imports, project=inbox.parent, now=datetime.now(tz=UTC) + timedelta(hours=1)
    )

    assert (report.failed, report.loaded) == (1, 1)


def test_what_was_imported_but_not_moved_before_a_crash_is_only_moved(store, inbox):
    (inbox / "a.csv").write_text("n\n1\n")
    import_leads(store, inbox / "a.csv", flow="f")

    report = look(store, inbox)

    assert (report.known, report.loaded) == (1, 0)
    assert names(inbox) == ["done/a.csv"]
    assert len(stored(store)) == 1


def test_a_second_file_of_the_same_name_keeps_its_own(store, inbox):
    for content in ("n\n1\n", "n\n2\n"):
        (inbox / "a.csv").write_text(content)
        look(store, inbox)

    assert names(inbox) == ["done/a-2.csv", "done/a.csv"]


def test_files_that_are_kept_are_known_the_next_time(store, inbox):
    (inbox / "a.csv").write_text("n\n1\n")

    reports = [look(store, inbox, done="keep") for _ in range(2)]

    assert [(report.loaded, report.known) for report in reports] == [(1, 0), (0, 1)]
    assert names(inbox) == ["a.csv"]


def test_a_named_file_needs_its_flow_and_stays_where_it_is(store, write):
    path = write("n\n1\n")

    assert import_named_file(store, path=str(path), flow="f").loaded == 1
    assert path.exists()
    with pytest.raises(LeadImportError, match="both its path and its flow"):
        import_named_file(store, path=str(path), flow=None)


def test_without_the_file_nothing_is_watched(tmp_path):
    assert read_imports(tmp_path) == Imports(every_minutes=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("folders: [", r"config/imports.yaml:1: this is not YAML"),
        ("folders: [{folder: x}]", r"folders\.0\.flow: Field required"),
        ("folders: [{folder: x, flow: f, pattern: '../*'}]", r"folders\.0\.pattern"),
        (
            "folders: [{folder: x, flow: f, layout: {timezone: Mars}}]",
            r"folders\.0\.layout\.timezone: .*no time zone",
        ),
        ("every_minutes: 0", "every_minutes"),
        ("- x", "valid dictionary"),
    ],
)
def test_a_broken_imports_file_says_where(tmp_path, content, message):
    (tmp_path / "imports.yaml").write_text(content)

    with pytest.raises(BatchConfigError, match=message):
        read_imports(tmp_path)


def test_imports_survive_json():
    imports = Imports.model_validate(
        {"folders": [{"folder": "x", "flow": "f", "layout": {"delimiter": ";"}}]}
    )

    assert Imports.model_validate(imports.model_dump(mode="json")) == imports


_RUN_THE_TASK = """
import json, sys
from airflow.sdk.exceptions import AirflowFailException
from import_leads import import_leads_dag as dag
run = dag.get_task("import_files").python_callable
answers = [str(dag.timetable_summary if hasattr(dag, "timetable_summary") else dag.schedule)]
for params in json.loads(sys.argv[1]):
    try:
        answers.append(run(params=params))
    except AirflowFailException as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def test_the_dags_task_imports_and_returns_counts_only(store_url, database, tmp_path):
    config = tmp_path / "config"
    config.mkdir()
    (config / "imports.yaml").write_text("folders: [{folder: inbox, flow: f, quiet_seconds: 0}]")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.csv").write_text("n\n1\n")
    (tmp_path / "by_hand.csv").write_text("n\n2\n")
    runs = [{"path": None, "flow": None}, {"path": str(tmp_path / "by_hand.csv"), "flow": "g"}, {"path": "x"}]
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW_CONN_LEADFERRY": store_url,
        "LEADFERRY_CONFIG": str(config),
        "PYTHONPATH": str(PROJECT / "dags"),
    }
    environment.pop("AIRFLOW__CORE__DAGS_FOLDER", None)

    done = subprocess.run(
        [sys.executable, "-c", _RUN_THE_TASK, json.dumps(runs)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    schedule, watched, by_hand, refused = json.loads(done.stdout.splitlines()[-1])
    assert schedule == "0:05:00"
    assert (watched["loaded"], watched["failed"], by_hand["loaded"]) == (1, 0, 1)
    assert refused.startswith("import: A file that is imported by hand needs both")
    assert [stored(database, flow) for flow in "fg"] == [[{"n": "1"}], [{"n": "2"}]]


# --- the how-to page --------------------------------------------------------------------------------------------

PAGE = (PROJECT / "docs" / "how-to" / "bring-leads-in.md").read_text(encoding="utf-8")


def test_the_pages_sql_stores_a_lead_once(store):
    [statement] = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    for _ in range(2):
        with store.transaction() as connection:
            connection.exec_driver_sql(statement)

    assert [fields["zip"] for fields in stored(store, "education")] == ["01234"]
    assert count(store, arrival) == 1


def test_the_pages_imports_file_is_valid_and_shows_every_key(tmp_path):
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "imports.yaml").write_text(block)

    [folder] = read_imports(tmp_path).folders

    assert folder.layout.names == {"First Name": "first_name"}
    assert set(type(folder).model_fields) <= set(re.findall(r"[a-z_]+", block))


@pytest.mark.parametrize(
    "option", ["--map", "--id-column", "--received-column", "--dry-run", "--rejects", "--sheet"]
)
def test_the_page_tells_every_option(option):
    assert option in PAGE
