"""Requests prove who sends them; the buyer checks, and refuses what is played back."""

import base64
import hashlib
import hmac
import json
import time
from urllib.parse import parse_qs

import httpx
import pytest

from leadferry.destinations.http.auth import Answered, Credentials, LoginToken, Token
from leadferry.destinations.http.bodies import of_bytes
from leadferry.errors import AuthenticationError, DestinationBusyError, PermanentDeliveryError
from leadferry.local.http import Response, as_json

CREDENTIALS = Credentials(connection="buyer_api", login="ferry", password="open sesame", extra={"key": "k-1"})


def send(destination, parcel):
    with destination.open() as session:
        return session.send(parcel)


def sent_headers(buyer):
    return [one.headers for one in buyer.requests]


@pytest.mark.req("R159")
@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "basic"}, "authorization", "Basic " + base64.b64encode(b"ferry:open sesame").decode()),
        ({"type": "bearer"}, "authorization", "Bearer open sesame"),
        ({"type": "bearer", "from_extra": "key"}, "authorization", "Bearer k-1"),
        ({"type": "api_key"}, "x-api-key", "open sesame"),
        ({"type": "api_key", "header": "Api-Token", "from_extra": "key"}, "api-token", "k-1"),
    ],
)
def test_a_fixed_secret_of_the_connection_goes_into_its_header(  # noqa: PLR0913, PLR0917  (a table, and fixtures)
    auth, header, value, buyer, api, records
):
    buyer.connect(login="ferry", extra={"ca_file": str(buyer.ca_file), "key": "k-1"})
    send(api(auth=auth), records(2))
    assert [one[header] for one in sent_headers(buyer)] == [value, value]


def test_a_connection_without_the_secret_is_an_error_before_anything_is_sent(buyer, api, records):
    with pytest.raises(AuthenticationError, match="no 'key' in its extra"):
        send(api(auth={"type": "bearer", "from_extra": "key"}), records(1))
    assert buyer.requests == []


# --- tokens


class Gate:
    """A buyer that gives tokens, which hold for a number of requests, and asks for them."""

    def __init__(self, buyer, *, path, holds=100):
        self.buyer, self.path, self.holds = buyer, path, holds
        self.logins = []
        self.left = {}
        buyer.usual = self

    def __call__(self, request):
        if request.path == self.path:
            self.logins.append(request)
            token = f"token-{len(self.logins)}"
            self.left[f"Bearer {token}"] = self.holds
            return as_json({"access_token": token, "expires_in": 3600, "data": {"jwt": token}})
        given = request.headers.get("authorization", "")
        if self.left.get(given, 0) < 1:
            return Response(status=401)
        self.left[given] -= 1
        return self.buyer.accept(request)


OAUTH2 = {"type": "oauth2", "token_url": "/oauth/token", "scope": "leads write"}


@pytest.mark.req("F50")
@pytest.mark.parametrize("client_in", ["header", "body"])
def test_oauth2_gets_one_token_for_all_requests(client_in, buyer, api, records):
    buyer.connect(login="ferry")
    gate = Gate(buyer, path="/oauth/token")
    send(api(auth={**OAUTH2, "client_in": client_in}, parallel=3), records(6))
    assert sorted(buyer.accepted) == list(range(1, 7))
    (login,) = gate.logins
    form = parse_qs(buyer.bodies[buyer.requests.index(login)].decode())
    assert (form["grant_type"], form["scope"]) == (["client_credentials"], ["leads write"])
    if client_in == "body":
        assert (form["client_id"], form["client_secret"]) == (["ferry"], ["open sesame"])
    else:
        assert (
            base64.b64decode(login.headers["authorization"].removeprefix("Basic ")) == b"ferry:open%20sesame"
        )


@pytest.mark.req("F50")
def test_two_steps_log_in_and_then_send_the_token_from_the_answer(buyer, api, records):
    buyer.connect(login="ferry")
    gate = Gate(buyer, path="/login")
    auth = {
        "type": "login",
        "path": "/login",
        "login_key": "user",
        "password_key": "pass",
        "token_at": "$.data.jwt",
    }
    send(api(auth=auth), records(2))
    assert [json.loads(buyer.bodies[buyer.requests.index(one)]) for one in gate.logins] == [
        {"user": "ferry", "pass": "open sesame"}
    ]
    assert buyer.accepted == [1, 2]


@pytest.mark.req("F50")
def test_a_token_that_ends_early_is_fetched_anew_and_the_lead_is_sent_again(buyer, api, records):
    gate = Gate(buyer, path="/oauth/token", holds=2)
    send(api(auth=OAUTH2), records(5))
    assert buyer.accepted == [1, 2, 3, 4, 5]
    assert len(gate.logins) == 3


