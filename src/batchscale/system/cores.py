"""The cores that this process may use: fewer than the machine has in a container, below taskset or a cluster's job."""

from __future__ import annotations

import os


def available_cores() -> int:
    """How many; the machine's where the system does not tell a process's own."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
