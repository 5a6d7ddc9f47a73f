"""Two processes send the same parcel: the retry, and the one that everybody believed dead (I4, I5, I6)."""

import ferry_driver
import pytest
from harbour import COUNT, Driver, cut_connections

from batches import rows, scalars, trigger
from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.delivery.extract import extract
from leadferry.delivery.render import render
from leadferry.delivery.settle import settle

BUSY = ("DestinationBusyError", True)


@pytest.fixture
def delivery_id(harbour):
    """A delivery that is rendered and not yet sent."""
    harbour.add_leads(COUNT)
    claimed = extract(harbour.database, Batch.model_validate(harbour.batch), trigger())
    render(harbour.database, Archive(str(harbour.archive)), claimed.delivery_id)
    return claimed.delivery_id


@pytest.fixture
def send(harbour, delivery_id):
    def start(**keys):
        return Driver(ferry_driver.deliver_only, harbour.job("run-1", delivery_id=delivery_id, **keys))

    return start


def says(driver):
    said = driver.hear()
    driver.end()
    return said


def ends_delivered(harbour, delivery_id):
    settled = settle(harbour.database, Archive(str(harbour.archive)), delivery_id)
    assert settled.state == "delivered"
    harbour.assert_every_lead_arrived_once()


@pytest.mark.parametrize(
    "moment", [("before", "upload"), ("after", "upload"), ("before", "rename"), ("after", "rename")]
)
def test_i4_while_one_process_sends_the_other_is_kept_out(harbour, delivery_id, send, moment):
    first = send(pause=moment)
    assert first.hear() == "paused"
    assert says(send()) == BUSY
    first.go()
    assert says(first) == 1
    assert says(send()) == 1  # finds it confirmed
    assert scalars(harbour.database, "SELECT attempts FROM dispatch") == [1]
    ends_delivered(harbour, delivery_id)


def test_i4_two_processes_that_begin_together_send_one_object(harbour, delivery_id, send):
    both = [send(), send()]
    said = [says(driver) for driver in both]
    assert 1 in said
    assert set(said) <= {1, BUSY}
    ends_delivered(harbour, delivery_id)


@pytest.mark.req("F12")
@pytest.mark.parametrize(
    "moment", [("before", "upload"), ("after", "upload"), ("before", "rename"), ("after", "rename")]
)
def test_i6_a_sender_that_lost_the_store_and_was_replaced_cannot_undo_its_successor(
    harbour, delivery_id, send, store_url, moment
):
    """Its connection is cut, so the lock is free: a successor looks, sends and confirms while the first one sleeps."""
    slow = send(pause=moment)
    assert slow.hear() == "paused"
    cut_connections(store_url)
    assert says(send()) == 1
    slow.go()
    # After its rename both saw the same file arrive, and say the same of the same attempt.
    assert says(slow) == (1 if moment == ("after", "rename") else ("StoreError", False))
    ends_delivered(harbour, delivery_id)


@pytest.mark.parametrize("moment", [("after", "upload"), ("before", "rename")])
def test_i6_a_replaced_sender_cannot_end_the_attempt_that_is_under_way(
    harbour, delivery_id, send, store_url, moment
):
    """Both are sending when the first one fails; what it says must not count, or the leads would travel twice."""
    slow = send(pause=moment)
    assert slow.hear() == "paused"
    cut_connections(store_url)
    successor = send(pause=("before", "rename"))
    assert successor.hear() == "paused"
    slow.go()
    kind, _ = says(slow)
    assert kind == "StoreError"
    assert rows(harbour.database, "SELECT state::text, attempts FROM dispatch") == [("sending", 2)]
    successor.go()
    assert says(successor) == 1
    ends_delivered(harbour, delivery_id)
