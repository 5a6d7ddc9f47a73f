"""B1: a whole delivery, against the COPY of the same columns of the same leads out of the same PostgreSQL."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from sqlalchemy import text

from benchmarks.leads import FLOW, fill, tidy
from benchmarks.measure import Number, Sample, child, interleaved, middle, timed
from benchmarks.server import database_url, postgres
from leadferry.store import routing, settling
from leadferry.store.database import Database

FEW = 100_000
"""The smaller delivery that the memory of the large one is compared with."""


class Ferry:
    """Delivers the same leads again and again: what was delivered is given back, outside of the measured time."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.database = Database(url)
        self.archive = folder / "archive"
        self._runs = 0

    def copy(self) -> Sample:
        """Read the yardstick."""
        return child("benchmarks.ours", "copy", self.url)

    def deliver(self, variant: str = "plain") -> Sample:
        """Make one delivery."""
        self._runs += 1
        sample = child("benchmarks.ours", "deliver", self.url, self.archive, f"run-{self._runs}", variant)
        self.give_back(int(sample.pop("delivery")))
        return sample

    def give_back(self, delivery_id: int) -> None:
        """Let the delivery have failed, and leave no trace that would make the next one slower."""
        settling.settle(self.database, delivery_id)
        shutil.rmtree(self.archive, ignore_errors=True)
        with self.database.transaction() as connection:
            # The store's guards refuse this to everybody else.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("TRUNCATE withheld"))
        tidy(self.database, "withheld", "lot", "delivery")

    def route(self) -> Sample:
        """Offer all leads to the batch as if they had just come in."""
        with self.database.transaction() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("TRUNCATE queue_entry"))
            connection.execute(text("DELETE FROM lot"))
            connection.execute(text("TRUNCATE arrival"))
            connection.execute(text("INSERT INTO arrival SELECT id, flow, received_at FROM lead"))
        tidy(self.database, "arrival")
        measured: Sample = {}
        with timed(measured):
            routing.route_new_leads(self.database, batch_id="benchmark", flows=[FLOW])
        tidy(self.database, "queue_entry", "lot", "arrival")
        return measured


def run(leads: int, repeat: int) -> list[Number]:
    """Measure, and return the numbers."""
    with postgres() as (server, folder):
        ferry = Ferry(database_url(server, "many"), folder)
        print(f"B1: making {leads:,} leads", file=sys.stderr)
        fill(ferry.database, leads)
        routing.route_new_leads(ferry.database, batch_id="benchmark", flows=[FLOW])
        sides = {"routing": ferry.route, "copy": ferry.copy, "delivery": ferry.deliver}
        samples = interleaved(repeat, sides)
        samples |= interleaved(1, {"with phone": lambda: ferry.deliver("phone")})
        few = Ferry(database_url(server, "few"), folder)
        fill(few.database, FEW)
        routing.route_new_leads(few.database, batch_id="benchmark", flows=[FLOW])
        samples |= interleaved(1, {"few": few.deliver})
    return _numbers(samples, leads)


def _numbers(samples: dict[str, list[Sample]], leads: int) -> list[Number]:
    copy = middle(samples["copy"])
    parts = {
        "claim, of it": middle(samples["delivery"], "claim"),
        "render, hash and record, of it": middle(samples["delivery"], "render"),
        "routing the new leads, before it": middle(samples["routing"]),
        "the delivery with phone numbers made E.164": middle(samples["with phone"]),
    }
    delivery = middle(samples["delivery"])
    peak, few = middle(samples["delivery"], "peak_mb"), middle(samples["few"], "peak_mb")
    return [
        Number(
            benchmark="B1", what=f"delivery of {leads:,} leads / COPY", value=delivery / copy, at_most=2.5
        ),
        *(Number(benchmark="B1", what=f"{what} / COPY", value=value / copy) for what, value in parts.items()),
        Number(benchmark="B1", what="the COPY", value=copy, unit="s"),
        Number(benchmark="B1", what="the delivery", value=delivery, unit="s"),
        Number(benchmark="B1", what="peak memory of our process", value=peak, unit="MB", at_most=300),
        Number(benchmark="B1", what=f"the same with {FEW:,} leads", value=few, unit="MB", at_most=300),
        Number(benchmark="B1", what="peak memory, all leads / few leads", value=peak / few),
    ]
