"""What the triggerer watches: files and queries that a departure waits for, and queues."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.serialization.encoders import encode_trigger
from sqlalchemy.engine import make_url

from batches import DEPARTS_AT, add_leads, execute, make_batch, trigger
from leadferry.batch.conditions import Ready
from leadferry.batch.timing import Timing
from leadferry.dag_factory import _leads_waiting
from leadferry.delivery.extract import extract
from leadferry.states import DeliveryState
from leadferry.triggers import LeadsWaiting, ReadyTrigger, is_ready

DAY = "2026-01-30"
AT_TEN = {"at": ["10:00"]}


def ready(**keys):
    return Ready.model_validate({"every": "1s", **keys})


def fired(asked, *, within=timedelta()):
    """The payload of the trigger's only event."""
    deadline = (datetime.now(tz=UTC) + within).isoformat()
    trigger = ReadyTrigger(ready=asked.model_dump(mode="json"), day=DAY, deadline=deadline, first_look=0)

    async def first():
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(first())
    return payload


@pytest.fixture
def warehouse(database, store_url, monkeypatch):
    """An Airflow connection `warehouse` to a real PostgreSQL."""
    url = make_url(store_url)
    connection = {
        "conn_type": "postgres",
        "host": url.query.get("host", url.host),
        "login": url.username,
        "schema": url.database,
    }
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    return "warehouse"


@pytest.mark.req("R046")
def test_a_file_is_ready_when_it_is_there_on_the_day_of_the_departure(tmp_path):
    asked = ready(file={"path": f"{tmp_path}/leads-{{{{ date }}}}.done"})
    assert fired(asked) == {"ready": False, "error": None}
    (tmp_path / f"leads-{DAY}.done").touch()
    assert fired(asked) == {"ready": True}


@pytest.mark.req("R046")
def test_what_comes_while_it_is_looked_for_is_found(tmp_path):
    marker = tmp_path / "ready"
    asked = ready(file={"path": str(marker)})
    deadline = (datetime.now(tz=UTC) + timedelta(minutes=1)).isoformat()
    trigger = ReadyTrigger(ready=asked.model_dump(mode="json"), day=DAY, deadline=deadline, first_look=0)

    async def comes_later():
        events = trigger.run()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        marker.touch()
        return (await first).payload

    assert asyncio.run(comes_later()) == {"ready": True}


@pytest.mark.req("R046")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT count(*) FROM leadferry.lead", False),
        ("SELECT 1", True),
        ("SELECT false", False),
        ("SELECT NULL", False),
        ("SELECT id FROM leadferry.lead", False),
    ],
)
def test_a_query_is_ready_when_its_first_value_is_something(warehouse, query, expected):
    assert is_ready(ready(sql={"connection": warehouse, "query": query}), day=DAY) is expected


@pytest.mark.req("R046")
def test_a_query_that_fails_is_not_ready_and_only_its_kind_is_told(warehouse):
    told = fired(ready(sql={"connection": warehouse, "query": "SELECT 'jane@example.com'::integer"}))
    assert told["ready"] is False
    assert "jane" not in told["error"]


def test_a_connection_that_is_not_there_is_told(tmp_path):
    told = fired(ready(sql={"connection": "nowhere", "query": "SELECT 1"}))
    assert told["ready"] is False
    assert told["error"]


