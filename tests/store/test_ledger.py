"""The ledger: files, dispatches, receipts, settlement, leases; and what the database refuses by itself."""

from datetime import timedelta

import pytest

from batches import add_leads, carried, claim, execute, kept_back, rows, scalars, waiting
from leadferry.errors import DestinationBusyError, StoreError, TransferInterruptedError
from leadferry.states import DeliveryState, DispatchState
from leadferry.store import ledger, sending, settling
from leadferry.store.ledger import PlannedDispatch, RenderedFile

LEASE = timedelta(hours=1)
RECEIPT = {"location": "sftp://buyer.example/leads.csv", "size": 3}


def recorded(database, *, destinations=("first",), rows=None, lease=LEASE):
    """A delivery of three leads whose file is in the ledger, and the parcels that are to be sent, by destination."""
    add_leads(database, 3)
    claimed = claim(database, lease=lease)
    file = RenderedFile(
        key="leads",
        part=1,
        name="leads.csv",
        sha256="0" * 64,
        size=3,
        rows=claimed.included if rows is None else rows,
        media_type="text/csv",
        archive_key="acme/1/leads",
    )
    plan = [
        PlannedDispatch(
            file_key="leads", destination=one, addressee="", parcel_key=f"{claimed.delivery_id}.{one}"
        )
        for one in destinations
    ]
    ledger.record_files(database, claimed.delivery_id, [file], plan)
    return claimed.delivery_id


def parcel(database, delivery_id, destination="first"):
    return sending.dispatches_to(database, delivery_id, destination)


def begin(database, delivery_id, destination="first"):
    return sending.begin_sending(database, parcel(database, delivery_id, destination), lease=LEASE)


def end(database, delivery_id, outcome, destination="first", *, number=1, **keys):
    if outcome is DispatchState.CONFIRMED:
        keys.setdefault("receipt", RECEIPT)
    sending.end_sending(database, parcel(database, delivery_id, destination), outcome, number=number, **keys)


def sent(database, delivery_id, outcome, destination="first"):
    end(database, delivery_id, outcome, destination, number=begin(database, delivery_id, destination))


def state(database, delivery_id):
    return ledger.get_delivery(database, delivery_id).state


# --- files and dispatches


def test_recording_the_files_twice_stores_them_once(database):
    delivery_id = recorded(database)
    (stored,) = ledger.stored_files(database, delivery_id)
    again = ledger.record_files(database, delivery_id, [], [])
    assert again == [stored]
    assert [one.state for one in parcel(database, delivery_id)] == [DispatchState.READY]


@pytest.mark.parametrize("change", ["UPDATE file SET sha256 = 'other'", "DELETE FROM file"])
def test_i3_a_recorded_file_never_changes(database, change):
    recorded(database)
    with pytest.raises(StoreError, match="rows of file are never changed"):
        execute(database, change)


@pytest.mark.req("C02")
def test_i4_a_dispatch_is_not_confirmed_without_a_receipt(database):
    delivery_id = recorded(database)
    number = begin(database, delivery_id)
    with pytest.raises(StoreError):
        end(database, delivery_id, DispatchState.CONFIRMED, number=number, receipt={})
    with pytest.raises(StoreError):
        execute(database, "UPDATE dispatch SET state = 'confirmed'")
    assert [one.state for one in parcel(database, delivery_id)] == [DispatchState.SENDING]


def test_i4_a_dispatch_is_not_confirmed_without_the_intent(database):
    delivery_id = recorded(database)
    with pytest.raises(StoreError, match="not being sent by attempt"):
        end(database, delivery_id, DispatchState.CONFIRMED, number=0)
    with pytest.raises(StoreError, match="a dispatch does not go from ready to confirmed"):
        execute(database, "UPDATE dispatch SET state = 'confirmed', receipt = '{}'")


@pytest.mark.req("R196")
def test_every_attempt_is_recorded_with_how_it_ended(database):
    delivery_id = recorded(database)
    number = begin(database, delivery_id)
    error = TransferInterruptedError("cut")
    end(database, delivery_id, DispatchState.FAILED, number=number, error=error)
    sent(database, delivery_id, DispatchState.CONFIRMED)
    found = rows(
        database, "SELECT number, outcome::text, error_code, ended_at IS NULL FROM attempt ORDER BY number"
    )
    assert found == [(1, "failed", "interrupted", False), (2, "confirmed", None, False)]
    assert rows(database, "SELECT state::text, attempts, error_code FROM dispatch") == [
        ("confirmed", 2, None)
    ]


def test_writing_an_outcome_twice_is_the_same_as_once(database):
    """The answer to a commit may be lost; the sender then says the same again."""
    delivery_id = recorded(database)
    number = begin(database, delivery_id)
    for _ in range(2):
        end(database, delivery_id, DispatchState.CONFIRMED, number=number)
    assert scalars(database, "SELECT outcome::text FROM attempt") == ["confirmed"]


