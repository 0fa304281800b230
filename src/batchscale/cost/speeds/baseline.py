"""The naive fits that a planner must beat: a curve through two points, and a rule of thumb."""

from __future__ import annotations

import numpy as np

from batchscale.cost.speeds.series import Floats

RULE_PERCENT = 2.0
"""Slower for each doubling of the devices: the rule of thumb."""


def curve_speeds(devices: Floats, speeds: Floats, others: Floats) -> Floats:
    """Speeds by T(d) = a + b (1 - 1 / d), through two points.

    The form of a ring's bytes, 2 (d - 1) / d of the gradients, that nothing hides.

    Args:
        devices, speeds: the two points, examples a second of all devices together (2).
        others: device counts (n).

    Returns:
        Examples a second (n); not a number where the curve would need no time at all.
    """
    seconds = devices / speeds
    b = (seconds[1] - seconds[0]) / (1 / devices[0] - 1 / devices[1])
    predicted = seconds[0] + b * (1 / devices[0] - 1 / others)
    return np.where(predicted > 0, others / np.where(predicted > 0, predicted, 1), np.nan)


def rule_speeds(devices: float, speed: float, others: Floats) -> Floats:
    """Speeds by the rule of thumb, from one point.

    Args:
        devices, speed: the point.
        others: device counts (n).

    Returns:
        Examples a second (n).
    """
    slower = (1 + RULE_PERCENT / 100) ** np.log2(others / devices)
    return np.asarray(speed / devices * others / slower)
