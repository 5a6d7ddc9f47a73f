"""The guard against a changed mapping while leads wait."""

import pytest

from batches import add_leads, make_batch, rows
from ferry import messages
from leadferry.delivery.field_changes import acknowledge, field_changes
from leadferry.delivery.notices import tell_changed_fields
from leadferry.delivery.params import DeliverNow
from leadferry.errors import DepartureRefusedError

LEAD, EMAIL = {"to": "Lead", "from": "id"}, {"to": "Email", "from": "email"}
UPPER = {"to": "Email", "from": "email", "transform": ["upper"]}


def guarded(policy, *fields, **keys):
    return make_batch(when_fields_change=policy, fields=list(fields or (LEAD, EMAIL)), **keys)


def delivered_once(ferry, policy):
    add_leads(ferry.database)
    ferry.extract(guarded(policy))
    return add_leads(ferry.database)


@pytest.mark.req("F33")
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ((LEAD, EMAIL), None),
        ((LEAD, UPPER), "changed 'Email'"),
        ((EMAIL, LEAD), "another order"),
        ((LEAD,), "removed 'Email'"),
        ((LEAD, {**EMAIL, "to": "Mail"}), "added 'Mail'; removed 'Email'"),
    ],
)
def test_what_changed_is_said_by_the_columns_labels(ferry, fields, told):
    delivered_once(ferry, "notice")
    found = field_changes(ferry.database, guarded("notice", *fields))
    assert (str(found) if found else None) == told


@pytest.mark.req("F33", "C29")
def test_with_acknowledge_leads_wait_until_somebody_said_so(ferry):
    delivered_once(ferry, "acknowledge")
    changed = guarded("acknowledge", LEAD, UPPER)
    with pytest.raises(DepartureRefusedError, match=r"changed 'Email'.*leadferry batches acknowledge acme"):
        ferry.extract(changed, "run-2")
    assert rows(ferry.database, "SELECT count(*) FROM delivery") == [(1,)]
    acknowledge(ferry.database, changed, actor="robin")
    assert ferry.extract(changed, "run-2").included == 1
    ((actor, changes),) = rows(
        ferry.database, "SELECT actor, detail->>'changes' FROM audit WHERE action = 'fields.acknowledge'"
    )
    assert (actor, changes) == ("robin", "changed 'Email'")


@pytest.mark.req("F33")
def test_an_acknowledgement_is_for_these_fields_only(ferry):
    delivered_once(ferry, "acknowledge")
    acknowledge(ferry.database, guarded("acknowledge", LEAD, UPPER), actor="robin")
    with pytest.raises(DepartureRefusedError):
        ferry.extract(guarded("acknowledge", LEAD), "run-2")


@pytest.mark.req("F33")
def test_with_apply_and_notice_the_next_claim_uses_the_new_fields(ferry):
    delivered_once(ferry, "apply")
    assert ferry.extract(guarded("apply", LEAD), "run-2").changed_fields is None
    add_leads(ferry.database)
    claimed = ferry.extract(guarded("notice", LEAD, UPPER), "run-3")
    assert (claimed.included, claimed.changed_fields) == (1, "added 'Email'")


@pytest.mark.req("F33")
def test_a_changed_delivery_is_told_by_mail(ferry, mail):
    delivered_once(ferry, "notice")
    batch = guarded("notice", LEAD, notify={"failure": ["ops@example.com"]})
    tell_changed_fields(batch, ferry.extract(batch, "run-2"))
    ((_, _, told),) = messages(mail)
    assert "removed 'Email'" in told


@pytest.mark.req("F33")
def test_a_test_is_not_held_up(ferry):
    delivered_once(ferry, "acknowledge")
    claimed = ferry.extract(guarded("acknowledge", LEAD), "test", params=DeliverNow(test=True))
    assert claimed.included == 2


@pytest.mark.req("F21", "C03")
def test_a_cap_that_is_reached_says_so_by_mail(ferry, mail):
    from leadferry.delivery.notices import tell_caps

    add_leads(ferry.database, 6)
    cap = {"leads": 5, "per": "total"}
    batch = make_batch(select={"caps": [cap]}, notify={"caps": ["ops@example.com"]})
    tell_caps(batch, ferry.extract(batch))
    ((_, _, told),) = messages(mail)
    assert "cap 5 leads in all is reached: 5 of 5 used. Leads that may go but stay in the queue: 1." in told
