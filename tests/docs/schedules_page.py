"""Writes docs/schedules.md, the cookbook of schedules.

    python tests/docs/schedules_page.py            writes the page
    python tests/docs/schedules_page.py --check    exits with 1 when the page is not what it would write

The recipes stand in `docs/schedules.yaml`. Each is put into a batch file and loaded as Leadferry loads it; its
departures are those that the timetable, the preview and the DAG have.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import yaml

from leadferry.batch import calendars
from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch
from leadferry.batch.windows import window_of
from leadferry.schedule import Departure, departures
from leadferry.zones import told_zone

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "schedules.md"
RECIPES = PROJECT / "docs" / "schedules.yaml"

SHOWN = 5
BATCH_ID = "acme_daily"
TODAY = date(2027, 1, 1)
"""The day from which the years of holidays are counted, so that the page says the same in every year."""

_REST = {
    "name": "name: Acme, daily",
    "recipient": "recipient: acme",
    "flows": "flows: [auto]",
    "fields": "fields: [{to: Email, from: email}]",
    "files": 'files: [{name: "leads_{{ delivery.date }}.csv", format: {type: csv}}]',
    "destinations": "destinations: [{id: share, type: folder, path: outbox}]",
}
"""What a recipe needs to be a batch."""

_HEAD = """\
# Schedules: a cookbook

<!-- Written by tests/docs/schedules_page.py from docs/schedules.yaml; a test holds the two together. -->

{count} schedules that people ask for. Find yours, copy its lines into the batch file, change times and zone, and look at what
`leadferry schedule BATCH` says. A calendar or template that a recipe names has to be copied too: it stands at the [end](#the-files), as a file
of that name. Every key is explained in the [reference](reference/schedule.md), calendars on
[their own page](reference/calendars.md).

Each recipe is followed by what it means in words, as Airflow shows it for the DAG, and by its next five departures after a moment at which
something happens: clocks change, a holiday comes, a month is short. The reason stands beside the departure, as in the preview. A whole batch file with a recipe in it:

```yaml
# config/batches/{batch}.yaml
{rest}
schedule:
  at: ["09:00"]
  on: business_days
  calendar: us_business
  timezone: America/New_York
```
"""

_FOOT = """
## The files

```yaml
# config/recipients/acme.yaml
name: Acme
```
"""


def _today() -> AbstractContextManager[Any]:
    return mock.patch.object(calendars, "today", return_value=TODAY)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One schedule of the page."""

    title: str
    batch: str
    """Keys of a batch file."""
    after: str
    """Local time in the schedule's zone."""
    reason: str = ""

    def load(self, files: dict[str, str]) -> Batch:
        """Return the batch that the recipe makes, as Leadferry loads it."""
        with tempfile.TemporaryDirectory() as folder, _today():
            written = {
                **files,
                "config/recipients/acme.yaml": "name: Acme\n",
                f"config/batches/{BATCH_ID}.yaml": "\n".join([*_REST.values(), self.batch]),
            }
            for name, text in written.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
            return load_batch(BATCH_ID, config=Path(folder, "config"))


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and its recipes."""

    title: str
    about: str
    recipes: list[Recipe]


def read() -> tuple[dict[str, str], list[Section]]:
    """Return the config files that recipes name, and the recipes."""
    data = yaml.safe_load(RECIPES.read_text("utf-8"))
    sections = [
        Section(
            title=section["title"],
            about=section.get("about", ""),
            recipes=[
                Recipe(title=one["title"], batch=one["batch"], after=one["after"], reason=one.get("for", ""))
                for one in section["recipes"]
            ],
        )
        for section in data["sections"]
    ]
    return data["files"], sections


def upcoming(batch: Batch, after: str) -> list[Departure]:
    """Return the first departures at or after a local moment."""
    zone = ZoneInfo(_zone(batch))
    start = datetime.fromisoformat(after).replace(tzinfo=zone) - timedelta.resolution
    found = departures(batch.schedule, timezone=batch.timezone, after=start, batch_id=batch.id)
    return list(islice(found, SHOWN))


def page() -> str:
    """Return the text of the page."""
    files, sections = read()
    count = sum(len(section.recipes) for section in sections)
    rest = "\n".join(_REST.values())
    lines = [_HEAD.format(count=count, batch=BATCH_ID, rest=rest), *_contents(sections)]
    for section in sections:
        lines += ["", f"## {section.title}", *(["", section.about] if section.about else [])]
        for recipe in section.recipes:
            lines += _recipe(recipe, files)
    lines.append(_FOOT)
    lines += [f"```yaml\n# {name}\n{text.rstrip()}\n```\n" for name, text in files.items()]
    return "\n".join(lines).rstrip() + "\n"


def _contents(sections: list[Section]) -> Iterator[str]:
    for section in sections:
        links = " · ".join(f"[{one.title}](#{_anchor(one.title)})" for one in section.recipes)
        yield f"* **{section.title}:** {links}"


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _recipe(recipe: Recipe, files: dict[str, str]) -> Iterator[str]:
    batch = recipe.load(files)
    yield from ["", f"### {recipe.title}", ""]
    if recipe.reason:
        yield from [recipe.reason, ""]
    yield from ["```yaml", recipe.batch.rstrip(), "```", ""]
    yield f"In words: `{batch.schedule}` ({_zone(batch)})"
    yield ""
    yield from _table([_row(one, batch) for one in upcoming(batch, recipe.after)])


def _row(one: Departure, batch: Batch) -> dict[str, str]:
    schedule: Any = batch.schedule
    row = {"departs": f"{one.local:%a %Y-%m-%d} {_clock(one.local)} {told_zone(one.local)}"}
    if schedule.generate_before:
        begins = one.local.astimezone(ZoneInfo("UTC")) - schedule.generate_before
        row["files are made from"] = _clock(begins.astimezone(one.local.tzinfo))
    row["UTC"] = f"{one.utc:%Y-%m-%d} {_clock(one.utc)}"
    if batch.select.window != "all_pending":
        zone, calendar = _zone(batch), schedule.calendar
        window = window_of(batch.select.window, one.utc, zone=zone, calendar=calendar)
        begins = (
            f"{window.begins.astimezone(one.local.tzinfo):%a %m-%d %H:%M}"
            if window.begins
            else "the one before"
        )
        row["window"] = f"from {begins} to {window.ends.astimezone(one.local.tzinfo):%a %m-%d %H:%M}"
    return {**row, "why": one.note}


def _table(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield the rows; a column in which nothing stands is left out."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row[name].replace('|', chr(92) + '|') for name in columns)} |"


def _clock(moment: datetime) -> str:
    """Write a time of day; its seconds only when `spread` gives it some."""
    return f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"


def _zone(batch: Batch) -> str:
    schedule: Any = batch.schedule
    return schedule.timezone or batch.timezone


def main() -> int:
    """Write the page, or check it; see the module."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, "utf-8")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != text:
        sys.stderr.write(f"{os.path.relpath(PAGE)} is out of date; run: python {os.path.relpath(__file__)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
