"""Every class of error below DeliveryError: its hint, its decision, and a real failure for every kind of destination.

Two more tables count here, each row of which is tried by a test of its own: `servers.clouds.REFUSALS` on the libraries of
the clouds, and `servers.smtp.REPLIES` on a mail server.
"""

import collections
import contextlib
import dataclasses
import inspect
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from contracts.destination_contract import find, send
from leadferry import errors
from leadferry.destinations.azure import Azure
from leadferry.destinations.email import Email
from leadferry.destinations.folder import Folder
from leadferry.destinations.ftp import Ftp
from leadferry.destinations.gcs import Gcs
from leadferry.destinations.http import Http
from leadferry.destinations.s3 import S3
from leadferry.destinations.sftp import Sftp
from leadferry.local.http import Response
from servers import clouds, ftp, gcs, http_buyer, ports, s3, sftp, smtp
from servers.answers import Memory
from servers.proxy import Wire

FAMILY = {
    "sftp": "file",
    "ftp": "file",
    "folder": "file",
    "email": "mail",
    "s3": "cloud",
    "gcs": "cloud",
    "azure": "cloud",
    "http": "http",
}
BUYER = "leads@acme.example"
YES = [{"when": {"status": [201]}, "then": "accepted"}]


@dataclasses.dataclass
class Case:
    """What a failure is provoked with: a destination, its server, the wire between them, and a parcel."""

    destination: object
    server: object
    wire: object
    parcel: object
    connect: Callable
    """Defines the destination's connection anew, with some parts changed."""
    act: Callable = send

    def fault(self, **keys):
        for name, value in keys.items():
            setattr(self.server.faults, name, value)

    def use(self, **keys):
        self.destination = self.destination.model_copy(update=keys)


@dataclasses.dataclass(frozen=True)
class Failure:
    kind: str
    error: type
    name: str
    provoke: Callable
    """Prepares the case, and may return a context in which it fails."""


# --- what happens on the way, to every kind that connects


def elsewhere(case, host, port):
    """Lead the destination's connection to another host and port."""
    kind = type(case.destination).__name__
    if kind in {"S3", "Gcs"}:
        name = "endpoint_url" if kind == "S3" else "api_endpoint"
        more = {"is_anonymous": True} if kind == "Gcs" else {}
        return case.connect(extra={name: f"http://{host}:{port}", **more})
    if kind == "Azure":
        return case.connect(host=f"http://{host}:{port}/ferry")
    return case.connect(host=host, port=port)


def dns(case):
    elsewhere(case, "no-such-host.invalid", 22)


@contextlib.contextmanager
def closed_port(case):
    with ports.kept_free() as port:
        elsewhere(case, "127.0.0.1", port)
        yield


@contextlib.contextmanager
def silent(case):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        elsewhere(case, "127.0.0.1", listener.getsockname()[1])
        case.use(timeout=0.5)
        yield


@contextlib.contextmanager
def listening(case, behave):
    """Lead to something that treats every connection alike."""
    server = http_buyer.NoServer(behave)
    elsewhere(case, "127.0.0.1", server.port)
    case.use(timeout=5)
    yield
    server.close()


def hangs_up(case):
    return listening(case, http_buyer.drop)


# --- what servers of files say


def faulty(**keys):
    return lambda case: case.fault(**keys)


def replies(command, answer):
    return lambda case: case.server.faults.answers.update({command: answer})


def using(**keys):
    return lambda case: case.use(**keys)


def connecting(**keys):
    return lambda case: case.connect(**keys)


def another_host_key(case):
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    case.connect(extra={"host_key": key})


def taken(case):
    """Somebody's file stands under the name."""
    if isinstance(case.destination, S3):
        case.server.client().put_object(Bucket=case.server.bucket, Key="leads.csv", Body=b"somebody's")
        return
    folder = Path(case.destination.path) if isinstance(case.destination, Folder) else case.server.root
    folder.mkdir(exist_ok=True)
    (folder / "leads.csv").write_bytes(b"somebody's")


def in_the_way(case):
    """A file stands in the place of the folder."""
    Path(case.destination.path).write_bytes(b"")


def cut_with_nobody_to_ask(case):
    """The wire is cut at the rename, and leads nowhere afterwards."""
    import paramiko

    from leadferry.destinations.ftp.client import Client

    owner = {"Sftp": paramiko.SFTPClient, "Ftp": Client}[type(case.destination).__name__]
    really = owner.rename

    def rename(*_):
        wire = getattr(case.wire, "control", case.wire)
        wire.target = 1
        wire.cut()
        raise EOFError

    @contextlib.contextmanager
    def patched():
        owner.rename = rename
        yield
        owner.rename = really

    return patched()


def cut_half_way(case):
    return case.wire.cutting(300_000)


# --- what clouds do


