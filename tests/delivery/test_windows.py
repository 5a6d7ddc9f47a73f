"""Windows and quiet hours through the claim: every lead lands in exactly one delivery, and none is lost."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from zoneinfo import ZoneInfo

import pytest

from batches import add_leads, carried, make_batch, rows, waiting
from leadferry.batch.model import Batch
from leadferry.batch.outlook import outlooks
from leadferry.delivery.extract import Trigger
from leadferry.delivery.extract import extract as claim_leads
from leadferry.delivery.later import not_yet
from leadferry.delivery.params import DeliverNow
from leadferry.delivery.redelivery import ByHand, claim_redelivery
from leadferry.delivery.redelivery_params import Redeliver
from leadferry.errors import DepartureRefusedError
from leadferry.schedule import latest_departure
from leadferry.states import DeliveryState

NEW_YORK = ZoneInfo("America/New_York")
TICK = timedelta(microseconds=1)
US = {"id": "us", "closed": {"2026-01-16": "day off", "2026-01-19": "Martin Luther King Jr. Day"}}


def local(day, at="00:00"):
    return datetime.fromisoformat(f"2026-01-{day:02}T{at}").replace(tzinfo=NEW_YORK)


def batch(**keys):
    return make_batch(timezone="America/New_York", **keys)


def weekly(**keys):
    return batch(select={"window": {"period": "week", "days": "mon-fri"}}, **keys)


def depart(database, one, at, run_id=None, **keys):
    return claim_leads(
        database, one, Trigger(run_id=run_id or at.isoformat(), departs_at=at.astimezone(UTC), **keys)
    )


def window(database, claimed):
    ((begins, ends),) = rows(
        database, "SELECT window_from, window_to FROM delivery WHERE id = :id", id=claimed.delivery_id
    )
    return begins, ends


# --- windows


def test_without_a_window_a_departure_takes_all_that_waits(database):
    leads = [add_leads(database, received_at=at)[0] for at in (local(5), local(9, "17:00"))]
    claimed = depart(database, batch(), local(9, "09:00"))
    assert carried(database, claimed.delivery_id) == leads


def test_since_previous_ends_at_the_time_of_the_departure_however_late_the_claim(database):
    one = batch(select={"window": "since_previous"})
    before = add_leads(database, received_at=local(5, "09:00") - TICK)
    at = add_leads(database, received_at=local(5, "09:00"))
    first = depart(database, one, local(5, "09:00"))
    assert carried(database, first.delivery_id) == before
    second = depart(database, one, local(6, "09:00"))
    assert carried(database, second.delivery_id) == at
    assert window(database, second) == (local(5, "09:00"), local(6, "09:00"))


@pytest.mark.req("R052", "R054")
@pytest.mark.parametrize(
    ("rule", "missed"),
    [
        ("all_pending", "each"),
        ("since_previous", "combine"),
        ({"period": "day"}, "each"),
        ({"period": "day", "which": "previous"}, "combine"),
        ({"period": "week", "days": "mon-fri"}, "combine"),
        ({"period": "month"}, "skip"),
    ],
)
def test_the_preview_tells_the_windows_that_the_deliveries_have(database, rule, missed):
    schedule = {"at": ["00:00", "09:00", "17:30"], "missed": missed}
    one = batch(schedule=schedule, select={"window": rule}, empty="header_only")
    upcoming = list(islice(outlooks(one, after=local(8, "12:00")), 12))
    depart(database, one, latest_departure(one.schedule, timezone=one.timezone, by=local(8, "12:00")).utc)
    for day in range(7, 13):
        add_leads(database, received_at=local(day, "13:00"))
    deliveries = [depart(database, one, outlook.departure.utc) for outlook in upcoming]

    told = [(outlook.window.begins, outlook.window.ends) for outlook in upcoming]
    assert [window(database, claimed) for claimed in deliveries] == told


@pytest.mark.req("R052")
def test_a_friday_delivery_holds_the_week_up_to_its_departure(database):
    received = [local(5), local(7, "12:00"), local(9, "17:00") - TICK]
    week = [add_leads(database, received_at=at)[0] for at in received]
    later = add_leads(database, received_at=local(9, "17:00"))
    claimed = depart(database, weekly(), local(9, "17:00"))
    assert carried(database, claimed.delivery_id) == week
    assert window(database, claimed) == (local(5), local(9, "17:00"))
    assert waiting(database) == later


@pytest.mark.req("R052")
def test_leads_on_a_boundary_land_in_exactly_one_week(database):
    edges = [local(9, "17:00") + n * TICK for n in (-1, 0, 1)] + [local(12) + n * TICK for n in (-1, 0, 1)]
    leads = [add_leads(database, received_at=at)[0] for at in edges]
    first, second = (depart(database, weekly(), local(day, "17:00")) for day in (9, 16))
    assert carried(database, first.delivery_id) == leads[:1]
    assert carried(database, second.delivery_id) == leads[1:]
    assert window(database, second) == (local(12), local(16, "17:00"))


@pytest.mark.req("R052")
def test_a_lead_that_comes_late_goes_with_the_next_window_and_only_with_it(database):
    on_time = add_leads(database, received_at=local(7))
    first = depart(database, weekly(), local(9, "17:00"))
    late = add_leads(database, received_at=local(6))
    assert carried(database, first.delivery_id) == on_time
    assert carried(database, depart(database, weekly(), local(16, "17:00")).delivery_id) == late
    assert waiting(database) == []


@pytest.mark.req("R052", "R051", "C30", "C32")
def test_a_departure_by_hand_within_the_week_takes_what_is_there_and_the_friday_the_rest(database):
    early, rest = (add_leads(database, received_at=local(day)) for day in (5, 8))
    by_hand = depart(database, weekly(), local(7, "12:00"), actor="dana")
    friday = depart(database, weekly(), local(9, "17:00"))
    assert [carried(database, one.delivery_id) for one in (by_hand, friday)] == [early, rest]
    assert window(database, friday) == (local(7, "12:00"), local(9, "17:00"))


@pytest.mark.req("R053")
@pytest.mark.parametrize(
    ("departs_at", "begins", "ends"),
    [
        (local(15, "17:00"), local(12), local(15, "17:00")),  # the day before the free Friday
        (local(16, "17:00"), local(12), local(16)),  # on the free Friday itself
        (local(17, "08:00"), local(12), local(16)),  # on the Saturday after it
        (local(23, "17:00"), local(20), local(23, "17:00")),  # a free Monday
    ],
)
def test_a_short_week_covers_only_its_open_days(database, departs_at, begins, ends):
    schedule = {"at": ["17:00"], "on": ["fri"], "calendar": US, "on_closed_day": "previous"}
    add_leads(database, received_at=begins)
    claimed = depart(database, weekly(schedule=schedule), departs_at)
    assert window(database, claimed) == (begins, ends)


@pytest.mark.parametrize(
    ("rule", "departs_at", "begins", "ends"),
    [
        ({"period": "week"}, local(12), local(5), local(12)),
        ({"period": "week", "which": "previous"}, local(14, "09:00"), local(5), local(12)),
        ({"period": "week", "which": "previous"}, local(12), local(5), local(12)),
        ({"period": "day", "which": "previous"}, local(14), local(13), local(14)),
        ({"period": "week", "days": "sat-fri"}, local(16, "17:00"), local(10), local(16, "17:00")),
        ({"period": "day", "which": "previous"}, local(14, "09:00"), local(13), local(14)),
        ({"period": "day"}, local(14, "09:00"), local(14), local(14, "09:00")),
        ({"period": "month"}, local(14, "09:00"), local(1), local(14, "09:00")),
    ],
)
def test_periods(database, rule, departs_at, begins, ends):
    add_leads(database, received_at=begins)
    claimed = depart(database, batch(select={"window": rule}), departs_at)
    assert window(database, claimed) == (begins, ends)


def test_a_window_over_the_night_of_summer_time_begins_at_local_midnight():
    rule = weekly().select.window
    found = rule.window(datetime(2026, 3, 13, 21, tzinfo=UTC), zone=NEW_YORK)
    assert found.begins == datetime(2026, 3, 9, tzinfo=NEW_YORK)
    found = batch(select={"window": {"period": "day", "which": "previous"}}).select.window.window(
        datetime(2026, 3, 9, 13, tzinfo=UTC), zone=NEW_YORK
    )
    assert found.ends - found.begins == timedelta(hours=23)


@pytest.mark.req("R052")
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_arrives_whenever_every_lead_is_in_exactly_one_delivery(database, seed):
    random = Random(seed)  # a test that can be repeated
    one, leads, taken = weekly(), [], []
    for day in (9, 16, 23, 30):
        for _ in range(6):
            received_at = local(day, "17:00") + timedelta(seconds=random.choice([-400_000, -1, 0, 1, 90_000]))
            leads += add_leads(database, received_at=received_at)
        claimed = depart(database, one, local(day, "17:00"))
        if claimed.included:
            taken += carried(database, claimed.delivery_id)
    taken += waiting(database)
    assert sorted(taken) == leads


@pytest.mark.req("R039")
def test_the_period_of_a_week_is_what_a_mail_calls_it(ferry):
    from leadferry.delivery.variables import file_variables

    fiscal = {"id": "us", "fiscal": {"starts": "04-01"}}
    one = weekly(schedule={"at": ["17:00"], "on": ["fri"], "calendar": fiscal})
    add_leads(ferry.database, received_at=local(7))
    claimed = depart(ferry.database, one, local(9, "17:00"))
    about = file_variables(one, ferry.delivery(claimed))["delivery"]
    assert about["fiscal_year"] == "2026"
    assert about["fiscal_quarter"] == "Q4"
    assert about["fiscal_period"] == "P10"
    assert "01/05" in about["period"] or "2026-01-05" in about["period"], about["period"]


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ("sometimes", "is not one of all_pending, since_previous"),
        ({"period": "day", "days": "mon-fri"}, "days goes with period: week"),
        ({"period": "week", "days": "mon-fry"}, "is not one of mon"),
        ({"period": "week", "days": ["mon", "wed"]}, "days that follow each other"),
        ({"period": "week", "days": []}, "days that follow each other"),
        (7, "must be all_pending, since_previous or a period"),
    ],
)
def test_a_window_that_cannot_be_meant_is_refused(window, told):
    with pytest.raises(ValueError, match=told):
        batch(select={"window": window})


# --- the most leads


def test_more_leads_than_are_believed_stay_and_go_when_a_person_says_so(database):
    leads = add_leads(database, 4)
    one = batch(conditions={"max_leads": 3})
    with pytest.raises(
        DepartureRefusedError, match="more leads than are believed: 4 may go, the maximum is 3"
    ):
        depart(database, one, local(5))
    assert waiting(database) == leads
    claimed = depart(database, one, local(6), actor="dana", params=DeliverNow(ignore_maximum=True))
    assert (claimed.state, claimed.included) == (DeliveryState.CLAIMED, 4)


def test_as_many_as_the_maximum_go(database):
    add_leads(database, 3)
    assert depart(database, batch(conditions={"max_leads": 3}), local(5)).included == 3


@pytest.mark.req("R045")
@pytest.mark.parametrize("order", ["oldest", "random"])
def test_the_fewest_and_the_most_leads_count_what_may_go_and_not_what_a_limit_leaves_of_it(database, order):
    """An import that ran twice is one although the file is small; and ten that wait are ten when three are asked for."""
    leads = add_leads(database, 10)
    asked = {"actor": "dana", "params": DeliverNow(limit=3, order=order)}
    with pytest.raises(DepartureRefusedError, match="10 may go, the maximum is 9"):
        depart(database, batch(conditions={"max_leads": 9}), local(5), **asked)
    under = depart(database, batch(conditions={"min_leads": 11}), local(6), **asked)
    assert (under.state, under.reason) == (
        DeliveryState.SKIPPED,
        "10 leads may go, the minimum is 11",
    )
    assert waiting(database) == leads
    claimed = depart(database, batch(conditions={"min_leads": 10, "max_leads": 10}), local(7), **asked)
    assert (claimed.state, claimed.included) == (DeliveryState.CLAIMED, 3)
    assert rows(database, "SELECT left_waiting FROM delivery WHERE id = :id", id=claimed.delivery_id) == [
        (7,)
    ]


@pytest.mark.req("R045")
def test_a_lead_that_waited_long_enough_counts_also_where_a_limit_takes_newer_ones_first(database):
    now = datetime.now(tz=UTC)
    add_leads(database, received_at=now - timedelta(hours=5))
    add_leads(database, 5, received_at=now - timedelta(minutes=1))
    conditions = {"min_leads": 10, "max_wait": "6h"}
    newest = {"order": "newest", "limit": 3}
    assert depart(database, batch(select=newest, conditions=conditions), local(5)).included == 0
    conditions["max_wait"] = "4h"
    assert depart(database, batch(select=newest, conditions=conditions), local(6)).included == 3


@pytest.mark.req("R045")
def test_leads_that_a_cap_leaves_do_not_make_the_minimum_and_people_read_that(database):
    add_leads(database, 12)
    capped = batch(
        select={"caps": [{"name": "daily", "leads": 3, "per": "day"}]}, conditions={"min_leads": 10}
    )
    assert depart(database, capped, local(5)).reason == (
        "3 leads may go, the minimum is 10; daily is used up; leads that stay in the queue: 9"
    )


# --- quiet hours

NIGHT = {"from": "21:00", "to": "08:00"}


def quiet(**keys):
    return batch(select={"quiet_hours": {**NIGHT, **keys}})


def by_field(database, values, field="state"):
    return {value: add_leads(database, received_at=local(5), fields={field: value})[0] for value in values}


def at(clock):
    """A moment in the far future, so that the quiet hours are those of its time and not of the test's."""
    return datetime.fromisoformat(f"2099-01-13T{clock}").replace(tzinfo=NEW_YORK)


