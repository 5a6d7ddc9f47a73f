"""A file of `config/calendars/`: what a person may write in it, and the plain dates that it comes down to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from leadferry.schedule.calendar import Blackout, Calendar, Hours, told_hours
from leadferry.schedule.clock import WEEKDAYS, Clock, Weekday, spoken
from leadferry.schedule.date_files import DateFileError, csv_dates
from leadferry.schedule.fiscal import FiscalYear
from leadferry.schedule.holiday_lists import (
    DatesFound,
    check_categories,
    check_country,
    check_market,
    check_names,
    country_holidays,
    market_holidays,
    without,
)
from leadferry.schedule.ics import ics_dates
from leadferry.zones import Zone

YEARS_AHEAD = 5
"""How many years of holidays are computed; each reading of the file moves this on, see docs/decisions."""

_DAY = timedelta(days=1)
_YEARLY = r"^(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"
_LEAP_YEAR = 2024


class CalendarFaultError(ValueError):
    """What a calendar comes down to cannot be meant; says under which key."""

    def __init__(self, text: str, *, key: str) -> None:
        super().__init__(text)
        self.text = text
        self.key = key


def _check_day(written: str) -> str:
    """Refuse 02-30 and 2026-02-30; 02-29 comes in some years."""
    try:
        date.fromisoformat(written if written.count("-") > 1 else f"{_LEAP_YEAR}-{written}")
    except ValueError:
        raise ValueError(f"{written!r} is no day such as 2026-12-24, or 12-24 for every year") from None
    return written


def years_around(today: date) -> range:
    """Return the years whose holidays are computed: the last one, this one, and those ahead."""
    return range(today.year - 1, today.year + YEARS_AHEAD + 1)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(kw_only=True)
class Surroundings:
    """What a calendar needs to be resolved."""

    years: range
    folder: Path
    """Where its files of dates are."""
    other: Callable[[str], Calendar]
    """Returns another calendar by its id."""


class Country(_Model):
    """Public holidays of a country, or of a part of it."""

    country: str = Field(description="Two letters, such as US.")
    subdivision: str | None = Field(default=None, description="State or province, such as NY.")
    categories: tuple[str, ...] = Field(default=(), description="Kinds of holidays; public when left out.")
    without: tuple[str, ...] = Field(default=(), description="Names of holidays on which work goes on.")

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        check_country(self.country, self.subdivision)
        check_categories(self.country, self.categories)
        if self.without:
            check_names(self.find(years_around(date(2026, 1, 1))).closed, self.without)
        return self

    def find(self, years: range) -> DatesFound:
        """Return the holidays, those without effect here included."""
        return country_holidays(self.country, self.subdivision, years, self.categories)

    def resolve(self, around: Surroundings) -> DatesFound:
        """Return the closed days."""
        found = self.find(around.years)
        return DatesFound(closed=without(found.closed, self.without), known_until=found.known_until)


class Market(_Model):
    """Days on which an exchange does not trade."""

    market: str = Field(description="NYSE, XLON, XETR, ECB, …")
    half_days: Clock | None = Field(
        default=None,
        description="Also keep its half days, which end at this time unless the exchange says another.",
    )

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        check_market(self.market)
        return self

    def resolve(self, around: Surroundings) -> DatesFound:
        """Return the closed days and half days."""
        return market_holidays(self.market, around.years, half_days_end=self.half_days)


DATE_FILE_PATTERN = r"^[^/\\].*\.([iI][cC][sS]|[cC][sS][vV])$"
"""Some programs write their endings in upper case; a flag for that is not known where the editor's schema is read."""


