"""The table destination on a real PostgreSQL: one lead one row, all of a delivery or nothing, errors without values."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from contracts.destination_contract import find, send
from leadferry.destinations.table import Table
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectionRefusedByHostError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    DnsError,
    HostKeyError,
    NoSuchPathError,
    PermanentDeliveryError,
    TransferInterruptedError,
)
from servers.proxy import Wire

PLAIN = {"allow_plaintext": True, "plaintext_reason": "a test"}


class Buyer:
    """A database of the buyer's."""

    def __init__(self, postgres, name):
        self.socket_folder = postgres.socket_folder
        self.name = name
        self.connection = {
            "conn_type": "postgres",
            "host": postgres.socket_folder,
            "login": "postgres",
            "schema": name,
            "extra": {"cursor": "dictcursor"},
        }

    def open(self):
        return psycopg.connect(host=self.socket_folder, user="postgres", dbname=self.name, autocommit=True)

    def run(self, statement):
        with self.open() as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else None

    def rows(self, columns='lead_id, delivery_id, "Email"'):
        return self.run(f"SELECT {columns} FROM leads ORDER BY lead_id")


@pytest.fixture
def buyer(postgres, monkeypatch, request):
    made = Buyer(postgres, f"buyer_{os.getpid()}_{abs(hash(request.node.nodeid)) % 10**8}")
    postgres.ensure_database(made.name)
    monkeypatch.setenv("AIRFLOW_CONN_BUYER_DB", json.dumps(made.connection))
    made.run(
        'CREATE TABLE leads (lead_id bigint PRIMARY KEY, delivery_id text NOT NULL, "Email" text, "Age" integer)'
    )
    yield made
    postgres.drop_database(made.name)


def make_table(**keys):
    return Table.model_validate(
        {"id": "db", "connection": "buyer_db", "table": "leads", "timeout": 20, **keys}
    )


@pytest.fixture
def table(buyer):
    """The destination, by the connection to the buyer's database; every key may be changed."""
    return make_table


@pytest.fixture
def records(make_parcel):
    """A parcel of leads, `{id: fields}`, of a delivery."""

    def make(leads, *, delivery="7"):
        lines = [
            json.dumps({"lead_id": lead_id, "fields": fields}) + "\n" for lead_id, fields in leads.items()
        ]
        parcel = make_parcel("".join(lines).encode(), name="records.ndjson", key=f"delivery {delivery}")
        file = dataclasses.replace(parcel.file, rows=len(leads))
        variables = {**parcel.variables, "delivery": {**parcel.variables["delivery"], "id": delivery}}
        return dataclasses.replace(parcel, files=(file,), variables=variables)

    return make


TWO = {1: {"Email": "ann@example.com", "Age": 41}, 2: {"Email": "bob@example.com", "Age": None}}


