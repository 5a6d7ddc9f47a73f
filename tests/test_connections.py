"""The Airflow connection `leadferry` is found, in each way that Airflow has to say one, and leads to the store."""

import json

import pytest
from sqlalchemy import make_url

from leadferry.connections import lead_store
from leadferry.errors import StoreError


def parts(postgres, store_url):
    url = make_url(store_url)
    return {"socket": postgres.socket_folder, "schema": url.database}


@pytest.fixture
def named(monkeypatch):
    """Set the connection as an environment variable; JSON where a dict is given."""

    def name(connection):
        text = connection if isinstance(connection, str) else json.dumps(connection)
        monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", text)
        return lead_store()

    return name


def reached(database):
    with database.transaction() as connection:
        return connection.exec_driver_sql("SELECT current_database()").scalar_one()


def test_a_socket_folder_may_be_the_host_of_a_connection_in_json(postgres, store_url, named):
    found = parts(postgres, store_url)

    database = named(
        {"conn_type": "postgres", "host": found["socket"], "login": "postgres", "schema": found["schema"]}
    )

    assert reached(database) == found["schema"]


@pytest.mark.parametrize("as_text", [False, True], ids=["mapping", "text"])
def test_the_extra_of_a_connection_in_json_goes_to_the_driver(postgres, store_url, named, as_text):
    found = parts(postgres, store_url)
    extra = {"client_encoding": "latin1", "connect_timeout": 7}

    database = named(
        {
            "conn_type": "postgres",
            "host": found["socket"],
            "login": "postgres",
            "schema": found["schema"],
            "extra": json.dumps(extra) if as_text else extra,
        }
    )

    with database.transaction() as connection:
        told = connection.exec_driver_sql("SHOW client_encoding").scalar_one()
    assert told == "LATIN1"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_a_connection_may_be_a_uri(postgres, store_url, named, scheme):
    found = parts(postgres, store_url)

    assert reached(named(f"{scheme}://postgres@/{found['schema']}?host={found['socket']}")) == found["schema"]


def test_a_password_with_every_sign_survives(named):
    password = "p@ss/w:rd%?#&= ü'\""

    database = named(
        {
            "conn_type": "postgres",
            "host": "db.example.com",
            "port": 6543,
            "login": "ferry",
            "password": password,
            "schema": "leads",
        }
    )

    url = database.engine.url
    assert (url.username, url.password, url.host, url.port, url.database) == (
        "ferry",
        password,
        "db.example.com",
        6543,
        "leads",
    )


@pytest.mark.req("R219")
def test_the_password_is_not_in_what_the_store_shows_of_itself(named):
    database = named("postgresql://ferry:correct-horse@db.example.com/leads")

    assert "correct-horse" not in f"{database!r} {database.engine!r} {database.engine.url}"


def test_without_a_connection_the_error_says_how_to_make_one(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_LEADFERRY", raising=False)

    with pytest.raises(StoreError, match="no Airflow connection 'leadferry'") as told:
        lead_store()

    assert "AIRFLOW_CONN_LEADFERRY=postgresql://" in str(told.value)
