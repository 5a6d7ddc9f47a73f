"""The cookbook of schedules says what the program does, and the program does what people worked out by hand."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pytest

from docs import schedules_page
from leadferry.batch import calendars

FILES, SECTIONS = schedules_page.read()
RECIPES = {recipe.title: recipe for section in SECTIONS for recipe in section.recipes}

BY_HAND = {
    "Every hour, 17 minutes past": "11-07T04:17 11-07T05:17 11-07T06:17 11-07T07:17 11-07T08:17",
    "Every 15 minutes": "06-01T18:00 06-01T18:15 06-01T18:30 06-01T18:45 06-01T19:00",
    "Every 20 minutes while the call center is open": "06-04T22:10 06-04T22:30 06-07T13:30 06-07T13:50 06-07T14:10",
    "Every day at nine": "03-13T14:00 03-14T13:00 03-15T13:00 03-16T13:00 03-17T13:00",
    "Monday and Thursday": "03-25T08:00 03-29T07:00 04-01T07:00 04-05T07:00 04-08T07:00",
    "Every three days": "02-25T14:00 02-28T14:00 03-03T14:00 03-06T14:00 03-09T14:00",
    "Every second Friday": "03-05T22:00 03-19T21:00 04-02T21:00 04-16T21:00 04-30T21:00",
    "On the 31st, or the last day of a shorter month": "01-31T23:00 02-28T23:00 03-31T22:00 04-30T22:00 05-31T22:00",
    "On the 31st, only in months that have one": "01-31T23:00 03-31T22:00 05-31T22:00 07-31T22:00 08-31T22:00",
    "Every business day": "07-02T13:00 07-06T13:00 07-07T13:00 07-08T13:00 07-09T13:00",
    "On the last business day of the month": "04-30T21:00 05-28T21:00 06-30T21:00 07-30T21:00 08-31T21:00",
    "Two business days before the end of the month": "04-28T21:00 05-26T21:00 06-28T21:00 07-28T21:00 08-27T21:00",
    "On the 15th, or the business day before it": "02-12T14:00 03-15T13:00 04-15T13:00 05-14T13:00 06-15T13:00",
    "At the end of a fiscal month of 4-5-4 weeks": "02-26T22:00 04-02T21:00 04-30T21:00 05-28T21:00 07-02T21:00",
    "Leave closed days out": "03-24T09:00 03-31T08:00 04-05T08:00 04-07T08:00 04-12T08:00",
    "When Friday is a holiday, on Thursday": "03-19T17:00 03-25T17:00 04-02T16:00 04-09T16:00 04-16T16:00",
    "On business days of a Friday-and-Saturday weekend": "11-29T05:00 11-30T05:00 12-05T05:00 12-06T05:00 12-07T05:00",
    "Trading days, earlier on short days": "11-23T20:45 11-24T20:45 11-26T18:00 11-29T20:45 11-30T20:45",
    "Never outside business hours": "05-28T16:00 06-01T13:00 06-01T16:00 06-02T13:00 06-02T16:00",
    "Not during the buyer's maintenance": "06-06T05:30 06-06T08:00 06-06T08:30 06-06T09:30 06-06T10:30",
    "A time that does not exist in March": "03-12T07:30 03-13T07:30 03-14T07:00 03-15T06:30 03-16T06:30",
    "A time that comes twice in October": "10-29T00:30 10-30T00:30 10-31T00:30 11-01T01:30 11-02T01:30",
    "At midnight where clocks change at midnight": "04-28T22:00 04-29T22:00 04-30T21:00 05-01T21:00 05-02T21:00",
    "A template of your own": "12-22T13:15 12-23T13:15 12-27T13:15 12-28T13:15 12-29T13:15",
}
"""Instants of the year 2027 in UTC, from wall calendars and the laws on holidays and summer time, not from the program."""


@pytest.mark.req("R054", "R056")
def test_the_page_is_fresh(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [schedules_page.__file__, "--check"])

    assert schedules_page.main() == 0, capsys.readouterr().err


def test_a_page_that_is_not_fresh_is_told_and_written_anew(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(schedules_page, "PAGE", tmp_path / "schedules.md")
    monkeypatch.setattr(sys, "argv", [schedules_page.__file__, "--check"])
    assert schedules_page.main() == 1
    assert "schedules.md is out of date; run: python" in capsys.readouterr().err

    monkeypatch.setattr(sys, "argv", [schedules_page.__file__])
    assert schedules_page.main() == 0
    assert schedules_page.PAGE.read_text("utf-8") == schedules_page.page()


@pytest.mark.req(
    "R022", "R023", "R025", "R026", "R027", "R028", "R029", "R031", "R035", "R036", "R037", "R039"
)
@pytest.mark.req("R040", "R042", "R056", "R060")
@pytest.mark.parametrize(("title", "expected"), BY_HAND.items(), ids=BY_HAND)
def test_the_departures_of_the_page_are_those_worked_out_by_hand(title, expected):
    recipe = RECIPES[title]
    found = schedules_page.upcoming(recipe.load(FILES), recipe.after)

    assert [f"{one.utc:%Y-%m-%dT%H:%M}" for one in found] == [f"2027-{one}" for one in expected.split()]


def test_there_are_at_least_forty_schedules_and_each_shows_five_departures():
    sections = schedules_page.page().split("\n### ")[1:]
    rows = [
        sum(1 for line in one.split("\n## ")[0].splitlines() if line.startswith("| ")) - 2 for one in sections
    ]

    assert len(rows) == len(RECIPES) >= 40
    assert set(rows) == {schedules_page.SHOWN}


def test_titles_differ_so_that_each_recipe_has_a_link_of_its_own():
    titles = [recipe.title for section in SECTIONS for recipe in section.recipes]

    assert len(titles) == len(set(titles))


def test_every_file_of_the_page_is_named_by_a_recipe_or_by_another_file():
    written = "\n".join([*FILES.values(), *(recipe.batch for recipe in RECIPES.values())])

    assert [name for name in FILES if Path(name).stem not in written] == []


def test_the_page_says_the_same_in_another_year(monkeypatch):
    """Years of holidays are counted from a day that is fixed."""
    monkeypatch.setattr(calendars, "today", lambda: date(2033, 5, 1))

    assert schedules_page.page() == schedules_page.PAGE.read_text("utf-8")