def stalls_after_the_upload(case):
    """The answer to the upload is lost, and nobody answers afterwards."""
    from botocore.client import BaseClient
    from google.cloud.storage import Blob

    owner, name = {"S3": (BaseClient, "_make_api_call"), "Gcs": (Blob, "upload_from_file")}[
        type(case.destination).__name__
    ]
    really = getattr(owner, name)

    def act(one, operation, *args, **keys):
        if name == "upload_from_file" or operation == "PutObject":
            case.wire.target = 1
            case.wire.cut()
        return really(one, operation, *args, **keys)

    @contextlib.contextmanager
    def patched():
        setattr(owner, name, act)
        yield
        setattr(owner, name, really)

    return patched()


def without(module):
    @contextlib.contextmanager
    def missing(_):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            yield

    return missing


# --- what buyers' APIs do


def status(number, **headers):
    def act(case):
        case.server.usual = Response(status=number, headers={"Retry-After": "9999", **headers})

    return act


def loses_the_answer(case):
    case.server.usual = http_buyer.cut


def loses_the_answer_for_good(case):
    """The buyer takes a repeated request for a new one, so that what was sent is asked for and not sent again."""
    case.use(idempotent=False)
    loses_the_answer(case)
    with pytest.raises(errors.TransferInterruptedError):
        send(case.destination, case.parcel)
    case.act = find


def for_all(kinds, provokers):
    return [Failure(kind, *row) for kind in kinds for row in provokers]


FAILURES = [
    *for_all(
        ["sftp", "ftp", "email", "s3", "gcs", "azure", "http"],
        [
            (errors.DnsError, "no such host", dns),
            (errors.ConnectionRefusedByHostError, "closed port", closed_port),
            (errors.ConnectTimeoutError, "never answers", silent),
        ],
    ),
    Failure("sftp", errors.DestinationBusyError, "hangs up before its greeting", hangs_up),
    Failure("sftp", errors.TransferInterruptedError, "cut in the middle", cut_half_way),
    Failure("sftp", errors.TransferInterruptedError, "keeps less", faulty(truncates_at=300_000)),
    Failure("sftp", errors.TransferInterruptedError, "cut before the rename", faulty(rename="cut before")),
    Failure("sftp", errors.HostKeyError, "another host key", another_host_key),
    Failure("sftp", errors.AuthenticationError, "wrong password", connecting(password="wrong horse")),
    Failure("sftp", errors.AccessDeniedError, "may not write", faulty(denies=True)),
    Failure("sftp", errors.NoSuchPathError, "no such directory", using(directory="/nowhere")),
    Failure("sftp", errors.QuotaError, "disk full", faulty(room=300_000)),
    Failure("sftp", errors.NameConflictError, "name taken", taken),
    Failure("sftp", errors.OutcomeUnknownError, "cut, nobody to ask", cut_with_nobody_to_ask),
    Failure("ftp", errors.TransferInterruptedError, "hangs up", hangs_up),
    Failure("ftp", errors.TransferInterruptedError, "keeps less", faulty(truncates_at=300_000)),
    Failure("ftp", errors.DestinationBusyError, "421", replies("USER", "421 Too many connections.")),
    Failure("ftp", errors.HostKeyError, "unknown authority", connecting(extra={"ca_file": None})),
    Failure("ftp", errors.AuthenticationError, "wrong password", connecting(password="wrong horse")),
    Failure("ftp", errors.AccessDeniedError, "may not write", faulty(denies=True)),
    Failure("ftp", errors.AccessDeniedError, "553", replies("STOR", "553 File name not allowed.")),
    Failure("ftp", errors.NoSuchPathError, "no such directory", using(directory="/nowhere")),
    Failure("ftp", errors.QuotaError, "552", replies("STOR", "552 Disk full.")),
    Failure("ftp", errors.QuotaError, "452", replies("STOR", "452 Insufficient storage space.")),
    Failure("ftp", errors.NameConflictError, "name taken", taken),
    Failure("ftp", errors.OutcomeUnknownError, "cut, nobody to ask", cut_with_nobody_to_ask),
    Failure("folder", errors.NameConflictError, "name taken", taken),
    Failure("folder", errors.NameConflictError, "a file in its place", in_the_way),
    Failure("folder", errors.NoSuchPathError, "no such folder", using(create=False)),
    Failure("folder", errors.AccessDeniedError, "may not write", using(path="/sys/kernel", create=False)),
    Failure("email", errors.DestinationBusyError, "hangs up before its greeting", hangs_up),
    Failure("email", errors.TransferInterruptedError, "hangs up at DATA", faulty(cut="at data")),
    Failure("email", errors.OutcomeUnknownError, "cut after DATA", faulty(cut="before the answer")),
    Failure("email", errors.HostKeyError, "unknown authority", connecting(extra={"ca_file": None})),
    Failure("email", errors.AuthenticationError, "wrong password", connecting(password="wrong horse")),
    *for_all(["s3", "gcs", "azure"], [(errors.TransferInterruptedError, "hangs up", hangs_up)]),
    *for_all(["s3", "gcs"], [(errors.OutcomeUnknownError, "cut, nobody to ask", stalls_after_the_upload)]),
    Failure(
        "gcs", errors.ExpiredCredentialsError, "revoked", faulty(token="Token has been expired or revoked.")
    ),
    Failure("gcs", errors.MissingExtraError, "not installed", without("google.cloud.storage")),
    Failure("azure", errors.MissingExtraError, "not installed", without("azure.storage.blob")),
    Failure("s3", errors.NameConflictError, "name taken", taken),
    Failure("http", errors.TransferInterruptedError, "the answer is lost", loses_the_answer),
    Failure("http", errors.TransferInterruptedError, "hangs up", hangs_up),
    Failure("http", errors.HostKeyError, "unknown authority", connecting(extra={"ca_file": None})),
    Failure("http", errors.OutcomeUnknownError, "the answer is lost for good", loses_the_answer_for_good),
    *[
        Failure("http", kind, f"HTTP {number}", status(number))
        for number, kind in {
            301: errors.PermanentDeliveryError,
            307: errors.PermanentDeliveryError,
            400: errors.PermanentDeliveryError,
            401: errors.AuthenticationError,
            403: errors.AuthenticationError,
            404: errors.NoSuchPathError,
            405: errors.PermanentDeliveryError,
            410: errors.NoSuchPathError,
            413: errors.TooLargeError,
            415: errors.PermanentDeliveryError,
            422: errors.PermanentDeliveryError,
            429: errors.DestinationBusyError,
            500: errors.DestinationBusyError,
            501: errors.PermanentDeliveryError,
            503: errors.DestinationBusyError,
            507: errors.QuotaError,
        }.items()
    ],
]

