"""The interval loses least, and what is lost is what a simulation of failures loses."""

import numpy as np
import pytest

from batchscale.cost.planning.failures import daly_interval, interruptions
from batchscale.errors import UsageError


def lost(interval, between, checkpoint, restart):
    spent = between * np.exp(restart / between) * np.expm1((interval + checkpoint) / between)
    return 1 - interval / spent


@pytest.mark.parametrize("devices", [8, 1024, 100_000])
def test_no_other_interval_loses_less(devices):
    answer = interruptions(30_000.0, devices, 20.0, 120.0)
    between = 30_000 * 3600 / devices
    assert answer.between_seconds == pytest.approx([between])
    others = np.geomspace(answer.interval_seconds[0] / 30, answer.interval_seconds[0] * 30, 2001)
    assert answer.lost_share[0] <= lost(others, between, 20.0, 120.0).min() * 1.002


def test_few_failures_lose_the_square_root_that_young_says():
    answer = interruptions(1e6, 1, 30.0)
    assert answer.interval_seconds[0] == pytest.approx((2 * 30 * 3.6e9) ** 0.5, rel=1e-3)
    assert answer.lost_share[0] == pytest.approx((2 * 30 / 3.6e9) ** 0.5, rel=1e-2)


def test_a_simulation_loses_as_much():
    between, checkpoint, restart = 4000.0, 60.0, 100.0
    answer = interruptions(between / 3600 * 64, 64, checkpoint, restart)
    interval = answer.interval_seconds[0]
    random, spent, segments = np.random.default_rng(0), 0.0, 40_000
    for _ in range(segments):
        while (life := random.exponential(between)) < interval + checkpoint:
            spent += life
            while (life := random.exponential(between)) < restart:  # a restart may fail, too
                spent += life
            spent += restart
        spent += interval + checkpoint
    assert answer.lost_share[0] == pytest.approx(1 - segments * interval / spent, abs=0.005)


def test_more_devices_lose_more_and_never_all_but_in_the_end():
    answer = interruptions(30_000.0, 8 * 2 ** np.arange(20), 20.0, 120.0)
    assert (np.diff(answer.lost_share) > 0).all()
    assert (answer.lost_share >= 0).all()
    assert (answer.lost_share <= 1).all()
    assert daly_interval(10.0, np.array([4.0]))[0] == 4.0


@pytest.mark.parametrize("bad", [(0.0, 8, 1.0), (1.0, 8, 0.0), (1.0, 8, 1.0, -1.0), (float("nan"), 8, 1.0)])
def test_numbers_that_are_none_are_refused(bad):
    with pytest.raises(UsageError, match="correct it"):
        interruptions(*bad)
