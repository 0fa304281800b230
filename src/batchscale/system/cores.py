"""The cores that this process may use: fewer than the machine has in a container, below taskset or a cluster's job."""

from __future__ import annotations

import os

from batchscale.system.control_groups import core_quota


def available_cores(root: str = "/") -> int:
    """How many: those that it may run on, and no more than its control groups' CPU quota pays for.

    Args:
        root: of the file system that the control groups are looked up in.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, core_quota(root) or allowed)
