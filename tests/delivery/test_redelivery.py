"""Leads delivered again by hand: which ones go, what becomes of them, and that none travels twice unasked."""

import csv
import json
from datetime import UTC, datetime, timedelta

import pytest

from batches import add_leads, carried, execute, folder, kept_back, make_batch, rows, scalars, waiting
from leadferry.delivery.redelivery import ByHand, claim_redelivery
from leadferry.delivery.redelivery_params import Redeliver
from leadferry.errors import (
    BatchConfigError,
    DepartureRefusedError,
    NothingToDeliverError,
    RenderError,
    StoreError,
)
from leadferry.local.http import as_json
from leadferry.states import DeliveryState
from leadferry.store.edits import edit
from leadferry.store.standing import story_of
from servers.http_buyer import Buyer

RULE = {"name": "small", "field": "n", "at_most": 3}


@pytest.fixture
def inbox(tmp_path):
    return tmp_path / "inbox"


def delivered(inbox):
    """The lead ids in each file of a folder."""
    return {
        path.name: [int(row["Lead"]) for row in csv.DictReader(path.read_text().splitlines())]
        for path in sorted(inbox.iterdir())
    }


def outcomes(ferry, lead):
    """What became of a lead, the oldest first."""
    return [(one["outcome"], one["reason"]) for one in story_of(ferry.database, lead)["history"]]


def test_chosen_leads_that_wait_go_and_the_others_stay(ferry, inbox):
    first, second, third = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[folder(inbox)])
    settled = ferry.redeliver(batch, lead_ids=[second])
    assert (settled.state, settled.included) == (DeliveryState.DELIVERED, 1)
    assert delivered(inbox) == {"acme_1.csv": [second]}
    assert waiting(ferry.database) == [first, third]
    ferry.carry(batch, "next")
    assert delivered(inbox)["acme_2.csv"] == [first, third]


def refused(ferry, batch, run_id="refused", **params):
    """Why nothing went."""
    with pytest.raises(NothingToDeliverError) as error:
        ferry.choose(batch, run_id, **params)
    return error.value.what


def two(tmp_path, *, broken=()):
    """A batch with the destinations one and two, of which some fail until somebody clears the way."""
    for name in broken:
        (tmp_path / name).write_text("in the way")
    return make_batch(destinations=[folder(tmp_path / name, id=name) for name in ("one", "two")])


def mend(path):
    path.unlink()


# --- no lead twice unless asked


@pytest.mark.req("R180")
def test_a_lead_that_was_delivered_there_goes_again_only_when_that_is_said(ferry, inbox):
    (lead,) = add_leads(ferry.database)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.carry(batch)
    assert "1 delivered there already" in refused(ferry, batch, lead_ids=[lead])
    settled = ferry.redeliver(batch, lead_ids=[lead], include_delivered=True)
    assert settled.state is DeliveryState.DELIVERED
    assert delivered(inbox) == {"acme_1.csv": [lead], "acme_2_R1.csv": [lead]}
    assert rows(ferry.database, "SELECT copy FROM delivery_lead ORDER BY copy") == [(0,), (1,)]


@pytest.mark.req("R178")
def test_what_one_destination_has_may_go_to_the_other(ferry, tmp_path):
    leads = add_leads(ferry.database, 2)
    batch = two(tmp_path, broken=["two"])
    assert ferry.carry(batch).state is DeliveryState.PARTIAL
    mend(tmp_path / "two")
    assert "2 delivered there already" in refused(ferry, batch, destination="one", lead_ids=leads)
    assert ferry.redeliver(batch, destination="two", lead_ids=leads).state is DeliveryState.DELIVERED
    assert delivered(tmp_path / "two") == {"acme_2_R1.csv": leads}
    assert list(delivered(tmp_path / "one")) == ["acme_1.csv"]


@pytest.mark.req("C30")
def test_the_failed_task_of_the_original_can_send_nothing_any_more(ferry, tmp_path):
    leads = add_leads(ferry.database, 2)
    batch = two(tmp_path, broken=["two"])
    claimed = ferry.rendered(batch)
    ferry.deliver(claimed, "one")
    ferry.try_to_deliver(claimed, "two")
    ferry.settle(claimed)
    mend(tmp_path / "two")
    ferry.redeliver(batch, destination="two", lead_ids=leads[:1])
    assert ferry.deliver(claimed, "two") == 0
    assert ferry.settle(claimed).state is DeliveryState.PARTIAL
    assert delivered(tmp_path / "two") == {"acme_2_R1.csv": leads[:1]}
    found = rows(ferry.database, "SELECT state::text, error FROM dispatch WHERE error_code = 'redelivered'")
    assert found == [("skipped", "Delivery 2 took its leads")]


@pytest.mark.parametrize("state", ["claimed", "rendered"])
def test_leads_that_are_under_way_are_never_taken(ferry, inbox, state):
    leads = add_leads(ferry.database, 2)
    batch = make_batch(destinations=[folder(inbox)])
    claimed = ferry.extract(batch)
    if state == "rendered":
        ferry.render(claimed)
    assert "2 under way" in refused(ferry, batch, lead_ids=leads, include_delivered=True)


def test_held_and_cancelled_leads_are_left_out(ferry, inbox):
    from leadferry.store.queue import Stop, stop

    first, second, third = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.extract(make_batch(id="other", flows=["none"]))
    assert waiting(ferry.database) == []
    ferry.choose(batch, lead_ids=[third], dry_run=True)
    for lead, kind in ((first, Stop.HELD), (second, Stop.CANCELLED)):
        stop(ferry.database, [lead], kind, batch_id="acme", actor="kim", reason="asked")
    chosen = ferry.choose(batch, lead_ids=[first, second, third])
    assert chosen.left_out == {"cancelled": 1, "held": 1}
    assert carried(ferry.database, chosen.delivery_id) == [third]


