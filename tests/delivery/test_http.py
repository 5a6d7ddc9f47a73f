"""Whole deliveries to a buyer's API: what the store remembers, what becomes of each lead, what a person decides."""

import email
import hashlib
import json

import pytest
from typer.testing import CliRunner

from batches import add_leads, make_batch, rows, scalars, waiting
from leadferry.cli import app
from leadferry.delivery.settle import settle
from leadferry.errors import (
    DestinationBusyError,
    OutcomeUnknownError,
    PermanentDeliveryError,
)
from leadferry.local.http import Response, as_json
from leadferry.states import DeliveryState, DispatchState
from leadferry.store import settling
from leadferry.store.history import Asked, deliveries
from leadferry.store.standing import answers_to_lead, story_of
from servers.http_buyer import Buyer, cut, then_cut

RULES = [
    {"when": {"json": "$.result", "equals": one}, "then": one}
    for one in ("accepted", "rejected", "duplicate", "incomplete")
]


def api(**keys):
    capture = {"buyer_id": {"json": "$.id"}, "price": {"json": "$.price"}, "message": {"json": "$.why"}}
    return {
        "id": "api",
        "type": "http",
        "connection": "buyer_api",
        "answers": RULES,
        "capture": capture,
        **keys,
    }


@pytest.fixture
def buyer(tmp_path, connect):
    with Buyer(root=tmp_path / "http-inbox", state=tmp_path / "http-state") as server:
        connect("buyer_api", server)
        yield server


@pytest.fixture
def batch():
    return make_batch(files=[], destinations=[api()])


def outcomes(ferry):
    return rows(ferry.database, "SELECT lead_id, outcome FROM delivery_lead ORDER BY lead_id")


@pytest.mark.req("R159", "R162")
def test_accepted_leads_are_delivered_and_rejected_ones_are_not_and_do_not_come_back(ferry, buyer, batch):
    first, second, third = add_leads(ferry.database, 3)
    buyer.script = [
        buyer.accept,
        as_json(
            {"result": "rejected", "id": "B-7", "why": "lead2@example.com is not in our area"}, status=422
        ),
        as_json({"result": "accepted", "id": "B-8", "price": "12.50"}),
    ]
    assert ferry.carry(batch).state is DeliveryState.DELIVERED
    assert outcomes(ferry) == [(first, "included"), (second, "rejected"), (third, "included")]
    assert waiting(ferry.database) == []
    found = rows(
        ferry.database,
        "SELECT lead_id, outcome::text, buyer_id, price::text, message FROM response ORDER BY id",
    )
    assert found == [
        (first, "accepted", f"B{first}", None, None),
        (second, "rejected", "B-7", None, "[Email] is not in our area"),
        (third, "accepted", "B-8", "12.50", None),
    ]
    history = story_of(ferry.database, second)["history"]
    assert [(one["outcome"], one["reason"]) for one in history] == [
        ("rejected", "[Email] is not in our area")
    ]
    assert [one["outcome"] for one in story_of(ferry.database, third)["history"]] == ["delivered"]
    assert deliveries(ferry.database, Asked(batch_id="acme"))[0]["answers"] == "2 accepted, 1 rejected"


@pytest.mark.req("R163", "R164")
def test_the_leads_history_shows_the_latest_answer_and_the_earlier_ones(ferry, buyer, batch):
    (lead,) = add_leads(ferry.database, 1)
    claimed = ferry.rendered(batch)
    buyer.script = [Response(status=503, headers={"Retry-After": "3600"})]
    assert isinstance(ferry.try_to_deliver(claimed, "api"), DestinationBusyError)
    buyer.script = [as_json({"result": "incomplete", "why": "telephone is missing"}, status=400)]
    ferry.deliver(claimed, "api")
    ferry.settle(claimed)
    told = answers_to_lead(ferry.database, lead)
    assert [(one["outcome"], one["status"], one["message"]) for one in told] == [
        ("retry", 503, "not taken: busy"),
        ("incomplete", 400, "telephone is missing"),
    ]
    assert {(one["batch"], one["destination"]) for one in told} == {("acme", "api")}
    assert story_of(ferry.database, lead)["history"][0]["reason"] == "telephone is missing"


