"""Leads over HTTP: requests, chunks, what is remembered, what is waited for."""

import threading
from dataclasses import replace

import pytest

from leadferry.errors import (
    AuthenticationError,
    DestinationBusyError,
    HostKeyError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    TransferInterruptedError,
)
from leadferry.local.http import Response, as_json
from leadferry.states import Answer, RequestState
from servers.answers import Memory
from servers.http_buyer import cut, then_cut

REFUSED = {"when": {"json": "$.result", "word": "rejected"}, "then": "rejected"}


def send(destination, parcel):
    with destination.open() as session:
        return session.send(parcel)


def find(destination, parcel):
    with destination.open() as session:
        return session.find(parcel)


@pytest.mark.req("R159")
def test_each_lead_is_posted_with_its_mapped_fields_and_the_receipt_counts_the_answers(
    buyer, api, records, memory
):
    receipt = send(api(), records(3))
    assert buyer.documents == [{"Lead": str(one), "Email": f"lead{one}@example.com"} for one in (1, 2, 3)]
    assert receipt.details["answers"] == {"accepted": 3, "rejected": 0, "duplicate": 0, "incomplete": 0}
    assert receipt.location == f"https://127.0.0.1:{buyer.port}/leads"
    assert find(api(), replace(records(3), answers=memory)) == receipt


@pytest.mark.req("R159")
def test_chunks_hold_their_leads_in_order_and_each_lead_has_its_own_answer(buyer, api, records, memory):
    keys = {
        "send": "chunk",
        "chunk": 2,
        "items": {"at": "$.results", "lead": "$.lead"},
        "capture": {"buyer_id": {"json": "$.id"}},
    }
    send(api(**keys), records(5))
    assert [[one["Lead"] for one in chunk] for chunk in buyer.documents] == [["1", "2"], ["3", "4"], ["5"]]
    assert {one: told.buyer_id for one, told in memory.given.items()} == {
        one: f"B{one}" for one in range(1, 6)
    }


@pytest.mark.req("F22")
def test_a_429_with_retry_after_is_waited_for_and_the_lead_is_sent_once_more(buyer, api, records, memory):
    buyer.script = [Response(status=429, headers={"Retry-After": "1"})]
    receipt = send(api(), records(2))
    assert buyer.accepted == [1, 2]
    assert receipt.details["answers"]["accepted"] == 2
    assert buyer.times[1] - buyer.times[0] >= 1
    assert [one.headers["idempotency-key"] for one in buyer.requests[:2]] == [
        buyer.requests[0].headers["idempotency-key"]
    ] * 2


@pytest.mark.req("F22")
def test_a_longer_wait_than_allowed_is_left_to_the_next_try_which_sends_only_the_rest(
    buyer, api, records, memory
):
    buyer.script = [buyer.accept, Response(status=503, headers={"Retry-After": "3600"})]
    with pytest.raises(DestinationBusyError, match="HTTP 503"):
        send(api(), records(3))
    assert find(api(), records(3)) is None
    send(api(), records(3))
    assert buyer.accepted == [1, 2, 3]
    assert len(buyer.requests) == 4


@pytest.mark.req("F22")
def test_no_more_requests_are_under_way_than_allowed(buyer, api, records):
    together = threading.Barrier(3)

    def wait_for_the_others(request):
        together.wait(20)
        return buyer.accept(request)

    buyer.usual = wait_for_the_others
    send(api(parallel=3), records(9))
    assert buyer.most_at_once == 3
    assert sorted(buyer.accepted) == list(range(1, 10))


@pytest.mark.req("F03")
def test_without_idempotency_a_lost_answer_is_for_a_person_and_the_other_leads_still_go(
    buyer, api, records, memory
):
    buyer.script = [buyer.accept, then_cut(buyer)]
    with pytest.raises(OutcomeUnknownError):
        send(api(), records(4))
    assert buyer.accepted == [1, 2, 3, 4]
    assert memory.requests[2].state is RequestState.UNKNOWN
    assert sorted(memory.given) == [1, 3, 4]
    with pytest.raises(OutcomeUnknownError):
        find(api(), records(4))