@pytest.mark.req("F54")
def test_a_lead_in_california_stays_at_eight_in_new_york_and_goes_when_it_is_eight_there(database):
    leads = by_field(database, ["NY", "CA"])
    first = depart(database, quiet(), at("08:00"))
    assert carried(database, first.delivery_id) == [leads["NY"]]
    assert (first.withheld, waiting(database)) == (0, [leads["CA"]])
    still = depart(database, quiet(), at("10:59"))
    assert still.state is DeliveryState.SKIPPED
    second = depart(database, quiet(), at("11:00"))
    assert carried(database, second.delivery_id) == [leads["CA"]]


@pytest.mark.req("F54")
@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("order", ["oldest", "newest", "random"])
def test_quiet_leads_stay_with_every_order_and_limit(database, limit, order):
    leads = by_field(database, ["CA", "NY", " ca ", "California"])
    one = batch(select={"quiet_hours": NIGHT, "limit": limit, "order": order})
    claimed = depart(database, one, at("09:00"))
    assert carried(database, claimed.delivery_id) == [leads["NY"]]
    assert waiting(database) == sorted(set(leads.values()) - {leads["NY"]})


@pytest.mark.req("F54")
def test_a_state_of_two_zones_waits_for_the_later_one_and_an_unknown_one_keeps_the_batchs_time(database):
    leads = by_field(database, ["TX", "FL", "ZZ", ""])
    claimed = depart(database, quiet(), at("08:00"))
    assert set(carried(database, claimed.delivery_id)) == {leads["ZZ"], leads[""]}
    claimed = depart(database, quiet(), at("09:00"))
    assert carried(database, claimed.delivery_id) == [leads["FL"]]  # its west keeps the time of Chicago
    claimed = depart(database, quiet(), at("10:00"))
    assert carried(database, claimed.delivery_id) == [leads["TX"]]  # El Paso keeps the time of Denver