def test_a_token_that_is_refused_at_once_is_an_error_after_one_more_login(buyer, api, records, memory):
    gate = Gate(buyer, path="/oauth/token", holds=0)
    with pytest.raises(AuthenticationError):
        send(api(auth=OAUTH2), records(5))
    assert len(gate.logins) == 2
    assert memory.given == {}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response(status=400, body=b'{"error": "invalid_client"}'), AuthenticationError),
        (Response(status=401), AuthenticationError),
        (Response(status=503), DestinationBusyError),
        (Response(status=429), DestinationBusyError),
        (Response(status=404), PermanentDeliveryError),
        (Response(status=302, headers={"Location": "/elsewhere"}), PermanentDeliveryError),
        (Response(status=200, body=b"<html>"), PermanentDeliveryError),
        (as_json({"token": 7}), PermanentDeliveryError),
        (as_json({"access_token": "a\r\nX-Evil: 1"}), PermanentDeliveryError),
    ],
)
def test_a_login_that_fails_says_why_and_nothing_is_sent(answer, error, buyer, api, records):
    buyer.usual = answer
    with pytest.raises(error) as raised:
        send(api(auth=OAUTH2), records(3))
    assert type(raised.value) is error
    assert {one.path for one in buyer.requests} == {"/oauth/token"}
    for secret in ("open sesame", "Evil"):
        assert secret not in str(raised.value)


def test_secrets_do_not_leave_an_encrypted_host_for_a_plain_one(buyer, api, records):
    with pytest.raises(PermanentDeliveryError, match="not https"):
        send(api(auth={**OAUTH2, "token_url": "http://127.0.0.1:9/token"}), records(1))


def test_a_token_is_renewed_before_it_ends():
    given = iter([("first", 0.0), ("second", None)])
    token = Token(lambda: next(given), header="Authorization", prefix="")
    body = of_bytes("text/plain", b"")
    assert [token.headers(body)["Authorization"] for _ in range(3)] == ["first", "first", "first"]


def test_a_login_may_say_how_long_its_token_lives():
    auth = LoginToken(path="/login", valid_for="10s")
    logins = []

    def post(url, *, payload, headers):
        logins.append(url)
        return Answered(200, '{"token": "t"}')

    signer = auth.signer(CREDENTIALS, post)
    for _ in range(2):
        signer.headers(of_bytes("text/plain", b""))
    assert logins == ["/login", "/login"]  # ten seconds are less than the margin


# --- signatures


class Notary:
    """A buyer that checks signatures and times, and takes each signature once."""

    def __init__(self, buyer, key, *, algorithm="sha256"):
        self.buyer, self.key, self.algorithm = buyer, key, algorithm
        self.seen = set()
        buyer.usual = self

    def __call__(self, request):
        stamp, signature = request.headers.get("x-timestamp", "0"), request.headers.get("x-signature", "")
        wanted = hmac.new(self.key, f"{stamp}.".encode() + request.body, self.algorithm).hexdigest()
        fresh = abs(time.time() - int(stamp)) < 300
        if (
            not fresh
            or not hmac.compare_digest(f"{self.algorithm}={wanted}", signature)
            or signature in self.seen
        ):
            return Response(status=401)
        self.seen.add(signature)
        return self.buyer.accept(request)


@pytest.mark.req("F50")
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_signature_verifies_and_a_replay_is_rejected(algorithm, buyer, api, records):
    Notary(buyer, b"open sesame", algorithm=algorithm)
    auth = {"type": "hmac", "algorithm": algorithm, "prefix": f"{algorithm}=", "login_header": "X-Key-Id"}
    send(api(auth=auth), records(2))
    assert buyer.accepted == [1, 2]
    request, body = buyer.requests[0], buyer.bodies[0]
    assert request.headers["x-key-id"] == "leadferry"
    copied = {name: request.headers[name] for name in ("x-timestamp", "x-signature", "content-type")}
    with httpx.Client(verify=False) as eavesdropper:
        again = eavesdropper.post(f"https://127.0.0.1:{buyer.port}/leads", content=body, headers=copied)
        changed = eavesdropper.post(
            f"https://127.0.0.1:{buyer.port}/leads", content=body + b" ", headers=copied
        )
    assert (again.status_code, changed.status_code) == (401, 401)


def test_the_wrong_key_is_refused(buyer, api, records):
    Notary(buyer, b"another key")
    with pytest.raises(AuthenticationError):
        send(api(auth={"type": "hmac"}), records(1))


def test_a_signature_may_be_base64(buyer, api, records):
    send(api(auth={"type": "hmac", "encoding": "base64", "prefix": ""}), records(1))
    headers = buyer.requests[0].headers
    told = hmac.new(b"open sesame", f"{headers['x-timestamp']}.".encode() + buyer.bodies[0], hashlib.sha256)
    assert base64.b64decode(headers["x-signature"]) == told.digest()
