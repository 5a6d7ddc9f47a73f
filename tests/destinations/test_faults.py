"""The map of foreign errors: complete, and true for failures of real servers and networks."""

import errno
import ftplib
import smtplib
import socket
import ssl
import threading

import botocore.exceptions
import paramiko
import pytest
from botocore.exceptions import ClientError

from leadferry import errors
from leadferry.destinations.base import pool_name
from leadferry.destinations.email import Email
from leadferry.destinations.faults import SENTENCES
from leadferry.destinations.faults.aws import _S3_CODES, aws_faults, of_aws
from leadferry.destinations.faults.ftp import ftp_faults, of_ftp
from leadferry.destinations.faults.smtp import of_reply, of_smtp, smtp_faults
from leadferry.destinations.faults.ssh import of_ssh, ssh_faults
from leadferry.destinations.faults.system import file_faults, of_files
from leadferry.destinations.folder import Folder
from leadferry.destinations.s3 import S3
from leadferry.destinations.sftp import Sftp
from servers import ports
from servers import sftp as sftp_servers
from servers import smtp as smtp_servers


def descendants(kind):
    return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))


def blank(kind):
    """Make an exception without its constructor: only its class is asked for."""
    return type(kind.__name__, (kind,), {"__init__": lambda _: None, "__str__": lambda _: ""})()


def every_class():
    return descendants(errors.TransientDeliveryError) | descendants(errors.PermanentDeliveryError)


@pytest.mark.req("R200")
@pytest.mark.parametrize("kind", sorted(descendants(paramiko.SSHException), key=lambda kind: kind.__name__))
def test_every_exception_of_paramiko_has_a_meaning(kind):
    error = blank(kind)
    error.code = 1
    assert of_ssh(error).kind in every_class()


@pytest.mark.req("R200")
@pytest.mark.parametrize("kind", sorted(descendants(smtplib.SMTPException), key=lambda kind: kind.__name__))
@pytest.mark.parametrize("code", [421, 450, 550])
def test_every_exception_of_smtplib_has_a_meaning(kind, code):
    error = blank(kind)
    error.smtp_code = code
    error.recipients = {"leads@acme.example": (code, b"")}
    assert of_smtp(error).kind in every_class()


@pytest.mark.req("R200")
@pytest.mark.parametrize(
    "kind",
    sorted(
        (
            one
            for one in vars(botocore.exceptions).values()
            if isinstance(one, type) and issubclass(one, botocore.exceptions.BotoCoreError)
        ),
        key=lambda kind: kind.__name__,
    ),
)
def test_every_exception_of_botocore_has_a_meaning(kind):
    error = blank(kind)
    error.kwargs = {}
    assert of_aws(error).kind in every_class()


@pytest.mark.req("R200")
@pytest.mark.parametrize("classify", [of_files, of_ssh, of_smtp, of_ftp, of_aws])
@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_number_of_the_system_has_a_meaning(classify, number):
    assert classify(OSError(number, "somebody's data")).kind in every_class()


@pytest.mark.parametrize("code", sorted({*_S3_CODES, "SomethingNew"}))
@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 429, 500, 503, 507])
def test_every_code_of_s3_has_a_meaning(code, status):
    answer = {
        "Error": {"Code": code, "Message": "somebody's data"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    found = of_aws(ClientError(answer, "PutObject"))
    assert found.kind in every_class()
    assert "SomethingNew" not in found.detail


@pytest.mark.parametrize("code", range(400, 600))
def test_a_mail_servers_4xx_is_tried_again_and_its_5xx_is_not(code):
    kind = of_reply(code).kind
    assert kind.retry == (code < 500) or kind is errors.AuthenticationError


def test_every_class_has_a_sentence_and_a_decision():
    # These two are raised by us before anything is asked of a destination, with sentences of their own.
    for kind in every_class() - {errors.MissingExtraError, errors.DestinationSuspendedError}:
        assert SENTENCES[kind]
        assert kind.retry == issubclass(kind, errors.TransientDeliveryError)


@pytest.mark.parametrize("wrap", [file_faults, ssh_faults, smtp_faults, ftp_faults, aws_faults])
def test_a_foreign_text_is_never_quoted(wrap):
    with pytest.raises(errors.DeliveryError) as caught, wrap("here"):
        raise OSError(errno.EIO, "Ada Lovelace, 555-0100")
    assert "Ada" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("wrap", [file_faults, ssh_faults, smtp_faults, ftp_faults, aws_faults])
def test_our_own_errors_and_mistakes_in_the_program_pass(wrap):
    with pytest.raises(errors.QuotaError), wrap("here"):
        raise errors.QuotaError("already known")
    with pytest.raises(KeyError), wrap("here"):
        raise KeyError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ssl.SSLCertVerificationError(), errors.HostKeyError),
        (ssl.SSLEOFError(), errors.TransferInterruptedError),
        (ssl.SSLError(), errors.PermanentDeliveryError),
        (socket.gaierror(), errors.DnsError),
        (EOFError(), errors.TransferInterruptedError),
    ],
)
def test_what_a_socket_says(error, kind):
    assert kind is of_files(error).kind


