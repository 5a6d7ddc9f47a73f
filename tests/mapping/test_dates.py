"""Dates and instants in the recipient's zone, format and language."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadferry.errors import RenderError
from leadferry.mapping.dates import Date
from leadferry.mapping.step import Context

FIRST, LAST = datetime.fromisoformat("1900-01-01"), datetime.fromisoformat("2100-01-01")


def run(options, *values, zone="America/New_York", locale="en_US"):
    context = Context(timezone=zone, locale=locale, sources=pl.DataFrame())
    options = options if isinstance(options, dict) else {"format": options}
    return Date.model_validate(options).apply(pl.Series(values, dtype=pl.String), context).to_list()


@pytest.mark.req("R066")
@pytest.mark.parametrize(
    ("options", "value", "expected"),
    [
        ("%m/%d/%Y", "2026-01-31T23:59:59.000000Z", "01/31/2026"),
        ("%m/%d/%Y", "2026-02-01T04:59:59.000000Z", "01/31/2026"),
        ("%m/%d/%Y %H:%M:%S", "2026-07-01T04:00:00.000000Z", "07/01/2026 00:00:00"),
        ("%H:%M:%S.%f", "2026-07-01T04:00:00.123456Z", "00:00:00.123456"),
        ("%m/%d/%Y", "2026-02-01", "02/01/2026"),
        ("%m/%d/%Y", " 2026-02-01 ", "02/01/2026"),
        ("%m/%d/%Y %H:%M", "2026-02-01 03:00:00+02", "01/31/2026 20:00"),
        ("%m/%d/%Y %H:%M", "2026-02-01T03:00:00.5+0200", "01/31/2026 20:00"),
        ("%m/%d/%Y %H:%M", "2026-02-01T03:00Z", "01/31/2026 22:00"),
        ("%m/%d/%Y %H:%M", "2026-02-01T03:00:00", "02/01/2026 03:00"),
        ("%m/%d/%Y %H:%M", "2026-02-01 03:00", "02/01/2026 03:00"),
        ("%H:%M %z %Z", "2026-11-01T05:30:00Z", "01:30 -0400 EDT"),
        ("%H:%M %z %Z", "2026-11-01T06:30:00Z", "01:30 -0500 EST"),
        ("%-m/%-d/%y %-I:%M %p", "2026-02-01T19:05:00Z", "2/1/26 2:05 PM"),
        ("100%% %j %d %b", "2026-02-01", "100% 032 01 Feb"),
        ({"format": "%Y-%m-%d", "input": ["%m/%d/%Y", "iso"]}, "1/31/2026", "2026-01-31"),
        ({"format": "%Y-%m-%d", "input": ["%m/%d/%Y", "iso"]}, "2026-01-31", "2026-01-31"),
        ({"format": "%Y-%m-%d", "input": "%B %d, %Y"}, "January 5, 2026", "2026-01-05"),
        ({"format": "%H:%M", "input": "%m/%d/%Y %I:%M %p"}, "01/31/2026 3:05 PM", "15:05"),
        (
            {"format": "%Y-%m-%d %H:%M", "input": "%d.%m.%Y %H:%M %z"},
            "01.02.2026 03:00 +0100",
            "2026-01-31 21:00",
        ),
        (
            {"format": "%m/%d/%Y %H:%M", "timezone": "Asia/Tokyo"},
            "2026-01-31T23:00:00.000000Z",
            "02/01/2026 08:00",
        ),
        *(
            ({"format": "%Y", "input": ["%m/%d/%Y", "iso"]}, text, None)
            for text in ("1/31/26", "02/30/2026", "soon", "20260131", "26-01-31")
        ),
    ],
)
def test_a_date_is_read_converted_and_written(options, value, expected):
    assert run(options, value) == [expected]


@pytest.mark.req("R066")
@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("en_US", "Saturday, January 31 (Sat, Jan)"),
        ("de_DE", "Samstag, Januar 31 (Sa., Jan.)"),
        ("fr_FR", "samedi, janvier 31 (sam., janv.)"),
        ("pl_PL", "sobota, stycznia 31 (sob., sty)"),
    ],
)
def test_names_are_in_the_recipients_language(locale, expected):
    assert run("%A, %B %d (%a, %b)", "2026-01-31", locale=locale) == [expected]


def test_a_column_may_mix_the_ways_in_which_a_date_comes():
    values = [
        "2026-01-31T23:00:00.000000Z",
        "2026-01-31T23:00:00.5Z",
        "2026-01-31",
        None,
        "2026-01-31T23:00:00",
        "bad",
    ]

    assert run("%d %H:%M", *values) == ["31 18:00", "31 18:00", "31 00:00", None, "31 23:00", None]
    assert run("%d %H:%M", *reversed(values)) == [None, "31 23:00", None, "31 00:00", "31 18:00", "31 18:00"]


@pytest.mark.req("R066")
@given(
    st.lists(
        st.datetimes(min_value=FIRST, max_value=LAST, timezones=st.just(UTC)),
        min_size=1,
    ),
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    st.sampled_from(["%m/%d/%Y", "%Y-%m-%d %H:%M:%S.%f"]),
)
def test_instants_are_converted_as_python_does_in_any_zone(moments, zone, template):
    texts = [f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z" for moment in moments]

    assert run(template, *texts, zone=zone) == [
        moment.astimezone(ZoneInfo(zone)).strftime(template) for moment in moments
    ]


def test_a_locale_may_be_written_with_a_dash_and_an_unknown_one_is_told():
    assert run("%B", "2026-01-31", locale="de-DE") == ["Januar"]
    with pytest.raises(RenderError, match="'xx_XX' is no known locale"):
        run("%B", "2026-01-31", locale="xx_XX")
