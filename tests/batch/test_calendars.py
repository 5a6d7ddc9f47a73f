"""Files of calendars and templates: what they come down to, and what is said when they cannot be meant."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leadferry.batch.check import check
from leadferry.batch.load import load_all, load_batch
from leadferry.batch.model import Batch
from leadferry.batch.problems import BatchFileError
from leadferry.batch.yaml_file import parse_yaml
from leadferry.cli import app
from leadferry.schedule import departures
from leadferry.schedule.calendar import Hours
from leadferry.schedule.calendar_file import CalendarFile
from leadferry.schedule.fiscal import FiscalYear
from leadferry.schedule.library import BUILT_IN

BATCH = """
name: Acme, daily
recipient: acme
flows: [auto]
schedule: {schedule}
fields: [{{to: Email, from: email}}]
files: [{{name: "leads_{{{{ delivery.number }}}}.csv", format: {{type: csv}}}}]
destinations: [{{id: share, type: folder, path: out}}]
"""


class Config:
    """A config folder that a test fills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("recipients/acme.yaml", "name: Acme\n")

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def batch(self, schedule: str, *, name: str = "daily") -> Batch:
        self.write(f"batches/{name}.yaml", BATCH.format(schedule=schedule))
        return load_batch(name, config=self.folder)

    def calendar(self, text: str, *, name: str = "own"):
        self.write(f"calendars/{name}.yaml", text)
        return self.batch(f'{{at: ["09:00"], calendar: {name}}}').schedule.calendar

    def refused(self, schedule: str = '{at: ["09:00"], calendar: own}') -> str:
        with pytest.raises(BatchFileError) as refused:
            self.batch(schedule)
        return refused.value.what


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "config")


def local(batch: Batch, start: str, count: int) -> list[str]:
    found = departures(
        batch.schedule,
        timezone=batch.timezone,
        after=datetime.fromisoformat(start).replace(tzinfo=UTC),
        batch_id=batch.id,
    )
    return [f"{one.local:%a %m-%d %H:%M}" for one in islice(found, count)]


THIS_YEAR = 2026


@pytest.fixture(autouse=True)
def _it_is_this_year(monkeypatch: pytest.MonkeyPatch) -> None:
    """Years of holidays are counted from a day that is fixed; it is the last one on which they may be these."""
    monkeypatch.setattr("leadferry.batch.calendars.today", lambda: date(THIS_YEAR, 12, 31))


# --- where closed days come from ------------------------------------------------------------------------------------


@pytest.mark.req("R037", "C31")
def test_holidays_of_a_country_reach_five_years_ahead_and_one_back(config):
    calendar = config.calendar("closed: [{country: US}]")
    years = {day.year for day in calendar.closed}
    assert years >= set(range(THIS_YEAR - 1, THIS_YEAR + 6))
    assert calendar.why_closed(date(THIS_YEAR, 7, 4)) == "Independence Day"
    assert calendar.known_until == date(THIS_YEAR + 5, 12, 31)


@pytest.mark.req("R037")
def test_a_subdivision_adds_holidays_and_work_may_go_on_on_some(config):
    plain = config.calendar("closed: [{country: US}]")
    massachusetts = config.calendar(
        "closed: [{country: US, subdivision: MA, without: [Columbus Day, Labor Day]}]"
    )
    assert "Labor Day" in plain.closed.values()
    assert "Labor Day" not in massachusetts.closed.values()
    assert set(massachusetts.closed.values()) - set(plain.closed.values())


@pytest.mark.req("R037")
def test_a_holiday_of_single_years_may_be_left_out_also_when_those_years_are_over(config, monkeypatch):
    """Argentina's bridge days are decided year by year, so no later year has one yet."""
    written = "closed: [{country: AR, without: [Bridge Public Holiday]}]"
    assert "Bridge Public Holiday" not in config.calendar(written).closed.values()
    monkeypatch.setattr("leadferry.batch.calendars.today", lambda: date(2040, 1, 1))
    assert config.calendar(written).why_closed(date(2040, 7, 9)) == "Independence Day"