def test_with_idempotency_a_lost_answer_is_asked_for_again_with_the_same_key(buyer, api, records):
    buyer.script = [then_cut(buyer)]
    send(api(idempotent=True), records(2))
    assert buyer.accepted == [1, 2]
    assert buyer.requests[0].headers["idempotency-key"] == buyer.requests[1].headers["idempotency-key"]


def test_a_buyer_that_never_answers_is_given_up(buyer, api, records, memory):
    buyer.usual = cut
    with pytest.raises(TransferInterruptedError):
        send(api(), records(50))
    assert len(buyer.requests) == 3
    assert [one.state for one in memory.requests.values()] == [RequestState.UNKNOWN] * 3


def test_the_intent_is_remembered_before_a_request_goes_out(buyer, api, records, memory):
    seen = []

    def look(request):
        seen.append([one.number for what, one in memory.log if what == "begun"])
        return buyer.accept(request)

    buyer.usual = look
    send(api(), records(3))
    assert seen == [[1], [1, 2], [1, 2, 3]]


def test_a_refused_login_is_tried_once_and_no_lead_is_blamed(buyer, api, records, memory):
    buyer.script = [Response(status=401)]
    with pytest.raises(AuthenticationError) as refused:
        send(api(auth={"type": "bearer"}), records(3))
    assert not refused.value.retry
    assert len(buyer.requests) == 1
    assert memory.given == {}
    assert memory.requests[1].state is RequestState.OPEN


def test_redirects_are_not_followed(buyer, api, records):
    buyer.script = [Response(status=302, headers={"Location": f"https://127.0.0.1:{buyer.port}/elsewhere"})]
    with pytest.raises(PermanentDeliveryError, match="redirect"):
        send(api(), records(1))
    assert [one.path for one in buyer.requests] == ["/leads"]


@pytest.mark.req("R218")
def test_plain_http_needs_a_reason_also_on_this_machine(buyer, api, records):
    buyer.connect(schema="http")
    with pytest.raises(PermanentDeliveryError, match="without TLS"):
        send(api(), records(1))
    with pytest.raises(ValueError, match="plaintext_reason"):
        api(allow_plaintext=True)
    assert buyer.requests == []


@pytest.mark.req("C11")
def test_a_certificate_of_an_unknown_authority_is_refused(buyer, api, records):
    buyer.connect(extra={})
    with pytest.raises(HostKeyError, match="could not prove") as refused:
        send(api(), records(1))
    assert "ca_file" in str(refused.value)


def test_path_query_and_headers_are_filled_in_and_escaped(buyer, api, records):
    keys = {
        "path": "/c/{{ batch.id }}/{{ fields['Name'] }}",
        "query": {"ref": "{{ lead_id }}", "who": "{{ fields['Name'] }}"},
        "headers": {"X-Batch": "{{ batch.name }}"},
    }
    send(api(**keys), records(1, Name="a/b & ü"))
    (request,) = buyer.requests
    assert request.path == "/c/acme_auto/a%2Fb%20%26%20%C3%BC?ref=1&who=a%2Fb%20%26%20%C3%BC"
    assert request.headers["x-batch"] == "Acme Auto"


def test_a_value_cannot_smuggle_a_header_in(buyer, api, records, memory):
    with pytest.raises(PermanentDeliveryError, match=r"headers\.X-Name") as refused:
        send(api(headers={"X-Name": "{{ fields['Name'] }}"}), records(1, Name="a\r\nX-Evil: 1"))
    assert "Evil" not in str(refused.value)
    assert buyer.requests == []
    assert memory.requests[1].state is RequestState.OPEN


