"""Departures and redeliveries of the same leads at the same moment: no lead arrives twice, none is lost (I1)."""

import csv
import itertools

import ferry_driver
import pytest
from harbour import Driver

from batches import add_leads, folder, make_batch, scalars, waiting
from leadferry.store import settling

LEADS = 3000

_numbers = itertools.count()


@pytest.fixture
def at_once(forks, store_url, tmp_path):
    """Let departures and redeliveries go together; how many leads each took."""

    def go(*, departures, redeliveries, **params):
        batch = make_batch(destinations=[folder(tmp_path / "inbox")]).model_dump(mode="json")
        job = {"store": store_url, "archive": str(tmp_path / "archive"), "batch": batch, "params": params}
        work = [ferry_driver.depart] * departures + [ferry_driver.redeliver_only] * redeliveries
        drivers = [Driver(one, {**job, "run_id": f"run-{next(_numbers)}"}) for one in work]
        for driver in drivers:
            driver.go()
        taken = [driver.hear() for driver in drivers]
        assert [driver.end() for driver in drivers] == [0] * len(drivers)
        return taken

    return go


def arrived(folder):
    """The lead ids in all files."""
    files = [path.read_text().splitlines() for path in folder.iterdir()]
    return sorted(
        itertools.chain.from_iterable((int(row["Lead"]) for row in csv.DictReader(one)) for one in files)
    )


@pytest.mark.req("C30")
@pytest.mark.parametrize("count", [None, 1000])
def test_i1_departures_and_redeliveries_share_the_leads_out(at_once, database, tmp_path, count):
    leads = add_leads(database, LEADS)
    taken = at_once(departures=2, redeliveries=2, selection="all", count=count)
    assert arrived(tmp_path / "inbox") == leads
    assert waiting(database) == []
    assert sum(taken) == LEADS
    assert set(scalars(database, "SELECT state::text FROM delivery WHERE included > 0")) == {"delivered"}


@pytest.mark.req("C30")
def test_i1_redeliveries_of_what_failed_there_share_it_out(at_once, database, tmp_path):
    """Leads that came back from a failed delivery, asked for by all at once and by the next departure as well."""
    leads = add_leads(database, LEADS)
    (tmp_path / "inbox").write_text("in the way")
    with pytest.raises(AssertionError):
        at_once(departures=1, redeliveries=0)
    (tmp_path / "inbox").unlink()
    (delivery,) = scalars(database, "SELECT id FROM delivery")
    settling.settle(database, delivery)
    taken = at_once(departures=1, redeliveries=3, failed_since="2026-01-01T00:00Z")
    assert (arrived(tmp_path / "inbox"), sum(taken)) == (leads, LEADS)


@pytest.mark.req("R180")
def test_i1_each_redelivery_that_asks_for_delivered_leads_sends_them_once_more(at_once, database, tmp_path):
    leads = add_leads(database, 50)
    at_once(departures=1, redeliveries=0)
    taken = at_once(departures=1, redeliveries=2, selection="all", include_delivered=True)
    told = arrived(tmp_path / "inbox")
    assert told == sorted(leads * (len(told) // 50))
    assert sum(taken) + 50 == len(told)
