"""kill -9 of the process that delivers, at every step and at any moment (I1-I6)."""

import random
import signal

import ferry_driver
import pytest
from harbour import COUNT, Driver

KILLS = 20
AT_MOST_TWICE_IN_A_ROW = (1, 1, 2)


@pytest.fixture
def watcher(harbour):
    """Sees everything that ever stands under a final name at the buyer's."""
    driver = Driver(ferry_driver.watch, str(harbour.inbox))
    yield driver
    driver.kill()


def what_was_seen(watcher):
    watcher.go()
    return watcher.hear()


@pytest.mark.req("F01", "R170", "F12", "C01")
def test_i6_killed_before_or_after_every_step_each_lead_is_delivered_once(harbour, watcher):
    points = [(when, point) for point in ferry_driver.POINTS for when in ("before", "after")]
    for number, point in enumerate(points):
        harbour.add_leads(200)
        assert harbour.attempt(f"run-{number}", kill=point) is None, f"{point} was never reached"
        said = harbour.until_done(f"run-{number}")
        assert said == ["delivered"], point
    harbour.assert_every_lead_arrived_once(what_was_seen(watcher))


@pytest.mark.req("F01", "R170")
def test_i6_killed_at_any_moment_each_lead_is_delivered_once(harbour, watcher):
    took = harbour.measure()
    chance = random.Random(20260130)
    killed = 0
    for number in range(KILLS):
        harbour.add_leads(COUNT)
        for _ in range(chance.choice(AT_MOST_TWICE_IN_A_ROW)):
            driver = harbour.start(f"run-{number}")
            driver.process.join(took * (number + chance.random()) / KILLS)
            driver.process.kill()
            killed += driver.end() == -signal.SIGKILL
        harbour.until_done(f"run-{number}")
    assert killed >= KILLS * 2 // 3
    harbour.assert_every_lead_arrived_once(what_was_seen(watcher))
