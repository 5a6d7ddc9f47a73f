"""What the pages on the batch file say is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leadferry.batch.check import check
from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch, Recipient
from leadferry.batch.yaml_file import parse_yaml

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PAGE = (REFERENCE / "batch-file.md").read_text(encoding="utf-8")
COMMANDS = (REFERENCE / "cli-config.md").read_text(encoding="utf-8")


def test_the_files_on_the_page_are_a_config_folder_that_works(tmp_path):
    blocks = re.findall(r"```yaml\n# (config/\S+)\n(.*?)```", PAGE, re.DOTALL)
    for name, text in blocks:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    report = check(tmp_path / "config")
    batch = load_batch("acme_home", config=tmp_path / "config")

    assert len(blocks) == 3
    assert report.problems == []
    assert (batch.timezone, batch.retry.attempts, batch.tags) == ("America/Chicago", 3, ["leads"])


@pytest.mark.parametrize(
    ("heading", "model", "besides"),
    [("## Keys", Batch, set()), ("## The recipient's file", Recipient, {"batch"})],
)
def test_every_key_stands_in_its_table_and_no_other(heading, model, besides):
    table = PAGE.split(heading)[1].split("\n## ")[0]

    assert (
        set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(model.model_fields) - {"id"} | besides
    )


def test_the_table_of_surprises_is_true():
    kinds = {
        bool: ["true", "false", "True", "TRUE"],
        str: [
            "yes",
            "no",
            "on",
            "off",
            "NO",
            "09:00",
            "2024-01-31",
            "02138",
            "010",
            '"7"',
            "'true'",
            "1" * 19,
        ],
        int: ["7"],
        float: ["-1.5", "1e3"],
        type(None): ["null", "~", ""],
    }
    for kind, written in kinds.items():
        for one in written:
            assert type(parse_yaml(f"x: {one}", shown="x").data["x"]) is kind
            assert one in PAGE or one == "1" * 19


def test_the_error_on_the_pages_is_the_one_that_is_given(folder):
    line = next(line for line in PAGE.splitlines() if "stfp" in line)
    assert line in COMMANDS
    folder.batch(
        text="""\
name: Acme, daily
recipient: acme
flows: [auto]
schedule: manual
fields: [{to: Email, from: email}]
files: [{name: "{{ delivery.number }}.csv", format: {type: csv}}]
destinations: [{id: a, type: stfp}]
"""
    )

    assert folder.complaints() == [line]


def test_the_pre_commit_example_is_yaml():
    (text,) = re.findall(r"```yaml\n(# \.pre-commit.*?)```", COMMANDS, re.DOTALL)

    assert parse_yaml(text, shown="x").data["repos"][0]["hooks"][0]["entry"] == "leadferry check"
