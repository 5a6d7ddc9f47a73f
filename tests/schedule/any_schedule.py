"""Schedules and calendars of every kind, made by chance."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from leadferry.schedule import Calendar, Schedule
from leadferry.schedule.clock import WEEKDAYS
from wall_clock import ZONES

ADAPTER: TypeAdapter[Any] = TypeAdapter(Schedule)

clocks = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
days = st.dates(date(2017, 6, 1), date(2020, 6, 1))
weekday_lists = st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=7, unique=True)
weekday_choices = st.sampled_from(["days", "weekdays", "weekends", "business_days"]) | weekday_lists
rules = st.integers(1, 31) | st.sampled_from(
    [
        "last day",
        "first monday",
        "third wednesday",
        "last friday",
        "fifth sunday",
        "first business day",
        "4th business day",
        "last business day",
        "2 business days before the end",
        "5 days before the end",
        "30 days before the end",
    ]
)
period_days = st.builds(
    lambda period, chosen, short: {period: chosen, "short_month": short},
    st.sampled_from(["month", "quarter", "year", "fiscal_month", "fiscal_quarter", "fiscal_year"]),
    st.lists(rules, min_size=1, max_size=3),
    st.sampled_from(["last_day", "skip"]),
)
at = st.lists(clocks, min_size=1, max_size=4, unique=True)
timed = st.one_of(
    st.fixed_dictionaries({"at": at, "on": weekday_choices}),
    st.fixed_dictionaries({"at": at, "on": period_days}),
    st.fixed_dictionaries(
        {
            "at": at,
            "on": st.builds(
                lambda found: {"dates": [str(day) for day in found]},
                st.lists(days, min_size=1, max_size=9, unique=True),
            ),
        }
    ),
    st.fixed_dictionaries(
        {"at": at, "every": st.builds("{} days".format, st.integers(1, 40)), "starting": days.map(str)}
    ),
    st.fixed_dictionaries(
        {
            "at": at,
            "every": st.builds("{} weeks".format, st.integers(1, 5)),
            "starting": days.map(str),
            "on": weekday_lists,
        }
    ),
    st.fixed_dictionaries(
        {
            "at": at,
            "on": st.builds(
                lambda rule, day: {"rrule": rule, "starting": str(day)},
                st.sampled_from(
                    ["FREQ=MONTHLY;BYDAY=-1FR", "FREQ=DAILY;INTERVAL=5", "FREQ=WEEKLY;BYDAY=MO,SA"]
                ),
                days,
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "hourly": st.fixed_dictionaries({"minute": st.integers(0, 59), "every": st.integers(1, 12)}),
            "on": weekday_choices,
        }
    ),
    st.fixed_dictionaries(
        {"every": st.sampled_from(["20 minutes", "45 minutes", "3 hours", "7 hours"]), "on": weekday_choices},
        optional={"between": st.just(["06:30", "21:10"])},
    ),
    st.fixed_dictionaries(
        {
            "cron": st.sampled_from(
                ["15 */6 * * *", "30 2 * * mon-fri", "0 9 1,15 * *", "45 0 * * 6#1", "0 8,20 L * *"]
            )
        }
    ),
)

weekly_blackouts = st.builds(
    lambda starts, ends, on: {"starts": starts, "ends": ends, "on": on},
    st.sampled_from(["01:00", "08:30", "22:00"]),
    st.sampled_from(["02:15", "04:00", "10:00"]),
    st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=3, unique=True),
)
single_blackouts = st.builds(
    lambda start, hours: {
        "starts": start.isoformat(timespec="minutes"),
        "ends": (start + timedelta(hours=hours)).isoformat(timespec="minutes"),
    },
    st.builds(datetime.combine, st.dates(date(2018, 1, 1), date(2019, 6, 1)), st.times()).map(
        lambda one: one.replace(second=0, microsecond=0)
    ),
    st.integers(1, 200),
)


def _calendar(**written: Any) -> Calendar | None:
    try:
        return Calendar.model_validate(written)
    except ValidationError:  # chance may black out all business hours, which is refused
        return None


calendars = st.builds(
    lambda weekend, closed, opened, half, hours, blackouts, fiscal: _calendar(
        id="by_chance",
        weekend=weekend,
        closed={str(day): "holiday" for day in closed},
        opened=[day for day in opened if day not in closed],
        half_days=half,
        hours=hours,
        blackouts=blackouts,
        fiscal=fiscal,
    ),
    st.sampled_from([("sat", "sun"), ("fri", "sat"), (), ("sun",)]),
    st.lists(days, max_size=60),
    st.lists(days, max_size=10, unique=True),
    st.dictionaries(days.map(str), st.sampled_from(["08:00", "11:00", "13:00"]), max_size=60),
    st.none() | st.just({"opens": "09:00", "closes": "17:00"}),
    st.lists(weekly_blackouts | single_blackouts, max_size=2),
    st.sampled_from([{}, {"starts": "04-01"}, {"starts": "02-01", "weeks": "4-4-5"}]),
)


def _together(written: dict[str, Any], calendar: Any, closed: Any, weekend: Any, spread: Any) -> Any:
    more = {"calendar": calendar, "on_closed_day": closed, "on_weekend": weekend, "spread": spread}
    return ADAPTER.validate_python({**written, **more})


policies = st.none() | st.sampled_from(["skip", "previous", "next", "deliver"])
schedules = st.builds(
    _together,
    timed,
    st.none() | calendars,
    policies,
    policies,
    st.none() | st.sampled_from(["10m", "2h", "12h"]),
)
zones = st.sampled_from(ZONES)