APPLIES = {
    "sftp": "dns refused timeout interrupted busy host_key auth permission no_such_path quota conflict unknown",
    "ftp": "dns refused timeout interrupted busy host_key auth permission no_such_path quota conflict unknown",
    "folder": "permission no_such_path conflict",
    "email": "dns refused timeout interrupted busy host_key auth message_refused rejected_policy too_large quota"
    " unknown",
    "s3": "dns refused timeout interrupted busy auth auth_expired permission no_such_bucket quota region too_large"
    " conflict unknown permanent",
    "gcs": "dns refused timeout interrupted busy auth auth_expired permission no_such_bucket quota region too_large"
    " conflict unknown missing_extra",
    "azure": "dns refused timeout interrupted busy auth auth_expired permission no_such_bucket quota too_large"
    " conflict missing_extra",
    "http": "dns refused timeout interrupted busy host_key auth no_such_path quota too_large unknown permanent",
}
"""The codes of the classes that each kind of destination can raise."""

NOT_OF_A_DESTINATION = {"suspended", "transient"}
"""Raised before any destination is asked; and the class of what a server itself does not explain."""

NO_HINT = {"delivery", "transient", "permanent", "missing_extra"}
"""Classes whose hint depends on what happened: it stands in the error itself."""


def descendants(kind):
    return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))


def of_this_project(kind):
    return kind.__module__.startswith("leadferry.")


CLASSES = sorted(filter(of_this_project, descendants(errors.DeliveryError)), key=lambda kind: kind.__name__)


def simulated():
    """Count the simulated failures by kind of destination and code."""
    found = collections.Counter((one.kind, one.error.code) for one in FAILURES)
    found.update((kind, code) for kind, _, _, code in clouds.REFUSALS)
    found.update(("email", kind.code) for _, kind in smtp.REPLIES)
    return found


@pytest.mark.req("R200")
@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_says_what_to_do_and_whether_to_try_again(kind):
    assert kind.code
    assert inspect.getdoc(kind)
    assert bool(kind.hint) or kind.code in NO_HINT
    assert kind.retry is issubclass(kind, errors.TransientDeliveryError)


@pytest.mark.req("R200")
def test_every_class_is_simulated_for_every_kind_of_destination_that_can_raise_it():
    found = simulated()
    assert [
        (kind, code) for kind, codes in APPLIES.items() for code in codes.split() if not found[kind, code]
    ] == []
    assert [pair for pair in found if pair[1] not in APPLIES[pair[0]].split()] == []
    said = {code for codes in APPLIES.values() for code in codes.split()}
    assert {kind.code for kind in CLASSES} - said - NOT_OF_A_DESTINATION == {"delivery"}


@pytest.mark.req("R200")
@pytest.mark.parametrize("family", sorted(set(FAMILY.values())))
def test_at_least_twenty_failures_are_simulated_for_each_family_of_destinations(family):
    assert sum(count for (kind, _), count in simulated().items() if FAMILY[kind] == family) >= 20


