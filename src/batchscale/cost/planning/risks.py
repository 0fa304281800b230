"""What failures add to the hours of a run, with checkpoints as often as is best, or with none.

with checkpoints     t / (1 - share lost)              share: Daly's, ``failures.py``
without              M e^(R / M) (e^(t / M) - 1)       begun anew after each failure

t hours of work, M mean time between two failures of the run, R of a restart. A run takes the shorter of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from batchscale.cost.planning.failures import Interruptions, interruptions
from batchscale.cost.speeds.series import Floats

CHECKPOINT_SECONDS = 30.0
"""Stated: to write and sync weights and the optimizer's state, while which nothing else is done."""
RESTART_SECONDS = 300.0
"""Stated: from a failure to the first step after it."""
MOST_STRETCHED = 1000.0
"""Times its work: what takes longer never ends, for more than 99.9 % of its time are lost."""


@dataclass(frozen=True)
class Risks:
    """Of a cluster's devices.

    Args:
        device_mtbf_hours: mean time between failures that end a run, of one device.
    """

    device_mtbf_hours: float

    def at(self, devices: Floats) -> Interruptions:
        """At each device count (m)."""
        return interruptions(self.device_mtbf_hours, devices, CHECKPOINT_SECONDS, RESTART_SECONDS)


def stretched(hours: float, risks: Interruptions | None, place: int) -> float:
    """The hours of so much work, failures and all; infinite where next to no time is left between two.

    Args:
        hours: without any.
        risks: at the device counts of a plan; None: nothing is known.
        place: of the count.
    """
    if risks is None:
        return hours
    between, seconds = float(risks.between_seconds[place]), 3600 * hours
    with np.errstate(over="ignore"):  # without checkpoints it would never end
        anew = float(between * np.exp(RESTART_SECONDS / between) * np.expm1(seconds / between))
    left = 1 - float(risks.lost_share[place])
    whole = min(anew, seconds / left if left > 0 else math.inf)
    return whole / 3600 if whole <= MOST_STRETCHED * seconds else math.inf
