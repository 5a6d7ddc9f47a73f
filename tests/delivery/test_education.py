"""The sample batch education_consent over all 9,240 sample leads, against an independent computation in pandas."""

import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from batches import folder, scalars
from ferry import Ferry
from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch
from leadferry.leads_import.load import import_leads
from leadferry.store.database import Database

PROJECT = Path(__file__).parents[2]
SAMPLE = PROJECT / "samples" / "education_leads.csv"
RULES = {"may_be_emailed": "Do Not Email", "may_be_called": "Do Not Call"}


@pytest.fixture(scope="module")
def delivered(postgres, tmp_path_factory):
    """The batch, delivered once into a folder: the claim, the file, the store."""
    folder_ = tmp_path_factory.mktemp("education")
    postgres.ensure_database("education", template="template_leadferry")
    database = Database(postgres.url("education", driver="postgresql"))
    sample = shutil.copy(SAMPLE, folder_)
    assert import_leads(database, Path(sample), flow="education").loaded == 9240
    written = load_batch("education_consent", config=PROJECT / "config").model_dump(mode="json")
    batch = Batch.model_validate({**written, "destinations": [folder(folder_ / "inbox")]})
    ferry = Ferry(database, folder_ / "archive")
    settled = ferry.carry(batch)
    (file,) = (folder_ / "inbox").iterdir()
    yield batch, settled, file, database
    postgres.drop_database("education")


@pytest.fixture(scope="module")
def sample():
    return pd.read_csv(SAMPLE, dtype=str, keep_default_na=False)


def test_every_lead_is_either_delivered_or_withheld(delivered):
    _, settled, _, _ = delivered
    assert settled.state == "delivered"
    assert settled.included + settled.withheld == 9240


@pytest.mark.req("R063")
def test_every_withheld_lead_names_the_first_rule_it_does_not_meet(delivered, sample):
    _, settled, _, database = delivered
    first = [
        next((rule for rule, column in RULES.items() if row[column] != "No"), None)
        for _, row in sample.iterrows()
    ]
    expected = Counter(one for one in first if one)
    reasons = Counter(scalars(database, "SELECT reason FROM withheld"))
    assert reasons == expected
    assert settled.withheld == sum(expected.values())


def test_the_files_rows_are_what_pandas_computes_in_values_and_order(delivered, sample):
    batch, settled, file, _ = delivered
    may_go = sample[(sample["Do Not Email"] == "No") & (sample["Do Not Call"] == "No")]
    sources = {field.to: field.sources for field in batch.fields}
    expected = pd.DataFrame({to: may_go[only].tolist() for to, (only,) in sources.items()})
    found = pd.read_csv(file, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(found, expected)
    assert len(found) == settled.included
    assert found["Prospect ID"].is_unique
