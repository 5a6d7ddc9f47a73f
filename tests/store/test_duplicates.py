"""Duplicates: who is the same person, which of them goes, and against which deliveries they are held."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batches import add_leads, carried, depart, kept_back, make_batch, rows, scalars, waiting
from leadferry.store import ledger, settling

FRIDAY = datetime(2026, 1, 30, 14, 0, tzinfo=UTC)
EARLIER = FRIDAY - timedelta(days=60)


def deduped(batch_id="acme", *, rules=(), **dedupe):
    return make_batch(id=batch_id, select={"dedupe": dedupe, "rules": list(rules)})


def add(database, **fields):
    return add_leads(database, received_at=EARLIER, fields=fields)[0]


def gone(database, batch, run_id="run-1", *, at=FRIDAY):
    claimed = depart(database, batch, run_id, at=at)
    return carried(database, claimed.delivery_id), kept_back(database, claimed.delivery_id)


@pytest.mark.req("F24")
@pytest.mark.parametrize("email", ["A@x.example ", "a@X.example", "\ta@x.example"])
def test_addresses_that_differ_in_case_or_space_are_the_same(database, email):
    first, second = add(database, email="a@x.example"), add(database, email=email)
    assert gone(database, deduped(by=["email"])) == ([first], {second: "dedupe email"})


@pytest.mark.req("F24")
@pytest.mark.parametrize(
    "number",
    [
        "(555) 201-0123",
        "+1 555 201 0123",
        "1-555-201-0123",
        "011 1 555 201 0123",
        "555.201.0123 ext. 7",
        5552010123,
    ],
)
def test_phone_numbers_are_the_same_however_they_are_written(database, number):
    first, second = add(database, phone="+15552010123"), add(database, phone=number)
    assert gone(database, deduped(by=["phone"])) == ([first], {second: "dedupe phone"})


@pytest.mark.req("F24")
@pytest.mark.parametrize(
    ("region", "numbers"),
    [
        ("GB", ["020 7946 0123", "+44 20 7946 0123", "0044 2079460123"]),
        ("DE", ["030 12345678", "+49 30 12345678", "004930/12345678"]),
    ],
)
def test_phone_numbers_of_other_countries_are_read_by_their_own_plan(database, region, numbers):
    leads = [add(database, contact=number) for number in numbers]
    batch = deduped(by=["contact"], read_as={"contact": "phone"}, region=region)
    assert gone(database, batch) == (leads[:1], dict.fromkeys(leads[1:], "dedupe contact"))


def test_numbers_of_different_people_and_missing_values_are_not_the_same(database):
    values = ["555 201 0123", "555 201 0124", "+44 555 2010123", "", None, "n/a", "n/a"]
    leads = [add(database, phone=value) for value in values]
    assert gone(database, deduped(by=["phone"])) == (leads, {})


@pytest.mark.req("F24")
def test_fields_in_a_list_of_their_own_must_all_be_the_same(database):
    people = [("Vale", "10001"), ("vale", "10001 "), ("Vale", "10002"), ("Vale", None), ("Vale", None)]
    leads = [add(database, last_name=name, zip=zip_code) for name, zip_code in people]
    went, withheld = gone(database, deduped(by=[["last_name", "zip"]]))
    assert (went, withheld) == ([leads[0], *leads[2:]], {leads[1]: "dedupe last_name+zip"})


@pytest.mark.req("F24")
def test_the_first_in_the_batchs_order_goes(database):
    leads = [add(database, email="a@x.example") for _ in range(3)]
    batch = make_batch(select={"dedupe": {"by": ["email"]}, "order": "newest"})
    assert gone(database, batch)[0] == leads[2:]


@pytest.mark.req("F24")
def test_a_lead_that_is_withheld_itself_keeps_nobody_out(database):
    leads = [
        add(database, email="a@x.example", phone="555 201 0001", state="NY"),
        add(database, email="a@x.example", phone="555 201 0002", state="CA"),
        add(database, email="a@x.example", phone="555 201 0003", state="CA"),
        add(database, email="b@x.example", phone="555 201 0003", state="CA"),
    ]
    served = {"name": "served", "field": "state", "equals": "CA"}
    went, withheld = gone(database, deduped(by=["email", "phone"], rules=[served]))
    assert went == [leads[1], leads[3]]
    assert withheld == {leads[0]: "served", leads[2]: "dedupe email"}


def one_after_the_other(people):
    """Which of the leads go when each is only compared with those that went before it."""
    seen, went = set(), []
    for number, values in enumerate(people):
        keys = {(which, value) for which, value in enumerate(values) if value is not None}
        if not keys & seen:
            went.append(number)
            seen |= keys
    return went


_examples = itertools.count()
_value = st.one_of(st.none(), st.sampled_from("abcd"))


@pytest.mark.req("F24")
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(people=st.lists(st.tuples(_value, _value, _value), min_size=1, max_size=12))
def test_who_goes_is_as_if_they_were_looked_at_one_after_the_other(database, people):
    flow = f"flow {next(_examples)}"
    leads = [
        add_leads(database, flow=flow, received_at=EARLIER, fields={"x": x, "y": y, "z": z})[0]
        for x, y, z in people
    ]
    batch = make_batch(id=f"b{next(_examples)}", flows=[flow], select={"dedupe": {"by": ["x", "y", "z"]}})
    assert gone(database, batch)[0] == [leads[one] for one in one_after_the_other(people)]


# --- past deliveries


@pytest.mark.req("F24")
@pytest.mark.parametrize(
    ("within", "days", "goes"), [("90d", 89, False), ("90d", 91, True), ("forever", 4000, False)]
)
def test_a_window_says_how_long_a_person_is_remembered(database, within, days, goes):
    batch = deduped(by=["email"], within=within)
    add(database, email="a@x.example")
    gone(database, batch)
    again = add(database, email="A@x.example")
    expected = ([again], {}) if goes else ([], {again: "dedupe email"})
    assert gone(database, batch, "run-2", at=FRIDAY + timedelta(days=days)) == expected


@pytest.mark.req("F24")
def test_without_within_only_the_file_counts(database):
    batch = deduped(by=["email"])
    add(database, email="a@x.example")
    gone(database, batch)
    again = add(database, email="a@x.example")
    assert gone(database, batch, "run-2", at=FRIDAY + timedelta(days=1)) == ([again], {})


@pytest.mark.req("F24")
def test_without_in_file_only_the_past_counts(database):
    batch = deduped(by=["email"], within="forever", in_file=False)
    twins = [add(database, email="a@x.example") for _ in range(2)]
    assert gone(database, batch) == (twins, {})


@pytest.mark.req("F24")
def test_a_failed_delivery_is_not_remembered(database):
    batch = deduped(by=["email"], within="forever")
    first = add(database, email="a@x.example")
    claimed = depart(database, batch, at=FRIDAY)
    depart(database, batch, "looks", at=FRIDAY)  # makes the keys of the delivery under way
    settling.settle(database, claimed.delivery_id)
    second = add(database, email="a@x.example")
    assert gone(database, batch, "run-2") == ([first], {second: "dedupe email"})


@pytest.mark.req("F24")
def test_a_delivery_under_way_is_remembered_but_not_what_its_mapping_withheld(database):
    batch = deduped(by=["email"], within="forever")
    first, other = add(database, email="a@x.example"), add(database, email="b@x.example")
    claimed = depart(database, batch, at=FRIDAY)
    add(database, email="c@x.example")
    depart(database, batch, "run-2", at=FRIDAY)
    ledger.withhold(database, claimed.delivery_id, {other: "field Phone: phone"})
    again = [add(database, email=f"{name}@x.example") for name in "ab"]
    assert gone(database, batch, "run-3") == (again[1:], {again[0]: "dedupe email"})
    assert first not in waiting(database)


@pytest.mark.req("F24")
def test_switching_it_on_later_covers_what_was_delivered_before(database):
    add(database, email="a@x.example")
    depart(database, make_batch(), at=FRIDAY)
    assert scalars(database, "SELECT count(*) FROM lead_key") == [0]
    again = add(database, email="A@x.example")
    batch = deduped(by=["email"], within="90d")
    assert gone(database, batch, "run-2", at=FRIDAY + timedelta(days=1)) == ([], {again: "dedupe email"})


@pytest.mark.req("F24")
@pytest.mark.parametrize(("scope", "goes"), [("batch", True), ("recipient", False)])
@pytest.mark.parametrize("recipient", ["buyer", "somebody_else"])
def test_the_scope_says_whose_deliveries_count(database, scope, goes, recipient):
    """The very same lead counts as well: the recipient has that person already, by the other batch."""
    lead = add(database, email="a@x.example")
    other = make_batch(id="other", recipient={"id": recipient, "name": "Acme"})
    depart(database, other, at=FRIDAY)
    batch = deduped(by=["email"], within="forever", scope=scope)
    goes = goes or recipient != "buyer"
    assert gone(database, batch) == (([lead], {}) if goes else ([], {lead: "dedupe email"}))


@pytest.mark.req("F24")
def test_a_copy_sent_early_makes_a_lead_no_duplicate_of_itself(database):
    batch = deduped(by=["email"], within="forever")
    lead = add(database, email="a@x.example")
    depart(database, batch, "early", at=FRIDAY, keep_for_next=True)
    assert gone(database, batch, "run-2") == ([lead], {})


def test_no_value_is_stored_readably(database):
    batch = deduped(by=["email"], within="forever")
    add(database, email="a@x.example")
    gone(database, batch)
    add(database, email="b@x.example")
    gone(database, batch, "run-2")
    ((key,),) = rows(database, "SELECT key FROM lead_key")
    assert "x.example" not in str(key)
