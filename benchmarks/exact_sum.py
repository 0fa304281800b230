"""Order-free sums of a worker's gradient: float64 on a grid against int64 fixed point, and what a plain sum costs.

python benchmarks/exact_sum.py [WEIGHTS]

All three in turn in one run, one thread; the median of paired ratios with its interquartile range.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

ROUNDS = 41


def main(weights: int) -> None:
    """Time, print."""
    torch.set_num_threads(1)
    gradient = torch.randn(weights) * 1e-3
    grid = torch.full((weights,), 1.5 * 2.0**52 * 2.0**-60, dtype=torch.float64)
    wide = torch.zeros(weights, dtype=torch.float64)
    fixed = torch.zeros(weights, dtype=torch.int64)
    plain = torch.zeros(weights)

    def on_grid() -> None:
        wide.add_((gradient.double() + grid).sub_(grid))

    def fixed_point() -> None:
        fixed.add_((gradient.double() * 2.0**60).round_().long())

    def plain_sum() -> None:
        plain.add_(gradient)

    ways: dict[str, Callable[[], None]] = {
        "float64 grid": on_grid,
        "int64 fixed point": fixed_point,
        "plain float32": plain_sum,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(ROUNDS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        ratios = sorted(a / b for a, b in zip(times, seconds["float64 grid"], strict=True))
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:<18} {1e3 * statistics.median(times):8.3f} ms   "
            f"{statistics.median(ratios):5.2f} x the grid (iqr {high - low:.2f})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
