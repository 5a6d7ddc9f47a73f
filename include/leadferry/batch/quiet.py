"""Quiet hours: leads whose own clock says that it is night wait in the queue until it is day where they are.

A buyer who calls a lead at once must not get it when calls are not allowed there.
Whether it is night somewhere is the same for all leads of a state, so it is computed once for each state and not for
each lead; the lead store is only told which states have to wait.
"""

from __future__ import annotations

from datetime import datetime, time
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leadferry.schedule.clock import Clock
from leadferry.zones import time_zone, zone_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, FromClause

_STATES_OF_ONE_ZONE = {
    "America/New_York": "CT DC DE GA MA MD ME NC NH NJ NY OH PA RI SC VA VT WV",
    "America/Chicago": "AL AR IA IL LA MN MO MS OK WI",
    "America/Denver": "CO MT NM UT WY",
    "America/Los_Angeles": "CA WA",
    "America/Winnipeg": "MB",
    "America/Edmonton": "AB",
    "America/Moncton": "NB",
    "America/Halifax": "PE",
    "America/Puerto_Rico": "PR",
    "America/St_Thomas": "VI",
    "Pacific/Honolulu": "HI",
    "Pacific/Guam": "GU",
    "Pacific/Saipan": "MP",
    "Pacific/Pago_Pago": "AS",
}
_INDIANA = "Indianapolis Knox Marengo Petersburg Tell_City Vevay Vincennes Winamac"
_NORTH_DAKOTA = "Beulah Center New_Salem"
_STATES_OF_SEVERAL = {
    "AK": "America/Anchorage America/Juneau America/Sitka America/Metlakatla America/Yakutat America/Nome America/Adak",
    "AZ": "America/Phoenix America/Denver",  # the Navajo Nation keeps summer time
    "FL": "America/New_York America/Chicago",
    "ID": "America/Boise America/Los_Angeles",
    "IN": f"America/Chicago {' '.join(f'America/Indiana/{one}' for one in _INDIANA.split())}",
    "KS": "America/Chicago America/Denver",
    "KY": "America/New_York America/Chicago America/Kentucky/Louisville America/Kentucky/Monticello",
    "MI": "America/Detroit America/Menominee",
    "ND": f"America/Chicago America/Denver {' '.join(f'America/North_Dakota/{one}' for one in _NORTH_DAKOTA.split())}",
    "NE": "America/Chicago America/Denver",
    "NV": "America/Los_Angeles America/Denver",  # West Wendover goes with Utah
    "OR": "America/Los_Angeles America/Boise",
    "SD": "America/Chicago America/Denver",
    "TN": "America/New_York America/Chicago",
    "TX": "America/Chicago America/Denver",
    "BC": "America/Vancouver America/Creston America/Dawson_Creek America/Fort_Nelson America/Edmonton",
    "NL": "America/St_Johns America/Goose_Bay",
    "NS": "America/Halifax America/Glace_Bay",
    "NT": "America/Edmonton America/Inuvik",
    "NU": "America/Iqaluit America/Resolute America/Rankin_Inlet America/Cambridge_Bay America/Atikokan",
    "ON": "America/Toronto America/Atikokan America/Winnipeg",
    "QC": "America/Toronto America/Halifax America/Blanc-Sablon",  # the Magdalen Islands go with Halifax
    "SK": "America/Regina America/Swift_Current America/Edmonton America/Winnipeg",  # Creighton goes with Winnipeg
    "YT": "America/Whitehorse America/Dawson",
}
"""Every zone that the IANA database has for a state or province, also those that go alike today: laws change for one at a time."""

