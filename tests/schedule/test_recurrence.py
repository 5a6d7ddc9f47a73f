"""Rules of calendar programs and cron expressions: what they name, what is refused."""

from __future__ import annotations

import pytest

from leadferry.schedule.recurrence import parse_cron


@pytest.mark.parametrize(
    "days",
    [
        "R * *", "* R *", "* * R", "r * *", "R(1-5) * *", "R/3 * *", "* * R(1-5)", "1,R * *", "R,15 * *", "* * mon,R",
        "H * *", "* H *", "* * H", "h * *", "H(1-28) * *", "H/2 * *", "* * H(1-5)",
    ],
)  # fmt: skip
def test_a_day_drawn_by_lot_is_refused(days):
    with pytest.raises(ValueError, match="draw a day by lot, another one in each process; write the day"):
        parse_cron(f"0 9 {days}")


@pytest.mark.parametrize(
    "days",
    ["* mar *", "* MAR,apr *", "* * FRI", "* * fri#2", "* * thu-fri", "* mar-apr,oct fri", "L * *", "* * L5"],
)
def test_names_of_months_and_weekdays_with_the_same_letters_are_fine(days):
    assert parse_cron(f"0 9 {days}").days == f"0 0 {days}"
