"""All batches in one table, and what they delivered added up."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from batches import add_leads, execute, rows
from leadferry.store import suspensions
from leadferry.watch.report import MEASURES, report
from leadferry.watch.status import COLUMNS, status

from .conftest import MONDAY

NINE = timedelta(hours=9)


@pytest.mark.req("R010")
def test_every_batch_is_a_row_whatever_became_of_it(port):
    port.batch("acme", schedule={"at": ["09:00"], "timezone": "America/New_York"}, watch={"max_pending": 1})
    port.batch("bolt", enabled=False)
    port.batch("gone", schedule="manual")
    add_leads(port.database, 2)
    port.carry("acme", at=MONDAY)
    port.carry("gone", at=MONDAY)
    (port.config / "batches" / "gone.yaml").unlink()
    port.batch("torn").write_text("name: [\n")
    add_leads(port.database, 3, received_at=MONDAY)
    suspensions.hold(port.database, scope="recipient", name="acme", reason="moving", actor="kim")
    port.watch(MONDAY + NINE)

    found = {row["batch"]: row for row in status(port.database, port.config, now=MONDAY + NINE)}

    assert list(found) == ["acme", "bolt", "gone", "torn"]
    assert {tuple(row) for row in found.values()} == {COLUMNS}
    assert [row["state"] for row in found.values()] == ["enabled", "disabled", "removed", "broken"]
    acme = found["acme"]
    assert acme["next_departure"].isoformat() == "2026-02-02T09:00:00-05:00"
    assert (acme["last_departure"], acme["last_state"], acme["last_leads"]) == (MONDAY, "delivered", 2)
    assert (acme["pending"], acme["oldest"]) == (3, MONDAY - timedelta(minutes=2))
    assert (acme["incidents"], acme["suspended"]) == (["depth"], ["the whole recipient"])
    assert found["bolt"]["next_departure"] is None
    assert (found["gone"]["last_state"], found["gone"]["pending"]) == ("delivered", 3)
    assert found["torn"]["incidents"] == ["broken"]


def delivered(port, batch_id, *, at, leads, state="delivered"):
    add_leads(port.database, leads)
    delivery_id = port.carry(batch_id, at=at)
    if state != "delivered":
        execute(port.database, "ALTER TABLE delivery DISABLE TRIGGER USER")
        execute(
            port.database,
            "UPDATE delivery SET state = CAST(:s AS delivery_state) WHERE id = :i",
            s=state,
            i=delivery_id,
        )
        execute(port.database, "ALTER TABLE delivery ENABLE TRIGGER USER")
    execute(
        port.database,
        "UPDATE delivery SET settled_at = claimed_at + number * interval '10 seconds' WHERE id = :i",
        i=delivery_id,
    )
    return delivery_id


@pytest.fixture
def week(port):
    """Two batches over some days; the second one is deleted afterwards."""
    port.batch("acme", schedule="manual")
    port.batch("bolt", schedule="manual", flows=["home"])
    for day, state in enumerate(["delivered", "failed", "partial", "delivered"]):
        delivered(port, "acme", at=MONDAY + timedelta(days=day), leads=day + 1, state=state)
    add_leads(port.database, 7, flow="home")
    port.carry("bolt", at=MONDAY + timedelta(days=1))
    port.extract("bolt", at=MONDAY + timedelta(days=2))
    (port.config / "batches" / "bolt.yaml").unlink()
    return port


@pytest.mark.req("R016", "R176")
def test_the_totals_are_the_sums_of_the_ledger(week):
    *_, total = report(week.database, first=MONDAY.date(), last=date(2026, 2, 8))

    (leads, files, size) = rows(
        week.database,
        "SELECT sum(included), sum(files), sum(bytes) FROM delivery CROSS JOIN LATERAL"
        " (SELECT count(*) AS files, sum(size) AS bytes FROM file WHERE delivery_id = delivery.id) AS made"
        " WHERE state IN ('delivered', 'partial')",
    )[0]
    assert (total["leads"], total["files"], total["bytes"]) == (leads, files, size)
    assert [total[one] for one in ("departures", "delivered", "partial", "failed", "skipped")] == [
        6,
        3,
        1,
        1,
        1,
    ]
    assert set(total) == {"day", "recipient", *MEASURES}


@pytest.mark.req("R015")
def test_batches_are_compared_by_runs_leads_bytes_success_and_duration(week):
    acme, bolt, _ = report(week.database, first=MONDAY.date(), last=date(2026, 2, 8), by=["batch"])

    assert (acme["batch"], acme["departures"], acme["leads"], acme["success_rate"]) == ("acme", 4, 8, 0.5)
    assert acme["p95_seconds"] == 39.0
    assert (bolt["leads"], bolt["success_rate"], bolt["skipped"]) == (7, 1.0, 1)


def test_a_span_takes_whole_days_and_the_order_of_the_groups_is_the_askers(week):
    found = report(week.database, first=date(2026, 2, 3), last=date(2026, 2, 4), by=["batch", "day"])

    assert [(row["batch"], row["day"]) for row in found] == [
        ("acme", "2026-02-03"),
        ("acme", "2026-02-04"),
        ("bolt", "2026-02-03"),
        ("bolt", "2026-02-04"),
        ("total", None),
    ]


def test_a_day_is_one_of_the_batchs_own_zone(port):
    port.batch("tokyo", schedule="manual", timezone="Asia/Tokyo")
    delivered(port, "tokyo", at=MONDAY + timedelta(hours=20), leads=1)

    found = report(port.database, first=date(2026, 2, 3), last=date(2026, 2, 3), by=["day"])

    assert [(row["day"], row["leads"]) for row in found] == [("2026-02-03", 1), ("total", 1)]
    assert report(port.database, first=MONDAY.date(), last=MONDAY.date())[-1]["leads"] == 0


def test_a_span_without_deliveries_has_only_a_total_of_nothing(port):
    (total,) = report(port.database, first=MONDAY.date(), last=MONDAY.date())

    assert (total["day"], total["departures"], total["success_rate"], total["p95_seconds"]) == (
        "total",
        0,
        None,
        None,
    )


def test_a_batch_whose_schedule_is_over_says_so_and_what_waits(port):
    port.batch(schedule={"at": ["09:00"], "on": {"dates": ["2026-02-02"]}})
    add_leads(port.database, 1)
    port.carry(at=MONDAY + NINE)
    add_leads(port.database, 3, received_at=MONDAY + timedelta(hours=10))
    port.watch(MONDAY + timedelta(days=1))

    before, after = (
        status(port.database, port.config, now=now)[0] for now in (MONDAY, MONDAY + timedelta(days=1))
    )

    assert (before["state"], before["next_departure"].date()) == ("enabled", date(2026, 2, 2))
    assert (after["state"], after["next_departure"], after["pending"]) == ("over", None, 3)
    assert after["incidents"] == ["over"]