def test_the_database_refuses_a_redelivery_of_what_is_elsewhere(ferry, inbox):
    """Whatever the code believed when it chose the lead: nothing is sent before it was rendered."""
    (lead,) = add_leads(ferry.database)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.carry(batch)
    chosen = ferry.choose(batch, lead_ids=[lead], include_delivered=True)
    execute(ferry.database, "ALTER TABLE redelivery DISABLE TRIGGER never_changes")
    execute(ferry.database, "UPDATE redelivery SET include_delivered = false")
    with pytest.raises(
        StoreError, match="1 leads of redelivery 2 wait, are under way or were delivered there"
    ):
        ferry.render(chosen)


def test_a_failed_redelivery_gives_back_what_waited_and_no_copy(ferry, inbox):
    first, second = add_leads(ferry.database, 2)
    batch = make_batch(
        destinations=[folder(inbox)], select={"rules": [{"name": "n", "field": "n", "at_least": 2}]}
    )
    ferry.carry(batch)
    (third,) = add_leads(ferry.database, fields={"n": 3})
    broken = make_batch(destinations=[folder(inbox / "acme_1.csv")])
    settled = ferry.redeliver(broken, lead_ids=[first, third])
    assert (settled.state, settled.included, settled.returned) == (DeliveryState.FAILED, 2, 1)
    assert waiting(ferry.database) == [third]
    again = ferry.redeliver(batch, "by-hand-2", lead_ids=[first, third], skip_rules=True)
    assert again.state is DeliveryState.DELIVERED
    assert outcomes(ferry, first) == [("withheld", "n"), ("failed", None), ("delivered", None)]
    assert second


def test_a_second_try_of_the_same_run_finds_its_delivery(ferry, inbox):
    leads = add_leads(ferry.database, 2)
    batch = make_batch(destinations=[folder(inbox)])
    first, again = (ferry.choose(batch, lead_ids=leads) for _ in range(2))
    assert (again.delivery_id, again.included, again.is_new) == (first.delivery_id, 2, False)


# --- which leads


@pytest.fixture
def known(ferry, inbox):
    """Leads that stand in every way: delivered, withheld, rejected never, waiting, new."""
    leads = add_leads(ferry.database, 6)
    batch = make_batch(destinations=[folder(inbox)], select={"rules": [RULE], "limit": 2})
    ferry.carry(batch, "first")
    return batch, leads


def selected(ferry, batch, **params):
    """The leads that a dry run says would go."""
    try:
        chosen = ferry.choose(batch, dry_run=True, **params)
    except NothingToDeliverError:
        return []
    return [row["lead"] for row in chosen.leads if row["becomes"] == "goes"]


@pytest.mark.req("R187")
@pytest.mark.parametrize(
    ("params", "numbers"),
    [
        ({"status": ["waiting"]}, [3]),
        ({"status": ["waiting"], "skip_rules": True}, [3, 4, 5, 6]),
        ({"status": ["delivered"], "include_delivered": True}, [1, 2]),
        ({"status": ["waiting", "delivered"], "include_delivered": True}, [1, 2, 3]),
        ({"where": [{"field": "n", "in": [3, 4]}], "skip_rules": True}, [3, 4]),
        ({"where": [{"any": [{"field": "n", "equals": 6}]}], "skip_rules": True}, [6]),
        ({"flow": "auto"}, [3]),
        ({"flow": "home"}, []),
        ({"delivery_id": 1, "include_delivered": True}, [1, 2]),
        ({"selection": "all", "include_delivered": True, "skip_rules": True}, [1, 2, 3, 4, 5, 6]),
        ({"selection": "query", "status": ["waiting"]}, [3]),
    ],
)
def test_a_query_finds_just_the_leads_that_meet_it(ferry, known, params, numbers):
    batch, leads = known
    assert selected(ferry, batch, **params) == [leads[number - 1] for number in numbers]


@pytest.mark.req("R187")
def test_times_without_an_offset_are_the_batchs(ferry, inbox):
    times = [f"2026-01-05T{hour}:30:00-05:00" for hour in ("08", "09", "10")]
    leads = [add_leads(ferry.database, received_at=at)[0] for at in times]
    batch = make_batch(destinations=[folder(inbox)], timezone="America/New_York")
    between = {"received_from": "2026-01-05T09:00", "received_to": "2026-01-05T10:30"}
    assert selected(ferry, batch, **between) == [leads[1]]
    assert selected(ferry, batch, received_from="2026-01-05T14:30:00Z") == leads[1:]


@pytest.mark.req("R187", "R183")
def test_leads_that_a_rule_withheld_are_found_by_its_name_and_go_when_rules_are_skipped(ferry, inbox):
    leads = add_leads(ferry.database, 5)
    batch = make_batch(destinations=[folder(inbox)], select={"rules": [RULE]})
    ferry.carry(batch)
    assert selected(ferry, batch, rule="small") == []
    assert selected(ferry, batch, rule="other", skip_rules=True) == []
    settled = ferry.redeliver(batch, rule="small", skip_rules=True)
    assert settled.included == 2
    assert delivered(inbox)["acme_2.csv"] == leads[3:]
    assert rows(ferry.database, "SELECT lead_id, rule FROM skipped_rule ORDER BY 1") == [
        (one, "small") for one in leads[3:]
    ]
    assert outcomes(ferry, leads[4]) == [("withheld", "small"), ("delivered", None)]