def test_a_confirmed_dispatch_is_not_sent_again(database):
    delivery_id = recorded(database)
    sent(database, delivery_id, DispatchState.CONFIRMED)
    with pytest.raises(StoreError, match="Not every dispatch of parcel"):
        begin(database, delivery_id)


@pytest.mark.parametrize("outcome", [DispatchState.FAILED, DispatchState.UNKNOWN, DispatchState.CONFIRMED])
def test_a_sender_that_was_replaced_cannot_end_the_attempt_of_its_successor(database, outcome):
    delivery_id = recorded(database)
    slow = begin(database, delivery_id)
    end(database, delivery_id, DispatchState.READY, number=slow)  # looked up: nothing had arrived
    begin(database, delivery_id)
    with pytest.raises(StoreError, match="not being sent by attempt 1 any more"):
        end(database, delivery_id, outcome, number=slow)
    assert rows(database, "SELECT state::text, attempts FROM dispatch") == [("sending", 2)]


def test_only_one_process_at_a_time_may_send_a_parcel(database):
    with sending.sole_sender(database, "parcel"):
        with sending.sole_sender(database, "another parcel"):
            pass
        with pytest.raises(DestinationBusyError), sending.sole_sender(database, "parcel"):
            pass
    with sending.sole_sender(database, "parcel"):
        pass


# --- settlement


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["confirmed", "confirmed"], DeliveryState.DELIVERED),
        (["confirmed", "failed"], DeliveryState.PARTIAL),
        (["confirmed", None], DeliveryState.PARTIAL),
        (["confirmed", "unknown"], DeliveryState.HELD),
        (["failed", "unknown"], DeliveryState.HELD),
        (["failed", "failed"], DeliveryState.FAILED),
        (["failed", None], DeliveryState.FAILED),
        ([None, None], DeliveryState.FAILED),
    ],
)
def test_a_delivery_ends_as_its_dispatches_say_and_its_leads_are_somewhere(database, outcomes, expected):
    delivery_id = recorded(database, destinations=("first", "second"))
    leads = carried(database, delivery_id)
    for destination, outcome in zip(("first", "second"), outcomes, strict=True):
        if outcome:
            sent(database, delivery_id, DispatchState(outcome), destination)
    settled = settling.settle(database, delivery_id)
    assert settled.state is expected
    assert settled.returned == (3 if expected is DeliveryState.FAILED else 0)
    assert waiting(database) == (leads if expected is DeliveryState.FAILED else [])
    again = settling.settle(database, delivery_id)
    assert (again.state, again.returned, waiting(database)) == (expected, 0, waiting(database))


def test_a_delivery_is_not_settled_while_a_dispatch_is_sending(database):
    delivery_id = recorded(database)
    begin(database, delivery_id)
    with pytest.raises(StoreError, match="cannot be settled while a dispatch is 'sending'"):
        settling.settle(database, delivery_id)


def test_nothing_is_sent_of_a_settled_delivery(database):
    delivery_id = recorded(database)
    settling.settle(database, delivery_id)
    with pytest.raises(StoreError, match="is failed and can go no further"):
        begin(database, delivery_id)


def test_a_partial_delivery_becomes_delivered_when_the_rest_arrives_later(database):
    delivery_id = recorded(database, destinations=("first", "second"))
    sent(database, delivery_id, DispatchState.CONFIRMED)
    sent(database, delivery_id, DispatchState.FAILED, "second")
    assert settling.settle(database, delivery_id).state is DeliveryState.PARTIAL
    sent(database, delivery_id, DispatchState.CONFIRMED, "second")
    assert settling.settle(database, delivery_id).state is DeliveryState.DELIVERED


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(DispatchState.CONFIRMED, DeliveryState.DELIVERED), (DispatchState.FAILED, DeliveryState.PARTIAL)],
)
def test_a_partial_delivery_whose_rest_is_in_doubt_stays_partial_until_a_person_answers(
    database, answer, expected
):
    delivery_id = recorded(database, destinations=("first", "second"))
    sent(database, delivery_id, DispatchState.CONFIRMED)
    assert settling.settle(database, delivery_id).state is DeliveryState.PARTIAL
    sent(database, delivery_id, DispatchState.UNKNOWN, "second")
    assert settling.settle(database, delivery_id).state is DeliveryState.PARTIAL
    (in_doubt,) = parcel(database, delivery_id, "second")
    assert settling.resolve(database, in_doubt.id, answer, actor="ops", reason="asked").state is expected


