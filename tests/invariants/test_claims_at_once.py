"""Several processes claim at the same moment: no lead in two deliveries, none lost (I1)."""

import ferry_driver
import pytest
from harbour import Driver

from batches import add_leads, make_batch, rows, waiting

LEADS = 50_000


def claim_at_once(store_url, run_ids, **keys):
    """One process for each run id, all let go together; what each claimed."""
    batch = make_batch(**keys).model_dump(mode="json")
    jobs = [{"store": store_url, "batch": batch, "run_id": run_id} for run_id in run_ids]
    drivers = [Driver(ferry_driver.claim_only, job) for job in jobs]
    for driver in drivers:
        driver.go()
    claims = [driver.hear() for driver in drivers]
    assert [driver.end() for driver in drivers] == [0] * len(drivers)
    return claims


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("limit", [None, 15_000])
def test_i1_claims_of_different_runs_share_the_leads_out(forks, database, store_url, processes, limit):
    leads = add_leads(database, LEADS)
    runs = [f"run-{number}" for number in range(processes)]
    claims = claim_at_once(store_url, runs, select={"limit": limit})
    taken = rows(database, "SELECT lead_id, delivery_id FROM delivery_lead WHERE outcome = 'included'")
    left = waiting(database)
    assert sorted([lead for lead, _ in taken] + left) == leads
    assert sum(included for _, included in claims) == len(taken)
    if limit is None:
        assert sorted(included for _, included in claims) == [0] * (processes - 1) + [LEADS]
    else:
        assert len(taken) == min(processes * limit, LEADS)


def test_i1_claims_of_the_same_run_are_one_delivery(forks, database, store_url):
    add_leads(database, LEADS)
    claims = claim_at_once(store_url, ["the run"] * 4)
    assert len(set(claims)) == 1
    assert rows(database, "SELECT included FROM delivery") == [(LEADS,)]


@pytest.mark.req("F21")
@pytest.mark.parametrize("overflow", ["hold", "drop"])
def test_a_cap_is_never_exceeded_by_claims_at_the_same_moment(forks, database, store_url, overflow):
    leads = add_leads(database, 5_000)
    select = {"caps": [{"leads": 1_234, "per": "total", "overflow": overflow}]}
    claims = claim_at_once(store_url, [f"run-{number}" for number in range(4)], select=select)
    assert sorted(included for _, included in claims) == [0, 0, 0, 1_234]
    taken = rows(database, "SELECT outcome, count(*) FROM delivery_lead GROUP BY outcome ORDER BY outcome")
    if overflow == "hold":
        assert (taken, len(waiting(database))) == ([("included", 1_234)], len(leads) - 1_234)
    else:
        assert taken == [("included", 1_234), ("withheld", len(leads) - 1_234)]


@pytest.mark.req("F24")
def test_batches_of_one_recipient_that_claim_at_the_same_moment_share_no_person(forks, database, store_url):
    """Both batches listen to the flow; each person goes to the recipient once, by one of them."""
    add_leads(database, 2_000)
    select = {"dedupe": {"by": ["email"], "within": "forever", "scope": "recipient"}}
    batches = [make_batch(id=name, select=select).model_dump(mode="json") for name in ("acme", "other")]
    jobs = [{"store": store_url, "batch": one, "run_id": "run"} for one in batches]
    drivers = [Driver(ferry_driver.claim_only, job) for job in jobs]
    for driver in drivers:
        driver.go()
    claims = [driver.hear() for driver in drivers]
    assert [driver.end() for driver in drivers] == [0, 0]
    assert sorted(included for _, included in claims) == [0, 2_000]
