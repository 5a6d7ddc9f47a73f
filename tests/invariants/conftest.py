import sys
from pathlib import Path

import pytest

# What the tests share, and what their processes run, are no packages of the product.
for folder in (Path(__file__).parent, Path(__file__).parents[1]):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@pytest.fixture(scope="session")
def forks():
    """The process that all drivers are forked from."""
    import harbour

    harbour.prepare()


@pytest.fixture
def harbour(forks, store_url, tmp_path):
    from harbour import Harbour, receiver

    with receiver(tmp_path) as server:
        yield Harbour(store=store_url, folder=tmp_path, receiver=server)
