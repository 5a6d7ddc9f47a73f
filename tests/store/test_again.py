"""The modes of a selection: new, cumulative, full and changed, each over several departures with exact sets."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from batches import add_leads, carried, depart, execute, folder, make_batch, scalars, waiting
from leadferry.states import DeliveryState
from leadferry.store import settling

FRIDAY = datetime(2026, 1, 30, 14, 0, tzinfo=UTC)
EARLIER = FRIDAY - timedelta(days=60)
SERVED = {"name": "served", "field": "state", "equals": "CA"}


def moded(mode, **keys):
    fields = [{"to": "Lead", "from": "id"}, {"to": "Email", "from": "email"}]
    if mode == "changed":
        fields.append({"to": "Action", "from": "delivery.change"})
    return make_batch(select={"mode": mode, "rules": [SERVED]}, fields=fields, **keys)


def add(database, count=1, state="CA"):
    return add_leads(database, count, received_at=EARLIER, fields={"state": state})


def move(database, lead, state):
    set_field(database, lead, "state", state)


def set_field(database, lead, name, value):
    statement = "UPDATE lead SET fields = fields || jsonb_build_object(CAST(:name AS text), CAST(:value AS text)) WHERE id = :id"
    execute(database, statement, name=name, value=value, id=lead)


def gone(database, batch, day):
    claimed = depart(database, batch, f"day-{day}", at=FRIDAY + timedelta(days=day))
    return carried(database, claimed.delivery_id)


@pytest.mark.req("F31")
@pytest.mark.parametrize("mode", ["new", "cumulative", "full"])
def test_three_departures_carry_exactly_these_leads(database, mode):
    batch = moded(mode)
    first, (outside,) = add(database, 2), add(database, state="NY")
    days = [gone(database, batch, 1)]
    second = add(database, 1)
    move(database, outside, "CA")  # meets the rule now, but was withheld
    days.append(gone(database, batch, 2))
    move(database, first[0], "NY")  # was delivered, but does not meet the rule any more
    days.append(gone(database, batch, 3))
    expected = {
        "new": [first, second, []],
        "cumulative": [first, first + second, first[1:] + second],
        "full": [first, [*first, outside, *second], [first[1], outside, *second]],
    }
    assert [sorted(one) for one in days] == [sorted(one) for one in expected[mode]]


def changes(ferry, batch, run_id, inbox):
    """What the file of a departure says of each lead; None when nothing departed."""
    claimed = ferry.extract(batch, run_id)
    if claimed.state is DeliveryState.SKIPPED:
        return None
    ferry.render(claimed)
    ferry.deliver(claimed, "drop")
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    newest = max(inbox.iterdir(), key=lambda path: int(path.stem.split("_")[-1]))
    lines = newest.read_text().splitlines()[1:]
    return {int(lead): action for lead, _, action in (line.split(",") for line in lines)}


@pytest.mark.req("F31")
def test_only_what_was_added_changed_or_removed_is_delivered_and_said(ferry, tmp_path):
    database, inbox = ferry.database, tmp_path / "inbox"
    batch = moded("changed", destinations=[folder(inbox)])
    one, two, three = add(database, 3)
    (outside,) = add(database, state="NY")
    assert changes(ferry, batch, "run-1", inbox) == dict.fromkeys([one, two, three], "added")
    assert changes(ferry, batch, "run-2", inbox) is None
    (four,) = add(database)
    set_field(database, one, "email", "new@example.com")
    set_field(database, two, "hobby", "chess")  # is not delivered, so nothing changed
    move(database, three, "NY")
    move(database, outside, "CA")
    assert changes(ferry, batch, "run-3", inbox) == {
        one: "changed", three: "removed", outside: "added", four: "added",
    }  # fmt: skip
    move(database, three, "CA")
    assert changes(ferry, batch, "run-4", inbox) == {three: "added"}
    assert changes(ferry, batch, "run-5", inbox) is None


@pytest.mark.req("F31")
@pytest.mark.parametrize("mode", ["cumulative", "full", "changed"])
def test_a_delivery_that_fails_gives_back_what_waited_and_nothing_twice(database, mode):
    batch = moded(mode)
    old = add(database, 2)
    done = gone(database, batch, 1)
    set_field(database, old[0], "email", "new@example.com")
    new = add(database, 2)
    claimed = depart(database, batch, "fails", at=FRIDAY + timedelta(days=2))
    settled = settling.settle(database, claimed.delivery_id)
    assert (done, settled.returned, waiting(database)) == (old, 2, new)
    again = gone(database, batch, 3)
    assert sorted(again) == carried_by(mode, old, new)
    assert waiting(database) == []


def carried_by(mode, old, new):
    return [*(old[:1] if mode == "changed" else old), *new]


@pytest.mark.req("F31")
def test_a_copy_or_a_test_carries_only_what_waits(database):
    batch = moded("full")
    add(database, 2)
    gone(database, batch, 1)
    new = add(database)
    early = depart(database, batch, "early", at=FRIDAY + timedelta(days=2), keep_for_next=True)
    assert carried(database, early.delivery_id) == new


def test_a_lead_has_one_place_in_the_queue_however_often_it_goes(database):
    batch = moded("full")
    add(database, 2)
    for day in (1, 2, 3):
        gone(database, batch, day)
    assert scalars(database, "SELECT count(*) FROM queue_entry WHERE copy = 0") == [2]
    assert scalars(database, "SELECT array_agg(copy ORDER BY copy) FROM queue_entry GROUP BY lead_id") == [
        [0, 1, 2],
        [0, 1, 2],
    ]


@pytest.mark.parametrize("key", [{"limit": 5}, {"caps": [{"leads": 5, "per": "day"}]}])
def test_a_part_of_the_stock_cannot_be_asked_for(key):
    with pytest.raises(ValidationError, match="a part of the leads cannot go"):
        make_batch(select={"mode": "full", **key})


def test_what_changed_is_known_only_in_the_mode_for_it():
    with pytest.raises(ValidationError, match="known only with"):
        make_batch(fields=[{"to": "Action", "from": "delivery.change"}])