@pytest.mark.req("F03")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [(DispatchState.CONFIRMED, DeliveryState.DELIVERED), (DispatchState.FAILED, DeliveryState.FAILED)],
)
def test_a_held_delivery_ends_as_the_person_says_who_asked_the_recipient(database, answer, expected):
    delivery_id = recorded(database)
    leads = carried(database, delivery_id)
    sent(database, delivery_id, DispatchState.UNKNOWN)
    assert settling.settle(database, delivery_id).state is DeliveryState.HELD
    (in_doubt,) = parcel(database, delivery_id)
    settled = settling.resolve(
        database, in_doubt.id, answer, actor="ops@example.com", reason="Acme has it not"
    )
    assert settled.state is expected
    assert waiting(database) == (leads if expected is DeliveryState.FAILED else [])
    assert rows(database, "SELECT actor, action, object FROM audit") == [
        ("ops@example.com", f"dispatch.{answer}", f"dispatch {in_doubt.id}")
    ]
    with pytest.raises(StoreError, match="not waiting for a decision"):
        settling.resolve(database, in_doubt.id, answer, actor="ops", reason="again")


def test_an_answer_is_not_given_by_half_when_the_delivery_cannot_be_settled(database):
    delivery_id = recorded(database, destinations=("first", "second"))
    for destination in ("first", "second"):
        sent(database, delivery_id, DispatchState.UNKNOWN, destination)
    settling.settle(database, delivery_id)
    execute(database, "UPDATE delivery SET included = included + 1")  # counts that do not add up
    (first,) = parcel(database, delivery_id)
    settling.resolve(database, first.id, DispatchState.CONFIRMED, actor="ops", reason="asked")
    (second,) = parcel(database, delivery_id, "second")
    with pytest.raises(StoreError):
        settling.resolve(database, second.id, DispatchState.CONFIRMED, actor="ops", reason="asked")
    assert parcel(database, delivery_id, "second")[0].state is DispatchState.UNKNOWN
    assert scalars(database, "SELECT object FROM audit") == [f"dispatch {first.id}"]


def test_an_answer_for_a_delivery_whose_tasks_still_run_does_not_close_it(database):
    delivery_id = recorded(database, destinations=("first", "second"))
    sent(database, delivery_id, DispatchState.UNKNOWN)
    (in_doubt,) = parcel(database, delivery_id)
    settling.resolve(database, in_doubt.id, DispatchState.FAILED, actor="ops", reason="asked")
    assert state(database, delivery_id) is DeliveryState.RENDERED
    sent(database, delivery_id, DispatchState.CONFIRMED, "second")


@pytest.mark.parametrize(
    "miscount",
    [
        "UPDATE delivery SET included = included - 1",
        "UPDATE delivery SET withheld = withheld + 1",
        "INSERT INTO withheld SELECT delivery_id, lead_id, 'lost' FROM delivery_lead LIMIT 1",
    ],
)
def test_i2_the_store_refuses_to_settle_counts_that_do_not_add_up(database, miscount):
    delivery_id = recorded(database)
    sent(database, delivery_id, DispatchState.CONFIRMED)
    execute(database, miscount)
    with pytest.raises(StoreError, match=f"The lead store refused: delivery {delivery_id}"):
        settling.settle(database, delivery_id)
    assert state(database, delivery_id) is DeliveryState.RENDERED


@pytest.mark.req("C02", "C18")
def test_i2_the_store_refuses_to_settle_a_file_with_more_or_fewer_rows_than_leads(database):
    delivery_id = recorded(database, rows=2)
    sent(database, delivery_id, DispatchState.CONFIRMED)
    with pytest.raises(StoreError, match="has 3 leads, which its files or receipts do not add up to"):
        settling.settle(database, delivery_id)


def test_i2_a_delivery_of_which_nothing_was_confirmed_is_not_delivered(database):
    recorded(database)
    with pytest.raises(StoreError, match="do not add up"):
        execute(database, "UPDATE delivery SET state = 'delivered'")


def test_leads_that_the_mapping_cannot_handle_are_withheld_once_with_the_reason(database):
    leads = add_leads(database, 3)
    claimed = claim(database)
    for _ in range(2):
        ledger.withhold(database, claimed.delivery_id, {leads[1]: "Phone: not a phone number"})
    found = ledger.get_delivery(database, claimed.delivery_id)
    assert (found.included, found.withheld) == (2, 1)
    assert carried(database, claimed.delivery_id) == [leads[0], leads[2]]
    assert kept_back(database, claimed.delivery_id) == {leads[1]: "Phone: not a phone number"}


def test_nothing_is_withheld_from_a_delivery_that_is_already_rendered(database):
    delivery_id = recorded(database)
    with pytest.raises(StoreError, match="is rendered and can go no further"):
        ledger.withhold(database, delivery_id, {carried(database, delivery_id)[0]: "late"})


# --- moves and append-only tables


