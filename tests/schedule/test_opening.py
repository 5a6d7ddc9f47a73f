"""The preview and the gate give one answer: a departure goes when the recipient takes it, and says why then."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from leadferry.schedule import Calendar, Schedule, departures
from leadferry.schedule.opening import closed

ADAPTER: TypeAdapter[Any] = TypeAdapter(Schedule)
HOURS = {"opens": "09:00", "closes": "17:00"}
MONDAY = "2026-06-01"


def scheduled(*, calendar: dict[str, Any], **written: Any) -> Any:
    bank = Calendar.model_validate({"id": "bank", **calendar})
    return ADAPTER.validate_python({"calendar": bank, **written})


def preview(schedule: Any, *, count: int = 2, after: str = MONDAY) -> list[tuple[str, str]]:
    start = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = list(islice(departures(schedule, timezone="UTC", after=start, batch_id="acme"), count))
    assert [closed(schedule, one.utc, timezone="UTC") for one in found] == [None] * count
    return [(f"{one.local:%a %m-%d %H:%M}", one.note) for one in found]


@pytest.mark.req("R042", "R054", "R060")
@pytest.mark.parametrize(
    ("calendar", "at", "first", "note"),
    [
        (
            {"hours": HOURS},
            "18:00",
            "Tue 06-02 09:00",
            "Mon 18:00 is after 17:00, when business hours end",
        ),
        (
            {"hours": HOURS},
            "06:00",
            "Mon 06-01 09:00",
            "Mon 06:00 is outside business hours (09:00 to 17:00)",
        ),
        (
            {"hours": HOURS, "blackouts": [{"starts": "15:00", "ends": "18:00", "on": ["mon"]}]},
            "16:00",
            "Tue 06-02 09:00",
            (
                "Mon 16:00 is in a blackout (blackout), postponed to its end; "
                "Mon 18:00 is after 17:00, when business hours end"
            ),
        ),
        (
            {"hours": HOURS, "half_days": {MONDAY: "13:00"}},
            "16:00",
            "Mon 06-01 13:00",
            "half day, 16:00 goes at 13:00",
        ),
        (
            {"hours": HOURS, "half_days": {MONDAY: "08:00"}},
            "16:00",
            "Tue 06-02 09:00",
            "Mon 16:00 is on a closed day (half day, over before business hours begin)",
        ),
        (
            {"hours": HOURS, "half_days": {MONDAY: "09:00"}},
            "16:00",
            "Mon 06-01 09:00",
            "half day, 16:00 goes at 09:00",
        ),
        (
            {"hours": HOURS, "closed": {"2026-06-02": "Founders' Day"}},
            "18:00",
            "Wed 06-03 09:00",
            "Mon 18:00 is after 17:00, when business hours end",
        ),
    ],
)
def test_a_departure_goes_when_the_recipient_takes_it_and_says_why(calendar, at, first, note):
    assert preview(scheduled(calendar=calendar, at=[at], on=["mon"]))[0] == (first, note)


@pytest.mark.req("R036", "R042")
def test_hours_hold_on_a_weekend_that_is_delivered_to_all_the_same():
    schedule = scheduled(calendar={"hours": HOURS}, at=["18:00"], on_weekend="deliver")
    assert preview(schedule, after="2026-06-05T12:00")[0][0] == "Sat 06-06 09:00"
    assert preview(schedule, after="2026-06-06T12:00")[0][0] == "Sun 06-07 09:00"


@pytest.mark.req("R042", "R043")
def test_spread_ends_with_the_business_hours():
    at_closing = scheduled(calendar={"hours": HOURS}, at=["17:00"], on=["mon"], spread="2h")
    assert preview(at_closing)[0] == ("Mon 06-01 17:00", "spread no further than 17:00, when the day ends")
    half_day = scheduled(calendar={"half_days": {MONDAY: "13:00"}}, at=["17:00"], spread="2h")
    assert preview(half_day)[0][0] == "Mon 06-01 13:00"
    in_the_morning = scheduled(calendar={"hours": HOURS}, at=["09:00"], on=["mon"], spread="2h")
    assert preview(in_the_morning)[0] > ("Mon 06-01 09:00", "")
    assert preview(in_the_morning)[0][1] == ""


@pytest.mark.req("R036", "R037")
def test_a_day_to_which_two_policies_move_departures_from_both_sides_departs_once():
    """Friday's go on, Saturday's and Sunday's go back: both over each other."""
    schedule = scheduled(
        calendar={"closed": {"2026-11-27": "Black Friday"}},
        at=["09:00"],
        on_closed_day="next",
        on_weekend="previous",
    )
    days = [day[:9] for day, _note in preview(schedule, count=4, after="2026-11-25")]
    assert days == ["Wed 11-25", "Thu 11-26", "Mon 11-30", "Tue 12-01"]


@pytest.mark.req("R042", "R060")
def test_blackouts_that_leave_no_business_hours_are_refused():
    with pytest.raises(ValidationError, match="the blackouts leave no time of the business hours"):
        scheduled(
            calendar={"hours": HOURS, "blackouts": [{"starts": "08:00", "ends": "18:00"}]}, at=["09:00"]
        )
    some = {"starts": "08:00", "ends": "18:00", "on": ["mon", "tue", "wed", "thu"]}
    assert preview(scheduled(calendar={"hours": HOURS, "blackouts": [some]}, at=["09:00"]))[0][0] == (
        "Fri 06-05 09:00"
    )


