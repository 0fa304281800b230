"""The speed of one device alone, from a step that was measured on several.

Finds the rate at which the step of the model takes what was measured; the only number that is fitted.
"""

from __future__ import annotations

from typing import Any

from batchscale.cost.clusters.cluster import ClusterFile
from batchscale.cost.step.net_table import NetTable
from batchscale.cost.step.step_time import step_time
from batchscale.errors import DataError

_HALVINGS = 60


def rate_of_step(
    net: NetTable, cluster: ClusterFile, devices: int, per_device: int, seconds: float, **options: Any
) -> float:
    """Examples a second of one device alone.

    Args:
        net, cluster, devices, per_device: of the measured step.
        seconds: measured.
        options: of ``step_time``, such as the algorithm.

    Raises:
        DataError: the step was faster than its communication alone can be.
        UsageError: a count that is none.
    """
    slow, fast = per_device / seconds, per_device / seconds * 1e6

    def total(rate: float) -> float:
        return float(step_time(net, cluster, devices, per_device, rate=rate, **options).total[0])

    if total(fast) > seconds:
        raise DataError(
            f"{seconds:g} s a step of {devices} devices: the all-reduce alone takes {total(fast):g} s by the cluster's "
            f"links; correct the links, or the measured time"
        )
    for _ in range(_HALVINGS):  # the step is the shorter the higher the rate
        middle = (slow * fast) ** 0.5
        slow, fast = (middle, fast) if total(middle) > seconds else (slow, middle)
    return fast
