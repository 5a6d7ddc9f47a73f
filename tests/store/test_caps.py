"""Caps: never one lead over in a period, what becomes of those beyond, and who hears of it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from batches import add_leads, carried, depart, kept_back, make_batch, rows, scalars, waiting
from leadferry.batch.selection import Cap, Select
from leadferry.states import DeliveryState
from leadferry.store import ledger, overflow, settling

NEW_YORK = ZoneInfo("America/New_York")
FRIDAY = datetime(2026, 1, 30, 14, 0, tzinfo=UTC)
EARLIER = FRIDAY - timedelta(days=60)


def local(*clock):
    """A moment by the batch's clock."""
    return datetime(*clock, tzinfo=NEW_YORK)


def capped(*caps, **keys):
    return make_batch(timezone="America/New_York", select={"caps": list(caps), **keys})


def take(database, batch, at, number=None):
    """How many leads go at a moment; each call is a run of its own."""
    return depart(database, batch, f"run-{number or at.isoformat()}", at=at).included


@pytest.mark.req("R186")
def test_the_sixth_lead_under_a_daily_cap_of_five_stays_and_goes_in_the_next_period(database):
    leads = add_leads(database, 6, received_at=EARLIER)
    batch = capped({"leads": 5, "per": "day"})
    first = depart(database, batch, "friday", at=FRIDAY)
    assert (first.included, first.left, first.left_reason) == (5, 1, "cap 5 leads per day")
    assert waiting(database) == leads[5:]
    again = depart(database, batch, "friday again", at=FRIDAY + timedelta(hours=1))
    assert again.state is DeliveryState.SKIPPED
    assert again.reason == "cap 5 leads per day is used up; leads that stay in the queue: 1"
    assert take(database, batch, FRIDAY + timedelta(days=1)) == 1


@pytest.mark.req("F21")
@pytest.mark.parametrize(
    ("per", "inside", "beyond"),
    [
        ("hour", local(2026, 1, 30, 9, 59, 59), local(2026, 1, 30, 10, 0)),
        ("day", local(2026, 1, 30, 23, 59, 59), local(2026, 1, 31, 0, 0)),
        ("week", local(2026, 2, 1, 23, 59, 59), local(2026, 2, 2, 0, 0)),
        ("month", local(2026, 1, 31, 23, 59, 59), local(2026, 2, 1, 0, 0)),
        ("total", local(2030, 1, 1), None),
    ],
)
def test_a_period_ends_by_the_clock_of_the_batch(database, per, inside, beyond):
    add_leads(database, 5, received_at=EARLIER)
    batch = capped({"leads": 2, "per": per})
    assert take(database, batch, FRIDAY.replace(minute=1)) == 2
    assert take(database, batch, inside) == 0
    if beyond is not None:
        assert take(database, batch, beyond) == 2


@pytest.mark.req("F21")
@pytest.mark.parametrize(
    ("day", "hours"),
    [(local(2026, 3, 8, 12), 23), (local(2026, 11, 1, 12), 25), (local(2026, 1, 30), 24)],
)
def test_a_day_has_as_many_hours_as_the_zone_gives_it(day, hours):
    period = Cap(leads=1, per="day").period_at(day, timezone="America/New_York")
    assert period.ends.astimezone(UTC) - period.begins.astimezone(UTC) == timedelta(hours=hours)


@pytest.mark.req("F21")
def test_the_hour_that_the_clock_shows_twice_is_two_hours():
    shown_twice = [datetime(2026, 11, 1, 5, 30, tzinfo=UTC), datetime(2026, 11, 1, 6, 30, tzinfo=UTC)]
    first, second = (
        Cap(leads=1, per="hour").period_at(one, timezone="America/New_York") for one in shown_twice
    )
    assert first.ends == second.begins


@pytest.mark.req("F21")
def test_a_cap_for_some_weekdays_counts_on_no_other(database):
    add_leads(database, 9, received_at=EARLIER)
    batch = capped({"leads": 2, "per": "day", "on": ["fri"]}, limit=4)
    assert take(database, batch, FRIDAY) == 2
    assert take(database, batch, FRIDAY + timedelta(days=1)) == 4


@pytest.mark.req("F21")
def test_of_several_caps_the_one_with_the_least_left_counts(database):
    add_leads(database, 9, received_at=EARLIER)
    batch = capped({"leads": 3, "per": "day"}, {"leads": 4, "per": "week"})
    assert take(database, batch, FRIDAY) == 3
    following = depart(database, batch, "saturday", at=FRIDAY + timedelta(days=1))
    assert (following.included, following.left_reason) == (1, "cap 4 leads per week")


@pytest.mark.req("F21")
def test_revenue_is_counted_by_a_fixed_price(database):
    add_leads(database, 5, received_at=EARLIER)
    batch = capped({"revenue": "10.00", "per": "day", "price": "3.50"})
    assert take(database, batch, FRIDAY) == 2
    assert scalars(database, "SELECT revenue FROM delivery") == [Decimal("7.00")]
    assert take(database, batch, FRIDAY + timedelta(hours=1)) == 0