@pytest.mark.req("R054", "R060")
@pytest.mark.parametrize("at", ["2026-06-01T15:00", "2026-06-02T05:00"])
def test_a_week_of_maintenance_that_ends_after_closing_moves_the_only_departure_of_the_week(at):
    """Nothing of the week before is forgotten, wherever the question begins."""
    maintenance = {"starts": "2026-05-27T00:00", "ends": "2026-06-01T18:00"}
    nightly = {"starts": "08:00", "ends": "10:00"}
    calendar = {"hours": HOURS, "blackouts": [maintenance, nightly]}
    schedule = scheduled(calendar=calendar, at=["12:00"], on=["wed"])
    assert preview(schedule, count=1, after=at)[0][0] == "Tue 06-02 10:00"


@pytest.mark.req("R028", "R037", "R054")
@pytest.mark.parametrize(
    ("written", "after", "expected"),
    [
        ({"month": 31}, "2026-02-01", ("Sat 02-28 09:00", "the 31st is not in this month")),
        ({"month": [28, 31]}, "2026-03-01", ("Sat 03-28 09:00", "")),
        ({"month": 31}, "2026-03-05", ("Tue 03-31 09:00", "")),
        ({"year": "02-29"}, "2027-01-01", ("Sun 02-28 09:00", "02-29 is not in this year")),
        ({"year": 366}, "2027-01-01", ("Fri 12-31 09:00", "day 366 is not in this year")),
        ("business_days", "2026-06-01T12:00", ("Wed 06-03 09:00", "Tue 2026-06-02 left out (Founders' Day)")),
        ("business_days", "2026-06-05T12:00", ("Mon 06-08 09:00", "")),
    ],
)
def test_a_short_month_and_a_holiday_among_business_days_are_told(written, after, expected):
    founders = {"closed": {"2026-06-02": "Founders' Day"}}
    schedule = scheduled(calendar=founders, at=["09:00"], on=written, on_closed_day="deliver")
    assert preview(schedule, count=1, after=after) == [expected]


@pytest.mark.req("R035", "R060")
def test_what_is_held_over_the_night_when_clocks_go_back_waits_for_the_second_half_past_one():
    night = {"starts": "2026-11-01T00:00", "ends": "2026-11-01T01:30"}
    schedule = scheduled(calendar={"blackouts": [night]}, at=["09:00"])
    first, again = (datetime(2026, 11, 1, hour, 5, tzinfo=UTC) for hour in (5, 6))
    until = [closed(schedule, one, timezone="America/New_York").until for one in (first, again)]
    assert [f"{one:%H:%M}" for one in until] == ["05:30", "06:30"]


@pytest.mark.parametrize(
    ("on", "aloud"),
    [
        ({"month": 1}, "the 1st of every month"),
        ({"month": [1, 15, 22, 23]}, "the 1st, the 15th, the 22nd and the 23rd of every month"),
        ({"month": "last business day"}, "the last business day of every month"),
        ({"month": "2 business days before the end"}, "2 business days before the end of every month"),
        ({"quarter": 1}, "day 1 of every quarter"),
        ({"fiscal_month": 11}, "the 11th of every fiscal month"),
        ({"year": "03-31"}, "03-31 of every year"),
    ],
)
def test_days_of_a_period_are_said_as_people_say_them(on, aloud):
    assert str(ADAPTER.validate_python({"at": ["09:00"], "on": on})) == f"{aloud} at 09:00"


@pytest.mark.req("R035", "R043", "R060")
@pytest.mark.parametrize(
    ("day", "at", "blackout", "goes"),
    [
        ("2026-03-07", "01:40", "03:00 04:00", "02:11:12 EST"),
        ("2026-03-08", "01:40", "03:00 04:00", "04:00:00 EDT"),  # not 03:11 EDT
        ("2026-11-01", "00:45", "01:00 01:45", "01:45:00 EST"),  # not 01:16 EST, when it is 01:00 again
        ("2026-11-02", "00:45", "01:00 01:45", "02:16:12 EST"),
    ],
)
def test_what_is_spread_over_a_change_of_clocks_stays_out_of_the_blackout_on_the_other_side(
    day, at, blackout, goes
):
    """The share of this batch is 31 minutes and 12 seconds, which end an hour later or earlier on the clock of such a night."""
    starts, ends = blackout.split()
    calendar = {"weekend": [], "blackouts": [{"starts": starts, "ends": ends}]}
    schedule = scheduled(calendar=calendar, at=[at], spread="1h")
    start = datetime.fromisoformat(f"{day}T04:00").replace(tzinfo=UTC)
    found = next(departures(schedule, timezone="America/New_York", after=start, batch_id="acme"))
    assert f"{found.local:%F %T %Z}" == f"{day} {goes}"
    assert closed(schedule, found.utc, timezone="America/New_York") is None


@pytest.mark.req("R043", "R060")
@pytest.mark.parametrize(
    ("calendar", "at", "goes"),
    [
        ({"blackouts": [("08:30", "09:30"), ("19:00", "23:00")]}, "12:00", "Mon 06-01 23:00"),
        ({"blackouts": [("08:30", "09:30"), ("19:00", "23:00")]}, "14:00", "Mon 06-01 23:31"),
        ({"blackouts": [("16:30", "17:30")], "hours": HOURS}, "09:00", "Mon 06-01 09:00"),  # Friday's
    ],
)
def test_a_long_share_of_spread_and_blackouts_every_day_leave_a_time_to_depart(calendar, at, goes):
    """Counted earlier by the share, 9:31 hours, these blackouts would fill the whole day, every day."""
    blackouts = [{"starts": starts, "ends": ends} for starts, ends in calendar["blackouts"]]
    schedule = scheduled(calendar={**calendar, "blackouts": blackouts}, at=[at], spread="12h")
    assert preview(schedule, count=1)[0][0] == goes
