"""The page on redeliveries: its table is the form, its examples are accepted."""

import json
import re

from docs.pages import text_of
from leadferry.delivery.redelivery_params import Redeliver
from leadferry.redelivery_dag import FORM

PAGE = "docs/how-to/redeliver.md"


def test_the_table_has_every_field_of_the_form_with_its_title_and_words():
    told = re.findall(r"^\| (.+?) \| `(\w+)` \| (.+) \|$", text_of(PAGE), re.MULTILINE)
    fields = Redeliver.model_fields
    assert told == [(fields[name].title, name, fields[name].description) for name in FORM]
    assert set(FORM) == set(fields)


def test_the_examples_are_accepted():
    texts = re.findall(r"--conf '(.*)'", text_of(PAGE)) + re.findall(
        r"```json\n(.*?)```", text_of(PAGE), re.DOTALL
    )
    asked = [Redeliver.parse(json.loads(one)) for one in texts]
    assert [one.dry_run for one in asked] == [True, False]
    assert asked[1].edits_of_all == {"vehicle_year": 2015}