@pytest.mark.req("F21")
def test_revenue_is_counted_by_a_field_and_a_lead_without_a_price_is_withheld(database):
    prices = ["4.00", "n/a", "5.5", -3, "0.51", "0.50"]
    leads = [add_leads(database, received_at=EARLIER + timedelta(hours=n), fields={"price": price})[0]
             for n, price in enumerate(prices)]  # fmt: skip
    batch = capped({"revenue": 10, "per": "day", "price_field": "price"})
    claimed = depart(database, batch, at=FRIDAY)
    # The fifth lead does not fit; the sixth would, but does not go before it.
    assert carried(database, claimed.delivery_id) == [leads[0], leads[2]]
    assert kept_back(database, claimed.delivery_id) == {leads[1]: "no price", leads[3]: "no price"}
    assert waiting(database) == leads[4:]
    ledger.withhold(database, claimed.delivery_id, {leads[2]: "field Phone: phone"})
    assert scalars(database, "SELECT revenue FROM delivery") == [Decimal("4.00")]
    rest = depart(database, batch, "later", at=FRIDAY + timedelta(hours=1))
    assert carried(database, rest.delivery_id) == leads[4:]


@pytest.mark.req("F21")
def test_what_is_beyond_a_cap_that_drops_is_withheld_with_its_name(database):
    leads = add_leads(database, 5, received_at=EARLIER)
    batch = capped({"name": "daily_cap", "leads": 2, "per": "day", "overflow": "drop"})
    claimed = depart(database, batch, at=FRIDAY)
    assert carried(database, claimed.delivery_id) == leads[:2]
    assert kept_back(database, claimed.delivery_id) == dict.fromkeys(leads[2:], "daily_cap")
    late = add_leads(database, received_at=EARLIER)
    nothing = depart(database, batch, "later", at=FRIDAY + timedelta(hours=1))
    assert (nothing.state, nothing.withheld) == (DeliveryState.SKIPPED, 1)
    assert kept_back(database, nothing.delivery_id) == {late[0]: "daily_cap"}
    assert waiting(database) == []


def next_buyer(database):
    return waiting(database, "second_buyer")


OVERFLOWING = {"leads": 2, "per": "day", "overflow": "next", "next_batch": "second_buyer"}


@pytest.mark.req("F21")
def test_what_is_beyond_a_cap_goes_to_the_next_batch_once_nothing_departs(database):
    leads = add_leads(database, 3, received_at=EARLIER)
    batch = capped({**OVERFLOWING, "leads": 0})
    assert depart(database, batch, at=FRIDAY).state is DeliveryState.SKIPPED
    assert next_buyer(database) == leads


@pytest.mark.req("F21")
def test_leads_that_overflow_come_back_when_the_delivery_fails_and_are_nobody_elses(database):
    leads = add_leads(database, 3, received_at=EARLIER)
    claimed = depart(database, capped(OVERFLOWING), at=FRIDAY)
    settling.settle(database, claimed.delivery_id)
    assert (waiting(database), next_buyer(database)) == (leads, [])
    assert scalars(database, "SELECT count(*) FROM passed_on") == [0]


@pytest.mark.req("F21")
def test_leads_that_overflow_wait_for_the_next_batch_when_the_delivery_is_settled(ferry_done, database):
    leads = add_leads(database, 3, received_at=EARLIER)
    claimed = depart(database, capped(OVERFLOWING), at=FRIDAY)
    assert next_buyer(database) == []
    ferry_done(claimed)
    ferry_done(claimed)  # a second call changes nothing
    assert (waiting(database), next_buyer(database)) == ([], leads[2:])


@pytest.fixture
def ferry_done(database):
    """Settle a delivery as delivered, without files: what matters here is what follows."""

    def settle(claimed):
        with database.transaction() as connection:
            overflow.pass_on(connection, claimed.delivery_id)

    return settle


@pytest.mark.req("F21")
def test_a_failed_delivery_gives_its_share_of_the_cap_back(database):
    add_leads(database, 6, received_at=EARLIER)
    batch = capped({"leads": 5, "per": "day"})
    failed = depart(database, batch, "fails", at=FRIDAY)
    settling.settle(database, failed.delivery_id)
    assert take(database, batch, FRIDAY + timedelta(hours=1)) == 5


@pytest.mark.req("F21")
def test_copies_are_limited_by_a_cap_but_use_nothing_of_it_and_tests_ignore_it(database):
    leads = add_leads(database, 6, received_at=EARLIER)
    batch = capped({"leads": 5, "per": "day"})
    early = depart(database, batch, "early", at=FRIDAY, keep_for_next=True)
    assert carried(database, early.delivery_id) == leads[:5]
    assert depart(database, batch, "test", at=FRIDAY, test=True).included == 2
    assert take(database, batch, FRIDAY + timedelta(hours=1)) == 5
    assert (
        depart(database, batch, "early again", at=FRIDAY + timedelta(hours=2), keep_for_next=True).included
        == 0
    )