@pytest.mark.parametrize(
    ("before", "move"),
    [
        ("UPDATE delivery SET state = 'failed'", "UPDATE delivery SET state = 'rendered'"),
        ("UPDATE delivery SET state = 'failed'", "UPDATE delivery SET state = 'delivered'"),
        ("UPDATE delivery SET state = 'held'", "UPDATE delivery SET state = 'claimed'"),
        ("UPDATE dispatch SET state = 'sending'", "UPDATE dispatch SET state = 'skipped'"),
        ("UPDATE dispatch SET state = 'sending'; UPDATE dispatch SET state = 'unknown'",
         "UPDATE dispatch SET state = 'sending'"),
        ("UPDATE dispatch SET state = 'sending'; UPDATE dispatch SET state = 'confirmed', receipt = '{}'",
         "UPDATE dispatch SET state = 'failed', receipt = NULL"),
    ],
)  # fmt: skip
def test_the_database_refuses_a_move_that_is_not_in_the_table_of_moves(database, before, move):
    recorded(database)
    for statement in before.split("; "):
        execute(database, statement)
    with pytest.raises(StoreError):
        execute(database, move)


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("DELETE FROM {}", "lead"),
        *(
            (change, table)
            for table in ("audit", "file", "batch_config")
            for change in ("DELETE FROM {}", "TRUNCATE {} CASCADE")
        ),
    ],
)
def test_what_is_written_for_good_can_neither_be_deleted_nor_emptied(database, table, change):
    delivery_id = recorded(database)
    sent(database, delivery_id, DispatchState.UNKNOWN)
    (in_doubt,) = parcel(database, delivery_id)
    settling.resolve(database, in_doubt.id, DispatchState.CONFIRMED, actor="ops", reason="asked")
    with pytest.raises(StoreError, match=f"rows of {table} are never"):
        execute(database, change.format(table))


def test_i8_an_audit_row_is_never_changed(database):
    execute(database, "INSERT INTO audit (actor, action, object) VALUES ('ops', 'look', 'lead 1')")
    with pytest.raises(StoreError, match="rows of audit are never changed"):
        execute(database, "UPDATE audit SET actor = 'somebody else'")


# --- leases


@pytest.mark.req("F12", "C05")
def test_a_claim_that_nobody_works_on_gives_its_leads_back_when_its_lease_is_over(database):
    leads = add_leads(database, 3)
    claimed = claim(database, lease=-LEASE)
    assert settling.recover_stale(database) == [claimed.delivery_id]
    assert waiting(database) == leads
    assert state(database, claimed.delivery_id) is DeliveryState.FAILED
    assert claim(database, "run-2").included == 3


@pytest.mark.req("F12")
def test_a_claim_whose_lease_runs_is_not_taken_away(database):
    add_leads(database, 3)
    claim(database, lease=LEASE)
    assert settling.recover_stale(database) == []


@pytest.mark.req("F12")
def test_a_sign_of_life_prolongs_the_lease(database):
    add_leads(database, 3)
    claimed = claim(database, lease=-LEASE)
    ledger.extend_lease(database, claimed.delivery_id, LEASE)
    assert settling.recover_stale(database) == []


@pytest.mark.req("F12")
@pytest.mark.parametrize("in_doubt", [DispatchState.SENDING, DispatchState.UNKNOWN, DispatchState.CONFIRMED])
def test_a_delivery_of_which_something_may_have_arrived_is_never_recovered(database, in_doubt):
    delivery_id = recorded(database, destinations=("first", "second"))
    begin(database, delivery_id)
    if in_doubt is not DispatchState.SENDING:
        end(database, delivery_id, in_doubt)
    execute(database, "UPDATE delivery SET lease_until = now() - interval '1 day'")
    assert settling.recover_stale(database) == []
    assert waiting(database) == []


@pytest.mark.req("F12")
def test_a_sender_that_wakes_up_after_its_delivery_was_recovered_sends_nothing(database):
    delivery_id = recorded(database, lease=-LEASE)
    sleeping = parcel(database, delivery_id)
    settling.recover_stale(database)
    with pytest.raises(StoreError, match="is failed and can go no further"):
        sending.begin_sending(database, sleeping, lease=LEASE)


@pytest.mark.req("F12")
def test_a_renderer_that_wakes_up_after_its_delivery_was_recovered_records_nothing(database):
    add_leads(database, 3)
    claimed = claim(database, lease=-LEASE)
    settling.recover_stale(database)
    with pytest.raises(StoreError, match="is failed and can go no further"):
        ledger.record_files(database, claimed.delivery_id, [], [])


def test_a_delivery_that_is_not_there_is_named(database):
    with pytest.raises(StoreError, match="There is no delivery 4711"):
        ledger.get_delivery(database, 4711)
    with pytest.raises(StoreError, match="Run run-9 of batch 'acme' has no delivery"):
        ledger.delivery_of_run(database, batch_id="acme", run_id="run-9")
