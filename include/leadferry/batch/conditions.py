"""What must hold before a departure takes leads: the key `conditions` of a batch file."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leadferry.batch.selection import OnlyIf
from leadferry.schedule.model import AssetName
from leadferry.units import Duration


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SqlReady(_Model):
    """Ready when a query's first row begins with something true."""

    connection: str = Field(
        min_length=1, description="Airflow connection of a PostgreSQL or another database."
    )
    query: str = Field(
        min_length=1, description="Ready when the first value of its first row is neither 0, false nor null."
    )


DATE = r"\{\{\s*date\s*\}\}"
"""What stands for the day of the departure in a path."""


class FileReady(_Model):
    """Ready when a file is there."""

    path: str = Field(
        min_length=1,
        description="A path or the URL of an object: /mnt/in/ready.flag, s3://bucket/in/{{ date }}.done."
        " {{ date }} is the local day of the departure, as 2026-01-30.",
    )
    connection: str | None = Field(default=None, description="Airflow connection for a URL.")

    @model_validator(mode="after")
    def _only_the_date_varies(self) -> Self:
        if "{{" in re.sub(DATE, "", self.path):
            raise ValueError("path may hold {{ date }} and nothing else in braces")
        if self.connection is not None and "://" not in self.path:
            raise ValueError("connection goes with a URL such as s3://bucket/key")
        return self


class Ready(_Model):
    """What a departure waits for before it takes leads; exactly one of sql, file and asset."""

    sql: SqlReady | None = None
    file: FileReady | None = None
    asset: AssetName | None = Field(
        default=None,
        description="Name of an Airflow asset: ready when it was updated since the departure before, whether or not that took"
        " leads.",
    )
    timeout: Annotated[Duration, Field(gt=timedelta(), le=timedelta(days=7))] = Field(
        default=timedelta(hours=1),
        description="After this time the run fails as not ready; nothing was taken.",
    )
    every: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(hours=1))] = Field(
        default=timedelta(minutes=1), description="How often it is looked."
    )

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if sum(one is not None for one in (self.sql, self.file, self.asset)) != 1:
            raise ValueError("say what to wait for: exactly one of sql, file and asset")
        return self

    def __str__(self) -> str:
        """Say it as one would aloud."""
        if self.asset is not None:
            return f"an update of the asset {self.asset}"
        return f"the file {self.file.path}" if self.file else "what the query asks for"


class DepartEarly(_Model):
    """When a batch departs before its time; once for each delivery."""

    leads: int | None = Field(default=None, ge=1, description="This many leads wait.")
    oldest: Annotated[Duration, Field(gt=timedelta())] | None = Field(
        default=None, description="The oldest lead waits this long."
    )
    every: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(hours=1))] = Field(
        default=timedelta(minutes=1), description="How often it is looked."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.leads is None and self.oldest is None:
            raise ValueError("say when: leads: 500, oldest: 2h, or both")
        return self


class Conditions(_Model):
    """What must hold before a departure takes leads."""

    min_leads: int = Field(
        default=0, ge=0, description="Fewest leads worth a departure; fewer stay in the queue."
    )
    max_wait: Duration | None = Field(
        default=None, description="Depart below the minimum once the oldest lead has waited this long."
    )
    max_leads: int | None = Field(
        default=None,
        ge=1,
        description="More leads than this are taken for a mistake: the run fails, they stay in the queue until a person"
        " triggers the DAG with `ignore_maximum`.",
    )
    only_if: list[OnlyIf] = Field(
        default=[], description="Depart only when this many of the leads that may go meet a condition."
    )
    ready: Ready | None = Field(default=None, description="Wait for this before leads are taken.")
    depart_early: DepartEarly | None = Field(
        default=None,
        description="Depart before the time of the schedule when enough leads wait, or one for too long.",
    )

    @property
    def longest_wait(self) -> timedelta | None:
        """How long the oldest lead waits before the minimum does not count any more."""
        early = self.depart_early.oldest if self.depart_early else None
        return min((one for one in (self.max_wait, early) if one is not None), default=None)

    @model_validator(mode="after")
    def _minimum_is_below_the_maximum(self) -> Self:
        if self.max_leads is not None and self.max_leads < self.min_leads:
            raise ValueError("max_leads is less than min_leads: no number of leads could ever depart")
        return self

    @model_validator(mode="after")
    def _what_departs_early_is_enough(self) -> Self:
        early = self.depart_early.leads if self.depart_early else None
        if early is not None and early < self.min_leads:
            raise ValueError(
                "depart_early.leads is less than min_leads: it would depart once, take nothing, and not be asked again"
            )
        return self


def not_ready(ready: Ready, *, error: str | None = None) -> str:
    """Say in the ledger and to people why a run took nothing; `error` is the kind of the last one, if any."""
    told = f"{NOT_READY}: waited in vain for {ready}"
    return f"{told} (the last look ended in {error})" if error else told


NOT_READY = "not ready"
"""How the reason of a run that waited in vain begins."""
