"""B4: what a claim costs in a store that has delivered five million leads, against the same claim in a new one."""

from __future__ import annotations

import sys

from sqlalchemy import text

from benchmarks.leads import FLOW, add_leads, tidy
from benchmarks.measure import Number, Sample, child, interleaved, middle, timed
from benchmarks.server import database_url, postgres
from leadferry.store import routing, settling
from leadferry.store.database import Database

PENDING = 10_000
HISTORY = 5_000_000
PER_DELIVERY = 10_000

_DELIVERED = (
    # Lots before deliveries would point nowhere, so: config, deliveries, lots, entries, withheld, files, receipts.
    """
    INSERT INTO batch_config (batch_no, sha256, config) SELECT no, 'history', '{}' FROM batch
    """,
    """
    INSERT INTO delivery (batch_no, config_id, number, run_id, state, departs_at, window_to, settled_at,
                          lease_until, included, withheld)
    SELECT batch_no, id, n, 'history-' || n, 'delivered', now() - (:deliveries + 1 - n) * interval '1 day',
           now() - (:deliveries + 1 - n) * interval '1 day', now(), now(), :size * 9 / 10, :size / 10
    FROM batch_config, generate_series(1, :deliveries) AS n ORDER BY n
    """,
    "UPDATE batch SET last_number = :deliveries",
    """
    INSERT INTO lot (batch_no, delivery_id, newest_received_at)
    SELECT batch_no, id, window_to FROM delivery ORDER BY number
    """,
    """
    INSERT INTO queue_entry (batch_no, lead_id, lot_id, received_at)
    SELECT lot.batch_no, lead.id, lot.id, lead.received_at
    FROM lead JOIN delivery ON number = (lead.id - 1) / :size + 1 JOIN lot ON lot.delivery_id = delivery.id
    ORDER BY lead.id
    """,
    """
    INSERT INTO withheld SELECT delivery_id, lead_id, 'served_states'
    FROM delivery_lead WHERE lead_id % 10 = 0
    """,
    """
    INSERT INTO file (delivery_id, key, name, sha256, size, rows, media_type, archive_key)
    SELECT id, 'leads', 'leads.csv', md5(id::text), 1000000, included, 'text/csv', 'history/' || id FROM delivery
    """,
    """
    INSERT INTO dispatch (delivery_id, file_id, destination, way, parcel_key, state, attempts, receipt)
    SELECT delivery_id, id, 'drop', 'drop', 'history.' || id, 'confirmed', 1, '{}' FROM file
    """,
    "DELETE FROM arrival",
)


class Store:
    """A store with leads that wait, and perhaps a history."""

    def __init__(self, url: str, *, history: int) -> None:
        self.url = url
        self.database = Database(url)
        self.database.upgrade()
        self._runs = 0
        routing.route_new_leads(self.database, batch_id="benchmark", flows=[FLOW])
        if history:
            self._deliver_in_the_past(history)
        self.leads = history
        self.add()
        routing.route_new_leads(self.database, batch_id="benchmark", flows=[FLOW])
        tidy(self.database)

    def _deliver_in_the_past(self, leads: int) -> None:
        values = {"deliveries": leads // PER_DELIVERY, "size": PER_DELIVERY}
        with self.database.transaction() as connection:
            add_leads(connection, leads)
            connection.execute(text("ANALYZE lead"))
            for statement in _DELIVERED:
                connection.execute(text(statement), values)
                connection.execute(text("ANALYZE delivery, lot, queue_entry"))

    def add(self) -> None:
        """Let new leads come in."""
        with self.database.transaction() as connection:
            add_leads(connection, PENDING, first=self.leads + 1)
        self.leads += PENDING

    def claim_without_duplicates(self) -> Sample:
        """Claim what waits and was not delivered before, then give it back."""
        return self.claim("dedupe")

    def claim(self, variant: str = "plain") -> Sample:
        """Claim what waits, then give it back."""
        self._runs += 1
        sample = child("benchmarks.ours", "claim", self.url, f"run-{self._runs}", variant)
        delivery_id = int(sample.pop("delivery"))
        settling.settle(self.database, delivery_id)
        return sample

    def route(self) -> Sample:
        """Route as many new leads, then take them out of the queue again."""
        last = self.leads
        self.add()
        measured: Sample = {}
        with timed(measured):
            routing.route_new_leads(self.database, batch_id="benchmark", flows=[FLOW])
        with self.database.transaction() as connection:
            # The store's guards refuse this to everybody else.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("DELETE FROM queue_entry WHERE lead_id > :last"), {"last": last})
        return measured


def run(leads: int, repeat: int) -> list[Number]:
    """Measure, and return the numbers; the number of leads is fixed here."""
    del leads
    turns = max(repeat, 5)
    with postgres() as (server, _):
        new = Store(database_url(server, "new"), history=0)
        print(f"B4: making {HISTORY:,} delivered leads", file=sys.stderr)
        old = Store(database_url(server, "old"), history=HISTORY)
        claims = interleaved(turns, {"claim, new store": new.claim, "claim, with history": old.claim})
        # The first one makes the keys of the whole history, once.
        old.claim_without_duplicates()
        deduped = interleaved(
            turns,
            {
                "claim without duplicates, new store": new.claim_without_duplicates,
                "claim without duplicates, with history": old.claim_without_duplicates,
            },
        )
        routings = interleaved(turns, {"routing, new store": new.route, "routing, with history": old.route})
    return _numbers({name: middle(samples) for name, samples in {**claims, **deduped, **routings}.items()})


def _numbers(seconds: dict[str, float]) -> list[Number]:
    claim = seconds["claim, with history"] / seconds["claim, new store"]
    deduped = (
        seconds["claim without duplicates, with history"] / seconds["claim without duplicates, new store"]
    )
    routing = seconds["routing, with history"] / seconds["routing, new store"]
    return [
        Number(benchmark="B4", what="claim with history / without", value=claim, at_most=1.2),
        Number(
            benchmark="B4", what="claim without duplicates with history / without", value=deduped, at_most=1.2
        ),
        Number(benchmark="B4", what="routing with history / without", value=routing),
        *(Number(benchmark="B4", what=what, value=value, unit="s") for what, value in seconds.items()),
    ]
