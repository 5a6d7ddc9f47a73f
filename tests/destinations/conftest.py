"""What the tests of destinations share: parcels, Airflow connections, and the servers' folders."""

import dataclasses
import hashlib
import random
import sys
from pathlib import Path

import pytest

from leadferry.destinations.parcel import OutgoingFile, Parcel

# `servers` and `contracts` are shared by several test folders and are no packages of the product.
TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)

VARIABLES = {
    "batch": {"id": "acme_auto", "name": "Acme Auto", "description": ""},
    "recipient": {"id": "acme", "name": "Acme", "timezone": "America/New_York", "locale": "en_US"},
    "delivery": {"id": "7", "number": 7, "date": "2026-01-31", "period": "2026-01-30"},
    "lead": {"count": 3},
    "file": {"id": "leads", "name": "leads.csv", "part": 1, "parts": 1},
}


@pytest.fixture(scope="session")
def content():
    """More than half a megabyte that do not compress."""
    return random.Random(1).randbytes(600_000)


@pytest.fixture
def make_parcel(tmp_path):
    def make(data, *, name="leads.csv", key="delivery 7, leads", addressee=None, media_type="text/csv"):
        digest = hashlib.sha256(data).hexdigest()
        path = tmp_path / "archive" / digest
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        file = OutgoingFile(
            name=name, path=path, size=len(data), sha256=digest, rows=3, media_type=media_type
        )
        return Parcel(key=key, attempt=1, files=(file,), addressee=addressee, variables=VARIABLES)

    return make


@pytest.fixture
def parcel(make_parcel, content):
    return make_parcel(content)


@pytest.fixture
def next_try():
    return lambda parcel: dataclasses.replace(parcel, attempt=parcel.attempt + 1)
