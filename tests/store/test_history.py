"""What people ask about deliveries; the answers cost the same however long the history is."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import event, text

from batches import DEPARTS_AT, add_leads, claim, execute, rows
from leadferry.errors import StoreError
from leadferry.states import DeliveryState
from leadferry.store import audit, history, precedents, settling, standing
from leadferry.store.audit import record, trail
from leadferry.store.history import Asked, deliveries

YEARS = """
    INSERT INTO batch (id) SELECT 'old' || n FROM generate_series(1, 50) AS n;
    INSERT INTO batch_config (batch_no, sha256, config)
        SELECT no, 'x', '{"recipient": {"id": "old"}}' FROM batch WHERE id LIKE 'old%';
    INSERT INTO delivery (batch_no, config_id, run_id, state, departs_at, window_to, lease_until)
        SELECT batch_no, batch_config.id, 'old' || n, 'delivered', now() - n * interval '1 hour', now(), now()
        FROM batch_config, generate_series(1, 400) AS n WHERE sha256 = 'x';
    INSERT INTO file (delivery_id, key, name, sha256, size, rows, media_type, archive_key)
        SELECT id, 'leads', 'old' || id || '.csv', 'x', 1, 1, 'text/csv', 'x' FROM delivery WHERE run_id LIKE 'old%';
    INSERT INTO dispatch (delivery_id, file_id, destination, way, parcel_key, state, receipt)
        SELECT delivery_id, id, 'drop', 'drop', 'x', 'confirmed', '{}' FROM file;
    INSERT INTO attempt (dispatch_id, number, worker) SELECT id, 1, 'x' FROM dispatch;
    INSERT INTO audit (actor, action, object, at)
        SELECT 'old', 'file.get', 'file ' || n, now() - n * interval '1 minute' FROM generate_series(1, 20000) AS n;
    INSERT INTO lead (flow, received_at, fields)
        SELECT 'old', now() - interval '1 year' + n * interval '1 second', '{}' FROM generate_series(1, 20000) AS n;
    DELETE FROM arrival;
    INSERT INTO lot (batch_no, delivery_id, newest_received_at) SELECT batch_no, id, now() FROM delivery;
    INSERT INTO queue_entry (batch_no, lead_id, lot_id, received_at)
        SELECT lot.batch_no, lead.id, lot.id, lead.received_at
        FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM lead) AS lead
        JOIN (SELECT *, row_number() OVER (ORDER BY id) AS n FROM lot) AS lot USING (n);
    ANALYZE;
