"""Airflows for tests: each has a metadata database of its own, copied from one that was migrated once."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .airflow_home import AirflowHome

# `servers` and `batches` are shared by several test folders and are no package of the product.
TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)

_numbers = itertools.count()


@pytest.fixture(scope="session")
def airflow_template(postgres, tmp_path_factory) -> str:
    """The name of a migrated Airflow database that nobody uses, to be copied."""
    name = "template_airflow"
    postgres.ensure_database(name)
    folder = tmp_path_factory.mktemp("migrate")
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url(name, driver="postgresql+psycopg2"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        },
        check=True,
        capture_output=True,
        timeout=600,
    )
    return name


@pytest.fixture(scope="session")
def make_airflow(postgres, airflow_template, tmp_path_factory):
    """Make an Airflow: `make_airflow(connections)`; nothing runs yet."""

    def make(connections=None) -> AirflowHome:
        number = next(_numbers)
        metadata, store = f"airflow_{number}", f"airflow_store_{number}"
        postgres.ensure_database(metadata, template=airflow_template)
        postgres.ensure_database(store, template="template_leadferry")
        return AirflowHome(
            folder=tmp_path_factory.mktemp("airflow"),
            postgres=postgres,
            store=store,
            metadata=metadata,
            connections=connections or {},
        )

    return make
