"""Plans of a made-up cluster whose step time is known in closed form."""

from __future__ import annotations

import numpy as np

from batchscale.cost.planning.goal import CriticalEstimate, EpochGoal
from batchscale.cost.planning.pace import DeviceLoad, Pace
from batchscale.cost.planning.question import Bounds, PlanQuestion, Trained

DEVICES = (8, 16, 32, 64, 128, 256)


class ToyPhysics:
    """T = 0.001 n + 0.01 log2(hosts) seconds: a halving/doubling that nothing hides; a ring is faster on one host."""

    def load(self, per_device):
        return DeviceLoad(1e9 * per_device, 1e13, per_device, 1e6 * per_device)

    def best(self, devices, per_device):
        hosts = np.maximum(devices / 8, 1)
        names = ["ring" if count <= 8 else "halving_doubling" for count in devices]
        return names, np.log(0.001 * per_device + 0.01 * np.log2(hosts))


def toy_plan(**changes):
    """A question: 64 workers of 32, a million examples, B_crit = 4,096."""
    settings = {
        "trained": Trained("toy", 64, 32, 1_000_000),
        "cluster": "toy",
        "devices": DEVICES,
        "pace": Pace(ToyPhysics(), 8),
        "goal": EpochGoal("10 epochs", 2048.0, 10.0, critical=CriticalEstimate(4096.0, 2048.0, 8192.0, "made up")),
        "price": 2.0,
        "bounds": Bounds(),
    }
    return PlanQuestion(**(settings | changes))
