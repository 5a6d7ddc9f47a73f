"""Quiet hours: which states sleep when, against the tables of the IANA database and against the zones of area codes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest

from leadferry.batch.quiet import _NAMES, QuietHours, zones_by_state
from leadferry.zones import time_zone, zone_names

NIGHT = QuietHours.model_validate({"from": "21:00", "to": "08:00"})
COUNTRIES = {"US", "CA", "PR", "VI", "GU", "AS", "MP"}
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
TWO_YEARS = [BEGIN + number * timedelta(hours=12) for number in range(2 * 2 * 366)]


def table(name):
    """The rows of a table of the IANA database: countries, zone, comment."""
    text = resources.files("tzdata").joinpath("zoneinfo", name).read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return [(set(row[0].split(",")), row[2], row[3] if len(row) > 3 else "") for row in rows]


def clock(zone):
    """What a zone's clock does in the next two years."""
    return tuple(moment.astimezone(time_zone(zone)).utcoffset() for moment in TWO_YEARS)


def test_every_state_has_its_zones_by_letters_and_by_name():
    known = zones_by_state()
    assert len(known) == 2 * (50 + 1 + 5 + 13)
    assert all(zones and zone_names().issuperset(zones) for zones in known.values())
    assert all(known[code] == known[name.upper()] for code, name in _NAMES.items())


@pytest.mark.req("F54")
def test_every_zone_of_the_countries_belongs_to_a_state():
    used = {zone for zones in zones_by_state().values() for zone in zones}
    assert {zone for countries, zone, _ in table("zone.tab") if countries & COUNTRIES} <= used
    clocks = {clock(zone) for zone in used}
    rows = [zone for countries, zone, _ in table("zone1970.tab") if countries & {"US", "CA"}]
    assert len(rows) > 40
    assert [zone for zone in rows if clock(zone) not in clocks] == []


@pytest.mark.req("F54")
def test_a_state_that_the_database_names_beside_a_zone_has_it():
    told = set()
    for name in ("zone.tab", "zone1970.tab"):
        for countries, zone, comment in table(name):
            if countries & {"US", "CA"}:
                told |= {(code, zone) for code in re.findall(r"\b[A-Z]{2}\b", comment) if code in _NAMES}
                told |= {
                    (code, zone) for code, full in _NAMES.items() if re.search(rf"{full}(?! border)", comment)
                }
    assert len(told) > 40
    clocks = {code: {clock(zone) for zone in zones_by_state()[code]} for code in _NAMES}
    assert [(code, zone) for code, zone in sorted(told) if clock(zone) not in clocks[code]] == []


@pytest.mark.req("F54")
def test_the_zones_of_a_states_area_codes_are_among_its_own():
    """The second source: Google's tables of telephone numbers. They give 709 also the time of the coast of Quebec beside it."""
    from phonenumbers import geocoder, parse, timezone

    codes = {name: code for code, name in _NAMES.items()} | {"Washington D.C.": "DC", "California": "CA"}
    unlike, found = set(), set()
    for area in range(200, 1000):
        number = parse(f"+1{area}5550100")
        place = geocoder.description_for_number(number, "en").rpartition(", ")[2]
        code = codes.get(place, place)
        if code in _NAMES:
            found.add(code)
            own = {clock(zone) for zone in zones_by_state()[code]}
            unlike |= {
                (code, zone) for zone in timezone.time_zones_for_number(number) if clock(zone) not in own
            }
    assert len(found) > 55
    assert unlike == {("NL", "America/Puerto_Rico")}


@pytest.mark.req("F54")
@pytest.mark.parametrize(
    ("state", "begins"),
    [
        ("AB", 14),
        ("NT", 14),
        ("MB", 13),
        ("BC", 15),
        ("SK", 14),
        ("AZ", 15),
        ("NV", 16),
        ("CO", 15),
        ("TX", 15),
        ("ON", 13),
    ],
)
def test_the_day_begins_when_it_is_eight_in_the_last_zone_of_the_state(state, begins):
    """15 December 2026, in UTC: Alberta, Manitoba and British Columbia have left the clocks on summer time."""
    morning = datetime(2026, 12, 15, begins, tzinfo=UTC)
    assert state in NIGHT.quiet_places(morning - timedelta(minutes=1))
    assert state not in NIGHT.quiet_places(morning)


@pytest.mark.req("F54")
@pytest.mark.parametrize(("state", "begins"), [("AZ", 3), ("NV", 3), ("SK", 2), ("AB", 3), ("MB", 2)])
def test_the_night_begins_when_it_is_nine_in_the_first_zone_of_the_state(state, begins):
    """2 July 2026, in UTC: in Arizona the Navajo Nation has it an hour before Phoenix, in Nevada West Wendover before Reno."""
    evening = datetime(2026, 7, 2, begins, tzinfo=UTC)
    assert state not in NIGHT.quiet_places(evening - timedelta(minutes=1))
    assert state in NIGHT.quiet_places(evening)