@pytest.mark.req("R183", "R195")
def test_without_that_a_lead_that_still_fails_is_withheld_with_the_new_reason_and_the_old_one_kept(
    ferry, inbox
):
    (lead,) = add_leads(ferry.database, fields={"n": 9})
    batch = make_batch(destinations=[folder(inbox)], select={"rules": [RULE]})
    ferry.extract(batch)
    stricter = make_batch(destinations=[folder(inbox)], select={"rules": [{**RULE, "name": "smaller"}]})
    assert "1 withheld by smaller" in refused(ferry, stricter, lead_ids=[lead])
    assert outcomes(ferry, lead) == [("withheld", "small"), ("withheld", "smaller")]


@pytest.mark.req("R188", "R189", "R190", "R191")
@pytest.mark.parametrize(("order", "expected"), [("oldest", [0, 1, 2]), ("newest", [4, 3, 2])])
def test_a_count_takes_the_oldest_or_the_newest_of_all_results(ferry, inbox, order, expected):
    leads = add_leads(ferry.database, 5)
    batch = make_batch(destinations=[folder(inbox)])
    settled = ferry.redeliver(batch, selection="all", count=3, order=order)
    assert settled.included == 3
    assert list(delivered(inbox).values()) == [[leads[number] for number in expected]]
    assert waiting(ferry.database) == sorted(set(leads) - {leads[number] for number in expected})


@pytest.mark.req("R189")
def test_a_count_above_what_there_is_takes_all_and_says_so(ferry, inbox, caplog):
    caplog.set_level("INFO")
    add_leads(ferry.database, 2)
    settled = ferry.redeliver(make_batch(destinations=[folder(inbox)]), selection="all", count=9)
    assert settled.included == 2
    assert "Asked for 9 leads, but only 2 may go" in caplog.text


@pytest.mark.req("R192")
def test_random_leads_are_drawn_by_a_seed_that_is_stored(ferry, inbox):
    add_leads(ferry.database, 40)
    batch = make_batch(destinations=[folder(inbox)])
    drawn = [
        sorted(selected(ferry, batch, selection="all", count=10, order="random", seed=seed))
        for seed in (7, 7, 8)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    chosen = ferry.choose(batch, selection="all", count=10, order="random")
    (seed,) = scalars(ferry.database, "SELECT seed FROM redelivery")
    taken = sorted(carried(ferry.database, chosen.delivery_id))
    assert len(taken) == 10
    by_hand = "SELECT lead_id FROM queue_entry ORDER BY hashint8extended(lead_id, :seed), lead_id LIMIT 10"
    assert taken == sorted(scalars(ferry.database, by_hand, seed=seed))


@pytest.mark.req("R179", "C21")
def test_all_that_failed_since_is_exactly_what_failed(ferry, tmp_path):
    batch = two(tmp_path)
    add_leads(ferry.database, 2)
    ferry.carry(batch, "well")
    (tmp_path / "two").rename(tmp_path / "away")
    batch = two(tmp_path, broken=["two"])
    missed = add_leads(ferry.database, 3)
    ferry.carry(batch, "half")
    (since,) = scalars(ferry.database, "SELECT settled_at FROM delivery WHERE run_id = 'half'")
    add_leads(ferry.database, 1)
    ferry.choose(batch, lead_ids=missed, destination="two", dry_run=True)  # the new one is in the queue now
    found = {
        at: selected(ferry, batch, destination="two", failed_since=at) for at in (since, "2099-01-01T00:00Z")
    }
    assert found == {since: missed, "2099-01-01T00:00Z": []}
    assert selected(ferry, batch, destination="one", failed_since=since) == []


@pytest.mark.req("R179")
def test_leads_that_came_back_from_a_failed_delivery_count_as_failed(ferry, inbox):
    inbox.write_text("in the way")
    batch = make_batch(destinations=[folder(inbox)])
    leads = add_leads(ferry.database, 2)
    assert ferry.carry(batch).state is DeliveryState.FAILED
    add_leads(ferry.database, 1)
    ferry.choose(batch, lead_ids=leads, dry_run=True)
    inbox.unlink()
    assert ferry.redeliver(batch, failed_since="2026-01-01T00:00Z").included == 2
    assert delivered(inbox) == {"acme_2.csv": leads}
    assert len(waiting(ferry.database)) == 1


@pytest.mark.req("R184")
def test_leads_of_another_flow_are_assigned_only_when_that_is_said(ferry, inbox):
    (lead,) = add_leads(ferry.database, flow="home")
    batch = make_batch(destinations=[folder(inbox)])
    assert "1 not this batch's" in refused(ferry, batch, lead_ids=[lead])
    settled = ferry.redeliver(batch, lead_ids=[lead], assign_others=True)
    assert settled.state is DeliveryState.DELIVERED
    assert [(one["batch"], one["outcome"]) for one in story_of(ferry.database, lead)["history"]] == [
        ("acme", "delivered")
    ]
    listens = make_batch(destinations=[folder(inbox)], flows=["auto", "home"])
    assert ferry.extract(listens, "later").state is DeliveryState.SKIPPED  # it has the lead already


def test_an_assigned_lead_whose_redelivery_failed_comes_with_its_flow(ferry, inbox):
    (lead,) = add_leads(ferry.database, flow="home")
    inbox.write_text("in the way")
    batch = make_batch(destinations=[folder(inbox)])
    assert ferry.redeliver(batch, lead_ids=[lead], assign_others=True).state is DeliveryState.FAILED
    inbox.unlink()
    assert ferry.carry(make_batch(destinations=[folder(inbox)], flows=["home"]), "later").included == 1


@pytest.mark.req("R177")
def test_an_unknown_lead_is_told_before_anything_is_claimed(ferry, inbox):
    leads = add_leads(ferry.database, 2)
    batch = make_batch(destinations=[folder(inbox)])
    with pytest.raises(StoreError, match="lead_ids: there is no lead 99"):
        ferry.choose(batch, lead_ids=[*leads, 99])
    assert scalars(ferry.database, "SELECT id FROM delivery") == []


@pytest.mark.req("R178")
def test_a_hundred_thousand_ids_that_are_pasted_are_looked_up_like_any_others(ferry, inbox):
    leads = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[folder(inbox)])
    pasted = list(range(1, 100_001))
    with pytest.raises(StoreError, match=f"lead_ids: there is no lead {leads[-1] + 1}"):
        ferry.choose(batch, lead_ids=pasted)
    with pytest.raises(StoreError, match=f"There is no lead {leads[-1] + 1}"):
        edit(ferry.database, pasted, {"year": 2015}, reason="misread", actor="kim")
    assert scalars(ferry.database, "SELECT count(*) FROM delivery") == [0]
    assert waiting(ferry.database) == leads


