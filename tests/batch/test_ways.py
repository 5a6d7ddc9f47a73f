"""Which destination replaces which: what a batch file may say of it, and that it survives being frozen."""

import pytest
from pydantic import ValidationError

from batches import folder, make_batch
from leadferry.batch.model import Batch

ONE = folder("/one", id="one")
TWO = folder("/two", id="two", fallback_for="one")


@pytest.mark.req("R198", "F39")
def test_policy_fallback_own_retry_and_suspension_survive_being_frozen():
    batch = make_batch(
        destinations=[{**ONE, "primary": True, "retry": {"attempts": 2}}, TWO],
        success="primary",
        suspend={"after_failures": None, "retry_after": None},
    )
    assert Batch.model_validate(batch.model_dump(mode="json")) == batch


@pytest.mark.req("R197")
def test_a_destinations_own_retry_changes_only_the_keys_that_it_says():
    batch = make_batch(
        destinations=[{**ONE, "retry": {"attempts": 2, "max_delay": "5m"}}, TWO],
        retry={"attempts": 7, "first_delay": "10s"},
    )
    assert batch.retry_of("one") == batch.retry.model_copy(
        update={"attempts": 2, "max_delay": batch.retry_of("one").max_delay}
    )
    assert batch.retry_of("one").max_delay.total_seconds() == 300
    assert batch.retry_of("two") == batch.retry


def test_a_way_is_a_destination_with_its_fallbacks_in_the_order_in_which_they_are_tried():
    three = folder("/three", id="three", fallback_for="two")
    batch = make_batch(destinations=[three, TWO, ONE, folder("/own", id="own")])
    assert batch.ways() == {"one": ["one", "two", "three"], "own": ["own"]}
    assert batch.way_of("three") == "one"


@pytest.mark.parametrize(
    ("destinations", "keys", "told"),
    [
        ([ONE, {**TWO, "fallback_for": "onee"}], {}, "there is no other destination 'onee'; known: one"),
        ([{**ONE, "fallback_for": "one"}], {}, "there is no other destination 'one'; known: none"),
        ([ONE, TWO, {**TWO, "id": "three"}], {}, "'one' has a fallback already"),
        ([{**ONE, "fallback_for": "two"}, TWO], {}, "'one' and 'two' replace each other"),
        ([ONE, {**TWO, "files": ["csv"]}], {}, "'one', which it replaces, also gets json"),
        ([ONE, {**TWO, "max_rows": 5}], {}, "its files must be those of 'one'"),
        ([ONE, {**TWO, "primary": True}], {}, "a fallback counts for the destination that it replaces"),
        (
            [{**ONE, "primary": True}, folder("/own", id="own", primary=True)],
            {},
            "only one destination can be the primary one",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(destinations, keys, told):
    files = [
        {"id": kind, "name": f"leads_{{{{ file.part }}}}.{kind}", "format": {"type": kind}}
        for kind in ("csv", "json")
    ]
    with pytest.raises(ValidationError, match=told):
        make_batch(destinations=destinations, files=files, **keys)
