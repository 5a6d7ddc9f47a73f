"""docs/coverage.md says what the tests' markers say, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("coverage_page", Path(__file__).with_name("coverage_page.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
coverage_page = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(coverage_page)

ROWS = [
    {"id": "R001", "theme": "main", "capability": "One file becomes one delivery"},
    {"id": "R002", "theme": "main", "capability": "Name and description"},
    {"id": "V14", "theme": "airflow", "capability": "Priorities"},
]


def test_a_row_is_shown_only_when_a_test_carries_its_marker():
    text = coverage_page.page(ROWS, {"R001": {"tests/test_dags.py::test_two_files_give_two_dags"}})

    assert "1 of 2 rows are shown" in text
    assert (
        "| R001 | One file becomes one delivery | shown | [two files give two dags](../tests/test_dags.py) |"
        in text
    )
    assert "| R002 | Name and description | not shown |  |" in text
    assert "| V14 | Priorities | Airflow does this |  |" in text


def test_a_marker_with_an_unknown_row_is_refused():
    with pytest.raises(SystemExit, match="R999"):
        coverage_page.page(ROWS, {"R999": {"tests/test_dags.py::test_it"}})


def test_every_row_of_the_requirements_has_an_id_of_its_own():
    ids = [row["id"] for row in coverage_page.requirements()]
    assert len(ids) == len(set(ids)) > 300


def test_the_page_is_fresh():
    checked = subprocess.run(
        [sys.executable, coverage_page.__file__, "--check"],
        cwd=coverage_page.PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
