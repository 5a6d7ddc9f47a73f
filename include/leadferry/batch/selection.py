"""Which of the pending leads go, as written in a batch file under `select`: rules, checks, caps, duplicates, order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import MAXYEAR, MINYEAR, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from leadferry.batch.files import ID_PATTERN
from leadferry.batch.quiet import QuietHours
from leadferry.batch.windows import WindowRule
from leadferry.formats.xml_schema import FOLDER
from leadferry.mapping.checks import Check, Consent
from leadferry.mapping.rules import Condition, Rule
from leadferry.project import config_folder
from leadferry.store.caps import Period
from leadferry.units import MOST_LEADS, Duration
from leadferry.zones import time_zone

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MOST_PLACES = 50_000
_PHONE = re.compile(r"phone|mobile|cell|(^|_)(tel|fax)(_|$)", re.IGNORECASE)


def _blame(*at: str | int, text: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{text}", {"text": text, "at": at})


def _check_day(written: str) -> str:
    """Refuse 2026-02-31, and days whose midnight no moment of some zones can be."""
    try:
        can_be = MINYEAR < date.fromisoformat(written).year < MAXYEAR
    except ValueError:
        can_be = False
    if not can_be:
        raise ValueError(f"{written!r} is no day such as 2026-01-31")
    return written


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cap(_Model):
    """The most leads, or the most revenue, that the batch may deliver in a period."""

    name: str | None = Field(
        default=None, min_length=1, max_length=100, description="Said where it keeps leads back."
    )
    leads: int | None = Field(default=None, ge=0, le=MOST_LEADS, description="Most leads in the period.")
    revenue: Decimal | None = Field(default=None, ge=0, description="Most revenue in the period.")
    per: Literal["hour", "day", "week", "month", "total"] = Field(
        description="The period, by the clock of the batch's zone; weeks begin on Monday; total never ends."
    )
    on: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] | None = Field(
        default=None, min_length=1, description="Counts only on these days; goes with per: hour and per: day."
    )
    price: Decimal | None = Field(default=None, gt=0, description="What every lead is worth.")
    price_field: str | None = Field(
        default=None, min_length=1, description="Lead field that holds what the lead is worth."
    )
    overflow: Literal["hold", "next", "drop"] = Field(
        default="hold",
        description="Leads beyond it stay in the queue, go to the queue of next_batch, or are withheld with the cap's name.",
    )
    next_batch: str | None = Field(
        default=None,
        pattern=ID_PATTERN,
        description="The batch that gets what is beyond, with overflow: next.",
    )
    notice_at: float = Field(
        default=0.8, gt=0, le=1, description="From this share on the period counts as nearly used up."
    )

    @field_validator("next_batch")
    @classmethod
    def _is_there(cls, named: str | None, info: ValidationInfo) -> str | None:
        """Refuse a batch that has no file: leads in its queue would wait for ever. Asked only while files are read."""
        folder = (info.context or {}).get(FOLDER)
        if named is None or folder is None or (Path(folder) / "batches" / f"{named}.yaml").exists():
            return named
        raise ValueError(f"there is no batch {named!r}")

    @property
    def told(self) -> str:
        """Its name, or what it says."""
        if self.name is not None:
            return self.name
        amount = f"{self.leads} leads" if self.leads is not None else f"{self.revenue} revenue"
        period = "in all" if self.per == "total" else f"per {self.per}"
        days = f" on {', '.join(self.on)}" if self.on else ""
        return f"cap {amount} {period}{days}"

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.leads is None) is (self.revenue is None):
            raise ValueError("say exactly one of leads and revenue")
        prices = sum(one is not None for one in (self.price, self.price_field))
        if prices != (0 if self.revenue is None else 1):
            raise ValueError("with revenue, say exactly one of price and price_field; with leads, neither")
        if self.on and self.per not in {"hour", "day"}:
            raise _blame("on", text="goes with per: hour and per: day")
        if (self.overflow == "next") is not (self.next_batch is not None):
            raise ValueError("overflow: next and next_batch go together")
        return self

    def period_at(self, moment: datetime, *, timezone: str) -> Period | None:
        """Return the period that a moment lies in; None on a day on which the cap does not count.

        Args:
            moment: aware.
            timezone: the batch's zone; days begin at its midnight, and may have 23 or 25 hours.
        """
        local = moment.astimezone(time_zone(timezone))
        if self.on and _WEEKDAYS[local.weekday()] not in self.on:
            return None
        if self.per == "total":
            return Period()
        if self.per == "hour":
            into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            begins = moment - into
            return Period(begins=begins, ends=begins + timedelta(hours=1))
        first, last = _days(local, self.per)
        return Period(begins=first, ends=last)


def _days(local: datetime, per: str) -> tuple[datetime, datetime]:
    """Return the midnights at which a day, week or month begins and ends."""
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if per == "day":
        return midnight, midnight + timedelta(days=1)
    if per == "week":
        monday = midnight - timedelta(days=midnight.weekday())
        return monday, monday + timedelta(days=7)
    first = midnight.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


class Dedupe(_Model):
    """Which leads are duplicates, of which only the first goes."""

    by: list[str | list[str]] = Field(
        min_length=1,
        description="A lead is a duplicate when one of these is the same; fields in a list of their own must all be.",
    )
    within: Duration | Literal["forever"] | None = Field(
        default=None,
        description="Also of leads that went this long before, or ever; left out: only in the file.",
    )
    in_file: bool = Field(default=True, description="Of leads in the same delivery.")
    scope: Literal["batch", "recipient"] = Field(
        default="batch", description="Whose earlier deliveries count: the batch's, or all for its recipient."
    )
    read_as: dict[str, Literal["phone", "text"]] = Field(
        default={},
        description="How a field is compared; fields called phone, mobile, cell, tel or fax are phones.",
    )
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = Field(
        default=None,
        description="ISO country code of phone numbers without one; that of the recipient's locale when left out.",
    )

    @model_validator(mode="after")
    def _compares_something(self) -> Self:
        if not self.in_file and self.within is None:
            raise ValueError("in_file: false without within compares with nothing")
        names = [self.name(one) for one in self.by]
        for index, name in enumerate(names):
            if not name or name in names[:index]:
                raise _blame("by", index, text="is empty" if not name else f"{name!r} stands twice")
        unknown = set(self.read_as) - set(self.fields)
        if unknown:
            raise _blame("read_as", text=f"{min(unknown)!r} is not among the fields in by")
        return self

    @staticmethod
    def name(one: str | list[str]) -> str:
        """Return how an entry of `by` is called where a lead is withheld."""
        return one if isinstance(one, str) else "+".join(one)

    @property
    def fields(self) -> list[str]:
        """All fields that are compared."""
        return [name for one in self.by for name in ([one] if isinstance(one, str) else one)]

    def is_phone(self, field: str) -> bool:
        """Tell whether a field is compared as a phone number."""
        return self.read_as.get(field, "phone" if _PHONE.search(field) else "text") == "phone"


class ZipList(_Model):
    """ZIP codes from a file, with what it said when it was read."""

    path: str
    zips: list[str]


def _read_zips(value: Any, info: ValidationInfo) -> Any:
    """Read the file that a batch names; what is frozen is complete already."""
    if not isinstance(value, str):
        return value
    folder = Path((info.context or {}).get(FOLDER) or config_folder()).resolve()
    file = (folder / value.removeprefix("config/")).resolve()
    if not file.is_relative_to(folder):
        raise ValueError(f"{value!r} is not in the config folder; put the file there")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"there is no readable text file {value!r} in the config folder") from None
    zips = [line.partition("#")[0].strip() for line in lines]
    return {"path": value, "zips": sorted({one for one in zips if one})}


class Area(_Model):
    """Where leads must come from: from one of the states, or from one of the ZIP codes."""

    states: list[str] = Field(default=[], max_length=_MOST_PLACES, description="As leads write them: CA, TX.")
    state_field: str = Field(default="state", min_length=1)
    zips: list[str] = Field(
        default=[], max_length=_MOST_PLACES, description="ZIP codes, or the digits that they begin with."
    )
    zip_file: Annotated[ZipList, BeforeValidator(_read_zips, json_schema_input_type=str)] | None = Field(
        default=None, description="Text file in the config folder with such ZIP codes, one in a line."
    )
    zip_field: str = Field(default="zip", min_length=1)

    @property
    def prefixes(self) -> list[str]:
        """All ZIP codes and beginnings of such."""
        return [*self.zips, *(self.zip_file.zips if self.zip_file else [])]

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if not self.states and not self.prefixes:
            raise ValueError("name at least one of states, zips and zip_file, with something in it")
        if len(self.prefixes) > _MOST_PLACES:
            raise _blame("zip_file", text=f"has more than {_MOST_PLACES} ZIP codes")
        return self


class OnlyIf(_Model):
    """How many of the leads that may go must meet a condition before any of them goes."""

    name: str = Field(min_length=1, max_length=100)
    leads: Condition = Field(description="A condition as in a rule, without a name.")
    at_least: int = Field(default=1, ge=0)
    at_most: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.at_most is not None and self.at_most < self.at_least:
            raise ValueError("at_most must not be below at_least")
        return self


class Select(_Model):
    """Which of the pending leads go."""

    rules: list[Rule] = []
    checks: list[Check] = Field(
        default=[],
        alias="validate",
        description="What a lead must have to be delivered: required values, possible addresses and numbers.",
    )
    area: Area | None = Field(default=None, description="Where leads must come from.")
    consent: Consent | None = Field(default=None, description="What shows that the person agreed.")
    caps: list[Cap] = Field(default=[], description="Most leads or revenue in a period.")
    dedupe: Dedupe | None = Field(default=None, description="Which leads are duplicates.")
    mode: Literal["new", "cumulative", "full", "changed"] = Field(
        default="new",
        description="new: what waits. cumulative: also what was delivered before. full: all leads of the flows that meet"
        " the rules now. changed: what was added, changed or removed since it was last delivered.",
    )
    order: Literal["oldest", "newest", "random"] = "oldest"
    limit: int | None = Field(
        default=None,
        ge=1,
        le=MOST_LEADS,
        description="Most leads in one delivery; the rest stay in the queue.",
    )
    received_from: (
        Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_check_day)] | None
    ) = Field(
        default=None,
        description="A new batch collects leads received from this day on (in the batch's zone); all when left out.",
    )
    window: WindowRule = Field(
        default="all_pending",
        description="Which leads by the time they were received: all_pending (up to now), since_previous (up to the time"
        " of the departure), or those of a period: {period: week, days: mon-fri}. Late ones go with the next.",
    )
    quiet_hours: QuietHours | None = Field(
        default=None,
        description='Leads wait while it is night where they are: {from: "21:00", to: "08:00", zone_by: state}.',
    )

    @model_validator(mode="after")
    def _rule_names_differ(self) -> Self:
        checks = [(index, one) for index, one in enumerate(self.checks) if isinstance(one, Rule)]
        places = [(("rules", index, "name"), rule.name) for index, rule in enumerate(self.rules)]
        places += [(("validate", index, "name"), rule.name) for index, rule in checks]
        seen: set[str] = set()
        for place, name in places:
            if name in seen:
                told = (
                    f"two rules have the name {name!r}; a withheld lead names its rule, so names must differ"
                )
                raise _blame(*place, text=told)
            seen.add(name)
        return self

    @model_validator(mode="after")
    def _mode_goes_with_the_rest(self) -> Self:
        if self.mode != "new" and (self.caps or self.limit is not None):
            key = "caps" if self.caps else "limit"
            raise _blame(key, text=f"a part of the leads cannot go with mode: {self.mode}; leave {key} out")
        return self

    @model_validator(mode="after")
    def _caps_agree(self) -> Self:
        names = [cap.told for cap in self.caps]
        worth = [(cap.price, cap.price_field) for cap in self.caps if cap.revenue is not None]
        for index, cap in enumerate(self.caps):
            if names[index] in names[:index]:
                raise _blame("caps", index, text=f"two caps are called {names[index]!r}; give one a name")
            if cap.revenue is not None and (cap.price, cap.price_field) != worth[0]:
                raise _blame(
                    "caps", index, text="all caps on revenue must have the same price or price_field"
                )
        return self

    @property
    def worth(self) -> tuple[Decimal | None, str | None]:
        """The price of every lead, or the field that holds it; both None without a cap on revenue."""
        return next(
            ((cap.price, cap.price_field) for cap in self.caps if cap.revenue is not None), (None, None)
        )

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> Mapping[str, Any]:
        """Write `validate` under its name in the YAML: as an attribute it would hide a method of pydantic's."""
        written: dict[str, Any] = handler(self)
        return {("validate" if name == "checks" else name): value for name, value in written.items()}