class DateFile(_Model):
    """Days listed in a file beside the calendar."""

    file: str = Field(
        pattern=DATE_FILE_PATTERN, description="Name of an .ics or .csv file in config/calendars."
    )
    column: str = Field(default="date", description="CSV: the column with the dates.")
    name_column: str | None = Field(
        default=None, description="CSV: the column with the names; `name` if there is one."
    )
    date_format: str | None = Field(
        default=None, description="CSV: such as %m/%d/%Y; ISO dates when left out."
    )
    timezone: Zone | None = Field(
        default=None,
        description="ICS: the zone in which times in UTC are meant; the file's own X-WR-TIMEZONE when left out.",
    )

    @model_validator(mode="after")
    def _stays_in_the_folder(self) -> Self:
        if ".." in Path(self.file).parts:
            raise ValueError("the file must be in config/calendars")
        return self

    def resolve(self, around: Surroundings) -> DatesFound:
        """Return the closed days.

        Raises:
            DateFileError: see `date_files`.
        """
        path = around.folder / self.file
        try:
            return self._read(path, around.years)
        except DateFileError as error:
            error.file = self.file
            raise

    def _read(self, path: Path, years: range) -> DatesFound:
        if path.suffix.lower() == ".ics":
            return ics_dates(path, years=years, zone=self.timezone)
        return csv_dates(path, column=self.column, name_column=self.name_column, date_format=self.date_format)