@pytest.mark.req("R104")
class TestRows:
    def test_every_lead_is_a_row_with_the_delivery_that_wrote_it(self, buyer, table, records):
        receipt = send(table(), records(TWO))

        assert buyer.rows('lead_id, delivery_id, "Email", "Age"') == [
            (1, "7", "ann@example.com", 41),
            (2, "7", "bob@example.com", None),
        ]
        assert receipt.details == {"leads": 2, "inserted": 2, "updated": 0, "verified": "committed"}
        assert receipt.location.endswith("#leads")

    def test_the_same_parcel_again_leaves_the_same_rows(self, buyer, table, records, next_try):
        send(table(), records(TWO))
        before = buyer.rows()
        receipt = send(table(), next_try(records(TWO)))

        assert buyer.rows() == before
        assert (receipt.details["inserted"], receipt.details["updated"]) == (0, 2)

    def test_a_lead_that_comes_again_changed_is_replaced(self, buyer, table, records):
        send(table(), records(TWO))
        send(
            table(),
            records(
                {2: {"Email": "rob@example.com", "Age": 7}, 3: {"Email": "c@example.com", "Age": 1}},
                delivery="8",
            ),
        )

        assert buyer.rows() == [
            (1, "7", "ann@example.com"),
            (2, "8", "rob@example.com"),
            (3, "8", "c@example.com"),
        ]

    def test_insert_new_leaves_what_is_there(self, buyer, table, records):
        send(table(), records(TWO))
        parcel = records(
            {2: {"Email": "rob@example.com", "Age": 7}, 3: {"Email": "c@example.com", "Age": 1}}, delivery="8"
        )
        destination = table(mode="insert_new")

        assert find(destination, parcel) is None
        receipt = send(destination, parcel)

        assert buyer.rows() == [
            (1, "7", "ann@example.com"),
            (2, "7", "bob@example.com"),
            (3, "8", "c@example.com"),
        ]
        assert (receipt.details["inserted"], receipt.details["left_alone"]) == (1, 1)
        assert find(destination, parcel) is not None

    def test_columns_that_are_not_ours_stay(self, buyer, table, records):
        send(table(), records(TWO))
        buyer.run("ALTER TABLE leads ADD note text DEFAULT 'called'")
        buyer.run("UPDATE leads SET note = 'sold' WHERE lead_id = 1")
        send(table(), records(TWO, delivery="8"))

        assert buyer.rows("note") == [("sold",), ("called",)]

    def test_other_names_for_the_columns_and_a_schema(self, buyer, table, records):
        buyer.run('CREATE SCHEMA "In Bound"')
        buyer.run(
            'CREATE TABLE "In Bound"."Leads" ("ID" bigint UNIQUE, batch bigint, "Email" text, "Age" text)'
        )
        destination = table(table="In Bound.Leads", key="ID", delivery_column="batch")
        send(destination, records(TWO))

        assert buyer.run('SELECT * FROM "In Bound"."Leads" ORDER BY 1') == [
            (1, 7, "ann@example.com", "41"),
            (2, 7, "bob@example.com", None),
        ]
        assert find(destination, records(TWO)) is not None

    @pytest.mark.parametrize(
        "value",
        [
            "a\tb\nc\\.",
            "\\N",
            "",
            "Zoë 😀",
            '{"a": 1}',
            "'); DROP TABLE leads; --",
            True,
            1.5,
            12345678901234567,
        ],
    )
    def test_values_arrive_as_they_are(self, buyer, table, records, value):
        send(table(), records({1: {"Email": value, "Age": None}}))

        (row,) = buyer.rows('"Email"')
        assert row == (value if isinstance(value, str) else json.dumps(value),)

    def test_many_leads_are_streamed(self, buyer, table, records):
        many = {number: {"Email": f"lead{number}@example.com", "Age": number} for number in range(1, 20_001)}
        send(table(), records(many))

        assert buyer.run('SELECT count(*), sum("Age"), count(DISTINCT "Email") FROM leads') == [
            (20_000, 200_010_000, 20_000)
        ]
        assert find(table(), records(many)).details["leads"] == 20_000

    def test_a_parcel_without_leads_writes_nothing(self, buyer, table, records):
        assert send(table(), records({})).details["inserted"] == 0
        assert buyer.rows() == []


@pytest.mark.req("R104")
class TestCreate:
    def test_a_missing_table_is_made_with_the_types_that_are_asked_for(self, buyer, table, records):
        buyer.run("DROP TABLE leads")
        destination = table(create=True, types={"Age": "integer"})
        assert find(destination, records(TWO)) is None
        send(destination, records(TWO))
        send(destination, records(TWO, delivery="8"))

        assert buyer.rows('lead_id, delivery_id, "Email", "Age"') == [
            (1, "8", "ann@example.com", 41),
            (2, "8", "bob@example.com", None),
        ]

    def test_two_that_make_it_at_the_same_time_both_arrive(self, buyer, table, records):
        buyer.run("DROP TABLE leads")
        parcels = [records({n: {"Email": "a@example.com", "Age": 1}}, delivery=str(n)) for n in range(1, 5)]
        errors = []

        def run(parcel):
            try:
                send(table(create=True), parcel)
            except DeliveryError as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(one,)) for one in parcels]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

        assert errors == []
        assert [lead_id for (lead_id,) in buyer.rows("lead_id")] == [1, 2, 3, 4]

    def test_without_create_a_missing_table_is_told(self, buyer, table, records):
        buyer.run("DROP TABLE leads")

        with pytest.raises(NoSuchPathError, match="create: true"):
            send(table(), records(TWO))
        assert find(table(), records(TWO)) is None


