"""Every stage at which a delivery can fail is named, on real servers."""

import dataclasses
import json
import sys
from datetime import UTC, datetime

import pytest
from google.oauth2.service_account import Credentials

from batches import make_batch
from doctor.conftest import failed, verdicts
from leadferry.doctor.examine import Orders, examine_batch
from leadferry.doctor.finding import Stage, Verdict
from leadferry.local.http import as_json
from servers import ftp as ftp_servers
from servers import gcs as gcs_servers
from servers import s3 as s3_servers
from servers import sftp as sftp_servers
from servers import smtp as smtp_servers

SFTP = {"type": "sftp", "connection": "buyer", "directory": "/inbound"}
FTP = {"type": "ftp", "connection": "buyer", "directory": "/inbound"}
MAIL = {"type": "email", "connection": "mail", "to": ["leads@acme.example"], "subject": "Leads"}
HTTP = {
    "type": "http",
    "connection": "buyer_api",
    "path": "/leads",
    "answers": [{"when": {"status": ["2xx"]}, "then": "accepted"}],
}

ALL_WELL = dict.fromkeys(
    ["connection", "dns", "tcp", "tls", "login", "path", "write", "rename", "delete"], Verdict.OK
)


@pytest.fixture
def sftp(tmp_path, connect):
    with sftp_servers.receiver(tmp_path) as server:
        server.inbound = tmp_path / "root" / "inbound"
        server.inbound.mkdir(parents=True)
        connect("buyer", server.announcement())
        yield server