def test_an_unknown_destination_is_told_with_those_that_there_are(ferry, inbox):
    with pytest.raises(
        BatchConfigError, match="destination: batch 'acme' has no destination 'sftp'; it has drop"
    ):
        ferry.choose(make_batch(destinations=[folder(inbox)]), destination="sftp", lead_ids=[1])


def test_a_disabled_batch_redelivers_nothing(ferry, inbox):
    add_leads(ferry.database)
    with pytest.raises(DepartureRefusedError, match="is disabled"):
        ferry.choose(make_batch(destinations=[folder(inbox)], enabled=False), selection="all")


# --- edits


@pytest.fixture
def cars(ferry, inbox):
    """A batch that takes cars up to 2020, and a lead with one of 2025 that it withheld."""
    (lead,) = add_leads(ferry.database, fields={"year": 2025, "make": "Ford"})
    batch = make_batch(
        destinations=[folder(inbox)],
        fields=[{"to": "Lead", "from": "id"}, {"to": "Year", "from": "year"}, {"to": "Make", "from": "make"}],
        select={"rules": [{"name": "not_too_new", "field": "year", "at_most": 2020}]},
    )
    ferry.extract(batch)
    return batch, lead


@pytest.mark.req("R181", "R182")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("by_lead", [False, True])
def test_an_edited_lead_meets_the_rules_and_goes_as_edited(ferry, inbox, cars, keep, by_lead):
    batch, lead = cars
    edits = {"year": 2015}
    settled = ferry.redeliver(
        batch,
        lead_ids=[lead],
        edits={str(lead): edits} if by_lead else edits,
        reason="misread",
        persist_edits=keep,
    )
    assert settled.state is DeliveryState.DELIVERED
    (path,) = inbox.iterdir()
    assert path.read_text().splitlines()[1] == f"{lead},2015,Ford"
    assert scalars(ferry.database, "SELECT fields ->> 'year' FROM lead") == ["2015" if keep else "2025"]
    edit = "SELECT lead_id, delivery_id, persisted, before, changes, reason, actor FROM lead_edit"
    assert rows(ferry.database, edit) == [
        (lead, settled.delivery_id, keep, {"year": 2025}, {"year": 2015}, "misread", "kim")
    ]


