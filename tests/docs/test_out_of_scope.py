"""What the product leaves to Airflow, or does not do, is said on a page: each such row of the requirements has its line."""

from __future__ import annotations

import csv

import pytest

from docs.pages import PROJECT, section

PAGE = "docs/out-of-scope.md"

AIRFLOW = {
    "V14": "order and limits between batches",
    "V23": "failover",
    "V25": "backups and their encryption",
    "V29": "notes on a run",
    "V31": "versions of a batch",
    "V36": "an API for other applications",
    "V37": "single sign-on",
    "V38": "tokens for programs",
    "V39": "finding attacks",
    "V58": "an API for other applications",
}

OUT = {
    "V17": "CDN",
    "V30": "highlights, bookmarks",
    "V43": "recording what outsiders do",
    "V55": "legal advice, intellectual property",
    "V56": "infographics, videos",
    "V71": "A/B tests",
    "V72": "training, technology evaluation",
}

STATEMENTS_OF_BENEFIT = {"V74", "V75"}
"""Rows that name no capability."""


def _marked(rows):
    return [pytest.param(row, said, marks=pytest.mark.req(row)) for row, said in rows.items()]


@pytest.mark.parametrize(("row", "said"), _marked(AIRFLOW))
def test_what_airflow_does_is_said_with_how(row, said):
    (line,) = [one for one in section(PAGE, "Airflow does it").splitlines() if said in one]

    assert len(line.split("|")[2]) > 20


@pytest.mark.parametrize(("row", "said"), _marked(OUT))
def test_what_is_not_built_is_said(row, said):
    assert said in section(PAGE, "Will not be built")


def test_no_row_is_forgotten():
    with (PROJECT / "docs" / "requirements.csv").open(encoding="utf-8", newline="") as file:
        themes = {row["id"]: row["theme"] for row in csv.DictReader(file)}

    assert {row for row, theme in themes.items() if theme == "airflow"} == set(AIRFLOW)
    assert {row for row, theme in themes.items() if theme == "out"} == {*OUT, *STATEMENTS_OF_BENEFIT}
