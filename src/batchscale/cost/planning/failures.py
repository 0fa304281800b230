"""Failures of many devices: how often one ends a run, when to write checkpoints, and what share of the time is lost.

    M = device's mean time between failures / W
    interval = sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + d / 18M) - d   for d < 2 M, else M
    share lost = 1 - interval / (M e^(R / M) (e^((interval + d) / M) - 1))

d seconds of a checkpoint, R seconds until a run goes on after a failure; failures come independently, at a constant
rate, and the work since the last checkpoint is done again. The interval counts seconds of work.

Source: Young 1974; Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscale.cost.step.net_table import Floats
from batchscale.errors import UsageError

_HOUR = 3600.0


@dataclass(frozen=True)
class Interruptions:
    """At each of n device counts.

    Args:
        between_seconds: mean time between two failures of the run (n).
        interval_seconds: of work between two checkpoints, by Daly (n).
        lost_share: of the time, to checkpoints, to work done again and to restarts (n).
    """

    between_seconds: Floats
    interval_seconds: Floats
    lost_share: Floats


def interruptions(
    device_mtbf_hours: float, devices: npt.ArrayLike, checkpoint_seconds: float, restart_seconds: float = 0.0
) -> Interruptions:
    """What failures cost at their best checkpoint interval.

    Args:
        device_mtbf_hours: mean time between failures that end a run, of one device.
        devices: W (n).
        checkpoint_seconds: d, while which nothing else is done.
        restart_seconds: R, from a failure to the first step after it.

    Raises:
        UsageError: a number that is none.
    """
    given = {"device_mtbf_hours": device_mtbf_hours, "checkpoint_seconds": checkpoint_seconds}
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise UsageError(f"{name}={value:g}: must be a number above 0; correct it")
    if not 0 <= restart_seconds < math.inf:
        raise UsageError(f"restart_seconds={restart_seconds:g}: must be a number of at least 0; correct it")
    between = device_mtbf_hours * _HOUR / np.atleast_1d(np.asarray(devices, np.float64))
    interval = daly_interval(checkpoint_seconds, between)
    with np.errstate(over="ignore"):  # nothing is left of a run that fails all the time
        spent = between * np.exp(restart_seconds / between) * np.expm1((interval + checkpoint_seconds) / between)
    return Interruptions(between, interval, 1 - interval / spent)


def daly_interval(checkpoint_seconds: float, between_seconds: Floats) -> Floats:
    """Seconds of work between two checkpoints of which least is lost (n)."""
    ratio = checkpoint_seconds / (2 * between_seconds)
    higher = np.sqrt(2 * checkpoint_seconds * between_seconds) * (1 + np.sqrt(ratio) / 3 + ratio / 9)
    return np.where(ratio < 1, higher - checkpoint_seconds, between_seconds)