@pytest.mark.usefixtures("sftp")
class TestSftp:
    @pytest.mark.req("F43", "R144")
    def test_a_server_that_is_well_is_well_at_every_stage_and_nothing_stays(self, sftp, doctor):
        found = doctor(SFTP)

        assert verdicts(found) == ALL_WELL
        assert found.ok
        assert list(sftp.inbound.iterdir()) == []

    @pytest.mark.req("F43", "R144", "R131")
    def test_a_wrong_host_name_fails_at_dns(self, sftp, doctor, connect):
        connect("buyer", sftp.announcement(), host="sftp.acme.invalid")

        found = doctor(SFTP)

        assert failed(found).stage is Stage.DNS
        assert "spelling" in failed(found).remedy
        assert found.told(Stage.CONNECTION).verdict is Verdict.OK
        assert found.told(Stage.TCP).verdict is Verdict.NOT_REACHED

    @pytest.mark.req("F43", "R144", "R131")
    def test_a_closed_port_fails_at_tcp(self, sftp, doctor, connect, closed_port):
        connect("buyer", sftp.announcement(), port=closed_port)

        told = failed(doctor(SFTP))

        assert (told.stage, "Check the port" in told.remedy) == (Stage.TCP, True)

    @pytest.mark.req("F43", "R144")
    def test_a_port_that_says_nothing_fails_after_tcp(self, sftp, doctor, connect, silent_port):
        connect("buyer", sftp.announcement(), port=silent_port)

        found = doctor(SFTP, timeout=0.5)

        assert failed(found).stage is Stage.TLS
        assert found.told(Stage.TCP).verdict is Verdict.OK
        assert "firewall" in failed(found).remedy

    @pytest.mark.req("F43", "R144", "R135")
    def test_a_wrong_host_key_fails_at_tls(self, sftp, doctor, connect):
        other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
        connect("buyer", sftp.announcement(), extra={"host_key": other})

        told = failed(doctor(SFTP))

        assert (told.stage, "never skip the check" in told.remedy) == (Stage.TLS, True)

    @pytest.mark.req("F43", "R144", "R132")
    def test_a_wrong_password_fails_at_login_and_is_not_told(self, sftp, doctor, connect):
        connect("buyer", sftp.announcement(), password="wrong horse")

        found = doctor(SFTP)

        assert failed(found).stage is Stage.LOGIN
        assert found.told(Stage.TLS).verdict is Verdict.OK
        assert "horse" not in json.dumps(dataclasses.asdict(found))

    @pytest.mark.req("F43", "R144", "R134")
    def test_a_missing_directory_fails_at_path(self, doctor):
        found = doctor({**SFTP, "directory": "/outbound"})

        assert failed(found).stage is Stage.PATH
        assert found.told(Stage.LOGIN).verdict is Verdict.OK
        assert found.told(Stage.WRITE).verdict is Verdict.NOT_REACHED

    @pytest.mark.req("F43", "R144", "C10")
    def test_a_directory_that_may_not_be_made_fails_at_path(self, sftp, doctor):
        sftp.faults.makes_no_directories = True

        found = doctor({**SFTP, "directory": "/inbound/2026", "create_directory": True})

        assert failed(found).stage is Stage.PATH

    @pytest.mark.req("F43", "R144")
    @pytest.mark.parametrize(
        ("fault", "stage", "hint"),
        [
            ({"denies": True}, Stage.WRITE, "write permission"),
            ({"room": 3}, Stage.WRITE, "make room"),
            ({"rename": "forbidden", "posix_rename": "forbidden"}, Stage.RENAME, "direct_with_marker"),
            ({"rename": "unsupported", "posix_rename": "unsupported"}, Stage.RENAME, "direct_with_marker"),
            ({"removes_nothing": True}, Stage.DELETE, "permission"),
        ],
        ids=["no write", "full", "no rename", "unknown rename", "no delete"],
    )
    def test_what_the_login_may_not_do_is_named(self, sftp, doctor, fault, stage, hint):
        for name, value in fault.items():
            setattr(sftp.faults, name, value)

        found = doctor(SFTP)

        assert failed(found).stage is stage
        assert hint in failed(found).remedy
        passed = {name: verdict for name, verdict in verdicts(found).items() if verdict is Verdict.OK}
        assert list(passed) == list(ALL_WELL)[: list(ALL_WELL).index(stage)]

    @pytest.mark.req("F43")
    def test_without_probe_nothing_is_written(self, sftp, doctor):
        sftp.faults.denies = True

        found = doctor(SFTP, write=False)

        assert found.ok
        assert found.told(Stage.LOGIN).verdict is Verdict.OK
        assert found.told(Stage.WRITE).verdict is Verdict.NOT_APPLICABLE

    def test_where_files_are_published_without_a_rename_there_is_no_such_stage(self, doctor):
        found = doctor({**SFTP, "publish": "direct"})

        assert verdicts(found) == {**ALL_WELL, "rename": Verdict.NOT_APPLICABLE}

    def test_a_test_that_is_sent_stays_and_says_what_it_is(self, sftp, doctor):
        found = doctor(SFTP, send_test=True)

        (sent,) = sftp.inbound.iterdir()
        assert sent.name.startswith("TEST_")
        assert "holds no lead" in sent.read_text()
        assert sent.name in found.told(Stage.SENT).what

    @pytest.mark.req("F43", "R144")
    @pytest.mark.parametrize(
        "kind", [SFTP, FTP, {**MAIL, "connection": "buyer"}], ids=lambda one: one["type"]
    )
    def test_a_connection_that_does_not_exist_fails_first_and_says_how_to_add_it(
        self, doctor, kind, monkeypatch
    ):
        monkeypatch.delenv("AIRFLOW_CONN_BUYER")
        found = doctor(kind)

        assert failed(found).stage is Stage.CONNECTION
        assert "airflow connections add buyer --conn-type" in failed(found).remedy
        assert {
            one.verdict for one in found.findings if one.stage in {"dns", "tcp", "tls", "login", "write"}
        } == {Verdict.NOT_REACHED}


class TestFolder:
    @pytest.mark.req("F43")
    def test_a_folder_has_no_stages_before_the_path(self, doctor, tmp_path):
        found = doctor({"type": "folder", "path": str(tmp_path / "out")})

        network = dict.fromkeys(["connection", "dns", "tcp", "tls", "login"], Verdict.NOT_APPLICABLE)
        assert verdicts(found) == {**ALL_WELL, **network}
        assert not (tmp_path / "out").exists()

    @pytest.mark.req("F43")
    def test_a_missing_folder_fails_at_path(self, doctor, tmp_path):
        found = doctor({"type": "folder", "path": str(tmp_path / "out"), "create": False})

        assert failed(found).stage is Stage.PATH


