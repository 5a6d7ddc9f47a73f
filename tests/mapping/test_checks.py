"""Checks, areas, consent and the recipient's rules: who is withheld, and with which reason."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from batches import add_leads, carried, depart, kept_back, make_batch, waiting
from leadferry.batch.model import Batch
from leadferry.batch.selection import Area
from leadferry.delivery.params import DeliverNow
from leadferry.formats.xml_schema import FOLDER
from leadferry.mapping.checks import Consent
from leadferry.states import DeliveryState

FRIDAY = datetime(2026, 1, 30, 14, 0, tzinfo=UTC)
EARLIER = FRIDAY - timedelta(days=2)


def judged(database, values, **keys):
    """Who goes and who does not, by their place; `values` are the fields of the leads."""
    leads = [add_leads(database, received_at=EARLIER, fields=fields)[0] for fields in values]
    claimed = depart(database, make_batch(**keys), at=FRIDAY)
    why = kept_back(database, claimed.delivery_id)
    assert sorted([*carried(database, claimed.delivery_id), *why]) == leads
    assert (claimed.included, claimed.withheld) == (len(leads) - len(why), len(why))
    return [why.get(lead) for lead in leads]


@pytest.mark.req("R068")
def test_leads_that_fail_a_check_are_withheld_with_what_is_wrong_and_the_others_go(database):
    checks = [
        {"required": ["email", "zip"]},
        {"email": "email"},
        {"phone": "phone_1"},
        {"name": "adult", "field": "age", "at_least": 18},
    ]
    good = {"email": "ann@example.com", "zip": "10001", "phone_1": "201-555-0123", "age": 30}
    values = [
        good,
        {**good, "zip": "  "},
        {**good, "email": None},
        {**good, "email": "ann@example"},
        {**good, "phone_1": "555"},
        {**good, "phone_1": None},
        {**good, "age": 17},
        {**good, "email": "no address", "age": 17},
    ]
    assert judged(database, values, select={"validate": checks}) == [
        None, "missing zip", "missing email", "invalid email", "invalid phone_1", None, "adult", "invalid email",
    ]  # fmt: skip


@pytest.mark.req("R068")
@pytest.mark.parametrize(
    ("address", "right"),
    [
        ("ann@example.com", True), (" Ann.Lee+tag@mail.example.co.uk ", True), ("o'neil@example.com", True),
        ("ann@example", False), ("ann example@example.com", False), ("ann@@example.com", False),
        (".ann@example.com", False), ("ann..lee@example.com", False), ("ann@-example.com", False),
        ("ann@example.c", False), ("ann@exam_ple.com", False), ("@example.com", False), ("n/a", False),
        ("a" * 250 + "@example.com", False), ("ann@example.com, bob@example.com", False),
    ],
)  # fmt: skip
def test_addresses(database, address, right):
    expected = [None if right else "invalid email"]
    assert judged(database, [{"email": address}], select={"validate": [{"email": "email"}]}) == expected


@pytest.mark.req("R068")
@pytest.mark.parametrize(
    ("region", "number", "right"),
    [
        ("US", "(201) 555-0123", True), ("US", "+1 201 555 0123", True), ("US", "1-201-555-0123 x7", True),
        ("US", 2015550123, True), ("US", "+44 20 7946 0123", True), ("US", "+1 876 555 0123", True),
        ("US", "101-555-0123", False), ("US", "555-0123", False), ("US", "n/a", False), ("US", "+44 12", False),
        ("US", "201-555-01234", False), ("GB", "020 7946 0123", True), ("GB", "0", False),
        ("DE", "030 12345678", True),
    ],
)  # fmt: skip
def test_numbers(database, region, number, right):
    checks = [{"phone": "phone", "region": region}]
    assert judged(database, [{"phone": number}], select={"validate": checks}) == [
        None if right else "invalid phone"
    ]


@pytest.mark.req("R072")
def test_leads_come_from_one_of_the_states_or_from_one_of_the_zip_codes(database, tmp_path):
    (tmp_path / "areas").mkdir()
    (tmp_path / "areas" / "acme.txt").write_text("# downtown\n10001\n10002  # the river\n\n")
    area = {"states": ["ca", "TX"], "zips": ["902"], "zip_file": "areas/acme.txt"}
    batch = make_batch(select={"area": Area.model_validate(area, context={FOLDER: tmp_path}).model_dump()})
    places = [
        ("CA", "1"),
        (" tx ", None),
        ("NY", "90210"),
        ("NY", "10002-1234"),
        ("NY", "10003"),
        (None, None),
    ]
    leads = [add_leads(database, received_at=EARLIER, fields={"state": s, "zip": z})[0] for s, z in places]
    claimed = depart(database, batch, at=FRIDAY)
    assert carried(database, claimed.delivery_id) == leads[:4]
    assert kept_back(database, claimed.delivery_id) == dict.fromkeys(leads[4:], "area")


@pytest.mark.req("R072")
def test_the_zip_codes_of_a_file_are_frozen_with_the_batch(tmp_path):
    (tmp_path / "zips.txt").write_text("10001\n")
    area = Area.model_validate({"zip_file": "zips.txt"}, context={FOLDER: tmp_path})
    frozen = area.model_dump(mode="json")
    (tmp_path / "zips.txt").unlink()
    assert Area.model_validate(frozen) == area
    assert area.prefixes == ["10001"]


@pytest.mark.req("R072")
@pytest.mark.parametrize("path", ["../outside.txt", "missing.txt", "/etc/hostname"])
def test_a_file_that_is_not_in_the_config_folder_is_refused(tmp_path, path):
    (tmp_path / "outside.txt").write_text("10001")
    (tmp_path / "config").mkdir()
    with pytest.raises(ValidationError, match="config folder"):
        Area.model_validate({"zip_file": path}, context={FOLDER: tmp_path / "config"})


YESTERDAY, TOMORROW, ON_THAT_DAY = "{0:%Y-%m-%dT%H:%M:%SZ}", "{1:%Y-%m-%dT%H:%M:%SZ}", "{1:%Y-%m-%d}"
"""A day before the test, and two days after it."""


@pytest.mark.req("R073")
@pytest.mark.parametrize(
    ("consent", "fields", "agreed"),
    [
        ({"field": "ok"}, {"ok": True}, True), ({"field": "ok"}, {"ok": " YES "}, True),
        ({"field": "ok"}, {"ok": False}, False), ({"field": "ok"}, {"ok": "no"}, False), ({"field": "ok"}, {}, False),
        ({"field": "ok", "values": ["granted"]}, {"ok": "yes"}, False),
        ({"given_at": "at", "valid_for": "90d"}, {"at": YESTERDAY}, True),
        ({"given_at": "at", "valid_for": "12h"}, {"at": YESTERDAY}, False),
        ({"given_at": "at", "valid_for": "90d"}, {"at": TOMORROW}, False),
        ({"given_at": "at", "valid_for": "90d"}, {"at": "n/a"}, False),
        ({"until": "end"}, {"end": TOMORROW}, True), ({"until": "end"}, {"end": YESTERDAY}, False),
        ({"until": "end"}, {"end": ON_THAT_DAY}, True), ({"until": "end"}, {"end": "2026-02-30"}, False),
        ({"until": "end"}, {}, False),
        ({"opt_out": ["do_not_sell"]}, {}, True), ({"opt_out": ["do_not_sell"]}, {"do_not_sell": "1"}, False),
    ],
)  # fmt: skip
def test_a_lead_without_consent_is_withheld_as_no_consent(database, consent, fields, agreed):
    days = [datetime.now(UTC) + timedelta(days=number) for number in (-1, 2)]
    told = {name: one.format(*days) if isinstance(one, str) else one for name, one in fields.items()}
    expected = [None if agreed else "no_consent"]
    assert judged(database, [told], select={"consent": consent}) == expected


@pytest.mark.parametrize("consent", [{}, {"given_at": "at"}, {"valid_for": "90d"}])
def test_consent_that_asks_for_nothing_is_refused(consent):
    with pytest.raises(ValidationError):
        Consent.model_validate(consent)


ACME = {"id": "buyer", "name": "Acme", "rules": [{"name": "licensed", "field": "state", "in": ["CA", "TX"]}]}


@pytest.mark.req("R069")
def test_the_recipients_rules_hold_for_all_its_batches_and_before_theirs(database):
    own = {"name": "texas", "field": "state", "equals": "TX"}
    values = [{"state": "TX"}, {"state": "CA"}, {"state": "NY"}]
    found = judged(database, values, recipient=ACME, select={"rules": [own]})
    assert found == [None, "texas", "licensed"]


@pytest.mark.req("R069")
@pytest.mark.parametrize("params", [{"ignore_minimum": True}, {"limit": 1}, {"keep_for_next": True}])
def test_no_parameter_of_a_run_lets_a_lead_past_the_recipients_rules(database, params):
    add_leads(database, received_at=EARLIER, fields={"state": "NY"})
    claimed = depart(database, make_batch(recipient=ACME), at=FRIDAY, **params)
    assert (claimed.state, claimed.included) == (DeliveryState.SKIPPED, 0)
    assert not {"skip_rules", "ignore_rules"} & set(DeliverNow.model_fields)


@pytest.mark.req("R069")
def test_a_column_beyond_the_recipients_fields_and_a_rules_name_used_twice_are_refused():
    with pytest.raises(ValidationError, match="allowed_fields"):
        make_batch(recipient={**ACME, "allowed_fields": ["id"]})
    with pytest.raises(ValidationError, match="has a rule 'licensed' already"):
        make_batch(recipient=ACME, select={"rules": ACME["rules"]})


@pytest.mark.req("R067")
@pytest.mark.parametrize(("californians", "departs"), [(5, False), (6, True)])
def test_a_condition_on_counts_gates_the_run_with_its_reason(database, californians, departs):
    leads = add_leads(database, californians, received_at=EARLIER, fields={"state": "CA"})
    leads += add_leads(database, 3, received_at=EARLIER, fields={"state": "NY"})
    gate = {"name": "enough_ca", "leads": {"field": "state", "equals": "CA"}, "at_least": 6}
    claimed = depart(database, make_batch(conditions={"only_if": [gate]}), at=FRIDAY)
    if departs:
        assert claimed.included == len(leads)
    else:
        assert (claimed.state, claimed.reason) == (
            DeliveryState.SKIPPED,
            "only_if enough_ca: 5 leads meet it, at least 6 must",
        )
        assert sorted(waiting(database)) == leads


@pytest.mark.req("R067")
def test_a_condition_on_counts_may_have_an_upper_end(database):
    add_leads(database, 3, received_at=EARLIER, fields={"state": "NY"})
    gate = {"name": "few_ny", "leads": {"field": "state", "equals": "NY"}, "at_least": 0, "at_most": 2}
    claimed = depart(database, make_batch(conditions={"only_if": [gate]}), at=FRIDAY)
    assert claimed.reason == "only_if few_ny: 3 leads meet it, at most 2 may"


def test_the_effective_batch_survives_being_frozen():
    batch = make_batch(recipient=ACME, select={"validate": [{"required": ["email"]}]})
    assert Batch.model_validate(batch.model_dump(mode="json")) == batch
    assert "validate" in batch.model_dump(mode="json")["select"]
