"""Numbers with their intervals: a few hundred draws of all that is uncertain, the same ones in every number of a plan.

The draws are a lattice, not random: u_ij = frac(1/2 + i sqrt(p_j)), p_j the j-th prime, put through the normal's
quantiles. So a plan is the same at every call, and what two numbers share (a device's rate) cancels in their ratio.

Source: Niederreiter 1992, "Random Number Generation and Quasi-Monte Carlo Methods", section 2 (Richtmyer's lattice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from batchscale.cost.speeds.series import Floats

DRAWS = 512
LEVEL = 0.9
"""Of all intervals."""
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
_ENDS = [round((0.5 - LEVEL / 2) * DRAWS), round((0.5 + LEVEL / 2) * DRAWS) - 1]  # of sorted draws


@cache
def normals(columns: int, draws: int = DRAWS) -> Floats:
    """Standard normal values, evenly spread over all columns together.

    Args:
        columns: one for each thing that is uncertain, at most 8.
        draws: rows.

    Returns:
        (draws, columns).
    """
    places = np.modf(0.5 + np.outer(np.arange(1, draws + 1), np.sqrt(_PRIMES[:columns])))[0]
    quantile = NormalDist().inv_cdf
    even = np.array([quantile((place + 0.5) / draws) for place in range(draws)])
    return np.asarray(even[places.argsort(axis=0).argsort(axis=0)])  # by rank, so that each column alone is even


def medians_of(draws: Floats) -> Floats:
    """Of each column (D, m) -> (m); numpy's own loads masked arrays first, which a plan need not wait for."""
    middle = len(draws) // 2
    return np.asarray(np.sort(draws, axis=0)[middle - 1 : middle + 1].mean(axis=0))


@dataclass(frozen=True)
class Estimate:
    """A number and its interval of 90 %.

    Args:
        value: what is taken.
        low, high: ends.
    """

    value: float
    low: float
    high: float

    @property
    def ends(self) -> list[float]:
        """As in a document."""
        return [self.low, self.high]

    def times(self, factor: float) -> Estimate:
        """In another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def estimates(values: Sequence[float], log_draws: Floats) -> list[Estimate]:
    """Values with the intervals that draws of their logarithms give, which hold the values in any case.

    Args:
        values: (m).
        log_draws: (D, m).
    """
    ends = np.exp(np.sort(log_draws, axis=0)[_ENDS]).T
    return [
        Estimate(value, min(float(low), value), max(float(high), value))
        for value, (low, high) in zip(values, ends, strict=True)
    ]
