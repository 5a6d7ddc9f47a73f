"""`airflow dags test batch_<id>`: a whole delivery in one process, without scheduler and server."""

import csv

import pytest

from batches import add_leads, rows, waiting
from servers.sftp import receiver

from .patience import PATIENCE

pytestmark = pytest.mark.timeout(PATIENCE)


@pytest.fixture(scope="module")
def sftp(tmp_path_factory):
    with receiver(tmp_path_factory.mktemp("sftp")) as server:
        (server.root / "in").mkdir()
        yield server


@pytest.fixture(scope="module")
def airflow(make_airflow, sftp):
    """An Airflow with one batch to a folder and the SFTP server, and five leads for it."""
    made = make_airflow({"buyer": sftp.announcement()["connection"]})
    made.batch(
        "acme",
        schedule={"at": ["09:00"], "on": "weekdays"},
        destinations=[
            {"id": "share", "type": "folder", "path": str(made.inbox)},
            {"id": "buyer", "type": "sftp", "connection": "buyer", "directory": "/in"},
        ],
    )
    add_leads(made.database, 5)
    return made


def emails(path):
    return [line["Email"] for line in csv.DictReader(path.read_text().splitlines())]


def deliveries(airflow):
    return rows(airflow.database, "SELECT count(*) FROM delivery")[0][0]


@pytest.mark.req("C33")
@pytest.mark.parametrize(
    ("conf", "told"),
    [({"limt": 3}, "limt"), ({"limit": 0}, "limit")],
    ids=["unknown name", "value not allowed"],
)
def test_a_conf_that_cannot_be_meant_fails_before_anything_is_claimed(airflow, conf, told):
    before = deliveries(airflow)

    done = airflow.dags_test("acme", **conf)

    assert done.returncode != 0
    assert told in done.stdout
    assert deliveries(airflow) == before


def test_the_run_delivers_to_every_destination_what_its_conf_asks_for_and_the_next_one_is_skipped(
    airflow, sftp
):
    done = airflow.dags_test("acme", limit=3, order="newest")

    assert done.returncode == 0, done.stdout[-3000:]
    (shared,) = airflow.inbox.glob("*.csv")
    (sent,) = (sftp.root / "in").iterdir()
    assert shared.read_bytes() == sent.read_bytes()
    assert emails(sent) == ["lead5@example.com", "lead4@example.com", "lead3@example.com"]
    assert len(waiting(airflow.database)) == 2
    assert rows(airflow.database, "SELECT state, params FROM delivery") == [
        ("delivered", {"limit": 3, "order": "newest"})
    ]

    rest = airflow.dags_test("acme", order="oldest")
    empty = airflow.dags_test("acme")

    assert rest.returncode == 0, rest.stdout[-6000:]
    assert empty.returncode == 0, empty.stdout[-6000:]
    assert "Nothing to deliver" in empty.stdout
    states = rows(airflow.database, "SELECT state FROM delivery ORDER BY id")
    assert states == [("delivered",), ("delivered",), ("skipped",)]
    assert len(list(airflow.inbox.glob("*.csv"))) == len(list((sftp.root / "in").iterdir())) == 2
