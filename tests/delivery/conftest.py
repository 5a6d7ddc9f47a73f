import json
import sys
from pathlib import Path

import pytest

# `batches` and `servers` are shared by several test folders and are no packages of the product.
TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)


@pytest.fixture
def ferry(database, tmp_path):
    """The steps of a delivery, on a fresh store and archive."""
    from ferry import Ferry

    return Ferry(database, tmp_path / "archive")


@pytest.fixture
def connect(monkeypatch):
    """Define an Airflow connection by the environment, as a receiver announces it."""

    def define(connection_id, receiver):
        announced = json.dumps(receiver.announcement()["connection"])
        monkeypatch.setenv(f"AIRFLOW_CONN_{connection_id.upper()}", announced)
        return connection_id

    return define


@pytest.fixture
def buyer_sftp(tmp_path, connect):
    """A buyer's SFTP server, the Airflow connection `buyer_sftp` to it, and its faults."""
    from servers import sftp

    with sftp.receiver(tmp_path / "sftp") as server:
        connect("buyer_sftp", server)
        yield server


@pytest.fixture
def mail(tmp_path, connect):
    """A mail server, the Airflow connection `smtp` to it, and its faults."""
    from servers import smtp

    with smtp.receiver(tmp_path / "smtp") as server:
        connect("smtp", server)
        yield server
