"""batchscale's own contender in exact mode."""

from __future__ import annotations

from batchscale.bench.meter import Meter
from batchscale.bench.ours import train
from batchscale.bench.task import Task


def main(task: Task, meter: Meter) -> None:
    """Exact mode."""
    train(task, meter, exact=True)
