"""Requests and answers in the store: written once, by the attempt that is under way, whatever happens in between."""

from datetime import timedelta

import pytest

from batches import add_leads, claim, rows, scalars
from leadferry.errors import StoreError
from leadferry.exchange import Intent, LeadAnswer, Reply, Standing
from leadferry.states import Answer, RequestState
from leadferry.store import ledger
from leadferry.store.ledger import PlannedDispatch, RenderedFile
from leadferry.store.responses import Responses
from leadferry.store.sending import begin_sending, dispatches_to

LEASE = timedelta(hours=1)
FILE = RenderedFile(
    key="_records",
    part=1,
    name="r.ndjson",
    sha256="0" * 64,
    size=1,
    rows=3,
    media_type="text/plain",
    archive_key="k",
)
PLAN = PlannedDispatch(file_key="_records", destination="api", addressee="", parcel_key="acme.1.api")


@pytest.fixture
def sending(database):
    """The dispatch of a delivery with three leads, in its first attempt."""
    leads = add_leads(database, 3)
    claimed = claim(database)
    ledger.record_files(database, claimed.delivery_id, [FILE], [PLAN])
    (dispatch,) = dispatches_to(database, claimed.delivery_id)
    number = begin_sending(database, [dispatch], lease=LEASE)
    with Responses(database, dispatch_id=dispatch.id, attempt=number) as responses:
        responses.leads = leads
        yield responses


def intent(number, *lead_ids):
    return Intent(number=number, lead_ids=lead_ids, key=f"key-{lead_ids}")


def accepted(number, *lead_ids):
    answers = tuple(LeadAnswer(lead_id=one, outcome=Answer.ACCEPTED) for one in lead_ids)
    return Reply(number=number, state=RequestState.ANSWERED, answers=answers, status_code=200, latency_ms=3)


def states(database):
    return rows(database, "SELECT number, state::text, attempts FROM request ORDER BY number")


def test_what_was_answered_and_what_goes_next_is_one_step(sending, database):
    first, second, _ = sending.leads
    sending.advance(begun=[intent(1, first)])
    sending.advance(ended=[accepted(1, first)], begun=[intent(2, second)])
    assert states(database) == [(1, "answered", 1), (2, "sending", 1)]
    assert sending.counts() == {Answer.ACCEPTED: 1}
    assert sending.standing(2, 9) == {2: Standing(state=RequestState.SENDING, lead_ids=(second,))}


def test_the_same_step_again_after_a_lost_commit_answer_changes_nothing_more(sending, database):
    first, second, _ = sending.leads
    sending.advance(begun=[intent(1, first)])
    for _ in range(2):
        sending.advance(ended=[accepted(1, first)], begun=[intent(2, second)])
    assert scalars(database, "SELECT lead_id FROM response") == [first]
    assert [one[:2] for one in states(database)] == [(1, "answered"), (2, "sending")]


def test_a_step_that_cannot_be_taken_whole_is_not_taken_at_all(sending, database):
    first, second, _ = sending.leads
    sending.advance(begun=[intent(1, first)])
    with pytest.raises(StoreError):
        sending.advance(ended=[accepted(1, first), accepted(7, second)])
    assert states(database) == [(1, "sending", 1)]
    assert sending.counts() == {}


def test_an_answered_request_is_never_sent_again(sending):
    (first, *_) = sending.leads
    sending.advance(begun=[intent(1, first)])
    sending.advance(ended=[accepted(1, first)])
    with pytest.raises(StoreError, match="answered before"):
        sending.advance(begun=[intent(1, first)])


def test_a_sender_that_was_superseded_may_write_nothing(sending, database):
    first, second, _ = sending.leads
    sending.advance(begun=[intent(1, first)])
    late = Responses(database, dispatch_id=sending.dispatch_id, attempt=sending.attempt - 1)
    for act in (
        lambda: late.advance(begun=[intent(2, second)]),
        lambda: late.advance(ended=[accepted(1, first)]),
        lambda: late.settle_lost(RequestState.OPEN),
    ):
        with pytest.raises(StoreError, match="any more"):
            act()
    assert states(database) == [(1, "sending", 1)]


def test_requests_whose_sender_died_are_counted_when_nobody_can_know(sending, database):
    sending.advance(begun=[intent(1, sending.leads[0]), intent(2, sending.leads[1])])
    sending.advance(ended=[accepted(2, sending.leads[1])])
    assert sending.settle_lost(RequestState.UNKNOWN) == 1
    assert sending.settle_lost(RequestState.UNKNOWN) == 1
    assert [one[:2] for one in states(database)] == [(1, "unknown"), (2, "answered")]


def test_a_cut_connection_is_made_anew(sending, database):
    (first, *_) = sending.leads
    sending.advance(begun=[intent(1, first)])
    cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    assert scalars(database, cut) >= [1]
    sending.advance(ended=[accepted(1, first)])
    assert states(database) == [(1, "answered", 1)]


def test_an_open_request_keeps_the_leads_that_are_sent_again(sending):
    first, second, third = sending.leads
    sending.advance(begun=[intent(1, first, second, third)])
    answers = (
        LeadAnswer(lead_id=first, outcome=Answer.ACCEPTED),
        LeadAnswer(lead_id=second, outcome=Answer.RETRY, message="later"),
    )
    again = Reply(
        number=1, state=RequestState.OPEN, lead_ids=(second, third), answers=answers, status_code=207
    )
    sending.advance(ended=[again])
    assert sending.standing(1, 1)[1] == Standing(state=RequestState.OPEN, lead_ids=(second, third))
    assert sending.counts() == {Answer.ACCEPTED: 1}


def test_answers_never_change(sending, database):
    (first, *_) = sending.leads
    sending.advance(begun=[intent(1, first)])
    sending.advance(ended=[accepted(1, first)])
    with pytest.raises(StoreError, match="never changed"):
        scalars(database, "UPDATE response SET outcome = 'rejected' RETURNING id")