@pytest.mark.req("R181")
def test_an_edit_for_one_delivery_is_not_seen_by_the_next(ferry, inbox, cars):
    batch, lead = cars
    ferry.redeliver(batch, lead_ids=[lead], edits={"year": 2015}, reason="misread")
    assert "withheld by not_too_new" in refused(ferry, batch, lead_ids=[lead], include_delivered=True)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"edits": {"year": 2015}}, "reason"),
        ({"edits": {"flow": "home"}, "reason": "x"}, "edits"),
        ({"edits": {"17": 5}, "reason": "x"}, "edits"),
        ({"persist_edits": True}, "persist_edits"),
        ({"lead_ids": ["x"]}, "lead_ids.0"),
        ({"lead_ids": []}, "lead_ids"),
        ({"lead_ids": None}, "lead_ids"),
        ({"failed_since": "2026-01-01T00:00Z"}, "not both"),
        ({"as_sent": True}, "as_sent"),
        ({"lead_ids": None, "file_id": 1, "as_sent": True, "status": ["failed"]}, "leave out status"),
        ({"count": 0}, "count"),
        ({"order": "best"}, "order"),
        ({"seed": 5}, "seed"),
        ({"status": ["lost"]}, "status.0"),
        ({"where": [{"field": "n"}]}, "where.0"),
        ({"limit": 3}, "limit"),
        ({"destination": ""}, "destination"),
        ({"batch": None}, "batch"),
        ({"selection": "file"}, "selection"),
        ({"received_from": "yesterday"}, "received_from"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_fields_name(params, field):
    with pytest.raises(BatchConfigError) as error:
        Redeliver.parse({"batch": "acme", "destination": "drop", "lead_ids": [1], **params})
    assert field in error.value.what


@pytest.mark.req("R182")
def test_no_value_of_an_edit_is_told_by_a_refusal_or_the_audit(ferry, inbox, cars):
    batch, lead = cars
    with pytest.raises(BatchConfigError) as error:
        ferry.choose(batch, lead_ids=[lead], edits={"phone": "secret-55"})
    assert "secret-55" not in str(error.value)
    ferry.redeliver(batch, lead_ids=[lead], edits={"year": 2015, "make": "secret-55"}, reason="misread")
    told = rows(ferry.database, "SELECT actor, detail FROM audit WHERE action = 'delivery.redeliver'")
    assert told[0][0] == "kim"
    assert told[0][1]["params"]["edits"] == ["make", "year"]
    assert "secret-55" not in json.dumps(told)
    assert "secret-55" not in json.dumps(rows(ferry.database, "SELECT params FROM delivery"))


# --- dry run


@pytest.mark.req("R187")
def test_a_dry_run_tells_what_would_go_and_changes_nothing(ferry, inbox, caplog):
    caplog.set_level("INFO")
    leads = add_leads(ferry.database, 4)
    batch = make_batch(destinations=[folder(inbox)], select={"rules": [RULE]})
    tables = ("delivery", "redelivery", "lot", "withheld", "lead_edit", "audit", "dispatch")
    ferry.extract(make_batch(id="other"), "routes")
    ferry.choose(batch, "dry", selection="all", dry_run=True)
    before = [rows(ferry.database, f"SELECT * FROM {table}") for table in tables]
    chosen = ferry.choose(
        batch, selection="all", count=2, dry_run=True, edits={"make": "Ford"}, reason="x", persist_edits=True
    )
    assert [(row["lead"], row["becomes"]) for row in chosen.leads] == [
        (leads[0], "goes"),
        (leads[1], "goes"),
        (leads[2], "left out: beyond the count"),
        (leads[3], "left out: beyond the count"),
    ]
    assert (chosen.delivery_id, chosen.included, chosen.selected) == (None, 2, 4)
    assert [rows(ferry.database, f"SELECT * FROM {table}") for table in tables] == before
    assert f"Lead {leads[0]} (waiting, edited): goes" in caplog.text


# --- stored files


@pytest.mark.req("R173", "F07", "F37")
def test_as_sent_and_current_settings_differ_when_the_mapping_changed(ferry, inbox):
    leads = add_leads(ferry.database, 3)
    old = make_batch(destinations=[folder(inbox)])
    ferry.carry(old)
    new = make_batch(destinations=[folder(inbox)], fields=[{"to": "Lead", "from": "id"}])
    (file,) = scalars(ferry.database, "SELECT id FROM file")
    original = (inbox / "acme_1.csv").read_bytes()
    for run_id, as_sent in (("as-sent", True), ("anew", False)):
        settled = ferry.redeliver(new, run_id, file_id=file, as_sent=as_sent, include_delivered=True)
        assert (settled.state, settled.included) == (DeliveryState.DELIVERED, 3)
    assert (inbox / "acme_1_R1.csv").read_bytes() == original
    assert (inbox / "acme_3_R2.csv").read_text().splitlines() == ["Lead", *map(str, leads)]
    same = rows(
        ferry.database, "SELECT count(*), count(DISTINCT archive_key) FROM file GROUP BY sha256 ORDER BY 1"
    )
    assert same == [(1, 1), (2, 1)]
    links = rows(ferry.database, "SELECT original_id, file_id, mark FROM redelivery ORDER BY 3")
    assert links == [(1, file, "R1"), (1, None, "R2")]
    counted = "SELECT count(DISTINCT lead_id) FROM delivery_lead WHERE outcome = 'included'"
    assert scalars(ferry.database, counted) == [3]


@pytest.mark.req("R173")
def test_as_sent_sends_one_part_with_just_its_leads_and_a_checksum_of_the_new_name(ferry, inbox):
    leads = add_leads(ferry.database, 5)
    files = [
        {"name": "{{ file.part }}.csv", "format": {"type": "csv"}, "split": {"rows": 2}, "checksum": "sha256"}
    ]
    batch = make_batch(destinations=[folder(inbox)], files=files)
    ferry.carry(batch)
    (second,) = scalars(ferry.database, "SELECT id FROM file WHERE kind = 'leads' AND part = 2")
    settled = ferry.redeliver(batch, file_id=second, as_sent=True, include_delivered=True)
    assert settled.included == 2
    assert (inbox / "2_R1.csv").read_bytes() == (inbox / "2.csv").read_bytes()
    assert (inbox / "2_R1.csv.sha256").read_text().split()[1] == "2_R1.csv"
    assert carried(ferry.database, settled.delivery_id) == leads[2:4]


def test_as_sent_goes_whole_or_not_at_all(ferry, inbox):
    add_leads(ferry.database, 2)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.carry(batch)
    (file,) = scalars(ferry.database, "SELECT id FROM file")
    assert "the file goes whole" in refused(ferry, batch, file_id=file, as_sent=True)


def test_some_leads_of_a_file_are_no_file_as_sent(ferry, inbox):
    """Its bytes hold the others as well, who have it already."""
    add_leads(ferry.database, 2)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.carry(batch)
    (file,) = scalars(ferry.database, "SELECT id FROM file")
    with pytest.raises(BatchConfigError, match="a stored file goes whole; leave out where"):
        ferry.redeliver(batch, file_id=file, as_sent=True, include_delivered=True, where=[RULE])
    assert [one.name for one in inbox.iterdir()] == ["acme_1.csv"]


def test_as_sent_goes_only_where_such_a_file_goes(ferry, tmp_path):
    add_leads(ferry.database, 2)
    files = [{"id": one, "name": f"{one}.csv", "format": {"type": "csv"}} for one in ("a", "b")]
    both = [folder(tmp_path / one, id=one, files=[one]) for one in ("a", "b")]
    batch = make_batch(files=files, destinations=both)
    ferry.carry(batch)
    (file,) = scalars(ferry.database, "SELECT id FROM file WHERE key = 'a'")
    chosen = ferry.choose(batch, destination="b", file_id=file, as_sent=True, include_delivered=True)
    with pytest.raises(RenderError, match="destination 'b' does not get file 'a'; it gets b"):
        ferry.render(chosen)


@pytest.mark.req("F37")
def test_the_subject_of_a_redelivered_mail_is_marked(ferry, mail):
    from ferry import email, messages

    (lead,) = add_leads(ferry.database)
    batch = make_batch(destinations=[email("leads@acme.example")])
    ferry.carry(batch)
    ferry.redeliver(batch, lead_ids=[lead], include_delivered=True)
    assert sorted(subject for _, subject, _ in messages(mail)) == ["Leads", "Leads [R1]"]


def test_names_can_stay_unmarked(ferry, inbox):
    (lead,) = add_leads(ferry.database)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.carry(batch)
    ferry.redeliver(batch, lead_ids=[lead], include_delivered=True, mark=False)
    assert sorted(delivered(inbox)) == ["acme_1.csv", "acme_2.csv"]


# --- a buyer that answers


@pytest.fixture
def buyer(tmp_path, connect):
    with Buyer(root=tmp_path / "http-inbox", state=tmp_path / "http-state") as server:
        connect("buyer_api", server)
        yield server


def api(**keys):
    rules = [
        {"when": {"json": "$.result", "equals": one}, "then": one}
        for one in ("accepted", "rejected", "duplicate")
    ]
    capture = {"message": {"json": "$.why"}}
    return {
        "id": "api",
        "type": "http",
        "connection": "buyer_api",
        "answers": rules,
        "capture": capture,
        **keys,
    }


def rejects(why):
    return as_json({"result": "rejected", "why": why}, status=422)


@pytest.mark.req("R194", "R195")
def test_a_rejected_lead_that_is_accepted_later_is_delivered_and_its_history_kept(ferry, buyer):
    first, second = add_leads(ferry.database, 2)
    batch = make_batch(files=[], destinations=[api()])
    buyer.script = [rejects("too old"), buyer.accept]
    ferry.carry(batch)
    assert selected(ferry, batch, status=["rejected"]) == [first]
    buyer.script = [rejects("no stock")]
    ferry.redeliver(batch, "again", status=["rejected"])
    assert outcomes(ferry, first) == [("rejected", "too old"), ("rejected", "no stock")]
    buyer.script = [buyer.accept]
    ferry.redeliver(batch, "at last", lead_ids=[first])
    assert outcomes(ferry, first)[-1] == ("delivered", None)
    assert buyer.accepted == [second, first]
    assert selected(ferry, batch, status=["rejected"]) == []
    assert [one.headers.get("x-leadferry-redelivery") for one in buyer.requests] == [None, None, "R1", "R2"]
    assert "delivered there already" in refused(ferry, batch, lead_ids=[first])


def test_unanswered_leads_go_again_and_answered_ones_do_not(ferry, buyer):
    from leadferry.local.http import Response

    leads = add_leads(ferry.database, 3)
    batch = make_batch(files=[], destinations=[api()])
    claimed = ferry.rendered(batch)
    buyer.script = [buyer.accept, Response(status=404)]
    ferry.try_to_deliver(claimed, "api")
    assert ferry.settle(claimed).state is DeliveryState.PARTIAL
    chosen = ferry.choose(batch, selection="all")
    assert (chosen.included, chosen.left_out) == (2, {"delivered there already (include_delivered)": 1})
    ferry.render(chosen)
    ferry.deliver(chosen, "api")
    assert ferry.deliver(claimed, "api") == 0
    assert buyer.accepted == leads
    assert kept_back(ferry.database, chosen.delivery_id) == {}


# --- what is told, and edits outside of a redelivery


@pytest.mark.req("R193")
def test_a_thousand_leads_go_in_chunks_with_visible_progress(ferry, buyer, caplog):
    caplog.set_level("INFO")
    leads = add_leads(ferry.database, 1000)
    keys = {"send": "chunk", "chunk": 50, "items": {"at": "$.results", "lead": "$.lead"}}
    settled = ferry.redeliver(make_batch(files=[], destinations=[api(**keys)]), selection="all")
    assert (settled.state, settled.included) == (DeliveryState.DELIVERED, 1000)
    assert buyer.accepted == leads
    told = [one.message.rpartition(": ")[2] for one in caplog.records if "leads answered" in one.message]
    assert told == [f"{done} of 1000 leads answered" for done in range(100, 1001, 100)]


@pytest.mark.req("R182")
def test_a_lead_is_edited_for_good_with_the_old_value_kept(ferry, inbox):
    from leadferry.store.edits import edit

    first, second = add_leads(ferry.database, 2, fields={"year": 2025, "make": "Ford"})
    assert edit(ferry.database, [first], {"year": 2015, "model": "F150"}, reason="misread", actor="kim") == 1
    assert scalars(ferry.database, "SELECT fields ->> 'year' FROM lead ORDER BY id") == ["2015", "2025"]
    kept = "SELECT lead_id, delivery_id, persisted, before, changes, reason, actor FROM lead_edit"
    assert rows(ferry.database, kept) == [
        (first, None, True, {"year": 2025}, {"year": 2015, "model": "F150"}, "misread", "kim")
    ]
    for ids, reason, told in (([first, 99], "x", "no lead 99"), ([second], " ", "only with a reason")):
        with pytest.raises(StoreError, match=told):
            edit(ferry.database, ids, {"year": 1}, reason=reason, actor="kim")
    assert len(rows(ferry.database, kept)) == 1


def test_versions_of_leads_stay_unless_their_values_are_erased(ferry):
    from leadferry.store.edits import edit

    (lead,) = add_leads(ferry.database)
    edit(ferry.database, [lead], {"year": 2015}, reason="misread", actor="kim")
    for statement in (
        "DELETE FROM lead_edit",
        "UPDATE lead_edit SET actor = 'lee'",
        "UPDATE lead_edit SET changes = '{\"year\": 2016}'",
    ):
        with pytest.raises(StoreError, match="rows of lead_edit are never"):
            execute(ferry.database, statement)
    assert execute(ferry.database, "UPDATE lead_edit SET before = '{}', changes = '{}'") == 1


def test_a_redelivery_is_no_departure_for_windows_and_recovery(ferry, inbox):
    add_leads(ferry.database, 3)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.redeliver(batch, selection="all", count=1)
    ferry.carry(batch)
    found = rows(ferry.database, "SELECT number, kind::text, window_from FROM delivery ORDER BY id")
    assert found == [(1, "redelivery", None), (2, "departure", None)]


def test_a_redelivery_to_one_destination_needs_neither_its_fallback_nor_what_it_replaces(ferry, tmp_path):
    leads = add_leads(ferry.database, 2)
    (tmp_path / "one").write_text("in the way")
    pair = [folder(tmp_path / "one", id="one"), folder(tmp_path / "two", id="two", fallback_for="one")]
    batch = make_batch(destinations=pair)
    assert ferry.carry(batch).state is DeliveryState.DELIVERED
    for destination in ("one", "two"):
        assert "2 delivered there already" in refused(ferry, batch, destination=destination, lead_ids=leads)
    settled = ferry.redeliver(batch, destination="two", lead_ids=leads, include_delivered=True)
    assert settled.state is DeliveryState.DELIVERED
    assert sorted(delivered(tmp_path / "two")) == ["acme_1.csv", "acme_2_R1.csv"]


@pytest.mark.req("C30", "R166")
def test_an_early_copy_counts_as_delivered_there(ferry, inbox):
    from leadferry.delivery.params import DeliverNow

    (lead,) = add_leads(ferry.database)
    batch = make_batch(destinations=[folder(inbox)])
    early = ferry.extract(batch, params=DeliverNow(keep_for_next=True), actor="kim")
    ferry.render(early)
    ferry.deliver(early, "drop")
    ferry.settle(early)
    assert waiting(ferry.database) == [lead]
    assert "1 delivered there already" in refused(ferry, batch, lead_ids=[lead])
    assert ferry.redeliver(batch, lead_ids=[lead], include_delivered=True).state is DeliveryState.DELIVERED
    assert waiting(ferry.database) == [lead]


@pytest.mark.req("R185")
def test_minimum_limit_and_waiting_time_do_not_count(ferry, inbox):
    leads = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[folder(inbox)], conditions={"min_leads": 50}, select={"limit": 1})
    assert ferry.extract(batch).state is DeliveryState.SKIPPED
    assert ferry.redeliver(batch, lead_ids=leads).included == 3


