"""The last look before rendering: what must not go any more is not in the files, and every count agrees."""

from datetime import UTC, datetime, timedelta

import pytest

from batches import add_leads, depart, execute, folder, kept_back, make_batch, waiting
from leadferry.states import DeliveryState
from leadferry.store.recheck import recheck

FRIDAY = datetime(2026, 1, 30, 14, 0, tzinfo=UTC)
EARLIER = FRIDAY - timedelta(days=2)


def stop(database, leads, kind):
    """Stop leads for all batches."""
    statement = (
        "INSERT INTO lead_stop (lead_id, batch_no, kind, reason, actor)"
        " SELECT unnest(CAST(:leads AS bigint[])), 0, :kind, 'asked to', 'robin'"
    )
    execute(database, statement, leads=leads, kind=kind)


@pytest.mark.req("F32")
@pytest.mark.parametrize("kind", ["held", "cancelled", "suppressed", "returned", "test", "erased"])
def test_a_lead_that_is_stopped_after_the_claim_is_not_in_the_files_and_the_counts_agree(
    ferry, tmp_path, kind
):
    leads = add_leads(ferry.database, 4, received_at=EARLIER)
    batch = make_batch(destinations=[folder(tmp_path / "inbox")])
    claimed = ferry.extract(batch)
    stop(ferry.database, leads[1:2], kind)
    (stored,) = ferry.render(claimed)
    ferry.deliver(claimed, "drop")
    settled = ferry.settle(claimed)
    held = kind == "held"
    assert (settled.state, settled.included, settled.withheld) == (
        DeliveryState.DELIVERED,
        3,
        0 if held else 1,
    )
    assert stored.rows == 3
    (file,) = (tmp_path / "inbox").iterdir()
    assert len(file.read_text().splitlines()) == 4
    assert kept_back(ferry.database, claimed.delivery_id) == ({} if held else {leads[1]: kind})
    assert waiting(ferry.database) == (leads[1:2] if held else [])


@pytest.mark.req("F32")
def test_consent_that_was_withdrawn_after_the_claim_counts(ferry):
    leads = add_leads(ferry.database, 2, received_at=EARLIER, fields={"consent": "yes"})
    claimed = ferry.extract(make_batch(select={"consent": {"field": "consent"}}))
    statement = """UPDATE lead SET fields = fields || '{"consent": "no"}' WHERE id = :id"""
    execute(ferry.database, statement, id=leads[0])
    (stored,) = ferry.render(claimed)
    assert stored.rows == 1
    assert kept_back(ferry.database, claimed.delivery_id) == {leads[0]: "no_consent"}


@pytest.mark.req("F32")
def test_when_nobody_is_left_the_delivery_is_skipped_and_who_is_held_waits(ferry):
    leads = add_leads(ferry.database, 2, received_at=EARLIER)
    claimed = ferry.extract(make_batch())
    stop(ferry.database, leads, "held")
    assert ferry.render(claimed) == []
    assert ferry.delivery(claimed).state is DeliveryState.SKIPPED
    assert waiting(ferry.database) == leads


@pytest.mark.req("F32")
def test_what_is_rendered_is_not_looked_at_again(ferry):
    leads = add_leads(ferry.database, 2, received_at=EARLIER)
    claimed = ferry.extract(make_batch())
    ferry.render(claimed)
    stop(ferry.database, leads, "erased")
    assert recheck(ferry.database, claimed.delivery_id).withheld == 0


@pytest.mark.req("F32")
def test_a_copy_that_is_held_is_withheld_and_the_lead_itself_stays_where_it_waits(ferry):
    leads = add_leads(ferry.database, 2, received_at=EARLIER)
    claimed = depart(ferry.database, make_batch(), keep_for_next=True, at=FRIDAY)
    stop(ferry.database, leads[:1], "held")
    (stored,) = ferry.render(claimed)
    assert stored.rows == 1
    assert kept_back(ferry.database, claimed.delivery_id) == {leads[0]: "held"}
    assert waiting(ferry.database) == leads
