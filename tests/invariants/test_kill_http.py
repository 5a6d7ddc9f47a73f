"""kill -9 of the process that sends leads to a buyer's API, while requests are under way (I4, I6)."""

import hashlib
import json
import os
import signal
import time

import pytest

from batches import execute, make_batch, rows, scalars, waiting
from leadferry.archive import Archive
from leadferry.delivery.settle import settle
from leadferry.local.http import Response
from leadferry.states import DeliveryState

LEADS = 200


@pytest.fixture
def api(forks, store_url, tmp_path):
    """A harbour whose buyer has an API; `buyer.deadly` maps the count of a request to when its sender is killed."""
    from harbour import Harbour

    from servers.http_buyer import Buyer

    with Buyer(root=tmp_path / "inbox", state=tmp_path / "keys") as buyer:
        harbour = Harbour(store=store_url, folder=tmp_path, receiver=buyer)
        harbour.buyer, harbour.deadly, harbour.driver = buyer, {}, None
        buyer.usual = lambda request: answer(harbour, request)
        yield harbour


def answer(harbour, request):
    """Kill the sender before or after the leads are taken, if it is time; otherwise take them."""
    when = harbour.deadly.pop(len(harbour.buyer.requests), None)
    if when == "before":
        kill(harbour)
    told = harbour.take(request)
    if when == "after":
        kill(harbour)
    return told


def kill(harbour):
    os.kill(harbour.driver.process.pid, signal.SIGKILL)
    harbour.driver.process.join(30)


def use(harbour, **keys):
    rule = {"when": {"status": ["2xx"]}, "then": "accepted"}
    api = {"id": "buyer", "type": "http", "connection": "buyer", "answers": [rule], **keys}
    files = [{"name": "leads.csv", "format": {"type": "csv"}}] if keys.get("send") == "file" else []
    harbour.batch = make_batch(files=files, destinations=[api]).model_dump(mode="json")
    harbour.take = harbour.buyer.accept if not files else take_file(harbour.buyer)
    harbour.add_leads(LEADS)


def take_file(buyer):
    """Take a file, once for each key."""

    def act(request):
        key = request.headers["idempotency-key"]
        if key not in buyer.by_key:
            buyer.by_key[key] = True
            lines = request.body.decode().splitlines()[1:]
            buyer.accepted += [int(line.split(",")[0]) for line in lines]
        return Response(status=201)

    return act


def attempt(harbour, **keys):
    """One try; what it said, or None when it was killed."""
    harbour.driver = harbour.start("run-1", **keys)
    said = harbour.driver.hear()
    harbour.driver.end()
    return said


@pytest.mark.req("F01", "F22", "R170", "C01")
@pytest.mark.parametrize("parallel", [1, 4])
def test_i6_killed_in_the_middle_of_200_requests_each_lead_is_accepted_once(api, parallel):
    use(api, idempotent=True, parallel=parallel)
    api.deadly = {37: "before", 90: "after", 150: "after"}
    said = [attempt(api) for _ in range(4)]
    assert said == [None, None, None, "delivered"]
    assert sorted(api.buyer.accepted) == api.leads
    # Only what was under way is asked again.
    assert len(api.buyer.requests) <= LEADS + 3 * parallel
    assert set(scalars(api.database, "SELECT state::text FROM request")) == {"answered"}
    found = rows(api.database, "SELECT lead_id, count(*) FROM response WHERE outcome = 'accepted' GROUP BY 1")
    assert sorted(found) == [(lead, 1) for lead in api.leads]


@pytest.mark.req("F03", "F22")
def test_i6_without_idempotency_what_was_under_way_is_held_for_a_person_and_never_sent_again(api):
    use(api)
    api.deadly = {50: "after"}
    assert attempt(api) is None
    assert attempt(api) == ("OutcomeUnknownError", False)
    (delivery,) = scalars(api.database, "SELECT id FROM delivery")
    assert settle(api.database, Archive(str(api.archive)), delivery).state is DeliveryState.HELD
    assert api.buyer.accepted == api.leads[:50]
    found = rows(api.database, "SELECT state::text, count(*) FROM request GROUP BY 1 ORDER BY 1")
    assert found == [("answered", 49), ("unknown", 1)]
    assert waiting(api.database) == []


@pytest.mark.req("F22")
def test_a_restart_sends_only_the_chunks_that_were_not_sent(api):
    use(api, send="chunk", chunk=20, idempotent=True)
    api.deadly = {6: "before"}
    assert attempt(api) is None
    assert attempt(api) == "delivered"
    sent = [[int(one["Lead"]) for one in json.loads(body)] for body in api.buyer.bodies]
    chunks = [api.leads[start : start + 20] for start in range(0, LEADS, 20)]
    assert sent == [*chunks[:6], *chunks[5:]]
    assert api.buyer.accepted == api.leads


@pytest.mark.req("F01")
@pytest.mark.parametrize("when", ["before", "after"])
def test_i6_killed_while_a_file_is_uploaded_the_buyer_has_it_once(api, when):
    use(api, send="file", idempotent=True)
    api.deadly = {1: when}
    assert [attempt(api), attempt(api)] == [None, "delivered"]
    assert api.buyer.accepted == api.leads
    assert len({one.headers["idempotency-key"] for one in api.buyer.requests}) == 1


LARGE = 200_000_000


@pytest.mark.req("C01", "F01", "F02")
def test_i6_killed_in_the_middle_of_200_mb_the_buyer_has_one_complete_file_after_the_next_try(api):
    buyer, taken = api.buyer, {}

    def take(request):
        key = request.headers["idempotency-key"]
        with request.stored.open("rb") as body:
            taken.setdefault(key, []).append(hashlib.file_digest(body, "sha256").hexdigest())
        return Response(status=201)

    use(api, send="file", idempotent=True, timeout=60)
    api.batch["fields"].append({"to": "Note", "from": "note"})
    buyer.usual = take
    fill_up(api)
    api.driver = api.start("run-1", block_bytes=8 << 20)
    until(lambda: any(path.stat().st_size > LARGE // 4 for path in uploads(api)))
    api.driver.kill()
    until(lambda: uploads(api) == [])
    assert taken == {}
    assert attempt(api, block_bytes=8 << 20) == "delivered"
    ((size, sha256),) = rows(api.database, "SELECT size, sha256 FROM file")
    assert size > LARGE
    assert list(taken.values()) == [[sha256]]
    assert scalars(api.database, "SELECT state::text FROM dispatch") == ["confirmed"]
    assert scalars(api.database, "SELECT state::text FROM request") == ["answered"]


def uploads(harbour):
    """The bodies that are being received."""
    return list((harbour.inbox.parent / "keys").glob("*.body"))


def fill_up(harbour):
    """Make the waiting leads so large that their file has 200 MB."""
    note = "UPDATE lead SET fields = fields || jsonb_build_object('note', repeat('x', :size))"
    execute(harbour.database, note, size=LARGE // LEADS)


def until(happened):
    from harbour import PATIENCE

    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.002)