@pytest.fixture
def ftp(tmp_path, connect):
    with ftp_servers.receiver(tmp_path) as server:
        (tmp_path / "root" / "inbound").mkdir(parents=True, exist_ok=True)
        connect("buyer", server.announcement())
        yield server


def _without_auth():
    """The commands of a server that has never heard of TLS."""
    from pyftpdlib.handlers import FTPHandler

    return FTPHandler.proto_cmds.copy()


@pytest.mark.usefixtures("ftp")
class TestFtp:
    @pytest.mark.req("F43")
    def test_a_server_that_is_well_is_well_at_every_stage(self, doctor):
        found = doctor(FTP)

        assert {**ALL_WELL, "tls": found.told(Stage.TLS).verdict} == verdicts(found)
        assert "certificate" in found.told(Stage.TLS).what

    @pytest.mark.req("F43", "R132")
    def test_a_wrong_password_fails_at_login(self, ftp, doctor, connect):
        connect("buyer", ftp.announcement(), password="wrong horse")

        assert failed(doctor(FTP)).stage is Stage.LOGIN

    @pytest.mark.req("F43", "R134")
    def test_a_missing_directory_fails_at_path(self, doctor):
        assert failed(doctor({**FTP, "directory": "/outbound"})).stage is Stage.PATH

    @pytest.mark.req("F43", "R144")
    def test_a_certificate_of_nobody_we_know_fails_at_tls(self, ftp, doctor, connect):
        connect("buyer", ftp.announcement(), extra={"ca_file": ""})

        assert failed(doctor(FTP)).stage is Stage.TLS

    @pytest.mark.req("F43", "R144")
    def test_a_port_that_says_nothing_fails_at_tls(self, ftp, doctor, connect, silent_port):
        connect("buyer", ftp.announcement(), port=silent_port)

        assert failed(doctor(FTP, timeout=0.5)).stage is Stage.TLS

    @pytest.mark.req("F43", "R144")
    def test_a_server_without_tls_fails_at_tls(self, tmp_path, doctor, connect):
        with ftp_servers.receiver(tmp_path, proto_cmds=_without_auth()) as server:
            connect("buyer", server.announcement())
            assert failed(doctor(FTP)).stage is Stage.TLS

    @pytest.mark.req("F43")
    def test_an_unencrypted_transfer_is_a_warning_with_its_reason(self, tmp_path, doctor, connect):
        with ftp_servers.receiver(tmp_path) as server:
            connect("buyer", server.announcement())
            plain = {"security": "none", "allow_plaintext": True, "plaintext_reason": "inside their VPN"}
            found = doctor({**FTP, "directory": ".", **plain})

        assert found.ok
        assert found.told(Stage.TLS).verdict is Verdict.WARNING
        assert "inside their VPN" in found.told(Stage.TLS).what


@pytest.fixture
def mail(tmp_path, connect):
    with smtp_servers.receiver(tmp_path) as server:
        connect("mail", server.announcement())
        yield server