@pytest.mark.req("F54")
def test_the_zone_may_stand_in_a_field_of_the_lead(database):
    leads = by_field(database, ["Europe/Berlin", "America/Los_Angeles"], field="tz")
    claimed = depart(database, quiet(zone_by="zone", field="tz"), at("09:00"))
    assert carried(database, claimed.delivery_id) == [leads["Europe/Berlin"]]


@pytest.mark.req("F54")
def test_a_lead_that_fails_a_rule_by_night_is_not_withheld_before_its_day(database):
    rule = {"name": "vip", "field": "vip", "equals": "yes"}
    by_field(database, ["CA"])
    one = batch(select={"quiet_hours": NIGHT, "rules": [rule]})
    assert depart(database, one, at("09:00")).withheld == 0
    assert len(waiting(database)) == 1
    assert depart(database, one, at("12:00")).withheld == 1


# --- quiet hours are those of the moment at which it is really sent

NINE_TO_FIVE = {"id": "open", "weekend": [], "hours": {"opens": "09:00", "closes": "17:00"}}


def nine_to_five_in(timezone, **schedule):
    return make_batch(
        timezone=timezone,
        schedule={"at": ["10:00"], "calendar": NINE_TO_FIVE, **schedule},
        select={"quiet_hours": NIGHT},
    )


