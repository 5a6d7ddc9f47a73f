import sys
from pathlib import Path

import pytest

# `batches` is shared by several test folders and is no package of the product.
TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)


@pytest.fixture
def ferry(database, tmp_path):
    """The steps of a delivery, on a fresh store and archive."""
    from ferry import Ferry

    return Ferry(database, tmp_path / "archive")
