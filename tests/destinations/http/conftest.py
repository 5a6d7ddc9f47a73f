"""A buyer's API, destinations that lead to it, and what remembers the answers without a store."""

import json
import sys
from pathlib import Path

import pytest

from leadferry.destinations.http import Http
from leadferry.exchange import Standing
from leadferry.states import Answer, RequestState

TESTS = str(Path(__file__).parents[2])
if TESTS not in sys.path:
    sys.path.append(TESTS)

YES = [{"when": {"status": ["2xx"], "json": "$.result", "equals": "accepted"}, "then": "accepted"}]


class Memory:
    """What the store does, in memory; and the order of everything that was written."""

    def __init__(self):
        self.requests = {}
        self.given = {}
        self.log = []

    def standing(self, first, last):
        return {number: one for number, one in self.requests.items() if first <= number <= last}

    def advance(self, *, ended=(), begun=()):
        for one in ended:
            self.requests[one.number] = Standing(state=one.state, lead_ids=one.lead_ids)
            self.log.append(("ended", one))
            self.given |= {told.lead_id: told for told in one.answers if told.outcome is not Answer.RETRY}
        for one in begun:
            self.requests[one.number] = Standing(state=RequestState.SENDING, lead_ids=one.lead_ids)
            self.log.append(("begun", one))

    def settle_lost(self, state):
        for number, one in self.requests.items():
            if one.state is RequestState.SENDING:
                self.requests[number] = Standing(state=state, lead_ids=one.lead_ids)
        return sum(one.state is RequestState.UNKNOWN for one in self.requests.values())

    def counts(self):
        outcomes = [one.outcome for one in self.given.values()]
        return {one: outcomes.count(one) for one in set(outcomes)}

    @property
    def ended(self):
        return [one for what, one in self.log if what == "ended"]


@pytest.fixture
def memory():
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
