"""batchscale's own contender in exact mode."""

from __future__ import annotations

from batchscale.bench.assignment import Assignment
from batchscale.bench.meter import Meter
from batchscale.bench.ours import train


def main(assignment: Assignment, meter: Meter) -> None:
    """Exact mode."""
    train(assignment, meter, exact=True)