class TestEmail:
    @pytest.mark.req("F43", "R125")
    def test_the_server_is_asked_for_sender_and_recipients_and_no_mail_goes_out(self, mail, doctor):
        found = doctor({**MAIL, "sender": "leads@ferry.example", "sender_name": "Ferry"})

        assert found.ok
        assert "From: Ferry <leads@ferry.example>" in found.told(Stage.SENDER).what
        assert (
            found.told(Stage.WRITE).what == "mail from leads@ferry.example to 1 recipient would be accepted"
        )
        assert mail.inbox.messages() == []
        assert {found.told(one).verdict for one in (Stage.PATH, Stage.RENAME, Stage.DELETE)} == {
            Verdict.NOT_APPLICABLE
        }

    @pytest.mark.req("F43", "R144", "R126")
    @pytest.mark.parametrize(
        ("answer", "hint"),
        [
            ("550 5.1.1 no such user", "Check the address"),
            ("550 5.7.1 not on our list", "SPF, DKIM and DMARC"),
        ],
    )
    def test_a_recipient_that_is_refused_fails_at_write(self, mail, doctor, answer, hint):
        mail.faults.rcpt["leads@acme.example"] = answer

        told = failed(doctor({**MAIL, "sender": "leads@ferry.example"}))

        assert told.stage is Stage.WRITE
        assert hint in told.remedy

    @pytest.mark.req("F43", "R132")
    def test_a_wrong_password_fails_at_login(self, mail, doctor, connect):
        connect("mail", mail.announcement(), password="wrong horse")

        found = doctor(MAIL)

        assert failed(found).stage is Stage.LOGIN
        assert found.told(Stage.TLS).verdict is not Verdict.FAILED

    @pytest.mark.req("F43")
    def test_a_certificate_of_nobody_we_know_fails_at_tls(self, mail, doctor, connect):
        connect("mail", mail.announcement(), extra={"ca_file": None})

        assert failed(doctor(MAIL)).stage is Stage.TLS

    @pytest.mark.req("F43")
    def test_a_test_mail_goes_to_every_recipient(self, mail, doctor):
        found = doctor(
            {**MAIL, "to": ["a@acme.example", "b@acme.example"], "subject": "{{ batch.name }}"},
            send_test=True,
        )

        assert len(mail.inbox.messages()) == 2
        assert all(b"Subject: TEST_" in path.read_bytes() for path in mail.inbox.messages())
        assert found.ok


class TestHttp:
    @pytest.fixture
    def buyer(self, tmp_path, connect):
        from servers.http_buyer import Buyer

        with Buyer(root=tmp_path / "in", state=tmp_path / "state", token="open sesame") as server:
            connect("buyer_api", server.announcement())
            server.usual = as_json({"allow": "POST"})
            yield server

    @pytest.mark.req("F43")
    def test_a_buyer_is_reached_and_gets_no_lead(self, buyer, doctor):
        found = doctor(HTTP)

        assert found.ok
        assert [request.method for request in buyer.requests] == ["OPTIONS"]
        assert found.told(Stage.TLS).verdict is not Verdict.NOT_REACHED
        assert found.told(Stage.LOGIN).verdict is Verdict.OK
        assert found.told(Stage.WRITE).verdict is Verdict.NOT_APPLICABLE

    @pytest.mark.req("F43", "R132")
    def test_a_token_that_is_refused_fails_at_login(self, buyer, doctor):
        buyer.usual = as_json({"error": "who are you?"}, status=401)

        assert failed(doctor(HTTP)).stage is Stage.LOGIN

    @pytest.mark.req("F43", "R144")
    def test_a_closed_port_fails_at_tcp(self, buyer, doctor, connect, closed_port):
        connect("buyer_api", buyer.announcement(), host=f"https://127.0.0.1:{closed_port}", port=closed_port)

        assert failed(doctor(HTTP)).stage is Stage.TCP

    @pytest.mark.req("F43", "R144")
    def test_a_certificate_of_nobody_we_know_fails_at_tls(self, buyer, doctor, monkeypatch):
        announced = buyer.announcement()["connection"]
        monkeypatch.setenv("AIRFLOW_CONN_BUYER_API", json.dumps({**announced, "extra": {}}))

        assert failed(doctor(HTTP)).stage is Stage.TLS


class TestTable:
    @pytest.fixture
    def table(self, postgres, monkeypatch):
        where = {"host": postgres.socket_folder, "login": "postgres", "schema": "postgres"}
        monkeypatch.setenv("AIRFLOW_CONN_BUYER_DB", json.dumps({"conn_type": "postgres", **where}))
        return {"type": "table", "connection": "buyer_db", "table": "doctor_leads"}

    @pytest.mark.req("F43", "R104")
    def test_a_missing_table_fails_at_path(self, table, doctor):
        found = doctor(table)

        assert failed(found).stage is Stage.PATH
        assert "create: true" in failed(found).remedy
        assert found.told(Stage.LOGIN).verdict is Verdict.OK

    @pytest.mark.req("F43", "R104")
    def test_a_table_that_will_be_made_is_well_and_is_not_made(self, table, doctor):
        assert doctor({**table, "create": True}).ok
        assert failed(doctor(table)).stage is Stage.PATH