@pytest.mark.req("R161")
def test_each_request_is_on_record(ferry, buyer, batch):
    leads = add_leads(ferry.database, 2)
    ferry.carry(batch)
    found = rows(
        ferry.database,
        "SELECT number, lead_ids, state::text, attempts, status_code, latency_ms >= 0, body FROM request ORDER BY number",
    )
    assert [one[:6] for one in found] == [
        (number, [lead], "answered", 1, 200, True) for number, lead in enumerate(leads, 1)
    ]
    assert json.loads(found[0][6])["result"] == "accepted"


@pytest.mark.req("F22")
def test_the_next_try_sends_only_chunks_that_have_no_answer(ferry, buyer):
    leads = add_leads(ferry.database, 10)
    keys = {"send": "chunk", "chunk": 3, "items": {"at": "$.results", "lead": "$.lead"}}
    batch = make_batch(files=[], destinations=[api(**keys)])
    claimed = ferry.rendered(batch)
    buyer.script = [buyer.accept, buyer.accept, Response(status=404)]
    error = ferry.try_to_deliver(claimed, "api")
    assert isinstance(error, PermanentDeliveryError)
    assert ferry.deliver(claimed, "api") == 1
    assert [[int(one["Lead"]) for one in chunk] for chunk in buyer.documents] == [
        leads[:3],
        leads[3:6],
        leads[6:9],
        leads[6:9],
        leads[9:],
    ]
    assert buyer.accepted == leads
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED


def test_a_delivery_that_ends_in_the_middle_is_partial_and_its_rest_waits_in_it(ferry, buyer, batch):
    first, second = add_leads(ferry.database, 2)
    claimed = ferry.rendered(batch)
    buyer.script = [buyer.accept, Response(status=404)]
    assert isinstance(ferry.try_to_deliver(claimed, "api"), PermanentDeliveryError)
    assert ferry.settle(claimed).state is DeliveryState.PARTIAL
    assert waiting(ferry.database) == []
    assert story_of(ferry.database, first)["history"][0]["outcome"] == "delivered"
    assert story_of(ferry.database, second)["history"][0]["outcome"] == "unanswered"
    ferry.deliver(claimed, "api")
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    assert buyer.accepted == [first, second]


def test_a_delivery_of_which_nothing_was_taken_gives_its_leads_back(ferry, buyer, batch):
    leads = add_leads(ferry.database, 2)
    buyer.usual = Response(status=404)
    assert ferry.carry(batch).state is DeliveryState.FAILED
    assert waiting(ferry.database) == leads


@pytest.mark.req("F03")
@pytest.mark.parametrize(
    ("word", "accepted_again"), [(DispatchState.CONFIRMED, False), (DispatchState.FAILED, True)]
)
def test_a_person_settles_only_what_is_in_doubt(word, accepted_again, ferry, buyer, batch):
    first, second, third = add_leads(ferry.database, 3)
    claimed = ferry.rendered(batch)
    buyer.script = [buyer.accept, then_cut(buyer) if not accepted_again else cut]
    assert isinstance(ferry.try_to_deliver(claimed, "api"), OutcomeUnknownError)
    assert ferry.settle(claimed).state is DeliveryState.HELD
    (dispatch,) = scalars(ferry.database, "SELECT id FROM dispatch")
    settled = settling.resolve(ferry.database, dispatch, word, actor="ops", reason="asked Acme")
    if accepted_again:
        assert settled.state is DeliveryState.PARTIAL
        ferry.deliver(claimed, "api")
        assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    else:
        assert settled.state is DeliveryState.DELIVERED
        assert answers_to_lead(ferry.database, second)[-1]["message"] == "asked Acme"
    assert sorted(buyer.accepted) == [first, second, third]
    assert {outcome for _, outcome in outcomes(ferry)} == {"included"}


def test_confirming_what_is_in_doubt_does_not_confirm_what_was_never_sent(ferry, buyer, batch):
    leads = add_leads(ferry.database, 6)
    claimed = ferry.rendered(batch)
    buyer.script = [then_cut(buyer)] * 3
    ferry.try_to_deliver(claimed, "api")
    ferry.settle(claimed)
    (dispatch,) = scalars(ferry.database, "SELECT id FROM dispatch")
    settled = settling.resolve(ferry.database, dispatch, DispatchState.CONFIRMED, actor="ops", reason="asked")
    assert settled.state is DeliveryState.PARTIAL
    ferry.deliver(claimed, "api")
    assert ferry.settle(claimed).state is DeliveryState.DELIVERED
    assert buyer.accepted == leads


