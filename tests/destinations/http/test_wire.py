"""What a request that is not answered means, and what every status means; a large file goes in blocks."""

import dataclasses
import errno
import hashlib
import socket
import ssl
import tracemalloc

import httpx
import pytest

from leadferry.destinations.faults.http import of_http
from leadferry.destinations.http.transport import address_of
from leadferry.errors import (
    AuthenticationError,
    ConnectionRefusedByHostError,
    ConnectTimeoutError,
    DestinationBusyError,
    DnsError,
    HostKeyError,
    NoSuchPathError,
    OutcomeUnknownError,
    PermanentDeliveryError,
    QuotaError,
    TooLargeError,
    TransferInterruptedError,
)
from leadferry.local.http import Response
from leadferry.states import Answer, RequestState
from servers import ports
from servers.http_buyer import NoServer, babble, cut, drop, half, reset, silent


def send(destination, parcel):
    with destination.open() as session:
        return session.send(parcel)


def caused(outer, inner):
    """An exception of httpx with what lies behind it, as httpcore leaves it."""
    outer.__cause__ = Exception("in between")
    outer.__cause__.__context__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (caused(httpx.ConnectError("x"), socket.gaierror(socket.EAI_NONAME, "x")), DnsError),
        (
            caused(httpx.ConnectError("x"), ConnectionRefusedError(errno.ECONNREFUSED, "x")),
            ConnectionRefusedByHostError,
        ),
        (caused(httpx.ConnectError("x"), OSError(errno.EHOSTUNREACH, "x")), ConnectTimeoutError),
        (caused(httpx.ConnectError("x"), ssl.SSLCertVerificationError(1, "x")), HostKeyError),
        (caused(httpx.ConnectError("x"), ssl.SSLError(1, "wrong version")), PermanentDeliveryError),
        (httpx.ConnectError("x"), TransferInterruptedError),
        (httpx.ConnectTimeout("x"), ConnectTimeoutError),
        (httpx.ReadTimeout("x"), ConnectTimeoutError),
        (httpx.WriteTimeout("x"), ConnectTimeoutError),
        (httpx.PoolTimeout("x"), DestinationBusyError),
        (caused(httpx.ReadError("x"), ConnectionResetError(errno.ECONNRESET, "x")), TransferInterruptedError),
        (caused(httpx.WriteError("x"), BrokenPipeError(errno.EPIPE, "x")), TransferInterruptedError),
        (httpx.RemoteProtocolError("x"), TransferInterruptedError),
        (httpx.LocalProtocolError("x"), PermanentDeliveryError),
        (httpx.UnsupportedProtocol("x"), PermanentDeliveryError),
        (httpx.ProxyError("x"), ConnectionRefusedByHostError),
        (httpx.DecodingError("x"), TransferInterruptedError),
        (httpx.InvalidURL("x"), PermanentDeliveryError),
        (TimeoutError(), ConnectTimeoutError),
        (OSError(errno.ENETUNREACH, "x"), ConnectTimeoutError),
    ],
)
def test_what_httpx_raises_has_one_meaning(error, kind):
    assert of_http(error).kind is kind


def test_a_fault_of_our_own_is_none_of_the_buyers():
    assert of_http(KeyError("x")) is None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, PermanentDeliveryError),
        (307, PermanentDeliveryError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NoSuchPathError),
        (405, PermanentDeliveryError),
        (410, NoSuchPathError),
        (413, TooLargeError),
        (415, PermanentDeliveryError),
        (429, DestinationBusyError),
        (500, OutcomeUnknownError),
        (501, PermanentDeliveryError),
        (502, OutcomeUnknownError),
        (503, DestinationBusyError),
        (504, OutcomeUnknownError),
        (507, QuotaError),
    ],
)
def test_a_status_that_does_not_speak_of_the_lead_blames_no_lead(status, error, buyer, api, records):
    buyer.usual = Response(status=status, headers={"Retry-After": "9999"})
    parcel = records(1)
    with pytest.raises(error) as raised:
        send(api(), parcel)
    assert type(raised.value) is error
    assert parcel.answers.given == {}


