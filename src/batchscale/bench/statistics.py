"""Medians, interquartile ranges, ratios of paired measurements, and when such a ratio tells slower from not slower."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import comb
from typing import Literal

LEVEL, MARGIN, FEWEST_PAIRS = 0.9, 0.02, 30
"""Of the interval, the speed that may be lost, and the pairs from which on anything is called slower or not."""

Verdict = Literal["not slower", "slower", "not resolved"]


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
    return spread(ratios_of(above, below))


def ratios_of(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """above[r] / below[r] of every round r."""
    return [a / b for a, b in zip(above, below, strict=True)]


def median_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """The interval of a median by order statistics: the r-th value from either end, free of any distribution.

    P(fewer than r of m values lie below the median) = 2^-m sum_{i<r} C(m, i), at most (1 - level) / 2; the largest r.

    Args:
        values: m of them, independent.
        level: that it holds the median with, at least.

    Returns:
        (low, high); None where m values are too few for the level.
    """
    count, ordered = len(values), sorted(values)
    tails = accumulate(comb(count, below) for below in range(count + 1))
    place = sum(tail <= (1 - level) / 2 * 2**count for tail in tails)
    return (ordered[place - 1], ordered[-place]) if place else None


def verdict_of(ratios: Sequence[float], margin: float = MARGIN) -> Verdict:
    """Whether speed is lost, by the interval of the median of paired ratios: a test of non-inferiority.

    Args:
        ratios: of speeds, ours to the other's, one a pair.
        margin: as a share of the other's speed.

    Returns:
        "not slower" where the whole interval lies above 1 - margin, "slower" where it lies below; "not resolved" where
        it holds 1 - margin, or where there are fewer than 30 pairs.
    """
    interval = median_interval(ratios)
    if interval is None or len(ratios) < FEWEST_PAIRS or interval[0] <= 1 - margin <= interval[1]:
        return "not resolved"
    return "not slower" if interval[0] > 1 - margin else "slower"
