"""The first step: what is frozen, what a person's trigger leaves behind, what happens with nothing to deliver."""

from datetime import timedelta

import pytest

from batches import add_leads, carried, execute, folder, make_batch, rows, scalars, waiting
from ferry import messages
from leadferry.delivery.extract import lease
from leadferry.delivery.notices import tell_nothing_to_deliver
from leadferry.delivery.params import DeliverNow
from leadferry.errors import BatchConfigError, DepartureRefusedError, NothingToDeliverError
from leadferry.states import DeliveryState

EMAIL, LEAD = {"to": "Email", "from": "email"}, {"to": "Lead", "from": "id"}


@pytest.mark.req("R006", "C29")
def test_a_changed_column_list_is_used_by_the_next_run_not_by_a_run_already_claimed(ferry, tmp_path):
    add_leads(ferry.database)
    before = make_batch(fields=[EMAIL, LEAD], destinations=[folder(tmp_path / "inbox")])
    first = ferry.extract(before)
    after = make_batch(fields=[EMAIL], destinations=[folder(tmp_path / "inbox")])
    assert ferry.extract(after).delivery_id == first.delivery_id  # the same run, tried again after the change
    add_leads(ferry.database)
    second = ferry.extract(after, "run-2")
    for claimed in (first, second):
        ferry.render(claimed)
        ferry.deliver(claimed, "drop")
    headers = [path.read_text().splitlines()[0] for path in sorted((tmp_path / "inbox").iterdir())]
    assert headers == ["Email,Lead", "Email"]
    hashes = scalars(
        ferry.database,
        "SELECT sha256 FROM delivery JOIN batch_config ON batch_config.id = config_id ORDER BY delivery.id",
    )
    assert len(set(hashes)) == 2


def test_the_same_configuration_is_stored_once(ferry):
    for run_id in ("run-1", "run-2"):
        add_leads(ferry.database)
        ferry.extract(make_batch(), run_id)
    assert scalars(ferry.database, "SELECT count(*) FROM batch_config") == [1]


def test_the_frozen_configuration_is_the_batch(ferry):
    add_leads(ferry.database)
    batch = make_batch(
        retry={"attempts": 3, "first_delay": "90s"},
        select={"rules": [{"name": "r", "field": "n", "at_least": 1}]},
    )
    frozen = ferry.delivery(ferry.extract(batch)).config
    assert type(batch).model_validate(frozen) == batch


@pytest.mark.req("F04", "C04")
def test_with_nothing_to_deliver_the_policy_skip_skips(ferry):
    leads = add_leads(ferry.database, 2)
    claimed = ferry.extract(make_batch(empty="skip", conditions={"min_leads": 3}))
    assert (claimed.state, claimed.reason) == (DeliveryState.SKIPPED, "2 leads may go, the minimum is 3")
    assert waiting(ferry.database) == leads


@pytest.mark.req("F04", "C04")
def test_with_nothing_to_deliver_the_policy_header_only_delivers_a_file_without_leads(ferry, tmp_path):
    settled = ferry.carry(make_batch(empty="header_only", destinations=[folder(tmp_path / "inbox")]))
    assert (settled.state, settled.included) == (DeliveryState.DELIVERED, 0)
    (file,) = (tmp_path / "inbox").iterdir()
    assert file.read_text() == "Lead,Email\n"


@pytest.mark.req("F04", "C04")
def test_with_nothing_to_deliver_the_policy_notice_skips_and_mails(ferry, mail):
    batch = make_batch(empty="notice", notify={"empty": ["ops@example.com", "sales@example.com"]})
    claimed = ferry.extract(batch)
    assert claimed.state is DeliveryState.SKIPPED
    tell_nothing_to_deliver(batch, claimed)
    assert [(to, subject) for to, subject, _ in messages(mail)] == [
        ("ops@example.com", "Leadferry: Acme, daily: nothing to deliver"),
        ("sales@example.com", "Leadferry: Acme, daily: nothing to deliver"),
    ]
    assert "no lead waits that may go" in messages(mail)[0][2]


@pytest.mark.req("F04", "C04")
def test_with_nothing_to_deliver_the_policy_fail_fails_and_the_leads_stay(ferry):
    leads = add_leads(ferry.database, 2)
    with pytest.raises(
        NothingToDeliverError, match="'acme' has nothing to deliver: 2 leads may go, the minimum is 3"
    ):
        ferry.extract(make_batch(empty="fail", conditions={"min_leads": 3}))
    assert waiting(ferry.database) == leads