@pytest.mark.req("R037")
def test_company_days_come_once_or_every_year(config):
    calendar = config.calendar("closed: [{dates: [2026-06-17, 12-24], name: Outing}]")
    assert calendar.why_closed(date(2026, 6, 17)) == "Outing"
    assert calendar.is_open(date(2027, 6, 17))
    assert all(not calendar.is_open(date(year, 12, 24)) for year in (THIS_YEAR, THIS_YEAR + 4))


ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Example//EN
BEGIN:VEVENT
UID:1@example.com
DTSTART;VALUE=DATE:20260810
DTEND;VALUE=DATE:20260813
SUMMARY:Summer closure
END:VEVENT
BEGIN:VEVENT
UID:2@example.com
DTSTART;VALUE=DATE:20250501
RRULE:FREQ=YEARLY;UNTIL=20280501T000000Z
EXDATE;VALUE=DATE:20270501
SUMMARY:Company
  day
END:VEVENT
END:VCALENDAR
"""


@pytest.mark.req("R040")
@pytest.mark.parametrize("name", ["closures.ics", "CLOSURES.ICS", "Closures 2026.Ics"])
def test_an_ics_file_gives_its_events_days_and_repetitions(config, name):
    config.write(f"calendars/{name}", ICS.replace("\n", "\r\n"))
    calendar = config.calendar(f"closed: [{{file: {name}}}]")
    assert {str(day): name for day, name in calendar.closed.items() if day.year in (2026, 2027, 2028)} == {
        "2026-05-01": "Company day",
        "2026-08-10": "Summer closure",
        "2026-08-11": "Summer closure",
        "2026-08-12": "Summer closure",
        "2028-05-01": "Company day",
    }


@pytest.mark.req("R040")
@pytest.mark.parametrize("name", ["fair.csv", "FAIR.CSV"])
def test_a_csv_file_gives_its_dates_and_their_names(config, name):
    config.write(f"calendars/{name}", "name,day\nTrade fair,09/14/2026\nTrade fair,09/15/2026\n")
    calendar = config.calendar(f'closed: [{{file: {name}, column: day, date_format: "%m/%d/%Y"}}]')
    assert calendar.closed == {date(2026, 9, 14): "Trade fair", date(2026, 9, 15): "Trade fair"}
    assert calendar.known_until == date(2026, 9, 15)


@pytest.mark.req("R040")
@pytest.mark.parametrize(
    ("name", "content", "line", "said"),
    [
        ("d.csv", b"date\n2026-01-01\n\n2026-13-01\n", 4, "'2026-13-01' is no date such as 2026-12-25"),
        ("d.csv", b"day\n2026-01-01\n", 1, "there is no column 'date'; the header has day"),
        ("d.csv", b"date\n2026-01-01\n\xff\n", 3, "UTF-8"),
        ("d.csv", b"", 1, "the header has nothing"),
        ("d.ics", b"no calendar\n", 1, "BEGIN:VCALENDAR is missing"),
        ("d.ics", b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:a\nEND:VEVENT\n", 2, "DTSTART is missing"),
        ("d.ics", b"BEGIN:VCALENDAR\n\nBEGIN:VEVENT\nDTSTART:20260101\n", 3, "END:VEVENT is missing"),
        (
            "d.ics",
            b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:2026\nEND:VEVENT\n",
            3,
            "cannot be understood",
        ),
    ],
)
def test_a_malformed_file_of_dates_is_told_with_its_line(config, name, content, line, said):
    config.write("calendars/own.yaml", f"closed: [{{file: {name}}}]")
    (config.folder / "calendars" / name).write_bytes(content)
    told = config.refused()
    assert f"config/calendars/{name}:{line}" in told
    assert said in told
    assert "used by config/calendars/own.yaml" in told


@pytest.mark.req("R041")
def test_a_union_is_open_when_both_are_and_an_intersection_when_one_is(config):
    config.write("calendars/us.yaml", "closed: [{country: US}]")
    config.write("calendars/uk.yaml", "closed: [{country: GB, subdivision: ENG}]")
    us, uk = (config.batch(f'{{at: ["09:00"], calendar: {one}}}').schedule.calendar for one in ("us", "uk"))
    union = config.calendar("closed: [{calendar: us}, {calendar: uk}]")
    both = config.calendar("closed: [{all_of: [us, uk]}]")
    days = [date(THIS_YEAR, 1, 1) + timedelta(days=number) for number in range(730)]
    assert [union.is_open(day) for day in days] == [us.is_open(day) and uk.is_open(day) for day in days]
    assert [both.is_open(day) for day in days] == [us.is_open(day) or uk.is_open(day) for day in days]
    assert sum(map(union.is_open, days)) < sum(map(both.is_open, days))


@pytest.mark.req("R041", "R024")
def test_weekends_of_different_countries_are_united_and_intersected(config):
    config.write("calendars/gulf.yaml", "weekend: [fri, sat]")
    config.write("calendars/west.yaml", "weekend: [sat, sun]")
    assert config.calendar("closed: [{calendar: gulf}, {calendar: west}]").weekend == ("fri", "sat", "sun")
    either = config.calendar("closed: [{all_of: [gulf, west]}]")
    assert either.weekend == ("sat",)
    assert either.closed == {}


@pytest.mark.req("R041", "R042")
def test_a_union_has_the_hours_in_which_both_are_open_and_the_earlier_of_two_half_days(config):
    config.write(
        "calendars/a.yaml",
        'hours: {opens: "08:00", closes: "16:00"}\nhalf_days: {2026-12-24: "12:00", 2026-12-30: "13:00"}',
    )
    config.write(
        "calendars/b.yaml", 'hours: {opens: "10:00", closes: "18:00"}\nhalf_days: {2026-12-24: "11:00"}'
    )
    for both in ("[{calendar: a}, {calendar: b}]", "[{calendar: b}, {calendar: a}]"):
        union = config.calendar(f"closed: {both}")
        assert union.hours == Hours.model_validate({"opens": "10:00", "closes": "16:00"})
        assert union.half_days == {date(2026, 12, 24): time(11), date(2026, 12, 30): time(13)}
    own = config.calendar(
        f'closed: {both}\nhours: {{opens: "07:00", closes: "20:00"}}\nhalf_days: {{2026-12-24: "14:00"}}'
    )
    assert own.hours == Hours.model_validate({"opens": "07:00", "closes": "20:00"})
    assert own.half_days == {date(2026, 12, 24): time(14), date(2026, 12, 30): time(13)}
    config.write("calendars/a.yaml", "name: All day")
    assert config.calendar(f"closed: {both}").hours == Hours.model_validate(
        {"opens": "10:00", "closes": "18:00"}
    )


@pytest.mark.req("R041", "R042")
def test_an_intersection_has_hours_that_are_the_same_and_half_days_on_which_none_is_open_for_longer(config):
    hours = 'hours: {opens: "08:00", closes: "16:00"}\n'
    config.write(
        "calendars/a.yaml",
        hours + 'half_days: {2026-12-24: "12:00", 2026-12-29: "12:00", 2026-12-30: "13:00"}',
    )
    config.write(
        "calendars/b.yaml", hours + 'half_days: {2026-12-24: "11:00"}\nclosed: [{dates: 2026-12-29}]'
    )
    either = config.calendar("closed: [{all_of: [a, b]}]")
    assert either.hours == Hours.model_validate({"opens": "08:00", "closes": "16:00"})
    assert either.half_days == {date(2026, 12, 24): time(12), date(2026, 12, 29): time(12)}


def test_days_of_every_year_are_known_as_long_as_holidays(config):
    last = date(THIS_YEAR + 5, 12, 31)
    assert config.calendar("closed: [{dates: 12-24}]").known_until == last
    assert config.calendar('half_days: {12-31: "13:00"}').known_until == last
    assert (
        config.calendar('closed: [{dates: 2026-12-24}]\nhalf_days: {2026-12-31: "13:00"}').known_until is None
    )


def test_an_open_day_wins_over_weekend_and_holiday(config):
    calendar = config.calendar("closed: [{dates: 2026-12-25}]\nopen: [2026-12-25, 2026-12-26]")
    assert calendar.is_open(date(2026, 12, 25))
    assert calendar.is_open(date(2026, 12, 26))
    assert not calendar.is_open(date(2026, 12, 27))


# --- what departures make of it ---------------------------------------------------------------------------------------


@pytest.mark.req("R036", "C31")
@pytest.mark.parametrize(
    ("policy", "days"),
    [
        ("skip", ["Mon 06-08 09:00"]),
        ("previous", ["Fri 06-05 09:00", "Fri 06-12 09:00"]),
        ("next", ["Mon 06-08 09:00", "Mon 06-15 09:00"]),
        ("deliver", ["Sat 06-06 09:00", "Sat 06-13 09:00"]),
    ],
)
def test_a_saturday_is_left_out_moved_or_kept(config, policy, days):
    on = "[sat]" if policy != "skip" else "[sat, mon]"
    batch = config.batch(f'{{at: ["09:00"], on: {on}, on_closed_day: {policy}}}')
    assert local(batch, "2026-06-05T00:00", len(days)) == days


@pytest.mark.req("R053")
def test_a_short_week_departs_on_thursday(config):
    config.write("calendars/own.yaml", "closed: [{dates: 2026-07-03, name: Independence Day}]")
    batch = config.batch('{at: ["17:00"], on: [fri], calendar: own, on_closed_day: previous}')
    found = list(
        islice(departures(batch.schedule, timezone="UTC", after=datetime(2026, 6, 29, tzinfo=UTC)), 2)
    )
    assert [f"{one.local:%a %m-%d}" for one in found] == ["Thu 07-02", "Fri 07-10"]
    assert found[0].note == "Fri 2026-07-03 is closed (Independence Day), so the previous open day"


@pytest.mark.req("R029", "C31")
def test_the_last_business_day_moves_once_more_when_it_is_a_holiday(config):
    config.write("calendars/own.yaml", "closed: [{dates: 2026-05-29, name: Outing}]")
    plain = config.batch('{at: ["09:00"], on: {month: last business day}}')
    moved = config.batch('{at: ["09:00"], on: {month: last business day}, calendar: own}')
    assert local(plain, "2026-05-15T00:00", 1) == ["Fri 05-29 09:00"]  # the month ends on a Sunday
    assert local(moved, "2026-05-15T00:00", 1) == ["Thu 05-28 09:00"]


@pytest.mark.req("R031")
def test_quarters_and_years_are_those_of_the_company(config):
    config.write("calendars/own.yaml", 'fiscal: {starts: "07-01"}')
    batch = config.batch('{at: ["09:00"], on: {fiscal_year: 3rd business day}, calendar: own}')
    assert local(batch, "2026-01-01T00:00", 2) == ["Fri 07-03 09:00", "Mon 07-05 09:00"]
    config.write("calendars/own.yaml", 'fiscal: {starts: "04-01"}')
    batch = config.batch('{at: ["09:00"], on: {fiscal_quarter: 10}, calendar: own, on_closed_day: deliver}')
    assert [one[4:9] for one in local(batch, "2026-03-01T00:00", 4)] == ["04-10", "07-10", "10-10", "01-10"]


@pytest.mark.req("R042")
def test_a_time_outside_business_hours_goes_when_they_begin_again(config):
    config.write("calendars/own.yaml", 'hours: {opens: "09:00", closes: "17:00"}')
    batch = config.batch('{at: ["07:00", "12:00", "22:00"], calendar: own}')
    assert local(batch, "2026-06-05T00:00", 4) == [
        "Fri 06-05 09:00",
        "Fri 06-05 12:00",
        "Mon 06-08 09:00",
        "Mon 06-08 12:00",
    ]


def test_a_half_day_ends_early(config):
    config.write("calendars/own.yaml", 'half_days: {12-24: "13:00"}')
    batch = config.batch('{at: ["09:00", "17:00"], calendar: own}')
    assert local(batch, "2026-12-24T00:00", 3) == ["Thu 12-24 09:00", "Thu 12-24 13:00", "Fri 12-25 09:00"]


@pytest.mark.req("R060")
def test_what_is_due_in_a_blackout_goes_once_at_its_end(config):
    config.write(
        "calendars/own.yaml",
        "blackouts:\n"
        "  - {starts: 2026-06-05T18:00, ends: 2026-06-08T10:30, reason: move of the data centre}\n"
        '  - {starts: "23:00", ends: "01:00", on: [tue]}\n',
    )
    batch = config.batch('{at: ["09:00", "23:30"], calendar: own, on_closed_day: deliver}')
    found = list(
        islice(departures(batch.schedule, timezone="UTC", after=datetime(2026, 6, 5, 12, tzinfo=UTC)), 4)
    )
    assert [f"{one.local:%a %d %H:%M}" for one in found] == [
        "Mon 08 10:30",
        "Mon 08 23:30",
        "Tue 09 09:00",
        "Wed 10 01:00",
    ]
    assert "is in a blackout (move of the data centre), postponed to its end" in found[0].note


@pytest.mark.req("R043", "C34")
def test_twenty_batches_at_nine_are_spread_over_ten_minutes_always_alike(config):
    text = '{at: ["09:00"], spread: 10m}'
    offsets = [config.batch(text, name=f"b{n}").schedule.offset(f"b{n}") for n in range(20)]
    again = [config.batch(text, name=f"b{n}").schedule.offset(f"b{n}") for n in range(20)]
    assert offsets == again
    assert all(timedelta() <= one < timedelta(minutes=10) for one in offsets)
    assert len(set(offsets)) > 15
    found = next(
        departures(
            config.batch(text).schedule, timezone="UTC", after=datetime(2026, 6, 5, tzinfo=UTC), batch_id="b3"
        )
    )
    assert found.utc == datetime(2026, 6, 5, 9, tzinfo=UTC) + offsets[3]


# --- one calendar for many, and faults --------------------------------------------------------------------------------


@pytest.mark.req("R038")
def test_two_batches_share_a_calendar_and_a_change_of_it_changes_both(config):
    schedule = '{at: ["09:00"], calendar: us_bank}'
    config.write("calendars/us_bank.yaml", "")
    config.write("calendars/us_bank.yaml", "name: Bank days")
    before = [local(config.batch(schedule, name=name), "2026-06-18T12:00", 1) for name in ("one", "two")]
    config.write("calendars/us_bank.yaml", "closed: [{dates: 2026-06-19}]")
    after = [local(config.batch(schedule, name=name), "2026-06-18T12:00", 1) for name in ("one", "two")]
    assert (before, after) == ([["Fri 06-19 09:00"]] * 2, [["Mon 06-22 09:00"]] * 2)


@pytest.mark.req("R038")
def test_an_unknown_calendar_is_refused_where_it_is_named(config):
    config.write("calendars/us_bank.yaml", "name: Bank days")
    told = config.refused('{at: ["09:00"], calendar: us_bnak}')
    assert "config/batches/daily.yaml:5" in told
    assert "did you mean 'us_bank'" in told
    assert told.count("\n") == 0


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("name: a\nclosed: [{country: XX}]", 2, "is no country with known holidays"),
        ("closed: [{country: US, subdivision: Texas}]", 1, "is not known in US"),
        (
            "closed:\n  - {country: US}\n  - {country: US, without: [Labour Day]}",
            3,
            "did you mean 'Labor Day'",
        ),
        ("closed: [{market: NYSX}]", 1, "did you mean"),
        ("closed: [{nation: US}]", 1, "country, market, file, dates, calendar or all_of"),
        ("closed: [{file: ../secret.csv}]", 1, "must"),
        (
            "closed: [{file: days.xlsx}]",
            1,
            "must be the name of a file in config/calendars that ends in .ics or .csv, is 'days.xlsx'",
        ),
        ("weekend: [sat, sunday]", 1, "allowed"),
        ("weekend: [mon, tue, wed, thu, fri, sat, sun]", 1, "leaves nothing open"),
        ("hours: {opens: '17:00', closes: '09:00'}", 1, "closes must be later than opens"),
        ("blackouts: [{starts: 2026-06-08T10:30, ends: 2026-06-05T18:00}]", 1, "ends must be later"),
        ("closed: [{calendar: own}]", 1, "made of each other: own → own"),
        ("closed: [{calendar: other}]", 1, "'other' is not known"),
        ("colour: red", 1, "not known here"),
    ],
)
def test_a_calendar_that_cannot_be_meant_is_told_with_its_line(config, text, line, said):
    config.write("calendars/own.yaml", text)
    told = config.refused()
    assert f"config/calendars/own.yaml:{line}" in told
    assert said in told


EVENT = """\
BEGIN:VCALENDAR
BEGIN:VEVENT
SUMMARY:Outing
DTSTART;VALUE=DATE:20260105
{}
END:VEVENT
END:VCALENDAR
"""
"""A test fills in its fifth line."""

BROKEN = {
    "country": ("closed:\n  - {country: XX}", {}, "own.yaml:2", "'XX' is no country"),
    "subdivision": ("closed:\n  - {country: US, subdivision: ZZ}", {}, "own.yaml:2", "'ZZ' is not known in US; known: AK,"),
    "kind of holiday": ("closed:\n  - {country: US, categories: [bank]}", {}, "own.yaml:2", "'bank' is not known for US; known: "),
    "exchange": ("closed:\n  - {market: NYSX}", {}, "own.yaml:2", "'NYSX' is no exchange"),
    "holiday without": ("closed:\n  - {country: US, without: [Labour Day]}", {}, "own.yaml:2", "'Labour Day'"),
    "file missing": ("closed: [{file: gone.csv}]", {}, "gone.csv:1", "there is no such file"),
    "csv date": ("closed: [{file: d.csv}]", {"d.csv": "date\n2026-01-01\n2026-02-30\n"}, "d.csv:3", "'2026-02-30' is no date such as 2026-12-25"),
    "csv short line": ("closed: [{file: d.csv}]", {"d.csv": "name,date\na,2026-01-01\nb\n"}, "d.csv:3", "'' is no date"),
    "csv column": ("closed: [{file: d.csv, column: day}]", {"d.csv": "date\n"}, "d.csv:1", "no column 'day'; the header has date"),
    "ics frequency": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("RRULE:FREQ=OFTEN")}, "d.ics:5", "Expected frequency, got: OFTEN"),
    "ics no frequency": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("RRULE:BYDAY=MO")}, "d.ics:5", "FREQ= and one of"),
    "ics each second": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("RRULE:FREQ=SECONDLY")}, "d.ics:5", "FREQ= and one of"),
    "ics standstill": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("RRULE:FREQ=DAILY;INTERVAL=0")}, "d.ics:5", "INTERVAL must be 1 or more"),
    "ics rule": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("RRULE:FREQ=MONTHLY;BYDAY=XX")}, "d.ics:5", "cannot be understood"),
    "ics end": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("DTEND;VALUE=DATE:2026xx")}, "d.ics:5", "cannot be understood"),
    "ics ends first": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("DTEND;VALUE=DATE:20260101")}, "d.ics:5", "it ends before it begins"),
    "ics exception": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("RRULE:FREQ=DAILY;COUNT=3\nEXDATE:abc")}, "d.ics:6", "cannot be understood"),
    "ics more dates": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("RDATE;VALUE=DATE:2026xx")}, "d.ics:5", "cannot be understood"),
    "ics line": ("closed: [{file: d.ics}]", {"d.ics": EVENT.format("nonsense")}, "d.ics:5", "cannot be understood"),
    "fiscal month 13": ("name: x\nfiscal:\n  starts: 13-01", {}, "own.yaml:3", "'13-01'; the year begins on a month and a day up to 28"),
    "fiscal day 31": ("fiscal: {starts: '04-31'}", {}, "own.yaml:1", "'04-31'; the year begins on"),
    "fiscal leap day": ("fiscal: {starts: '02-29'}", {}, "own.yaml:1", "'02-29'; the year begins on"),
    "fiscal number": ("fiscal: {starts: 13}", {}, "own.yaml:1", "13; the year begins on"),
    "fiscal weeks": ("fiscal: {weeks: 4-4-4}", {}, "own.yaml:1", "allowed: 4-4-5, 4-5-4, 5-4-4"),
    "weekend": ("weekend: [mon, tue, wed, thu, fri, sat, sun]", {}, "own.yaml:1", "leaves nothing open"),
    "weekend of two": (
        "closed:\n  - {calendar: one}\n  - {calendar: two}",
        {"one.yaml": "weekend: [mon, tue, wed, thu]", "two.yaml": "weekend: [fri, sat, sun]"},
        "own.yaml:1", "a weekend of seven days leaves nothing open",
    ),
    "weekday": ("weekend: [saturday]", {}, "own.yaml:1", "allowed: mon, tue,"),
    "half day closed": ("closed:\n  - {dates: 2026-12-24}\nhalf_days: {2026-12-24: '13:00'}", {}, "own.yaml:3", "2026-12-24 is closed (company day), so it is no half day"),
    "half day weekend": ("half_days: {2026-12-26: '13:00'}", {}, "own.yaml:1", "2026-12-26 is closed (weekend)"),
    "half day that is none": ("half_days: {2026-02-30: '13:00'}", {}, "own.yaml:1", "'2026-02-30' is no day"),
    "half day every year": ("half_days: {02-30: '13:00'}", {}, "own.yaml:1", "'02-30' is no day"),
    "half day month 13": ("half_days: {13-01: '13:00'}", {}, "own.yaml:1", "'13-01' is no day"),
    "half day time": ("half_days: {12-24: '25:00'}", {}, "own.yaml:1", "is '25:00'"),
    "company day": ("closed:\n  - {dates: 2026-02-30}", {}, "own.yaml:2", "2026-02-30"),
    "company day every year": ("closed:\n  - {dates: 02-30}", {}, "own.yaml:2", "'02-30' is no day"),
    "hours turned around": ("hours: {opens: '17:00', closes: '09:00'}", {}, "own.yaml:1", "closes must be later than opens"),
    "hours of no length": ("hours: {opens: '09:00', closes: '09:00'}", {}, "own.yaml:1", "closes must be later than opens"),
    "hours twice": ("hours: [{opens: '09:00', closes: '12:00'}, {opens: '11:00', closes: '17:00'}]", {}, "own.yaml:1", "must be a mapping"),
    "hours without end": ("hours: {opens: '09:00'}", {}, "own.yaml:1", "'closes' is missing"),
    "intersection of nothing": ("closed:\n  - {all_of: []}", {}, "own.yaml:2", "at least 2"),
    "intersection of one": ("closed:\n  - {all_of: [one]}", {"one.yaml": "name: x"}, "own.yaml:2", "at least 2"),
    "intersection with itself": ("closed:\n  - {all_of: [one, one]}", {"one.yaml": "name: x"}, "own.yaml:2", "'one' stands twice"),
    "intersection of unknowns": ("closed:\n  - {all_of: [one, two]}", {}, "own.yaml:1", "'one' is not known"),
    "blackout of a week": ("blackouts:\n  - {starts: '00:00', ends: '12:00'}\n  - {starts: '12:00', ends: '00:00'}", {}, "own.yaml:1", "the blackouts leave no time"),
    "blackout of all hours": ("name: x\nhours: {opens: '09:00', closes: '17:00'}\nblackouts:\n  - {starts: '08:00', ends: '18:00'}", {}, "own.yaml:3", "the blackouts leave no time"),
    "blackouts of two": (
        "closed: [{calendar: one}]\nblackouts:\n  - {starts: '00:00', ends: '12:00'}",
        {"one.yaml": "blackouts:\n  - {starts: '12:00', ends: '00:00'}"},
        "own.yaml:2", "the blackouts leave no time",
    ),
    "hours that never overlap": (
        "name: x\nclosed:\n  - {calendar: one}\n  - {calendar: two}",
        {"one.yaml": "hours: {opens: '08:00', closes: '12:00'}", "two.yaml": "hours: {opens: '12:00', closes: '18:00'}"},
        "own.yaml:2", "never overlap: 08:00 to 12:00 and 12:00 to 18:00; write the `hours`",
    ),
    "hours of an intersection": (
        "name: x\nclosed:\n  - {all_of: [one, two]}",
        {"one.yaml": "hours: {opens: '08:00', closes: '12:00'}", "two.yaml": "name: x"},
        "own.yaml:2", "one and two have different business hours; write the `hours`",
    ),
    "fiscal years of two": (
        "name: x\nclosed:\n  - {calendar: one}\n  - {calendar: two}",
        {"one.yaml": "fiscal: {starts: '04-01'}", "two.yaml": "fiscal: {starts: '07-01'}"},
        "own.yaml:2", "one and two have different fiscal years; write the `fiscal`",
    ),
}  # fmt: skip
"""What is wrong → the calendar, the files beside it, where it is told, and what is said."""


@pytest.mark.req("R037", "R040", "R041")
@pytest.mark.parametrize("wrong", BROKEN)
def test_a_broken_calendar_is_told_with_file_and_line_and_breaks_its_batches_and_no_other(
    config, monkeypatch, wrong
):
    text, beside, place, said = BROKEN[wrong]
    config.batch('{at: ["09:00"]}', name="other")
    config.write("batches/daily.yaml", BATCH.format(schedule='{at: ["09:00"], calendar: own}'))
    for name, content in {"own.yaml": text, **beside}.items():
        config.write(f"calendars/{name}", content)

    monkeypatch.setenv("LEADFERRY_CONFIG", str(config.folder))
    done = CliRunner().invoke(app, ["check"])
    batches, errors = load_all(config.folder)

    assert done.exit_code == 1
    assert [one.id for one in batches] == ["other"]
    assert len(errors) == 1
    told = [line for line in done.stdout.splitlines() if said in line]
    assert told, done.stdout
    assert all(line.startswith(f"config/calendars/{place}:") for line in told)


def test_a_half_day_that_falls_on_a_weekend_in_some_years_is_none_in_those(config):
    assert config.calendar("half_days: {12-24: '13:00', 02-29: '12:00'}").half_days


def test_an_event_may_have_further_dates(config):
    more = EVENT.format(
        "RRULE:FREQ=WEEKLY;COUNT=2\nRDATE;VALUE=DATE:20260202,20260303\nEXDATE;VALUE=DATE:20260112"
    )
    config.write("calendars/d.ics", more)
    closed = config.calendar("closed: [{file: d.ics}]").closed
    assert [f"{day:%m-%d}" for day in closed] == ["01-05", "02-02", "03-03"]


def test_a_batch_with_a_calendar_survives_being_frozen_as_json(config):
    config.write(
        "calendars/own.yaml",
        'closed: [{market: NYSE, half_days: "13:00"}]\nhours: {opens: "08:00", closes: "18:00"}',
    )
    batch = config.batch(
        "{hourly: {minute: [0, 30]}, on: {month: last business day}, calendar: own, spread: 5m}"
    )
    frozen = json.loads(json.dumps(batch.model_dump(mode="json")))
    assert Batch.model_validate(frozen) == batch
    assert Batch.model_validate(frozen).model_dump(mode="json") == frozen


def test_the_check_looks_at_calendars_that_no_batch_uses_and_at_dates_that_run_out(config):
    config.batch('{at: ["09:00"]}')
    config.write("calendars/broken.yaml", "closed: [{country: XX}]")
    config.write("calendars/fair.csv", "date\n2026-09-14\n")
    config.write("calendars/fair.yaml", "closed: [{file: fair.csv}]")
    report = check(config.folder, now=datetime(2026, 8, 1, tzinfo=UTC))
    assert [(one.file, one.line) for one in report.problems] == [("config/calendars/broken.yaml", 1)]
    assert [one.text for one in report.hints if one.file == "config/calendars/fair.yaml"] == [
        "its dates end on 2026-09-14; after that day only the weekend counts"
    ]


# --- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.req("R056")
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_template_is_a_schedule(config, name):
    batch = config.batch(f"{{template: {name}}}")
    assert len(local(batch, "2026-01-01T00:00", 2)) == 2


@pytest.mark.req("R056")
def test_a_template_of_the_project_wins_and_the_batch_wins_over_both(config):
    assert local(config.batch("{template: business_daily}"), "2026-06-05T12:00", 1) == ["Mon 06-08 09:00"]
    config.write("schedules/business_daily.yaml", 'at: ["07:15"]\non: weekdays\n')
    assert local(config.batch("{template: business_daily}"), "2026-06-05T12:00", 1) == ["Mon 06-08 07:15"]
    own = config.batch("{template: business_daily, hourly: {minute: 5}}")
    assert local(own, "2026-06-05T12:00", 1) == ["Fri 06-05 12:05"]


@pytest.mark.req("R056")
@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("{template: business_dayly}", "did you mean 'business_daily'"),
        ("{template: zoned}", "config/schedules/zoned.yaml:1"),
        ("{template: wrong}", "say when"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(config, schedule, said):
    config.write("schedules/zoned.yaml", "timezone: UTC\n")
    config.write("schedules/wrong.yaml", "on: weekdays\n")
    assert said in config.refused(schedule)


def test_a_template_that_is_not_known_is_the_only_fault_told(config):
    assert "say when" not in config.refused("{template: before_the_open}")


def test_a_calendar_that_only_the_template_names_is_told_with_the_template(config):
    config.write("schedules/opening.yaml", 'at: ["08:15"]\ncalendar: nowhere\n')
    assert "'nowhere' is not known" in config.refused("{template: opening}")
    assert "; the template 'opening' names it" in config.refused("{template: opening}")
    assert "names it" not in config.refused("{template: opening, calendar: elsewhere}")


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "calendars.md").read_text(encoding="utf-8")


def test_the_calendars_on_the_page_work(config):
    for name, text in re.findall(r"```yaml\n# config/(calendars/\S+)\n(.*?)```", PAGE, re.DOTALL):
        config.write(name, text)
    calendar = config.batch("{template: business_daily, calendar: gulf_bank}").schedule.calendar
    assert calendar.weekend == ("fri", "sat")
    assert calendar.why_closed(date(2026, 12, 24)) == "Christmas Eve"
    assert not calendar.is_open(date(2026, 11, 29))  # a Sunday, closed by the other calendar


def test_every_key_of_a_calendar_stands_on_the_page_and_no_other():
    head = PAGE.split("## Where closed days")[0]
    fiscal = PAGE.split("## Fiscal years")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", head, re.MULTILINE)) == set(CalendarFile.model_fields)
    assert set(re.findall(r"^\| `(\w+)` \|", fiscal, re.MULTILINE)) == set(FiscalYear.model_fields)


@pytest.mark.req("R056")
def test_the_templates_on_the_page_are_the_built_in_ones():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "schedule.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\{.*\})` \|$", page.split("## Templates")[1], re.MULTILINE)
    assert {name: parse_yaml(f"a: {text}", shown="page").data["a"] for name, text in rows} == BUILT_IN
