"""Medians, interquartile ranges, and ratios of paired measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """median; iqr: third minus first quartile (0 for a single value)."""

    median: float
    iqr: float


def spread(values: Sequence[float]) -> Spread:
    """Median and interquartile range, quartiles interpolated between the values (the inclusive method)."""
    if len(values) < 2:
        return Spread(values[0], 0.0)
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, third - first)


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The median over rounds r of above[r] / below[r], with its interquartile range.

    Args:
        above, below: one value a round, taken in the same round.
    """
    return spread([a / b for a, b in zip(above, below, strict=True)])