@pytest.mark.req("R185")
def test_caps_are_ignored_and_not_used_up_and_the_log_says_so(ferry, inbox, caplog):
    caplog.set_level("INFO")
    leads = add_leads(ferry.database, 5)
    batch = make_batch(destinations=[folder(inbox)], select={"caps": [{"leads": 2, "per": "day"}]})
    assert ferry.carry(batch, "one").included == 2
    assert ferry.extract(batch, "two").state is DeliveryState.SKIPPED
    assert ferry.redeliver(batch, lead_ids=leads[2:]).included == 3
    assert "The batch's caps are ignored" in caplog.text
    used = "SELECT sum(included) FROM delivery WHERE kind = 'departure'"
    assert scalars(ferry.database, used) == [2]


def test_duplicates_go_only_when_their_search_is_skipped(ferry, inbox):
    (first,) = add_leads(ferry.database, fields={"email": "ann@example.com"})
    batch = make_batch(destinations=[folder(inbox)], select={"dedupe": {"by": ["email"], "within": "90d"}})
    ferry.carry(batch)
    # Its own earlier delivery makes a lead no duplicate.
    assert selected(ferry, batch, lead_ids=[first], include_delivered=True) == [first]
    (twin,) = add_leads(ferry.database, fields={"email": "ANN@example.com"})
    assert "1 withheld by dedupe email" in refused(ferry, batch, lead_ids=[twin])
    assert "1 withheld by dedupe email" in refused(ferry, batch, "rules", lead_ids=[twin], skip_rules=True)
    assert ferry.redeliver(batch, lead_ids=[twin], skip_dedupe=True).state is DeliveryState.DELIVERED


