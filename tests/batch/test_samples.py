"""The batches that come with the project work on the leads that come with it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from leadferry.batch.check import check
from leadferry.batch.load import load_all, load_batch

PROJECT = Path(__file__).parents[2]
CONFIG = PROJECT / "config"
SAMPLES = {"us_contacts": "us_500.csv", "education": "education_leads.csv"}


def sample(name: str) -> list[dict[str, str]]:
    with (PROJECT / "samples" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "config", [CONFIG, PROJECT / "docs" / "examples" / "config"], ids=["config", "examples"]
)
def test_they_have_neither_problems_nor_hints(config):
    report = check(config)

    assert report.checked
    assert [str(one) for one in (*report.problems, *report.hints)] == []


def test_there_is_one_for_each_kind_of_receiver():
    batches, _ = load_all(CONFIG)

    assert {destination.type for batch in batches for destination in batch.destinations} >= {
        "folder",
        "sftp",
        "ftp",
        "s3",
    }


@pytest.mark.parametrize(
    "batch_id", ["us_contacts_sftp", "us_contacts_ftps", "us_contacts_folder", "education_consent"]
)
def test_they_name_only_fields_that_the_sample_leads_have(batch_id):
    batch = load_batch(batch_id, config=CONFIG)
    columns = set(sample(SAMPLES[batch.flows[0]])[0]) | {"received_at"}

    assert {name for field in batch.fields for name in field.sources} <= columns
    assert {rule.field for rule in batch.select.rules} <= columns


def test_the_consent_rules_are_inherited_and_withhold_who_said_no():
    batch = load_batch("education_consent", config=CONFIG)

    assert [(rule.name, rule.field, rule.equals) for rule in batch.select.rules] == [
        ("may_be_emailed", "Do Not Email", "No"),
        ("may_be_called", "Do Not Call", "No"),
    ]
    leads = sample("education_leads.csv")
    may = [lead for lead in leads if lead["Do Not Email"] == lead["Do Not Call"] == "No"]
    assert 0 < len(may) < len(leads)
    assert batch.conditions.min_leads <= len(may)


def test_the_folder_batch_takes_some_but_not_all_contacts():
    batch = load_batch("us_contacts_folder", config=CONFIG)
    states = batch.select.rules[0].in_

    taken = [lead for lead in sample("us_500.csv") if lead["state"] in states]

    assert max(1, batch.conditions.min_leads) <= len(taken) < len(sample("us_500.csv"))
