"""How lengths of time are told to people."""

from datetime import timedelta

import pytest

from leadferry.units import told_duration, told_roughly


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (timedelta(0), "0 seconds"),
        (timedelta(microseconds=999_999), "0 seconds"),
        (timedelta(seconds=90), "1 minute 30 seconds"),
        (timedelta(minutes=30), "30 minutes"),
        (timedelta(hours=36), "1 day 12 hours"),
        (timedelta(days=1, hours=4), "1 day 4 hours"),
        (timedelta(days=2), "2 days"),
    ],
)
def test_a_length_of_time_is_said_in_words(length, said):
    assert told_duration(length) == said


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (timedelta(seconds=59.9), "59 seconds"),
        (timedelta(seconds=95), "2 minutes"),
        (timedelta(hours=23, minutes=59, seconds=40), "1 day"),
    ],
)
def test_a_measured_length_is_said_to_the_minute(length, said):
    assert told_roughly(length) == said
