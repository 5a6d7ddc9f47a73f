"""The DAG `leadferry_maintenance` in a real Airflow: each of its tasks does its work, and none hinders another."""

from __future__ import annotations

import pytest

from batches import add_leads, claim, execute, rows, scalars, waiting

from .patience import PATIENCE

pytestmark = pytest.mark.timeout(PATIENCE)


@pytest.fixture(scope="module")
def ran(make_airflow):
    """Two runs over a batch that should have departed long ago, one that never looked for its leads, a torn file, and a claim that nobody works on."""
    airflow = make_airflow()
    airflow.batch("acme", schedule={"at": ["00:00"]}, deadline="1s")
    airflow.batch("waits", schedule="manual", watch={"max_pending": 2})
    airflow.batch("torn").write_text("name: [\n")
    airflow.leads = add_leads(airflow.database, 3)
    first = airflow.run("dags", "test", "leadferry_maintenance")
    config = {"notify": {"failure": []}, "retention": {}}
    claimed = claim(airflow.database, batch_id="dead", config=config)
    execute(airflow.database, "UPDATE watched SET since = '2020-01-01Z'")
    execute(airflow.database, "UPDATE delivery SET lease_until = now() - interval '1 minute'")
    airflow.outcome = airflow.run("dags", "test", "leadferry_maintenance")
    airflow.dead = claimed.delivery_id
    assert first.returncode == 0, first.stdout[-3000:]
    return airflow


@pytest.mark.req("F44")
def test_a_departure_that_no_scheduler_made_is_told_in_the_log(ran):
    assert dict(rows(ran.database, "SELECT batch, kind FROM incident")) == {
        "acme": "missing",
        "torn": "broken",
        "waits": "depth",
    }
    assert "Batch acme should have departed" in ran.outcome.stdout


def test_a_batch_that_was_seen_for_the_first_time_is_not_told(ran):
    assert scalars(ran.database, "SELECT kind FROM incident ORDER BY id") == ["broken", "depth", "missing"]


@pytest.mark.req("R168")
def test_leads_of_a_batch_that_never_departed_are_told_in_the_log(ran):
    assert scalars(ran.database, "SELECT run_id FROM delivery") == ["run-1"]
    assert waiting(ran.database, "waits") == ran.leads
    (told,) = scalars(ran.database, "SELECT detail FROM incident WHERE kind = 'depth'")
    assert told.startswith("3 leads wait for batch waits")


def test_the_leads_of_the_dead_claim_are_back_although_its_notice_cannot_be_made(ran):
    assert rows(ran.database, "SELECT state::text FROM delivery WHERE id = :id", id=ran.dead) == [("failed",)]
    assert waiting(ran.database, "dead") == ran.leads


def test_only_numbers_and_states_pass_through_airflow(ran):
    assert "lead1@example.com" not in ran.outcome.stdout
