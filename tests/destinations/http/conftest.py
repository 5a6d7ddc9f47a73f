"""A buyer's API, destinations that lead to it, and what remembers the answers without a store."""

import json
import sys
from pathlib import Path

import pytest

from leadferry.destinations.http import Http

TESTS = str(Path(__file__).parents[2])
if TESTS not in sys.path:
    sys.path.append(TESTS)

YES = [{"when": {"status": ["2xx"], "json": "$.result", "equals": "accepted"}, "then": "accepted"}]


@pytest.fixture
def memory():
    from servers.answers import Memory

    return Memory()


@pytest.fixture
def buyer(tmp_path, monkeypatch):
    """A buyer's API with TLS, and the Airflow connection `buyer_api` to it."""
    from servers.http_buyer import Buyer

    with Buyer(root=tmp_path / "http-inbox", state=tmp_path / "http-state", token="open sesame") as server:
        server.connect = lambda **changes: monkeypatch.setenv(
            "AIRFLOW_CONN_BUYER_API", _changed(server, changes)
        )
        server.connect()
        yield server


def _changed(server, changes):
    connection = {**server.announcement()["connection"], **changes}
    return json.dumps(connection)


@pytest.fixture
def api():
    """A destination; every key may be changed."""

    def make(**keys):
        return Http.model_validate(
            {"id": "api", "connection": "buyer_api", "path": "/leads", "answers": YES, "timeout": 5, **keys}
        )

    return make


@pytest.fixture
def records(make_parcel, memory):
    """A parcel with leads: their ids are 1, 2, 3 …"""
    from dataclasses import replace

    def make(count=3, **fields):
        lines = [
            json.dumps(
                {"lead_id": one, "fields": {"Lead": str(one), "Email": f"lead{one}@example.com", **fields}}
            )
            for one in range(1, count + 1)
        ]
        parcel = make_parcel("".join(f"{line}\n" for line in lines).encode(), name="leads.records.ndjson")
        (file,) = parcel.files
        return replace(parcel, files=(replace(file, rows=count),), answers=memory)

    return make