@pytest.mark.parametrize("status", [200, 204, 400, 402, 409, 422])
def test_other_statuses_speak_of_the_lead(status, buyer, api, records, memory):
    buyer.usual = Response(status=status)
    send(api(), records(1))
    assert memory.given[1].outcome is Answer.REJECTED


@pytest.mark.parametrize("behave", [drop, reset, babble, half, silent])
def test_a_server_that_does_not_answer_leaves_the_lead_in_doubt(behave, buyer, api, records):
    server, parcel = NoServer(behave), records(1)
    buyer.connect(schema="http", port=server.port, extra={})
    keys = {"allow_plaintext": True, "plaintext_reason": "a test", "timeout": 0.5}
    with pytest.raises(OutcomeUnknownError):
        send(api(**keys), parcel)
    server.close()
    assert parcel.answers.requests[1].state is RequestState.UNKNOWN
    assert parcel.answers.ended[0].error_code == ("timeout" if behave is silent else "interrupted")


def test_tls_to_a_server_without_it_sends_nothing(buyer, api, records, memory):
    server = NoServer(babble)
    buyer.connect(port=server.port)
    with pytest.raises(PermanentDeliveryError):
        send(api(), records(1))
    server.close()
    assert memory.requests[1].state is RequestState.OPEN


def test_nobody_listening_is_refused_and_nothing_is_in_doubt(buyer, api, records, memory):
    with ports.kept_free() as port:
        buyer.connect(port=port)
        with pytest.raises(ConnectionRefusedByHostError):
            send(api(), records(5))
    assert [one.state for one in memory.requests.values()] == [RequestState.OPEN]


def test_a_connection_that_airflow_does_not_know_is_named(api, records):
    with pytest.raises(PermanentDeliveryError, match="nobody_knows"):
        send(api(connection="nobody_knows"), records(1))


@pytest.mark.parametrize(
    ("parts", "base"),
    [
        ({"host": "api.example", "schema": None, "port": None}, "https://api.example"),
        ({"host": "api.example", "schema": "http", "port": 8080}, "http://api.example:8080"),
        ({"host": "https://api.example/v2", "schema": "http", "port": 444}, "https://api.example:444/v2"),
        ({"host": "http://api.example:81", "schema": "https", "port": 444}, "http://api.example:81"),
    ],
)
def test_the_address_is_as_airflows_connections_have_it(parts, base):
    assert address_of(**parts).base == base
    assert address_of(**parts).is_plain is base.startswith("http://")


@pytest.mark.parametrize("host", [None, "", "ftp://api.example", "https://"])
def test_an_address_that_leads_nowhere_is_refused(host):
    with pytest.raises(ValueError, match="no h"):
        address_of(host=host, schema=None, port=None)


LARGE = 200 * 10**6


@pytest.fixture
def large(tmp_path, make_parcel, memory):
    """A parcel with a file of 200 MB."""
    path, block = tmp_path / "large.bin", bytes(range(256)) * 40_000
    digest = hashlib.sha256()
    with path.open("wb") as out:
        for _ in range(LARGE // len(block)):
            digest.update(block)
            out.write(block)
    (small,) = make_parcel(b"x", name="large.bin").files
    size = path.stat().st_size
    file = dataclasses.replace(small, path=path, size=size, sha256=digest.hexdigest())
    return dataclasses.replace(make_parcel(b"x"), files=(file,), answers=memory)


def test_a_large_file_goes_in_blocks_and_a_lost_answer_is_asked_for_again(buyer, api, large, memory):
    sizes = []

    def take(request):
        sizes.append(request.stored.stat().st_size)
        return cut(request) if len(sizes) == 1 else Response(status=201)

    buyer.answer = take
    destination = api(
        send="file", idempotent=True, answers=[{"when": {"status": [201]}, "then": "accepted"}], timeout=60
    )
    with pytest.raises(TransferInterruptedError):
        send(destination, large)
    assert memory.requests[1].state is RequestState.OPEN
    tracemalloc.start()
    receipt = send(destination, large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [large.file.size] * 2
    assert receipt.size == large.file.size
    assert peak < 30 * 10**6
