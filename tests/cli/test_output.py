"""How listings look in a terminal."""

import json

import pytest

from leadferry.cli.output import show

ROWS = [{"id": 1, "text": "x" * 50, "reason": None}, {"id": 2, "text": "[bold]y", "reason": "late"}]


def shown(capsys, monkeypatch, *, width, **keys):
    monkeypatch.setenv("COLUMNS", str(width))
    show(ROWS, title="Things", columns=["id", "text", "reason"], **{"as_json": False, **keys})
    return capsys.readouterr().out


def test_a_table_that_fits_has_one_line_per_row(capsys, monkeypatch):
    out = shown(capsys, monkeypatch, width=100)
    assert sum("x" * 50 in line for line in out.splitlines()) == 1
    assert "[bold]y" in out


def test_a_table_that_does_not_fit_is_told_line_by_line_and_nothing_is_cut(capsys, monkeypatch):
    out = shown(capsys, monkeypatch, width=60)
    assert "x" * 50 in out
    assert "late" in out
    assert "[bold]y" in out
    assert max(map(len, out.splitlines())) <= 60


@pytest.mark.parametrize("width", [20, 100])
def test_json_is_the_same_in_every_terminal(capsys, monkeypatch, width):
    assert json.loads(shown(capsys, monkeypatch, width=width, as_json=True)) == ROWS


def test_a_sentence_in_the_last_column_is_folded_between_words_where_that_makes_the_table_fit(
    capsys, monkeypatch
):
    rows = [{"id": 1, "note": "left out, because that day is a holiday in the calendar of the recipient"}]
    monkeypatch.setenv("COLUMNS", "60")

    show(rows, as_json=False, title="Days", columns=["id", "note"], prose=["note"])

    out = capsys.readouterr().out
    assert "1 ──" not in out
    assert "┃ id ┃ note" in out
    assert max(map(len, out.splitlines())) <= 60
    assert "calendar" in out


def test_a_column_of_sentences_that_would_be_too_narrow_is_not_folded(capsys, monkeypatch):
    out = shown(capsys, monkeypatch, width=60, prose=["reason"])
    assert "1 ──" in out


def test_a_narrow_terminal_gets_a_table_without_the_columns_that_can_be_done_without(capsys, monkeypatch):
    rows = [{"id": "a", "text": "x" * 50, "note": "y" * 30, "state": "well", "more": ""}]
    keys = {"as_json": False, "title": "Things", "columns": list(rows[0]), "spare": ["more", "text", "note"]}
    monkeypatch.setenv("COLUMNS", "60")
    show(rows, **keys)
    out, said = capsys.readouterr()
    assert "┃ id ┃ note                           ┃ state ┃" in out
    assert said == "Left out for want of room: text; a wider terminal and --json have all.\n"
    monkeypatch.setenv("COLUMNS", "10")
    show(rows, **keys)
    out, said = capsys.readouterr()
    assert "".join(out.split()).count("x") == 51  # line by line there is room for all
    assert said == ""


def test_a_listing_of_nothing_says_so(capsys):
    show([], as_json=False, title="Things", columns=["id"])
    assert capsys.readouterr().out == "Things: none\n"
    show([], as_json=True, title="Things", columns=["id"])
    assert json.loads(capsys.readouterr().out) == []


def test_a_value_that_is_longer_than_a_line_is_told_to_its_end(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    path = f"/srv/{'deep/' * 20}the_end.csv"

    show([{"id": 1, "location": path}], as_json=False, title="Files", columns=["id", "location"])

    lines = capsys.readouterr().out.splitlines()
    assert "".join(line.removeprefix("location").strip() for line in lines[-4:]).endswith("the_end.csv")
    assert max(map(len, lines)) <= 40