@pytest.mark.req("R104")
class TestLookingAfterACrash:
    def test_nothing_is_found_before_it_was_sent(self, table, records):
        assert find(table(), records(TWO)) is None

    def test_what_was_sent_is_found_with_its_count(self, table, records):
        send(table(), records(TWO))

        assert find(table(), records(TWO)).details["leads"] == 2

    def test_one_missing_lead_is_not_found(self, buyer, table, records):
        send(table(), records(TWO))
        buyer.run("DELETE FROM leads WHERE lead_id = 2")

        assert find(table(), records(TWO)) is None

    def test_leads_that_another_delivery_wrote_are_not_this_one(self, table, records):
        send(table(), records(TWO))

        assert find(table(), records(TWO, delivery="8")) is None

    @pytest.mark.req("F03", "C01")
    def test_a_sender_that_is_killed_leaves_nothing_and_the_next_try_leaves_every_lead_once(
        self, buyer, table, records, next_try
    ):
        parcel = records(TWO)
        with buyer.open() as holder:
            holder.autocommit = False
            holder.execute("LOCK TABLE leads IN SHARE MODE")
            process = _sender(parcel)
            _until_somebody_waits(buyer)
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
            holder.rollback()
        assert find(table(), parcel) is None
        assert buyer.rows() == []

        send(table(), next_try(parcel))
        assert [lead_id for lead_id, *_ in buyer.rows()] == [1, 2]

    def test_a_wire_that_is_cut_while_rows_travel_leaves_nothing(self, buyer, table, records, wire, next_try):
        many = {n: {"Email": "x" * 200 + f"{n}@example.com", "Age": n} for n in range(1, 5001)}
        with wire.cutting(200_000), pytest.raises(TransferInterruptedError):
            send(table(**PLAIN), records(many))
        assert buyer.rows() == []

        send(table(**PLAIN), next_try(records(many)))
        assert buyer.run("SELECT count(*) FROM leads") == [(5000,)]


def _sender(parcel):
    """Another process that sends the parcel."""
    told = dataclasses.asdict(parcel)
    told["files"][0]["path"] = str(parcel.file.path)
    told.pop("answers")
    program = (
        "import json, sys; from pathlib import Path\n"
        "from leadferry.destinations.parcel import OutgoingFile, Parcel\n"
        "from leadferry.destinations.table import Table\n"
        "told = json.loads(sys.argv[1]); file = told.pop('files')[0]; file['path'] = Path(file['path'])\n"
        "with Table(id='db', connection='buyer_db', table='leads').open() as session:\n"
        "    session.send(Parcel(**{**told, 'files': (OutgoingFile(**file),), 'links': ()}))\n"
    )
    return subprocess.Popen([sys.executable, "-c", program, json.dumps(told)], cwd=Path(__file__).parent)


def _until_somebody_waits(buyer):
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'leads'::regclass"
    with buyer.open() as connection:
        while connection.execute(waiting).fetchone() == (0,):
            connection.execute("SELECT pg_sleep(0.02)")


@pytest.fixture
def wire(buyer, monkeypatch):
    """The way to the database over TCP, which can be cut."""
    with Wire(f"{buyer.socket_folder}/.s.PGSQL.5432") as running:
        connection = {**buyer.connection, "host": "127.0.0.1", "port": running.port}
        monkeypatch.setenv("AIRFLOW_CONN_BUYER_DB", json.dumps(connection))
        running.connection = connection
        yield running