@pytest.fixture
def silent():
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed():
    """A port on which nothing listens."""
    with ports.kept_free() as port:
        yield port


def to(kind):
    """Return a destination of each kind that connects by `buyer`."""
    return {
        "sftp": Sftp(id="out", connection="buyer", timeout=1),
        "smtp": Email(
            id="out", connection="buyer", to=["leads@acme.example"], subject="s", body="b", timeout=1
        ),
        "aws": S3(id="out", connection="buyer", bucket="leads", timeout=1),
    }[kind]


def announced(kind, *, host="127.0.0.1", port):
    extra = {
        "sftp": {"look_for_keys": False},
        "smtp": {"disable_ssl": True, "from_email": "ferry@leadferry.example"},
        "aws": {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"},
    }[kind]
    address = {} if kind == "aws" else {"host": host, "port": port}
    return {
        "connection": {"conn_type": kind, "login": "ferry", "password": "secret", "extra": extra, **address}
    }


def deliver(destination, parcel):
    with destination.open() as session:
        session.send(parcel)


@pytest.fixture
def addressed(make_parcel):
    return make_parcel(b"id\r\n1\r\n", addressee="leads@acme.example")


@pytest.mark.req("R141", "R200")
@pytest.mark.parametrize("kind", ["sftp", "smtp", "aws"])
def test_a_host_that_does_not_exist_is_dns(kind, connect, addressed):
    connect("buyer", announced(kind, host="no-such-host.invalid", port=22))
    with pytest.raises(errors.DnsError) as caught:
        deliver(to(kind), addressed)
    assert caught.value.retry


@pytest.mark.req("R141", "R200")
@pytest.mark.parametrize("kind", ["sftp", "smtp", "aws"])
def test_a_closed_port_is_refused(kind, connect, addressed, closed):
    connect("buyer", announced(kind, port=closed))
    with pytest.raises(errors.ConnectionRefusedByHostError) as caught:
        deliver(to(kind), addressed)
    assert caught.value.retry


@pytest.mark.req("R141", "R200")
@pytest.mark.parametrize("kind", ["sftp", "smtp", "aws"])
def test_a_host_that_never_answers_is_timeout(kind, connect, addressed, silent):
    connect("buyer", announced(kind, port=silent))
    with pytest.raises(errors.ConnectTimeoutError) as caught:
        deliver(to(kind), addressed)
    assert caught.value.retry


@pytest.mark.req("R200")
@pytest.mark.parametrize("kind", ["sftp", "smtp", "aws"])
def test_a_connection_that_airflow_does_not_know_is_said(kind, addressed):
    with pytest.raises(errors.PermanentDeliveryError, match="does not know this connection"):
        deliver(to(kind), addressed)


@pytest.mark.req("R200")
def test_a_server_that_hangs_up_before_its_greeting_is_busy(connect, addressed):
    """OpenSSH does this when too many knock at once (MaxStartups)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        connect("buyer", announced("sftp", port=listener.getsockname()[1]))
        with pytest.raises(errors.DestinationBusyError) as caught:
            deliver(to("sftp"), addressed)
        thread.join()
    assert caught.value.retry


@pytest.mark.req("R200")
def test_a_host_key_that_cannot_be_read_is_said(connect, addressed, closed):
    connect("buyer", announced("sftp", port=closed), extra={"host_key": "ssh-unheard AAAA"})
    with pytest.raises(errors.PermanentDeliveryError, match="fields cannot be used"):
        deliver(to("sftp"), addressed)


@pytest.mark.req("R142", "R200")
def test_a_server_says_where_and_what_and_what_to_do(tmp_path, connect, addressed):
    with sftp_servers.receiver(tmp_path) as server:
        connect("buyer", server.announcement())
        with pytest.raises(errors.NoSuchPathError) as caught:
            deliver(to("sftp").model_copy(update={"directory": "/nowhere"}), addressed)
    said = str(caught.value)
    assert all(
        part in said for part in ("'buyer'", f"127.0.0.1:{server.port}", "/nowhere", "ask the recipient")
    )


@pytest.mark.req("R200")
def test_mail_to_a_server_of_the_web_is_no_mail(connect, addressed, tmp_path):
    """TLS wanted at once from a server that begins in plain text."""
    with smtp_servers.receiver(tmp_path) as server:
        connect("buyer", server.announcement(), extra={"disable_ssl": False})
        with pytest.raises(errors.PermanentDeliveryError, match="WRONG_VERSION_NUMBER"):
            deliver(to("smtp"), addressed)


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path, addressed):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises((errors.NoSuchPathError, errors.NameConflictError)):
        deliver(Folder(id="out", path=str(tmp_path / "out")), addressed)


@pytest.mark.parametrize(
    ("connection", "pool"),
    [("acme_sftp", "leadferry_sftp_acme_sftp"), ("Acme-SFTP.1", "leadferry_sftp_acme_sftp_1")],
)
def test_the_name_of_a_pool_has_only_letters_digits_and_underscores(connection, pool):
    assert pool == pool_name("sftp", connection)


FTP_REPLIES = [
    ("421 There are too many connections from your internet address.", errors.DestinationBusyError),
    ("421 Service not available, closing control connection.", errors.DestinationBusyError),
    ("425 Can't open data connection.", errors.TransferInterruptedError),
    ("426 Connection closed; transfer aborted.", errors.TransferInterruptedError),
    ("430 Invalid username or password.", errors.AuthenticationError),
    ("434 Requested host unavailable.", errors.DestinationBusyError),
    ("450 File busy.", errors.DestinationBusyError),
    ("450 Disk full, try later.", errors.QuotaError),
    ("451 Failure writing to local file.", errors.TransientDeliveryError),
    ("452 Insufficient storage space.", errors.QuotaError),
    ("500 Unknown command.", errors.PermanentDeliveryError),
    ("502 Command not implemented.", errors.PermanentDeliveryError),
    (
        "522 SSL connection failed; session reuse required: see require_ssl_reuse",
        errors.PermanentDeliveryError,
    ),
    ("530 Login incorrect.", errors.AuthenticationError),
    (
        "530 Sorry, the maximum number of clients (5) for this user are already connected.",
        errors.DestinationBusyError,
    ),
    ("530 Non-anonymous sessions must use encryption.", errors.PermanentDeliveryError),
    ("532 Need account for storing files.", errors.AccessDeniedError),
    ("534 Policy requires SSL.", errors.PermanentDeliveryError),
    ("536 PROT level not supported.", errors.PermanentDeliveryError),
    ("550 Permission denied.", errors.AccessDeniedError),
    ("550 Access is denied.", errors.AccessDeniedError),
    ("550 /inbound/leads.csv: No such file or directory", errors.NoSuchPathError),
    ("550 The system cannot find the path specified.", errors.NoSuchPathError),
    ("550 Cannot create a file when that file already exists.", errors.NameConflictError),
    ("550 SSL/TLS required on the control channel.", errors.PermanentDeliveryError),
    ("550 No space left on device.", errors.QuotaError),
    ("550 Failed to open file.", errors.AccessDeniedError),
    ("552 Disk full: please upload later", errors.QuotaError),
    ("553 Could not create file.", errors.AccessDeniedError),
    ("553 File name not allowed.", errors.AccessDeniedError),
    ("HTTP/1.1 400 Bad Request", errors.PermanentDeliveryError),
]


@pytest.mark.req("R200")
@pytest.mark.parametrize(("reply", "kind"), FTP_REPLIES, ids=[reply for reply, _ in FTP_REPLIES])
def test_what_ftp_servers_answer_has_its_class_and_a_next_step(reply, kind):
    error = ftplib.error_temp if reply[0] == "4" else ftplib.error_perm
    with pytest.raises(errors.DeliveryError) as caught, ftp_faults("ftp connection 'buyer'"):
        raise error(reply)
    assert type(caught.value) is kind
    assert reply[4:] not in str(caught.value)
    if kind is not errors.TransientDeliveryError and not reply.startswith(("50", "HTTP")):
        assert caught.value.next_step


@pytest.mark.parametrize("kind", sorted(descendants(ftplib.Error), key=lambda kind: kind.__name__))
def test_every_reply_of_ftp_has_a_meaning_and_4xx_mostly_pass(kind):
    for code in range(300, 600):
        found = of_ftp(kind(f"{code} somebody's data"))
        assert found.kind in every_class()
        assert "data" not in found.detail
        if code >= 500:
            assert not found.kind.retry
        elif code >= 400:
            assert found.kind.retry or found.kind in {errors.AuthenticationError, errors.QuotaError}


@pytest.mark.req("R200")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EOFError(), errors.TransferInterruptedError),
        (TimeoutError("timed out"), errors.ConnectTimeoutError),
        (socket.gaierror(-2, "Name or service not known"), errors.DnsError),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), errors.ConnectionRefusedByHostError),
        (ConnectionResetError(errno.ECONNRESET, "reset"), errors.TransferInterruptedError),
        (BrokenPipeError(errno.EPIPE, "pipe"), errors.TransferInterruptedError),
        (OSError(errno.EHOSTUNREACH, "no route"), errors.ConnectTimeoutError),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), errors.HostKeyError),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), errors.TransferInterruptedError),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), errors.PermanentDeliveryError),
        (UnicodeEncodeError("latin-1", "secret", 0, 1, "x"), errors.PermanentDeliveryError),
        (ValueError("an illegal newline character should not be contained"), errors.PermanentDeliveryError),
    ],
    ids=lambda one: getattr(one, "__name__", type(one).__name__),
)
def test_what_happens_on_the_way_to_an_ftp_server_has_its_class(error, kind):
    found = of_ftp(error)
    assert found.kind is kind


def test_a_refusal_without_a_reason_means_what_was_asked_for():
    with pytest.raises(errors.NoSuchPathError), ftp_faults("here", unexplained=errors.NoSuchPathError):
        raise ftplib.error_perm("550 Failed to change directory.")
