"""Every condition twice, as batches for a real Airflow: one of each pair departs, of the other people can read why not."""

from dataclasses import dataclass
from datetime import datetime, timedelta


def zone_where_it_is(hour: int, now: datetime) -> str:
    """A zone whose clock shows this hour at `now` (UTC)."""
    ahead = (hour - now.hour) % 24
    ahead = ahead - 24 if ahead > 12 else ahead
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"  # its signs are the other way round


NOON, AFTERNOON, LATE_EVENING = "{noon}", "{afternoon}", "{late_evening}"
"""Zones where it is that late. Leads of these tests were received an hour ago."""


def places(now: datetime) -> dict[str, str]:
    """What stands for the names in braces when the batches are made, at `now` (UTC); the clock goes on after that."""
    return {
        NOON: zone_where_it_is(12, now),
        AFTERNOON: zone_where_it_is(15, now),
        LATE_EVENING: zone_where_it_is(22, now),
        "{soon}": f"{now + timedelta(seconds=90):%H:%M}",
        "{later}": f"{now + timedelta(minutes=40):%H:%M}",
    }


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A condition: the batch that meets it, the one that does not, and what people read of that one."""

    goes: str
    stays: str
    reason: str
    """A regular expression."""
    task: str = "extract"
    """Whose XCom `reason` Airflow shows."""
    state: str = "skipped"
    """In which that task is."""


_WAITS_UNTIL = r"waits until \w{{3}} [-\d]{{10}} {at} (UTC[-+]\d\d|GMT) \(.*\d\d:\d\d UTC\): "
"""A time on the clock of a zone of these batches, which have no names, and in UTC."""

PAIRS = {
    "minimum": Pair(goes="meets_them_all", stays="too_few", reason="5 leads may go, the minimum is 6"),
    "longest wait": Pair(
        goes="waited_enough", stays="waited_little", reason="5 leads may go, the minimum is 6"
    ),
    "maximum": Pair(
        goes="meets_them_all",
        stays="too_many",
        reason="more leads than are believed: 5 may go, the maximum is 4",
        state="failed",
    ),
    "only if": Pair(goes="meets_them_all", stays="without_a_sixth", reason="sixth"),
    "a query": Pair(
        goes="meets_them_all",
        stays="query_false",
        reason="not ready: waited in vain for what the query asks for",
        task="wait",
        state="failed",
    ),
    "a file": Pair(
        goes="at_an_event",
        stays="file_missing",
        reason="not ready: waited in vain for the file .*ready.not",
        task="wait",
        state="failed",
    ),
    "an asset": Pair(
        goes="crossing",
        stays="asset_missing",
        reason="not ready: waited in vain for an update of the asset prices_never",
        task="wait",
        state="failed",
    ),
    "business hours": Pair(
        goes="meets_them_all",
        stays="by_night",
        reason=_WAITS_UNTIL.format(at="09:00") + r"\w{3} 2[23]:\d\d is after 17:00, when business hours end",
        task="deliver.drop",
        state="up_for_reschedule",
    ),
    "a blackout": Pair(
        goes="meets_them_all",
        stays="in_the_blackout",
        reason=_WAITS_UNTIL.format(at="23:45") + r"\w{3} 2[23]:\d\d is in a blackout .*backup",
        task="deliver.drop",
        state="up_for_reschedule",
    ),
    "the window": Pair(
        goes="meets_them_all",
        stays="of_yesterday",
        reason="no lead waits that may go .waiting: 5 received after the window",
    ),
    "ahead of time": Pair(
        goes="built_in_time",
        stays="built_ahead",
        reason=r"waits until \w{3} [-\d]{10} \d\d:\d\d UTC: it was built ahead of its departure",
        task="deliver.drop",
        state="up_for_reschedule",
    ),
    "quiet hours": Pair(
        goes="meets_them_all",
        stays="asleep",
        reason="no lead waits that may go .waiting: 5 in their quiet hours",
    ),
    "a hold": Pair(goes="resumed", stays="on_hold", reason="on hold by kim since .*: contract under review"),
    "a hold on a destination": Pair(
        goes="resumed",
        stays="destination_on_hold",
        reason="drop.* on hold by kim since .*: their disk is full",
    ),
    "leads at all": Pair(goes="meets_them_all", stays="no_leads", reason="no lead waits that may go$"),
    "another try": Pair(
        goes="meets_them_all",
        stays="second_chance",
        reason=_WAITS_UNTIL.format(at="14:00") + "drop failed for good",
        task="deliver.drop",
        state="up_for_reschedule",
    ),
}

NEVER_ASKED = {
    "leads for an early departure": ("crossing", "not_crossing"),
    "age for an early departure": ("aged", "not_aged"),
    "an event": ("at_an_event", "at_no_event"),
}
"""Conditions that start a run: where they are not met there is none, and five leads wait."""

LEFT_OUT = {"left_out", "left_out_unready"}
"""A person wants one of their departures left out, of those that come every minute."""

WITHOUT_LEADS = {"crossing", "left_out", "no_leads", "nothing_waits"}
"""Theirs come later, or never."""

ZONES = {"meets_them_all": NOON, "asleep": LATE_EVENING}
"""Where the leads of a batch are."""

BY_THEMSELVES = {"aged", "built_ahead", "built_in_time"}
"""They depart without being asked to."""

NEVER = {"not_crossing", "not_aged", "at_no_event"}
"""They do not."""

HELD = {"by_night", "second_chance", "built_ahead", "in_the_blackout"}
"""Their deliver task waits for another time of day."""

_QUIET = {"select": {"quiet_hours": {"from": "21:00", "to": "08:00", "zone_by": "zone"}}}
_BLACKOUT = {"at": ["10:00"], "calendar": "late_backup"}


def _only_if(number: int, name: str) -> dict:
    return {"only_if": [{"name": name, "leads": {"field": "n", "equals": number}}]}


def _ready(**keys) -> dict:
    return {"conditions": {"ready": {**keys, "timeout": "2s", "every": "1s"}}}


def _sql(query: str) -> dict:
    return _ready(sql={"connection": "scoring", "query": query})


def _early(**keys) -> dict:
    return {
        "schedule": {"at": ["09:00"], "on": ["mon"], "timezone": AFTERNOON},
        "conditions": {"depart_early": {**keys, "every": "1s"}},
    }


_EACH_MINUTE = {"every": "1 minute", "missed": "each"}
"""No run stands for two departures, however slow the machine is."""

BATCHES = {
    "meets_them_all": {
        "conditions": {
            "min_leads": 5,
            "max_leads": 5,
            **_only_if(1, "first"),
            "ready": {"sql": {"connection": "scoring", "query": "SELECT true"}},
        },
        "select": {**_QUIET["select"], "window": {"period": "day"}},
        "schedule": {"at": ["10:00"], "calendar": "hours_and_backup"},
        "timezone": NOON,
        "deadline": "1h",
    },
    "too_few": {"conditions": {"min_leads": 6}},
    "waited_enough": {"conditions": {"min_leads": 6, "max_wait": "30m"}},
    "waited_little": {"conditions": {"min_leads": 6, "max_wait": "3d"}},
    "too_many": {"conditions": {"max_leads": 4}},
    "without_a_sixth": {"conditions": _only_if(6, "sixth")},
    "query_false": _sql("SELECT 0"),
    "asset_missing": _ready(asset="prices_never"),
    "in_the_blackout": {"schedule": _BLACKOUT, "timezone": LATE_EVENING},
    "of_yesterday": {"select": {"window": {"period": "day", "which": "previous"}}, "timezone": NOON},
    "built_in_time": {"schedule": {"at": ["{soon}"], "generate_before": "10m"}, "timezone": "UTC"},
    "built_ahead": {"schedule": {"at": ["{later}"], "generate_before": "45m"}, "timezone": "UTC"},
    "asleep": _QUIET,
    "resumed": {},
    "on_hold": {},
    "destination_on_hold": {},
    "no_leads": {},
    "not_crossing": _early(leads=6),
    "aged": _early(oldest="30m"),
    "not_aged": _early(oldest="3d"),
    "at_no_event": {"schedule": {"on_asset": "prices_never"}},
    "left_out": {"schedule": _EACH_MINUTE, "timezone": "UTC"},
    "left_out_unready": {
        "schedule": _EACH_MINUTE,
        "timezone": "UTC",
        "conditions": {"ready": {"file": {"path": "{ready}.not"}, "timeout": "2s", "every": "1s"}},
    },
}
"""Each delivers the leads of a flow with its own name."""

_HOURS = {"opens": "09:00", "closes": "17:00"}
_BLACKOUTS = [
    {
        "starts": "21:00",
        "ends": "23:45",
        "on": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        "reason": "backup",
    }
]
CALENDARS = {
    "nine_to_five": {"hours": _HOURS, "weekend": []},
    "late_backup": {"blackouts": _BLACKOUTS, "weekend": []},
    "hours_and_backup": {"hours": _HOURS, "blackouts": _BLACKOUTS, "weekend": []},
}
