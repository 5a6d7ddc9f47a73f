"""ICS files as Google, Outlook and Apple write them: cancelled and moved events, and times of whole days in other zones."""

from __future__ import annotations

import pytest

from leadferry.schedule.date_files import DateFileError
from leadferry.schedule.ics import ics_dates

YEARS = range(2025, 2029)
SERIES = "UID:s@example.com\nDTSTART{}\nRRULE:FREQ=WEEKLY;COUNT=4\nSUMMARY:Closed"


@pytest.fixture
def read(tmp_path):
    def days(*events, head="", zone=None):
        body = "".join(f"BEGIN:VEVENT\n{event}\nEND:VEVENT\n" for event in events)
        file = tmp_path / "closures.ics"
        file.write_text(f"BEGIN:VCALENDAR\nVERSION:2.0\n{head}{body}END:VCALENDAR\n".replace("\n", "\r\n"))
        return [str(day) for day in ics_dates(file, years=YEARS, zone=zone).closed]

    return days


@pytest.mark.req("R040")
def test_a_cancelled_event_closes_nothing(read):
    event = "UID:{}@example.com\nDTSTART;VALUE=DATE:{}\nSTATUS:{}\nTRANSP:TRANSPARENT"
    found = read(
        event.format(1, 20261224, "CANCELLED"),
        event.format(2, 20261228, "TENTATIVE"),
        event.format(3, 20261229, "CONFIRMED"),
    )
    assert found == ["2026-12-28", "2026-12-29"]


@pytest.mark.req("R040")
@pytest.mark.parametrize(
    ("starts", "instance"),
    [
        (";VALUE=DATE:20261201", ";VALUE=DATE:20261208"),
        (";TZID=America/New_York:20261201T000000", ";TZID=America/New_York:20261208T000000"),
        (";TZID=America/New_York:20261201T200000", ":20261209T010000Z"),  # 20:00 on the 8th
        (":20261201T000000", ":20261208T000000"),
    ],
)
def test_an_instance_that_was_moved_closes_its_new_day_only_and_a_cancelled_one_none(read, starts, instance):
    other = f"UID:s@example.com\nRECURRENCE-ID{instance}\n"
    kept = ["2026-12-01", "2026-12-15", "2026-12-22"]
    series = SERIES.format(starts)
    moved = f"{other}DTSTART;VALUE=DATE:20261210"
    assert read(series, moved) == sorted([*kept, "2026-12-10"])
    assert read(moved, series) == sorted([*kept, "2026-12-10"]), "in any order"
    assert read(series, f"{moved}\nSTATUS:CANCELLED") == kept
    assert read(series, moved.replace("s@", "other@")) == sorted([*kept, "2026-12-08", "2026-12-10"])
    assert read(f"{series}\nEXDATE{instance}") == kept


@pytest.mark.req("R040")
def test_a_whole_day_that_was_written_in_utc_is_one_day_of_its_zone(read):
    christmas = "UID:1@example.com\nDTSTART:20261224T230000Z\nDTEND:20261225T230000Z"
    assert read(christmas, zone="Europe/Berlin") == ["2026-12-25"]
    assert read(christmas, head="X-WR-TIMEZONE:Europe/Berlin\n") == ["2026-12-25"]
    assert read(christmas, head="X-WR-TIMEZONE:Europe/Berlin\n", zone="UTC") == ["2026-12-24", "2026-12-25"]
    lasting = christmas.replace("DTEND:20261225T230000Z", "DURATION:P1D")
    assert read(lasting, zone="Europe/Berlin") == ["2026-12-25"]
    with pytest.raises(DateFileError, match="write `timezone: Europe/Berlin`") as refused:
        read(christmas)
    assert refused.value.line == 5


@pytest.mark.req("R040")
def test_a_series_in_utc_keeps_its_days_when_the_clocks_change(read):
    """From midnight in Berlin's summer; in winter the same time in UTC is 23:00 of the day before, which it touches too."""
    monday = "UID:1@example.com\nDTSTART:20261011T220000Z\nDTEND:20261012T213000Z\nRRULE:FREQ=WEEKLY;COUNT=3"
    assert read(f"{monday}\nEXDATE:20261018T220000Z", zone="Europe/Berlin") == [
        "2026-10-12",
        "2026-10-25",
        "2026-10-26",
    ]


@pytest.mark.req("R040")
def test_a_time_of_a_zone_closes_the_days_of_its_own_clock(read):
    event = (
        "UID:1@example.com\nDTSTART;TZID=Asia/Tokyo:20261224T000000\nDTEND;TZID=Asia/Tokyo:20261225T000000"
    )
    assert read(event, zone="America/New_York") == ["2026-12-24"]
    abroad = "UID:1@example.com\nDTSTART;TZID=Asia/Tokyo:20261224T100000\nDTEND:20261224T160000Z"
    assert read(abroad) == ["2026-12-24", "2026-12-25"]  # ends at 01:00 in Tokyo


@pytest.mark.req("R040")
@pytest.mark.parametrize(
    ("until", "last"),
    [("20261215T045959Z", "2026-12-08"), ("20261215T140000Z", "2026-12-15"), ("20261215", "2026-12-15")],
)
def test_the_end_of_a_series_is_told_on_its_own_clock(read, until, last):
    """Google ends a series with the last second of a day, in UTC: 04:59:59 on the 15th is the 14th in New York."""
    starts = "DTSTART;TZID=America/New_York:20261201T090000"
    assert read(f"UID:1@example.com\n{starts}\nRRULE:FREQ=WEEKLY;UNTIL={until}")[-1] == last


@pytest.mark.req("R040")
@pytest.mark.parametrize(("until", "last"), [("T085959", "2026-12-08"), ("T090000", "2026-12-15")])
def test_the_end_of_a_series_of_no_zone_is_a_time_of_the_same_clock(read, until, last):
    starts = "UID:1@example.com\nDTSTART:20261201T090000"
    assert read(f"{starts}\nRRULE:FREQ=WEEKLY;UNTIL=20261215{until}")[-1] == last


@pytest.mark.req("R040")
def test_an_instance_that_moves_all_that_follow_is_refused_with_its_line(read):
    with pytest.raises(DateFileError, match="RANGE") as refused:
        read(
            SERIES.format(";VALUE=DATE:20261201"),
            "UID:s@example.com\nRECURRENCE-ID;VALUE=DATE;RANGE=THISANDFUTURE:20261208\nDTSTART;VALUE=DATE:20261210",
        )
    assert refused.value.line == 9