OBJECTS = {
    "s3": {"type": "s3", "connection": "store", "prefix": "in"},
    "gcs": {"type": "gcs", "connection": "store", "prefix": "in"},
}


def _announced(kind, server):
    if kind == "s3":
        return server.announcement()
    return gcs_servers.announcement(server.server_address[1], key=gcs_servers.private_key("ferry"))


@pytest.mark.req("F43", "R144")
@pytest.mark.parametrize("kind", OBJECTS)
class TestObjectStores:
    @pytest.fixture
    def store(self, kind, connect, monkeypatch):
        """A store, and the batch's destination in it."""
        monkeypatch.setattr(Credentials, "_is_regional_access_boundary_lookup_required", lambda _: False)
        with {"s3": s3_servers, "gcs": gcs_servers}[kind].receiver() as server:
            connect("store", _announced(kind, server))
            server.destination = {**OBJECTS[kind], "bucket": server.bucket}
            yield server

    def test_a_store_that_is_well_is_well_and_nothing_stays(self, store, doctor):
        found = doctor(store.destination)

        expected = {**ALL_WELL, "tls": Verdict.WARNING, "rename": Verdict.NOT_APPLICABLE}
        assert verdicts(found) == expected
        assert store.objects(store.bucket) == {}

    def test_a_missing_bucket_fails_at_path(self, store, doctor):
        found = doctor({**store.destination, "bucket": "another-bucket"})

        assert failed(found).stage is Stage.PATH
        assert found.told(Stage.LOGIN).verdict is Verdict.OK


@pytest.fixture
def s3(connect):
    with s3_servers.receiver() as server:
        connect("store", server.announcement())
        server.destination = {**OBJECTS["s3"], "bucket": server.bucket}
        yield server


@pytest.mark.req("F43", "R132")
def test_keys_that_a_store_does_not_know_fail_at_login(s3, doctor, connect):
    connect("store", s3.announcement(), login="wrong-key", password="wrong horse")

    assert failed(doctor(s3.destination)).stage is Stage.LOGIN


@pytest.mark.req("F43", "R144")
def test_a_store_that_takes_no_object_fails_at_write(s3, doctor):
    s3.faults.answers["PUT"] = ("403 Forbidden", "AccessDenied")

    assert failed(doctor(s3.destination)).stage is Stage.WRITE


@pytest.mark.req("F43")
class TestKeys:
    @pytest.fixture
    def keys(self, tmp_path, resolver):
        """Examine the keys of a batch whose file is encrypted with a password."""

        def examine():
            encrypt = {"type": "zip_aes", "connection": "zip_secret"}
            batch = make_batch(
                files=[{"name": "{{ delivery.number }}.csv", "format": {"type": "csv"}, "encrypt": encrypt}],
                destinations=[{"id": "drop", "type": "folder", "path": str(tmp_path)}],
            )
            now = datetime.now(UTC)
            orders = Orders(now=now, config=tmp_path, database=None, resolver=resolver)
            found, *_ = examine_batch(batch, orders)
            return found.told(Stage.KEYS)

        return examine

    def test_a_password_that_is_there_is_well_and_not_told(self, keys, connection):
        connection("zip_secret", password="correct horse")

        assert keys().verdict is Verdict.OK

    def test_a_connection_that_is_missing_fails_before_anything_could_be_encrypted(self, keys):
        told = keys()

        assert told.verdict is Verdict.FAILED
        assert "zip_secret" in told.what


@pytest.mark.req("F43")
def test_a_library_that_is_not_installed_fails_at_connection_with_the_install_line(
    doctor, connection, monkeypatch
):
    connection("store", conn_type="google_cloud_platform")
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)

    told = failed(doctor({**OBJECTS["gcs"], "bucket": "leads"}))

    assert told.stage is Stage.CONNECTION
    assert 'pip install "leadferry[gcs]"' in told.remedy