@pytest.mark.req("R161")
def test_status_latency_and_the_start_of_the_answer_are_kept_without_the_leads_values(
    buyer, api, records, memory
):
    told = {"result": "rejected", "why": "lead1@example.com and (212) 555-0100 are known: Zoë O'Hara"}
    buyer.script = [as_json(told, status=422)]
    answers = [*api().model_dump(mode="json")["answers"], REFUSED]
    fields = {"Phone": "+12125550100", "Name": "Zoë O'Hara"}
    send(api(answers=answers, capture={"message": {"json": "$.why"}}), records(1, **fields))
    (reply,) = memory.ended
    assert reply.status_code == 422
    assert reply.latency_ms >= 0
    assert reply.answers[0].message == "[Email] and [Phone] are known: [Name]"
    for value in ("lead1@", "555", "O'Hara"):
        assert value not in reply.excerpt


@pytest.mark.req("F23", "R164")
@pytest.mark.parametrize("outcome", ["rejected", "duplicate", "incomplete"])
def test_each_lead_gets_what_the_buyer_says(outcome, buyer, api, records, memory):
    buyer.script = [as_json({"result": outcome})]
    rules = [
        {"when": {"json": "$.result", "equals": one}, "then": one}
        for one in ("accepted", "rejected", "duplicate", "incomplete")
    ]
    receipt = send(api(answers=rules), records(2))
    assert [memory.given[one].outcome for one in (1, 2)] == [Answer(outcome), Answer.ACCEPTED]
    assert receipt.details["answers"][outcome] == 1


@pytest.mark.req("F23", "C02")
def test_an_answer_that_no_rule_knows_is_no_yes(buyer, api, records, memory):
    buyer.script = [as_json({"result": "splendid"})]
    send(api(), records(1))
    assert memory.given[1].outcome is Answer.REJECTED
    assert "no rule" in memory.given[1].message


def test_a_lead_that_the_buyer_wants_again_is_sent_again_without_the_others_of_its_chunk(
    buyer, api, records, memory
):
    first = [{"lead": "1", "result": "accepted"}, {"lead": "2", "result": "later"}]
    buyer.script = [as_json({"results": first})]
    rules = [
        *api().model_dump(mode="json")["answers"],
        {"when": {"json": "$.result", "equals": "later"}, "then": "retry"},
    ]
    send(api(send="chunk", items={"at": "$.results", "lead": "$.lead"}, answers=rules), records(2))
    assert [[one["Lead"] for one in chunk] for chunk in buyer.documents] == [["1", "2"], ["2"]]
    assert {one.outcome for one in memory.given.values()} == {Answer.ACCEPTED}


@pytest.mark.req("C02")
def test_leads_that_an_answer_to_a_chunk_forgets_are_never_taken_for_accepted(buyer, api, records, memory):
    buyer.script = [as_json({"result": "accepted", "results": [{"lead": "1", "result": "accepted"}]})]
    with pytest.raises(OutcomeUnknownError):
        send(api(send="chunk", items={"at": "$.results", "lead": "$.lead"}), records(2))
    assert sorted(memory.given) == [1]
    assert memory.requests[1].lead_ids == (2,)


def test_an_empty_list_of_leads_needs_no_request(buyer, api, records):
    assert send(api(), records(0)).details["leads"] == 0
    assert buyer.requests == []


def test_a_probe_reaches_the_host_and_sends_no_lead(buyer, api, records):
    buyer.usual = Response(status=405)
    with api(auth={"type": "bearer"}).open() as session:
        assert session.probe(records(1)).startswith("reached")
    assert [one.method for one in buyer.requests] == ["OPTIONS"]
    assert buyer.bodies == [b""]


def test_made_up_leads_are_marked_as_such(buyer, api, records):
    send(api(), records(1))
    send(api(), replace(records(2), is_test=True, key="a test", answers=Memory()))
    assert [one.headers.get("x-leadferry-test") for one in buyer.requests] == [None, "true", "true"]


