"""How fast requests may go, by a clock of the test's own."""

from datetime import UTC, datetime

import pytest

from leadferry.destinations.http.pace import Pace, retry_after


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.req("F22")
def test_a_second_has_no_more_requests_than_allowed():
    clock = Clock()
    pace, gone = Pace(4, clock=clock), []
    for _ in range(9):
        clock.now += pace.delay()
        pace.gone()
        gone.append(clock.now)
    assert gone == [100 + number / 4 for number in range(9)]


def test_time_that_was_not_used_is_not_saved_up():
    clock = Clock()
    pace = Pace(4, clock=clock)
    clock.now += 60
    pace.gone()
    assert pace.delay() == 0.25


def test_a_pause_holds_for_all_and_a_shorter_one_does_not_end_it():
    clock = Clock()
    pace = Pace(None, clock=clock)
    assert pace.delay() == 0
    pace.pause(30)
    pace.pause(1)
    assert pace.delay() == 30


NOON = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)


@pytest.mark.req("F22")
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Fri, 30 Jan 2026 12:00:30 GMT", 30),
        ("Fri, 30 Jan 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header, seconds):
    assert retry_after(header, now=NOON) == seconds