@pytest.mark.req("R104")
class TestRefusals:
    @pytest.mark.parametrize(
        ("column", "value", "told"),
        [
            ("Age", "fortytwo", "lead 2 has a value in 'Age'"),
            ("Age", 99999999999, "lead 2 has a value in 'Age'"),
        ],
    )
    def test_a_value_that_does_not_fit_is_told_by_lead_and_column_and_nothing_is_written(  # noqa: PLR0913, PLR0917  (fixtures)
        self, buyer, table, records, column, value, told
    ):
        leads = {**TWO, 2: {**TWO[2], column: value}}

        with pytest.raises(PermanentDeliveryError, match=told) as caught:
            send(table(), records(leads))

        assert str(value) not in str(caught.value)
        assert caught.value.__cause__ is None
        assert buyer.rows() == []

    def test_a_rule_of_the_table_is_told_by_its_name(self, buyer, table, records):
        buyer.run('ALTER TABLE leads ADD CONSTRAINT adults CHECK ("Age" >= 42)')

        with pytest.raises(PermanentDeliveryError, match="constraint adults") as caught:
            send(table(), records(TWO))

        assert "ann@" not in str(caught.value)
        assert buyer.rows() == []

    def test_a_column_that_must_have_a_value_is_told(self, buyer, table, records):
        buyer.run('ALTER TABLE leads ALTER "Age" SET NOT NULL')

        with pytest.raises(PermanentDeliveryError, match="column Age"):
            send(table(), records(TWO))

    def test_missing_columns_are_told(self, table, records):
        with pytest.raises(PermanentDeliveryError, match="no column 'Phone', 'email'"):
            send(table(), records({1: {"Email": "a", "Phone": "b", "email": "c"}}))

    def test_a_table_without_a_unique_key_is_told(self, buyer, table, records):
        buyer.run("ALTER TABLE leads DROP CONSTRAINT leads_pkey")

        with pytest.raises(PermanentDeliveryError, match="unique index"):
            send(table(), records(TWO))

    def test_a_locked_table_is_tried_again(self, buyer, table, records):
        with buyer.open() as holder:
            holder.autocommit = False
            holder.execute("LOCK TABLE leads")
            with pytest.raises(DestinationBusyError):
                send(table(timeout=0.2), records(TWO))
            holder.rollback()

    @pytest.mark.req("R200")
    def test_no_permission_is_told_and_not_tried_again(self, table, records, stranger):
        stranger(password="right horse")

        with pytest.raises(AccessDeniedError) as caught:
            send(table(), records(TWO))
        assert not caught.value.retry

    @pytest.mark.req("R132", "R200")
    def test_a_wrong_password_is_told_and_not_tried_again(self, table, records, stranger):
        stranger(password="wrong horse")

        with pytest.raises(AuthenticationError) as caught:
            send(table(), records(TWO))
        assert "horse" not in str(caught.value)

    @pytest.mark.parametrize(
        ("changed", "kind"),
        [
            ({"host": "db.acme.invalid"}, DnsError),
            ({"schema": "no_such_database"}, NoSuchPathError),
            ({"login": "nobody_knows"}, AuthenticationError),
            ({"host": "/nowhere"}, ConnectionRefusedByHostError),
        ],
    )
    def test_what_keeps_from_connecting_is_told(self, buyer, table, records, monkeypatch, changed, kind):  # noqa: PLR0913, PLR0917  (fixtures)
        monkeypatch.setenv("AIRFLOW_CONN_BUYER_DB", json.dumps({**buyer.connection, **changed}))

        with pytest.raises(kind):
            send(table(), records(TWO))

    def test_a_port_that_says_nothing_is_a_timeout(self, buyer, table, records, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            changed = {"host": "127.0.0.1", "port": silent.getsockname()[1]}
            monkeypatch.setenv("AIRFLOW_CONN_BUYER_DB", json.dumps({**buyer.connection, **changed}))
            with pytest.raises(ConnectTimeoutError):
                send(table(timeout=1), records(TWO))

    def test_bytes_that_changed_in_the_archive_are_not_delivered(self, buyer, table, records):
        parcel = records(TWO)
        parcel.file.path.write_bytes(parcel.file.path.read_bytes().replace(b"ann", b"eve"))

        with pytest.raises(PermanentDeliveryError, match="not what was rendered"):
            send(table(), parcel)
        assert buyer.rows() == []


@pytest.fixture
def stranger(buyer, postgres, monkeypatch):
    """A login that needs a password and may do nothing."""
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        buyer.run("CREATE ROLE stranger LOGIN PASSWORD 'right horse'")
    ((path,),) = buyer.run("SHOW hba_file")
    rules = Path(path).read_text()
    Path(path).write_text(f"local all stranger scram-sha-256\n{rules}")
    buyer.run("SELECT pg_reload_conf()")

    def connect(*, password):
        changed = {**buyer.connection, "login": "stranger", "password": password}
        monkeypatch.setenv("AIRFLOW_CONN_BUYER_DB", json.dumps(changed))

    yield connect
    Path(path).write_text(rules)
    buyer.run("SELECT pg_reload_conf()")


class TestEncryption:
    @pytest.mark.usefixtures("wire")
    def test_a_server_without_tls_is_refused(self, table, records):
        with pytest.raises(HostKeyError, match="could not prove who it is"):
            send(table(), records(TWO))

    @pytest.mark.parametrize("mode", ["prefer", "allow", "disable"])
    def test_a_connection_that_may_go_without_tls_is_refused(self, wire, table, records, monkeypatch, mode):
        changed = {**wire.connection, "extra": {"sslmode": mode}}
        monkeypatch.setenv("AIRFLOW_CONN_BUYER_DB", json.dumps(changed))

        with pytest.raises(HostKeyError, match="verify-full"):
            send(table(), records(TWO))

    @pytest.mark.usefixtures("wire")
    def test_plain_text_works_where_the_batch_says_why(self, buyer, table, records):
        send(table(**PLAIN), records(TWO))

        assert len(buyer.rows()) == 2

    def test_plain_text_needs_a_reason(self, table):
        with pytest.raises(ValueError, match="plaintext_reason"):
            table(allow_plaintext=True)


@pytest.mark.req("F43")
class TestProbe:
    def test_a_table_that_can_be_written_is_told_and_nothing_is(self, buyer, table, records):
        with table().open() as session:
            assert "no lead was written" in session.probe(records({0: {"Email": None, "Age": None}}))
        assert buyer.rows() == []

    def test_a_table_that_would_be_made_is_not_made(self, buyer, table, records):
        buyer.run("DROP TABLE leads")
        with table(create=True).open() as session:
            session.probe(records({0: {"Email": None}}))
        assert buyer.run("SELECT to_regclass('leads')") == [(None,)]

    @pytest.mark.parametrize(
        ("grant", "mode", "missing"),
        [
            ("SELECT", "upsert", "INSERT"),
            ("SELECT, INSERT", "upsert", "UPDATE"),
            ("SELECT, INSERT", "insert_new", None),
        ],
    )
    def test_a_right_that_is_missing_is_named(self, buyer, table, records, stranger, grant, mode, missing):  # noqa: PLR0913, PLR0917  (fixtures)
        buyer.run(f"GRANT {grant} ON leads TO stranger")
        stranger(password="right horse")
        expected = pytest.raises(AccessDeniedError, match=missing) if missing else contextlib.nullcontext()
        with table(mode=mode).open() as session, expected:
            session.probe(records({0: {"Email": None}}))

    def test_a_missing_unique_key_is_told(self, buyer, table, records):
        buyer.run("ALTER TABLE leads DROP CONSTRAINT leads_pkey")
        with table().open() as session, pytest.raises(PermanentDeliveryError, match="unique index"):
            session.probe(records({0: {"Email": None}}))


class TestModel:
    def test_it_survives_json(self):
        made = make_table(table="a.b", create=True, types={"Age": "integer"}, mode="insert_new", **PLAIN)

        assert Table.model_validate(made.model_dump(mode="json")) == made
        assert made.takes == "leads"
        assert made.pool == "leadferry_table_buyer_db"

    @pytest.mark.parametrize(
        ("keys", "told"),
        [
            ({"types": {"Age": "integer"}}, "create: true"),
            ({"key": "id", "delivery_column": "id"}, "two columns"),
            ({"table": "a.b.c"}, "pattern"),
            ({"create": True, "types": {"Age": "int; DROP TABLE leads"}}, "types"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, keys, told):
        with pytest.raises(ValueError, match=told):
            make_table(**keys)

    @pytest.mark.parametrize(
        ("columns", "told"),
        [
            (["Email", "lead_id"], "'lead_id' stands twice"),
            (["x" * 64], "longer than the 63 bytes"),
            (["Email"], "'Age', which is no column"),
        ],
    )
    def test_columns_that_a_table_cannot_have_are_told_by_the_check(self, columns, told):
        assert any(told in one for one in make_table(create=True, types={"Age": "integer"}).problems(columns))