# --- the file itself


def file_batch(**keys):
    keys = {"send": "file", "answers": [{"when": {"status": ["2xx"]}, "then": "accepted"}], **keys}
    return make_batch(destinations=[api(**keys)])


def test_a_file_is_uploaded_with_the_bytes_that_were_rendered(ferry, buyer):
    add_leads(ferry.database, 3)
    buyer.usual = Response(status=201, body=b'{"id": "upload-1"}')
    assert ferry.carry(file_batch()).state is DeliveryState.DELIVERED
    (sha256,) = scalars(ferry.database, "SELECT sha256 FROM file")
    assert hashlib.sha256(buyer.bodies[0]).hexdigest() == sha256
    assert scalars(ferry.database, "SELECT receipt->'details'->>'buyer_id' FROM dispatch") == ["upload-1"]


def test_a_multipart_upload_has_the_file_in_a_form(ferry, buyer):
    add_leads(ferry.database, 3)
    buyer.usual = Response(status=200)
    ferry.carry(file_batch(upload={"type": "multipart", "field": "leads", "values": {"campaign": "a1"}}))
    head = f"Content-Type: {buyer.requests[0].headers['content-type']}\r\n\r\n".encode()
    form, file = email.message_from_bytes(head + buyer.bodies[0]).get_payload()
    assert (form.get_param("name", header="content-disposition"), form.get_payload()) == ("campaign", "a1")
    assert file.get_filename() == scalars(ferry.database, "SELECT name FROM file")[0]
    assert file.get_payload(decode=True).startswith(b"Lead,Email")


@pytest.mark.req("C02")
def test_a_file_that_is_refused_gives_the_leads_back(ferry, buyer):
    leads = add_leads(ferry.database, 3)
    buyer.usual = Response(status=422, body=b"bad header")
    assert ferry.carry(file_batch()).state is DeliveryState.FAILED
    assert waiting(ferry.database) == leads


@pytest.mark.req("C01", "F03")
def test_a_file_whose_answer_is_lost_in_the_only_try_is_held_and_its_leads_do_not_go_back(ferry, buyer):
    add_leads(ferry.database, 3)
    buyer.usual = cut
    assert ferry.carry(file_batch(idempotent=False)).state is DeliveryState.HELD
    assert ferry.dispatches() == [("api", "", "unknown")]
    assert waiting(ferry.database) == []


@pytest.mark.req("F03")
@pytest.mark.parametrize(
    ("idempotent", "state"), [(True, DeliveryState.DELIVERED), (False, DeliveryState.HELD)]
)
def test_a_file_whose_answer_is_lost_is_sent_again_only_to_a_buyer_who_knows_the_key(
    idempotent, state, ferry, buyer
):
    add_leads(ferry.database, 3)
    claimed = ferry.rendered(file_batch(idempotent=idempotent))
    buyer.script, buyer.usual = [cut], Response(status=200)
    assert ferry.try_to_deliver(claimed, "api") is not None
    ferry.try_to_deliver(claimed, "api")
    assert settle(ferry.database, ferry.archive, claimed.delivery_id).state is state
    keys = {one.headers["idempotency-key"] for one in buyer.requests}
    assert (len(buyer.requests), len(keys)) == (2 if idempotent else 1, 1)


@pytest.mark.req("R162", "R163")
def test_the_commands_show_what_buyers_answered(ferry, buyer, batch, store_url, monkeypatch):
    _, lead = add_leads(ferry.database, 2)
    buyer.script = [buyer.accept, as_json({"result": "duplicate", "id": "B-7", "why": "known since May"})]
    ferry.carry(batch)
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    run = CliRunner().invoke
    (row,) = json.loads(run(app, ["leads", "show", str(lead), "--json"]).output)["history"]
    assert (row["outcome"], row["reason"]) == ("duplicate", "known since May")
    assert [(one["outcome"], one["buyer_id"], one["destination"]) for one in row["answers"]] == [
        ("duplicate", "B-7", "api")
    ]
    assert "What buyers answered" in run(app, ["leads", "show", str(lead)]).output
    (found,) = json.loads(run(app, ["deliveries", "acme", "--json"]).output)
    assert found["answers"] == "1 accepted, 1 duplicate"