@pytest.fixture
def mails(ferry, inbox):
    """A batch without duplicates of an address, which delivered Ann's lead already."""
    batch = make_batch(destinations=[folder(inbox)], select={"dedupe": {"by": ["email"], "within": "90d"}})
    add_leads(ferry.database, fields={"email": "ann@example.com"})
    ferry.carry(batch)
    return batch


def mailed(ferry, email):
    (lead,) = add_leads(ferry.database, fields={"email": email})
    return lead


@pytest.mark.req("R181")
def test_a_lead_that_an_edit_makes_a_duplicate_is_withheld(ferry, mails):
    bob = mailed(ferry, "bob@example.com")
    asked = {"lead_ids": [bob], "edits": {"email": "Ann@example.com"}, "reason": "typo"}
    assert "1 withheld by dedupe email" in refused(ferry, mails, **asked)


@pytest.mark.req("R181")
def test_a_lead_that_an_edit_makes_no_duplicate_any_more_goes(ferry, mails):
    twin = mailed(ferry, "ann@example.com")
    assert selected(ferry, mails, lead_ids=[twin], edits={"email": "eve@example.com"}, reason="typo") == [
        twin
    ]


@pytest.mark.req("R181")
def test_of_two_that_edits_make_the_same_one_goes(ferry, mails):
    first, second = mailed(ferry, "bob@example.com"), mailed(ferry, "eve@example.com")
    asked = {"lead_ids": [first, second], "edits": {"email": "kim@example.com"}, "reason": "typo"}
    assert selected(ferry, mails, **asked) == [first]


