"""What is said of departures ahead of their time; `tests/delivery/test_windows.py` compares it with what deliveries take."""

from datetime import UTC, datetime
from itertools import islice

import pytest

from batches import make_batch
from leadferry.batch.outlook import outlooks

FRIDAY = datetime(2026, 3, 6, tzinfo=UTC)
TWICE = {"at": ["09:00", "17:00"]}


def ahead(schedule, window="all_pending", *, after=FRIDAY, count=3):
    """Window and time of building of the next departures, on the clock of New York."""
    batch = make_batch(schedule=schedule, select={"window": window}, timezone="America/New_York")
    found = islice(outlooks(batch, after=after), count)
    return [
        [
            moment and f"{moment.astimezone(one.departure.local.tzinfo):%a %H:%M}"
            for moment in (
                one.window and one.window.begins,
                one.window and one.window.ends,
                one.built_at,
            )
        ]
        for one in found
    ]


@pytest.mark.req("R054")
@pytest.mark.parametrize(
    ("schedule", "window", "told"),
    [
        (TWICE, "all_pending", [[None, None, None]] * 3),
        (
            TWICE,
            "since_previous",
            [["Thu 17:00", "Fri 09:00", None], ["Fri 09:00", "Fri 17:00", None], ["Fri 17:00", "Sat 09:00", None]],
        ),
        (
            TWICE,
            {"period": "day"},
            [["Fri 00:00", "Fri 09:00", None], ["Fri 09:00", "Fri 17:00", None], ["Sat 00:00", "Sat 09:00", None]],
        ),
        (
            {"at": ["09:00"], "on": ["mon"]},
            {"period": "week", "days": "mon-fri", "which": "previous"},
            [["Mon 00:00", "Sat 00:00", None]] * 3,
        ),
        ({"at": ["00:00"]}, {"period": "day"}, [["Thu 00:00", "Fri 00:00", None], ["Fri 00:00", "Sat 00:00", None], ["Sat 00:00", "Sun 00:00", None]]),
        ("manual", "since_previous", []),
    ],
)  # fmt: skip
def test_a_departure_has_the_window_of_its_leads_unless_it_takes_all_that_wait(schedule, window, told):
    assert ahead(schedule, window) == told


@pytest.mark.req("R044", "R054")
def test_what_is_built_ahead_is_for_leads_received_until_then():
    """On 8 March the clocks go forward at two, so two hours before four o'clock is one o'clock."""
    schedule = {"at": ["04:00"], "generate_before": "2h"}

    for missed in ("combine", "each"):
        assert ahead({**schedule, "missed": missed}) == [
            [None, None, "Fri 02:00"],
            [None, None, "Sat 02:00"],
            [None, None, "Sun 01:00"],
        ]
    assert ahead(schedule, "since_previous") == [
        ["Thu 02:00", "Fri 02:00", "Fri 02:00"],
        ["Fri 02:00", "Sat 02:00", "Sat 02:00"],
        ["Sat 02:00", "Sun 01:00", "Sun 01:00"],
    ]


def test_the_first_departure_of_all_has_a_window_without_a_beginning():
    schedule = {"at": ["09:00"], "on": {"dates": ["2026-03-06", "2026-03-07"]}}

    assert ahead(schedule, "since_previous") == [[None, "Fri 09:00", None], ["Fri 09:00", "Sat 09:00", None]]


@pytest.mark.parametrize(
    ("schedule", "window", "said"),
    [
        ({"at": ["09:00"]}, "all_pending", ""),
        (
            {"at": ["09:00"], "generate_before": "30m"},
            "all_pending",
            "Its files are built at Fri 2026-03-06 08:30 EST (13:30 UTC).",
        ),
        (
            {"at": ["23:00"]},
            "since_previous",
            (
                "Leads received from Wed 2026-03-04 23:00 EST (Thu 2026-03-05 04:00 UTC)"
                " and before Thu 2026-03-05 23:00 EST (Fri 2026-03-06 04:00 UTC)."
            ),
        ),
        (
            {"at": ["09:00"], "on": {"dates": ["2026-03-06"]}},
            "since_previous",
            "Leads received before Fri 2026-03-06 09:00 EST (14:00 UTC).",
        ),
    ],
)
def test_it_is_said_in_sentences(schedule, window, said):
    batch = make_batch(schedule=schedule, select={"window": window}, timezone="America/New_York")

    assert str(next(outlooks(batch, after=FRIDAY))) == said