def levels(claimed):
    return [(cap.name, cap.level, cap.used) for cap in claimed.caps]


@pytest.mark.req("F21")
def test_nearly_reached_and_reached_are_told_once_in_a_period(database):
    add_leads(database, 30, received_at=EARLIER)
    batch = capped({"name": "cap", "leads": 10, "per": "day", "notice_at": 0.5}, limit=5)
    hours = [FRIDAY + timedelta(hours=n) for n in range(4)]
    told = [levels(depart(database, batch, f"run-{n}", at=at)) for n, at in enumerate(hours)]
    assert told == [[("cap", "near", 5)], [("cap", "reached", 10)], [], []]
    tomorrow = depart(database, batch, "tomorrow", at=FRIDAY + timedelta(days=1))
    assert levels(tomorrow) == [("cap", "near", 5)]


@pytest.mark.req("F21")
def test_a_lead_that_does_not_fit_into_the_revenue_left_reaches_the_cap(database):
    add_leads(database, 3, received_at=EARLIER)
    batch = capped({"name": "cap", "revenue": 10, "per": "day", "price": 4})
    assert levels(depart(database, batch, at=FRIDAY)) == [("cap", "reached", 8)]


def test_rules_come_before_caps_and_the_order_decides_who_goes(database):
    leads = add_leads(database, 6, received_at=EARLIER)
    rule = {"name": "late_enough", "field": "n", "at_most": 5}
    batch = capped({"leads": 2, "per": "day"}, rules=[rule], order="newest")
    claimed = depart(database, batch, at=FRIDAY)
    assert carried(database, claimed.delivery_id) == [leads[4], leads[3]]
    assert kept_back(database, claimed.delivery_id) == {leads[5]: "late_enough"}
    assert waiting(database) == leads[:3]


def test_a_cap_that_is_far_away_takes_the_lots_as_they_are(database):
    add_leads(database, 3, received_at=EARLIER)
    before = scalars(database, "SELECT count(*) FROM lot")
    claimed = depart(database, capped({"leads": 500, "per": "day"}), at=FRIDAY)
    assert (claimed.included, claimed.left) == (3, 0)
    assert before == [0]
    assert rows(database, "SELECT count(*), max(delivery_id) FROM lot") == [(1, claimed.delivery_id)]


def test_a_cap_that_was_lowered_below_what_went_keeps_the_rest(database):
    add_leads(database, 9, received_at=EARLIER)
    assert take(database, capped({"leads": 5, "per": "day"}), FRIDAY) == 5
    assert take(database, capped({"leads": 3, "per": "day"}), FRIDAY + timedelta(hours=1)) == 0


@pytest.mark.req("F21")
@pytest.mark.parametrize(
    "cap",
    [
        {"per": "day"},
        {"leads": 1, "revenue": 1, "per": "day", "price": 1},
        {"revenue": 1, "per": "day"},
        {"revenue": 1, "per": "day", "price": 1, "price_field": "price"},
        {"leads": 1, "per": "day", "price": 1},
        {"leads": 1, "per": "week", "on": ["mon"]},
        {"leads": 1, "per": "day", "overflow": "next"},
        {"leads": 1, "per": "day", "next_batch": "other"},
        {"leads": 1, "per": "year"},
    ],
)
def test_a_cap_that_cannot_be_meant_is_refused(cap):
    with pytest.raises(ValidationError):
        Cap.model_validate(cap)


def test_caps_on_revenue_agree_on_the_price_and_names_differ():
    day = {"revenue": 1, "per": "day", "price": 1}
    with pytest.raises(ValidationError, match="the same price"):
        Select.model_validate({"caps": [day, {"revenue": 9, "per": "week", "price": 2}]})
    with pytest.raises(ValidationError, match="two caps are called"):
        Select.model_validate({"caps": [day, day]})


def test_what_is_frozen_is_what_was_written():
    written = {
        "caps": [{"revenue": 2500.00, "per": "day", "price": 3.5, "on": ["mon"]}],
        "dedupe": {"by": ["email", ["last_name", "zip"]], "within": "90d", "read_as": {"zip": "text"}},
        "validate": [{"required": ["email"]}, {"email": "email"}, {"phone": "phone_1"},
                     {"name": "adult", "field": "age", "at_least": 18}],
        "area": {"states": ["CA"], "zips": ["902"]},
        "consent": {"field": "consent", "given_at": "consent_at", "valid_for": "90d"},
    }  # fmt: skip
    select = Select.model_validate(written)
    assert Select.model_validate(select.model_dump(mode="json")) == select
    batch = make_batch(select=written)
    assert type(batch).model_validate(batch.model_dump(mode="json")) == batch