@pytest.mark.req("F54", "R042")
@pytest.mark.parametrize(
    "asked", [{"actor": "dana"}, {"actor": "event"}, {}], ids=["by hand", "early", "late"]
)
def test_what_waits_for_business_hours_holds_no_lead_in_whose_night_it_will_be_sent(database, asked):
    leads = by_field(database, ["CA", "NY"])
    moment = at("16:44").astimezone(UTC)  # 13:44 in California; the recipient opens at 01:00 or 02:00 there
    evening = nine_to_five_in("UTC")
    claimed = depart(database, evening, moment, **asked)
    assert waiting(database) == list(leads.values()), "04:00 or 05:00 in New York"
    assert claimed.reason == "no lead waits that may go (waiting: 2 in their quiet hours)"
    at_once = DeliverNow(override_window=True)
    sent = depart(database, evening, moment, run_id="at once", actor="dana", params=at_once)
    assert not_yet(database, sent.delivery_id, now=moment) is None
    assert carried(database, sent.delivery_id) == list(leads.values())


@pytest.mark.req("F54", "R042")
def test_a_lead_whose_night_is_over_when_it_is_sent_goes(database):
    leads = by_field(database, ["NY", "CA"])
    one = nine_to_five_in("America/New_York")
    claimed = depart(database, one, at("23:00"), actor="dana")
    found = not_yet(database, claimed.delivery_id, now=at("23:00").astimezone(UTC))
    assert found.until.astimezone(NEW_YORK).hour == 9
    assert carried(database, claimed.delivery_id) == [leads["NY"]]
    assert waiting(database) == [leads["CA"]]