def test_no_value_of_a_lead_and_no_secret_is_logged(buyer, api, records, caplog):
    caplog.set_level("DEBUG")
    buyer.script = [cut]
    keys = {"query": {"mail": "{{ fields['Email'] }}"}, "auth": {"type": "bearer"}, "idempotent": True}
    send(api(**keys), records(2))
    assert "POST https://127.0.0.1" in caplog.text
    for value in ("lead1", "lead2", "open sesame"):
        assert value not in caplog.text


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (
            {"type": "json"},
            'application/json: {"Lead":"1","Email":"lead1@example.com","a":{"b":"<x>","c":null}}',
        ),
        (
            {"type": "json", "nest": False, "omit_empty": True, "lead_id_as": "ref"},
            'application/json: {"ref":1,"Lead":"1","Email":"lead1@example.com","a.b":"<x>"}',
        ),
        (
            {"type": "form"},
            "application/x-www-form-urlencoded: Lead=1&Email=lead1%40example.com&a.b=%3Cx%3E",
        ),
        (
            {"type": "xml"},
            (
                "application/xml: <?xml version='1.0' encoding='UTF-8'?>\n"
                "<lead><Lead>1</Lead><Email>lead1@example.com</Email><a><b>&lt;x&gt;</b><c/></a></lead>"
            ),
        ),
        (
            {"type": "template", "text": '{"mail": {{ fields["Email"] | tojson }}, "n": {{ lead_id }}}'},
            'application/json: {"mail": "lead1@example.com", "n": 1}',
        ),
        (
            {"type": "template", "text": "<l>{{ fields['a.b'] | e }}</l>", "media_type": "text/xml"},
            "text/xml: <l>&lt;x&gt;</l>",
        ),
    ],
)
def test_a_lead_is_written_as_the_buyer_wants_it(body, sent, buyer, api, records):
    buyer.usual = as_json({"result": "accepted"})
    send(api(body=body), records(1, **{"a.b": "<x>", "a.c": None}))
    assert f"{buyer.requests[0].headers['content-type']}: {buyer.bodies[0].decode()}" == sent


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"type": "json", "list_under": "leads"}, '{"leads":[{"Lead":"1"'),
        ({"type": "xml", "root": "all", "element": "one"}, "<all><one><Lead>1</Lead>"),
        (
            {
                "type": "template",
                "text": "[{% for one in leads %}{{ one.lead_id }}{{ '' if loop.last else ',' }}{% endfor %}]",
            },
            "[1,2]",
        ),
    ],
)
def test_a_chunk_is_written_as_the_buyer_wants_it(body, sent, buyer, api, records):
    buyer.usual = as_json({"result": "accepted"})
    send(api(send="chunk", body=body), records(2))
    assert sent in buyer.bodies[0].decode()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": "{{ fields[\'Name\'] }}"}', "escape values"),
        ("{{ fields[fields['Name']] }}", "does not exist"),
    ],
)
def test_a_body_that_cannot_be_right_is_not_sent_and_quotes_nothing(text, told, buyer, api, records):
    with pytest.raises(PermanentDeliveryError, match=told) as refused:
        send(api(body={"type": "template", "text": text}), records(1, Name='Eve "x" Dropper'))
    assert "Dropper" not in str(refused.value)
    assert buyer.requests == []


def test_labels_that_a_body_cannot_have_are_told_by_the_check(api):
    assert api(body={"type": "json"}).problems(["a", "a.b"]) == [
        "label 'a' is a value and has others below it; set nest: false"
    ]
    assert api(body={"type": "xml"}).problems(["First Name"]) == [
        "label 'First Name' cannot be the name of an XML element"
    ]
    assert api(body={"type": "json", "lead_id_as": "a"}).problems(["a"]) == [
        "label 'a' stands twice in the body"
    ]
    assert api(body={"type": "form"}).problems(["First Name", "a", "a.b"]) == []