@pytest.mark.req("R181")
@pytest.mark.parametrize("keep", [False, True])
def test_a_lead_like_one_that_went_as_edited_is_a_duplicate(ferry, mails, keep):
    bob = mailed(ferry, "bob@example.com")
    edits = {"email": "eve@example.com"}
    ferry.redeliver(mails, lead_ids=[bob], edits=edits, reason="typo", persist_edits=keep)
    eve, other = mailed(ferry, "eve@example.com"), mailed(ferry, "bob@example.com")
    ferry.extract(mails, run_id="next")
    withheld = rows(ferry.database, "SELECT lead_id, reason FROM withheld ORDER BY lead_id")
    assert withheld == [(eve, "dedupe email")]
    assert other not in waiting(ferry.database)


@pytest.mark.req("R181")
def test_edits_of_leads_that_are_not_selected_are_refused_with_their_ids(ferry, inbox):
    one, two, three = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[folder(inbox)])
    edits = {str(lead): {"email": "new@example.com"} for lead in (one, two, three)}
    asked = {"edits": edits, "reason": "typo", "dry_run": True}
    with pytest.raises(
        StoreError, match=rf"edits name 2 leads that are not among those selected: {two}, {three}"
    ):
        ferry.choose(batch, lead_ids=[one], **asked)
    with pytest.raises(
        StoreError, match=rf"edits name 1 lead that is not among those selected: {one}"
    ) as told:
        ferry.choose(batch, where=[{"field": "n", "at_least": 2}], **asked)
    assert "new@example.com" not in str(told.value)
    assert scalars(ferry.database, "SELECT id FROM delivery") == []


@pytest.mark.parametrize("as_sent", [False, True])
def test_the_recipients_own_rules_are_never_skipped(ferry, inbox, as_sent):
    (lead,) = add_leads(ferry.database)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.carry(batch)
    (file,) = scalars(ferry.database, "SELECT id FROM file")
    recipient = {"id": "buyer", "name": "Acme", "rules": [{"name": "never", "field": "n", "at_least": 5}]}
    strict = make_batch(destinations=[folder(inbox)], recipient=recipient)
    how = {"file_id": file, "as_sent": True} if as_sent else {"lead_ids": [lead], "skip_rules": True}
    assert "never" in refused(ferry, strict, include_delivered=True, **how)


def test_a_lead_that_is_stopped_after_the_claim_is_not_in_the_file(ferry, inbox):
    from leadferry.store.queue import EVERY_BATCH

    leads = add_leads(ferry.database, 3)
    batch = make_batch(destinations=[folder(inbox)])
    ferry.carry(batch)
    chosen = ferry.choose(
        batch, lead_ids=leads, include_delivered=True, edits={"email": "new@example.com"}, reason="typo"
    )
    order = "INSERT INTO lead_stop VALUES (:lead, :every, 'cancelled', 'asked', 'kim')"
    execute(ferry.database, order, lead=leads[0], every=EVERY_BATCH)
    ferry.render(chosen)
    ferry.deliver(chosen, "drop")
    assert ferry.settle(chosen).state is DeliveryState.DELIVERED
    assert delivered(inbox)["acme_2_R1.csv"] == leads[1:]


@pytest.mark.parametrize(("hour", "kept"), [(12, False), (3, True)])
def test_a_lead_in_its_quiet_hours_waits_unless_that_is_overridden(ferry, inbox, hour, kept):
    """The run lies in the future, so that the hours are those of its time and not of the test's."""
    first, second = add_leads(ferry.database, 1) + add_leads(ferry.database, 1, fields={"n": 2})
    batch = make_batch(destinations=[folder(inbox)], select={"quiet_hours": {"from": "21:00", "to": "08:00"}})
    run = datetime.now(tz=UTC) + timedelta(days=2)
    by = ByHand(run_id="by-hand", at=run.replace(hour=hour), actor="kim")
    for override in (False, True):
        asked = {"lead_ids": [second], "override_window": override, "dry_run": True}
        params = Redeliver.parse({"batch": "acme", "destination": "drop", **asked})
        left_out = claim_redelivery(ferry.database, batch, params, by).left_out
        assert left_out == ({"in quiet hours (override_window)": 1} if kept and not override else {})
    assert waiting(ferry.database) == [first, second]


@pytest.mark.parametrize(
    ("field", "text"), [("edits", "{bad"), ("where", "{bad"), ("edits", "[1]"), ("lead_ids", "1;2")]
)
def test_what_is_no_json_of_the_right_kind_is_refused_with_the_fields_name(field, text):
    asked = {"batch": "acme", "destination": "drop", "lead_ids": ["1"], "reason": "wrong year", field: text}
    with pytest.raises(BatchConfigError, match=f"{field}: .*Nothing was claimed") as caught:
        Redeliver.parse(asked)
    assert text not in str(caught.value)