def test_a_trigger_by_hand_changes_what_goes_and_leaves_an_audit_row(ferry):
    leads = add_leads(ferry.database, 5)
    params = DeliverNow(limit=2, order="newest", ignore_minimum=True, keep_for_next=True)
    claimed = ferry.extract(make_batch(conditions={"min_leads": 100}), params=params, actor="jo@example.com")
    assert carried(ferry.database, claimed.delivery_id) == [leads[4], leads[3]]
    assert waiting(ferry.database) == leads
    ((actor, action, subject, detail),) = rows(
        ferry.database, "SELECT actor, action, object, detail FROM audit"
    )
    assert (actor, action, subject) == ("jo@example.com", "delivery.trigger", "batch acme")
    assert detail == {
        "delivery": claimed.delivery_id,
        "run_id": "run-1",
        "included": 2,
        "params": {"limit": 2, "order": "newest", "ignore_minimum": True, "keep_for_next": True},
    }


def test_i8_a_trigger_by_hand_that_is_tried_again_leaves_one_audit_row(ferry):
    add_leads(ferry.database)
    for _ in range(2):
        ferry.extract(make_batch(), actor="jo@example.com")
    assert scalars(ferry.database, "SELECT count(*) FROM audit") == [1]


def test_a_departure_of_the_timetable_leaves_no_audit_row(ferry):
    add_leads(ferry.database)
    ferry.extract(make_batch())
    assert scalars(ferry.database, "SELECT count(*) FROM audit") == [0]


@pytest.mark.req("C33")
@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": "5"}, {"limit": 10**19}, {"order": "best"}, {"lmit": 5}, {"test": 1}],
)
def test_parameters_that_cannot_be_meant_are_named(params):
    with pytest.raises(BatchConfigError, match=next(iter(params))):
        DeliverNow.parse(params)


@pytest.mark.req("F12", "C05")
def test_leads_of_a_worker_that_died_go_with_the_next_departure_once_the_lease_is_over(ferry):
    leads = add_leads(ferry.database, 3)
    dead = ferry.extract(make_batch())
    assert ferry.extract(make_batch(), "run-2").state is DeliveryState.SKIPPED
    execute(
        ferry.database,
        "UPDATE delivery SET lease_until = now() - interval '1 second' WHERE state = 'claimed'",
    )
    rescued = ferry.extract(make_batch(), "run-3")
    assert carried(ferry.database, rescued.delivery_id) == leads
    assert ferry.delivery(dead).state is DeliveryState.FAILED


@pytest.mark.parametrize(
    ("retry", "claim_lease", "expected"),
    [
        ({"attempts": 1}, "6h", timedelta(hours=6)),
        (
            {"attempts": 4, "first_delay": "1h", "factor": 2, "max_delay": "3h"},
            "6h",
            timedelta(hours=2 + 4 + 6 + 1),
        ),
    ],
)
def test_a_lease_is_never_shorter_than_all_retries_take(retry, claim_lease, expected):
    assert lease(make_batch(retry=retry, claim_lease=claim_lease)) == expected


@pytest.mark.req("R007")
def test_a_disabled_batch_goes_on_collecting_and_delivers_everything_once_when_enabled(ferry):
    add_leads(ferry.database, 2)
    off = make_batch(enabled=False)
    with pytest.raises(DepartureRefusedError, match="disabled"):
        ferry.extract(off)
    add_leads(ferry.database, 3)
    assert ferry.extract(make_batch(), "run-2").included == 5
    assert ferry.extract(make_batch(), "run-3").included == 0


@pytest.mark.req("F34")
def test_a_batch_that_must_be_tested_takes_no_lead_before_its_test_arrived(ferry, tmp_path):
    add_leads(ferry.database, 2)
    batch = make_batch(must_test=True, destinations=[folder(tmp_path / "inbox")])
    with pytest.raises(DepartureRefusedError, match="must be tested"):
        ferry.extract(batch)
    tested = ferry.extract(batch, "test", params=DeliverNow(test=True))
    ferry.render(tested)
    ferry.deliver(tested, "drop")
    ferry.settle(tested)
    assert ferry.extract(batch).included == 2
