"""The try-out's environment is its own, whatever else runs on the machine."""

from __future__ import annotations

import json

import pytest

from leadferry.local.settings import environment
from leadferry.local.workspace import Workspace


@pytest.fixture
def made(tmp_path):
    workspace = Workspace(tmp_path / ".leadferry")
    workspace.make()
    return environment(
        workspace,
        port=4321,
        postgres_socket="/tmp/socket",
        connections={"local_sftp": {"conn_type": "sftp", "port": 22}},
        inherited={
            "PATH": "/usr/bin",
            "AIRFLOW_HOME": "/other",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "LANG": "C",
        },
    )


def test_another_airflow_on_the_machine_does_not_reach_this_one(made, tmp_path):
    assert made["AIRFLOW_HOME"] == str(tmp_path / ".leadferry" / "airflow")
    assert made["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert made["LANG"] == "C"


def test_the_tasks_reach_the_api_on_the_port_that_was_chosen(made):
    assert made["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:4321/execution/"
    assert made["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:4321"


def test_connections_are_airflows_json(made):
    assert json.loads(made["AIRFLOW_CONN_LEADFERRY"])["host"] == "/tmp/socket"
    assert json.loads(made["AIRFLOW_CONN_LOCAL_SFTP"]) == {"conn_type": "sftp", "port": 22}
