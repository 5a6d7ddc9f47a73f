"""Where single leads stand: found by what is in them, told from all sides, at a price that does not grow with history."""

from datetime import timedelta

import pytest

from batches import add_leads, claim, execute, folder, make_batch, scalars
from ferry import Ferry
from leadferry.errors import StoreError
from leadferry.store.queue import Stop, stop
from leadferry.store.routing import route_new_leads
from leadferry.store.standing import Outcome, Wanted, find_leads, standings, story_of

CA = {"name": "served", "field": "state", "in": ["CA"]}


def ids(database, limit=20, **wanted):
    return [row["id"] for row in find_leads(database, Wanted(**wanted), limit=limit)]


@pytest.fixture
def ferry(database, tmp_path):
    return Ferry(database, tmp_path / "archive")


def test_leads_are_found_by_all_that_is_given(database):
    (now,) = scalars(database, "SELECT now()")
    old = add_leads(database, 2, received_at=now - timedelta(days=9), fields={"city": "Ames"})
    new = add_leads(database, 2, flow="home", fields={"city": "Ames"})
    other = add_leads(database, 1)
    assert ids(database) == [*other, *new[::-1], *old[::-1]]
    assert ids(database, limit=2) == [*other, new[1]]
    assert ids(database, fields={"email": "LEAD2@example.com"}) == [new[1], old[1]]
    assert ids(database, fields={"city": "ames", "n": "1"}, flow="auto") == old[:1]
    assert ids(database, since=now - timedelta(days=8), flow="home") == new[::-1]
    assert ids(database, until=now - timedelta(days=8)) == old[::-1]
    assert ids(database, fields={"city": "Ame"}) == []


def test_a_lead_is_found_by_its_own_id(database):
    execute(database, "INSERT INTO lead (flow, external_id, fields) VALUES ('auto', 'form-7', '{}')")
    assert len(ids(database, fields={"external_id": "form-7"})) == 1
    assert ids(database, fields={"external_id": "FORM-7"}) == []


def test_leads_are_found_by_where_they_stand(database, ferry, tmp_path):
    good = add_leads(database, 2, fields={"state": "CA"})
    bad = add_leads(database, 1, fields={"state": "NY"})
    batch = make_batch(select={"rules": [CA]}, destinations=[folder(tmp_path / "inbox")])
    ferry.carry(batch)
    held, waits, gone, under_way = add_leads(database, 4, fields={"state": "CA"})
    route_new_leads(database, batch_id="other", flows=["auto"])
    route_new_leads(database, batch_id="acme", flows=["auto"])
    for lead, kind in ((held, Stop.HELD), (gone, Stop.CANCELLED)):
        stop(database, [lead], kind, batch_id="acme", actor="kim", reason="x")
    execute(database, "UPDATE lot SET newest_received_at = newest_received_at")
    assert ids(database, batch_id="acme", outcome=Outcome.DELIVERED) == good[::-1]
    assert ids(database, batch_id="acme", outcome=Outcome.WITHHELD) == bad
    assert ids(database, batch_id="acme", outcome=Outcome.HELD) == [held]
    assert ids(database, batch_id="acme", outcome=Outcome.CANCELLED) == [gone]
    assert ids(database, batch_id="acme", outcome=Outcome.PENDING) == [under_way, waits]
    assert ids(database, batch_id="other", outcome=Outcome.HELD) == []
    assert ids(database, outcome=Outcome.HELD) == [held]
    assert ids(database, batch_id="nobody") == []
    claim(database, "run-2", order="newest", limit=1, config={})
    assert ids(database, batch_id="acme", outcome=Outcome.INCLUDED) == [under_way]


def test_a_lead_stands_in_each_batch_where_it_is_in_that_one(database, ferry, tmp_path):
    (lead,) = add_leads(database)
    route_new_leads(database, batch_id="other", flows=["auto"])
    ferry.carry(make_batch(destinations=[folder(tmp_path / "inbox")]))
    found = standings(database, [lead, 77])
    assert [(one["batch"], one["outcome"], one["state"]) for one in found[lead]] == [
        ("acme", "delivered", "delivered"),
        ("other", "pending", None),
    ]
    assert found[77] == []


@pytest.mark.req("R171", "R174")
def test_the_story_of_a_lead_says_to_whom_it_went_in_which_file_with_which_proof(database, ferry, tmp_path):
    lead, _ = add_leads(database, 2)
    route_new_leads(database, batch_id="acme", flows=["auto"])
    stop(database, [lead], Stop.HELD, batch_id=None, actor="kim", reason="wait")
    ferry.carry(make_batch(destinations=[folder(tmp_path / "inbox")]))
    waits = story_of(database, lead)
    assert [(one["outcome"], one["files"]) for one in waits["history"]] == [("held", [])]
    execute(database, "DELETE FROM lead_stop")
    batch = make_batch(
        destinations=[folder(tmp_path / "inbox"), folder(tmp_path / "no", id="lost", create=False)]
    )
    ferry.carry(batch, "run-2")
    story = story_of(database, lead)
    (row,) = story["history"]
    (file,) = row["files"]
    assert (row["batch"], row["outcome"], row["state"]) == ("acme", "delivered", "partial")
    assert (file["name"], file["rows"]) == ("acme_2.csv", 1)
    assert [
        (one["destination"], one["state"], one["error_code"], (one["receipt"] or {}).get("location"))
        for one in row["dispatches"]
    ] == [
        ("drop", "confirmed", None, str(tmp_path / "inbox" / "acme_2.csv")),
        ("lost", "failed", "no_such_path", None),
    ]
    assert [(one["actor"], one["action"]) for one in story["audit"]] == [("kim", "lead.hold")]
    assert "example.com" not in repr(story)


def test_a_lead_that_was_withheld_is_in_no_file(database, ferry, tmp_path):
    (lead,) = add_leads(database, 1, fields={"state": "NY"})
    add_leads(database, 1, fields={"state": "CA"})
    ferry.carry(make_batch(select={"rules": [CA]}, destinations=[folder(tmp_path / "inbox")]))
    (row,) = story_of(database, lead)["history"]
    assert (row["outcome"], row["reason"], row["files"], row["dispatches"]) == ("withheld", "served", [], [])


def test_a_lead_that_is_not_there_is_said_so(database):
    with pytest.raises(StoreError, match="There is no lead 99"):
        story_of(database, 99)
