"""Three days without a scheduler: what departs afterwards, with which leads, and what the watchdog says meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pendulum
import pytest
from airflow.timetables.base import DataInterval, TimeRestriction

from batches import add_leads, rows
from leadferry.batch.load import load_batch
from leadferry.timetables import DepartureTimetable

from .conftest import DAY, MONDAY

NINE = timedelta(hours=9)


def departures_until(batch, now, last):
    """The runs that Airflow's scheduler makes when it comes up again, the clock being where it is."""
    timetable = DepartureTimetable(batch.schedule, batch.timezone, batch_id=batch.id, clock=lambda: now)
    restriction = TimeRestriction(earliest=pendulum.datetime(2020, 1, 1), latest=None, catchup=False)
    while True:
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        if info.run_after > now:
            return
        yield info.run_after
        last = info.data_interval


@pytest.mark.req("F41")
@pytest.mark.parametrize(
    ("missed", "delivered"),
    [("combine", {"05": 3}), ("each", {"03": 1, "04": 1, "05": 1}), ("skip", {})],
)
def test_after_three_days_down_what_was_missed_departs_as_the_batch_says(port, missed, delivered):
    port.batch(schedule={"at": ["09:00"], "missed": missed})
    port.watch(MONDAY)
    port.extract(at=MONDAY + NINE)
    for day in range(3):
        add_leads(port.database, 1, received_at=MONDAY + (day + 1) * DAY)
    now = pendulum.instance(MONDAY + 3 * DAY + timedelta(hours=12))
    down = port.watch(now)
    last = DataInterval(pendulum.instance(MONDAY - DAY + NINE), pendulum.instance(MONDAY + NINE))

    for departs_at in departures_until(load_batch("acme", config=port.config), now, last):
        port.carry(at=departs_at)
    up = port.watch(now)

    found = rows(
        port.database,
        "SELECT to_char(departs_at, 'DD'), included FROM delivery WHERE state = 'delivered' ORDER BY departs_at",
    )
    assert dict(found) == delivered
    assert [str(one.kind) for one in down.begun] == ["missing"]
    assert [str(one.kind) for one in up.ended] == ([] if missed == "skip" else ["missing"])
    assert len(up.open) == (1 if missed == "skip" else 0)