@pytest.mark.req("R047")
def test_the_watch_over_a_queue_fires_once(database, store_url, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    add_leads(database, 3)
    watch = LeadsWaiting(
        **WATCHED | {"batch_id": "acme", "flows": ["auto"], "every": 0.01}, leads=3, oldest=None
    )

    async def first_and_next():
        events = watch.run()
        first = await anext(events)
        again = asyncio.ensure_future(anext(events))
        done, _ = await asyncio.wait([again], timeout=0.5)
        again.cancel()
        return first.payload, bool(done)

    payload, again = asyncio.run(first_and_next())
    assert payload == {"batch": "acme", "reason": "3 leads wait"}
    assert not again


@pytest.mark.req("R047")
def test_the_watch_over_a_queue_outlasts_a_store_that_is_not_set_up_and_looks_no_more_often(
    database, store_url, monkeypatch, caplog
):
    """An exception would end it; Airflow's triggerer then makes it anew every second, with a traceback each time."""
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    add_leads(database, 3)
    looks = []

    class SetUpMeanwhile(LeadsWaiting):
        def order(self, **keys):
            looks.append(keys)
            if len(looks) == 3:
                execute(database, "ALTER TABLE not_there_yet RENAME TO early_departure")
            return super().order(**keys)

    execute(database, "ALTER TABLE early_departure RENAME TO not_there_yet")
    watch = SetUpMeanwhile(
        **WATCHED | {"batch_id": "acme", "flows": ["auto"], "every": 0.01}, leads=3, oldest=None
    )

    async def first():
        return (await anext(watch.run())).payload["reason"]

    assert asyncio.run(first()) == "3 leads wait"
    assert len(looks) == 3
    assert "not set up" in caplog.text


@pytest.fixture
def watched(database, store_url, monkeypatch):
    """The lead store, as triggers find it."""
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    return database


def watch_over(**keys):
    """The watcher that the DAG of a batch hands to the triggerer, as it comes out of Airflow's database."""
    made = _leads_waiting(one := make_batch(**keys), one.conditions.depart_early)
    return LeadsWaiting(**json.loads(json.dumps(made.serialize()[1])))


@pytest.mark.req("R047")
@pytest.mark.parametrize(
    ("window", "schedule"),
    [
        ({"period": "day", "which": "previous"}, "manual"),
        ({"period": "week", "days": "mon-thu"}, AT_TEN),
        ({"period": "week", "days": "mon-fri"}, {**AT_TEN, "calendar": {"id": "us", "closed": {DAY: "off"}}}),
    ],
)
def test_the_watch_over_a_queue_counts_only_leads_that_a_departure_would_take_now(watched, window, schedule):
    keys = {"schedule": schedule, "conditions": {"depart_early": {"leads": 2}}}
    add_leads(watched, 2, received_at=DEPARTS_AT - timedelta(hours=1))
    stays = make_batch(select={"window": window}, **keys)
    assert extract(watched, stays, trigger("event__1", actor="event")).state is DeliveryState.SKIPPED
    assert watch_over(select={"window": window}, **keys).order(now=DEPARTS_AT) is None
    assert watch_over(**keys).order(now=DEPARTS_AT) == "2 leads wait"


@pytest.mark.req("R047", "F54")
@pytest.mark.parametrize(
    ("opens", "night", "asked"),
    [
        ("09:00", ("15:00", "20:00"), "2 leads wait"),
        ("09:00", ("13:00", "20:00"), None),
        ("16:00", ("15:00", "20:00"), None),
        ("16:00", ("13:00", "16:00"), "2 leads wait"),
    ],
)
def test_the_watch_judges_the_night_when_the_files_would_be_sent(watched, opens, night, asked):
    """It is two in the afternoon for the leads and for the recipient, who is open or opens at four."""
    calendar = {"id": "c", "weekend": [], "hours": {"opens": opens, "closes": "18:00"}}
    add_leads(watched, 2, fields={"zone": "Etc/UTC"})
    watch = watch_over(
        schedule={"on_asset": "prices", "calendar": calendar},
        select={"quiet_hours": {"from": night[0], "to": night[1], "zone_by": "zone"}},
        conditions={"depart_early": {"leads": 2}},
    )
    assert watch.order(now=DEPARTS_AT) == asked


def test_a_batch_whose_leads_never_have_to_stay_gives_the_watch_nothing_to_judge_by():
    assert watch_over(conditions={"depart_early": {"leads": 2}}).values["timing"] is None


WATCHED = {
    "batch_id": "a",
    "flows": ["f"],
    "received_from": None,
    "every": 60.0,
    "again_after": 3600.0,
    "others_come": True,
}


@pytest.mark.parametrize(
    "trigger",
    [
        LeadsWaiting(
            **WATCHED,
            leads=1,
            oldest=None,
            timing=Timing(schedule="manual", timezone="UTC").model_dump_json(),
        ),
        ReadyTrigger(ready={"asset": "x"}, day=DAY, deadline="2026-01-30T09:00:00+00:00"),
        LeadsWaiting(**WATCHED, leads=None, oldest=7200.0),
    ],
)
def test_a_trigger_survives_being_stored(trigger):
    path, values = trigger.serialize()
    assert type(trigger)(**values).serialize() == (path, values)
    assert encode_trigger(trigger)["classpath"] == path


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "exactly one of sql, file and asset"),
        ({"asset": "a", "file": {"path": "/x"}}, "exactly one of sql, file and asset"),
        ({"file": {"path": "/x/{{ batch.id }}"}}, "may hold {{ date }} and nothing else"),
        ({"file": {"path": "/x", "connection": "c"}}, "connection goes with a URL"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(keys, told):
    with pytest.raises(ValueError, match=told):
        make_batch(conditions={"ready": keys})


@pytest.mark.parametrize(
    "conditions",
    [
        {"depart_early": {}},
        {"min_leads": 5, "max_leads": 4},
        {"min_leads": 5, "depart_early": {"leads": 4, "oldest": "2h"}},
    ],
)
def test_conditions_that_cannot_be_meant_are_refused(conditions):
    with pytest.raises(ValueError, match=r"say when|max_leads is less|depart_early.leads is less"):
        make_batch(conditions=conditions)