@pytest.mark.req("F54", "R044")
def test_the_night_of_files_that_are_built_ahead_is_that_of_their_departure(database):
    leads = by_field(database, ["NY", "CA"])
    one = nine_to_five_in("America/New_York", at=["11:00"], generate_before="4h")
    claimed = depart(database, one, at("11:00"))  # claimed at any time before
    assert carried(database, claimed.delivery_id) == list(leads.values())


@pytest.mark.req("F54", "R042")
def test_a_redelivery_that_waits_for_business_hours_leaves_out_whom_it_would_wake(ferry):
    (lead,) = by_field(ferry.database, ["CA"]).values()
    by = ByHand(run_id="by-hand", at=at("16:44").astimezone(UTC), actor="kim")
    for override in (False, True):
        asked = {"lead_ids": [lead], "override_window": override, "dry_run": True}
        params = Redeliver.parse({"batch": "acme", "destination": "drop", **asked})
        left_out = claim_redelivery(ferry.database, nine_to_five_in("UTC"), params, by).left_out
        assert left_out == ({} if override else {"in quiet hours (override_window)": 1})


def test_what_the_batch_says_of_windows_and_quiet_hours_survives_being_frozen():
    one = batch(
        select={"window": {"period": "week", "days": "sat-fri"}, "quiet_hours": NIGHT},
        conditions={
            "max_leads": 9,
            "ready": {"sql": {"connection": "c", "query": "SELECT 1"}, "timeout": "2h"},
            "depart_early": {"leads": 5, "oldest": "2h"},
        },
    )
    assert Batch.model_validate(one.model_dump(mode="json")) == one