@pytest.fixture
def case(request, tmp_path, connect, parcel, make_parcel):
    """The destination of the failure's kind, well until it is spoilt."""
    kind = request.param
    with contextlib.ExitStack() as stack:
        yield BUILD[kind](stack, tmp_path, connect, parcel, make_parcel)


def _case(destination, server, wire, parcel, connect, announcement, **changes):  # noqa: PLR0913, PLR0917  (all parts of a case)
    def again(*, extra=None, **more):
        connect("buyer", announcement, extra=extra, **{**changes, **more})

    again()
    return Case(destination, server, wire, parcel, again)


def _sftp(stack, folder, connect, parcel, _):
    server = stack.enter_context(sftp.receiver(folder))
    wire = stack.enter_context(Wire(server.port))
    destination = Sftp(id="out", connection="buyer", directory="/", timeout=20)
    return _case(destination, server, wire, parcel, connect, server.announcement(), port=wire.port)


def _ftp(stack, folder, connect, parcel, _):
    wires = stack.enter_context(ftp.Wires())
    server = stack.enter_context(ftp.receiver(folder, passive_ports=wires.passive_ports))
    wires.control.target = server.port
    destination = Ftp(id="out", connection="buyer", directory="/", timeout=20)
    at = {"host": ftp.NEAR, "port": wires.port}
    return _case(destination, server, wires, parcel, connect, server.announcement(), **at)


def _folder(_, folder, connect, parcel, __):
    return Case(Folder(id="out", path=str(folder / "out")), None, None, parcel, connect)


def _email(stack, folder, connect, _, make_parcel):
    server = stack.enter_context(smtp.receiver(folder))
    destination = Email(id="out", connection="buyer", to=[BUYER], subject="s", body="b", timeout=20)
    parcel = make_parcel(b"id\r\n1\r\n", addressee=BUYER)
    return _case(destination, server, None, parcel, connect, server.announcement())


def _s3(stack, _, connect, parcel, __):
    server = stack.enter_context(s3.receiver())
    wire = stack.enter_context(Wire(server.port))
    destination = S3(id="out", connection="buyer", bucket=server.bucket, timeout=20)
    told = server.announcement()
    told["connection"]["extra"] |= {"endpoint_url": f"http://127.0.0.1:{wire.port}"}
    return _case(destination, server, wire, parcel, connect, told)


def _gcs(stack, _, connect, parcel, __):
    from google.oauth2.service_account import Credentials

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(Credentials, "_is_regional_access_boundary_lookup_required", lambda _: False)
    server = stack.enter_context(gcs.receiver())
    wire = stack.enter_context(Wire(server.port))
    destination = Gcs(id="out", connection="buyer", bucket=server.bucket, timeout=20)
    told = gcs.announcement(wire.port, key=server.key)
    return _case(destination, server, wire, parcel, connect, told)


def _azure(stack, _, connect, parcel, __):
    server = stack.enter_context(clouds.Refusing())
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    stack.callback(thread.join, 30)
    stack.callback(server.shutdown)
    told = {"conn_type": "wasb", "login": "ferry", "password": "c2VjcmV0IG9mIHRoZSBmZXJyeQ==", "extra": {}}
    destination = Azure(id="out", connection="buyer", container="leads", timeout=20)
    at = {"host": f"{server.url}/ferry"}
    return _case(destination, server, None, parcel, connect, {"connection": told}, **at)


def _http(stack, folder, connect, parcel, _):
    server = stack.enter_context(http_buyer.Buyer(root=folder / "inbox", state=folder / "state"))
    destination = Http.model_validate(
        {"id": "out", "connection": "buyer", "path": "/leads", "answers": YES, "timeout": 5, "send": "file"}
        | {"idempotent": True}
    )
    remembering = dataclasses.replace(parcel, answers=Memory())
    return _case(destination, server, None, remembering, connect, server.announcement())


BUILD = {
    "sftp": _sftp,
    "ftp": _ftp,
    "folder": _folder,
    "email": _email,
    "s3": _s3,
    "gcs": _gcs,
    "azure": _azure,
    "http": _http,
}


@pytest.mark.req("R200")
@pytest.mark.parametrize(
    ("case", "failure"),
    [(one.kind, one) for one in FAILURES],
    ids=[f"{one.kind}: {one.name}" for one in FAILURES],
    indirect=["case"],
)
def test_a_failure_has_its_class_a_next_step_and_a_decision(case, failure):
    with failure.provoke(case) or contextlib.nullcontext(), pytest.raises(errors.DeliveryError) as caught:
        case.act(case.destination, case.parcel)
    assert type(caught.value) is failure.error
    assert caught.value.retry is issubclass(failure.error, errors.TransientDeliveryError)
    assert caught.value.next_step or failure.error is errors.PermanentDeliveryError