_NAMES = {
    "AL": "Alabama", "AK": "Alaska", "AZ": "Arizona", "AR": "Arkansas", "CA": "California", "CO": "Colorado",
    "CT": "Connecticut", "DE": "Delaware", "DC": "District of Columbia", "FL": "Florida", "GA": "Georgia",
    "HI": "Hawaii", "ID": "Idaho", "IL": "Illinois", "IN": "Indiana", "IA": "Iowa", "KS": "Kansas",
    "KY": "Kentucky", "LA": "Louisiana", "ME": "Maine", "MD": "Maryland", "MA": "Massachusetts",
    "MI": "Michigan", "MN": "Minnesota", "MS": "Mississippi", "MO": "Missouri", "MT": "Montana",
    "NE": "Nebraska", "NV": "Nevada", "NH": "New Hampshire", "NJ": "New Jersey", "NM": "New Mexico",
    "NY": "New York", "NC": "North Carolina", "ND": "North Dakota", "OH": "Ohio", "OK": "Oklahoma",
    "OR": "Oregon", "PA": "Pennsylvania", "RI": "Rhode Island", "SC": "South Carolina", "SD": "South Dakota",
    "TN": "Tennessee", "TX": "Texas", "UT": "Utah", "VT": "Vermont", "VA": "Virginia", "WA": "Washington",
    "WV": "West Virginia", "WI": "Wisconsin", "WY": "Wyoming", "PR": "Puerto Rico", "VI": "Virgin Islands",
    "GU": "Guam", "AS": "American Samoa", "MP": "Northern Mariana Islands", "AB": "Alberta",
    "BC": "British Columbia", "MB": "Manitoba", "NB": "New Brunswick", "NL": "Newfoundland and Labrador",
    "NS": "Nova Scotia", "NT": "Northwest Territories", "NU": "Nunavut", "ON": "Ontario",
    "PE": "Prince Edward Island", "QC": "Quebec", "SK": "Saskatchewan", "YT": "Yukon",
}  # fmt: skip


@cache
def zones_by_state() -> Mapping[str, tuple[str, ...]]:
    """Return the zones of every state of the USA and province of Canada, by its two letters and by its name in capitals."""
    by_code = {code: tuple(zones.split()) for code, zones in _STATES_OF_SEVERAL.items()}
    for zone, codes in _STATES_OF_ONE_ZONE.items():
        by_code |= dict.fromkeys(codes.split(), (zone,))
    return {**by_code, **{_NAMES[code].upper(): zones for code, zones in by_code.items()}}


class QuietHours(BaseModel):
    """When a lead is left in the queue because of the time of day where it is."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, serialize_by_alias=True, validate_by_alias=True, validate_by_name=False
    )

    from_: Annotated[Clock, Field(alias="from", description="Local time at which they begin, such as 21:00.")]
    to: Clock = Field(description="Local time at which they end, such as 08:00.")
    zone_by: Literal["state", "zone"] = Field(
        default="state",
        description="state: the field holds a state of the USA or a province of Canada, as two letters or by name;"
        " with several zones, all of them must be outside. zone: it holds a zone such as America/Chicago.",
    )
    field: str | None = Field(
        default=None, min_length=1, description="The lead's field; `state` or `zone` when left out."
    )

    @model_validator(mode="after")
    def _not_all_day(self) -> Self:
        if self.from_ == self.to:
            raise ValueError(
                "from and to are the same time; nothing would ever be delivered, or everything always"
            )
        return self

    def is_quiet(self, moment: datetime, zone: str) -> bool:
        """Whether a moment falls into the quiet hours of a zone."""
        local = moment.astimezone(time_zone(zone)).time()
        return _between(local, self.from_, self.to)

    def quiet_places(self, moment: datetime) -> list[str]:
        """Return the values of the field, in capitals, for which it is quiet at a moment."""
        quiet = {zone for zone in _zones_asked(self.zone_by) if self.is_quiet(moment, zone)}
        if self.zone_by == "zone":
            return sorted(zone.upper() for zone in quiet)
        return sorted(name for name, zones in zones_by_state().items() if quiet.intersection(zones))

    def must_wait(self, lead: FromClause, moment: datetime, *, otherwise: str) -> ColumnElement[bool]:
        """Return SQL that is true for a lead that must wait at this moment, never NULL.

        Args:
            lead: the table `lead`.
            moment: when the leads are to be sent; aware.
            otherwise: the zone of leads whose field is empty or unknown.
        """
        from sqlalchemy import case, func

        place = func.upper(func.trim(lead.c.fields[self.field or self.zone_by].astext))
        known = zones_by_state() if self.zone_by == "state" else [one.upper() for one in zone_names()]
        return case(
            (place.in_(self.quiet_places(moment)), True),
            (place.in_(sorted(known)), False),
            else_=self.is_quiet(moment, otherwise),
        )


def _zones_asked(zone_by: str) -> list[str]:
    if zone_by == "zone":
        return sorted(zone_names())
    return sorted({zone for zones in zones_by_state().values() for zone in zones})


def _between(at: time, begin: time, end: time) -> bool:
    """Whether a time of day lies in a span that may go over midnight; its end does not belong to it."""
    return begin <= at < end if begin < end else at >= begin or at < end
