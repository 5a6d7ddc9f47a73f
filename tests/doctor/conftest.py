"""Batches with one destination each, examined; and servers to be found ill."""

import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

# `batches` and `servers` are shared by several test folders and are no packages of the product.
TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)

from batches import make_batch  # noqa: E402  (the path is set above)
from leadferry.doctor.examine import Orders, examine_batch  # noqa: E402
from leadferry.doctor.finding import Verdict  # noqa: E402
from servers import ports  # noqa: E402


@pytest.fixture
def doctor(tmp_path, resolver):
    """Examine a batch with one destination; returns what was found of it.

    Certificates of the test servers are made now, so there is no other day to look at them.
    """

    def examine(destination, *, database=None, **orders):
        batch = make_batch(destinations=[{"id": "drop", **destination}])
        given = {"now": datetime.now(UTC), "config": tmp_path, "timeout": 10, "resolver": resolver, **orders}
        (found,) = examine_batch(batch, Orders(database=database, **given))
        return found

    return examine


@pytest.fixture
def names():
    """A name server for the mail servers of domains; knows the recipients of the tests."""
    from servers.dns import NameServer

    with NameServer({("acme.example", "MX"): ["10 mail.acme.example."]}) as server:
        yield server


@pytest.fixture
def resolver(names):
    """Asks that name server, and nobody on the network."""
    return names.resolver()


def verdicts(found):
    """What was found, stage by stage, as one line."""
    return {str(one.stage): one.verdict for one in found.findings}


def failed(found):
    """The one stage that failed."""
    (one,) = [one for one in found.findings if one.verdict is Verdict.FAILED]
    return one


@pytest.fixture
def closed_port():
    """A port on which nobody listens."""
    with ports.kept_free() as port:
        yield port


@pytest.fixture
def silent_port():
    """A port that is open, and nobody says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]
