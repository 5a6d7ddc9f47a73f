"""Deliver what waits now: what becomes of the next scheduled delivery."""

import pytest

from batches import add_leads, folder, make_batch, scalars, waiting
from ferry import Ferry
from leadferry.delivery.params import DeliverNow
from leadferry.states import DeliveryState


@pytest.fixture
def depart(database, tmp_path):
    """Carry a whole run; the ids of the leads in the file that arrived."""
    ferry = Ferry(database, tmp_path / "archive")
    batch = make_batch(destinations=[folder(tmp_path / "inbox")])

    def depart(run_id, **keys):
        claimed = ferry.extract(batch, run_id, **keys)
        ferry.render(claimed)
        ferry.deliver(claimed, "drop")
        assert ferry.settle(claimed).state is DeliveryState.DELIVERED
        number = ferry.delivery(claimed).number
        lines = (tmp_path / "inbox" / f"acme_{number}.csv").read_text().splitlines()
        return [int(line.split(",")[0]) for line in lines[1:]]

    return depart


@pytest.mark.req("R165", "R167")
def test_leads_that_were_delivered_by_hand_are_not_in_the_next_scheduled_file(depart, database):
    early = add_leads(database, 3)
    assert depart("by hand", params=DeliverNow(), actor="kim") == early
    assert waiting(database) == []
    later = add_leads(database, 2)
    assert depart("scheduled") == later


@pytest.mark.req("R166")
def test_leads_that_are_kept_for_next_are_in_both_files_and_the_first_is_told_as_a_copy(depart, database):
    leads = add_leads(database, 3)
    assert depart("by hand", params=DeliverNow(keep_for_next=True), actor="kim") == leads
    assert waiting(database) == leads
    assert depart("scheduled") == leads
    assert scalars(database, "SELECT kind::text FROM delivery ORDER BY id") == ["early_copy", "departure"]