def _check_days(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else [value]


class CompanyDays(_Model):
    """Days of one's own: single dates, or dates that come every year."""

    dates: Annotated[
        tuple[date | Annotated[str, Field(pattern=_YEARLY), AfterValidator(_check_day)], ...],
        BeforeValidator(_check_days, json_schema_input_type=list[str] | str),
        Field(min_length=1),
    ] = Field(description="2026-12-24, or 12-24 for every year, or a list.")
    name: str = Field(default="company day", min_length=1)

    def resolve(self, around: Surroundings) -> DatesFound:
        """Return the closed days."""
        days = [day for one in self.dates for day in _every_year(one, around.years)]
        yearly = any(isinstance(one, str) for one in self.dates)
        until = date(around.years[-1], 12, 31) if yearly else None
        return DatesFound(closed=dict.fromkeys(days, self.name), known_until=until)


def _every_year(day: date | str, years: range) -> list[date]:
    if isinstance(day, date):
        return [day]
    found = []
    for year in years:
        try:
            found.append(date.fromisoformat(f"{year}-{day}"))
        except ValueError:  # 29 February
            continue
    return found


class Another(_Model):
    """Days on which another calendar is closed."""

    calendar: str = Field(description="Another file of config/calendars, without .yaml.")


class Intersection(_Model):
    """Days on which several other calendars are all closed."""

    all_of: tuple[str, ...] = Field(
        min_length=2, description="Other files of config/calendars, without .yaml."
    )

    @model_validator(mode="after")
    def _differ(self) -> Self:
        twice = [one for one, count in Counter(self.all_of).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} stands twice in all_of")
        return self


_KEYS = {
    "country": Country,
    "market": Market,
    "file": DateFile,
    "dates": CompanyDays,
    "calendar": Another,
    "all_of": Intersection,
}


def _kind(value: Any) -> str | None:
    return next(
        (
            key
            for key, model in _KEYS.items()
            if isinstance(value, model) or (isinstance(value, Mapping) and key in value)
        ),
        None,
    )


Source = Annotated[
    Annotated[Country, Tag("country")]
    | Annotated[Market, Tag("market")]
    | Annotated[DateFile, Tag("file")]
    | Annotated[CompanyDays, Tag("dates")]
    | Annotated[Another, Tag("calendar")]
    | Annotated[Intersection, Tag("all_of")],
    Discriminator(
        _kind,
        custom_error_type="calendar_source",
        custom_error_message="must say where closed days come from: country, market, file, dates, calendar or all_of",
    ),
]
"""Where closed days come from."""


_NOTHING_OPEN = "a weekend of seven days leaves nothing open"


class CalendarFile(_Model):
    """One calendar as it is written: `config/calendars/<id>.yaml`."""

    name: str = Field(default="", description="What people call it.")
    weekend: tuple[Weekday, ...] | None = Field(
        default=None,
        description="[sat, sun] when left out, or what the other calendars named under `closed` say.",
    )
    closed: tuple[Source, ...] = Field(
        default=(), description="Closed days besides the weekend; a day that any of these closes is closed."
    )
    open: tuple[date, ...] = Field(
        default=(), description="Days on which work goes on in spite of everything above."
    )
    half_days: dict[
        Annotated[str, Field(pattern=r"^(\d{4}-)?\d\d-\d\d$"), AfterValidator(_check_day)], Clock
    ] = Field(
        default={},
        description='The latest time on single days: {2026-12-24: "13:00"}, or 12-24 for every year.',
    )
    hours: Hours | None = Field(
        default=None, description="Business hours; a departure outside goes when they begin again."
    )
    blackouts: tuple[Blackout, ...] = Field(
        default=(), description="Maintenance windows; what is due in one departs at its end."
    )
    fiscal: FiscalYear | None = Field(default=None, description="The company's year.")

    @model_validator(mode="before")
    @classmethod
    def _days_as_text(cls, value: Any) -> Any:
        """YAML reads 2026-12-24 as a date, keys included."""
        if isinstance(value, Mapping) and isinstance(value.get("half_days"), Mapping):
            return {**value, "half_days": {str(day): at for day, at in value["half_days"].items()}}
        return value

    @model_validator(mode="after")
    def _somebody_works(self) -> Self:
        if self.weekend is not None and len(set(self.weekend)) == len(WEEKDAYS):
            raise ValueError(_NOTHING_OPEN)
        return self

    def needs(self) -> list[str]:
        """Return the ids of the calendars that this one is made of."""
        found: list[str] = []
        for source in self.closed:
            if isinstance(source, Another):
                found.append(source.calendar)
            if isinstance(source, Intersection):
                found += source.all_of
        return found

    def resolve(self, calendar_id: str, around: Surroundings) -> Calendar:
        """Return the calendar with plain dates.

        Raises:
            DateFileError: a file of dates cannot be read.
            CalendarFaultError: no time is left to work in, or a closed day is a half day.
        """
        if len(_Resolution(file=self, around=around).weekend()) == len(WEEKDAYS):
            raise CalendarFaultError(_NOTHING_OPEN, key="closed")
        try:
            calendar = _Resolution(file=self, around=around).calendar(calendar_id)
        except ValidationError as error:  # only together can it be seen whether blackouts leave any time
            told = "; ".join(str(one["ctx"]["error"]) for one in error.errors())
            raise CalendarFaultError(told, key="blackouts") from None
        for day in self.half_days:
            why = calendar.why_closed(date.fromisoformat(day)) if day.count("-") > 1 else None
            if why:
                raise CalendarFaultError(f"{day} is closed ({why}), so it is no half day", key="half_days")
        return calendar


@dataclass(kw_only=True)
class _Resolution:
    """One calendar on its way to plain dates."""

    file: CalendarFile
    around: Surroundings
    closed: dict[date, str] = field(default_factory=dict)
    half_days: dict[date, time] = field(default_factory=dict)
    untils: list[date] = field(default_factory=list)

    def calendar(self, calendar_id: str) -> Calendar:
        weekend = self.weekend()
        opened = set(self.file.open) | self._opened_by_others()
        for source in self.file.closed:
            self._add(source, weekend=weekend)
        for day in self.file.open:
            self.closed.pop(day, None)
        own = {
            found: ends
            for day, ends in self.file.half_days.items()
            for found in _every_year(
                date.fromisoformat(day) if day.count("-") > 1 else day, self.around.years
            )
        }
        if any(day.count("-") == 1 for day in self.file.half_days):
            self.untils.append(date(self.around.years[-1], 12, 31))
        return Calendar(
            id=calendar_id,
            weekend=tuple(day for day in WEEKDAYS if day in weekend),
            closed=dict(sorted(self.closed.items())),
            opened=tuple(sorted(opened)),
            half_days=dict(sorted({**self.half_days, **own}.items())),
            hours=self.file.hours or self._hours_of_others(),
            blackouts=(*self.file.blackouts, *(one for other in self._others() for one in other.blackouts)),
            fiscal=self.file.fiscal or self._fiscal_of_others(),
            known_until=min(self.untils, default=None),
        )

    def _others(self) -> list[Calendar]:
        """Return the calendars of which this one takes everything."""
        return [self.around.other(one.calendar) for one in self.file.closed if isinstance(one, Another)]

    def _intersected(self) -> Iterator[list[Calendar]]:
        """Yield the calendars of each intersection."""
        for source in self.file.closed:
            if isinstance(source, Intersection):
                yield [self.around.other(one) for one in source.all_of]

    def _hours_of_others(self) -> Hours | None:
        """Return the time of day in which all other calendars are open; None is the whole day.

        Raises:
            CalendarFaultError: there is no such time, or the calendars of an intersection disagree.
        """
        found = [one.hours for one in self._others()]
        for calendars in self._intersected():
            if any(one.hours != calendars[0].hours for one in calendars):
                names = spoken([one.id for one in calendars])
                told = f"{names} have different business hours; write the `hours` of this calendar"
                raise CalendarFaultError(told, key="closed")
            found.append(calendars[0].hours)
        known = [one for one in found if one]
        if not known:
            return None
        opens, closes = max(one.opens for one in known), min(one.closes for one in known)
        if opens >= closes:
            hours = spoken([told_hours(one) for one in dict.fromkeys(known)])
            told = f"the business hours of these calendars never overlap: {hours}; write the `hours` of this calendar"
            raise CalendarFaultError(told, key="closed")
        return Hours(opens=opens, closes=closes)

    def _fiscal_of_others(self) -> FiscalYear:
        """Return the fiscal year of the other calendars that have one.

        Raises:
            CalendarFaultError: they have different ones.
        """
        found = [one for one in self._others() if one.fiscal != FiscalYear()]
        if any(one.fiscal != found[0].fiscal for one in found):
            names = spoken([one.id for one in found])
            told = f"{names} have different fiscal years; write the `fiscal` of this calendar"
            raise CalendarFaultError(told, key="closed")
        return found[0].fiscal if found else FiscalYear()

    def weekend(self) -> set[Weekday]:
        """Return the file's own weekend, or that of the calendars it is made of."""
        if self.file.weekend is not None:
            return set(self.file.weekend)
        parts = [set(one.weekend) for one in self._others()]
        parts += [
            set.intersection(*(set(one.weekend) for one in calendars)) for calendars in self._intersected()
        ]
        return set.union(*parts) if parts else {"sat", "sun"}

    def _opened_by_others(self) -> set[date]:
        """Return the days that another calendar opens and none of them closes."""
        others = self._others()
        days = {day for one in others for day in one.opened}
        return {day for day in days if all(one.is_open(day) for one in others)}

    def _add(self, source: Any, *, weekend: set[Weekday]) -> None:
        if isinstance(source, Another):
            self._add_all_of([self.around.other(source.calendar)], weekend=weekend)
        elif isinstance(source, Intersection):
            self._add_all_of([self.around.other(one) for one in source.all_of], weekend=weekend)
        else:
            found: DatesFound = source.resolve(self.around)
            self.closed = {**found.closed, **self.closed}
            self._shorten(found.half_days)
            self.untils += [found.known_until] if found.known_until else []

    def _shorten(self, half_days: Mapping[date, time]) -> None:
        """Add half days; of two ends on one day the earlier counts."""
        for day, ends in half_days.items():
            self.half_days[day] = min(ends, self.half_days.get(day, ends))

    def _add_all_of(self, calendars: list[Calendar], *, weekend: set[Weekday]) -> None:
        """Add the days on which all of the calendars are closed, but for the weekend's."""
        self.untils += [one.known_until for one in calendars if one.known_until]
        self._shorten(_half_days_of_all(calendars))
        day, last = date(self.around.years[0], 1, 1), date(self.around.years[-1], 12, 31)
        while day <= last:
            reasons = [one.why_closed(day) for one in calendars]
            plain = set(reasons) == {"weekend"} and WEEKDAYS[day.weekday()] in weekend
            if None not in reasons and not plain:
                told = next((one for one in reasons if one and one != "weekend"), "weekend")
                self.closed.setdefault(day, told)
            day += _DAY


def _half_days_of_all(calendars: list[Calendar]) -> dict[date, time]:
    """Return the days on which each calendar ends early or is closed, with the last of the ends."""
    found = {}
    for day in sorted({day for one in calendars for day in one.half_days}):
        ends = [one.half_days.get(day) for one in calendars if one.is_open(day)]
        known = [one for one in ends if one]
        if known and len(known) == len(ends):
            found[day] = max(known)
    return found