"""


@pytest.fixture
def recent(database):
    """One delivery of the batch `acme`, after years of others."""
    execute(database, YEARS)
    add_leads(database, 2)
    return claim(database, config={"recipient": {"id": "buyer"}}).delivery_id


def rows_read(database, ask):
    """How many rows PostgreSQL reads from tables for everything that `ask` asks, and throws away or returns."""
    plans = []

    def explain(connection, cursor, statement, parameters, *_):
        if statement.startswith("SELECT"):
            told = cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).fetchone()[0]
            plans.append(told[0]["Plan"])

    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        ask()
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)
    assert plans
    return sum(map(_read, plans))


def _read(node):
    own = sum(
        node.get(key, 0) for key in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    )
    scans = "Scan" in node["Node Type"]
    return (own * node["Actual Loops"] if scans else 0) + sum(map(_read, node.get("Plans", [])))


def questions(database, delivery_id):
    """Every question whose answer must not cost more as time passes."""
    lead = rows(
        database, "SELECT max(lead_id) FROM queue_entry JOIN lot ON lot.id = lot_id WHERE lot.batch_no < 51"
    )
    return {
        "deliveries of a batch": lambda: deliveries(database, Asked(batch_id="acme")),
        "deliveries of a busy batch": lambda: deliveries(database, Asked(batch_id="old7"), limit=20),
        "newest deliveries": lambda: deliveries(database, Asked(), limit=20),
        "deliveries to a recipient": lambda: deliveries(database, Asked(recipient_id="buyer"), limit=20),
        "one delivery": lambda: history.delivery_row(database, delivery_id),
        "attempts": lambda: history.attempts(database, delivery_id),
        "dispatches": lambda: history.dispatches(database, delivery_id),
        "withheld": lambda: history.withheld_reasons(database, delivery_id),
        "done": lambda: history.done_to(database, delivery_id),
        "files of a delivery": lambda: history.files(database, delivery_id=delivery_id),
        "files by name": lambda: history.files(database, name="old5.csv"),
        "files of a batch": lambda: history.files(database, batch_id="acme"),
        "one lead": lambda: standing.story_of(database, lead[0][0]),
        "newest leads": lambda: standing.find_leads(database, standing.Wanted(), limit=10),
        "audit of a thing": lambda: trail(database, subject="file 7"),
        "audit of a person": lambda: trail(database, actor="kim"),
        "newest audit": lambda: trail(database, limit=10),
        "audit since": lambda: trail(database, since=DEPARTS_AT.replace(year=2999)),
    }


MOST_ROWS = 600
"""Far from the 20,000 of the history; what is left are small tables, such as that of the batches, read as a whole."""


@pytest.mark.req("R171")
def test_no_question_reads_the_whole_history(database, recent):
    read = {name: rows_read(database, ask) for name, ask in questions(database, recent).items()}
    assert {name: number for name, number in read.items() if number > MOST_ROWS} == {}


def test_deliveries_are_found_by_batch_recipient_state_and_day(database):
    for number in range(3):
        add_leads(database, 1)
        at = DEPARTS_AT + timedelta(days=number)
        claim(database, f"run-{number}", departs_at=at, config={"recipient": {"id": f"buyer{number // 2}"}})
    claim(database, "run-9", batch_id="other", config={"recipient": {"id": "buyer1"}})

    def ids(**asked):
        return [(row["batch"], row["id"]) for row in deliveries(database, Asked(**asked))]

    first, second, third, fourth = (row[0] for row in rows(database, "SELECT id FROM delivery ORDER BY id"))
    assert ids() == [("other", fourth), ("acme", third), ("acme", second), ("acme", first)]
    assert ids(batch_id="acme", since=DEPARTS_AT + timedelta(days=1)) == [("acme", third), ("acme", second)]
    assert ids(recipient_id="buyer1") == [("other", fourth), ("acme", third)]
    assert ids(recipient_id="buyer1", batch_id="acme") == [("acme", third)]
    assert ids(state=DeliveryState.FAILED) == []
    assert len(ids(state=DeliveryState.CLAIMED)) == 4
    assert ids(batch_id="nobody") == []


def test_a_delivery_knows_the_version_of_its_configuration(database):
    versions = []
    for number, config in enumerate([{"a": 1}, {"a": 2}, {"a": 1}]):
        add_leads(database, 1)
        found = claim(database, f"run-{number}", config=config)
        versions.append(history.delivery_row(database, found.delivery_id)["config_version"])
    assert versions == [1, 2, 1]


def test_what_is_not_there_is_said_so(database):
    with pytest.raises(StoreError, match="There is no delivery 99"):
        history.delivery_row(database, 99)


def test_the_trail_is_narrowed_down_by_thing_person_deed_and_time(database):
    deeds = [
        ("kim", "lead.hold", "lead 1"),
        ("lee", "lead.hold", "lead 2"),
        ("kim", "leads.import", "flow x"),
    ]
    for actor, action, thing in deeds:
        with database.transaction() as connection:
            record(connection, actor=actor, action=action, subject=thing, detail={"reason": "x"})

    def found(**asked):
        return [(row["actor"], row["action"], row["object"]) for row in trail(database, **asked)]

    assert found() == deeds[::-1]
    assert found(actor="kim") == [deeds[2], deeds[0]]
    assert found(subject="lead 2") == [deeds[1]]
    assert found(action="lead") == [deeds[1], deeds[0]]
    assert found(action="leads.import") == [deeds[2]]
    assert found(action="l_ad") == []
    assert found(limit=1) == [deeds[2]]
    with database.transaction() as connection:
        (now,) = connection.execute(text("SELECT now()")).one()
    assert found(since=now) == []
    assert json.dumps(trail(database)[0]["detail"]) == '{"reason": "x"}'
    assert audit.trail(database, since=now - timedelta(hours=1))


def before(database, run_id, *, by_hand=False):
    """The run whose departure counts as the one before this run."""
    found = precedents.previous_departure(
        database, "acme", run_id=run_id, not_ready="not ready", makes_up=by_hand
    )
    return None if found is None else rows(database, RUN_AT, at=found)[0][0]


RUN_AT = "SELECT run_id FROM delivery WHERE claimed_at = :at"


@pytest.mark.req("R046")
def test_a_departure_that_took_nothing_is_the_previous_one_for_the_next(database):
    assert before(database, "monday") is None
    claim(database, "monday")
    assert before(database, "tuesday") == "monday"
    add_leads(database, 1)
    claim(database, "tuesday", minimum=2)
    assert before(database, "wednesday") == "tuesday"
    claim(database, "wednesday")
    assert before(database, "thursday") == "wednesday"


@pytest.mark.req("R046")
def test_a_departure_that_failed_is_the_previous_one_for_the_next_but_not_for_itself(database):
    claim(database, "monday")
    add_leads(database, 1)
    failed = claim(database, "tuesday")
    assert before(database, "tuesday") == "monday"
    settling.settle(database, failed.delivery_id)
    assert before(database, "tuesday") == "monday"
    assert before(database, "wednesday") == "tuesday"


@pytest.mark.req("R046")
def test_who_triggers_a_run_makes_up_for_departures_that_came_to_nothing(database):
    claim(database, "monday")
    add_leads(database, 2)
    settling.settle(database, claim(database, "failed").delivery_id)
    claim(database, "too many", maximum=1)
    assert before(database, "tuesday") == "too many"
    assert before(database, "by hand", by_hand=True) == "monday"


@pytest.mark.req("R046")
def test_what_departed_since_does_not_count_for_a_run_that_is_cleared(database):
    claim(database, "monday")
    claim(database, "tuesday")
    assert before(database, "monday") is None


@pytest.mark.req("R046")
def test_a_run_that_waited_in_vain_is_no_departure_for_the_next(database):
    claim(database, "monday")
    claim(database, "tuesday", on_hold="not ready: waited in vain for a file")
    assert before(database, "wednesday") == "monday"


@pytest.mark.req("R046")
def test_neither_tests_nor_early_copies_nor_other_batches_are_departures(database):
    add_leads(database, 1)
    claim(database, "test", made_up=({"email": "a@example.com"},))
    claim(database, "copy", keep_for_next=True)
    claim(database, "theirs", batch_id="other")
    assert before(database, "monday") is None
